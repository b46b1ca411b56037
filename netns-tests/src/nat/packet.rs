//! What a translator reads and changes in an IPv4 packet, with the checksums kept right.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::translator::Refusal;

/// What is told apart by ports, or by the identifier of an echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Echo,
}

/// The half of a packet's addresses that belongs to the inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// Both ends of a packet; `near` is the one that is translated. An echo has no port at the far end, which reads as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    pub(super) near: SocketAddrV4,
    pub(super) far: SocketAddrV4,
}

/// One whole packet, or the beginning of one that an ICMP error quotes.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    bytes: &'a mut [u8],
    header: usize,
}

impl<'a> Packet<'a> {
    /// Looks at the header; the packet has to hold at least the ports.
    pub(super) fn new(bytes: &'a mut [u8]) -> Result<Self, Refusal> {
        let first = *bytes.first().ok_or(Refusal::Malformed)?;
        let header = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header < MIN_HEADER || bytes.len() < header + QUOTED {
            return Err(Refusal::Malformed);
        }
        // Without ports there is nothing to translate by; no program of ours sends fragments.
        if u16::from_be_bytes([bytes[6], bytes[7]]) & FRAGMENT != 0 {
            return Err(Refusal::Fragment);
        }
        Ok(Self { bytes, header })
    }

    pub(super) fn address(&self, side: Side) -> Ipv4Addr {
        let at = address_at(side);
        Ipv4Addr::new(self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3])
    }

    pub(super) fn flow(&self, near: Side) -> Result<Flow, Refusal> {
        let protocol = match (self.bytes[9], self.bytes[self.header]) {
            (TCP, _) => Protocol::Tcp,
            (UDP, _) => Protocol::Udp,
            (ICMP, ECHO_REQUEST | ECHO_REPLY) => Protocol::Echo,
            _ => return Err(Refusal::Protocol),
        };
        let port = |side| {
            let at = self.port_at(protocol, side);
            u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
        };
        let far_port = if protocol == Protocol::Echo { 0 } else { port(near.other()) };
        Ok(Flow {
            protocol,
            near: SocketAddrV4::new(self.address(near), port(near)),
            far: SocketAddrV4::new(self.address(near.other()), far_port),
        })
    }

    /// The packet that an ICMP error is about, as far as it is quoted; nothing when this is no ICMP error.
    pub(super) fn quoted(&mut self) -> Option<Result<Packet<'_>, Refusal>> {
        let is_error = self.bytes[9] == ICMP && ERRORS.contains(&self.bytes[self.header]);
        is_error.then(|| Packet::new(&mut self.bytes[self.header + QUOTED..]))
    }

    /// Replaces address and port of one side.
    pub(super) fn set(&mut self, protocol: Protocol, side: Side, to: SocketAddrV4) {
        let at = self.port_at(protocol, side);
        let old = [self.bytes[at], self.bytes[at + 1]];
        let new = to.port().to_be_bytes();
        self.bytes[at..at + 2].copy_from_slice(&new);
        let old_address = self.address(side).octets();
        self.set_address(side, *to.ip());
        let sum_at = self.header
            + match protocol {
                Protocol::Tcp => 16,
                Protocol::Udp => 6,
                Protocol::Echo => 2,
            };
        // What an ICMP error quotes may end before the checksum; a UDP sender may have left it out.
        let Some(&[high, low]) = self.bytes.get(sum_at..sum_at + 2) else { return };
        let mut sum = u16::from_be_bytes([high, low]);
        if protocol == Protocol::Udp && sum == 0 {
            return;
        }
        sum = adjusted(sum, &old, &new);
        if protocol != Protocol::Echo {
            sum = adjusted(sum, &old_address, &to.ip().octets());
        }
        if protocol == Protocol::Udp && sum == 0 {
            sum = u16::MAX;
        }
        self.bytes[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Replaces the address of one side and leaves what is behind the header alone.
    pub(super) fn set_address(&mut self, side: Side, to: Ipv4Addr) {
        let at = address_at(side);
        let old = self.address(side).octets();
        self.bytes[at..at + 4].copy_from_slice(&to.octets());
        self.adjust_header(&old, &to.octets());
    }

    /// The kernel forwards the packet into the translator and again out of it; together that is one hop, not two.
    pub(super) fn raise_ttl(&mut self) {
        let old = [self.bytes[8], self.bytes[9]];
        self.bytes[8] = self.bytes[8].saturating_add(1);
        let new = [self.bytes[8], self.bytes[9]];
        self.adjust_header(&old, &new);
    }

    /// Sums an ICMP message up again, after what it quotes has changed.
    pub(super) fn sum_icmp(&mut self) {
        let header = self.header;
        self.bytes[header + 2..header + 4].fill(0);
        let mut sum = u16::MAX;
        for pair in self.bytes[header..].chunks(2) {
            let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum = adjusted(sum, &[0, 0], &word);
        }
        self.bytes[header + 2..header + 4].copy_from_slice(&sum.to_be_bytes());
    }

    fn port_at(&self, protocol: Protocol, side: Side) -> usize {
        self.header
            + match (protocol, side) {
                (Protocol::Echo, _) => 4,
                (Protocol::Tcp | Protocol::Udp, Side::Source) => 0,
                (Protocol::Tcp | Protocol::Udp, Side::Destination) => 2,
            }
    }

    fn adjust_header(&mut self, old: &[u8], new: &[u8]) {
        let sum = adjusted(u16::from_be_bytes([self.bytes[10], self.bytes[11]]), old, new);
        self.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

const fn address_at(side: Side) -> usize {
    match side {
        Side::Source => 12,
        Side::Destination => 16,
    }
}

/// The Internet checksum after some of the words that it covers changed (RFC 1624, equation 3).
fn adjusted(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
    let mut sum = u32::from(!checksum);
    for (old, new) in old.chunks_exact(2).zip(new.chunks_exact(2)) {
        sum += u32::from(!word(old)) + u32::from(word(new));
    }
    while sum > u32::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the carries were folded in")
}

const MIN_HEADER: usize = 20;
/// What an ICMP error holds at least of the packet's payload, and the length of its own header.
const QUOTED: usize = 8;
/// More fragments follow, or the offset is not zero.
const FRAGMENT: u16 = 0x3fff;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Destination unreachable, time exceeded, parameter problem.
const ERRORS: [u8; 3] = [3, 11, 12];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A UDP packet with both checksums.
    pub(in super::super) fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
        let mut udp = Vec::new();
        udp.extend(from.port().to_be_bytes());
        udp.extend(to.port().to_be_bytes());
        udp.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        let mut pseudo = [from.ip().octets(), to.ip().octets()].concat();
        pseudo.extend([0, UDP]);
        pseudo.extend(u16::try_from(udp.len()).unwrap().to_be_bytes());
        pseudo.extend(&udp);
        // Nought would say that there is none.
        let sum = match full_sum(&pseudo) {
            0 => u16::MAX,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        ip(UDP, *from.ip(), *to.ip(), &udp)
    }

    /// An ICMP error of `from` about a packet.
    pub(in super::super) fn unreachable(from: Ipv4Addr, to: Ipv4Addr, about: &[u8]) -> Vec<u8> {
        let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
        icmp.extend(&about[..28]);
        let sum = full_sum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        ip(ICMP, from, to, &icmp)
    }

    fn ip(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x45, 0, length[0], length[1], 0, 7, 0x40, 0, 64, protocol, 0, 0];
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        let sum = full_sum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// The checksum straight from its definition (RFC 1071).
    fn full_sum(bytes: &[u8]) -> u16 {
        let mut sum: u64 = 0;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn translated_packet_is_one_that_its_new_sender_could_have_made() {
        let (from, to) = ("10.1.0.2:4747".parse().unwrap(), "203.0.113.9:3478".parse().unwrap());
        let mapped = "203.0.113.1:61000".parse().unwrap();
        for payload in [&b"even"[..], b"odd", b""] {
            let mut bytes = udp(from, to, payload);
            let mut packet = Packet::new(&mut bytes).unwrap();
            let flow = packet.flow(Side::Source).unwrap();
            assert_eq!((flow.protocol, flow.near, flow.far), (Protocol::Udp, from, to));
            packet.set(Protocol::Udp, Side::Source, mapped);
            assert_eq!(bytes, udp(mapped, to, payload));
            Packet::new(&mut bytes).unwrap().set(Protocol::Udp, Side::Source, from);
            assert_eq!(bytes, udp(from, to, payload));
        }
    }

    #[test]
    fn error_about_a_translated_packet_names_the_true_sender() {
        let (from, to): (SocketAddrV4, SocketAddrV4) =
            ("10.1.0.2:4747".parse().unwrap(), "203.0.113.9:3478".parse().unwrap());
        let mapped: SocketAddrV4 = "203.0.113.1:61000".parse().unwrap();
        let mut bytes = unreachable(*to.ip(), *mapped.ip(), &udp(mapped, to, b"x"));
        let mut packet = Packet::new(&mut bytes).unwrap();
        packet.set_address(Side::Destination, *from.ip());
        let mut inner = packet.quoted().unwrap().unwrap();
        assert_eq!(inner.flow(Side::Source).unwrap().near, mapped);
        inner.set(Protocol::Udp, Side::Source, from);
        packet.sum_icmp();
        assert_eq!(bytes, unreachable(*to.ip(), *from.ip(), &udp(from, to, b"x")));
    }

    #[test]
    fn what_cannot_be_translated_is_refused() {
        let whole = udp("10.1.0.2:1".parse().unwrap(), "203.0.113.9:2".parse().unwrap(), b"");
        for length in 0..whole.len() {
            let mut bytes = whole[..length].to_vec();
            assert_eq!(Packet::new(&mut bytes).err(), Some(Refusal::Malformed), "{length} bytes");
        }
        let mut fragment = whole.clone();
        fragment[6] |= 0x20;
        assert_eq!(Packet::new(&mut fragment).err(), Some(Refusal::Fragment));
        let mut gre = whole;
        gre[9] = 47;
        assert_eq!(Packet::new(&mut gre).unwrap().flow(Side::Source).err(), Some(Refusal::Protocol));
    }
}
