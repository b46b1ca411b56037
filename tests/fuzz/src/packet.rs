//! Views of IP packets and Ethernet frames, which programs on this host and members send, and what is done to packets
//! that are too big.

use std::net::IpAddr;

use mesh_packet::{
    Class, ECN, EtherType, Ethernet, IpPacket, IpVersion, Layout, MacAddr, Merge, OFFLOAD_HEADER, Offload,
    Split, TOO_BIG_LEN, clamp_mss, clamp_mss_partial, fragment, mark_congestion, too_big, traffic_class,
};

/// The least of IPv4, what every IPv4 host takes, the least of IPv6, and an interface of ours.
const MTUS: [u16; 4] = [68, 576, 1280, 1420];

/// Reads the bytes as a packet and as a frame.
pub fn packet(data: &[u8]) {
    ip(data);
    for mtu in MTUS {
        lowered(data, mtu);
        answered(data, mtu);
        cut(data, mtu);
    }
    for network in [0, 14] {
        joined(data, network);
        marked(data, network);
    }
    ethernet(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(mac) = text.parse::<MacAddr>()
    {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
}

/// What is cut can be joined to the same, and what a member invents is joined within its bounds or not at all.
fn joined(data: &[u8], network: usize) {
    // Two packets that claim to be of one run.
    let (first, second) = data.split_at(data.len() / 2);
    let mut head = first.to_vec();
    if let Some((mut merge, length)) = Merge::begin(&head, network) {
        assert!(length <= head.len());
        head.truncate(length);
        if let Some(range) = merge.join(&head, second) {
            assert!(range.end <= second.len() && !range.is_empty());
        }
        let offload = merge.finish(&mut head);
        assert!(offload.checksum.is_some() && head.len() == length);
    }
    // The device may be told anything by a guest that has it.
    let Some((header, packet)) = data.split_first_chunk::<OFFLOAD_HEADER>() else { return };
    let Ok(offload) = Offload::decode(header) else { return };
    assert_eq!(Offload::decode(&offload.encode()), Ok(offload));
    if let Some(checksum) = offload.checksum {
        let mut complete = packet.to_vec();
        assert!(checksum.complete(&mut complete) || complete == packet);
    }
    let Ok(split) = Split::new(packet, network, &offload) else { return };
    let most = split.count().min(100);
    for number in 0..most {
        let mut out = vec![0; split.len(number)];
        split.write(number, &mut out);
        assert!(out.len() <= packet.len());
    }
    if split.is_plain() && most == split.count() && most > 1 {
        let mut part = vec![0; split.len(0)];
        split.write(0, &mut part);
        assert!(Layout::find(&part, network).is_some(), "a segment has not the headers of the whole");
    }
}

/// A mark of congestion changes the mark and the checksum of the header.
fn marked(data: &[u8], network: usize) {
    let mut packet = data.to_vec();
    let before = traffic_class(data, Some(network));
    if mark_congestion(&mut packet, Some(network)) {
        assert_eq!(traffic_class(&packet, Some(network)), before | ECN);
        let differing = data.iter().zip(&packet).filter(|(old, new)| old != new).count();
        assert!(differing <= 3, "{differing} bytes differ");
    } else {
        assert_eq!(packet, data);
    }
    let _ = Class::of(data, Some(network), 1);
}

fn ip(data: &[u8]) {
    let Ok(packet) = IpPacket::parse(data) else { return };
    assert!(packet.header_len <= packet.total_len && packet.total_len <= data.len());
    assert_eq!(packet.src.is_ipv4(), packet.version == IpVersion::V4);
    assert_eq!(packet.dst.is_ipv4(), packet.src.is_ipv4());
    assert!(packet.dscp < 64);
    let trimmed = packet.trim(data).expect("the packet lies within the slice");
    assert_eq!(IpPacket::parse(trimmed), Ok(packet), "padding changes how a packet is read");
    for cut in crate::input::cuts(packet.total_len) {
        assert!(IpPacket::parse(&data[..cut]).is_err(), "a cut packet is read");
        assert!(packet.trim(&data[..cut]).is_none());
    }
}

/// Lowering the MSS changes two bytes of it and two of the checksum, by as much, and is done at once.
fn lowered(data: &[u8], mtu: u16) {
    let (mut complete, mut partial) = (data.to_vec(), data.to_vec());
    let changed = clamp_mss(&mut complete, mtu);
    assert_eq!(clamp_mss_partial(&mut partial, mtu), changed);
    assert_eq!((complete.len(), changed), (data.len(), partial != data));
    if changed {
        let differing = data.iter().zip(&complete).filter(|(old, new)| old != new).count();
        // Ten options of the kind have room in a header.
        assert!((1..=2 + 10 * 2).contains(&differing), "{differing} bytes differ");
        assert!(!clamp_mss(&mut complete.clone(), mtu) && !clamp_mss_partial(&mut partial, mtu));
        // All headers have an even length, so that the words of the packet are those of the sum.
        assert_eq!(remainder(&complete), remainder(data), "the checksum does not make up for the option");
    }
}

/// An answer is a right ICMP message that quotes the packet and gets no answer.
fn answered(data: &[u8], mtu: u16) {
    let mut out = [0; TOO_BIG_LEN];
    let hosts: [IpAddr; 2] = [[100, 64, 0, 9].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 9].into()];
    let lengths = hosts.map(|from| too_big(data, mtu, from, &mut out));
    let Some(from) = hosts.into_iter().zip(lengths).find_map(|(from, len)| len.map(|_| from)) else { return };
    assert!(lengths.contains(&None), "both versions answer");
    let len = too_big(data, mtu, from, &mut out).expect("it answered before");
    let (packet, answer) = (IpPacket::parse(data).expect("it was answered"), &out[..len]);
    let ip = IpPacket::parse(answer).expect("the answer is a packet");
    assert_eq!((ip.src, ip.dst, ip.total_len), (from, packet.src, len));
    assert!(packet.total_len > usize::from(mtu) && len <= if from.is_ipv4() { 576 } else { 1280 });
    assert!(data.starts_with(&answer[ip.header_len + 8..]), "the quote is not the start of the packet");
    let pseudo = match ip.version {
        IpVersion::V4 => {
            assert_eq!(remainder(&answer[..20]), 0);
            0
        }
        IpVersion::V6 => remainder(&answer[8..40]) + u64::try_from(len - 40).unwrap_or(u64::MAX) + 58,
    };
    assert_eq!((pseudo + remainder(&answer[ip.header_len..])) % 65535, 0);
    for host in hosts {
        assert_eq!(too_big(answer, 68, host, &mut [0; TOO_BIG_LEN]), None, "an answer is answered");
    }
}

/// Fragments are right packets of the size, and their payloads follow each other.
fn cut(data: &[u8], mtu: u16) {
    let _ = fragment(data, mtu).map(Iterator::count);
    let Ok(packet) = IpPacket::parse(data) else { return };
    let mut mended = data[..packet.total_len].to_vec();
    if packet.version == IpVersion::V4 {
        mended[10..12].fill(0);
        let checksum = u16::try_from((65535 - remainder(&mended[..packet.header_len])) % 65535);
        mended[10..12].copy_from_slice(&checksum.expect("a remainder is small").to_be_bytes());
    }
    let Ok(pieces) = fragment(&mended, mtu) else { return };
    let (mut payload, mut out) = (Vec::new(), vec![0; usize::from(mtu)]);
    for piece in pieces {
        let len = piece.write(&mut out).expect("a fragment fits the MTU");
        let ip = IpPacket::parse(&out[..len]).expect("a fragment is a packet");
        assert_eq!((ip.total_len, remainder(&out[..ip.header_len])), (len, 0));
        let place = |packet: &[u8]| usize::from(u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff) * 8;
        assert_eq!(place(&out), place(&mended) + payload.len(), "a fragment is out of place");
        payload.extend_from_slice(&out[ip.header_len..len]);
    }
    assert_eq!(payload, mended[packet.header_len..]);
}

/// The sum of the 16-bit words to one's complement, where 65535 is zero.
fn remainder(bytes: &[u8]) -> u64 {
    let words =
        bytes.chunks(2).map(|word| u64::from(word[0]) * 256 + word.get(1).copied().map_or(0, u64::from));
    words.sum::<u64>() % 65535
}

fn ethernet(data: &[u8]) {
    let Ok(frame) = Ethernet::parse(data) else { return };
    assert!(data.ends_with(frame.payload));
    let header = data.len() - frame.payload.len();
    assert!((Ethernet::HEADER_LEN..=Ethernet::HEADER_LEN + 8).contains(&header) && header % 4 == 2);
    assert_eq!((frame.dst.octets(), frame.src.octets()), (at(data, 0), at(data, 6)));
    assert_eq!(frame.ethertype, EtherType(u16::from_be_bytes([data[header - 2], data[header - 1]])));
    assert!(frame.vlan.is_none_or(|vlan| (1..4096).contains(&vlan.get())));
    for cut in 0..header {
        assert!(Ethernet::parse(&data[..cut]).is_err(), "a cut header is read");
    }
}

fn at(data: &[u8], offset: usize) -> [u8; 6] {
    let mut octets = [0; 6];
    octets.copy_from_slice(&data[offset..offset + 6]);
    octets
}
