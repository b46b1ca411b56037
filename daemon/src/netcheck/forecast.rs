//! With whom direct paths will come about, from what was found out. Pure.

use mesh_control::{FamilyCheck, IpFamily, NatFiltering, NatMapping, Netcheck};

/// What people are told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forecast {
    pub(super) sentences: Vec<String>,
    pub(super) advice: Option<String>,
}

/// Whom a node reaches directly over one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Nobody outside of its own network.
    Nobody,
    /// Those that everybody reaches.
    OpenOnly,
    /// Those whose NAT keeps one public port.
    Usual,
    /// Those, and it is open whether others.
    UsualAtLeast,
    /// Everybody.
    Everybody,
}

/// Draws the conclusions; `check.forecast` and `check.advice` are not looked at. The node may guess ports where it
/// `guesses`.
pub(super) fn forecast(check: &Netcheck, guesses: bool) -> Forecast {
    let mut told = Forecast::default();
    if check.relay.is_none() {
        told.sentences.push("No forecast: this node is in no network yet.".into());
        return told;
    }
    let v6 = check.families.iter().find(|family| family.family == IpFamily::Ipv6);
    let v4 = check.families.iter().find(|family| family.family == IpFamily::Ipv4);
    let open_port = check.port_mappings.iter().any(|mapping| !mapping.double_nat);
    let mut best = Reach::Nobody;
    for (name, family) in [("IPv4", v4), ("IPv6", v6)] {
        let Some(family) = family.filter(|family| is_there(family)) else { continue };
        let mut reach = reach(family);
        if name == "IPv4" && open_port && reach != Reach::Nobody {
            reach = Reach::Everybody;
        }
        best = best.max(reach);
        let hard = family.mapping.is_dependent();
        let counts = family.mapping == NatMapping::Sequential;
        // Ports are guessed over IPv4 only, where NATs are.
        let guesses = guesses && name == "IPv4";
        let text = match (reach, guesses) {
            (Reach::OpenOnly, true) if hard && counts => COUNTING,
            (Reach::OpenOnly, true) if hard => GUESSING,
            (Reach::Usual, true) => GUESSED,
            _ => sentence(reach),
        };
        told.sentences.push(format!("{name}: {text}"));
    }
    let tcp = check.families.iter().any(|family| family.relay_tcp_ms.is_some());
    if told.sentences.is_empty() {
        told.sentences.push("The relay cannot be reached at all, so nothing passes.".into());
        told.advice = Some("check this machine's connection, and that the relay runs".into());
        return told;
    }
    if !tcp {
        told.sentences
            .push("The relay cannot be reached over TCP, which every connection begins with.".into());
    }
    told.advice = advice(check, best, tcp);
    told
}

/// A family over which the relay has no address is left out.
const fn is_there(family: &FamilyCheck) -> bool {
    family.relay_tcp_ms.is_some() || family.relay_udp_ms.is_some()
}

fn reach(family: &FamilyCheck) -> Reach {
    use NatFiltering as Filter;
    if family.relay_udp_ms.is_none() {
        return Reach::Nobody;
    }
    match (family.mapping, family.filtering) {
        (
            NatMapping::None | NatMapping::Independent,
            Filter::EndpointIndependent | Filter::AddressDependent | Filter::PortIndependent,
        ) => Reach::Everybody,
        (NatMapping::None | NatMapping::Independent, Filter::AddressAndPortDependent) => Reach::Usual,
        (NatMapping::None | NatMapping::Independent | NatMapping::Unknown, _) => Reach::UsualAtLeast,
        (NatMapping::Sequential | NatMapping::Dependent, _) => Reach::OpenOnly,
    }
}

const fn sentence(reach: Reach) -> &'static str {
    match reach {
        Reach::Nobody => {
            "UDP does not reach the relay, so direct paths come about at most inside of your own network; the rest goes \
             over the relay."
        }
        Reach::OpenOnly => {
            "the NAT takes another public port for each destination (symmetric): direct paths come about with peers that \
             have a public address, an open port or a NAT that lets any port in; the rest goes over the relay."
        }
        Reach::Usual => {
            "direct paths come about with peers that have a public address or a usual home router; with peers behind a \
             symmetric NAT (mobile networks, some offices) the relay carries on."
        }
        Reach::UsualAtLeast => {
            "direct paths should come about with peers that have a public address or a usual home router; for others it \
             cannot be told."
        }
        Reach::Everybody => "direct paths come about with peers behind any kind of NAT that lets UDP out.",
    }
}

/// Of [`Reach::OpenOnly`], where ports are guessed.
const GUESSING: &str = "the NAT takes another public port for each destination (symmetric): direct paths come about at once \
    with peers that have a public address, an open port or a NAT that lets any port in, within 8 s of guessing ports with \
    usual home routers (98 of 100 attempts), and hardly ever with peers whose NAT is symmetric as well.";

/// The same of a NAT that counts.
const COUNTING: &str = "the NAT takes the next public port for each destination (symmetric, in sequence): direct paths come \
    about with peers that have a public address, an open port or a usual home router, and hardly ever with peers whose NAT is \
    symmetric as well.";

/// Of [`Reach::Usual`], where ports are guessed.
const GUESSED: &str = "direct paths come about with peers that have a public address or a usual home router, and within 8 s of \
    guessing ports with peers behind a symmetric NAT (98 of 100 attempts).";

fn advice(check: &Netcheck, best: Reach, tcp: bool) -> Option<String> {
    let text = match best {
        _ if !tcp => "let TCP out to the relay",
        Reach::Everybody => return None,
        Reach::Nobody => "let UDP out on the firewall in front of this machine; nothing has to be let in",
        _ if check.port_mappings.iter().any(|mapping| mapping.double_nat) => {
            "a second NAT stands behind your router: switch one of the two to bridge mode, or ask the provider for a \
             public address or IPv6"
        }
        Reach::OpenOnly | Reach::Usual | Reach::UsualAtLeast => {
            "switch on UPnP, NAT-PMP or PCP on your router; or set a fixed port with \"udp_listen\" in meshd.toml and \
             forward it there"
        }
    };
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use mesh_control::PortMappingCheck;

    use super::*;

    fn check(mapping: NatMapping, filtering: NatFiltering) -> Netcheck {
        let v4 = FamilyCheck {
            family: IpFamily::Ipv4,
            relay_tcp_ms: Some(1.0),
            relay_udp_ms: Some(1.0),
            mapping,
            filtering,
            ..FamilyCheck::default()
        };
        let v6 = FamilyCheck { family: IpFamily::Ipv6, ..FamilyCheck::default() };
        Netcheck { relay: Some("relay.example:443".into()), families: vec![v4, v6], ..Netcheck::default() }
    }

    #[test]
    fn forecast_follows_mapping_and_filtering() {
        use NatFiltering as F;
        use NatMapping as M;
        for (mapping, filtering, expected) in [
            (M::None, F::EndpointIndependent, Reach::Everybody),
            (M::None, F::AddressAndPortDependent, Reach::Usual),
            (M::Independent, F::PortIndependent, Reach::Everybody),
            (M::Independent, F::AddressAndPortDependent, Reach::Usual),
            (M::Independent, F::Unknown, Reach::UsualAtLeast),
            (M::Unknown, F::Unknown, Reach::UsualAtLeast),
            (M::Sequential, F::AddressAndPortDependent, Reach::OpenOnly),
            (M::Dependent, F::EndpointIndependent, Reach::OpenOnly),
            (M::Dependent, F::AddressAndPortDependent, Reach::OpenOnly),
        ] {
            let told = forecast(&check(mapping, filtering), false);
            assert_eq!(
                told.sentences,
                [format!("IPv4: {}", sentence(expected))],
                "{mapping:?} {filtering:?}"
            );
            assert_eq!(told.advice.is_none(), expected == Reach::Everybody);
        }
    }

    #[test]
    fn where_ports_are_guessed_hard_nats_reach_more() {
        use NatFiltering::AddressAndPortDependent as Strict;
        for (mapping, expected) in [
            (NatMapping::Dependent, GUESSING),
            (NatMapping::Sequential, COUNTING),
            (NatMapping::Independent, GUESSED),
        ] {
            let told = forecast(&check(mapping, Strict), true);
            assert_eq!(told.sentences, [format!("IPv4: {expected}")]);
            assert!(told.advice.is_some(), "an open port is still better");
        }
    }

    #[test]
    fn an_open_port_makes_a_symmetric_nat_harmless_and_a_second_nat_does_not() {
        let mut check = check(NatMapping::Dependent, NatFiltering::AddressAndPortDependent);
        check.port_mappings.push(PortMappingCheck {
            protocol: "PCP".into(),
            gateway: "10.0.0.1".parse().unwrap(),
            external: "192.0.2.1:7".parse().unwrap(),
            double_nat: false,
        });
        assert_eq!(forecast(&check, true).advice, None);
        check.port_mappings[0].double_nat = true;
        assert!(forecast(&check, true).advice.unwrap().contains("second NAT"));
    }

    #[test]
    fn silence_is_no_answer() {
        let mut check = check(NatMapping::Unknown, NatFiltering::Unknown);
        check.families[0].relay_udp_ms = None;
        assert!(forecast(&check, true).advice.unwrap().contains("UDP"));
        check.families[0].relay_tcp_ms = None;
        assert!(forecast(&check, true).sentences[0].contains("nothing passes"));
        assert!(forecast(&Netcheck::default(), true).sentences[0].contains("no network"));
    }
}
