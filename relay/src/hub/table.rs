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
    pub(super) fn open(&mut self, node: NodeId, asked: bool) -> Option<u32> {
        if let Some(&handle) = self.by_node.get(&node) {
            let (index, _) = split(handle);
            if let Some(entry) = self.slots.get_mut(index).and_then(|slot| slot.entry.as_mut()) {
                entry.asked |= asked;
            }
            return Some(handle);
        }
        if self.by_node.len() >= self.limit {
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
        Some(handle)
    }

    pub(super) fn release(&mut self, handle: u32) {
        let (index, generation) = split(handle);
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.generation == generation) else {
            return;
        };
        if let Some(entry) = slot.entry.take() {
            slot.generation = slot.generation.wrapping_add(1);
            self.by_node.remove(&entry.node);
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
        let a = table.open(A, false).unwrap();
        assert_eq!(table.open(A, true), Some(a));
        assert!(table.is_asked(a));
        let b = table.open(B, false).unwrap();
        assert_ne!(a, b);
        assert!(!table.is_asked(b));
        assert_eq!(table.open(NodeId([3; 32]), true), None);

        table.release(a);
        assert_eq!(table.node(a), None);
        let again = table.open(A, false).unwrap();
        assert_ne!(again, a);
        table.release(a);
        assert_eq!(table.node(again), Some(A));
        assert_eq!(table.nodes().count(), 2);
    }
}
