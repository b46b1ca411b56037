use std::collections::BTreeSet;

use super::*;
use crate::nat::packet::tests::{udp, unreachable};

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const INSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 2), 4747);
const FAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 3478);
const OTHER_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 3479);
const OTHER_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 3478);

/// Sends from the inside and returns the mapped address.
fn send(nat: &mut Translator, from: SocketAddrV4, to: SocketAddrV4, now: Instant) -> SocketAddrV4 {
    let mut bytes = udp(from, to, b"hello");
    nat.translate(&mut bytes, now).unwrap();
    let expected = bytes.clone();
    let mapped = Packet::new(&mut bytes).unwrap().flow(Side::Source).unwrap().near;
    let mut made = udp(mapped, to, b"hello");
    Packet::new(&mut made).unwrap().raise_ttl();
    assert_eq!(made, expected, "the whole packet is right, checksums included");
    mapped
}

/// Sends from the outside and returns whom it reaches.
fn knock(
    nat: &mut Translator,
    from: SocketAddrV4,
    to: SocketAddrV4,
    now: Instant,
) -> Result<SocketAddrV4, Refusal> {
    let mut bytes = udp(from, to, b"knock");
    nat.translate(&mut bytes, now)?;
    Ok(Packet::new(&mut bytes).unwrap().flow(Side::Destination).unwrap().near)
}

fn translation(mapping: Dependence, filtering: Dependence, ports: Ports) -> Translation {
    Translation { mapping, filtering, ports, hairpin: false, lifetime: Duration::from_secs(30) }
}

#[test]
fn mapping_depends_on_what_it_should() {
    let now = Instant::now();
    for (mapping, distinct) in [
        (Dependence::Endpoint, [true, true]),
        (Dependence::Address, [true, false]),
        (Dependence::AddressAndPort, [false, false]),
    ] {
        let translation = translation(mapping, Dependence::AddressAndPort, Ports::Random);
        let mut nat = Translator::new([10, 1, 0], EXTERNAL, translation, 7);
        let first = send(&mut nat, INSIDE, FAR, now);
        let same = [OTHER_PORT, OTHER_ADDRESS].map(|to| send(&mut nat, INSIDE, to, now) == first);
        assert_eq!(same, distinct, "{mapping:?}");
        assert_eq!(send(&mut nat, INSIDE, FAR, now), first, "{mapping:?}");
    }
}

#[test]
fn filter_depends_on_what_it_should() {
    let now = Instant::now();
    for (filtering, passes) in [
        (Dependence::Endpoint, [true, true]),
        (Dependence::Address, [true, false]),
        (Dependence::AddressAndPort, [false, false]),
    ] {
        for mapping in [Dependence::Endpoint, Dependence::AddressAndPort] {
            let mut nat =
                Translator::new([10, 1, 0], EXTERNAL, translation(mapping, filtering, Ports::Random), 7);
            let mapped = send(&mut nat, INSIDE, FAR, now);
            assert_eq!(knock(&mut nat, FAR, mapped, now), Ok(INSIDE));
            for (from, passes) in [OTHER_PORT, OTHER_ADDRESS].into_iter().zip(passes) {
                let wanted = if passes { Ok(INSIDE) } else { Err(Refusal::Filtered) };
                assert_eq!(knock(&mut nat, from, mapped, now), wanted, "{mapping:?} {filtering:?} {from}");
            }
            let unmapped = SocketAddrV4::new(EXTERNAL, mapped.port() ^ 1);
            assert_eq!(knock(&mut nat, FAR, unmapped, now), Err(Refusal::Unmapped));
        }
    }
}

#[test]
fn ports_are_preserved_random_or_in_a_row() {
    let now = Instant::now();
    let symmetric = |ports| translation(Dependence::AddressAndPort, Dependence::AddressAndPort, ports);
    let ports = |translation| {
        let mut nat = Translator::new([10, 1, 0], EXTERNAL, translation, 11);
        (0..50)
            .map(|n| send(&mut nat, INSIDE, SocketAddrV4::new(*FAR.ip(), 1000 + n), now).port())
            .collect::<Vec<u16>>()
    };
    assert!(ports(symmetric(Ports::Preserved)).into_iter().eq(4747..4797));
    let row = ports(symmetric(Ports::Sequential));
    assert!(row.windows(2).all(|two| two[1] == after(two[0])), "{row:?}");
    let random = ports(symmetric(Ports::Random));
    assert_eq!(random.iter().collect::<BTreeSet<_>>().len(), 50);
    assert!(random.windows(2).filter(|two| two[1].abs_diff(two[0]) > 256).count() > 40, "{random:?}");
}

#[test]
fn what_leaves_prolongs_and_what_comes_does_not() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let cone = translation(Dependence::Endpoint, Dependence::AddressAndPort, Ports::Random);
    let mut nat = Translator::new([10, 1, 0], EXTERNAL, cone, 3);
    let mapped = send(&mut nat, INSIDE, FAR, at(0));
    assert_eq!(send(&mut nat, INSIDE, OTHER_PORT, at(20)), mapped);
    assert_eq!(knock(&mut nat, FAR, mapped, at(29)), Ok(INSIDE));
    // The permission of the one ends before the mapping that both share.
    assert_eq!(knock(&mut nat, FAR, mapped, at(31)), Err(Refusal::Filtered));
    assert_eq!(knock(&mut nat, OTHER_PORT, mapped, at(49)), Ok(INSIDE));
    assert_eq!(knock(&mut nat, OTHER_PORT, mapped, at(50)), Err(Refusal::Unmapped));
    assert_ne!(send(&mut nat, INSIDE, FAR, at(51)), mapped);
    nat.forget();
    assert_eq!(knock(&mut nat, FAR, mapped, at(51)), Err(Refusal::Unmapped));
}

#[test]
fn two_of_the_inside_meet_by_hairpin_only() {
    let now = Instant::now();
    let neighbour = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 3), 4747);
    let cone = translation(Dependence::Endpoint, Dependence::AddressAndPort, Ports::Random);
    for hairpin in [false, true] {
        let mut nat = Translator::new([10, 1, 0], EXTERNAL, Translation { hairpin, ..cone }, 5);
        let (one, two) = (send(&mut nat, INSIDE, FAR, now), send(&mut nat, neighbour, FAR, now));
        let first = knock(&mut nat, INSIDE, two, now);
        assert_eq!(first, Err(if hairpin { Refusal::Filtered } else { Refusal::Hairpin }));
        let mut bytes = udp(neighbour, one, b"back");
        let second = nat.translate(&mut bytes, now);
        if hairpin {
            second.unwrap();
            let flow = Packet::new(&mut bytes).unwrap().flow(Side::Destination).unwrap();
            assert_eq!((flow.near, flow.far), (INSIDE, two), "it comes from the mapped address");
        } else {
            assert_eq!(second, Err(Refusal::Hairpin));
        }
    }
}

#[test]
fn complaints_pass_both_ways() {
    let now = Instant::now();
    let cone = translation(Dependence::Endpoint, Dependence::AddressAndPort, Ports::Random);
    let mut nat = Translator::new([10, 1, 0], EXTERNAL, cone, 5);
    let mapped = send(&mut nat, INSIDE, FAR, now);
    let raised = |mut bytes: Vec<u8>| {
        Packet::new(&mut bytes).unwrap().raise_ttl();
        bytes
    };
    let mut bytes = unreachable(*FAR.ip(), EXTERNAL, &udp(mapped, FAR, b"x"));
    nat.translate(&mut bytes, now).unwrap();
    assert_eq!(bytes, raised(unreachable(*FAR.ip(), *INSIDE.ip(), &udp(INSIDE, FAR, b"x"))));
    let mut bytes = unreachable(*INSIDE.ip(), *FAR.ip(), &udp(FAR, INSIDE, b"x"));
    nat.translate(&mut bytes, now).unwrap();
    assert_eq!(bytes, raised(unreachable(EXTERNAL, *FAR.ip(), &udp(FAR, mapped, b"x"))));
    let stranger = SocketAddrV4::new(EXTERNAL, mapped.port() ^ 1);
    let mut bytes = unreachable(*FAR.ip(), EXTERNAL, &udp(stranger, FAR, b"x"));
    assert_eq!(nat.translate(&mut bytes, now), Err(Refusal::Unmapped));
}

#[test]
fn when_every_port_is_taken_the_rest_has_to_wait() {
    let start = Instant::now();
    let cone = translation(Dependence::AddressAndPort, Dependence::AddressAndPort, Ports::Sequential);
    let mut nat = Translator::new([10, 1, 0], EXTERNAL, cone, 5);
    for number in FIRST_PORT..=u16::MAX {
        send(&mut nat, INSIDE, SocketAddrV4::new(*FAR.ip(), number), start);
    }
    let mut bytes = udp(INSIDE, SocketAddrV4::new(*FAR.ip(), 1), b"");
    assert_eq!(nat.translate(&mut bytes, start), Err(Refusal::NoPort));
    let mut bytes = udp(INSIDE, SocketAddrV4::new(*FAR.ip(), 1), b"");
    assert_eq!(nat.translate(&mut bytes, start + Duration::from_secs(31)), Ok(()));
}
