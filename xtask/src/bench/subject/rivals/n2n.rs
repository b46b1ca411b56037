//! n2n: two edges that found each other by a supernode, and then talk directly.

use anyhow::Result;

use super::super::{Kind, MTU, Subject, Third};
use super::{Ends, inner, wait_for_interface};
use crate::arena::{Arena, Host};
use crate::packages;

/// With the cipher that the version takes by itself: Twofish in 1.3, AES in 3.
pub(in super::super) fn start(arena: &mut Arena, near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("edge", "n2n"), ("supernode", "n2n")]])?;
    let between = arena.host("n2nsuper")?;
    let ends = Ends { kind: Kind::N2n, near, far, interface: INTERFACE };
    // The help fails with a code of its own.
    let help = ends.near.command(&["edge", "-h"]).output()?;
    let old = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("n2n v.1.");
    let listen: &[&str] = if old { &["-l", PORT] } else { &["-p", PORT, "-f"] };
    let mut programs = vec![between.spawn("supernode", &[&["supernode"][..], listen].concat())?];
    let (at, mtu) = (format!("{}:{PORT}", between.address), MTU.to_string());
    for (index, host, _) in ends.both() {
        let address = if old { inner(index) } else { format!("static:{}/24", inner(index)) };
        let words = ["edge", "-d", INTERFACE, "-c", "bench", "-k", "a secret", "-l", &at, "-M", &mtu, "-a"];
        let mask: &[&str] = if old { &["-s", "255.255.255.0"] } else { &["-f"] };
        let mut process = host.spawn("edge", &[&words[..], &[&address], mask].concat())?;
        wait_for_interface(host, &mut process, INTERFACE)?;
        programs.push(process);
    }
    ends.ready(programs, Some(Third { host: between, carries: false }))
}

const INTERFACE: &str = "n2n0";
const PORT: &str = "7654";
