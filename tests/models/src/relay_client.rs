//! The queue to the relay: whoever queues something wakes the task that writes, and the task tells when there is room.

#[rustfmt::skip]
#[path = "../../../crates/net/src/relay/outgoing.rs"]
mod outgoing;
#[rustfmt::skip]
#[path = "../../../crates/net/src/relay/queue.rs"]
#[expect(dead_code, reason = "the models use a part of what the client uses")]
#[expect(unreachable_pub, reason = "what the client shows to others is private here")]
mod queue;

/// What the queue is built from, under loom.
mod sync {
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) use crate::relay_client::AtomicWaker;
}

use std::future::poll_fn;
use std::task::{Poll, Waker};

use bytes::BytesMut;
use loom::future::block_on;
use loom::thread;
use mesh_wire::NodeId;
use mesh_wire::relay::{Bound, ClientMessage};
use outgoing::Outgoing;
use std::sync::Arc;

use crate::signal::Signal;
use crate::{WakeUp, check};

/// The waker of futures-util, as loom has it.
#[derive(Debug)]
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

const PEER: NodeId = NodeId([1; 32]);
const OTHER: NodeId = NodeId([2; 32]);

/// The engine sends frames and another thread asks for a node, while the task writes: everything is written, and the
/// task never sleeps while something is there.
pub fn nothing_waits_unwritten(wake_up: WakeUp) {
    check(move || {
        let outgoing = Arc::new(connected());
        let engine = {
            let outgoing = Arc::clone(&outgoing);
            thread::spawn(move || {
                outgoing.queue().send(PEER, BytesMut::zeroed(10), None).expect("there is room");
                if wake_up == WakeUp::Works {
                    outgoing.wake();
                }
            })
        };
        let daemon = {
            let outgoing = Arc::clone(&outgoing);
            thread::spawn(move || outgoing.change(|queue| queue.bind(OTHER)).expect("there is room"))
        };
        let (mut frames, mut binds) = (0, 0);
        block_on(poll_fn(|cx| {
            outgoing.register(cx.waker());
            while let Some(message) = pop(&outgoing) {
                match ClientMessage::parse(&message).expect("the queue has messages of clients") {
                    ClientMessage::Send(_) => frames += 1,
                    ClientMessage::Bind(_) => binds += 1,
                    ClientMessage::Auth(_)
                    | ClientMessage::Unbind(_)
                    | ClientMessage::Ping(_)
                    | ClientMessage::Pong(_)
                    | ClientMessage::RosterPut(_)
                    | ClientMessage::UdpEnd => panic!("a message that nobody queued"),
                }
            }
            if frames + binds < 2 { Poll::Pending } else { Poll::Ready(()) }
        }));
        engine.join().expect("the engine does not panic");
        daemon.join().expect("the daemon does not panic");
        assert_eq!((frames, binds), (1, 1));
    });
}

/// The engine waits for room while the task writes: it is woken, and what waits never exceeds the limit.
pub fn room_is_told(wake_up: WakeUp) {
    check(move || {
        let outgoing = Arc::new(connected());
        while outgoing.queue().queued_bytes() < BACKLOG {
            outgoing.queue().send(PEER, BytesMut::zeroed(BATCH), None).expect("there is room");
        }
        let signal = Arc::new(Signal::new().expect("a model has no limits"));
        signal.set(wake_up);
        let hook = Arc::clone(&signal);
        outgoing.on_room(Arc::new(move || hook.raise()));
        let task = {
            let outgoing = Arc::clone(&outgoing);
            thread::spawn(move || {
                for _ in 0..BACKLOG / BATCH {
                    let (message, room) = {
                        let mut queue = outgoing.queue();
                        (queue.pop(), queue.take_room())
                    };
                    assert!(message.is_some(), "what waits is written");
                    if room {
                        outgoing.call_room_hook();
                    }
                }
            })
        };
        // One more may come in while the task writes.
        let _ = outgoing.queue().send(PEER, BytesMut::zeroed(BATCH), None);
        assert!(outgoing.queue().queued_bytes() <= LIMIT);
        while outgoing.queue().queued_bytes() >= BACKLOG {
            signal.wait();
            signal.clear();
        }
        task.join().expect("the task does not panic");
    });
}

/// A queue whose task is connected and knows the handle of [`PEER`], with nothing in it.
fn connected() -> Outgoing {
    let outgoing = Outgoing::new();
    outgoing.queue().bind(PEER).expect("there is room");
    outgoing.queue().connected();
    outgoing.queue().bound(&Bound { node: PEER, handle: 7, present: true });
    while pop(&outgoing).is_some() {}
    outgoing
}

fn pop(outgoing: &Outgoing) -> Option<bytes::Bytes> {
    outgoing.queue().pop()
}

/// Bytes from which on the engine reads nothing from the device: half of the limit, below which the queue tells of room.
const BACKLOG: usize = 256 * 1024;
const LIMIT: usize = 2 * BACKLOG;
const BATCH: usize = 64 * 1024;
