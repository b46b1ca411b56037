//! The [`Queue`] between the threads that send and the task that writes, with the wake-up of either side.
//!
//! Who queues something wakes the task. The task tells by a hook, once, that the queue has room again.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::queue::Queue;
use super::sync::{AtomicWaker, Mutex, MutexGuard};

/// A queue behind a lock that is held for one operation only.
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    wake: AtomicWaker,
    room: Mutex<Option<RoomHook>>,
}

type RoomHook = Arc<dyn Fn() + Send + Sync>;

impl Outgoing {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::new(Queue::new()), wake: AtomicWaker::new(), room: Mutex::new(None) }
    }

    /// Changes the queue, then wakes the task.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let result = change(&mut self.queue());
        self.wake();
        result
    }

    /// Locks the queue, for changes that the task need not hear of.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        self.wake.wake();
    }

    /// Sets whom to wake; to be called before the queue is looked at.
    pub(super) fn register(&self, waker: &Waker) {
        self.wake.register(waker);
    }

    /// Sets the function that is called when there is room.
    pub(super) fn on_room(&self, hook: RoomHook) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    /// Tells that there is room; the queue must not be locked.
    pub(super) fn call_room_hook(&self) {
        let hook = self.room.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hook) = hook {
            hook();
        }
    }
}
