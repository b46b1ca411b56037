//! Who is at which relay, and which relay carries frames to a peer. Pure: no clock, no socket.
//!
//! A peer is reached at the relay that it calls home, else at the one that it keeps warm, else at one of ours where it
//! is. What a relay says of presence is a hint: it decides between relays, and whether a peer is worth asking for.

use std::collections::BTreeMap;

use mesh_wire::control::RELAYS_TOLD;
use mesh_wire::limits::ROSTER_NODES;
use mesh_wire::{NodeId, Pin};

use super::RELAYS;

/// The place of a relay among this node's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) usize);

/// A set of relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slots(u16);

impl Slots {
    pub(crate) const fn with(self, slot: Slot) -> Self {
        Self(self.0 | 1 << slot.0)
    }

    pub(crate) const fn without(self, slot: Slot) -> Self {
        Self(self.0 & !(1 << slot.0))
    }

    pub(crate) const fn has(self, slot: Slot) -> bool {
        self.0 & 1 << slot.0 != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The relays and the peers at them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The relay of each place.
    pins: [Option<Pin>; RELAYS],
    /// Relays with a client, connected or not.
    open: Slots,
    /// All places in the order in which they are used: home, the warm one, the others.
    order: Vec<Slot>,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// Asked for at every relay.
    bound: bool,
    present: Slots,
    absent: Slots,
    /// The relays at which it says it is, home first; only such as are in the list.
    homes: Vec<Pin>,
}

/// Which relay carries a peer's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) slot: Option<Slot>,
    /// Relays without a client that would be better.
    pub(crate) wants: Slots,
}

impl Table {
    /// Gives a place to a relay, or takes it back.
    pub(crate) fn set_relay(&mut self, slot: Slot, pin: Option<Pin>) {
        self.pins[slot.0] = pin;
    }

    /// Says that a relay has a client, or none.
    pub(crate) fn set_open(&mut self, slot: Slot, open: bool) {
        self.open = if open { self.open.with(slot) } else { self.open.without(slot) };
    }

    /// Sets in which order relays are used that are as good for a peer.
    pub(crate) fn set_order(&mut self, order: Vec<Slot>) {
        self.order = order;
    }

    /// All places in the order in which they are used.
    pub(crate) fn order(&self) -> &[Slot] {
        &self.order
    }

    /// Has a peer asked for at every relay; true when it was not before.
    pub(crate) fn bind(&mut self, node: NodeId) -> bool {
        !std::mem::replace(&mut self.peers.entry(node).or_default().bound, true)
    }

    /// The peers that every relay is asked for.
    pub(crate) fn bound(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.bound).map(|(node, _)| *node)
    }

    /// Takes what a relay says of a peer. Returns whether the peer is at any relay, where that is news or its presence is
    /// told again, and known: absent only where every open relay says so.
    pub(crate) fn presence(&mut self, slot: Slot, node: NodeId, present: bool) -> Option<bool> {
        if !self.peers.contains_key(&node) && self.peers.len() >= ROSTER_NODES {
            return Some(present);
        }
        let open = self.open;
        let peer = self.peers.entry(node).or_default();
        let before = peer.online(open);
        if present {
            peer.present = peer.present.with(slot);
            peer.absent = peer.absent.without(slot);
        } else {
            peer.present = peer.present.without(slot);
            peer.absent = peer.absent.with(slot);
        }
        let after = peer.online(open);
        after.filter(|_| after != before)
    }

    /// Forgets what a relay said, whose connection ended. Returns the peers that are at no other relay.
    pub(crate) fn lost(&mut self, slot: Slot, others: bool) -> Vec<NodeId> {
        let open = self.open.without(slot);
        let mut gone = Vec::new();
        for (node, peer) in &mut self.peers {
            let was = peer.present.has(slot);
            peer.present = peer.present.without(slot);
            peer.absent = peer.absent.without(slot);
            if others && was && peer.online(open) == Some(false) {
                gone.push(*node);
            }
        }
        gone
    }

    /// Takes where a peer says it is. Relays that this node does not know are left out; returns how many.
    pub(crate) fn set_homes(&mut self, node: NodeId, homes: &[Pin]) -> usize {
        let known = |pin: &Pin| self.pins.contains(&Some(*pin));
        let (known, unknown): (Vec<Pin>, Vec<Pin>) = homes.iter().partition(|pin| known(pin));
        let peer = self.peers.entry(node).or_default();
        peer.homes = known;
        peer.homes.truncate(RELAYS_TOLD);
        unknown.len()
    }

    /// Returns where a peer says it is.
    pub(crate) fn homes(&self, node: &NodeId) -> &[Pin] {
        self.peers.get(node).map_or(&[], |peer| &peer.homes)
    }

    /// Returns which relay carries frames to a peer, of those that answer.
    pub(crate) fn way(&self, node: &NodeId, ready: Slots) -> Way {
        let nobody = Peer::default();
        let peer = self.peers.get(node).unwrap_or(&nobody);
        let homes = || peer.homes.iter().filter_map(|pin| self.slot(pin));
        let usable = |slot: &Slot| ready.has(*slot);
        let present = |slot: &Slot| peer.present.has(*slot);
        let unknown = |slot: &Slot| !peer.absent.has(*slot);
        let all = || homes().chain(self.order.iter().copied()).filter(usable);
        let found = all().find(present);
        let slot = found.or_else(|| all().find(unknown)).or_else(|| all().next());
        let wants = if slot.is_some_and(|slot| Some(slot) == homes().next()) {
            Slots::default()
        } else {
            // Its home; the one that it keeps warm only where it cannot be reached otherwise.
            let wanted = homes().take(if found.is_some() { 1 } else { RELAYS_TOLD });
            wanted.filter(|slot| !self.open.has(*slot)).fold(Slots::default(), Slots::with)
        };
        Way { slot, wants }
    }

    /// Returns the place of a relay.
    pub(crate) fn slot(&self, pin: &Pin) -> Option<Slot> {
        self.pins.iter().position(|known| known.as_ref() == Some(pin)).map(Slot)
    }
}

impl Peer {
    /// Whether it is at any of these relays, as far as that is known.
    const fn online(&self, open: Slots) -> Option<bool> {
        if !self.present.is_empty() {
            return Some(true);
        }
        if self.absent.is_empty() || open.and(self.absent).0 != open.0 { None } else { Some(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);

    fn pin(number: usize) -> Pin {
        Pin([u8::try_from(number).unwrap(); 32])
    }

    /// A table of three relays, of which the first two are open, in this order.
    fn table() -> Table {
        let mut table = Table::default();
        for slot in 0..3 {
            table.set_relay(Slot(slot), Some(pin(slot)));
        }
        table.set_open(Slot(0), true);
        table.set_open(Slot(1), true);
        table.set_order(vec![Slot(0), Slot(1), Slot(2)]);
        table
    }

    fn ready(slots: &[usize]) -> Slots {
        slots.iter().fold(Slots::default(), |set, slot| set.with(Slot(*slot)))
    }

    #[test]
    fn peer_of_whom_nothing_is_known_is_asked_for_at_home() {
        let table = table();
        assert_eq!(table.way(&A, ready(&[0, 1])), Way { slot: Some(Slot(0)), wants: Slots::default() });
        assert_eq!(table.way(&A, ready(&[1])).slot, Some(Slot(1)));
        assert_eq!(table.way(&A, ready(&[])).slot, None);
    }

    #[test]
    fn frames_go_where_the_peer_is() {
        let mut table = table();
        assert_eq!(table.presence(Slot(0), A, false), None, "the other relay may know it");
        assert_eq!(table.way(&A, ready(&[0, 1])).slot, Some(Slot(1)));
        assert_eq!(table.presence(Slot(1), A, true), Some(true));
        assert_eq!(table.presence(Slot(0), A, true), None, "no news");
        assert_eq!(table.way(&A, ready(&[0, 1])).slot, Some(Slot(0)));
        assert_eq!(table.presence(Slot(0), A, false), None);
        assert_eq!(table.presence(Slot(1), A, false), Some(false), "at none");
    }

    #[test]
    fn peers_home_is_preferred_and_its_warm_relay_next() {
        let mut table = table();
        table.presence(Slot(0), A, true);
        table.presence(Slot(1), A, true);
        table.set_homes(A, &[pin(1), pin(2)]);
        assert_eq!(table.way(&A, ready(&[0, 1])), Way { slot: Some(Slot(1)), wants: Slots::default() });
        assert_eq!(table.way(&A, ready(&[0])), Way { slot: Some(Slot(0)), wants: Slots::default() });
        table.set_homes(A, &[pin(2), pin(1)]);
        let way = table.way(&A, ready(&[0, 1]));
        assert_eq!(way, Way { slot: Some(Slot(1)), wants: ready(&[2]) }, "until its home is connected");
        table.set_open(Slot(2), true);
        assert_eq!(table.way(&A, ready(&[0, 1])).wants, Slots::default(), "wanted once");
        table.presence(Slot(2), A, true);
        assert_eq!(table.way(&A, ready(&[0, 1, 2])).slot, Some(Slot(2)));
    }

    #[test]
    fn peer_cannot_name_relays_that_are_not_in_the_list() {
        let mut table = table();
        table.set_homes(A, &[pin(77), pin(78), pin(1)]);
        assert_eq!(table.homes(&A), [pin(1)]);
        table.set_homes(A, &[pin(0), pin(1), pin(2)]);
        assert_eq!(table.homes(&A).len(), RELAYS_TOLD);
    }

    #[test]
    fn loss_of_a_relay_makes_those_absent_who_are_at_no_other() {
        let (mut table, b) = (table(), NodeId([2; 32]));
        table.presence(Slot(0), A, true);
        table.presence(Slot(1), A, false);
        table.presence(Slot(0), b, true);
        table.presence(Slot(1), b, true);
        assert_eq!(table.lost(Slot(0), true), [A]);
        assert_eq!(table.way(&b, ready(&[1])).slot, Some(Slot(1)));
        assert!(table.lost(Slot(1), false).is_empty(), "without a relay nothing is known");
    }

    #[test]
    fn presence_of_strangers_is_bounded() {
        let mut table = table();
        for number in 0..3 * u32::try_from(ROSTER_NODES).unwrap() {
            let mut id = [9; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            table.presence(Slot(0), NodeId(id), true);
        }
        assert_eq!(table.peers.len(), ROSTER_NODES);
        assert!(table.bind(A) && !table.bind(A));
        assert_eq!(table.bound().collect::<Vec<_>>(), [A]);
    }
}
