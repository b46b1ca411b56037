//! A router with `miniupnpd`, and what a mapping of it does for a node behind.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{DaemonOptions, Lab, NatKind, Pair, Process, Site, Underlay, scenario};
use nix::sys::signal::Signal;

#[test]
fn mapping_makes_a_way_between_two_symmetric_nats() {
    scenario("mapping_makes_a_way_between_two_symmetric_nats", |lab| {
        let public = lab.public(Underlay::V4)?;
        let home = public.site("home", NatKind::LinuxPortRestricted)?;
        let far = public.site("far", NatKind::SymmetricRandom)?;
        // Another port for each destination, in no order: without a mapping the relay carries what these two say.
        let _gateway = Gateway::start(lab, &home, &[&far], "masquerade fully-random")?;
        let hosts = [home.host("laptop")?, far.host("pi")?];
        let options = [DaemonOptions::default(), DaemonOptions::default()];
        let mut pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], options)?;
        let mut pings = pair.pings("0.05")?;
        pings.wait_for_log("bytes from", LIMIT)?;
        pair.wait_for_path("direct", LIMIT)?;
        let status = pair.nodes[1].status()?;
        let endpoint = status.peer(pair.nodes[0].name())?["endpoint"].as_str().unwrap_or_default().to_owned();
        ensure!(endpoint.starts_with(&format!("{MAPPED}:")), "the path is {endpoint}");
        pair.relay.process()?.signal(Signal::SIGSTOP)?;
        let answered = pair.every_ping("0.02", 20);
        pair.relay.process()?.signal(Signal::SIGCONT)?;
        answered
    });
}

/// A running `miniupnpd`.
pub(crate) struct Gateway {
    _process: Process,
}

impl Gateway {
    /// Makes a site's router a gateway that translates other traffic by `masquerade`. The routers of the other sites learn
    /// its public address.
    pub(crate) fn start(
        lab: &Lab,
        home: &Site<'_, '_>,
        others: &[&Site<'_, '_>],
        masquerade: &str,
    ) -> Result<Self> {
        let router = home.routers()[0].namespace();
        let wan = home.wan().context("no address")?;
        // miniupnpd maps nothing at addresses for documentation, which those of the laboratory are.
        router.shell(&format!("ip addr add {MAPPED}/32 dev wan; nft flush ruleset")).ok()?;
        router.nft(&RULES.replace("MASQUERADE", masquerade))?;
        for other in others {
            let way = format!("ip route add {MAPPED} via {wan} dev wan");
            other.routers()[0].namespace().shell(&way).ok()?;
        }
        let config = lab.path("miniupnpd.conf")?;
        fs::write(&config, format!("ext_ip={MAPPED}\n{CONFIG}"))?;
        let pid = lab.path("miniupnpd.pid")?.display().to_string();
        let words = ["-d", "-f", &config.display().to_string(), "-P", &pid];
        let mut process = router.run("miniupnpd").args(words).spawn("miniupnpd")?;
        process.wait_for_log("HTTP listening on port", LIMIT)?;
        Ok(Self { _process: process })
    }
}

const LIMIT: Duration = Duration::from_secs(30);
/// The public address of a router with `miniupnpd`.
pub(crate) const MAPPED: &str = "11.0.0.1";
const CONFIG: &str = "ext_ifname=wan
listening_ip=lan
http_port=0
enable_upnp=yes
secure_mode=yes
system_uptime=no
min_lifetime=2
max_lifetime=86400
upnp_table_name=sm
upnp_nat_table_name=sm
upnp_forward_chain=forwarded
upnp_nat_chain=pre
upnp_nat_postrouting_chain=post
uuid=00000000-0000-0000-0000-000000000002
allow 1-65535 10.0.0.0/8 1-65535
deny 0-65535 0.0.0.0/0 0-65535
";
const RULES: &str = "table inet sm {
    chain forwarded { }
    chain pre { }
    chain post { }
    chain input { type filter hook input priority 0; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        jump forwarded
    }
    chain prerouting { type nat hook prerouting priority -100; jump pre; }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump post
        meta nfproto ipv4 oifname wan MASQUERADE
    }
}\n";
