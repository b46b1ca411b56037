//! What each thread counts, for others to read: every thread writes its own line of the processor's cache, once a turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_net::Rooms;

use super::EngineDrops;
use super::traffic::Moved;

/// The counts of one thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counts {
    packets: AtomicU64,
    frames: AtomicU64,
    passed: AtomicU64,
    locks: AtomicU64,
    device: AtomicU64,
    waiting_full: AtomicU64,
    congested: AtomicU64,
    udp: AtomicU64,
    unknown_datagram: AtomicU64,
    /// Of its sockets; locked when it changes and when somebody asks.
    rooms: Mutex<Option<Rooms>>,
}

/// What one thread of the packet path did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadSnapshot {
    /// The processor that it is bound to.
    pub cpu: Option<usize>,
    /// Packets that it took from its queue of the device.
    pub packets: u64,
    /// Frames that its sockets received.
    pub frames: u64,
    /// Packets and frames of these that it passed on to another thread.
    pub passed: u64,
    /// Locks of the queues between threads that it took.
    pub locks: u64,
}

impl Counts {
    /// Writes how much went through the thread, and what it passed on by how many locks.
    pub(super) fn show(&self, moved: Moved, passed: u64, locks: u64) {
        for (to, value) in [
            (&self.packets, moved.packets),
            (&self.frames, moved.frames),
            (&self.passed, passed),
            (&self.locks, locks),
        ] {
            to.store(value, Ordering::Relaxed);
        }
    }

    /// Writes what the thread dropped.
    pub(super) fn show_drops(&self, drops: &EngineDrops, waiting_full: u64) {
        for (to, value) in [
            (&self.device, drops.device),
            (&self.waiting_full, waiting_full),
            (&self.congested, drops.congested),
            (&self.udp, drops.udp),
            (&self.unknown_datagram, drops.unknown_datagram),
        ] {
            to.store(value, Ordering::Relaxed);
        }
    }

    /// Writes what room the thread's sockets have.
    pub(super) fn show_rooms(&self, rooms: Rooms) {
        *self.rooms.lock().unwrap_or_else(PoisonError::into_inner) = Some(rooms);
    }

    /// Returns what room the thread's sockets have.
    pub(super) fn rooms(&self) -> Option<Rooms> {
        *self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the thread dropped.
    pub(super) fn add_drops(&self, drops: &mut EngineDrops) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        drops.device += get(&self.device);
        drops.waiting_full += get(&self.waiting_full);
        drops.congested += get(&self.congested);
        drops.udp += get(&self.udp);
        drops.unknown_datagram += get(&self.unknown_datagram);
    }

    /// Returns what the thread, bound to a processor, did so far.
    pub(super) fn snapshot(&self, cpu: Option<usize>) -> ThreadSnapshot {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ThreadSnapshot {
            cpu,
            packets: get(&self.packets),
            frames: get(&self.frames),
            passed: get(&self.passed),
            locks: get(&self.locks),
        }
    }
}

/// The longest round trip of the direct paths in use, as the first thread tells it.
#[derive(Debug, Default)]
pub(super) struct Trip {
    /// In microseconds; zero where there is none.
    micros: AtomicU64,
}

impl Trip {
    pub(super) fn set(&self, trip: Option<Duration>) {
        let micros = trip.map_or(0, |trip| u64::try_from(trip.as_micros()).unwrap_or(u64::MAX));
        self.micros.store(micros, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Duration> {
        let micros = self.micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}
