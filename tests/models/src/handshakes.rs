//! The queue of the handshake thread: who fills it wakes the thread.

#[rustfmt::skip]
#[path = "../../../daemon/src/handshakes/queue.rs"]
#[expect(dead_code, reason = "the models use a part of what the daemon uses")]
mod queue;

/// What the queue is built from, under loom.
mod sync {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}

use loom::thread;
use mesh_node::{Order, Path};
use mesh_wire::NodeId;
use queue::Queue;
use std::sync::Arc;

use crate::check;

/// The engine brings a datagram and an order and then ends the thread, while the thread works: it sees all of it before
/// the end, or the end, and never waits while something is there.
pub fn nothing_waits_unseen() {
    check(|| {
        let queue = Arc::new(Queue::default());
        let engine = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                queue.put([(Path::Relay(NodeId([1; 32])), Box::from(&b"hello"[..]))], []);
                queue.put([], [Order::Stop { peer: NodeId([2; 32]) }]);
            })
        };
        let (mut datagrams, mut orders) = (0, 0);
        while datagrams + orders < 2 {
            let work = queue.wait(None);
            datagrams += work.datagrams.len();
            orders += work.orders.len();
        }
        engine.join().expect("the engine does not panic");
        assert_eq!((datagrams, orders), (1, 1));
        let end = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.stop())
        };
        while !queue.wait(None).stop {}
        end.join().expect("the engine does not panic");
    });
}
