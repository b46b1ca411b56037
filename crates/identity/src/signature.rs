//! The composite signature.

use std::fmt;

use mesh_wire::WireError;
use mesh_wire::limits::{ED25519_SIGNATURE, MLDSA_SIGNATURE, SIGNATURE};

/// A composite signature: 4627 bytes of ML-DSA-87 (FIPS 204), then 64 bytes of Ed25519 (RFC 8032).
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Box<[u8; SIGNATURE]>);

impl Signature {
    /// Takes a signature from outside; only its length is checked here.
    ///
    /// # Errors
    /// [`WireError::Invalid`] when the input is not 4691 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let bytes: Box<[u8]> = Box::from(bytes);
        bytes.try_into().map(Self).map_err(|_| WireError::Invalid("signature"))
    }

    /// Returns the 4691 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SIGNATURE] {
        &self.0
    }

    pub(crate) fn join(mldsa: &[u8; MLDSA_SIGNATURE], ed25519: &[u8; ED25519_SIGNATURE]) -> Self {
        let mut bytes = Box::new([0; SIGNATURE]);
        bytes[..MLDSA_SIGNATURE].copy_from_slice(mldsa);
        bytes[MLDSA_SIGNATURE..].copy_from_slice(ed25519);
        Self(bytes)
    }

    pub(crate) fn mldsa(&self) -> &[u8; MLDSA_SIGNATURE] {
        self.0.first_chunk().expect("the composite is longer than its first part")
    }

    pub(crate) fn ed25519(&self) -> &[u8; ED25519_SIGNATURE] {
        self.0.last_chunk().expect("the composite is longer than its last part")
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({SIGNATURE} bytes)")
    }
}
