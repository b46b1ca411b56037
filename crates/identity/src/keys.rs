//! Composite keys: ML-DSA-87 and Ed25519 together.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use mesh_wire::limits::{ED25519_PUBLIC, ED25519_SIGNATURE, MLDSA_PUBLIC, PUBLIC_IDENTITY};
use mesh_wire::{NetId, NodeId, WireError};
use zeroize::Zeroizing;

use crate::erase::erased;
use crate::hash::sha512;
use crate::label::Label;
use crate::mldsa::{AwsLc, MlDsa87, MlDsaError, MlDsaSigner, Pqcrypto};
use crate::signature::Signature;

/// The secret half of a node or of the root of a network.
///
/// Holds the two 32-byte seeds; they are wiped on drop and never printed.
pub struct Identity {
    seeds: Box<Zeroizing<[u8; 64]>>,
    public: PublicIdentity,
    ed25519: Ed25519KeyPair,
    mldsa: &'static dyn MlDsa87,
    /// Expanded at the first signature, so that choosing an implementation costs and risks nothing.
    signer: OnceLock<Box<dyn MlDsaSigner>>,
}

impl Identity {
    /// Makes an identity from fresh random seeds.
    ///
    /// # Errors
    /// [`KeyError`] when the system has no randomness or key expansion fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seeds = Box::new(Zeroizing::new([0; 64]));
        rand::fill(seeds.as_mut_slice()).map_err(|_| KeyError::Randomness)?;
        Self::from_joined(seeds)
    }

    /// Makes the identity that belongs to an ML-DSA-87 seed (FIPS 204) and an Ed25519 seed (RFC 8032).
    ///
    /// # Errors
    /// [`KeyError`] when key expansion fails.
    pub fn from_seeds(mldsa: &[u8; 32], ed25519: &[u8; 32]) -> Result<Self, KeyError> {
        let mut seeds = Box::new(Zeroizing::new([0; 64]));
        seeds[..32].copy_from_slice(mldsa);
        seeds[32..].copy_from_slice(ed25519);
        Self::from_joined(seeds)
    }

    /// Signs with another implementation of ML-DSA-87 than the default AWS-LC.
    #[must_use]
    pub fn with_signer(self, signer: &'static dyn MlDsa87) -> Self {
        Self { mldsa: signer, signer: OnceLock::new(), ..self }
    }

    /// Returns the public half.
    #[must_use]
    pub const fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// Returns the id of the node that holds these keys.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.public.node_id()
    }

    /// Returns the id of the network whose root holds these keys.
    #[must_use]
    pub fn net_id(&self) -> NetId {
        self.public.net_id()
    }

    /// Signs `message` under `label` with both algorithms.
    ///
    /// # Errors
    /// [`SignError`] when an implementation fails; the input has no part in that.
    pub fn sign(&self, label: Label, message: &[u8]) -> Result<Signature, SignError> {
        let bytes = label.signed_bytes(message);
        erased(|| {
            let mldsa = self.signer()?.sign(&bytes)?;
            let ed25519 = self.ed25519.try_sign(&bytes).map_err(|_| SignError::Ed25519)?;
            let ed25519: &[u8; ED25519_SIGNATURE] =
                ed25519.as_ref().try_into().map_err(|_| SignError::Ed25519)?;
            Ok(Signature::join(&mldsa, ed25519))
        })
    }

    pub(crate) fn seeds(&self) -> &[u8; 64] {
        &self.seeds
    }

    pub(crate) fn from_joined(seeds: Box<Zeroizing<[u8; 64]>>) -> Result<Self, KeyError> {
        let (mldsa, ed25519) = seeds.split_at(32);
        let mldsa: &[u8; 32] = mldsa.try_into().expect("the first half of 64 bytes is 32 bytes");
        let (signer, ed25519) = erased(|| {
            let signer = AwsLc.signer(mldsa)?;
            let ed25519 = Ed25519KeyPair::from_seed_unchecked(ed25519).map_err(|_| KeyError::Ed25519)?;
            Ok::<_, KeyError>((signer, ed25519))
        })?;
        let mut bytes = [0; PUBLIC_IDENTITY];
        bytes[..MLDSA_PUBLIC].copy_from_slice(signer.public().as_slice());
        bytes[MLDSA_PUBLIC..].copy_from_slice(ed25519.public_key().as_ref());
        Ok(Self {
            public: PublicIdentity::new(bytes),
            ed25519,
            mldsa: &AwsLc,
            signer: OnceLock::from(signer),
            seeds,
        })
    }

    fn signer(&self) -> Result<&dyn MlDsaSigner, MlDsaError> {
        if let Some(signer) = self.signer.get() {
            return Ok(signer.as_ref());
        }
        let seed = self.seeds.first_chunk().expect("64 bytes begin with 32 bytes");
        let signer = self.mldsa.signer(seed)?;
        Ok(self.signer.get_or_init(|| signer).as_ref())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id())
            .field("mldsa", &self.mldsa.name())
            .field("seeds", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// The public half: 2592 bytes of ML-DSA-87, then 32 bytes of Ed25519. Cloning shares the bytes.
#[derive(Clone)]
pub struct PublicIdentity {
    bytes: Arc<[u8; PUBLIC_IDENTITY]>,
    node_id: NodeId,
}

impl PublicIdentity {
    /// Takes public keys from outside.
    ///
    /// Every string of this length names an identity; whether somebody can sign for it shows only at
    /// [`PublicIdentity::verify`].
    ///
    /// # Errors
    /// [`WireError::Invalid`] when the input is not 2624 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        bytes.try_into().map(Self::new).map_err(|_| WireError::Invalid("public keys"))
    }

    /// Returns the 2624 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_IDENTITY] {
        &self.bytes
    }

    /// Returns `SHA-512("mesh/1 node-id" || u32 2592 || ML-DSA key || Ed25519 key)`, its first 32 bytes.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Returns the same hash as [`PublicIdentity::node_id`] under the label `"mesh/1 net-id"`.
    #[must_use]
    pub fn net_id(&self) -> NetId {
        NetId(id_hash(b"mesh/1 net-id", &self.bytes))
    }

    /// Verifies a composite signature: Ed25519 and two implementations of ML-DSA-87 must all accept it.
    ///
    /// # Errors
    /// [`VerifyError`] names the first that did not.
    pub fn verify(&self, label: Label, message: &[u8], signature: &Signature) -> Result<(), VerifyError> {
        let bytes = label.signed_bytes(message);
        UnparsedPublicKey::new(&ED25519, self.ed25519())
            .verify(&bytes, signature.ed25519())
            .map_err(|_| VerifyError::Ed25519)?;
        AwsLc.verify(self.mldsa(), &bytes, signature.mldsa())?;
        Pqcrypto.verify(self.mldsa(), &bytes, signature.mldsa())?;
        Ok(())
    }

    fn new(bytes: [u8; PUBLIC_IDENTITY]) -> Self {
        let node_id = NodeId(id_hash(b"mesh/1 node-id", &bytes));
        Self { bytes: Arc::new(bytes), node_id }
    }

    fn mldsa(&self) -> &[u8; MLDSA_PUBLIC] {
        self.bytes.first_chunk().expect("the composite is longer than its first part")
    }

    fn ed25519(&self) -> &[u8; ED25519_PUBLIC] {
        self.bytes.last_chunk().expect("the composite is longer than its last part")
    }
}

impl PartialEq for PublicIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicIdentity {}

impl Hash for PublicIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.node_id.hash(state);
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({})", self.node_id)
    }
}

/// An identity could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Randomness,
    /// The Ed25519 key could not be made.
    #[error("the Ed25519 key could not be made from its seed")]
    Ed25519,
    /// The ML-DSA-87 key could not be made.
    #[error("the ML-DSA-87 key could not be made from its seed")]
    MlDsa(#[from] MlDsaError),
}

/// A signature could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Ed25519 failed.
    #[error("Ed25519 signing failed")]
    Ed25519,
    /// ML-DSA-87 failed.
    #[error("ML-DSA-87 signing failed")]
    MlDsa(#[from] MlDsaError),
}

/// A composite signature is not one of this identity over this label and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The Ed25519 part is wrong.
    #[error("the Ed25519 part of the signature is wrong")]
    Ed25519,
    /// The ML-DSA-87 part is wrong.
    #[error("the ML-DSA-87 part of the signature is wrong")]
    MlDsa(#[from] MlDsaError),
}

fn id_hash(label: &[u8], keys: &[u8; PUBLIC_IDENTITY]) -> [u8; 32] {
    let length = u32::try_from(MLDSA_PUBLIC).expect("2592 fits 32 bits").to_le_bytes();
    let hash = sha512(&[label, &length, keys]);
    *hash.first_chunk().expect("64 bytes begin with 32 bytes")
}

#[cfg(test)]
mod tests;
