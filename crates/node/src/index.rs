//! Our numbers for sessions: what a frame carries so that we find its keys without a search.

use crate::node::Slot;

/// Most sessions and handshakes at once; a number's low half is its place in the table.
const CAPACITY: usize = 1 << 16;

/// Maps session numbers to peers. A number is a place and a generation, so that one given back is not mistaken for
/// its successor.
#[derive(Debug, Default)]
pub(crate) struct IndexTable {
    entries: Vec<Entry>,
    free: Vec<u16>,
}

#[derive(Debug)]
struct Entry {
    generation: u16,
    owner: Option<Owner>,
}

/// Whose number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A session or a handshake we began, of the peer in this slot.
    Peer(Slot),
    /// A handshake that somebody began with us.
    HalfOpen,
}

impl IndexTable {
    /// Gives out a number, or none when the table is full.
    pub(crate) fn allocate(&mut self, owner: Owner) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.entries.len() < CAPACITY => {
                self.entries.push(Entry { generation: 0, owner: None });
                u16::try_from(self.entries.len() - 1).expect("below CAPACITY")
            }
            None => return None,
        };
        let entry = &mut self.entries[usize::from(place)];
        entry.generation = entry.generation.wrapping_add(1);
        entry.owner = Some(owner);
        Some(u32::from(entry.generation) << 16 | u32::from(place))
    }

    /// Returns whose number it is.
    pub(crate) fn owner(&self, index: u32) -> Option<Owner> {
        self.entry(index).and_then(|at| self.entries[at].owner)
    }

    /// Hands a number to another owner.
    pub(crate) fn assign(&mut self, index: u32, owner: Owner) {
        if let Some(at) = self.entry(index) {
            self.entries[at].owner = Some(owner);
        }
    }

    /// Takes a number back.
    pub(crate) fn release(&mut self, index: u32) {
        if let Some(at) = self.entry(index)
            && self.entries[at].owner.take().is_some()
        {
            self.free.push(u16::try_from(at).expect("below CAPACITY"));
        }
    }

    fn entry(&self, index: u32) -> Option<usize> {
        let [a, b, c, d] = index.to_le_bytes();
        let place = usize::from(u16::from_le_bytes([a, b]));
        let entry = self.entries.get(place)?;
        (entry.generation == u16::from_le_bytes([c, d])).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_number_is_not_found_again() {
        let mut table = IndexTable::default();
        let first = table.allocate(Owner::Peer(Slot(3))).unwrap();
        assert_eq!(table.owner(first), Some(Owner::Peer(Slot(3))));
        table.release(first);
        table.release(first);
        let second = table.allocate(Owner::HalfOpen).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.owner(first), None);
        assert_eq!(table.owner(second), Some(Owner::HalfOpen));
        assert_eq!(table.allocate(Owner::HalfOpen).map(|i| i & 0xffff), Some(1));
    }

    #[test]
    fn full_table_gives_out_nothing() {
        let mut table = IndexTable::default();
        for _ in 0..CAPACITY {
            assert!(table.allocate(Owner::HalfOpen).is_some());
        }
        assert_eq!(table.allocate(Owner::HalfOpen), None);
    }
}
