//! Public test vectors on every implementation of the primitives.

#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod json;
mod vectors;
