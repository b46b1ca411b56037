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

/// What the frames of a node have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) link: Link,
    /// The largest inner packet in bytes, and that the path carries.
    pub(crate) mtu: u16,
    /// The longest packet of a path that has a limit, for the segments of TCP.
    pub(crate) clamp: Option<usize>,
}

/// Whoever seals frames for one peer.
pub(crate) trait Seal {
    /// Seals one frame, whose payload of `length` zero bytes `fill` fills; false when the key is used up.
    fn seal(&mut self, kind: PayloadKind, length: usize, fill: impl FnOnce(&mut [u8])) -> bool;
}

/// A packet of the device, and what it is sealed with.
struct Packing<'p, S> {
    form: Form,
    packet: &'p [u8],
    network: Option<usize>,
    seal: &'p mut S,
}

impl Succession {
    /// Seals a packet of the device as one frame, or as one for each of its segments.
    pub(crate) fn pack(
        &mut self,
        form: Form,
        slot: Slot,
        (packet, offload): (&[u8], &Offload),
        seal: &mut impl Seal,
    ) -> Result<Sealed, DropReason> {
        let mut packing = Packing { form, packet, network: form.network_offset(packet), seal };
        if offload.segments.is_some() {
            self.slot = None;
            return packing.segments(offload);
        }
        let layout = packing.network.and_then(|network| Layout::find(packet, network));
        let state = match (offload.checksum, layout) {
            (Some(checksum), Some(layout)) if layout.partial() == Some(checksum) => {
                if self.slot != Some(slot) {
                    self.flow.forget();
                    self.slot = Some(slot);
                }
                if self.flow.continues(packet, &layout) { State::Continued } else { State::Partial }
            }
            _ => {
                self.slot = None;
                State::Whole
            }
        };
        packing.whole(offload, state)
    }
}

impl<S: Seal> Packing<'_, S> {
    fn whole(&mut self, offload: &Offload, state: State) -> Result<Sealed, DropReason> {
        let packet = self.packet;
        let clamp = self.form.clamp.zip(self.network);
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
        let length = self.form.padded_len(packet.len());
        if self.seal.seal(self.form.kind(state), length, fill) {
            Ok(Sealed { frames: 1, longest: length })
        } else {
            Err(DropReason::KeyExhausted)
        }
    }

    fn segments(&mut self, offload: &Offload) -> Result<Sealed, DropReason> {
        let network = self.network.ok_or(DropReason::NotAPacket)?;
        let split = Split::new(self.packet, network, offload).map_err(|_| DropReason::NotAPacket)?;
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
            if !self.seal.seal(self.form.kind(state), self.form.padded_len(length), fill) {
                return Err(DropReason::KeyExhausted);
            }
        }
        let longest = self.form.padded_len(split.len(0));
        Ok(Sealed { frames: u64::try_from(count).unwrap_or(0), longest })
    }
}

impl Form {
    /// Bytes in front of the IP header of a packet; none where it carries no IP.
    pub(crate) fn network_offset(self, packet: &[u8]) -> Option<usize> {
        network_of(self.link, packet)
    }

    fn kind(self, state: State) -> PayloadKind {
        match (self.link, state) {
            (Link::Ip, State::Whole) => PayloadKind::Ip,
            (Link::Ip, State::Partial) => PayloadKind::IpPartial,
            (Link::Ip, State::Continued) => PayloadKind::IpContinued,
            (Link::Ethernet, State::Whole) => PayloadKind::Ethernet,
            (Link::Ethernet, State::Partial) => PayloadKind::EthernetPartial,
            (Link::Ethernet, State::Continued) => PayloadKind::EthernetContinued,
        }
    }

    fn padded_len(self, length: usize) -> usize {
        match self.link {
            Link::Ip => padded_len(length, usize::from(self.mtu)),
            Link::Ethernet => length,
        }
    }
}

/// Seals under a session of the node.
struct UnderSession<'n, 't> {
    node: &'n mut Node,
    now: Instant,
    slot: Slot,
    at: usize,
    way: Way,
    tx: &'t mut TxQueue,
}

impl Seal for UnderSession<'_, '_> {
    fn seal(&mut self, kind: PayloadKind, length: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        self.node.seal(self.now, self.slot, self.at, self.way, (kind, length), fill, self.tx)
    }
}

impl Node {
    /// Seals a packet of the device, which `way` leads to its receiver, under one of the peer's sessions.
    pub(crate) fn seal_packet(
        &mut self,
        now: Instant,
        slot: Slot,
        (at, way): (usize, Way),
        (packet, offload): (&[u8], &Offload),
        tx: &mut TxQueue,
    ) -> Result<Sealed, DropReason> {
        let limit = usize::from(self.peers[slot.0].paths.limit());
        if packet.len() > limit && self.longest_part(packet, offload) > limit {
            return self.seal_beyond(now, (slot, at), (packet, offload), tx);
        }
        self.seal_along(now, (slot, at), way, (packet, offload), tx)
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
        let form = self.form(slot);
        let way = Way { class: traffic_class(packet, form.network_offset(packet)), ..way };
        let mut succession = std::mem::take(&mut self.succession);
        let mut seal = UnderSession { node: self, now, slot, at, way, tx };
        let sealed = succession.pack(form, slot, (packet, offload), &mut seal);
        self.succession = succession;
        sealed
    }

    /// Bytes in front of the IP header of a packet; none where it carries no IP.
    #[must_use]
    pub fn network_offset(&self, packet: &[u8]) -> Option<usize> {
        network_of(self.config.link, packet)
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

    /// What the frames of a peer have in common.
    pub(crate) fn form(&self, slot: Slot) -> Form {
        let limit = self.peers[slot.0].paths.limit();
        Form { link: self.config.link, mtu: self.config.mtu.min(limit), clamp: self.clamp(slot) }
    }
}

fn network_of(link: Link, packet: &[u8]) -> Option<usize> {
    match link {
        Link::Ip => Some(0),
        Link::Ethernet => network_offset(packet),
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
