//! Keys that a peer may not name as its door's. Pure.
//!
//! At a relay, or at another peer's door, a second connection of this node would end the first one, and whatever comes
//! there for this node would be taken for the words of a door, and left. A peer gains nothing by another's key: the
//! owner of the key alone can answer under it.

use std::collections::BTreeSet;

use mesh_wire::Pin;

/// Keys whose owners are known.
#[derive(Debug)]
pub(crate) struct Owned<'a, Doors> {
    /// Of the relays that this node knows.
    pub(crate) relays: &'a BTreeSet<Pin>,
    /// Of this node's own door.
    pub(crate) own: Option<Pin>,
    /// Of doors behind which other peers were seen.
    pub(crate) doors: Doors,
}

impl<'a, Doors: Iterator<Item = &'a Pin>> Owned<'a, Doors> {
    /// Says whose key it is, as a reason for people not to connect; none when it may be the peer's.
    pub(crate) fn refuses(mut self, told: &Pin) -> Option<&'static str> {
        if self.relays.contains(told) {
            Some("the peer names the key of a relay as that of its door")
        } else if self.own == Some(*told) {
            Some("the peer names the key of this node's door as that of its own")
        } else if self.doors.any(|pin| pin == told) {
            Some("the peer names the key of another peer's door as that of its own")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_relay_or_of_another_door_is_not_the_peers() {
        let pin = |number| Pin([number; 32]);
        let relays = BTreeSet::from([pin(1), pin(2)]);
        let others = [pin(4)];
        let refuses =
            |number| Owned { relays: &relays, own: Some(pin(3)), doors: others.iter() }.refuses(&pin(number));
        for (number, part) in [(1, "a relay"), (2, "a relay"), (3, "this node's door"), (4, "another peer's")]
        {
            assert!(refuses(number).unwrap().contains(part), "{number}");
        }
        assert_eq!(refuses(5), None);
    }
}
