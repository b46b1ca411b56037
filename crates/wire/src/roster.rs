//! The signed roster of a network: layouts of its parts and of the proof that a node stands in it.
//!
//! A roster file is `format 1 | root keys 2624 | head 189 | signature 4691 | settings | revoked ids | leaves`; see
//! [`RosterParts`]. The head fixes everything else: it holds the Merkle root over the leaves (RFC 9162, section 2.1,
//! SHA-256) and the hashes of settings and revoked ids. Only form is checked here. Signature, hashes and the rules that
//! span several parts are checked by the identity crate.
//!
//! Every value has exactly one encoding: lists are sorted and free of duplicates, addresses have no host bits, names
//! are in lower case.

mod address;
mod head;
mod leaf;
mod name;
mod parts;
mod settings;

use std::fmt;

pub use address::{AddressError, Ipv4Pool, Prefix, ULA_LEN, overlay_ipv6, ula};
pub use head::{HEAD_LEN, Head};
pub use leaf::{LEAF_MAX, Leaf, Roles};
pub use name::{DnsLabel, Group, Name, NameError};
pub use parts::{PATH_MAX, PROOF_MAX, ProofParts, RosterParts};
pub use settings::{Link, MTU_MAX, MTU_MIN, RosterSettings, SETTINGS_MAX};

/// A point in time: whole seconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// Returns the point in time `seconds` later, or the last one there is.
    #[must_use]
    pub const fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Returns the point in time `seconds` earlier, or the first one there is.
    #[must_use]
    pub const fn before(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Version of all layouts in this module.
const FORMAT: u8 = 1;

#[cfg(test)]
mod tests;
