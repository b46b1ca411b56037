//! Which ports a NAT gives out next that numbers them in sequence.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use mesh_wire::control::{CandidateKind, Candidates, Mapping, Step};

/// Ports that are tried after the last one that a server saw.
pub(super) const PREDICTED: u16 = 32;
/// What NATs give out; the well-known ports are left alone.
pub(super) const FIRST_PORT: u16 = 1024;
pub(super) const PORTS: u32 = 1 + (u16::MAX - FIRST_PORT) as u32;
/// Up to this a step is rather that of one port with others in between, so that none is left out.
const SMALL: u16 = 4;

/// The newest IPv4 address that a server saw the peer at: of those named, the last, as servers are asked in turn.
pub(super) fn public(said: &Candidates) -> Option<SocketAddrV4> {
    said.list.iter().rev().find_map(|candidate| match candidate.address {
        SocketAddr::V4(v4) if candidate.kind == CandidateKind::Reflexive => Some(v4),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    })
}

/// The addresses that the peer's next mappings most likely have; none where its NAT does not count.
pub(super) fn predicted(mapping: Mapping, public: Option<SocketAddrV4>) -> impl Iterator<Item = SocketAddr> {
    let counts = match (mapping, public) {
        (Mapping::Sequential(step), Some(public)) => Some((step, public)),
        _ => None,
    };
    counts.into_iter().flat_map(|(step, public)| {
        (1..=PREDICTED).map(move |number| at(*public.ip(), follows(public.port(), step, number)))
    })
}

/// The port that is given out `number` mappings after `port`.
pub(super) fn follows(port: u16, step: Step, number: u16) -> u16 {
    let step = i32::from(step.get());
    let step = if step.unsigned_abs() <= SMALL.into() { step.signum() } else { step };
    let first = i32::from(FIRST_PORT);
    let count = i32::try_from(PORTS).expect("there are fewer than 65536 ports");
    let at = (i32::from(port) - first + step * i32::from(number)).rem_euclid(count);
    u16::try_from(first + at).expect("below the first port after the last")
}

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(ip, port).into()
}

#[cfg(test)]
mod tests {
    use mesh_wire::control::Candidate;

    use super::*;

    fn ports(step: i32, port: u16) -> Vec<u16> {
        let public = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), port);
        let mapping = Mapping::Sequential(Step::new(step).unwrap());
        predicted(mapping, Some(public)).map(|address| address.port()).collect()
    }

    #[test]
    fn next_ports_follow_the_step_and_wrap() {
        assert_eq!(ports(1, 5000), (5001..=5032).collect::<Vec<_>>());
        assert_eq!(ports(-1, 5000)[..3], [4999, 4998, 4997]);
        assert_eq!(ports(3, 5000)[..3], [5001, 5002, 5003], "two others came in between");
        assert_eq!(ports(8, 5000)[..3], [5008, 5016, 5024]);
        assert_eq!(ports(1, 65534)[..3], [65535, 1024, 1025]);
        assert_eq!(ports(-1, 1024)[..2], [65535, 65534]);
        assert!(ports(16, 1).iter().all(|port| *port >= FIRST_PORT));
    }

    #[test]
    fn nothing_is_predicted_where_nothing_counts() {
        let public = Some(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 5000));
        for mapping in [Mapping::Unknown, Mapping::None, Mapping::Independent, Mapping::Dependent] {
            assert_eq!(predicted(mapping, public).count(), 0, "{mapping:?}");
        }
        assert_eq!(predicted(Mapping::Sequential(Step::new(1).unwrap()), None).count(), 0);
    }

    #[test]
    fn the_address_that_was_seen_last_is_where_counting_goes_on() {
        let candidate = |kind, address: &str| Candidate { kind, address: address.parse().unwrap() };
        let said = Candidates {
            mapping: Mapping::Dependent,
            list: vec![
                candidate(CandidateKind::Reflexive, "203.0.113.1:7"),
                candidate(CandidateKind::Reflexive, "203.0.113.1:8"),
                candidate(CandidateKind::Reflexive, "[2001:db8::1]:9"),
                candidate(CandidateKind::Host, "192.168.1.1:9"),
            ],
        };
        assert_eq!(public(&said), Some("203.0.113.1:8".parse().unwrap()));
        assert_eq!(public(&Candidates::default()), None);
    }
}
