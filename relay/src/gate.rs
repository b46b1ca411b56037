//! Who may open another connection: caps per source address, in a bounded table. Pure: the time is an argument.
//!
//! Connections that did not authenticate yet have places of their own, so that strangers take none of a client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::bucket::Bucket;

/// The counts of all sources.
#[derive(Debug)]
pub(crate) struct Gate {
    sources: HashMap<u64, Source>,
    /// Authenticated ones.
    clients: usize,
    strangers: usize,
    limits: GateLimits,
}

/// What a [`Gate`] admits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLimits {
    /// Authenticated connections. Those that authenticate just when it is reached may come on top.
    pub(crate) clients: usize,
    /// Connections that did not authenticate yet. Of its upper half each source has a share only.
    pub(crate) strangers: usize,
    /// Connections of one source.
    pub(crate) per_source: usize,
    /// New connections of one source per second.
    pub(crate) rate: f64,
    /// New connections of one source at once.
    pub(crate) burst: f64,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The relay is full.
    Full,
    /// The source has too many connections.
    TooMany,
    /// The source connects too often.
    TooFast,
}

#[derive(Debug)]
struct Source {
    connections: usize,
    strangers: usize,
    bucket: Bucket,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self { sources: HashMap::new(), clients: 0, strangers: 0, limits }
    }

    /// Counts a new connection, as a stranger; [`Gate::leave`] takes it back.
    pub(crate) fn enter(&mut self, ip: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.clients >= self.limits.clients || self.strangers >= self.limits.strangers {
            return Err(Refusal::Full);
        }
        let key = source_key(ip);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&key) {
            self.sources.retain(|_, source| source.connections > 0 || !source.bucket.is_full(now));
            if self.sources.len() >= MAX_SOURCES {
                return Err(Refusal::Full);
            }
        }
        let GateLimits { per_source, rate, burst, strangers, .. } = self.limits;
        let crowded = self.strangers >= strangers / 2;
        let source = self.sources.entry(key).or_insert_with(|| Source {
            connections: 0,
            strangers: 0,
            bucket: Bucket::new(rate, burst, now),
        });
        let share = (strangers / SHARES).max(1);
        if source.connections >= per_source || (crowded && source.strangers >= share) {
            return Err(Refusal::TooMany);
        }
        if !source.bucket.try_take(1.0, now) {
            return Err(Refusal::TooFast);
        }
        source.connections += 1;
        source.strangers += 1;
        self.strangers += 1;
        Ok(())
    }

    /// Counts a stranger as a client from now on.
    pub(crate) fn authenticated(&mut self, ip: IpAddr) {
        if let Some(source) = self.sources.get_mut(&source_key(ip)) {
            source.strangers = source.strangers.saturating_sub(1);
            self.strangers = self.strangers.saturating_sub(1);
            self.clients += 1;
        }
    }

    pub(crate) fn leave(&mut self, ip: IpAddr, authenticated: bool) {
        if let Some(source) = self.sources.get_mut(&source_key(ip)) {
            source.connections = source.connections.saturating_sub(1);
            if authenticated {
                self.clients = self.clients.saturating_sub(1);
            } else {
                source.strangers = source.strangers.saturating_sub(1);
                self.strangers = self.strangers.saturating_sub(1);
            }
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 address: what one customer usually holds.
pub(crate) fn source_key(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            // Global addresses begin with 2 or 3, hence no /64 equals an IPv4 key.
            (u64::from(a) << 48) | (u64::from(b) << 32) | (u64::from(c) << 16) | u64::from(d)
        }
    }
}

/// A source's share of the places for strangers, when half of these are taken, is one of so many.
const SHARES: usize = 32;
/// Sources remembered at most, about 6 MB. A flood from more addresses is refused as a whole.
const MAX_SOURCES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const LIMITS: GateLimits =
        GateLimits { clients: 100_000, strangers: 1024, per_source: 3, rate: 1.0, burst: 4.0 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_is_capped_and_slowed() {
        let now = Instant::now();
        let mut gate = Gate::new(LIMITS);
        let source = ip("192.0.2.1");
        assert!((0..3).all(|_| gate.enter(source, now).is_ok()));
        assert_eq!(gate.enter(source, now), Err(Refusal::TooMany));
        assert!(gate.enter(ip("192.0.2.2"), now).is_ok());
        gate.leave(source, false);
        assert!(gate.enter(source, now).is_ok());
        gate.leave(source, false);
        assert_eq!(gate.enter(source, now), Err(Refusal::TooFast));
        assert!(gate.enter(source, now + Duration::from_secs(2)).is_ok());
    }

    #[test]
    fn mapped_addresses_and_one_prefix_are_one_source() {
        assert_eq!(source_key(ip("::ffff:192.0.2.1")), source_key(ip("192.0.2.1")));
        assert_eq!(source_key(ip("2001:db8::1")), source_key(ip("2001:db8::ffff:1")));
        assert_ne!(source_key(ip("2001:db8::1")), source_key(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn the_whole_relay_is_capped() {
        let mut gate = Gate::new(GateLimits { clients: 1, ..LIMITS });
        assert!(gate.enter(ip("192.0.2.1"), Instant::now()).is_ok());
        gate.authenticated(ip("192.0.2.1"));
        assert_eq!(gate.enter(ip("192.0.2.2"), Instant::now()), Err(Refusal::Full));
        gate.leave(ip("192.0.2.1"), true);
        assert!(gate.enter(ip("192.0.2.2"), Instant::now()).is_ok());
    }

    #[test]
    fn strangers_take_no_place_of_a_client_and_leave_some_to_others() {
        let now = Instant::now();
        let mut gate =
            Gate::new(GateLimits { clients: 1, strangers: 64, per_source: 100, rate: 0.0, burst: 1.0 });
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!((0..100).filter(|_| gate.enter(one, now).is_ok()).count(), 32);
        assert_eq!(gate.enter(one, now), Err(Refusal::TooMany));
        assert_eq!((0..100).filter(|_| gate.enter(other, now).is_ok()).count(), 2);
        for n in 0..30 {
            assert!(gate.enter(Ipv4Addr::new(198, 51, 100, n).into(), now).is_ok());
        }
        assert_eq!(gate.enter(ip("203.0.113.1"), now), Err(Refusal::Full));
        gate.leave(other, false);
        assert!(gate.enter(ip("203.0.113.1"), now).is_ok());
        assert_eq!((gate.strangers, gate.clients), (64, 0));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_idle() {
        let now = Instant::now();
        let mut gate = Gate::new(LIMITS);
        for n in 0..u32::try_from(MAX_SOURCES).unwrap() {
            let source = Ipv4Addr::from(n + 1).into();
            gate.enter(source, now).unwrap();
            gate.leave(source, false);
        }
        assert_eq!(gate.enter(ip("192.0.2.1"), now), Err(Refusal::Full));
        assert!(gate.enter(ip("192.0.2.1"), now + Duration::from_secs(2)).is_ok());
        assert_eq!(gate.sources.len(), 1);
    }
}
