//! The first packet of a search opens the own router and does not get as far as the peer's, which might give a port away.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Host, NatKind, Pair, Rough, Switch, Underlay, scenario, wait_until};

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
        let router = far.routers()[0].namespace();
        router.shell(&format!("echo 1 > {FORGETS}; echo 1 > {FORGETS}_stream")).ok()?;
        let (near_wan, far_wan) = (near.wan().context("no address")?, far.wan().context("no address")?);
        let hosts = [near.host("laptop")?, far.host("pi")?];
        part(&public, near_wan, far_wan)?;
        let mut pair = Pair::new(lab, &public, [&hosts[0], &hosts[1]])?;
        // On a loaded machine the far end may be late by more than its peer waits.
        for attempt in 1..=3 {
            // Each learns all addresses of the other, in vain.
            pair.every_ping("0.05", 5)?;
            idle(&pair)?;
            forgets(router, near_wan)?;
            public.bridge().nft("delete table bridge parted\n")?;
            let [laptop, pi] = &pair.nodes;
            laptop.ctl(&["ping", pi.name(), "-c", "1", "--via", "direct", "--timeout", "0.1"])?;
            let met = pair.wait_for_path("direct", SEARCH);
            println!("attempt {attempt}: {:?}", pair.paths()?);
            if met.is_ok() {
                pair.relay.kill()?;
                pair.every_ping("0.05", 20)?;
                ensure!(pair.paths()? == ["direct", "direct"], "{:?}", pair.paths()?);
                return Ok(());
            }
            part(&public, near_wan, far_wan)?;
        }
        bail!("three searches found no direct path")
    });
}

/// Lets no UDP pass between two routers.
fn part(public: &Switch<'_>, one: Ipv4Addr, other: Ipv4Addr) -> Result<()> {
    public.bridge().nft(&format!(
        "table bridge parted {{
            chain forward {{
                type filter hook forward priority 0;
                meta l4proto udp ip saddr {{ {one}, {other} }} ip daddr {{ {one}, {other} }} drop
            }}
        }}\n"
    ))
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

/// How long a Linux router remembers a datagram that was not answered, in seconds.
const FORGETS: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
/// One way between the far end and everything else; two of them have to fit into the 120 ms that a peer waits.
const HEARS_LATE: Duration = Duration::from_millis(25);
/// A search takes five seconds.
const SEARCH: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(20);
