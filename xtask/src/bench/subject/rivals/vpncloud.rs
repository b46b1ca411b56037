//! VpnCloud as a router between two hosts.

use anyhow::Result;

use super::super::{Kind, Subject};
use super::{Ends, configure, inner, wait_for_interface};
use crate::arena::Host;
use crate::packages;

/// With the cipher that it finds fastest.
pub(in super::super) fn start(near: Host, far: Host) -> Result<Subject> {
    let program = packages::from_crates("vpncloud", "vpncloud")?.display().to_string();
    let ends = Ends { kind: Kind::Vpncloud, near, far, interface: INTERFACE };
    let mut programs = Vec::new();
    for (index, host, other) in ends.both() {
        let (peer, claim) = (format!("{}:3210", other.address), format!("{}/32", inner(index)));
        // It asks the kernel for the way to the Internet, and ends without one.
        host.run(&["ip", "route", "add", "default", "dev", "eth0"])?;
        let words = ["--device", INTERFACE, "--type", "tun", "--mode", "router", "--password", "a secret"];
        let rest = ["--no-port-forwarding", "--listen", "3210", "--peer", &peer, "--claim", &claim];
        let mut process = host.spawn("vpncloud", &[&[program.as_str()][..], &words, &rest].concat())?;
        wait_for_interface(host, &mut process, INTERFACE)?;
        configure(host, INTERFACE, index)?;
        programs.push(process);
    }
    ends.ready(programs, None)
}

const INTERFACE: &str = "vpnc0";
