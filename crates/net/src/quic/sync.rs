//! What [`super::socket`] is built from. `tests/models` puts model-checked parts of the same names in their place.

pub(super) use std::sync::{Mutex, MutexGuard};

pub(super) use futures_util::task::AtomicWaker;
