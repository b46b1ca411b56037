//! The writing side of a connection as others see it: they push, its task pops.

use std::sync::PoisonError;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use mesh_wire::relay::{ErrorCode, RelayMessage};

use super::queue::{Dropped, Next, Queue};
use super::sync::{AtomicU32, AtomicWaker, Mutex, MutexGuard, Ordering};

/// A [`Queue`] behind a lock that is held for one operation only, and the waker of the task that empties it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// Changes when a handle of this client ends, and when the client goes: cached routes to it are void then.
    epoch: AtomicU32,
    /// 1 while the client gives no sign of life; kept behind doors only.
    doubtful: AtomicU32,
}

impl Outbox {
    /// Queues a control message. Returns whether there was room.
    pub(crate) fn control(&self, message: &RelayMessage<'_>) -> bool {
        let pushed = self.lock().push_control(message.encode().into());
        self.waker.wake();
        pushed
    }

    /// Tells whether half of the room for control messages is taken.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().is_crowded()
    }

    /// Puts the roster message to send.
    pub(crate) fn roster(&self, message: Bytes) {
        self.lock().set_roster(message);
        self.waker.wake();
    }

    /// Queues a data message that came from the node with this handle.
    pub(crate) fn data(&self, source: u32, message: Bytes, now: Instant) -> Dropped {
        let dropped = self.lock().push_data(source, message, now);
        self.waker.wake();
        dropped
    }

    /// Ends the connection after a last message.
    pub(crate) fn close(&self, farewell: Option<&RelayMessage<'_>>) {
        self.lock().close(farewell.map(|message| message.encode().into()));
        self.void_routes();
        self.waker.wake();
    }

    /// Ends the connection with an ERROR.
    pub(crate) fn close_with(&self, code: ErrorCode, text: &str) {
        self.close(Some(&RelayMessage::Error { code, text }));
    }

    /// Takes what to write next.
    pub(crate) fn pop(&self, now: Instant, dropped: &mut Dropped) -> Next {
        self.lock().pop(now, dropped)
    }

    /// Sets whom to wake when something is queued; to be called before [`Outbox::pop`].
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Tells whether the client gives no sign of life although frames go to it.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn set_doubtful(&self, doubtful: bool) {
        self.doubtful.store(doubtful.into(), Ordering::Relaxed);
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn void_routes(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
