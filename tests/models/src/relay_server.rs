//! What waits for one client of the relay: other clients' connections push, the client's own task pops.

#[rustfmt::skip]
#[path = "../../../relay/src/outbox.rs"]
#[expect(dead_code, reason = "the models use a part of what the relay uses")]
mod outbox;
#[rustfmt::skip]
#[path = "../../../relay/src/queue.rs"]
mod queue;

/// What the outbox is built from, under loom.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) use crate::relay_server::AtomicWaker;
}

use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use loom::future::block_on;
use loom::thread;
use mesh_wire::relay::{ErrorCode, RelayMessage};
use outbox::Outbox;
use queue::{Dropped, Next};
use std::sync::Arc;

use crate::{WakeUp, check};

/// The waker of futures-util, as loom has it.
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker {
    waker: loom::future::AtomicWaker,
}

impl AtomicWaker {
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

/// Two clients send and a third thread ends the connection: the task writes what came before the end, then the
/// farewell, and sleeps at no time while there is something to do.
pub fn farewell_is_written(wake_up: WakeUp) {
    check(move || {
        let outbox = Arc::new(Outbox::default());
        let now = Instant::now();
        let sender = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || {
                outbox.data(1, Bytes::from_static(b"data"), now);
                outbox.control(&RelayMessage::PeerPresent(1));
            })
        };
        let closer = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || {
                let before = outbox.epoch();
                outbox.close_with(ErrorCode::Replaced, "a newer connection took over");
                assert_ne!(outbox.epoch(), before, "routes to a closed outbox stay good");
            })
        };
        let mut written = Vec::new();
        block_on(poll_fn(|cx| {
            if wake_up == WakeUp::Works {
                outbox.register(cx.waker());
            }
            loop {
                match outbox.pop(now, &mut Dropped::default()) {
                    Next::Message(message) => written.push(message),
                    Next::Nothing => return Poll::Pending,
                    Next::Close => return Poll::Ready(()),
                }
            }
        }));
        sender.join().expect("the sender does not panic");
        closer.join().expect("the closer does not panic");
        let last = written.last().map(|message| RelayMessage::parse(message));
        let told = matches!(last, Some(Ok(RelayMessage::Error { code: ErrorCode::Replaced, .. })));
        assert!(told && written.len() <= 3, "the farewell is not the last message");
        assert!(!outbox.control(&RelayMessage::PeerGone(1)), "a closed outbox takes more");
    });
}
