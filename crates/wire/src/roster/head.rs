//! What the root signs.

use crate::codec::{Put, Reader};
use crate::limits::ROSTER_NODES;
use crate::roster::{FORMAT, UnixSeconds};
use crate::{NetId, WireError};

/// Bytes of an encoded head.
pub const HEAD_LEN: usize = 1 + 32 + 8 + 32 + 8 + 8 + 4 + 3 * 32;

/// The head of a roster: `format 1 | net 32 | version u64 | previous 32 | issued u64 | fresh until u64 | leaves u32 |
/// Merkle root 32 | settings hash 32 | revoked hash 32`. All hashes are SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The network.
    pub net: NetId,
    /// Version of the roster, from 1, growing.
    pub version: u64,
    /// Hash of the head before this one; all zero in version 1.
    pub previous: [u8; 32],
    /// When it was signed.
    pub issued_at: UnixSeconds,
    /// Until when a node need not worry that it hears of no newer one.
    pub fresh_until: UnixSeconds,
    /// Number of leaves, at least 1.
    pub leaf_count: u32,
    /// Merkle tree hash over the encoded leaves (RFC 9162, section 2.1.1).
    pub merkle_root: [u8; 32],
    /// Hash of the encoded settings.
    pub settings_hash: [u8; 32],
    /// Hash of the revoked ids.
    pub revoked_hash: [u8; 32],
}

impl Head {
    /// Writes the head.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.put_u8(FORMAT);
        out.put(&self.net.0);
        out.put_u64(self.version);
        out.put(&self.previous);
        out.put_u64(self.issued_at.0);
        out.put_u64(self.fresh_until.0);
        out.put_u32(self.leaf_count);
        out.put(&self.merkle_root);
        out.put(&self.settings_hash);
        out.put(&self.revoked_hash);
        out.try_into().expect("the fields above have the length of a head")
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`WireError`] names the field that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            FORMAT => {}
            other => return Err(WireError::Version(other)),
        }
        let head = Self {
            net: NetId(reader.array()?),
            version: reader.u64()?,
            previous: reader.array()?,
            issued_at: UnixSeconds(reader.u64()?),
            fresh_until: UnixSeconds(reader.u64()?),
            leaf_count: reader.u32()?,
            merkle_root: reader.array()?,
            settings_hash: reader.array()?,
            revoked_hash: reader.array()?,
        };
        reader.finish()?;
        let count = usize::try_from(head.leaf_count).map_err(|_| WireError::TooLong("list of nodes"))?;
        if count > ROSTER_NODES {
            return Err(WireError::TooLong("list of nodes"));
        }
        if count == 0 {
            return Err(WireError::Invalid("list of nodes"));
        }
        if head.version == 0 {
            return Err(WireError::Invalid("roster version"));
        }
        if head.fresh_until < head.issued_at {
            return Err(WireError::Invalid("dates"));
        }
        Ok(head)
    }
}
