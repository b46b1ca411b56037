//! Joins segments of one flow to one packet for a device with offload: the opposite of [`Split`](crate::Split).

use std::ops::Range;

use crate::checksum;
use crate::layout::{Layout, TCP, UDP};
use crate::offload::{Offload, SegmentKind, Segments};
use crate::split::{CWR, FIN, PSH};

/// A packet that grows by the payloads of the packets that follow it. It holds no bytes: the caller keeps the first packet
/// whole and of the others what [`Merge::join`] says.
#[derive(Clone, Copy, Debug)]
pub struct Merge {
    layout: Layout,
    /// Bytes of payload in each packet but the last.
    size: usize,
    /// Bytes of the joined packet.
    length: usize,
    /// The sequence number that follows, with TCP.
    sequence: u32,
    /// Flags of TCP that the last segment brought.
    flags: u8,
    joined: usize,
    /// A shorter packet ended it.
    ended: bool,
}

impl Merge {
    /// Begins with a packet whose transport checksum covers the pseudo header only and whose IP header begins at
    /// `network`. Returns it with the packet's length without padding, or `None` where nothing can be joined to it.
    #[must_use]
    pub fn begin(packet: &[u8], network: usize) -> Option<(Self, usize)> {
        let layout = Layout::find(packet, network)?;
        let length = layout.length(packet)?;
        let size = length - layout.payload;
        let sequence = sequence(packet, &layout).wrapping_add(u32::try_from(size).ok()?);
        // What ends a stream or asks for attention stays by itself.
        let ended = size == 0 || (layout.tcp && packet[layout.transport + 13] & (FIN | SYN | RST | URG) != 0);
        Some((Self { layout, size, length, sequence, flags: 0, joined: 0, ended }, length))
    }

    /// Takes a packet that its sender says continues the one before, and returns which of its bytes are to be
    /// appended; `None` where it does not fit, so that it begins anew. `head` is the first packet.
    #[must_use]
    pub fn join(&mut self, head: &[u8], packet: &[u8]) -> Option<Range<usize>> {
        let layout = self.layout;
        if !same_flow(head, packet, &layout) {
            return None;
        }
        let end = layout.length(packet)?;
        let size = end - layout.payload;
        if self.ended || size == 0 || size > self.size || self.length + size > MOST {
            return None;
        }
        if layout.tcp {
            if sequence(packet, &layout) != self.sequence {
                return None;
            }
            let flags = packet[layout.transport + 13];
            self.flags |= flags & (FIN | PSH);
            self.ended = flags & FIN != 0;
            self.sequence = self.sequence.wrapping_add(u32::try_from(size).ok()?);
        }
        self.ended |= size < self.size;
        self.length += size;
        self.joined += 1;
        Some(layout.payload..end)
    }

    /// Makes the headers of the first packet, which `head` begins with, those of the whole, and returns what the device
    /// is to be told.
    pub fn finish(self, head: &mut [u8]) -> Offload {
        let Layout { network, transport, payload, v4, tcp } = self.layout;
        let checksum = self.layout.partial();
        if self.joined == 0 {
            return Offload { checksum, segments: None };
        }
        let upper = self.length - transport;
        let low = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        if v4 {
            head[network + 2..network + 4].copy_from_slice(&low(self.length - network));
            head[network + 10..network + 12].fill(0);
            let sum = checksum::finish(checksum::sum(&head[network..transport]));
            head[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            head[network + 4..network + 6].copy_from_slice(&low(self.length - network - 40));
        }
        let addresses = if v4 { network + 12..network + 20 } else { network + 8..network + 40 };
        let protocol = if tcp { TCP } else { UDP };
        let pseudo = checksum::sum(&head[addresses])
            + u32::from(protocol)
            + u32::try_from(upper).expect("below 64 KiB");
        let field = transport + if tcp { 16 } else { 6 };
        head[field..field + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        let kind = if tcp {
            head[transport + 13] |= self.flags;
            let cwr = head[transport + 13] & CWR != 0;
            if v4 { SegmentKind::TcpV4 { cwr } } else { SegmentKind::TcpV6 { cwr } }
        } else {
            head[transport + 4..transport + 6].copy_from_slice(&low(upper));
            SegmentKind::Udp
        };
        let header = u16::try_from(payload).unwrap_or(u16::MAX);
        let size = u16::try_from(self.size).unwrap_or(u16::MAX);
        Offload { checksum, segments: Some(Segments { kind, header, size }) }
    }

    /// Whether it is of UDP, which older devices cannot cut.
    #[must_use]
    pub const fn is_udp(&self) -> bool {
        !self.layout.tcp
    }
}

/// Whether both have the same addresses, ports, marks and whatever else segments of one flow have in common.
fn same_flow(head: &[u8], packet: &[u8], layout: &Layout) -> bool {
    let Layout { network, transport, payload, v4, tcp } = *layout;
    if head.len() < payload || packet.len() < payload {
        return false;
    }
    // Length, id and header checksum differ.
    let (before, behind) = if v4 { (2, 12) } else { (4, 6) };
    let same = |from: usize, to: usize| head[from..to] == packet[from..to];
    same(0, network + before)
        && (!v4 || same(network + 6, network + 10))
        && same(network + behind, transport + 4)
        // The length of the header; the options are those of the first.
        && (!tcp || head[transport + 12] == packet[transport + 12])
}

fn sequence(packet: &[u8], layout: &Layout) -> u32 {
    if !layout.tcp {
        return 0;
    }
    let at = layout.transport + 4;
    packet.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// The length field of an IPv4 packet, and some room for what is in front of it.
const MOST: usize = 65_535;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const URG: u8 = 0x20;

#[cfg(test)]
mod tests;
