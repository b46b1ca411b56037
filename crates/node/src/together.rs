//! Both machines of a node on one thread, as simulations and tests run them: what the daemon passes between its threads
//! is passed on at once.

use std::time::Instant;

use crate::handshaker::Handshaker;
use crate::node::{LateDelivery, Node, Now};
use crate::path::Path;
use crate::tx::TxQueue;

/// A node and its handshaker.
#[derive(Debug)]
pub struct Together {
    /// The packet path.
    pub node: Node,
    /// The handshakes.
    pub handshaker: Handshaker,
}

impl Together {
    /// Takes one datagram of a carrier and returns what it, and frames that waited for it, bring.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        from: Path,
        datagram: &mut [u8],
        tx: &mut TxQueue,
    ) -> Vec<LateDelivery> {
        let mut delivered = Vec::new();
        if Handshaker::takes(datagram) {
            self.handshaker.handle_datagram(now, from, datagram, 0, tx);
        } else {
            delivered.extend(self.node.handle_frame(now, from, datagram, tx).and_then(LateDelivery::of));
        }
        self.exchange(now, tx);
        delivered.extend(std::iter::from_fn(|| self.node.poll_late()));
        delivered
    }

    /// Does something with the node, and then what it asks of the handshaker.
    pub fn with_node<T>(
        &mut self,
        now: Now,
        tx: &mut TxQueue,
        act: impl FnOnce(&mut Node, &mut TxQueue) -> T,
    ) -> T {
        let result = act(&mut self.node, tx);
        self.exchange(now, tx);
        result
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, tx: &mut TxQueue) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if due(self.node.poll_timeout()) {
            self.node.handle_timeout(now, tx);
        }
        if due(self.handshaker.poll_timeout()) {
            self.handshaker.handle_timeout(now, tx);
        }
        self.exchange(now, tx);
    }

    /// Returns when [`Together::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout().into_iter().chain(self.handshaker.poll_timeout()).min()
    }

    fn exchange(&mut self, now: Now, tx: &mut TxQueue) {
        loop {
            if let Some(order) = self.node.poll_order() {
                self.handshaker.handle_order(now, order, tx);
            } else if let Some(outcome) = self.handshaker.poll_outcome() {
                self.node.handle_outcome(now, outcome, tx);
            } else {
                return;
            }
        }
    }
}
