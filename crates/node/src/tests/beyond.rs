//! Packets that are longer than the path carries.

use mesh_packet::{IpPacket, PartialChecksum, SegmentKind, Segments};
use mesh_wire::control::{Candidate, CandidateKind, Candidates, Mapping};

use super::*;

/// A direct path that carries so many bytes of payload, with the relay beside it or gone.
fn small(link: Link, limit: usize) -> World {
    let mut world = World::made(2, link, |world| world.direct = true);
    world.udp_limit = limit + 32;
    for id in world.ids.clone() {
        let list = vec![Candidate { kind: CandidateKind::Host, address: world.udp_address(id) }];
        let candidates = Candidates { mapping: Mapping::None, list };
        world.with(id, |node, now, tx| node.set_candidates(now, candidates, tx));
    }
    let [a, b] = [world.ids[0], world.ids[1]];
    for mark in 0..150 {
        for [from, to] in [[a, b], [b, a]] {
            let packet = if link == Link::Ip {
                world.packet(from, to, mark)
            } else {
                ethernet(from, to, &world.packet(from, to, mark))
            };
            world.with(from, |node, now, tx| node.handle_packet(now, &packet, tx));
            world.got(to);
        }
        world.pass(Duration::from_millis(20));
    }
    for id in [a, b] {
        assert!(matches!(world.snapshot(id).peers[0].path, Path::Udp(_)));
    }
    world
}

fn ethernet(from: NodeId, to: NodeId, packet: &[u8]) -> Vec<u8> {
    [&mac_of(to)[..], &mac_of(from), &[0x08, 0x00], packet].concat()
}

fn mtu(world: &World) -> usize {
    world.snapshot(world.ids[0]).peers[0].path_mtu.unwrap().into()
}

/// A UDP packet over IPv4 with a right header checksum, with DF or without.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, length: usize, dont_fragment: bool) -> Vec<u8> {
    let mut packet = ipv4(from, to, &vec![7; length - 20]);
    packet[6] = if dont_fragment { 0x40 } else { 0 };
    sum(&mut packet);
    packet
}

fn sum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let words = packet[..20].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
}

fn tcp(from: Ipv4Addr, to: Ipv4Addr, flags: u8, rest: &[u8]) -> Vec<u8> {
    let offset = if flags & 2 != 0 { 6 << 4 } else { 5 << 4 };
    let mut header = vec![0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, offset, flags, 1, 0, 0, 0, 0, 0];
    header.extend(rest);
    let mut packet = ipv4(from, to, &header);
    (packet[6], packet[9]) = (0x40, 6);
    sum(&mut packet);
    packet
}

/// What the node tells those on its own device.
fn told(world: &mut World, at: NodeId) -> Vec<Vec<u8>> {
    let node = &mut world.nodes.get_mut(&at).unwrap().node;
    std::iter::from_fn(|| node.poll_late())
        .map(|late| match late {
            LateDelivery::Packet(packet) => packet,
            LateDelivery::Quic(..) => panic!("nobody sends QUIC here"),
        })
        .collect()
}

#[test]
fn sender_of_a_long_packet_is_told_and_not_more_often_than_allowed() {
    let mut world = small(Link::Ip, 1300);
    let [a, b] = [world.ids[0], world.ids[1]];
    let carries = mtu(&world);
    assert!((1285..=1300).contains(&carries), "{carries}");
    let (own, peer) = (world.address(a), world.address(b));
    let fits = datagram(own, peer, carries, true);
    world.with(a, |node, now, tx| node.handle_packet(now, &fits, tx));
    assert_eq!(world.got(b), [fits]);
    let long = datagram(own, peer, carries + 1, true);
    for _ in 0..200 {
        world.with(a, |node, now, tx| node.handle_packet(now, &long, tx));
    }
    assert_eq!((world.got(b).len(), world.drops(a, DropReason::TooBig)), (0, 200));
    let messages = told(&mut world, a);
    assert_eq!(messages.len(), 32);
    let header = IpPacket::parse(&messages[0]).unwrap();
    assert_eq!((header.src, header.dst), (IpAddr::from(peer), IpAddr::from(own)));
    assert_eq!(messages[0][20..22], [3, 4]);
    assert_eq!(usize::from(u16::from_be_bytes([messages[0][26], messages[0][27]])), carries);
}

#[test]
fn nobody_is_told_of_a_packet_that_claims_another_source() {
    let mut world = small(Link::Ip, 1300);
    let [a, b] = [world.ids[0], world.ids[1]];
    for source in [[192, 0, 2, 77], [224, 0, 0, 1], [127, 0, 0, 1], [0, 0, 0, 0], [255, 255, 255, 255]] {
        let long = datagram(source.into(), world.address(b), 1400, true);
        world.with(a, |node, now, tx| node.handle_packet(now, &long, tx));
    }
    assert_eq!(told(&mut world, a), Vec::<Vec<u8>>::new());
}

#[test]
fn packet_that_may_be_fragmented_arrives_in_pieces() {
    let mut world = small(Link::Ip, 1300);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.relay = false;
    let long = datagram(world.address(a), world.address(b), 1420, false);
    world.with(a, |node, now, tx| node.handle_packet(now, &long, tx));
    let pieces = world.got(b);
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces.iter().map(|piece| piece.len() - 20).sum::<usize>(), 1400);
    assert!(told(&mut world, a).is_empty());
}

#[test]
fn tcp_of_a_device_with_offload_is_cut_to_fit_and_told() {
    let mut world = small(Link::Ip, 1300);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.relay = false;
    let payload: Vec<u8> = (0..20_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let packet = tcp(world.address(a), world.address(b), 0x10, &payload);
    let checksum = Some(PartialChecksum { start: 20, offset: 16 });
    let segments = Segments { kind: SegmentKind::TcpV4 { cwr: false }, header: 40, size: 1380 };
    let one = &tcp(world.address(a), world.address(b), 0x10, &payload[..1380]);
    for (packet, segments, bytes) in [(&packet, Some(segments), 20_000), (one, None, 1380)] {
        let offload = mesh_packet::Offload { checksum, segments };
        world.with(a, |node, now, tx| node.handle_offloaded(now, packet, &offload, tx));
        let got = world.got(b);
        assert!(got.iter().all(|segment| segment.len() <= mtu(&world)));
        let joined: Vec<u8> = got.iter().flat_map(|segment| segment[40..].to_vec()).collect();
        assert_eq!(joined, payload[..bytes]);
        let messages = told(&mut world, a);
        assert_eq!((messages.len(), &messages[0][20..22]), (1, &[3, 4][..]));
    }
}

#[test]
fn segment_size_of_tcp_is_lowered_both_ways() {
    let mut world = small(Link::Ip, 1300);
    let [a, b] = [world.ids[0], world.ids[1]];
    let most = mtu(&world) - 40;
    let syn = tcp(world.address(a), world.address(b), 0x02, &[2, 4, 0x05, 0x64]);
    world.with(a, |node, now, tx| node.handle_packet(now, &syn, tx));
    let got = world.got(b);
    assert_eq!(usize::from(u16::from_be_bytes([got[0][42], got[0][43]])), most);
}

#[test]
fn ipv6_packet_that_nobody_may_forbid_takes_the_relay() {
    let mut world = small(Link::Ip, 1240);
    let [a, b] = [world.ids[0], world.ids[1]];
    let packet = |length: u16| {
        let [from, to] = [a, b].map(|id| world.roster.leaf(&id).unwrap().ipv6);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((length - 40).to_be_bytes());
        packet.extend([17, 64]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.resize(usize::from(length), 7);
        packet
    };
    let (least, more) = (packet(1280), packet(1281));
    world.with(a, |node, now, tx| node.handle_packet(now, &least, tx));
    assert_eq!(world.got(b), std::slice::from_ref(&least));
    assert!(told(&mut world, a).is_empty());
    world.with(a, |node, now, tx| node.handle_packet(now, &more, tx));
    assert!(world.got(b).is_empty());
    let messages = told(&mut world, a);
    assert_eq!((messages.len(), messages[0][40]), (1, 2));
    assert_eq!(messages[0][44..48], 1280_u32.to_be_bytes());
    world.relay = false;
    world.with(a, |node, now, _| node.handle_relay(now, false));
    world.with(a, |node, now, tx| node.handle_packet(now, &least, tx));
    assert!(world.got(b).is_empty());
    assert_eq!(world.drops(a, DropReason::TooBig), 2);
}

#[test]
fn ethernet_sender_is_told_in_a_frame_and_other_protocols_take_the_relay() {
    let mut world = small(Link::Ethernet, 1318);
    let [a, b] = [world.ids[0], world.ids[1]];
    let long = ethernet(a, b, &datagram(world.address(a), world.address(b), 1400, true));
    world.with(a, |node, now, tx| node.handle_packet(now, &long, tx));
    assert!(world.got(b).is_empty());
    let messages = told(&mut world, a);
    assert_eq!(messages.len(), 1);
    assert_eq!((&messages[0][..6], &messages[0][6..12]), (&mac_of(a)[..], &mac_of(b)[..]));
    let header = IpPacket::parse(&messages[0][14..]).unwrap();
    assert_eq!((header.src, header.dst), (world.address(b).into(), world.address(a).into()));
    let mut other = long.clone();
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    world.with(a, |node, now, tx| node.handle_packet(now, &other, tx));
    assert_eq!(world.got(b), [other]);
}

#[test]
fn path_that_becomes_shorter_loses_nothing_for_long_and_says_its_length() {
    let mut world = small(Link::Ip, 1420);
    let [a, b] = [world.ids[0], world.ids[1]];
    assert_eq!(mtu(&world), 1420);
    let long = datagram(world.address(a), world.address(b), 1420, true);
    let mut silence = 0;
    let mut longest = 0;
    for at in 0..300 {
        if at == 100 {
            world.udp_limit = 1332;
        }
        world.with(a, |node, now, tx| node.handle_packet(now, &long, tx));
        // Either it arrives, or its sender is told.
        let through = !world.got(b).is_empty() || !told(&mut world, a).is_empty();
        let back = world.packet(b, a, 1);
        world.with(b, |node, now, tx| node.handle_packet(now, &back, tx));
        silence = if through { 0 } else { silence + 20 };
        longest = longest.max(silence);
        world.pass(Duration::from_millis(20));
    }
    assert!(longest <= 1400, "nothing for {longest} ms");
    assert!((1285..=1300).contains(&mtu(&world)), "{}", mtu(&world));
    let peer = &world.snapshot(a).peers[0];
    assert_eq!(peer.path_changes, 1, "it stays the path");
    assert!(world.events[&a].iter().any(|event| matches!(event, NodeEvent::PathSize { .. })));
}
