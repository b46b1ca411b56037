//! Packets for tests, and the internet checksum in another way than the product computes it.

use std::net::IpAddr;

use crate::{IpPacket, IpVersion};

/// An IPv4 packet from 100.64.0.1 to 100.64.0.2 with these flags and offset; `options` fill whole words.
pub(crate) fn v4(flags_and_offset: u16, options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    assert!(header_len <= 60 && header_len.is_multiple_of(4));
    let mut packet = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0xb9, 0, 0, 0x12, 0x34, 0, 0];
    packet[2..4].copy_from_slice(&u16::try_from(header_len + payload.len()).unwrap().to_be_bytes());
    packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    packet.extend([63, protocol, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]);
    packet.extend(options);
    packet.extend(payload);
    mend_header(&mut packet);
    packet
}

/// An IPv6 packet from fd00::1 to fd00::2.
pub(crate) fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x90, 0, 0, 0, 0, next_header, 63];
    packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    for address in ["fd00::1", "fd00::2"] {
        packet.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    packet.extend(payload);
    packet
}

/// Makes the checksum of an IPv4 header right.
pub(crate) fn mend_header(packet: &mut [u8]) {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let checksum = checksum_of(&[&packet[..header_len]]);
    packet[10..12].copy_from_slice(&checksum);
}

/// Makes the checksum right that lies at `field` in the upper header at `at`, with the pseudo header of the packet's own
/// addresses.
pub(crate) fn mend_upper(packet: &mut [u8], protocol: u8, at: usize, field: usize) {
    packet[at + field..at + field + 2].fill(0);
    let checksum = checksum_of(&[&pseudo_header(packet, protocol, at), &packet[at..]]);
    packet[at + field..at + field + 2].copy_from_slice(&checksum);
}

/// Whether the checksum of the upper header at `at` is right.
pub(crate) fn upper_is_right(packet: &[u8], protocol: u8, at: usize) -> bool {
    is_right(&[&pseudo_header(packet, protocol, at), &packet[at..]])
}

/// The pseudo header of RFC 9293, 3.1, or of RFC 8200, 8.1.
pub(crate) fn pseudo_header(packet: &[u8], protocol: u8, at: usize) -> Vec<u8> {
    let ip = IpPacket::parse(packet).unwrap();
    let mut pseudo = Vec::new();
    for address in [ip.src, ip.dst] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    let length = u16::try_from(ip.total_len - at).unwrap().to_be_bytes();
    match ip.version {
        IpVersion::V4 => pseudo.extend([0, protocol, length[0], length[1]]),
        IpVersion::V6 => pseudo.extend([0, 0, length[0], length[1], 0, 0, 0, protocol]),
    }
    pseudo
}

/// Whether the words of all parts, the checksum among them, are a multiple of 65535, which is zero to one's complement.
/// All parts but the last have an even length.
pub(crate) fn is_right(parts: &[&[u8]]) -> bool {
    remainder(parts) == 0
}

fn checksum_of(parts: &[&[u8]]) -> [u8; 2] {
    u16::try_from((65535 - remainder(parts)) % 65535).unwrap().to_be_bytes()
}

fn remainder(parts: &[&[u8]]) -> u64 {
    let mut remainder = 0;
    for part in parts {
        for (place, byte) in part.iter().enumerate() {
            let weight = if place.is_multiple_of(2) { 256 } else { 1 };
            remainder = (remainder + weight * u64::from(*byte)) % 65535;
        }
    }
    remainder
}
