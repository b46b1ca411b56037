//! What waits for the handshake thread.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Instant;

use mesh_node::{Counters, Order, Path};

use super::sync::{Condvar, Mutex, MutexGuard};

/// Datagrams of each kind of path that wait, at most; beyond it new ones are dropped and counted: at 2 us for a message
/// of a stranger this is 8 ms of work.
const DATAGRAMS: usize = 4096;
/// Bytes of datagrams of each kind of path that wait, at most.
const BYTES: usize = 4 * 1024 * 1024;
/// Orders that wait, at most: one for each peer that a network may have, and some more.
const ORDERS: usize = 16 * 1024;
/// Datagrams handled between two looks at the queue.
const BATCH: usize = 32;

/// A datagram and what it came over.
pub(crate) type Datagram = (Path, Box<[u8]>);

/// A bounded queue with its own waking. Its lock is taken once per turn of the engine that has something for it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    relay: Lane,
    udp: Lane,
    orders: VecDeque<Order>,
    /// What the handshaker dropped, as of its last step.
    counters: Counters,
    stop: bool,
    /// The thread sleeps: it has to be woken.
    waiting: bool,
}

/// What waits of one kind of path.
#[derive(Debug, Default)]
struct Lane {
    datagrams: VecDeque<(Path, Box<[u8]>)>,
    bytes: usize,
    dropped: u64,
}

/// What one look at the queue gives.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) datagrams: Vec<(Path, Box<[u8]>)>,
    pub(super) orders: VecDeque<Order>,
    /// Datagrams that still wait.
    pub(super) backlog: usize,
    pub(super) stop: bool,
}

impl Queue {
    /// Appends datagrams and orders, which it takes out.
    pub(super) fn put(
        &self,
        datagrams: impl IntoIterator<Item = Datagram>,
        orders: impl IntoIterator<Item = Order>,
    ) {
        let mut state = self.lock();
        for (from, datagram) in datagrams {
            let lane = match from {
                Path::Relay(_) => &mut state.relay,
                Path::Udp(_) => &mut state.udp,
            };
            lane.put(from, datagram);
        }
        for order in orders {
            if state.orders.len() < ORDERS {
                state.orders.push_back(order);
            }
        }
        self.wake(state);
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // A system call, which a thread that is at work anyhow does not need.
        if waiting {
            self.arrived.notify_one();
        }
    }

    /// Waits for work until `deadline`, for ever where there is none.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Work {
        let mut state = self.lock();
        while state.is_idle() {
            state.waiting = true;
            state = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => {
                    state.waiting = false;
                    break;
                }
                Some(left) => {
                    self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.take()
    }

    /// Notes what the handshaker dropped so far.
    pub(super) fn note(&self, counters: Counters) {
        self.lock().counters = counters;
    }

    /// Returns what was dropped for its content, and how many datagrams for want of room.
    pub(super) fn drops(&self) -> (Counters, u64) {
        let state = self.lock();
        (state.counters.clone(), state.relay.dropped + state.udp.dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        !self.stop
            && self.orders.is_empty()
            && self.relay.datagrams.is_empty()
            && self.udp.datagrams.is_empty()
    }

    /// Takes all orders, and datagrams of both kinds in turn.
    fn take(&mut self) -> Work {
        let mut work = Work { orders: std::mem::take(&mut self.orders), stop: self.stop, ..Work::default() };
        while work.datagrams.len() < BATCH {
            let before = work.datagrams.len();
            work.datagrams.extend(self.relay.take());
            work.datagrams.extend(self.udp.take());
            if work.datagrams.len() == before {
                break;
            }
        }
        work.backlog = self.relay.datagrams.len() + self.udp.datagrams.len();
        work
    }
}

impl Lane {
    fn put(&mut self, from: Path, datagram: Box<[u8]>) {
        if self.datagrams.len() == DATAGRAMS || self.bytes + datagram.len() > BYTES {
            self.dropped += 1;
            return;
        }
        self.bytes += datagram.len();
        self.datagrams.push_back((from, datagram));
    }

    fn take(&mut self) -> Option<(Path, Box<[u8]>)> {
        let taken = self.datagrams.pop_front()?;
        self.bytes -= taken.1.len();
        Some(taken)
    }
}

#[cfg(test)]
#[cfg(not(modelled))]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use mesh_wire::NodeId;

    use super::*;

    fn relay() -> Path {
        Path::Relay(NodeId([1; 32]))
    }

    fn udp() -> Path {
        Path::Udp("192.0.2.1:1".parse().unwrap())
    }

    fn one(queue: &Queue, from: Path, datagram: &[u8]) {
        queue.put([(from, datagram.into())], []);
    }

    #[test]
    fn flood_over_udp_leaves_room_for_the_relay() {
        let queue = Queue::default();
        for _ in 0..DATAGRAMS + 5 {
            one(&queue, udp(), b"flood");
        }
        one(&queue, relay(), b"honest");
        assert_eq!(queue.lock().udp.dropped, 5);
        let work = queue.wait(None);
        assert_eq!(work.datagrams[0], (relay(), Box::from(&b"honest"[..])));
        assert_eq!(work.datagrams.len(), BATCH);
        assert_eq!(work.backlog, DATAGRAMS + 1 - BATCH);
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let queue = Queue::default();
        let large = vec![0; BYTES / 2 + 1];
        one(&queue, udp(), &large);
        one(&queue, udp(), &large);
        assert_eq!(queue.lock().udp.dropped, 1);
        assert_eq!(queue.wait(None).datagrams.len(), 1);
        one(&queue, udp(), &large);
        assert_eq!(queue.lock().udp.dropped, 1);
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_for_work() {
        let queue = Arc::new(Queue::default());
        assert!(queue.wait(Some(Instant::now())).datagrams.is_empty());
        let waiting = Arc::clone(&queue);
        let thread = thread::spawn(move || waiting.wait(None).stop);
        queue.stop();
        assert!(thread.join().unwrap());
    }
}
