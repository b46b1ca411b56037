//! Lowers the maximum segment size that a TCP connection agrees on.

use crate::checksum;
use crate::options::Options;
use crate::upper::Upper;
use crate::{IpPacket, IpVersion};

/// Lowers the MSS option of a TCP SYN or SYN-ACK so that the segments of the other side fit `mtu`, the bytes of the
/// largest IP packet, and repairs the TCP checksum; returns whether the packet changed.
///
/// The bound is `mtu` less the fixed headers, 40 bytes with IPv4 and 60 with IPv6 (RFC 9293, 3.7.1: what options of
/// IP and TCP take up, the sender subtracts itself), and no lower than 28. A lower value stays. Where the option is absent, none is
/// added: the other side then sends at most 536 bytes with IPv4 and 1220 with IPv6 (RFC 9293, 3.7.1, MUST-15), that is
/// packets of 576 and 1280, which fit wherever `mtu` is no smaller.
///
/// Everything else stays as it is: other packets, all fragments but the first, a header that is malformed, cut off
/// or behind too many extension headers, and bytes behind the packet.
///
/// The checksum is repaired from the change alone (RFC 1624), so that a wrong one stays wrong and a first fragment
/// is enough. It has to be a complete one: for a packet with a partial checksum see [`clamp_mss_partial`].
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    clamp(packet, mtu, Checksum::Complete)
}

/// Does what [`clamp_mss`] does to a packet whose TCP checksum is still to be completed, which leaves the field alone.
///
/// A device with checksum offload marks such packets (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, virtio 1.2, 5.1.6.2). Their
/// field has the sum of the pseudo header, in which no option takes part; whoever completes it sums the option up as it is
/// then, so that repairing the field in addition would make the checksum wrong.
pub fn clamp_mss_partial(packet: &mut [u8], mtu: u16) -> bool {
    clamp(packet, mtu, Checksum::Partial)
}

/// What the checksum field of the TCP header covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checksum {
    Complete,
    Partial,
}

fn clamp(packet: &mut [u8], mtu: u16, checksum: Checksum) -> bool {
    let Some((header, most)) = syn(packet, mtu) else { return false };
    let well_formed = Options::new(&header[FIXED..])
        .all(|option| option.is_ok_and(|option| option.kind != MSS || option.range.len() == MSS_LEN));
    if !well_formed {
        return false;
    }
    let mut changed = false;
    // A second option of the kind is nonsense that receivers read nevertheless, most of them the last one.
    while let Some((at, value)) = excess(header, most) {
        header[at..at + 2].copy_from_slice(&most.to_be_bytes());
        if checksum == Checksum::Complete {
            repair(header, at, value, most);
        }
        changed = true;
    }
    changed
}

/// The header of a SYN, of at least [`FIXED`] bytes, and the largest MSS it may name.
fn syn(packet: &mut [u8], mtu: u16) -> Option<(&mut [u8], u16)> {
    let ip = IpPacket::parse(packet).ok()?;
    let upper = Upper::find(ip.trim(packet)?, &ip).filter(|upper| upper.protocol == TCP)?;
    let segment = packet.get_mut(upper.at..ip.total_len)?;
    let length = usize::from(*segment.get(12)? >> 4) * 4;
    let header = segment.get_mut(..length).filter(|header| header.len() >= FIXED)?;
    let headers = match ip.version {
        IpVersion::V4 => 40,
        IpVersion::V6 => 60,
    };
    (header[13] & (SYN | RST) == SYN).then_some((header, mtu.saturating_sub(headers).max(LEAST_MSS)))
}

/// Where the first MSS above `most` lies, and the MSS.
fn excess(header: &[u8], most: u16) -> Option<(usize, u16)> {
    Options::new(&header[FIXED..])
        .flatten()
        .filter(|option| option.kind == MSS)
        .map(|option| FIXED + option.range.start + 2)
        .map(|at| (at, u16::from_be_bytes([header[at], header[at + 1]])))
        .find(|(_, value)| *value > most)
}

/// Brings the header's checksum in line with a change of the two bytes at `at`.
fn repair(header: &mut [u8], at: usize, old: u16, new: u16) {
    // At an odd place the bytes belong to two words of the sum, the first one as the lower half.
    let (old, new) = if at.is_multiple_of(2) { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    let checksum = checksum::replace(u16::from_be_bytes([header[16], header[17]]), old, new);
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
}

const TCP: u8 = 6;
/// Bytes of a TCP header without options.
const FIXED: usize = 20;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// The kind of the option, and its bytes (RFC 9293, 3.2).
const MSS: u8 = 2;
const MSS_LEN: usize = 4;
/// What is left of the smallest MTU, 68 bytes (RFC 791, 3.2): a connection with an MSS of zero would stand still.
const LEAST_MSS: u16 = 28;

#[cfg(test)]
mod tests;
