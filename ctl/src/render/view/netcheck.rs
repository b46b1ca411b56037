//! `netcheck`.

use mesh_control::{FamilyCheck, IpFamily, NatFiltering, Netcheck, RelayState};

use super::super::units::rtt;
use super::{Block, addresses, relays, why, without_pin};

/// What was found out of each address family, then what follows.
pub(crate) fn netcheck(check: &Netcheck) -> String {
    let mut block = Block::new();
    block.line("relay", check.relay.as_deref().unwrap_or("(none: this node is in no network)"));
    for relay in check.relays.iter().filter(|relay| relay.state == RelayState::Connected) {
        if let Some(ms) = relay.rtt_ms {
            let role = relays::role(relay).map(|role| format!(" ({role})")).unwrap_or_default();
            block.line("round trip", &format!("{} to {}{role}", rtt(ms), without_pin(&relay.url)));
        }
    }
    for family in &check.families {
        block.text.push_str(match family.family {
            IpFamily::Ipv4 => "\nIPv4\n",
            IpFamily::Ipv6 => "\nIPv6\n",
            IpFamily::Unknown => continue,
        });
        one(&mut block, family, check.relay.is_some());
    }
    block.text.push('\n');
    for mapping in &check.port_mappings {
        let double = if mapping.double_nat { ", behind a second NAT" } else { "" };
        let text = format!("{} of {} opens {}{double}", mapping.protocol, mapping.gateway, mapping.external);
        block.line("router", &text);
    }
    if check.port_mappings.is_empty() {
        block.line("router", "opened no port on request");
    }
    for sentence in &check.forecast {
        block.line("forecast", sentence);
    }
    for what in &check.cannot_tell {
        block.line("cannot tell", what);
    }
    if let Some(advice) = &check.advice {
        block.line("to do", advice);
    }
    block.text
}

fn one(block: &mut Block, family: &FamilyCheck, asked: bool) {
    block.line("  addresses", &addresses(&family.addresses));
    if !asked {
        return;
    }
    let reached = |time: Option<f64>| time.map_or("does not reach the relay".to_owned(), rtt);
    block.line("  tcp", &reached(family.relay_tcp_ms));
    block.line("  udp", &reached(family.relay_udp_ms));
    let Some(mapped) = family.mapped else { return };
    block.line("  seen as", &mapped.to_string());
    block.line("  nat", why::nat(family.mapping));
    block.line("  lets in", filtering(family.filtering));
    if let Some(hairpin) = family.hairpin {
        let text = if hairpin {
            "reach each other at public addresses"
        } else {
            "do not reach each other at public addresses"
        };
        block.line("  neighbours", text);
    }
}

const fn filtering(filtering: NatFiltering) -> &'static str {
    match filtering {
        NatFiltering::EndpointIndependent => "packets from everybody",
        NatFiltering::AddressDependent => "packets from addresses that were sent to, from any port",
        NatFiltering::PortIndependent => "packets from any port of addresses that were sent to",
        NatFiltering::AddressAndPortDependent => "packets from addresses and ports that were sent to",
        NatFiltering::Unknown => "not found out",
    }
}
