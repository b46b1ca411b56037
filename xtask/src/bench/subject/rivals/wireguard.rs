//! WireGuard in user space: programs that `wg` configures.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::super::{Kind, Subject};
use super::{Ends, configure, inner, wait_for_interface};
use crate::arena::Host;
use crate::packages;

/// wireguard-go, boringtun or gotatun, each in the newest version that can be had.
pub(in super::super) fn start(kind: Kind, near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("wg", "wireguard-tools")]])?;
    let (program, options, interfaces) = program(kind)?;
    let program = program.display().to_string();
    let ends = Ends { kind, near, far, interface: interfaces[0] };
    let mut keys = Vec::new();
    for (_, host, _) in ends.both() {
        let secret = host.run(&["wg", "genkey"])?;
        let path = host.dir.join("key");
        fs::write(&path, &secret)?;
        let public = host.run(&["sh", "-c", &format!("wg pubkey < {}", path.display())])?;
        keys.push((path.display().to_string(), public.trim().to_owned()));
    }
    let mut programs = Vec::new();
    for (index, host, other) in ends.both() {
        let interface = interfaces[index];
        let words = [&["env", "WG_PROCESS_FOREGROUND=1", &program][..], options, &[interface]].concat();
        let mut process = host.spawn("wireguard", &words)?;
        wait_for_interface(host, &mut process, interface)?;
        let (own, peer) = (&keys[index].0, &keys[1 - index].1);
        let (endpoint, allowed) = (format!("{}:51820", other.address), format!("{}/32", inner(1 - index)));
        let words = ["wg", "set", interface, "private-key", own, "listen-port", "51820", "peer", peer];
        host.run(&[&words[..], &["allowed-ips", &allowed, "endpoint", &endpoint]].concat())?;
        configure(host, interface, index)?;
        programs.push(process);
    }
    ends.ready(programs, None)
}

/// The program, its options, and the interfaces of both ends: their control sockets lie in a directory that all
/// namespaces share.
fn program(kind: Kind) -> Result<(PathBuf, &'static [&'static str], [&'static str; 2])> {
    let options = &["-f", "--disable-drop-privileges"];
    if kind == Kind::Boringtun {
        Ok((packages::from_crates("boringtun-cli", "boringtun-cli")?, options, ["smbt0", "smbt1"]))
    } else if kind == Kind::Gotatun {
        Ok((packages::from_crates("gotatun", "gotatun-cli")?, options, ["smgt0", "smgt1"]))
    } else {
        Ok((packages::newest("wireguard-go", "wireguard-go")?, &["-f"], ["smwg0", "smwg1"]))
    }
}
