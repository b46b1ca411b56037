//! Nodes whose agents of ICE find the path: of one library, of two, and beside a node without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{DaemonOptions, NatKind, Pair, Underlay, scenario, wait_until};
use serde_json::Value;

#[cfg(feature = "webrtc-ice")]
mod in_memory;

const ICE: &str = "path_finder = \"ice\"\n";

#[test]
fn agents_of_one_library_without_a_router() {
    meets("agents_of_one_library_without_a_router", [NatKind::None, NatKind::None], [ours(), ours()], ALL);
}

#[test]
fn agents_of_one_library_behind_restricted_routers() {
    let kinds = [NatKind::PortRestricted, NatKind::LinuxPortRestricted];
    meets("agents_of_one_library_behind_restricted_routers", kinds, [ours(), ours()], ALL);
}

#[test]
fn agents_of_one_library_behind_a_full_cone_and_a_symmetric_router() {
    let kinds = [NatKind::FullCone, NatKind::SymmetricRandom];
    meets("agents_of_one_library_behind_a_full_cone_and_a_symmetric_router", kinds, [ours(), ours()], ALL);
}

#[test]
fn agents_of_one_library_on_ipv6_alone() {
    let kinds = [NatKind::Ipv6Only, NatKind::DeadIpv4];
    meets("agents_of_one_library_on_ipv6_alone", kinds, [ours(), ours()], ALL);
}

#[test]
fn node_with_an_agent_meets_one_without() {
    let kinds = [NatKind::PortRestricted, NatKind::PortRestricted];
    for (nodes, name) in [
        ([ours(), DaemonOptions::default()], "agent_first"),
        ([DaemonOptions::default(), ours()], "agent_second"),
    ] {
        meets(&format!("node_with_an_agent_meets_one_without_{name}"), kinds, nodes, [false, false]);
    }
}

#[test]
fn agents_that_cannot_meet_stay_on_the_relay() {
    scenario("agents_that_cannot_meet_stay_on_the_relay", |lab| {
        let public = lab.public(Underlay::Both)?;
        let sites = [public.site("one", NatKind::UdpBlocked)?, public.site("two", NatKind::FullCone)?];
        let hosts = [sites[0].host("laptop")?, sites[1].host("pi")?];
        let pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], [ours(), ours()])?;
        pair.every_ping("0.1", 70)?;
        assert_eq!(pair.paths()?, ["relay", "relay"]);
        let [blocked, open] = &pair.nodes;
        for (node, peer, reason) in [(blocked, open, "blocked_here"), (open, blocked, "blocked_there")] {
            wait_until(&format!("{} to say {reason}", node.name()), Duration::from_secs(10), || {
                let said: Value = serde_json::from_str(&node.ctl(&["why", peer.name(), "--json"])?.stdout)?;
                Ok((said["reason"] == reason).then_some(()))
            })?;
        }
        Ok(())
    });
}

#[cfg(feature = "webrtc-ice")]
mod two_libraries {
    use super::*;

    fn theirs() -> DaemonOptions {
        DaemonOptions { program: Some(env!("CARGO_BIN_EXE_mesh-ice-daemon").into()), ..ours() }
    }

    #[test]
    fn without_a_router() {
        both("without_a_router", [NatKind::None, NatKind::None]);
    }

    #[test]
    fn one_behind_a_full_cone() {
        both("one_behind_a_full_cone", [NatKind::FullCone, NatKind::None]);
    }

    #[test]
    fn one_behind_a_restricted_router() {
        both("one_behind_a_restricted_router", [NatKind::PortRestricted, NatKind::None]);
    }

    #[test]
    fn both_behind_restricted_routers() {
        both("both_behind_restricted_routers", [NatKind::PortRestricted, NatKind::PortRestricted]);
    }

    /// Each library at each place. Which of the two controls is up to the ids of the nodes, which are made anew.
    fn both(name: &str, kinds: [NatKind; 2]) {
        meets(&format!("two_libraries_{name}"), kinds, [ours(), theirs()], ALL);
        meets(&format!("two_libraries_{name}_swapped"), kinds, [theirs(), ours()], ALL);
    }
}

/// Both nodes' agents nominate.
const ALL: [bool; 2] = [true, true];

fn ours() -> DaemonOptions {
    DaemonOptions { extra: ICE.into(), ..DaemonOptions::default() }
}

/// The path becomes direct, carries packets without the relay, and where agents found it no challenge went anywhere
/// else.
#[expect(clippy::print_stdout, reason = "how long it took is what a reader of the run wants to know")]
fn meets(name: &str, kinds: [NatKind; 2], nodes: [DaemonOptions; 2], by_ice: [bool; 2]) {
    scenario(name, |lab| {
        let public = lab.public(Underlay::Both)?;
        let sites = [public.site("one", kinds[0])?, public.site("two", kinds[1])?];
        let hosts = [sites[0].host("laptop")?, sites[1].host("pi")?];
        let mut pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], nodes)?;
        pair.forget()?;
        let contact = pair.contact(Duration::from_secs(10))?;
        println!("{} / {}: {contact:?}", kinds[0].name(), kinds[1].name());
        ensure!(contact.direct.is_some(), "no direct path");
        for (at, expected) in by_ice.into_iter().enumerate() {
            let dropped = || pair.nodes[at].status().map(|status| status.0["counters"]["drops"].clone());
            found_by_ice(&pair, at, expected).with_context(|| format!("dropped: {:?}", dropped()))?;
        }
        pair.relay.kill()?;
        pair.every_ping("0.05", 40)?;
        assert_eq!(pair.paths()?, ["direct", "direct"]);
        Ok(())
    });
}

/// Fails unless the path of a node was found as expected.
fn found_by_ice(pair: &Pair, at: usize, expected: bool) -> Result<()> {
    let (node, peer) = (&pair.nodes[at], &pair.nodes[1 - at]);
    let status = node.status()?;
    let peer = status.peer(peer.name())?;
    let remotes = peer["direct"]["remotes"].as_array().context("no addresses")?;
    let agreed = |remote: &&Value| remote["ice"] == true;
    if !expected {
        ensure!(remotes.iter().all(|remote| !agreed(&remote)), "{} has an agent: {peer}", node.name());
        return Ok(());
    }
    let used = remotes.iter().find(|remote| remote["address"] == peer["endpoint"]);
    ensure!(used.as_ref().is_some_and(agreed), "agents did not find the path of {}: {peer}", node.name());
    let challenged: Vec<_> = remotes.iter().filter(|remote| remote["sent"] != 0 && !agreed(remote)).collect();
    ensure!(challenged.is_empty(), "challenges of {} went to {challenged:?}", node.name());
    Ok(())
}
