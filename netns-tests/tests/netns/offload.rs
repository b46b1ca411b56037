//! Long packets pass between kernel and daemon uncut, whatever the other end can do, and marks cross the tunnel.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Daemon, DaemonOptions, Host, Lab, Relay, Switch, Underlay, drops, scenario, udp_settings};
use serde_json::Value;

use crate::transfer::{blast, stream};

#[test]
fn interfaces_with_and_without_offload_understand_each_other() {
    scenario("interfaces_with_and_without_offload_understand_each_other", |lab| {
        let switch = lab.public(Underlay::V4)?;
        for (serial, ends) in [[true, true], [true, false], [false, true]].into_iter().enumerate() {
            carries(lab, &switch, &format!("tun{serial}"), false, ends)?;
        }
        Ok(())
    });
}

#[test]
fn segments_with_and_without_offload_understand_each_other() {
    scenario("segments_with_and_without_offload_understand_each_other", |lab| {
        let switch = lab.public(Underlay::V4)?;
        for (serial, ends) in [[true, true], [true, false], [false, true]].into_iter().enumerate() {
            carries(lab, &switch, &format!("tap{serial}"), true, ends)?;
        }
        Ok(())
    });
}

/// Sends both ways over both families, and counts the packets that came out of the interface longer than any link carries:
/// segments that the daemon joined. What programs send is long before the kernel cuts it, whoever that is.
fn carries(lab: &Lab, switch: &Switch<'_>, name: &str, tap: bool, offload: [bool; 2]) -> Result<()> {
    let (_relay, nodes) =
        pair(lab, switch, name, tap, offload.map(|offload| format!("offload = {offload}\n")))?;
    for node in &nodes {
        node.host().nft(&format!(
            "table inet long {{
                counter joined {{ }}
                chain input {{ type filter hook input priority 0; iifname \"{}\" meta length > 3000 counter name joined; }}
            }}",
            node.interface()
        ))?;
    }
    let [one, two] = &nodes;
    for (from, to) in [(one, two), (two, one)] {
        for address in [to.ipv4()?, format!("[{}]", to.ipv6()?)] {
            stream(from, to, &address, BYTES)?;
        }
        for (size, least) in [("64", 900), ("1300", 900), ("2500", 700)] {
            let report = blast(from, to, &["--count", "1000", "--size", size, "--rate", "2000"])?;
            assert_eq!((&report["corrupt"], &report["doubled"]), (&0.into(), &0.into()), "{name}: {report}");
            assert!(report["intact"].as_u64() >= Some(least), "{name}, {size} bytes: {report}");
        }
    }
    // What came complete is handed on as it came.
    let joins = offload == [true, true];
    for node in &nodes {
        let packets = counted(node.host(), "inet", "long", "joined")?;
        assert_eq!(packets > 100, joins, "{name}, {}: {packets} long packets came", node.name());
        let status = node.status()?;
        assert_eq!(drops(&status, "device") + drops(&status, "malformed"), 0, "{name}");
    }
    Ok(())
}

#[test]
fn marks_and_classes_cross_the_tunnel() {
    scenario("marks_and_classes_cross_the_tunnel", |lab| {
        let extra = ["copy_dscp = true\n".to_owned(), String::new()];
        let (_relay, [one, two]) = pair(lab, &lab.public(Underlay::V4)?, "ecn", false, extra)?;
        let (near, far) = (one.host(), two.host());
        far.nft(
            "table ip seen {
                counter class { }
                counter capable { }
                counter met { }
                chain outer { type filter hook input priority 0; iifname eth0 udp dport 4747 ip dscp 46 counter name class; }
                chain outer_mark { type filter hook input priority 0; iifname eth0 udp dport 4747 ip ecn ect0 counter name capable; }
                chain inner { type filter hook input priority 0; iifname mesh0 icmp type echo-request ip ecn ce counter name met; }
            }",
        )?;
        let address = two.ipv4()?;
        let ping = |class: &str| {
            let words = ["-n", "-c", "5", "-i", "0.02", "-W", "1", "-Q", class, &address];
            near.run("ping").args(words).output()
        };
        let count = |counter: &str| counted(far, "ip", "seen", counter);
        // DSCP 46 with ECT(0); the answers come back under the other node's configuration.
        assert_eq!(ping("0xba")?.code, Some(0));
        assert!(count("class")? >= 5 && count("capable")? >= 5);
        assert_eq!(count("met")?, 0);
        // The network marks every datagram: who understands is told, who does not is not served.
        near.nft(
            "table ip busy {
                chain out { type route hook output priority 0; oifname eth0 udp dport 4747 ip ecn set ce; }
            }",
        )?;
        assert_eq!(ping("0x02")?.code, Some(0));
        assert!(count("met")? >= 5);
        let before = drops(&two.status()?, "congested");
        assert_eq!(ping("0x00")?.code, Some(1), "what cannot be marked is dropped (RFC 6040, 4.2)");
        assert!(drops(&two.status()?, "congested") >= before + 5);
        Ok(())
    });
}

/// A card or driver that loses whatever it is to cut: what the daemon hands over at once is longer than any link carries.
#[test]
fn segmentation_that_loses_datagrams_is_given_up() {
    scenario("segmentation_that_loses_datagrams_is_given_up", |lab| {
        let (_relay, [one, two]) = pair(lab, &lab.public(Underlay::V4)?, "gso", false, Default::default())?;
        one.host().nft(
            "table ip broken {
                counter lost { }
                chain out { type filter hook output priority 0; oifname eth0 udp dport 4747 meta length > 1600 counter name lost drop; }
            }",
        )?;
        let single = |node: &Daemon, peer: &Daemon| -> Result<bool> {
            let status = node.status()?;
            let remotes = status.peer(peer.name())?["direct"]["remotes"].as_array().cloned();
            Ok(remotes.unwrap_or_default().iter().any(|remote| remote["single"] == true))
        };
        stream(&one, &two, &two.ipv4()?, BYTES)?;
        assert!(single(&one, &two)?, "{:?}", one.status()?);
        assert!(!single(&two, &one)?, "the other direction is sound");
        assert_eq!(one.status()?.peer(two.name())?["path"], "direct");
        let why = one.ctl(&["why", two.name()])?.stdout;
        assert!(why.contains("one by one to"), "{why}");
        let lost = counted(one.host(), "ip", "broken", "lost")?;
        stream(&one, &two, &two.ipv4()?, BYTES)?;
        assert_eq!(counted(one.host(), "ip", "broken", "lost")?, lost, "nothing was handed over at once");
        Ok(())
    });
}

/// Two nodes on one switch that exchange datagrams directly.
fn pair(
    lab: &Lab,
    switch: &Switch<'_>,
    name: &str,
    tap: bool,
    extra: [String; 2],
) -> Result<(Relay, [Daemon; 2])> {
    let relay = Relay::start(lab, &switch.host(&format!("{name}r"))?)?;
    let hosts = [switch.host(&format!("{name}a"))?, switch.host(&format!("{name}b"))?];
    let mut nodes = Vec::new();
    for (host, extra) in hosts.iter().zip(extra) {
        let extra = extra + &udp_settings(host, &hosts)?;
        let options =
            DaemonOptions { tap: tap && nodes.is_empty(), direct: true, extra, ..DaemonOptions::default() };
        nodes.push(Daemon::start(lab, host, &options)?);
    }
    nodes[0].up_new("home", &relay.url(), hosts[0].name())?;
    nodes[1].join(&nodes[0].invite(&["--name", hosts[1].name()])?)?;
    nodes[1].ping_address(&nodes[0].ipv4()?)?;
    let path = "a path over UDP";
    nodes[1].wait_for_status(path, Duration::from_secs(10), |status| {
        status.peer(hosts[0].name()).is_ok_and(|peer| peer["path"] == "direct")
    })?;
    let nodes = <[Daemon; 2]>::try_from(nodes).ok().context("two nodes were made")?;
    Ok((relay, nodes))
}

pub(crate) fn counted(host: &Host, family: &str, table: &str, counter: &str) -> Result<u64> {
    let listed = host.run("nft").args(["-j", "list", "counter", family, table, counter]).ok()?.stdout;
    let document: Value = serde_json::from_str(&listed)?;
    let objects = document["nftables"].as_array().context("no objects")?;
    let packets = objects.iter().find_map(|object| object["counter"]["packets"].as_u64());
    packets.context("no such counter")
}

const BYTES: u64 = 40_000_000;
