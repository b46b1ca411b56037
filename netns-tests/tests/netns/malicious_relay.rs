//! The relay's operator is the attacker: a relay with the true key stands in for the honest one and spoils what passes.
//! Nothing stands that should not, nothing can be read, the daemons live on, and the honest relay finds all as it was.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Lab, Mesh, MeshOptions, Process, Relay, RelayOptions, scenario, session_with, wait_until};

/// A network whose relay has changed hands.
struct Siege<'siege, 'lab> {
    lab: &'lab Lab,
    mesh: &'siege mut Mesh<'lab>,
    relay: Process,
    capture: PathBuf,
    rss_kib: Vec<u64>,
}

impl<'siege, 'lab> Siege<'siege, 'lab> {
    /// Puts the malicious relay in the place of the honest one. `anew` starts the daemons without their sessions, so
    /// that they need handshakes.
    fn lay(lab: &'lab Lab, mesh: &'siege mut Mesh<'lab>, words: &[&str], anew: bool) -> Result<Self> {
        mesh.relay.stop()?;
        if anew {
            mesh.nodes.iter_mut().try_for_each(Daemon::kill)?;
        }
        let capture = lab.path(&format!("capture-{}", lab.serial()))?;
        let mut relay = mesh
            .relay
            .host()
            .run(LAB_RELAY)
            .args(["--listen", &format!("[::]:{}", Relay::PORT)])
            .args(["--pem", &mesh.relay.certificate().display().to_string()])
            .args(["--capture", &capture.display().to_string(), "--mode"])
            .args(words.iter().copied())
            .spawn(&format!("malicious-{}", lab.serial()))?;
        relay.wait_for_log("ready", Duration::from_secs(5))?;
        if anew {
            mesh.nodes.iter_mut().try_for_each(Daemon::launch)?;
        }
        let rss_kib = mesh.nodes.iter_mut().map(|node| node.process()?.rss_kib()).collect::<Result<_>>()?;
        Ok(Self { lab, mesh, relay, capture, rss_kib })
    }

    /// Both daemons took the relay for the true one, as its key is.
    fn is_trusted(&self) -> Result<()> {
        for node in &self.mesh.nodes {
            node.wait_for_status("the relay", Duration::from_secs(20), |s| s.relay_state() == "connected")?;
        }
        Ok(())
    }

    /// Pings from both sides, whose content is known, until told to end.
    fn traffic(&self) -> Result<Vec<Process>> {
        let [one, other] = self.mesh.nodes.as_slice() else { unreachable!("two nodes") };
        [(one, other), (other, one)]
            .into_iter()
            .map(|(from, to)| {
                from.host()
                    .run("ping")
                    .args(["-n", "-O", "-i", "0.1", "-s", "700", "-p", PATTERN_HEX, &address(from, to)?])
                    .spawn(&format!("ping-{}", self.lab.serial()))
            })
            .collect()
    }

    /// Waits until the relay has done what it is for so often.
    fn wait_for_mischief(&mut self, count: u32) -> Result<()> {
        self.relay.wait_for_log(&format!("mischief {count}\n"), Duration::from_secs(60)).map(drop)
    }

    /// Ends the siege: the daemons live, nothing could be read, and the honest relay brings everything back.
    fn lift(mut self, what: &str) -> Result<()> {
        for (node, before) in self.mesh.nodes.iter_mut().zip(&self.rss_kib) {
            ensure!(node.process()?.is_running()?, "{what}: {} fell over", node.name());
            let now = node.process()?.rss_kib()?;
            ensure!(now < before + MEMORY_KIB, "{what}: {} grew from {before} to {now} KiB", node.name());
        }
        ensure!(self.relay.is_running()?, "{what}: the malicious relay fell over: {}", self.relay.log()?);
        self.relay.kill()?;
        let seen = fs::read(&self.capture)?;
        for secret in [PATTERN, MARK] {
            ensure!(!contains(&seen, secret), "{what}: the relay saw plaintext");
        }
        self.mesh.relay.launch()?;
        let back = Instant::now();
        let [one, other] = self.mesh.nodes.as_slice() else { unreachable!("two nodes") };
        for (from, to) in [(one, other), (other, one)] {
            let address = address(from, to)?;
            let ping = || from.host().run("ping").args(["-n", "-c", "1", "-W", "1", &address]).output();
            wait_until(&format!("{what}: data over the honest relay"), RECOVERY, || {
                Ok((ping()?.code == Some(0)).then_some(()))
            })?;
        }
        ensure!(back.elapsed() < RECOVERY, "{what}: data came back after {:?}", back.elapsed());
        self.mesh.ping_all()
    }

    /// How many bytes passed.
    fn passed(&self) -> Result<u64> {
        Ok(fs::metadata(&self.capture)?.len())
    }
}

#[test]
fn control_relay_that_does_its_work_carries_data_that_it_cannot_read() {
    scenario("control_relay_that_does_its_work_carries_data_that_it_cannot_read", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        let siege = Siege::lay(lab, &mut mesh, &["honest"], true)?;
        siege.is_trusted()?;
        for mut ping in siege.traffic()? {
            ping.wait_for_log("bytes from", Duration::from_secs(20))?;
        }
        fetch(lab, siege.mesh)?;
        assert!(siege.passed()? > PAGE, "the data went elsewhere");
        assert!(siege.relay.log()?.contains("is welcome"));
        siege.lift("control")
    });
}

/// Each of the four messages, changed in one byte at a place by chance.
#[test]
fn changed_handshake_messages_establish_nothing() {
    scenario("changed_handshake_messages_establish_nothing", |lab| {
        let kinds = ["hello", "challenge", "response", "established"];
        spoil(lab, &kinds.map(|kind| ["tamper", "--kind", kind]).each_ref().map(<[&str; 3]>::as_slice))
    });
}

#[test]
fn cut_and_dropped_handshake_messages_establish_nothing() {
    scenario("cut_and_dropped_handshake_messages_establish_nothing", |lab| {
        let ways: [&[&str]; 4] = [
            &["truncate"],
            &["lengthen", "--kind", "response"],
            &["drop"],
            &["truncate", "--kind", "established"],
        ];
        spoil(lab, &ways)
    });
}

#[test]
fn misdirected_handshake_messages_establish_nothing() {
    scenario("misdirected_handshake_messages_establish_nothing", |lab| {
        let ways: [&[&str]; 4] = [
            &["reflect"],
            &["misattribute"],
            &["splice", "--kind", "challenge"],
            &["splice", "--kind", "response"],
        ];
        spoil(lab, &ways)
    });
}

/// Under each of `ways` the daemons try and fail; between them they reach each other over the honest relay.
fn spoil(lab: &Lab, ways: &[&[&str]]) -> Result<()> {
    let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
    for words in ways {
        let what = words.join(" ");
        let mut siege = Siege::lay(lab, &mut mesh, words, true)?;
        siege.is_trusted()?;
        let pings = siege.traffic()?;
        siege.wait_for_mischief(6)?;
        for ping in &pings {
            ensure!(!ping.log()?.contains("bytes from"), "{what}: a ping passed: {}", ping.log()?);
        }
        // A responder holds keys from ESTABLISHED on, which nothing but a frame of the initiator confirms.
        if !words.contains(&"established") {
            for (node, peer) in siege.mesh.nodes.iter().zip(["pi", "laptop"]) {
                let status = node.status()?;
                ensure!(session_with(&status, peer).is_err(), "{what}: a session: {}", status.peer(peer)?);
            }
        }
        drop(pings);
        siege.lift(&what)?;
    }
    Ok(())
}

#[test]
fn changed_frames_are_dropped_and_the_sessions_stand() {
    scenario("changed_frames_are_dropped_and_the_sessions_stand", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let mut siege = Siege::lay(lab, &mut mesh, &["tamper-frames"], false)?;
        siege.is_trusted()?;
        let pings = siege.traffic()?;
        siege.wait_for_mischief(64)?;
        for ping in &pings {
            ensure!(!ping.log()?.contains("bytes from"), "a ping passed: {}", ping.log()?);
        }
        let forged: u64 = lab::drops(&siege.mesh.nodes[0].status()?, "forged");
        assert!(forged > 5, "the changed frames were not noticed");
        drop(pings);
        siege.lift("tamper-frames")
    });
}

#[test]
fn repeated_and_disordered_messages_double_nothing() {
    scenario("repeated_and_disordered_messages_double_nothing", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        for mode in ["replay", "reorder"] {
            let mut siege = Siege::lay(lab, &mut mesh, &[mode], true)?;
            siege.is_trusted()?;
            let mut pings = siege.traffic()?;
            for ping in &mut pings {
                ping.wait_for_log("bytes from", Duration::from_secs(30))?;
            }
            siege.wait_for_mischief(1024)?;
            for ping in &pings {
                let log = ping.log()?;
                ensure!(!log.contains("DUP!"), "{mode}: a packet was accepted twice: {log}");
                ensure!(!log.contains("wrong data"), "{mode}: a packet arrived changed: {log}");
            }
            drop(pings);
            siege.lift(mode)?;
        }
        Ok(())
    });
}

#[test]
fn rosters_of_the_relay_are_not_taken() {
    scenario("rosters_of_the_relay_are_not_taken", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let before = mesh.nodes[1].status()?.0["network"].clone();
        let mut siege = Siege::lay(lab, &mut mesh, &["roster"], false)?;
        siege.is_trusted()?;
        let mut pings = siege.traffic()?;
        siege.wait_for_mischief(64)?;
        pings[0].wait_for_log("bytes from", Duration::from_secs(20))?;
        for node in &siege.mesh.nodes {
            let status = node.status()?;
            assert_eq!(status.members(), 2, "{}", status.0["network"]);
            assert_eq!(status.0["network"]["roster_version"], before["roster_version"], "{}", status.0);
        }
        drop(pings);
        siege.lift("roster")?;
        // A version that was never one does not stand in the way of the next true one.
        let newcomer = mesh.stranger(lab, "tablet")?;
        newcomer.join(&mesh.nodes[0].invite(&["--name", "tablet"])?)?;
        mesh.nodes[1].wait_for_status("the next roster", Duration::from_secs(20), |s| s.members() == 3)?;
        newcomer.ping_address(&mesh.nodes[1].ipv4()?)
    });
}

#[test]
fn lies_and_nonsense_of_the_relay_do_no_lasting_harm() {
    scenario("lies_and_nonsense_of_the_relay_do_no_lasting_harm", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        for (mode, count) in [("presence", 256), ("garbage", 2048), ("oversize", 8)] {
            let mut siege = Siege::lay(lab, &mut mesh, &[mode], false)?;
            siege.is_trusted()?;
            let pings = siege.traffic()?;
            siege.wait_for_mischief(count)?;
            for ping in &pings {
                ensure!(!ping.log()?.contains("wrong data"), "{mode}: a packet arrived changed");
            }
            drop(pings);
            siege.lift(mode)?;
        }
        Ok(())
    });
}

/// The relay is a man in the middle: the challenge of an honest relay, which has the same key even, is answered for the
/// TLS connection to the malicious one, and counts for nothing at the honest one.
#[test]
fn forwarded_challenge_opens_no_other_relay() {
    scenario("forwarded_challenge_opens_no_other_relay", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        let host = mesh.switch.host("honest")?;
        let certificate = mesh.relay.certificate().display().to_string();
        let options = RelayOptions {
            extra: format!("certificate = \"{certificate}\"\nkey = \"{certificate}\"\n"),
            ..RelayOptions::default()
        };
        let honest = Relay::with(lab, &host, &options)?;
        assert_eq!(honest.url().split('#').nth(1), mesh.relay.url().split('#').nth(1), "the same key");
        let upstream = format!("{}:{}", host.address(), Relay::PORT);
        let mut siege = Siege::lay(lab, &mut mesh, &["forward-challenge", "--upstream", &upstream], true)?;
        let log = siege.relay.wait_for_log("upstream refused", Duration::from_secs(30))?;
        assert!(log.contains("forwarded an answer"), "{log}");
        siege.mesh.nodes[1].wait_for_status("the refusal", Duration::from_secs(30), |status| {
            status.relay_state() != "connected" && status.0.to_string().contains("signature")
        })?;
        assert!(!siege.relay.log()?.contains("let us in"), "{}", siege.relay.log()?);
        let metrics = host.run("curl").args(["-sS", "http://127.0.0.1:9464/metrics"]).ok()?.stdout;
        let refused = metrics.lines().filter(|line| line.contains("signature") && !line.starts_with('#'));
        let counts: Vec<&str> = refused.filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert!(counts.iter().any(|count| *count != "0"), "{metrics}");
        siege.lift("forward-challenge")
    });
}

/// Fetches a page whose every line is known.
fn fetch(lab: &Lab, mesh: &Mesh<'_>) -> Result<()> {
    let [one, other] = mesh.nodes.as_slice() else { unreachable!("two nodes") };
    let page = lab.path("web/page")?;
    let copies = usize::try_from(PAGE)? / MARK.len() + 1;
    fs::write(&page, MARK.repeat(copies))?;
    let mut server = other
        .host()
        .run(PROBE)
        .args(["http", "--bind", "[::]:80", "--file", &page.display().to_string()])
        .spawn("http")?;
    server.wait_for_log("ready", Duration::from_secs(5))?;
    let url = format!("http://{}/page", address(one, other)?);
    let text = one.host().run("curl").args(["-sSf", &url]).limit(Duration::from_secs(30)).ok()?.stdout;
    assert!(text.as_bytes() == MARK.repeat(copies), "the page changed on its way");
    Ok(())
}

/// The overlay address of a node, as another one knows it: a node without a relay may not say its own.
fn address(from: &Daemon, to: &Daemon) -> Result<String> {
    let status = from.status()?;
    let addresses = status.peer(to.name())?["addresses"].as_array().context("no addresses")?.clone();
    let mut texts = addresses.iter().filter_map(|address| address.as_str());
    texts.find(|text| !text.contains(':')).map(str::to_owned).context("no IPv4 address")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

const LAB_RELAY: &str = env!("CARGO_BIN_EXE_mesh-lab-relay");
const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");
/// What the pings are filled with, and the same for `ping -p`.
const PATTERN: &[u8] = b"plain ping bytes";
const PATTERN_HEX: &str = "706c61696e2070696e67206279746573";
/// The page in the clear.
const MARK: &[u8] = b"a line of a page that no relay may read\n";
/// Bytes of the page, at least.
const PAGE: u64 = 2_000_000;
/// How much a daemon may grow under a siege.
const MEMORY_KIB: u64 = 48 * 1024;
/// Longer than a node sends into a session that its peer has forgotten, and the longest wait between two attempts.
const RECOVERY: Duration = Duration::from_secs(40);
