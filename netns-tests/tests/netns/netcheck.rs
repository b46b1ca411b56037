//! `meshctl netcheck` behind routers of known kinds.

use anyhow::{Context, Result, ensure};
use lab::{NatKind, Pair, Underlay, scenario};
use serde_json::Value;

use crate::direct::pair;

#[test]
fn each_kind_of_router_is_told_for_what_it_is() {
    for [(one, one_seen), (two, two_seen)] in [
        [
            (NatKind::FullCone, ("independent", "port_independent")),
            (NatKind::AddressRestricted, ("independent", "port_independent")),
        ],
        [
            (NatKind::PortRestricted, ("independent", "address_and_port_dependent")),
            (NatKind::SymmetricRandom, ("dependent", "address_and_port_dependent")),
        ],
        [
            (NatKind::SymmetricSequential, ("sequential", "address_and_port_dependent")),
            (NatKind::FullCone, ("independent", "port_independent")),
        ],
    ] {
        scenario("each_kind_of_router_is_told_for_what_it_is", |lab| {
            let public = lab.public(Underlay::Both)?;
            let (pair, _sites) = pair(lab, &public, one, two)?;
            told(&pair, 0, one_seen)?;
            told(&pair, 1, two_seen)?;
            // The same when the node is down.
            pair.nodes[0].ctl(&["down"])?;
            told(&pair, 0, one_seen)
        });
    }
}

#[test]
fn udp_that_does_not_get_out_is_told() {
    scenario("udp_that_does_not_get_out_is_told", |lab| {
        let public = lab.public(Underlay::Both)?;
        let (pair, _sites) = pair(lab, &public, NatKind::UdpBlocked, NatKind::None)?;
        let check = pair.nodes[0].json(&["netcheck"])?;
        let v4 = ipv4(&check)?;
        ensure!(v4["relay_tcp_ms"].is_number() && v4["relay_udp_ms"].is_null(), "{check}");
        ensure!(check["advice"].as_str().is_some_and(|advice| advice.contains("let UDP out")), "{check}");
        told(&pair, 1, ("none", "port_independent"))
    });
}

#[expect(clippy::print_stdout, reason = "what a person is told is worth a look")]
fn told(pair: &Pair, node: usize, (mapping, filtering): (&str, &str)) -> Result<()> {
    let check = pair.nodes[node].json(&["netcheck"])?;
    println!("{check:#}");
    let v4 = ipv4(&check)?;
    ensure!(
        v4["mapping"] == mapping && v4["filtering"] == filtering,
        "not {mapping}, {filtering}: {check:#}"
    );
    ensure!(v4["relay_tcp_ms"].is_number() && v4["relay_udp_ms"].is_number(), "{check:#}");
    Ok(())
}

fn ipv4(check: &Value) -> Result<&Value> {
    let families = check["families"].as_array().context("families")?;
    families.iter().find(|family| family["family"] == "ipv4").context("IPv4")
}
