//! The relays of the network: which there are, which one this node calls home, and which one carries a peer's frames.
//!
//! `list` puts the list together, `choice` judges by round trips and losses which relay is home and which is kept
//! warm, `table` knows who is where: these three are pure. `doors` holds the connections with single peers past the
//! relays, `dialling` says when one is made, `pins` with whose keys not. [`pool`] is what the packet path sends through: it holds
//! the senders of all connections. The clients themselves belong to the supervisor.
//!
//! Invariants: only the signed roster, the ticket and this node's own configuration name relays, at most [`RELAYS`]; a
//! relay adds none, and a peer can only name some of them.

pub(crate) mod choice;
pub(crate) mod dialling;
pub(crate) mod doors;
pub(crate) mod list;
pub(crate) mod pins;
pub mod pool;
pub(crate) mod table;

/// Relays that the roster may announce and a node uses.
pub const ANNOUNCED: usize = 8;
/// Relays that a node's configuration may add.
pub const CONFIGURED: usize = 4;
/// Relays of one node at most.
pub const RELAYS: usize = ANNOUNCED + CONFIGURED;
