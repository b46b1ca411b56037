//! Frames for a packet of a device with offload, and the opposite.
//!
//! A packet of up to 64 KiB becomes a frame for each of its segments. Their transport checksums stay as the device gave
//! them, over the pseudo header only: the tag of the frame proves the bytes, and the other device is told the same. Each
//! frame holds a whole packet, so that a lost one costs no other.

use std::time::Instant;

use mesh_packet::{Flow, Layout, Offload, Split, network_offset, traffic_class};
use mesh_wire::frame::PayloadKind;

use crate::beyond::clamp_to;
use crate::counters::DropReason;
use crate::node::{Link, Node, Slot};
use crate::outbound::Way;
use crate::tx::TxQueue;

/// IP packets are padded to a multiple of this, so that a frame's size tells less.
const PAD: usize = 16;

/// What became of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    pub(crate) frames: u64,
    /// Bytes of the longest payload.
    pub(crate) longest: usize,
}

/// How a packet relates to the one before it.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    flow: Flow,
    /// The peer that the last packet was for.
    slot: Option<Slot>,
}

/// How much of a packet's checksum is there, and whether it continues the packet before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Partial,
    Continued,
}

impl Node {
    /// Seals a packet of the device as one frame, or as one for each of its segments.
    pub(crate) fn seal_packet(
        &mut self,
        now: Instant,
        slot: Slot,
        at: usize,
        (packet, offload): (&[u8], &Offload),
        tx: &mut TxQueue,
    ) -> Result<Sealed, DropReason> {
        let limit = usize::from(self.peers[slot.0].paths.limit());
        if packet.len() > limit && self.longest_part(packet, offload) > limit {
            return self.seal_beyond(now, (slot, at), (packet, offload), tx);
        }
        self.seal_along(now, (slot, at), self.way(now, slot), (packet, offload), tx)
    }

    /// The same over a way that carries it.
    pub(crate) fn seal_along(
        &mut self,
        now: Instant,
        (slot, at): (Slot, usize),
        way: Way,
        (packet, offload): (&[u8], &Offload),
        tx: &mut TxQueue,
    ) -> Result<Sealed, DropReason> {
        let network = self.network_offset(packet);
        let way = Way { class: traffic_class(packet, network), ..way };
        if offload.segments.is_some() {
            self.succession.slot = None;
            let split = Split::new(packet, network.ok_or(DropReason::NotAPacket)?, offload);
            let split = split.map_err(|_| DropReason::NotAPacket)?;
            return self.seal_segments(now, slot, at, way, &split, tx);
        }
        let state = match (offload.checksum, network.and_then(|network| Layout::find(packet, network))) {
            (Some(checksum), Some(layout)) if layout.partial() == Some(checksum) => {
                let Succession { flow, slot: before } = &mut self.succession;
                if *before != Some(slot) {
                    flow.forget();
                    *before = Some(slot);
                }
                if flow.continues(packet, &layout) { State::Continued } else { State::Partial }
            }
            _ => {
                self.succession.slot = None;
                State::Whole
            }
        };
        let clamp = self.clamp(slot).zip(network);
        let fill = |out: &mut [u8]| {
            let out = &mut out[..packet.len()];
            out.copy_from_slice(packet);
            if let Some((limit, network)) = clamp {
                clamp_to(&mut out[network..], limit.saturating_sub(network), offload.checksum.is_some());
            }
            if let (State::Whole, Some(checksum)) = (state, offload.checksum) {
                checksum.complete(out);
            }
        };
        let length = self.padded_len(slot, packet.len());
        if self.seal(now, slot, at, way, (self.kind(state), length), fill, tx) {
            Ok(Sealed { frames: 1, longest: length })
        } else {
            Err(DropReason::KeyExhausted)
        }
    }

    fn seal_segments(
        &mut self,
        now: Instant,
        slot: Slot,
        at: usize,
        way: Way,
        split: &Split<'_>,
        tx: &mut TxQueue,
    ) -> Result<Sealed, DropReason> {
        let plain = split.is_plain();
        let count = split.count();
        for number in 0..count {
            let length = split.len(number);
            let state = match (plain, number) {
                (true, 0) => State::Partial,
                (true, _) => State::Continued,
                (false, _) => State::Whole,
            };
            let fill = |out: &mut [u8]| {
                split.write(number, out);
                if state == State::Whole {
                    split.checksum().complete(&mut out[..length]);
                }
            };
            let kind = (self.kind(state), self.padded_len(slot, length));
            if !self.seal(now, slot, at, way, kind, fill, tx) {
                return Err(DropReason::KeyExhausted);
            }
        }
        Ok(Sealed { frames: u64::try_from(count).unwrap_or(0), longest: self.padded_len(slot, split.len(0)) })
    }

    /// The length of a packet, or of the longest of those that it is to be cut into.
    pub(crate) fn longest_part(&self, packet: &[u8], offload: &Offload) -> usize {
        if offload.segments.is_none() {
            return packet.len();
        }
        let split = self.network_offset(packet).and_then(|network| Split::new(packet, network, offload).ok());
        // What cannot be cut is refused later on.
        split.map_or(0, |split| split.len(0))
    }

    /// Bytes in front of the IP header of a packet; none where it carries no IP.
    #[must_use]
    pub fn network_offset(&self, packet: &[u8]) -> Option<usize> {
        match self.config.link {
            Link::Ip => Some(0),
            Link::Ethernet => network_offset(packet),
        }
    }

    fn kind(&self, state: State) -> PayloadKind {
        match (self.config.link, state) {
            (Link::Ip, State::Whole) => PayloadKind::Ip,
            (Link::Ip, State::Partial) => PayloadKind::IpPartial,
            (Link::Ip, State::Continued) => PayloadKind::IpContinued,
            (Link::Ethernet, State::Whole) => PayloadKind::Ethernet,
            (Link::Ethernet, State::Partial) => PayloadKind::EthernetPartial,
            (Link::Ethernet, State::Continued) => PayloadKind::EthernetContinued,
        }
    }

    fn padded_len(&self, slot: Slot, length: usize) -> usize {
        match self.config.link {
            Link::Ip => {
                let limit = self.peers[slot.0].paths.limit();
                padded_len(length, usize::from(self.config.mtu.min(limit)))
            }
            Link::Ethernet => length,
        }
    }
}

/// Calls `each` with the packet, or with each of its segments, when nothing is left to be done for them. False where the
/// device asks for what does not fit the packet.
pub(crate) fn for_each_whole(
    packet: &[u8],
    network: Option<usize>,
    offload: &Offload,
    mut each: impl FnMut(&[u8]),
) -> bool {
    let mut whole = packet.to_vec();
    match (offload.segments, offload.checksum) {
        (None, None) => each(packet),
        (None, Some(checksum)) => {
            if !checksum.complete(&mut whole) {
                return false;
            }
            each(&whole);
        }
        (Some(_), _) => {
            let Some(Ok(split)) = network.map(|network| Split::new(packet, network, offload)) else {
                return false;
            };
            for number in 0..split.count() {
                let segment = &mut whole[..split.len(number)];
                split.write(number, segment);
                split.checksum().complete(segment);
                each(segment);
            }
        }
    }
    true
}

/// Completes the checksum of a packet that came with a partial one; false where it is of no kind that has one.
pub(crate) fn complete(packet: &mut [u8], network: Option<usize>) -> bool {
    let checksum = network.and_then(|network| Layout::find(packet, network)?.partial());
    checksum.is_some_and(|checksum| checksum.complete(packet))
}

fn padded_len(length: usize, mtu: usize) -> usize {
    length.next_multiple_of(PAD).min(mtu).max(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!(padded_len(20, 1420), 32);
        assert_eq!(padded_len(32, 1420), 32);
        assert_eq!(padded_len(1419, 1420), 1420);
        assert_eq!(padded_len(1420, 1420), 1420);
        assert_eq!(padded_len(1500, 1420), 1500);
    }
}
