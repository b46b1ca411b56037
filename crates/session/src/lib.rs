//! Post-quantum handshake and sealed frames, without sockets, addresses, paths or clocks.
//!
//! In: bytes from a carrier, keys, randomness. Out: bytes for a carrier and, at the end of a handshake, a [`Session`]
//! that seals and opens frames. `docs/protocol.md` fixes every byte.
//!
//! Map: [`handshake`] is SIGMA-R in four messages, one type per state; [`Session`] holds the keys of one established
//! session, its send counters and its replay windows; [`PqProvider`] and [`Aead`] are the seams to the
//! cryptographic libraries.
//!
//! Invariants: a state that fails to take a message is unchanged, so a forged message costs nothing but its own
//! check; no key leaves this crate but to the libraries that compute with it; a counter never repeats under a key;
//! nothing a peer sends panics.

pub mod aead;
pub mod dh;
pub mod handshake;
pub mod kdf;
pub mod pq;
mod rekey;
mod replay;
mod secret;
mod session;

#[cfg(test)]
mod erasure;

pub use aead::{Aead, AeadKind, AeadProvider};
pub use dh::{DhError, EphemeralSecret, ZeroSharedSecret};
pub use pq::{KemSecret, PqError, PqProvider, ProviderKind, SharedSecret};
pub use rekey::{Rekey, RekeyError};
pub use replay::ReplayWindow;
pub use secret::Secret;
pub use session::{
    LaneOpener, LaneSealer, Lanes, OpenError, Opened, SealError, Session, wipe_after_sessions,
};
