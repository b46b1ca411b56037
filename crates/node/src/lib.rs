//! The state machines of one node: which peers there are, which session reaches them, which packet goes where.
//!
//! Two machines, each for a thread of its own. [`Node`] is the packet path. In: packets from the device
//! ([`Node::handle_packet`]), sealed frames from a carrier ([`Node::handle_frame`]), what the relay says of a peer
//! ([`Node::handle_presence`]), a new roster, the passing of time. Out: datagrams appended to a [`TxQueue`], payloads for
//! the device and for QUIC, [`NodeEvent`]s, [`Order`]s and the next deadline. [`Handshaker`] is everything else that
//! carriers bring: it takes handshake messages and orders and gives [`Outcome`]s. [`Together`] joins the two on one thread.
//!
//! Map: `outbound.rs` and `inbound.rs` are a packet's two ways, one step a call; `peer.rs` keeps one peer's sessions and
//! queue; `contact.rs` asks for handshakes and takes what they lead to; `mix.rs` brings the QUIC exporter into the keys;
//! `rekey.rs` replaces keys in use; `early.rs` keeps frames whose keys are on their way; `timers.rs` is what happens when
//! nothing does; `routes.rs` tells whom an address belongs to; `segment.rs` is the Ethernet switch of TAP mode;
//! `handshaker.rs` and the files below it are handshakes.
//!
//! Invariants: no clock, socket or randomness inside; every table and queue is bounded; whatever is dropped has a
//! [`DropReason`]; nothing a peer sends is an error of the node.

mod agent;
mod beyond;
mod bucket;
mod by_relay;
mod contact;
mod counters;
mod door;
mod early;
mod echo;
mod handshaker;
mod hold;
mod inbound;
mod index;
mod lanes;
mod mix;
mod node;
mod offload;
mod order;
mod outbound;
mod path;
mod paths;
mod peer;
mod reach;
mod rekey;
mod report;
mod routes;
mod segment;
mod snapshot;
mod timers;
mod together;
mod tx;
mod window;
mod worker;

pub use agent::Finding;
pub use counters::{Counters, DropReason};
pub use echo::{Echo, NoPath, Via};
pub use handshaker::{Handshaker, HandshakerConfig};
pub use index::{Number, Numbers};
pub use lanes::{News, Stray, ToNode};
pub use node::{Delivery, LateDelivery, Link, Node, NodeConfig, NodeEvent, Now, Random};
pub use order::{Establishment, Order, Outcome};
pub use path::Path;
pub use paths::ChangeReason;
pub use rekey::Timings;
pub use report::Report;
pub use routes::Routes;
pub use segment::mac_of;
pub use snapshot::{
    BirthdaySnapshot, ChangeSnapshot, PeerPhase, PeerSnapshot, RemoteSnapshot, SessionSnapshot, Snapshot,
};
pub use together::Together;
pub use tx::{BATCH, By, Transmit, TxQueue};
pub use worker::Worker;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests;
