//! The first packet of a search opens the own router and does not get as far as the peer's, which might give a port away.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Daemon, Host, NatKind, Pair, Rough, Underlay, scenario, wait_until};

/// One end is further from the relay than from the other end, whose packets so come before it hears that it is looked for.
/// Those that go all the way would take its port at its router; that the first ones do not is all that makes a path possible.
#[test]
fn end_that_hears_late_of_a_search_keeps_its_port() {
    scenario("end_that_hears_late_of_a_search_keeps_its_port", |lab| {
        let public = lab.public(Underlay::V4)?;
        public.lengthen()?;
        let inner = NatKind::FullCone.translation().context("a translation makes it")?;
        let near = public.site("near", NatKind::LinuxPortRestricted)?;
        let far = public.site_behind("far", NatKind::LinuxAccepting, inner)?;
        far.roughen(Rough { delay: HEARS_LATE, ..Rough::default() })?;
        let (router, near_wan) = (far.routers()[0].namespace(), near.wan().context("no address")?);
        let hosts = [near.host("laptop")?, far.host("pi")?];
        part(router, near_wan)?;
        let mut pair = Pair::new(lab, &public, [&hosts[0], &hosts[1]])?;
        // On a loaded machine the far end may be late by more than its peer waits.
        for attempt in 1..=3 {
            // Each learns all addresses of the other, in vain.
            forgets(router, near_wan)?;
            pair.every_ping("0.05", 5)?;
            let [laptop, pi] = &pair.nodes;
            search(pi, laptop)?;
            idle(&pair)?;
            router.nft("delete table ip parted\n")?;
            search(laptop, pi)?;
            let met = pair.wait_for_path("direct", SEARCH);
            println!("attempt {attempt}: {:?}", pair.paths()?);
            if met.is_ok() {
                pair.relay.kill()?;
                pair.every_ping("0.05", 20)?;
                ensure!(pair.paths()? == ["direct", "direct"], "{:?}", pair.paths()?);
                return Ok(());
            }
            part(router, near_wan)?;
        }
        bail!("three searches found no direct path")
    });
}

/// Lets no UDP pass between what is behind a router and an address; the router does not even remember it.
fn part(router: &Host, other: Ipv4Addr) -> Result<()> {
    router.nft(&format!(
        "table ip parted {{
            chain prerouting {{
                type filter hook prerouting priority raw;
                meta l4proto udp ip saddr {other} drop
                meta l4proto udp ip daddr {other} drop
            }}
        }}\n"
    ))
}

/// Has a node look for a direct path at once.
fn search(node: &Daemon, peer: &Daemon) -> Result<()> {
    node.ctl(&["ping", peer.name(), "-c", "1", "--via", "direct", "--timeout", "0.1"]).map(drop)
}

/// Waits until neither end searches.
fn idle(pair: &Pair) -> Result<()> {
    for (at, node) in pair.nodes.iter().enumerate() {
        let peer = pair.nodes[1 - at].name();
        node.wait_for_status("the end of the search", LIMIT, |status| {
            status.peer(peer).is_ok_and(|peer| {
                let remotes = peer["direct"]["remotes"].as_array();
                peer["direct"]["searching"] == false && remotes.is_some_and(|remotes| remotes.len() > 1)
            })
        })?;
    }
    Ok(())
}

/// Waits until a router knows nothing of what passed between its inside and an address.
fn forgets(router: &Host, far: Ipv4Addr) -> Result<()> {
    wait_until("the end of the router's entries", LIMIT, || {
        let entries = router.run("cat").args(["/proc/net/nf_conntrack"]).ok()?.stdout;
        Ok((!entries.contains(&format!("={far} "))).then_some(()))
    })
}

/// One way between the far end and everything else; two of them have to fit into the 120 ms that a peer waits.
const HEARS_LATE: Duration = Duration::from_millis(25);
/// A search takes five seconds.
const SEARCH: Duration = Duration::from_secs(6);
/// Longer than a Linux router remembers a datagram that was not answered, and than a search takes.
const LIMIT: Duration = Duration::from_secs(45);
