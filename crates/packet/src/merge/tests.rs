use proptest::prelude::*;

use super::*;
use crate::offload::PartialChecksum;
use crate::testing::{is_right, mend_header, pseudo_header, upper_is_right, v4, v6};
use crate::{Split, SplitError};

/// A TCP packet with this payload whose checksum covers the pseudo header only.
fn tcp(four: bool, flags: u8, options: usize, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x30, 0x39, 0, 80, 0xff, 0xff, 0xfe, 0, 0, 0, 0, 9, 0, flags, 1, 0, 0, 0, 0, 0];
    segment[12] = u8::try_from((20 + options) / 4 * 16).unwrap();
    segment.extend(vec![1; options]);
    segment.extend(data);
    partial(four, 6, &segment, 16)
}

fn udp(four: bool, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap().to_be_bytes();
    let mut datagram = vec![0x30, 0x39, 0, 53, length[0], length[1], 0, 0];
    datagram.extend(data);
    partial(four, 17, &datagram, 6)
}

fn partial(four: bool, protocol: u8, upper: &[u8], field: usize) -> Vec<u8> {
    let (mut packet, at) =
        if four { (v4(0x4000, &[], protocol, upper), 20) } else { (v6(protocol, upper), 40) };
    let sum = checksum::fold(checksum::sum(&pseudo_header(&packet, protocol, at)));
    packet[at + field..at + field + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn offload(four: bool, tcp: bool, cwr: bool, size: u16) -> Offload {
    let kind = match (tcp, four) {
        (true, true) => SegmentKind::TcpV4 { cwr },
        (true, false) => SegmentKind::TcpV6 { cwr },
        (false, _) => SegmentKind::Udp,
    };
    let checksum = PartialChecksum { start: if four { 20 } else { 40 }, offset: if tcp { 16 } else { 6 } };
    Offload { checksum: Some(checksum), segments: Some(Segments { kind, header: 0, size }) }
}

fn cut(packet: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let split = Split::new(packet, 0, offload).unwrap();
    assert!(split.is_plain());
    (0..split.count())
        .map(|number| {
            let mut out = vec![0xee; split.len(number)];
            split.write(number, &mut out);
            out
        })
        .collect()
}

fn joined(parts: &[Vec<u8>]) -> (Vec<u8>, Offload) {
    let (mut merge, length) = Merge::begin(&parts[0], 0).unwrap();
    let mut whole = parts[0][..length].to_vec();
    for part in &parts[1..] {
        let range = merge.join(&parts[0], part).unwrap();
        whole.extend(&part[range]);
    }
    let offload = merge.finish(&mut whole);
    (whole, offload)
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..6000)
}

proptest! {
    /// The checks of a network card: each segment is a right packet by itself, once its checksum is complete, and
    /// together they bring the stream.
    #[test]
    fn segments_are_whole_packets(four: bool, is_tcp: bool, flags in 0_u8..0x20, size in 200_u16..1400, data in data()) {
        let flags = flags & !(SYN | RST | URG) | CWR;
        let packet = if is_tcp { tcp(four, flags, 12, &data) } else { udp(four, &data) };
        let at = if four { 20 } else { 40 };
        let header = at + if is_tcp { 32 } else { 8 };
        let parts = cut(&packet, &offload(four, is_tcp, true, size));
        let mut stream: Vec<u8> = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let ip = crate::IpPacket::parse(part).unwrap();
            prop_assert_eq!(ip.total_len, part.len());
            if four {
                prop_assert!(is_right(&[&part[..20]]));
                prop_assert_eq!(usize::from(u16::from_be_bytes([part[4], part[5]])), 0x1234 + number);
            }
            let mut whole = part.clone();
            prop_assert!(Layout::find(part, 0).unwrap().partial().unwrap().complete(&mut whole));
            let protocol = if is_tcp { 6 } else { 17 };
            prop_assert!(upper_is_right(&whole, protocol, at));
            if is_tcp {
                let passed = u32::try_from(stream.len()).unwrap();
                prop_assert_eq!(sequence(part, &Layout::find(part, 0).unwrap()), 0xffff_fe00_u32.wrapping_add(passed));
                let last = number + 1 == parts.len();
                let kept = if last { flags } else { flags & !(FIN | PSH) };
                prop_assert_eq!(part[at + 13], if number == 0 { kept } else { kept & !CWR });
            }
            stream.extend(&part[header..]);
        }
        prop_assert_eq!(stream, data);
    }

    #[test]
    fn joined_segments_are_the_packet_that_was_cut(four: bool, is_tcp: bool, push: bool, size in 200_u16..1400, data in data()) {
        let packet = if is_tcp { tcp(four, 0x10 | if push { PSH } else { 0 }, 12, &data) } else { udp(four, &data) };
        let asked = offload(four, is_tcp, false, size);
        let (whole, told) = joined(&cut(&packet, &asked));
        prop_assert_eq!(whole, packet);
        prop_assert_eq!(told.checksum, asked.checksum);
        let segments = told.segments.map(|s| (s.kind, s.size));
        let expected = (data.len() > usize::from(size)).then(|| asked.segments.map(|s| (s.kind, s.size)).unwrap());
        prop_assert_eq!(segments, expected);
    }

    /// Whatever a peer sends, nothing panics, and what is joined stays inside of its packet.
    #[test]
    fn invented_packets_are_harmless(first in proptest::collection::vec(any::<u8>(), 0..120), version in 0_u8..3,
        next in proptest::collection::vec(any::<u8>(), 0..120), network in 0_usize..20) {
        let mut first = first;
        if let (Some(byte), 1..) = (first.get_mut(network), version) {
            *byte = if version == 1 { 0x45 } else { 0x60 };
        }
        if let Some((mut merge, length)) = Merge::begin(&first, network) {
            prop_assert!(length <= first.len());
            if let Some(range) = merge.join(&first, &next) {
                prop_assert!(range.end <= next.len() && !range.is_empty());
            }
            merge.finish(&mut first);
        }
        let any = Offload { checksum: Some(PartialChecksum { start: u16::from(version) * 20, offset: 16 }),
            segments: Some(Segments { kind: SegmentKind::TcpV4 { cwr: false }, header: 0, size: 7 }) };
        if let Ok(split) = Split::new(&first, network, &any) {
            for number in 0..split.count() {
                let mut out = vec![0; split.len(number)];
                split.write(number, &mut out);
            }
        }
    }
}

#[test]
fn what_does_not_continue_is_refused() {
    let parts = cut(&tcp(true, 0x10, 0, &[7; 3000]), &offload(true, true, false, 1000));
    let (begun, _) = Merge::begin(&parts[0], 0).unwrap();
    assert!({ begun }.join(&parts[0], &parts[1]).is_some());
    assert!({ begun }.join(&parts[0], &parts[2]).is_none(), "a segment is missing");
    let mut longer = parts[1].clone();
    longer.push(0);
    longer[2..4].copy_from_slice(&1041_u16.to_be_bytes());
    mend_header(&mut longer);
    assert!({ begun }.join(&parts[0], &longer).is_none(), "longer than the first");
    let mut padded = parts[1].clone();
    padded.extend([0; 8]);
    assert_eq!({ begun }.join(&parts[0], &padded), Some(40..1040), "padding is left out");
    for flag in [SYN, RST, URG, FIN] {
        let alone = tcp(true, 0x10 | flag, 0, &[7; 100]);
        let (mut merge, _) = Merge::begin(&alone, 0).unwrap();
        let mut next = tcp(true, 0x10, 0, &[7; 100]);
        next[27] += 100;
        assert!(merge.join(&alone, &next).is_none());
    }
    let short = cut(&udp(true, &[7; 1500]), &offload(true, false, false, 1000));
    let (mut merge, _) = Merge::begin(&short[0], 0).unwrap();
    let mut other = short[1].clone();
    other[21] = 9;
    assert!(merge.join(&short[0], &other).is_none(), "another port");
    assert!(merge.join(&short[0], &short[1]).is_some());
    assert!(merge.join(&short[0], &short[1]).is_none(), "a shorter one was the last");
}

#[test]
fn fragments_and_other_protocols_stay_alone() {
    assert!(Merge::begin(&v4(0x2000, &[], 6, &[0x50; 40]), 0).is_none());
    assert!(Merge::begin(&v4(0x4000, &[], 1, &[0x50; 40]), 0).is_none());
    assert!(Merge::begin(&v6(44, &[0x50; 40]), 0).is_none());
    let packet = tcp(true, 0x10, 0, &[7; 3000]);
    let mut wrong = offload(true, true, false, 1000);
    wrong.checksum = Some(PartialChecksum { start: 20, offset: 6 });
    assert_eq!(Split::new(&packet, 0, &wrong).err(), Some(SplitError));
    assert_eq!(Split::new(&packet[..30], 0, &offload(true, true, false, 1000)).err(), Some(SplitError));
}

#[test]
fn datagrams_of_one_flow_continue_each_other() {
    let mut flow = crate::Flow::new();
    let mut next = |packet: &[u8]| flow.continues(packet, &Layout::find(packet, 0).unwrap());
    assert!(!next(&udp(true, &[1; 100])));
    assert!(next(&udp(true, &[2; 100])));
    assert!(!next(&udp(true, &[2; 101])), "a longer one begins anew");
    assert!(next(&udp(true, &[2; 50])), "a shorter one is the last");
    assert!(!next(&udp(true, &[2; 50])));
    let mut other = udp(true, &[2; 50]);
    other[21] = 9;
    assert!(!next(&other), "another port");
    assert!(!next(&udp(false, &[2; 50])), "another family");
    assert!(!next(&tcp(true, 0x10, 0, &[2; 50])));
    assert!(!next(&udp(true, &[2; 50])));
}
