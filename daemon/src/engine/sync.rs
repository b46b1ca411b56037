//! What [`super::inbox`] is built from. `tests/models` puts model-checked parts of the same names in their place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
pub(super) use std::sync::{Mutex, MutexGuard};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A file descriptor that is readable from [`Signal::raise`] to [`Signal::clear`].
#[derive(Debug)]
pub(super) struct Signal(EventFd);

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    pub(super) fn raise(&self) {
        // Failing means that it is readable already.
        let _ = self.0.write(1);
    }

    pub(super) fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
