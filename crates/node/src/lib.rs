//! The state machine of one node: which peers there are, which session reaches them, which packet goes where.
//!
//! In: packets from the device ([`Node::handle_packet`]), datagrams from a carrier ([`Node::handle_datagram`]), what
//! the relay says of a peer ([`Node::handle_presence`]), a new roster, the passing of time. Out: datagrams appended to
//! a [`TxQueue`], payloads for the device, [`NodeEvent`]s and the next deadline.
//!
//! Map: `outbound.rs` and `inbound.rs` are a packet's two ways, one step a call; `peer.rs` keeps one peer's sessions,
//! handshake and queue; `dial.rs` starts, answers and repeats handshakes; `rekey.rs` replaces keys in use; `timers.rs` is what happens when nothing
//! does; `routes.rs` tells whom an address belongs to; `segment.rs` is the Ethernet switch of TAP mode.
//!
//! Invariants: no clock, socket or randomness inside; every table and queue is bounded; whatever is dropped has a
//! [`DropReason`]; nothing a peer sends is an error of the node.

mod bucket;
mod counters;
mod dial;
mod inbound;
mod index;
mod node;
mod outbound;
mod peer;
mod rekey;
mod routes;
mod segment;
mod snapshot;
mod timers;
mod tx;

pub use counters::{Counters, DropReason};
pub use node::{Link, Node, NodeConfig, NodeEvent, Now, Random};
pub use rekey::Timings;
pub use routes::Routes;
pub use segment::mac_of;
pub use snapshot::{PeerPhase, PeerSnapshot, SessionSnapshot, Snapshot};
pub use tx::{Transmit, TxQueue};

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests;
