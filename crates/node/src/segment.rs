//! The Ethernet segment of TAP mode: which station is behind which peer, and how much broadcast is too much.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use mesh_packet::{EtherType, Ethernet, IpPacket, MacAddr};

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
const STORM_RATE: u32 = 1000;
const STORM_BURST: u32 = 2000;

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

/// A token bucket that starts full.
#[derive(Debug, Default)]
struct Bucket {
    state: Option<(Instant, u32)>,
}

impl Segment {
    /// Tells where a frame from the device goes.
    pub(crate) fn outgoing(&mut self, now: Instant, frame: &Ethernet<'_>) -> Result<Target, DropReason> {
        if let Some(station) = self.stations.get(&frame.dst)
            && now.duration_since(station.heard) < STATION_AGE
        {
            return Ok(Target::One(station.slot));
        }
        if self.own.take(now) { Ok(Target::All) } else { Err(DropReason::Storm) }
    }

    /// Learns who sent a frame and limits its broadcasts.
    pub(crate) fn incoming(
        &mut self,
        now: Instant,
        slot: Slot,
        frame: &Ethernet<'_>,
    ) -> Result<(), DropReason> {
        if frame.dst.is_multicast() && !self.peers.entry(slot).or_default().floods.take(now) {
            return Err(DropReason::Storm);
        }
        if !frame.src.is_multicast() {
            self.learn(now, slot, frame.src);
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

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let (at, tokens) = self.state.unwrap_or((now, STORM_BURST));
        let elapsed = now.duration_since(at);
        let earned =
            u32::try_from(elapsed.as_micros() * u128::from(STORM_RATE) / 1_000_000).unwrap_or(STORM_BURST);
        // The clock of the bucket moves only by what was earned, so that fractions of a token are not lost.
        let at = if earned > 0 { now } else { at };
        let tokens = tokens.saturating_add(earned).min(STORM_BURST);
        self.state = Some((at, tokens.saturating_sub(1)));
        tokens > 0
    }
}

/// Returns the IP address that a frame claims as its sender's: of an IP packet or of an ARP message (RFC 826).
pub(crate) fn claimed_address(frame: &Ethernet<'_>) -> Option<IpAddr> {
    match frame.ethertype {
        EtherType::IPV4 | EtherType::IPV6 => IpPacket::parse(frame.payload).ok().map(|packet| packet.src),
        EtherType::ARP => {
            let sender = frame.payload.get(14..18)?;
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(sender).ok()?).into())
        }
        _ => None,
    }
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
        assert_eq!(passed, STORM_BURST);
        assert!(segment.incoming(now, Slot(2), &broadcast).is_ok());
        assert!(segment.incoming(now + Duration::from_secs(1), Slot(1), &broadcast).is_ok());
    }

    #[test]
    fn bucket_earns_fractions() {
        let start = Instant::now();
        let mut bucket = Bucket::default();
        while bucket.take(start) {}
        let mut passed = 0;
        for step in 1..=10_000u32 {
            if bucket.take(start + Duration::from_micros(100) * step) {
                passed += 1;
            }
        }
        assert!((990..=1001).contains(&passed), "{passed} passed in a second");
    }

    #[test]
    fn arp_and_ip_senders_are_read() {
        let mut arp = frame(0xff, 7);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        arp.extend([
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 100, 64, 0, 9, 0, 0, 0, 0, 0, 0, 100, 64, 0, 1,
        ]);
        let claimed = claimed_address(&Ethernet::parse(&arp).unwrap());
        assert_eq!(claimed, Some("100.64.0.9".parse().unwrap()));
        assert_eq!(claimed_address(&Ethernet::parse(&frame(0xff, 7)).unwrap()), None);
    }
}
