//! Which members were heard, where, and when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_wire::NodeId;

/// What was heard of one address of a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// On which interface.
    pub(super) link: u32,
    /// When the member made the announcement, as it says.
    pub(super) made: u64,
    /// When it came.
    pub(super) at: Instant,
}

/// How an address was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// For the first time.
    New,
    /// By an announcement made later than the last one, or the same over the other family.
    Newer,
    /// By one that was heard before, or an older one. It changes nothing.
    Again,
}

/// All that were heard.
#[derive(Debug, Default)]
pub(super) struct Table {
    heard: BTreeMap<(NodeId, SocketAddr), Heard>,
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.heard.is_empty()
    }

    /// Takes an address of a member.
    pub(super) fn hear(&mut self, key: (NodeId, SocketAddr), heard: Heard) -> Hearing {
        if let Some(known) = self.heard.get_mut(&key) {
            if heard.made > known.made {
                *known = heard;
                return Hearing::Newer;
            }
            let twin = heard.made == known.made && heard.at.duration_since(known.at) < TWIN;
            return if twin { Hearing::Newer } else { Hearing::Again };
        }
        if self.of(key.0).count() >= PER_NODE {
            let oldest = self.of(key.0).min_by_key(|(_, heard)| heard.at).map(|(key, _)| *key);
            oldest.and_then(|key| self.heard.remove(&key));
        } else if self.heard.len() >= MOST {
            let oldest = self.heard.iter().min_by_key(|(_, heard)| heard.at).map(|(key, _)| *key);
            oldest.and_then(|key| self.heard.remove(&key));
        }
        self.heard.insert(key, heard);
        Hearing::New
    }

    /// The addresses of a member, those heard last first.
    pub(super) fn addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.of(node).map(|(key, heard)| (heard.at, key.1)).collect();
        all.sort_by_key(|(at, address)| (std::cmp::Reverse(*at), *address));
        all.into_iter().map(|(_, address)| address).collect()
    }

    /// Forgets addresses; returns whose these were.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Heard) -> bool) -> Vec<NodeId> {
        let mut gone = Vec::new();
        self.heard.retain(|(node, _), heard| {
            let kept = keep(heard);
            if !kept && gone.last() != Some(node) {
                gone.push(*node);
            }
            kept
        });
        gone
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = (&(NodeId, SocketAddr), &Heard)> {
        let first = (node, SocketAddr::from(([0, 0, 0, 0], 0)));
        self.heard.range(first..).take_while(move |((of, _), _)| *of == node)
    }
}

/// Addresses of one member: two announcements full of them.
const PER_NODE: usize = 16;
/// Addresses of all; each takes about 100 bytes.
const MOST: usize = 4096;
/// The same announcement over IPv4 and IPv6.
const TWIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(made: u64, at: Instant) -> Heard {
        Heard { link: 1, made, at }
    }

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]], 1))
    }

    #[test]
    fn repetition_does_not_keep_an_address_alive() {
        let now = Instant::now();
        let key = (NodeId([1; 32]), address(1));
        let mut table = Table::default();
        assert_eq!(table.hear(key, heard(5, now)), Hearing::New);
        assert_eq!(table.hear(key, heard(5, now)), Hearing::Newer, "over the other family");
        let later = now + Duration::from_secs(60);
        assert_eq!(table.hear(key, heard(5, later)), Hearing::Again);
        assert_eq!(table.hear(key, heard(4, later)), Hearing::Again);
        assert_eq!(table.retain(|heard| heard.at > now), [key.0]);
        assert!(table.is_empty());
    }

    #[test]
    fn number_of_addresses_is_bounded() {
        let now = Instant::now();
        let mut table = Table::default();
        for number in 0..1000 {
            table
                .hear((NodeId([1; 32]), address(number)), heard(1, now + Duration::from_secs(number.into())));
        }
        let kept = table.addresses(NodeId([1; 32]));
        assert_eq!((kept.len(), kept[0]), (PER_NODE, address(999)));
        for number in 0..10_000_u16 {
            let mut id = [2; 32];
            id[..2].copy_from_slice(&number.to_le_bytes());
            table.hear((NodeId(id), address(1)), heard(1, now));
        }
        assert_eq!(table.heard.len(), MOST);
    }
}
