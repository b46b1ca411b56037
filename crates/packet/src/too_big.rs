//! The answer to a packet that is too big for the way ahead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::IpPacket;
use crate::checksum;
use crate::upper::Upper;

/// Bytes that every answer of [`too_big()`] fits into: the smallest MTU of IPv6.
pub const TOO_BIG_LEN: usize = 1280;

/// Writes the ICMP message of `from` that tells the sender of `packet` to send none above `mtu` bytes, and returns the
/// length of the message, a whole IP packet at the start of `out`.
///
/// For IPv4 that is destination unreachable, fragmentation needed and DF set, with the next-hop MTU (RFC 792, RFC 1191,
/// section 4), at most 576 bytes (RFC 1812, 4.3.2.3). For IPv6 it is packet too big (RFC 4443, 3.2), at most 1280 bytes. Both
/// quote as much of the packet as fits. No MTU below 68 for IPv4 (RFC 791, 3.2) or 1280 for IPv6 (RFC 8200, section 5) is
/// told: where the way ahead takes less, the packet has to travel in pieces that IP does not see.
///
/// Returns `None` where there is nothing to tell:
/// - the packet fits `mtu` or the lowest MTU that may be told, or it is malformed;
/// - it is IPv4 without DF: [`crate::fragment()`] makes pieces of it;
/// - it is an ICMP error or redirect itself, its transport header cannot be found, or it is a fragment other than
///   the first (RFC 1122, 3.2.2, RFC 4443, 2.4 e);
/// - its source is no single host: unspecified, loopback, multicast, broadcast, IPv4's 0.0.0.0/8 or 240.0.0.0/4;
/// - its destination is IPv4 multicast, 255.255.255.255 or 0.0.0.0; IPv6 multicast gets an answer (RFC 4443, 2.4 e.3).
///   Broadcast addresses of subnets look like any other and are for the caller to know;
/// - `from` is of the other IP version or no single host;
/// - `out` is too small, which [`TOO_BIG_LEN`] bytes never are.
///
/// The quoted bytes are as in `packet`, a partial checksum included, which does not harm: senders look the
/// addresses and ports up. How often to answer at all (RFC 4443, 2.4 f) is the caller's to limit. `packet` is one that
/// would travel as it is: a large one that a device with offload hands out is split first.
#[must_use]
pub fn too_big(packet: &[u8], mtu: u16, from: IpAddr, out: &mut [u8]) -> Option<usize> {
    let ip = IpPacket::parse(packet).ok()?;
    let packet = ip.trim(packet)?;
    match (ip.src, ip.dst, from) {
        (IpAddr::V4(src), IpAddr::V4(dst), IpAddr::V4(from)) => {
            let mtu = mtu.max(LEAST_V4);
            let refused = packet.get(6)? & DONT_FRAGMENT == 0 || is_group_v4(dst);
            if refused || !is_host_v4(src) || !is_host_v4(from) || !may_be_answered(packet, &ip, mtu) {
                return None;
            }
            write_v4(packet, mtu, from, src, out)
        }
        (IpAddr::V6(src), IpAddr::V6(_), IpAddr::V6(from)) => {
            let mtu = mtu.max(LEAST_V6);
            if !is_host_v6(src) || !is_host_v6(from) || !may_be_answered(packet, &ip, mtu) {
                return None;
            }
            write_v6(packet, mtu, from, src, out)
        }
        _ => None,
    }
}

/// Whether the packet is larger than `mtu` and carries what an ICMP error may answer.
fn may_be_answered(packet: &[u8], ip: &IpPacket, mtu: u16) -> bool {
    if ip.total_len <= usize::from(mtu) {
        return false;
    }
    let Some(upper) = Upper::find(packet, ip) else { return false };
    let kind = packet.get(upper.at);
    match (ip.src, upper.protocol) {
        (IpAddr::V4(_), ICMP) => kind.is_some_and(|kind| !ICMP_ERRORS.contains(kind)),
        (IpAddr::V6(_), ICMPV6) => {
            kind.is_some_and(|kind| *kind >= ICMPV6_INFORMATIONAL && *kind != ICMPV6_REDIRECT)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => true,
    }
}

fn write_v4(packet: &[u8], mtu: u16, from: Ipv4Addr, to: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let (quote, total) = quote(packet, V4_HEADER, MOST_V4);
    let message = out.get_mut(..usize::from(total))?;
    let (header, icmp) = message.split_at_mut(V4_HEADER);
    header.copy_from_slice(&[
        0x45,
        INTERNETWORK_CONTROL,
        0,
        0,
        0,
        0,
        DONT_FRAGMENT,
        0,
        HOPS,
        ICMP,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let checksum = checksum::finish(checksum::sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());

    let [high, low] = mtu.to_be_bytes();
    icmp[..ICMP_HEADER].copy_from_slice(&[UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, high, low]);
    icmp[ICMP_HEADER..].copy_from_slice(quote);
    let checksum = checksum::finish(checksum::sum(icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(usize::from(total))
}

fn write_v6(packet: &[u8], mtu: u16, from: Ipv6Addr, to: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    let (quote, total) = quote(packet, V6_HEADER, TOO_BIG_LEN);
    let message = out.get_mut(..usize::from(total))?;
    let (header, icmp) = message.split_at_mut(V6_HEADER);
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, HOPS]);
    header[4..6].copy_from_slice(&(total - 40).to_be_bytes());
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());

    let [high, low] = mtu.to_be_bytes();
    icmp[..ICMP_HEADER].copy_from_slice(&[PACKET_TOO_BIG, 0, 0, 0, 0, 0, high, low]);
    icmp[ICMP_HEADER..].copy_from_slice(quote);
    // The pseudo header of RFC 8200, 8.1: addresses, length, protocol.
    let pseudo = checksum::sum(&header[8..]) + u32::from(total - 40) + u32::from(ICMPV6);
    let checksum = checksum::finish(pseudo + checksum::sum(icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(usize::from(total))
}

/// What is quoted of the packet in a message of at most `most` bytes, and the length of the message.
fn quote(packet: &[u8], header: usize, most: usize) -> (&[u8], u16) {
    let room = most - header - ICMP_HEADER;
    let quote = &packet[..room.min(packet.len())];
    let total = u16::try_from(header + ICMP_HEADER + quote.len()).expect("it is `most` at most, 576 or 1280");
    (quote, total)
}

/// Whether the address names one host that packets can come from (RFC 1122, 3.2.2).
fn is_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < CLASS_D && !address.is_loopback()
}

fn is_group_v4(address: Ipv4Addr) -> bool {
    address.is_multicast() || address.is_broadcast() || address.is_unspecified()
}

fn is_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
/// Bytes in front of the quote in both versions.
const ICMP_HEADER: usize = 8;
/// The longest ICMPv4 error (RFC 1812, 4.3.2.3).
const MOST_V4: usize = 576;
/// Every link takes IPv4 packets of this size (RFC 791, 3.2).
const LEAST_V4: u16 = 68;
/// Every link takes IPv6 packets of this size (RFC 8200, section 5).
const LEAST_V6: u16 = 1280;
/// The first address byte from which on no host has addresses: classes D and E (RFC 1112, section 4).
const CLASS_D: u8 = 224;
/// DF as it lies in byte 6 of an IPv4 header. In the answer it makes an identification needless (RFC 6864, 4.1).
const DONT_FRAGMENT: u8 = 0x40;
/// The precedence of answers of routers (RFC 1812, 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// The usual default of hosts (RFC 1700, IP TIME TO LIVE PARAMETER).
const HOPS: u8 = 64;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122, 3.2.2).
const ICMP_ERRORS: [u8; 5] = [UNREACHABLE, 4, 5, 11, 12];
/// ICMPv6 types from here on are no errors (RFC 4443, 2.1).
const ICMPV6_INFORMATIONAL: u8 = 128;
/// Gets no answer either (RFC 4443, 2.4 e.2).
const ICMPV6_REDIRECT: u8 = 137;
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;

#[cfg(test)]
mod tests;
