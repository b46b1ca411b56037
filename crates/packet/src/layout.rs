//! Where the headers of a TCP or UDP packet lie.

use crate::offload::{PartialChecksum, TCP_CHECKSUM, UDP_CHECKSUM};
use crate::{EtherType, Ethernet};

/// Where the headers of a packet lie that can be cut and joined, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the IP header begins: behind the Ethernet header, or at 0.
    pub(crate) network: usize,
    /// Where the TCP or UDP header begins.
    pub(crate) transport: usize,
    /// Where the payload begins.
    pub(crate) payload: usize,
    pub(crate) v4: bool,
    pub(crate) tcp: bool,
}

impl Layout {
    /// Reads an IP packet that lies behind `network` bytes of other headers. `None` for anything but a whole TCP or UDP
    /// packet (no fragment) whose header follows the IP header at once, and which reaches to the end of the
    /// payload that its IP header claims.
    #[must_use]
    pub fn find(packet: &[u8], network: usize) -> Option<Self> {
        let ip = packet.get(network..)?;
        let v4 = is_v4(ip)?;
        let (protocol, transport) = if v4 {
            let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & FRAGMENT;
            if fragment != 0 {
                return None;
            }
            (*ip.get(9)?, usize::from(ip[0] & 0x0f) * 4)
        } else {
            (*ip.get(6)?, V6_HEADER)
        };
        if transport < V4_HEADER {
            return None;
        }
        Self::at(packet, network, network + transport, v4, protocol)
    }

    /// Reads a packet whose TCP or UDP header begins at `transport`, whatever is in front of it.
    pub(crate) fn with_transport(packet: &[u8], network: usize, transport: usize, tcp: bool) -> Option<Self> {
        let v4 = is_v4(packet.get(network..)?)?;
        let least = if v4 { V4_HEADER } else { V6_HEADER };
        if transport < network + least {
            return None;
        }
        Self::at(packet, network, transport, v4, if tcp { TCP } else { UDP })
    }

    /// The checksum of such a packet, while it covers the pseudo header only.
    #[must_use]
    pub fn partial(&self) -> Option<PartialChecksum> {
        let offset = if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
        Some(PartialChecksum { start: u16::try_from(self.transport).ok()?, offset })
    }

    /// Bytes of the packet by its IP header, what is in front of it included; what follows is padding.
    pub(crate) fn length(&self, packet: &[u8]) -> Option<usize> {
        let ip = packet.get(self.network..)?;
        let word = |at: usize| Some(usize::from(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?])));
        let length = if self.v4 { word(2)? } else { V6_HEADER + word(4)? };
        let end = self.network + length;
        (end >= self.payload && end <= packet.len()).then_some(end)
    }

    fn at(packet: &[u8], network: usize, transport: usize, v4: bool, protocol: u8) -> Option<Self> {
        let header = packet.get(transport..)?;
        let (tcp, length) = match protocol {
            TCP => (true, usize::from(*header.get(12)? >> 4) * 4),
            UDP => (false, UDP_HEADER),
            _ => return None,
        };
        if length > header.len() || (tcp && length < TCP_HEADER) {
            return None;
        }
        Some(Self { network, transport, payload: transport + length, v4, tcp })
    }
}

/// Bytes in front of the IP packet in an Ethernet frame; `None` where it carries none.
#[must_use]
pub fn network_offset(frame: &[u8]) -> Option<usize> {
    let view = Ethernet::parse(frame).ok()?;
    matches!(view.ethertype, EtherType::IPV4 | EtherType::IPV6).then(|| frame.len() - view.payload.len())
}

fn is_v4(ip: &[u8]) -> Option<bool> {
    match ip.first()? >> 4 {
        4 => Some(true),
        6 => Some(false),
        _ => None,
    }
}

pub(crate) const V4_HEADER: usize = 20;
pub(crate) const V6_HEADER: usize = 40;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// More fragments, and the offset (RFC 791, 3.1).
const FRAGMENT: u16 = 0x3fff;
