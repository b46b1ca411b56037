//! What [`super::queue`] is built from. `tests/models` puts model-checked parts of the same names in their place.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
