//! The handshake thread: it owns the [`Handshaker`], so that signatures and key exchanges never hold up a packet.
//!
//! ```text
//! engine ── datagrams, orders ──► queue ──► Handshaker ── outcomes, transmits ──► engine's inbox
//! ```
//! Invariants: the queue is bounded, and what the relay brings has its own share, so that a flood over UDP does not push
//! it out; outcomes reach the engine before what the same step sends; the engine never waits for this thread.

mod queue;
mod sync;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use mesh_node::{Counters, Handshaker, Order, Path, TxQueue};
use mesh_session::wipe_after_sessions;

use self::queue::{Queue, Work};
use crate::engine::{Inbox, now};

/// The hold on a running handshake thread; dropping it ends the thread.
pub struct Handshakes {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Handshakes {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(handshaker: Handshaker, engine: Arc<Inbox>) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let worker = Worker { handshaker, queue: Arc::clone(&queue), engine };
        let thread = thread::Builder::new().name("mesh-handshake".into()).spawn(move || worker.run())?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Appends datagrams, each with what it came over, and orders; drops and counts datagrams when too many wait.
    pub fn put(
        &self,
        datagrams: impl IntoIterator<Item = (Path, Box<[u8]>)>,
        orders: impl IntoIterator<Item = Order>,
    ) {
        self.queue.put(datagrams, orders);
    }

    /// Appends an order.
    pub fn order(&self, order: Order) {
        self.queue.put([], [order]);
    }

    /// Returns what was dropped for its content, and how many datagrams for want of room.
    #[must_use]
    pub fn drops(&self) -> (Counters, u64) {
        self.queue.drops()
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Worker {
    handshaker: Handshaker,
    queue: Arc<Queue>,
    engine: Arc<Inbox>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let work = self.queue.wait(self.handshaker.poll_timeout());
            if work.stop {
                return;
            }
            self.step(work);
            wipe_after_sessions();
        }
    }

    fn step(&mut self, work: Work) {
        let mut tx = TxQueue::new();
        for order in work.orders {
            self.handshaker.handle_order(now(), order, &mut tx);
        }
        let waiting = work.datagrams.len() + work.backlog;
        for (handled, (from, datagram)) in work.datagrams.into_iter().enumerate() {
            self.handshaker.handle_datagram(now(), from, &datagram, waiting - handled - 1, &mut tx);
            self.tell(&mut tx);
        }
        let now = now();
        if self.handshaker.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.handshaker.handle_timeout(now, &mut tx);
        }
        self.tell(&mut tx);
        self.queue.note(self.handshaker.counters().clone());
    }

    fn tell(&mut self, tx: &mut TxQueue) {
        while let Some(outcome) = self.handshaker.poll_outcome() {
            self.engine.outcome(outcome);
        }
        while let Some(transmit) = tx.pop() {
            self.engine.transmit(transmit);
        }
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes").finish_non_exhaustive()
    }
}
