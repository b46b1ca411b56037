//! The traffic class of a packet: congestion marks that cross a tunnel (RFC 6040), and the code point beside them.

use crate::checksum;

/// Reads the traffic class (IPv4: type of service) of an IP packet behind `network` bytes of other headers: DSCP in the upper
/// six bits, the congestion mark in the lower two. Zero where there is no IP packet.
#[must_use]
pub fn traffic_class(packet: &[u8], network: Option<usize>) -> u8 {
    match network.and_then(|network| packet.get(network..)) {
        Some([first, second, ..]) => match first >> 4 {
            4 => *second,
            6 => (first << 4) | (second >> 4),
            _ => 0,
        },
        _ => 0,
    }
}

/// Marks a packet as having met congestion (CE), as a queue does instead of dropping it (RFC 3168, 5). False, and nothing
/// changed, where its sender does not understand such marks or there is no IP packet.
pub fn mark_congestion(packet: &mut [u8], network: Option<usize>) -> bool {
    let class = traffic_class(packet, network);
    let Some(ip) = network.and_then(|network| packet.get_mut(network..)).filter(|_| class & ECN != 0) else {
        return false;
    };
    if class & ECN == ECN {
        return true;
    }
    if ip[0] >> 4 == 4 {
        let Some(header) = ip.get_mut(..20) else { return false };
        let old = u16::from_be_bytes([header[0], header[1]]);
        header[1] |= ECN;
        let new = u16::from_be_bytes([header[0], header[1]]);
        let sum = checksum::replace(u16::from_be_bytes([header[10], header[11]]), old, new);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        ip[1] |= ECN << 4;
    }
    true
}

/// The two bits of the mark; all of them set is CE.
pub const ECN: u8 = 0b11;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_right, v4, v6};
    use crate::{Ecn, IpPacket};

    #[test]
    fn capable_packets_are_marked_and_others_stay() {
        for (mark, capable) in [(0_u8, false), (1, true), (2, true), (3, true)] {
            let mut four = v4(0x4000, &[], 6, b"tcp");
            four[1] = 0xb8 | mark;
            crate::testing::mend_header(&mut four);
            let mut six = v6(6, b"tcp");
            six[1] = (six[1] & 0xcf) | (mark << 4);
            for packet in [&mut four, &mut six] {
                let before = packet.clone();
                assert_eq!(traffic_class(packet, Some(0)) & ECN, mark);
                assert_eq!(mark_congestion(packet, Some(0)), capable);
                let ecn = IpPacket::parse(packet).unwrap().ecn;
                assert_eq!(ecn == Ecn::Experienced, capable);
                assert_eq!(IpPacket::parse(packet).unwrap().dscp, IpPacket::parse(&before).unwrap().dscp);
                assert!(capable || *packet == before);
            }
            assert!(is_right(&[&four[..20]]));
        }
        let mut short = [0x45, 1];
        assert!(!mark_congestion(&mut short, Some(0)));
        assert!(!mark_congestion(&mut [], Some(0)) && !mark_congestion(&mut [0x45; 40], None));
        assert_eq!(traffic_class(&[0x45; 40], Some(40)), 0);
    }
}
