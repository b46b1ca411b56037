//! A bad link: packets that pass it are late, lost or overtaken, for a kernel without `netem`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How bad a link is. Each direction is treated alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rough {
    /// What every packet takes.
    pub delay: Duration,
    /// Of a thousand packets so many are lost.
    pub lost: u16,
    /// Of a thousand packets so many take longer, so that others overtake them.
    pub late: u16,
    /// How much longer.
    pub by: Duration,
    /// Only packets from and to this address are treated so; all unless given.
    pub only: Option<Ipv4Addr>,
}

/// Packets under way.
#[derive(Debug)]
pub(super) struct Link {
    rough: Rough,
    dice: u64,
    /// By when they arrive; of those at the same moment, what came first goes first.
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    came: u64,
}

impl Link {
    /// A good link; `seed` is where chance starts.
    pub(super) fn new(seed: u64) -> Self {
        Self { rough: Rough::default(), dice: seed | 1, under_way: BTreeMap::new(), came: 0 }
    }

    pub(super) fn set(&mut self, rough: Rough) {
        self.rough = rough;
    }

    /// A packet sets out; more than the link holds are lost.
    pub(super) fn take(&mut self, now: Instant, packet: &[u8]) {
        self.came += 1;
        let rough = if self.rough.concerns(packet) { self.rough } else { Rough::default() };
        if self.happens(rough.lost) || self.under_way.len() == HOLDS {
            return;
        }
        let by = if self.happens(rough.late) { rough.by } else { Duration::ZERO };
        self.under_way.insert((now + rough.delay + by, self.came), packet.to_vec());
    }

    /// When the next packet arrives.
    pub(super) fn due(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns a packet that has arrived.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.due().filter(|at| *at <= now)?;
        self.under_way.pop_first().map(|(_, packet)| packet)
    }

    fn happens(&mut self, of_thousand: u16) -> bool {
        // xorshift64 (Marsaglia 2003); the upper bits are the better ones.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 32) % 1000 < u64::from(of_thousand)
    }
}

impl Rough {
    /// Whether a packet of IPv4 is treated so.
    fn concerns(&self, packet: &[u8]) -> bool {
        let Some(only) = self.only else { return true };
        let octets = only.octets();
        packet.get(12..16) == Some(&octets[..]) || packet.get(16..20) == Some(&octets[..])
    }
}

/// Packets at once: 50 ms of a gigabit.
const HOLDS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of packets with their numbers, one in each millisecond.
    fn send(rough: Rough, count: u16) -> Vec<u16> {
        let (mut link, start) = (Link::new(7), Instant::now());
        link.set(rough);
        let mut arrived = Vec::new();
        for number in 0..count + 1000 {
            let now = start + Duration::from_millis(number.into());
            if number < count {
                link.take(now, &number.to_le_bytes());
            }
            while let Some(packet) = link.arrived(now) {
                arrived.push(u16::from_le_bytes([packet[0], packet[1]]));
            }
        }
        assert_eq!(link.due(), None);
        arrived
    }

    #[test]
    fn good_link_changes_nothing() {
        assert_eq!(send(Rough::default(), 500), (0..500).collect::<Vec<_>>());
        let rough = Rough { delay: Duration::from_millis(30), ..Rough::default() };
        assert_eq!(send(rough, 500), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn packet_arrives_after_its_delay_and_not_before() {
        let (mut link, start) = (Link::new(7), Instant::now());
        let delay = Duration::from_millis(30);
        link.set(Rough { delay, ..Rough::default() });
        link.take(start, b"x");
        assert_eq!(link.arrived(start + delay - Duration::from_millis(1)), None);
        assert_eq!(link.arrived(start + delay), Some(b"x".to_vec()));
    }

    #[test]
    fn packets_of_others_are_not_delayed() {
        let (mut link, start) = (Link::new(7), Instant::now());
        let only = Some(Ipv4Addr::new(192, 0, 2, 1));
        link.set(Rough { delay: Duration::from_secs(1), only, ..Rough::default() });
        let mut packet = [0; 20];
        packet[16..].copy_from_slice(&[192, 0, 2, 1]);
        link.take(start, &packet);
        packet[16..].copy_from_slice(&[192, 0, 2, 2]);
        link.take(start, &packet);
        assert_eq!(link.arrived(start), Some(packet.to_vec()));
        assert_eq!(link.arrived(start), None);
    }

    #[test]
    fn bad_link_loses_and_disorders_its_share() {
        let rough = Rough { lost: 20, late: 50, by: Duration::from_millis(5), ..Rough::default() };
        let arrived = send(rough, 20_000);
        assert!((350..450).contains(&(20_000 - arrived.len())), "{} arrived", arrived.len());
        let overtaken = arrived.windows(2).filter(|two| two[0] > two[1]).count();
        assert!((850..1100).contains(&overtaken), "{overtaken} were overtaken");
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let (mut link, now) = (Link::new(7), Instant::now());
        link.set(Rough { delay: Duration::from_secs(1), ..Rough::default() });
        (0..2 * HOLDS).for_each(|_| link.take(now, b"x"));
        assert_eq!(link.under_way.len(), HOLDS);
    }
}
