//! The Ethernet segment of TAP mode: which station is behind which peer, and how much broadcast is too much.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use mesh_packet::{EtherType, Ethernet, IpPacket, MacAddr};
use mesh_wire::NodeId;

use crate::bucket::{Bucket, Rate};
use crate::counters::DropReason;
use crate::node::Slot;

/// Stations remembered over all peers.
const STATIONS: usize = 4096;
/// Stations remembered behind one peer, so that one peer cannot fill the table.
const STATIONS_PER_PEER: usize = 256;
/// A station that said nothing for this long is forgotten (the usual ageing of IEEE 802.1D).
const STATION_AGE: Duration = Duration::from_secs(300);
/// A full table is searched for old stations at most this often.
const SWEEP: Duration = Duration::from_secs(1);
/// Broadcast and multicast frames a second from one side of the segment, and how many at once. Enough for a hundred
/// hosts' ARP, discovery and routing protocols; a loop makes tens of thousands.
const STORM: Rate = Rate { per_second: 1000, burst: 2000 };

/// Protocol number of ICMPv6 (RFC 4443) and its message (RFC 4861).
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Where a frame from our device goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// To the peer that the station is behind.
    One(Slot),
    /// To every peer: broadcast, multicast, or a station not heard of yet.
    All,
}

/// The switch of one node.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    /// The interfaces of the members, which nobody else may send from; none is our own.
    members: HashMap<MacAddr, Option<Slot>>,
    stations: HashMap<MacAddr, Station>,
    own: Bucket,
    swept: Option<Instant>,
    peers: HashMap<Slot, PeerState>,
}

#[derive(Debug)]
struct Station {
    slot: Slot,
    heard: Instant,
}

#[derive(Debug, Default)]
struct PeerState {
    stations: usize,
    floods: Bucket,
}

impl Segment {
    /// Notes whose interface an address is; none is our own.
    pub(crate) fn add_member(&mut self, node: NodeId, slot: Option<Slot>) {
        self.members.entry(MacAddr::new(mac_of(node))).or_insert(slot);
    }

    /// Tells where a frame from the device goes.
    pub(crate) fn outgoing(&mut self, now: Instant, frame: &Ethernet<'_>) -> Result<Target, DropReason> {
        if let Some(Some(slot)) = self.members.get(&frame.dst) {
            return Ok(Target::One(*slot));
        }
        if let Some(station) = self.stations.get(&frame.dst)
            && now.duration_since(station.heard) < STATION_AGE
        {
            return Ok(Target::One(station.slot));
        }
        if self.own.take(now, STORM) { Ok(Target::All) } else { Err(DropReason::Storm) }
    }

    /// The only one whom a frame from the device would go to; none where it is for everybody.
    pub(crate) fn only(&self, now: Instant, frame: &Ethernet<'_>) -> Option<Slot> {
        let known = || self.stations.get(&frame.dst).filter(|it| now.duration_since(it.heard) < STATION_AGE);
        self.members.get(&frame.dst).copied().flatten().or_else(|| known().map(|station| station.slot))
    }

    /// Learns who sent a frame, unless it is sent from another member's interface, and limits its broadcasts.
    pub(crate) fn incoming(
        &mut self,
        now: Instant,
        slot: Slot,
        frame: &Ethernet<'_>,
    ) -> Result<(), DropReason> {
        if let Some(owner) = self.members.get(&frame.src) {
            if *owner != Some(slot) {
                return Err(DropReason::SourceNotAllowed);
            }
        } else if !frame.src.is_multicast() {
            self.learn(now, slot, frame.src);
        }
        if frame.dst.is_multicast() && !self.peers.entry(slot).or_default().floods.take(now, STORM) {
            return Err(DropReason::Storm);
        }
        Ok(())
    }

    fn learn(&mut self, now: Instant, slot: Slot, mac: MacAddr) {
        if let Some(station) = self.stations.get_mut(&mac)
            && station.slot == slot
        {
            station.heard = now;
            return;
        }
        if self.peers.get(&slot).is_some_and(|peer| peer.stations >= STATIONS_PER_PEER)
            || self.stations.len() >= STATIONS
        {
            self.forget_old(now);
        }
        let behind = self.peers.entry(slot).or_default();
        if behind.stations >= STATIONS_PER_PEER || self.stations.len() >= STATIONS {
            return;
        }
        behind.stations += 1;
        if let Some(moved) = self.stations.insert(mac, Station { slot, heard: now }) {
            self.left(moved.slot);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.duration_since(at) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        let old: Vec<_> = self
            .stations
            .iter()
            .filter(|(_, station)| now.duration_since(station.heard) >= STATION_AGE)
            .map(|(mac, station)| (*mac, station.slot))
            .collect();
        for (mac, slot) in old {
            self.stations.remove(&mac);
            self.left(slot);
        }
    }

    fn left(&mut self, slot: Slot) {
        if let Some(peer) = self.peers.get_mut(&slot) {
            peer.stations = peer.stations.saturating_sub(1);
        }
    }
}

/// Returns the hardware address of a member's interface: locally administered and from its id, so that it stays the same
/// and everybody knows whose it is.
#[must_use]
pub const fn mac_of(node: NodeId) -> [u8; 6] {
    let [a, b, c, d, e, ..] = node.0;
    [0x02, a, b, c, d, e]
}

/// Returns the unicast receiver of an IP packet in a frame.
pub(crate) fn receiver(frame: &Ethernet<'_>) -> Option<IpAddr> {
    match frame.ethertype {
        EtherType::IPV4 | EtherType::IPV6 if !frame.dst.is_multicast() => {
            IpPacket::parse(frame.payload).ok().map(|packet| packet.dst)
        }
        _ => None,
    }
}

/// Returns the addresses that a frame claims for its sender: the source of an IP packet, the sender of an ARP message
/// (RFC 826), the target of a neighbour advertisement (RFC 4861 section 4.4).
///
/// # Errors
/// [`DropReason::Malformed`] for an IP packet or ARP message that cannot be read: what cannot be checked does not pass.
pub(crate) fn claimed_addresses(frame: &Ethernet<'_>) -> Result<[Option<IpAddr>; 2], DropReason> {
    match frame.ethertype {
        EtherType::IPV4 | EtherType::IPV6 => {
            let packet = IpPacket::parse(frame.payload).map_err(|_| DropReason::Malformed)?;
            Ok([Some(packet.src), advertised(&packet, frame.payload)])
        }
        EtherType::ARP => {
            let sender = frame.payload.get(14..18).and_then(|sender| <[u8; 4]>::try_from(sender).ok());
            let sender = sender.ok_or(DropReason::Malformed)?;
            Ok([Some(Ipv4Addr::from(sender).into()), None])
        }
        _ => Ok([None, None]),
    }
}

fn advertised(packet: &IpPacket, bytes: &[u8]) -> Option<IpAddr> {
    let message = bytes.get(packet.header_len..)?;
    if packet.protocol != ICMPV6 || *message.first()? != NEIGHBOUR_ADVERTISEMENT {
        return None;
    }
    let target = <[u8; 16]>::try_from(message.get(8..24)?).ok()?;
    Some(Ipv6Addr::from(target).into())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use super::*;

    fn frame(dst: u8, src: u8) -> Vec<u8> {
        let mut bytes = vec![dst; 6];
        bytes.extend([2, 0, 0, 0, 0, src]);
        bytes.extend([0x12, 0x34]);
        bytes
    }

    fn send(segment: &mut Segment, now: Instant, dst_last: u8) -> Result<Target, DropReason> {
        let mut bytes = frame(2, 99);
        bytes[1..6].copy_from_slice(&[0, 0, 0, 0, dst_last]);
        segment.outgoing(now, &Ethernet::parse(&bytes).unwrap())
    }

    #[test]
    fn station_is_learnt_moves_and_ages() {
        let now = Instant::now();
        let mut segment = Segment::default();
        assert_eq!(send(&mut segment, now, 7), Ok(Target::All));
        let bytes = frame(0xff, 7);
        segment.incoming(now, Slot(1), &Ethernet::parse(&bytes).unwrap()).unwrap();
        assert_eq!(send(&mut segment, now, 7), Ok(Target::One(Slot(1))));
        segment.incoming(now, Slot(2), &Ethernet::parse(&bytes).unwrap()).unwrap();
        assert_eq!(send(&mut segment, now, 7), Ok(Target::One(Slot(2))));
        assert_eq!(segment.peers[&Slot(1)].stations, 0);
        assert_eq!(send(&mut segment, now + STATION_AGE, 7), Ok(Target::All));
    }

    #[test]
    fn one_peer_cannot_fill_the_table() {
        let now = Instant::now();
        let mut segment = Segment::default();
        for station in 0..1000u32 {
            let mut bytes = frame(4, 0);
            bytes[6..12].copy_from_slice(&[
                2,
                0,
                0,
                0,
                u8::try_from(station / 256).unwrap(),
                u8::try_from(station % 256).unwrap(),
            ]);
            segment.incoming(now, Slot(1), &Ethernet::parse(&bytes).unwrap()).unwrap();
        }
        assert_eq!(segment.stations.len(), STATIONS_PER_PEER);
        let mut bytes = frame(4, 200);
        bytes[7] = 1;
        let other = Ethernet::parse(&bytes).unwrap();
        segment.incoming(now + STATION_AGE, Slot(1), &other).unwrap();
        assert_eq!(segment.stations.len(), 1);
    }

    #[test]
    fn storm_is_limited_and_passes() {
        let now = Instant::now();
        let mut segment = Segment::default();
        let bytes = frame(0xff, 7);
        let broadcast = Ethernet::parse(&bytes).unwrap();
        let mut passed = 0;
        for _ in 0..10_000 {
            if segment.incoming(now, Slot(1), &broadcast).is_ok() {
                passed += 1;
            }
        }
        assert_eq!(passed, STORM.burst);
        assert!(segment.incoming(now, Slot(2), &broadcast).is_ok());
        assert!(segment.incoming(now + Duration::from_secs(1), Slot(1), &broadcast).is_ok());
    }

    #[test]
    fn arp_and_ip_senders_are_read() {
        let mut arp = frame(0xff, 7);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        arp.extend([
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 100, 64, 0, 9, 0, 0, 0, 0, 0, 0, 100, 64, 0, 1,
        ]);
        let claimed = claimed_addresses(&Ethernet::parse(&arp).unwrap());
        assert_eq!(claimed, Ok([Some("100.64.0.9".parse().unwrap()), None]));
        assert_eq!(claimed_addresses(&Ethernet::parse(&frame(0xff, 7)).unwrap()), Ok([None, None]));
    }

    #[test]
    fn what_cannot_be_read_does_not_pass() {
        for ethertype in [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06]] {
            let mut bytes = frame(0xff, 7);
            bytes[12..14].copy_from_slice(&ethertype);
            bytes.extend([0x60, 0, 0, 0, 0, 0, 0, 64]);
            assert_eq!(claimed_addresses(&Ethernet::parse(&bytes).unwrap()), Err(DropReason::Malformed));
        }
    }

    #[test]
    fn advertised_neighbour_is_claimed() {
        let mut bytes = frame(0xff, 7);
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        bytes.extend([0x60, 0, 0, 0, 0, 24, 58, 255]);
        bytes.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([0xff; 16]);
        bytes.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        let claimed = claimed_addresses(&Ethernet::parse(&bytes).unwrap());
        assert_eq!(claimed, Ok([Some("fe80::1".parse().unwrap()), Some("fd00::9".parse().unwrap())]));
    }

    #[test]
    fn interface_of_a_member_belongs_to_it() {
        let now = Instant::now();
        let mut segment = Segment::default();
        let (own, other) = (NodeId([1; 32]), NodeId([3; 32]));
        segment.add_member(own, None);
        segment.add_member(other, Some(Slot(1)));
        let from = |node| [&[0xff; 6][..], &mac_of(node), &[0x12, 0x34]].concat();
        let spoofed = from(other);
        let spoofed = Ethernet::parse(&spoofed).unwrap();
        assert_eq!(segment.incoming(now, Slot(2), &spoofed), Err(DropReason::SourceNotAllowed));
        assert_eq!(segment.incoming(now, Slot(1), &spoofed), Ok(()));
        let ours = from(own);
        assert_eq!(
            segment.incoming(now, Slot(1), &Ethernet::parse(&ours).unwrap()),
            Err(DropReason::SourceNotAllowed)
        );
        let to = [&mac_of(other)[..], &mac_of(own), &[0x12, 0x34]].concat();
        assert_eq!(segment.outgoing(now, &Ethernet::parse(&to).unwrap()), Ok(Target::One(Slot(1))));
    }
}
