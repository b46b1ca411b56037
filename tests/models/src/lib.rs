//! Models of what threads share, checked by loom in every order that their steps can take.
//!
//! The files under test are those of the programs, taken in by path. They name their locks and wakers `super::sync::…`,
//! and here that module has parts which loom controls. So the code that is checked is the code that runs, it has no
//! `#[cfg]`, and no flag makes another build of everything.
//!
//! What threads share they hold by the `Arc` of std: loom's own cannot be dropped by a thread that ends in a deadlock.
//!
//! Each model is a function that panics when some order of steps loses a wake-up (all threads then wait for ever),
//! loses or repeats an item, or exceeds a bound. `tests/models.rs` runs them, and those with a wake-up of ours
//! once more with it taken out, where they have to fail.

pub mod engine;
pub mod handshakes;
pub mod quic;
pub mod relay_client;
pub mod relay_server;
mod signal;

/// Whether the wake-up under test works; without it a model has to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeUp {
    /// As in the programs.
    Works,
    /// It is taken out, to see that the model finds out.
    IsLost,
}

/// Checks every order of steps in which at most three threads are interrupted where they need not be.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Faults of real programs show with two interruptions already; all orders would take hours.
const PREEMPTIONS: usize = 3;
