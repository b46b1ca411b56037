//! Other programs, set up as their own documents say.

pub(super) mod n2n;
pub(super) mod nebula;
pub(super) mod openvpn;
pub(super) mod vpncloud;
pub(super) mod wireguard;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Kind, MTU, Subject, Third};
use crate::arena::{Host, Process, wait_until};
use crate::packages;

/// tinc 1.0 in router mode.
pub(super) fn tinc(near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("tincd", "tinc")]])?;
    for (index, (host, other)) in [(&near, "n1"), (&far, "n0")].into_iter().enumerate() {
        let dir = host.dir.join("tinc");
        fs::create_dir_all(dir.join("hosts"))?;
        fs::write(
            dir.join("tinc.conf"),
            format!("Name = n{index}\nConnectTo = {other}\nInterface = tinc0\nMode = router\n"),
        )?;
        let about = format!("Address = {}\nSubnet = {}/32\n", host.address, inner(index));
        fs::write(dir.join("hosts").join(format!("n{index}")), about)?;
        let up =
            format!("#!/bin/sh\nip addr add {}/24 dev tinc0\nip link set tinc0 mtu {MTU} up\n", inner(index));
        fs::write(dir.join("tinc-up"), up)?;
        host.run(&["chmod", "+x", &dir.join("tinc-up").display().to_string()])?;
        host.run(&["tincd", "-c", &dir.display().to_string(), "-K2048"])?;
    }
    let name = |host: &Host, name: &str| host.dir.join("tinc/hosts").join(name);
    fs::copy(name(&near, "n0"), name(&far, "n0"))?;
    fs::copy(name(&far, "n1"), name(&near, "n1"))?;
    let mut programs = Vec::new();
    for host in [&near, &far] {
        let dir = host.dir.join("tinc").display().to_string();
        let pid = format!("{dir}/pid");
        let mut process = host.spawn("tincd", &["tincd", "-c", &dir, "-D", "--pidfile", &pid])?;
        wait_for_interface(host, &mut process, "tinc0")?;
        programs.push(process);
    }
    Ends { kind: Kind::Tinc, near, far, interface: "tinc0" }.ready(programs, None)
}

/// What is known of a subject before its programs run.
struct Ends {
    kind: Kind,
    near: Host,
    far: Host,
    /// The tunnel at the near end.
    interface: &'static str,
}

impl Ends {
    /// Both hosts, each with its number and the other.
    fn both(&self) -> [(usize, &Host, &Host); 2] {
        [(0, &self.near, &self.far), (1, &self.far, &self.near)]
    }

    /// Waits until the tunnel answers.
    fn ready(self, mut programs: Vec<Process>, third: Option<Third>) -> Result<Subject> {
        let Self { kind, near, far, interface } = self;
        wait_until(&format!("{} to carry a ping", kind.name()), Duration::from_secs(20), || {
            programs.iter_mut().try_for_each(Process::check_running)?;
            let ping = near.command(&["ping", "-n", "-c", "1", "-W", "1", &inner(1)]).output()?;
            Ok(ping.status.success().then_some(()))
        })?;
        let interface = interface.into();
        Ok(Subject { kind, near, far, address: inner(1), programs, interface, third })
    }
}

fn wait_for_interface(host: &Host, process: &mut Process, name: &str) -> Result<()> {
    wait_until(&format!("the interface {name}"), Duration::from_secs(10), || {
        process.check_running()?;
        let shown = host.command(&["ip", "link", "show", "dev", name]).output()?;
        Ok(shown.status.success().then_some(()))
    })
}

fn configure(host: &Host, interface: &str, index: usize) -> Result<()> {
    host.run(&["ip", "addr", "add", &format!("{}/24", inner(index)), "dev", interface])?;
    host.run(&["ip", "link", "set", interface, "mtu", &MTU.to_string(), "up"])
        .map(drop)
        .with_context(|| format!("cannot set {interface} up"))
}

/// The inner address of the near end, of the far end and of a third host.
fn inner(index: usize) -> String {
    format!("10.66.0.{}", index + 1)
}
