//! Every byte that two ShadowMesh programs must agree on.
//!
//! In: byte slices from outside, hostile until parsed. Out: values that cannot be wrong in form, and byte vectors.
//! Nothing here decides, keeps state or does IO. All integers are little-endian, except inside STUN and IP, which
//! keep the order of their RFCs. `docs/protocol.md` is the same content for people; both change together.
//!
//! Invariants: a parser consumes its input to the last byte or fails; every length is bounded by [`limits`] before
//! anything is allocated; what `encode` writes, `parse` reads back equal.

pub mod channel;
pub mod codec;
pub mod control;
pub mod cookie;
pub mod fragment;
pub mod frame;
pub mod handshake;
mod ids;
pub mod lan;
pub mod limits;
pub mod relay;
pub mod relay_udp;
mod relay_url;
pub mod roster;
pub mod stun;
pub mod ticket;

pub use codec::WireError;
pub use ids::{IdParseError, NetId, NodeId, Pin};
pub use relay_url::{RelayUrl, RelayUrlError};
