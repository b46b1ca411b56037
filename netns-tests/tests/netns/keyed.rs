//! Two daemons with short timings that tell their keys.

use std::time::Duration;

use anyhow::Result;
use lab::{Daemon, DaemonOptions, Host, KeyLog, Lab, Mesh, Relay, Underlay};

const LAB_DAEMON: &str = env!("CARGO_BIN_EXE_mesh-lab-daemon");

/// Keys in use are replaced after this.
pub(crate) const REKEY: Duration = Duration::from_secs(3);
/// Keys are refused after this.
pub(crate) const REJECT: Duration = Duration::from_secs(20);
/// A chain of keys ends after this.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(15);

/// A network of two such daemons, and what they tell.
pub(crate) struct Pair<'lab> {
    pub(crate) mesh: Mesh<'lab>,
    pub(crate) logs: [KeyLog; 2],
}

impl<'lab> Pair<'lab> {
    /// Starts `laptop`, the coordinator, and `pi`; `settings` gives lines of configuration for a host among all.
    pub(crate) fn new(lab: &'lab Lab, settings: impl Fn(&Host, &[Host]) -> Result<String>) -> Result<Self> {
        let switch = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &switch.host("relay")?)?;
        let hosts = [switch.host("laptop")?, switch.host("pi")?];
        let (laptop, laptop_log) = start(lab, &hosts[0], settings(&hosts[0], &hosts)?)?;
        let (pi, pi_log) = start(lab, &hosts[1], settings(&hosts[1], &hosts)?)?;
        laptop.up_new("home", &relay.url(), "laptop")?;
        pi.join(&laptop.invite(&["--name", "pi"])?)?;
        Ok(Self { mesh: Mesh { relay, nodes: vec![laptop, pi], switch }, logs: [laptop_log, pi_log] })
    }
}

fn start(lab: &Lab, host: &Host, extra: String) -> Result<(Daemon, KeyLog)> {
    let log = KeyLog::new(lab.path(&format!("keys-{}", host.name()))?)?;
    let seconds = |time: Duration| time.as_secs().to_string();
    let arguments = vec![
        "--lab-rekey".into(),
        seconds(REKEY),
        "--lab-reject".into(),
        seconds(REJECT),
        "--lab-handshake".into(),
        seconds(HANDSHAKE),
        "--lab-keys".into(),
        log.path().display().to_string(),
    ];
    let options =
        DaemonOptions { program: Some(LAB_DAEMON.into()), arguments, extra, ..DaemonOptions::default() };
    Ok((Daemon::start(lab, host, &options)?, log))
}
