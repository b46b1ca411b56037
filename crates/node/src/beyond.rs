//! What becomes of a packet that is longer than the path carries: the slow way.
//!
//! In order: while the path is being measured, the relay carries it. TCP whose checksum the device left open is cut into
//! shorter segments. IPv4 that may be fragmented is. Everybody else is told (RFC 1191, RFC 8201) and the packet dropped. What
//! nobody can be told of, as an IPv6 packet of 1280 bytes or less, takes the relay. TCP learns the length from the start, by
//! the maximum segment size in its first packets.

use std::net::IpAddr;
use std::time::Instant;

use mesh_packet::{
    Ethernet, IpPacket, IpVersion, Layout, Offload, SegmentKind, Segments, Split, TOO_BIG_LEN, clamp_mss,
    clamp_mss_partial, fragment, too_big,
};

use crate::bucket::Rate;
use crate::counters::DropReason;
use crate::node::{LateDelivery, Link, Node, Slot};
use crate::offload::{Sealed, for_each_whole};
use crate::outbound::{LANE, Way};
use crate::path::Path;
use crate::tx::TxQueue;

impl Node {
    /// Seals a packet that is longer than the current path carries, in pieces or over the relay.
    pub(crate) fn seal_beyond(
        &mut self,
        now: Instant,
        (slot, at): (Slot, usize),
        (packet, offload): (&[u8], &Offload),
        tx: &mut TxQueue,
    ) -> Result<Sealed, DropReason> {
        let paths = &self.peers[slot.0].paths;
        let (limit, measured) = (usize::from(paths.limit()), paths.is_measured());
        let relay = self.setting(slot).relay.then(|| Way {
            path: Path::Relay(self.peers[slot.0].id),
            also: None,
            class: 0,
            single: false,
            lane: LANE,
        });
        if let Some(way) = relay.filter(|_| measured) {
            return self.seal_along(now, (slot, at), way, (packet, offload), tx);
        }
        let network = self.network_offset(packet);
        if let Some(network) = network {
            if let Some(shorter) = shorter(packet, network, offload, limit) {
                if !measured {
                    self.tell(now, slot, (packet, network), offload);
                }
                let way = self.data_way(now, slot);
                return self.seal_along(now, (slot, at), way, (packet, &shorter), tx);
            }
            if may_be_fragmented(&packet[network..]) {
                return self.seal_fragments(now, (slot, at), (packet, network), offload, tx);
            }
            if !measured && self.tell(now, slot, (packet, network), offload) {
                return Err(DropReason::TooBig);
            }
        }
        match relay {
            Some(way) if !measured => self.seal_along(now, (slot, at), way, (packet, offload), tx),
            _ => Err(DropReason::TooBig),
        }
    }

    /// The longest packet of a peer whose path has a limit, for the segments of its TCP; none where there is no limit.
    pub(crate) fn clamp(&self, slot: Slot) -> Option<usize> {
        let limit = self.peers[slot.0].paths.limit();
        (limit < self.longest_payload()).then(|| usize::from(limit))
    }

    /// Tells the sender of a packet that it is too long; false where nobody can be told.
    fn tell(
        &mut self,
        now: Instant,
        slot: Slot,
        (packet, network): (&[u8], usize),
        offload: &Offload,
    ) -> bool {
        let Some(message) = self.message(slot, (packet, network), offload) else { return false };
        if self.peers[slot.0].told.take(now, TOLD) {
            self.late.push_back(LateDelivery::Packet(message));
        }
        true
    }

    /// The packet that tells it, as it goes to the device.
    fn message(&self, slot: Slot, (packet, network): (&[u8], usize), offload: &Offload) -> Option<Vec<u8>> {
        let first = match offload.segments {
            None => packet.to_vec(),
            Some(_) => {
                let split = Split::new(packet, network, offload).ok()?;
                let mut first = vec![0; split.len(0)];
                split.write(0, &mut first);
                first
            }
        };
        let header = IpPacket::parse(&first[network..]).ok()?;
        let (head, from) = match self.config.link {
            Link::Ip => {
                // Nobody else may send through this device.
                let own = self.roster.leaf(&self.config.own)?;
                let peer = self.roster.leaf(&self.peers[slot.0].id)?;
                let from: IpAddr = if header.dst.is_ipv4() { peer.ipv4.into() } else { peer.ipv6.into() };
                (Vec::new(), own.owns(header.src).then_some(from)?)
            }
            Link::Ethernet => {
                let frame = Ethernet::parse(&first).ok()?;
                let single = !frame.dst.is_multicast() && !frame.src.is_multicast();
                let mut head = first[..network].to_vec();
                head[..6].copy_from_slice(&first[6..12]);
                head[6..12].copy_from_slice(&first[..6]);
                // It comes from where the packet was to go: any other address may be of a network that the sender does not know.
                (head, single.then_some(header.dst)?)
            }
        };
        let limit = self.peers[slot.0].paths.limit();
        let mtu = limit.saturating_sub(u16::try_from(network).ok()?);
        let mut message = head;
        message.resize(network + TOO_BIG_LEN, 0);
        let length = too_big(&first[network..], mtu, from, &mut message[network..])?;
        message.truncate(network + length);
        Some(message)
    }

    /// Seals an IPv4 packet, or each that it is to be cut into, as fragments.
    fn seal_fragments(
        &mut self,
        now: Instant,
        (slot, at): (Slot, usize),
        (packet, network): (&[u8], usize),
        offload: &Offload,
        tx: &mut TxQueue,
    ) -> Result<Sealed, DropReason> {
        let limit = self.peers[slot.0].paths.limit();
        let mtu = limit.saturating_sub(u16::try_from(network).map_err(|_| DropReason::NotAPacket)?);
        let mut pieces = Vec::new();
        let whole = for_each_whole(packet, Some(network), offload, |whole| {
            let Ok(fragments) = fragment(&whole[network..], mtu) else { return };
            for fragment in fragments {
                let mut piece = whole[..network].to_vec();
                piece.resize(network + fragment.total_len(), 0);
                if fragment.write(&mut piece[network..]).is_some() {
                    pieces.push(piece);
                }
            }
        });
        if !whole || pieces.is_empty() {
            return Err(DropReason::NotAPacket);
        }
        let way = self.data_way(now, slot);
        let mut sealed = Sealed { frames: 0, longest: 0 };
        for piece in &pieces {
            let Sealed { frames, longest } =
                self.seal_along(now, (slot, at), way, (piece, &Offload::NONE), tx)?;
            sealed.frames += frames;
            sealed.longest = sealed.longest.max(longest);
        }
        Ok(sealed)
    }
}

/// Lowers the segment size in an IP packet that opens a TCP connection, so that what answers it fits `limit` bytes.
pub(crate) fn clamp_to(packet: &mut [u8], limit: usize, partial: bool) {
    let mtu = u16::try_from(limit).unwrap_or(u16::MAX);
    if partial {
        clamp_mss_partial(packet, mtu)
    } else {
        clamp_mss(packet, mtu)
    };
}

/// How the device would cut a TCP packet for a path with this limit; none where it did not leave the checksum open.
fn shorter(packet: &[u8], network: usize, offload: &Offload, limit: usize) -> Option<Offload> {
    let checksum = offload.checksum?;
    let cwr = false;
    let kind = match offload.segments.map(|segments| segments.kind) {
        Some(SegmentKind::Udp) => return None,
        Some(kind) => kind,
        None => match IpPacket::parse(packet.get(network..)?).ok()?.version {
            IpVersion::V4 => SegmentKind::TcpV4 { cwr },
            IpVersion::V6 => SegmentKind::TcpV6 { cwr },
        },
    };
    let layout = Layout::find(packet, network)?;
    if layout.partial() != Some(checksum) || checksum.offset != TCP_CHECKSUM {
        return None;
    }
    let whole = Segments { kind, header: 0, size: u16::MAX };
    let with = |size: u16| Offload { checksum: Some(checksum), segments: Some(Segments { size, ..whole }) };
    let headers = packet.len() - Split::new(packet, network, &with(1)).ok()?.count();
    let size = u16::try_from(limit.checked_sub(headers)?).ok().filter(|size| *size > 0)?;
    Some(with(size))
}

/// An IPv4 packet without DF.
fn may_be_fragmented(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
        && packet.get(6).is_some_and(|flags| flags & 0x40 == 0)
}

/// Messages to senders of packets for one peer: enough for each connection that begins, and few for who does not listen.
const TOLD: Rate = Rate { per_second: 100, burst: 32 };
/// Where the checksum lies in a header of TCP.
const TCP_CHECKSUM: u16 = 16;
