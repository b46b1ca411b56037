//! A file descriptor that wakes, as loom sees it.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::sync::{Condvar, Mutex};

use crate::WakeUp;

/// Readable from [`Signal::raise`] to [`Signal::clear`].
#[derive(Debug)]
pub(crate) struct Signal {
    readable: Mutex<bool>,
    changed: Condvar,
    /// Outside of what loom explores: it is set before threads start.
    deaf: AtomicBool,
}

impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { readable: Mutex::new(false), changed: Condvar::new(), deaf: AtomicBool::new(false) })
    }

    pub(crate) fn set(&self, wake_up: WakeUp) {
        self.deaf.store(wake_up == WakeUp::IsLost, Ordering::Relaxed);
    }

    pub(crate) fn raise(&self) {
        if self.deaf.load(Ordering::Relaxed) {
            return;
        }
        *self.readable.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn clear(&self) {
        *self.readable.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Waits until it is readable, as `poll` without a timeout does.
    pub(crate) fn wait(&self) {
        let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
        while !*readable {
            readable = self.changed.wait(readable).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
