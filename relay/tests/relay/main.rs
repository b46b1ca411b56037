//! The relay as a value on loopback, with real clients of `mesh-net` and with hostile ones.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by a panic")]

mod admission;
mod datagrams;
mod door;
mod forwarding;
mod hostile;
mod program;
mod raw;
mod service;
mod support;
