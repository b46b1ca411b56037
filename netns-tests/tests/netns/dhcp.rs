//! Addresses come from a DHCP server, which replaces them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{DhcpClient, NatKind, Pair, Process, Underlay, scenario, wait_until};
use nix::sys::signal::Signal;

/// The server has another address for the machine from some renewal on, refuses the old one, and the client asks anew.
#[test]
fn lease_is_replaced_by_another_address() {
    scenario("lease_is_replaced_by_another_address", |lab| {
        let public = lab.public(Underlay::V4)?;
        let kind = NatKind::LinuxPortRestricted;
        let sites = [public.site("one", kind)?, public.site("two", kind)?];
        let hosts = [sites[0].host("laptop")?, sites[1].host("pi")?];
        let server = sites[1].dhcp()?;
        let client = DhcpClient::start(lab, &hosts[1], "eth0")?;
        let pair = Pair::new(lab, &public, [&hosts[0], &hosts[1]])?;
        pair.meet(LIMIT)?;
        let old = client.address()?;
        let mut pings = pair.pings("0.02")?;
        pings.wait_for_log("bytes from", LIMIT)?;
        for number in [200, 201] {
            let new = server.assign(&client, number)?;
            ensure!(old != Some(new), "{new} is no other address");
            client.renew()?;
            wait_until("another lease", LIMIT, || Ok((client.address()? == Some(new)).then_some(())))?;
            // The network carries data from here on.
            let start = Instant::now();
            let before = answers(&pings)?;
            wait_until("answers to pings", LIMIT, || Ok((answers(&pings)? > before).then_some(())))?;
            let answered = start.elapsed();
            wait_until("a direct path that is one", LIMIT, || Ok(is_direct(&pair)?.then_some(())))?;
            let direct = start.elapsed();
            tell(answered, direct);
            ensure!(answered <= SOON, "nothing for {answered:?} with {new}");
            ensure!(direct <= DIRECT, "direct after {direct:?} with {new}");
            pair.every_ping("0.05", 20)?;
        }
        pings.signal(Signal::SIGINT)?;
        pings.wait_ok(LIMIT).map(drop)
    });
}

/// Both ends say that their path is direct, and messages come back over it: one of them may not know yet what became of it.
fn is_direct(pair: &Pair) -> Result<bool> {
    if pair.paths()? != ["direct", "direct"] {
        return Ok(false);
    }
    let [laptop, pi] = &pair.nodes;
    for (node, peer) in [(laptop, pi), (pi, laptop)] {
        let words = ["ping", peer.name(), "-c", "1", "--via", "direct", "--timeout", "0.3"];
        if node.ctl(&words)?.code != Some(0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn answers(pings: &Process) -> Result<usize> {
    Ok(pings.log()?.matches("bytes from").count())
}

#[expect(clippy::print_stdout, reason = "how long it took is what a reader of the run wants to know")]
fn tell(answered: Duration, direct: Duration) {
    println!("another lease: an answer after {answered:?}, direct again after {direct:?}");
}

/// Half a second more than what is promised, for a loaded machine.
const SOON: Duration = Duration::from_millis(2500);
const DIRECT: Duration = Duration::from_millis(5500);
const LIMIT: Duration = Duration::from_secs(20);
