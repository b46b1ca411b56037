//! Who a node is and who belongs to a network.
//!
//! In: key seeds, bytes from peers and files, the time as an argument. Out: identities that sign, identities that
//! were verified, key files, the verified roster, membership proofs and tickets. Layouts are those of [`mesh_wire`].
//!
//! Invariants: a signature is always composite (ML-DSA-87 and Ed25519 over the same bytes, [`Label`] first) and counts
//! only when both algorithms and both ML-DSA implementations accept it; a [`Roster`] exists only when its head was
//! signed by the root whose hash is the network id; secret seeds are wiped on drop and never printed. Nothing here
//! reads a clock or speaks to a network.

mod erase;
mod hash;
mod key_file;
mod keys;
mod label;
mod mldsa;
mod roster;
mod signature;
mod ticket;

pub use erase::{erased, wipe_stack};
pub use hash::sha512;
pub use key_file::{KEY_FILE_LEN, KeyFileError};
pub use keys::{Identity, KeyError, PublicIdentity, SignError, VerifyError};
pub use label::Label;
pub use mesh_wire::roster::UnixSeconds;
pub use mldsa::{AwsLc, MlDsa87, MlDsaError, MlDsaSigner, Pqcrypto};
pub use roster::{
    AdmitError, Admitted, CLOCK_SKEW, HeadCache, MembershipProof, NewMember, ProofError, ProofKind, Roster,
    RosterDraft, RosterError, SignRosterError, UpdateError, default_pool,
};
pub use signature::Signature;
pub use ticket::{Ticket, TicketError, TicketSecret};
