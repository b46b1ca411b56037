//! Public test vectors on every implementation, and properties of what this crate reads and signs.

#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod json;
mod properties;
mod vectors;
