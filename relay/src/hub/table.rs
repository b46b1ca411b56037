//! The handles of one client.

use std::collections::HashMap;

use mesh_wire::NodeId;

/// Maps handles to nodes and back. A handle is its place (lower 16 bits) and how often the place was used before.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u16>,
    by_node: HashMap<NodeId, u32>,
    limit: usize,
}

/// The handles of all clients, counted.
#[derive(Debug)]
pub(super) struct Total {
    pub(super) count: usize,
    pub(super) limit: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u16,
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Entry {
    node: NodeId,
    /// The client itself asked for it by BIND.
    asked: bool,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        // Below 65,536 places no handle equals NO_HANDLE.
        let limit = limit.min(usize::from(u16::MAX) - 1);
        Self { slots: Vec::new(), free: Vec::new(), by_node: HashMap::new(), limit }
    }

    /// Returns the handle of a node, a new one if it has none; `None` when all are taken.
    ///
    /// Also beyond the limit of all clients together each has a few.
    pub(super) fn open(&mut self, node: NodeId, asked: bool, total: &mut Total) -> Option<u32> {
        if let Some(&handle) = self.by_node.get(&node) {
            let (index, _) = split(handle);
            if let Some(entry) = self.slots.get_mut(index).and_then(|slot| slot.entry.as_mut()) {
                entry.asked |= asked;
            }
            return Some(handle);
        }
        let own = self.by_node.len();
        if own >= self.limit || (total.count >= total.limit && own >= ALWAYS) {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot::default());
                u16::try_from(self.slots.len() - 1).ok()?
            }
        };
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.entry = Some(Entry { node, asked });
        let handle = (u32::from(slot.generation) << 16) | u32::from(index);
        self.by_node.insert(node, handle);
        total.count += 1;
        Some(handle)
    }

    pub(super) fn release(&mut self, handle: u32, total: &mut Total) {
        let (index, generation) = split(handle);
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.generation == generation) else {
            return;
        };
        if let Some(entry) = slot.entry.take() {
            slot.generation = slot.generation.wrapping_add(1);
            self.by_node.remove(&entry.node);
            total.count -= 1;
            self.free.extend(u16::try_from(index).ok());
        }
    }

    pub(super) fn node(&self, handle: u32) -> Option<NodeId> {
        self.entry(handle).map(|entry| entry.node)
    }

    pub(super) fn is_asked(&self, handle: u32) -> bool {
        self.entry(handle).is_some_and(|entry| entry.asked)
    }

    pub(super) fn handle(&self, node: &NodeId) -> Option<u32> {
        self.by_node.get(node).copied()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_node.keys().copied()
    }

    fn entry(&self, handle: u32) -> Option<&Entry> {
        let (index, generation) = split(handle);
        self.slots.get(index).filter(|slot| slot.generation == generation)?.entry.as_ref()
    }
}

/// Handles that a client may have however many the others have.
const ALWAYS: usize = 64;

/// Returns the place of a handle and its generation.
fn split(handle: u32) -> (usize, u16) {
    let [a, b, c, d] = handle.to_le_bytes();
    (usize::from(u16::from_le_bytes([a, b])), u16::from_le_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    #[test]
    fn handles_are_stable_and_not_given_again() {
        let mut table = Table::new(2);
        let mut total = Total { count: 0, limit: 100 };
        let a = table.open(A, false, &mut total).unwrap();
        assert_eq!(table.open(A, true, &mut total), Some(a));
        assert!(table.is_asked(a));
        let b = table.open(B, false, &mut total).unwrap();
        assert_ne!(a, b);
        assert!(!table.is_asked(b));
        assert_eq!(table.open(NodeId([3; 32]), true, &mut total), None);

        table.release(a, &mut total);
        assert_eq!(table.node(a), None);
        let again = table.open(A, false, &mut total).unwrap();
        assert_ne!(again, a);
        table.release(a, &mut total);
        assert_eq!(table.node(again), Some(A));
        assert_eq!((table.nodes().count(), total.count), (2, 2));
    }

    #[test]
    fn a_few_handles_are_left_when_others_have_taken_all() {
        let mut total = Total { count: 0, limit: 100 };
        let (mut greedy, mut late) = (Table::new(4096), Table::new(4096));
        let open = |table: &mut Table, total: &mut Total| {
            (0..200).filter(|n| table.open(NodeId([*n; 32]), true, total).is_some()).count()
        };
        assert_eq!(open(&mut greedy, &mut total), 100);
        assert_eq!(open(&mut late, &mut total), ALWAYS);
        assert_eq!(total.count, 100 + ALWAYS);
    }
}
