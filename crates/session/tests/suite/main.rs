//! Public test vectors on every implementation of the primitives, and golden transcripts of the protocol.

#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod by_hand;
mod downgrade;
mod golden;
mod json;
mod seeded;
mod vectors;
