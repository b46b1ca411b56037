//! Views of IP packets and Ethernet frames, which programs on this host and members send.

use mesh_packet::{EtherType, Ethernet, IpPacket, IpVersion, MacAddr};

/// Reads the bytes as a packet and as a frame.
pub fn packet(data: &[u8]) {
    ip(data);
    ethernet(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(mac) = text.parse::<MacAddr>()
    {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
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
