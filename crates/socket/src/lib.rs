//! What the kernel keeps for the UDP sockets of nodes and relays: room for what waits to be read or to leave, and how much
//! found none ([`Lost`]).
//!
//! In: bytes that came and went, the round trip of the paths in use. Out: sizes of buffers, counts.
//!
//! Invariants: the decision how much is wanted is pure; sizes are bounded and never shrink; a kernel that gives less costs
//! speed under load and nothing else.

mod lost;
mod room;

pub use lost::Lost;
pub use room::{Growth, MOST, Room, Rooms, Sizes, wanted};
