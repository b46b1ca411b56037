//! Keeps keys in memory: no core dump, no debugger of the same user, no page in swap.

use nix::libc::MCL_ONFAULT;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Protects this process as far as the system lets it. Call it before there are keys and threads.
pub(crate) fn protect() {
    if let Err(error) = set_dumpable(false) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "the limit of core dumps could not be set");
    }
    lock();
}

/// Locks every page once it is used; pages never used take no memory.
///
/// Under a limit nothing is locked: what is mapped counts against it, used or not, so later allocations would fail. A
/// limit of zero leaves the lock to processes that no limit binds (`CAP_IPC_LOCK`).
fn lock() {
    let locked = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .or_else(|_| {
            let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
            setrlimit(Resource::RLIMIT_MEMLOCK, 0, hard)
        })
        .and_then(|()| {
            let on_fault = MlockAllFlags::from_bits_retain(MCL_ONFAULT);
            mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
        });
    if let Err(error) = locked {
        tracing::debug!(%error, "memory is not locked; it is where LimitMEMLOCK= is infinity");
    }
}
