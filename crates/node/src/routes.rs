//! Whom an inner address belongs to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest-prefix match from inner addresses to peers, whatever stands for them; the same table serves sending and the
/// check of sources.
#[derive(Debug, Clone)]
pub struct Routes<Peer> {
    hosts: HashMap<IpAddr, Peer>,
    /// One map per prefix length and family that occurs, longest first.
    prefixes: Vec<(IpFamily, u8, HashMap<IpAddr, Peer>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpFamily {
    V4,
    V6,
}

impl<Peer: Copy> Routes<Peer> {
    /// Adds a prefix; a later one for the same prefix is ignored, so that the first owner keeps it.
    pub fn insert(&mut self, address: IpAddr, length: u8, peer: Peer) {
        let family = IpFamily::of(address);
        if length >= family.bits() {
            self.hosts.entry(address).or_insert(peer);
            return;
        }
        let network = mask(address, length);
        let known = self.prefixes.iter().position(|(f, l, _)| *f == family && *l == length);
        let at = known.unwrap_or_else(|| {
            let at = self.prefixes.partition_point(|(_, l, _)| *l > length);
            self.prefixes.insert(at, (family, length, HashMap::new()));
            at
        });
        self.prefixes[at].2.entry(network).or_insert(peer);
    }

    /// Returns the peer that an address belongs to.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<Peer> {
        if let Some(peer) = self.hosts.get(&address) {
            return Some(*peer);
        }
        let family = IpFamily::of(address);
        self.prefixes
            .iter()
            .filter(|(f, _, _)| *f == family)
            .find_map(|(_, length, map)| map.get(&mask(address, *length)).copied())
    }
}

impl<Peer> Default for Routes<Peer> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), prefixes: Vec::new() }
    }
}

impl IpFamily {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(a.to_bits() & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(a.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn longest_prefix_wins() {
        let mut routes = Routes::default();
        routes.insert(ip("10.0.0.0"), 8, 1);
        routes.insert(ip("10.1.0.0"), 16, 2);
        routes.insert(ip("10.1.2.3"), 32, 3);
        routes.insert(ip("fd00::"), 8, 4);
        routes.insert(ip("0.0.0.0"), 0, 5);
        assert_eq!(routes.lookup(ip("10.1.2.3")), Some(3));
        assert_eq!(routes.lookup(ip("10.1.2.4")), Some(2));
        assert_eq!(routes.lookup(ip("10.2.0.1")), Some(1));
        assert_eq!(routes.lookup(ip("192.0.2.1")), Some(5));
        assert_eq!(routes.lookup(ip("fd12::1")), Some(4));
        assert_eq!(routes.lookup(ip("fe80::1")), None);
    }

    #[test]
    fn first_owner_keeps_a_prefix() {
        let mut routes = Routes::default();
        routes.insert(ip("10.1.2.3"), 32, 1);
        routes.insert(ip("10.1.2.3"), 32, 2);
        routes.insert(ip("10.0.0.1"), 24, 1);
        routes.insert(ip("10.0.0.2"), 24, 2);
        assert_eq!(routes.lookup(ip("10.1.2.3")), Some(1));
        assert_eq!(routes.lookup(ip("10.0.0.77")), Some(1));
    }
}
