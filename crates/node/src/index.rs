//! Our numbers for sessions: what a frame carries so that we find its keys without a search.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::node::Slot;

/// Most sessions and handshakes at once; a number's low half is its place in the table.
const CAPACITY: usize = 1 << 16;

/// Gives out session numbers, to the packet path and to the handshakes alike. A number is a place and a generation, so
/// that one given back is not mistaken for its successor.
///
/// The lock is taken when keys begin or end, not per packet.
#[derive(Debug, Clone, Default)]
pub struct Numbers(Arc<Table>);

#[derive(Debug)]
struct Table {
    places: Mutex<Places>,
    /// The number in use at each place, zero for none, for whoever asks without the lock. A part is made when a place in
    /// it is first taken.
    taken: [OnceLock<Box<[AtomicU32]>>; PARTS],
}

/// Parts of the table of numbers in use.
const PARTS: usize = 64;
const PART: usize = CAPACITY / PARTS;

/// A session number in use; it is given back on drop.
pub struct Number {
    value: u32,
    numbers: Numbers,
}

#[derive(Debug, Default)]
struct Places {
    /// The last generation of each place.
    entries: Vec<u16>,
    free: Vec<u16>,
}

impl Numbers {
    /// Gives out a number, or none when all 65,536 are taken.
    #[must_use]
    pub fn allocate(&self) -> Option<Number> {
        let mut places = self.lock();
        let place = match places.free.pop() {
            Some(place) => place,
            None if places.entries.len() < CAPACITY => {
                places.entries.push(0);
                u16::try_from(places.entries.len() - 1).expect("below CAPACITY")
            }
            None => return None,
        };
        let entry = &mut places.entries[usize::from(place)];
        // Zero means "none" where messages carry a number.
        *entry = entry.wrapping_add(1).max(1);
        let value = u32::from(*entry) << 16 | u32::from(place);
        self.set(place, value);
        drop(places);
        Some(Number { value, numbers: self.clone() })
    }

    /// Tells whether a number is in use, by a session or by a handshake. Takes no lock: anybody's frames ask.
    pub(crate) fn is_taken(&self, number: u32) -> bool {
        let (_, place) = split(number);
        let part = self.0.taken[place / PART].get();
        part.is_some_and(|part| number != 0 && part[place % PART].load(Ordering::Acquire) == number)
    }

    fn set(&self, place: u16, number: u32) {
        let place = usize::from(place);
        let part = self.0.taken[place / PART].get_or_init(|| (0..PART).map(|_| AtomicU32::new(0)).collect());
        part[place % PART].store(number, Ordering::Release);
    }

    fn release(&self, number: u32) {
        let (_, place) = split(number);
        let place = u16::try_from(place).expect("below CAPACITY");
        let mut places = self.lock();
        self.set(place, 0);
        places.free.push(place);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Every change is a single step; a panic elsewhere leaves the table whole.
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { places: Mutex::default(), taken: array::from_fn(|_| OnceLock::new()) }
    }
}

impl Number {
    /// Returns the number as messages carry it; never zero.
    #[must_use]
    pub const fn get(&self) -> u32 {
        self.value
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.numbers.release(self.value);
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({:#x})", self.value)
    }
}

/// Which peer the sessions of the packet path belong to, found without a lock.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    places: Vec<Option<(u32, Slot)>>,
    /// Numbers that were removed, where somebody wants to know.
    removed: Option<Vec<u32>>,
}

impl Owners {
    /// Notes which numbers are removed.
    pub(crate) fn noting() -> Self {
        Self { places: Vec::new(), removed: Some(Vec::new()) }
    }

    /// Takes the numbers that were removed since the last call.
    pub(crate) fn take_removed(&mut self) -> Vec<u32> {
        self.removed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns whose session it is.
    pub(crate) fn get(&self, number: u32) -> Option<Slot> {
        let (_, place) = split(number);
        self.places.get(place).copied().flatten().and_then(|(known, slot)| (known == number).then_some(slot))
    }

    pub(crate) fn set(&mut self, number: u32, slot: Slot) {
        let (_, place) = split(number);
        if self.places.len() <= place {
            self.places.resize(place + 1, None);
        }
        self.places[place] = Some((number, slot));
    }

    pub(crate) fn remove(&mut self, number: u32) {
        let (_, place) = split(number);
        if let Some(entry) = self.places.get_mut(place)
            && entry.is_some_and(|(known, _)| known == number)
        {
            *entry = None;
            if let Some(removed) = &mut self.removed {
                removed.push(number);
            }
        }
    }
}

/// Splits a number into its generation and its place.
fn split(number: u32) -> (u16, usize) {
    let [a, b, c, d] = number.to_le_bytes();
    (u16::from_le_bytes([c, d]), usize::from(u16::from_le_bytes([a, b])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_number_is_not_found_again() {
        let numbers = Numbers::default();
        let first = numbers.allocate().unwrap();
        let value = first.get();
        assert!(numbers.is_taken(value));
        drop(first);
        assert!(!numbers.is_taken(value));
        let second = numbers.allocate().unwrap();
        assert_ne!(second.get(), value);
        assert_eq!(second.get() & 0xffff, value & 0xffff, "the place is used again");
        assert!(numbers.is_taken(second.get()) && !numbers.is_taken(value));
    }

    #[test]
    fn full_table_gives_out_nothing() {
        let numbers = Numbers::default();
        let all: Vec<_> = (0..CAPACITY).map(|_| numbers.allocate().unwrap()).collect();
        assert!(numbers.allocate().is_none());
        assert!(all.iter().all(|number| number.get() != 0));
        drop(all);
        assert!(numbers.allocate().is_some());
    }

    #[test]
    fn owner_is_found_by_the_whole_number() {
        let mut owners = Owners::default();
        owners.set(0x0001_0005, Slot(3));
        assert_eq!(owners.get(0x0001_0005), Some(Slot(3)));
        assert_eq!(owners.get(0x0002_0005), None);
        owners.remove(0x0002_0005);
        assert_eq!(owners.get(0x0001_0005), Some(Slot(3)));
        owners.remove(0x0001_0005);
        assert_eq!(owners.get(0x0001_0005), None);
        assert_eq!(owners.get(u32::MAX), None);
    }
}
