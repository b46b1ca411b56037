//! The proof that a node stands in a roster.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_wire::roster::{Head, Leaf, ProofParts, UnixSeconds};
use mesh_wire::{NetId, NodeId, WireError};

use super::{CLOCK_SKEW, SignedHead, merkle};
use crate::hash::sha256;
use crate::keys::{PublicIdentity, VerifyError};

/// A leaf with its Merkle path, optionally with the signed head and the root keys.
///
/// It says who a node is in a network. That the node is the one at the other end shows only by its signature.
#[derive(Clone)]
pub struct MembershipProof {
    pub(super) root: Option<PublicIdentity>,
    pub(super) head: Option<SignedHead>,
    pub(super) version: u64,
    pub(super) index: u32,
    pub(super) leaf: Leaf,
    pub(super) path: Vec<[u8; 32]>,
}

/// How much a proof brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofKind {
    /// Leaf and path, about 500 bytes: for a peer whose roster is as new as ours.
    Bare,
    /// With the signed head, about 5.3 kB: for a peer whose roster is older.
    WithHead,
    /// With signed head and root keys, about 8 kB: for a relay, which knows only the network id.
    WithRoot,
}

/// What an accepted proof gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The leaf that counts: ours when we have the node, else the proven one.
    pub leaf: Leaf,
    /// The peer has a newer roster than we.
    pub newer: bool,
}

impl MembershipProof {
    /// Reads a proof; nothing is verified yet.
    ///
    /// # Errors
    /// [`WireError`] names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let parts = ProofParts::parse(bytes)?;
        let root = parts.root.map(|root| PublicIdentity::parse(root)).transpose()?;
        let head = parts.head.map(|(head, signature)| SignedHead::parse(head, signature)).transpose()?;
        if head.as_ref().is_some_and(|head| head.head.version != parts.version) {
            return Err(WireError::Invalid("roster version"));
        }
        let leaf = Leaf::parse(parts.leaf)?;
        Ok(Self { root, head, version: parts.version, index: parts.index, leaf, path: parts.path })
    }

    /// Writes the proof.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        ProofParts {
            root: self.root.as_ref().map(PublicIdentity::as_bytes),
            head: self.head.as_ref().map(|head| (&head.bytes, head.signature.as_bytes())),
            version: self.version,
            index: self.index,
            leaf: &self.leaf.encode(),
            path: self.path.clone(),
        }
        .encode()
    }

    /// Returns the version of the roster that the proof is about, as claimed.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the node that the proof is about, as claimed.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.leaf.node_id
    }

    /// Returns how much the proof brings along.
    #[must_use]
    pub const fn kind(&self) -> ProofKind {
        match (&self.head, &self.root) {
            (None, _) => ProofKind::Bare,
            (Some(_), None) => ProofKind::WithHead,
            (Some(_), Some(_)) => ProofKind::WithRoot,
        }
    }

    /// Verifies a proof of kind [`ProofKind::WithRoot`] with nothing but the network id, as a relay does.
    ///
    /// Whether a newer version exists, in which the node no longer stands, only the caller can know.
    ///
    /// # Errors
    /// [`ProofError`] says why the node is no member of the network.
    pub fn verify(
        &self,
        node: &NodeId,
        net: NetId,
        now: UnixSeconds,
        cache: &HeadCache,
    ) -> Result<&Leaf, ProofError> {
        if self.leaf.node_id != *node {
            return Err(ProofError::OtherNode);
        }
        let head = self.head.as_ref().ok_or(ProofError::HeadMissing)?;
        let root = self.root.as_ref().ok_or(ProofError::RootMissing)?;
        if root.net_id() != net {
            return Err(ProofError::OtherNetwork);
        }
        self.check_head(head, root, cache)?;
        check_dates(&self.leaf, now)?;
        Ok(&self.leaf)
    }

    pub(super) fn check_head(
        &self,
        head: &SignedHead,
        root: &PublicIdentity,
        cache: &HeadCache,
    ) -> Result<(), ProofError> {
        if head.head.net != root.net_id() {
            return Err(ProofError::OtherNetwork);
        }
        // The path is checked first: it costs a few hashes, the signature a quarter of a millisecond.
        self.check_path(&head.head)?;
        cache.verify(root, head)?;
        Ok(())
    }

    pub(super) fn check_path(&self, head: &Head) -> Result<(), ProofError> {
        let hash = merkle::leaf_hash(&self.leaf.encode());
        let root = merkle::root_of(self.index, head.leaf_count, hash, &self.path);
        if root == Some(head.merkle_root) { Ok(()) } else { Err(ProofError::Path) }
    }
}

impl fmt::Debug for MembershipProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipProof")
            .field("node_id", &self.leaf.node_id)
            .field("version", &self.version)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// Remembers heads whose signature was verified, so that each is verified once and not once per member.
///
/// Holds the hashes of the last 64 heads with root keys and signature; the oldest makes room.
#[derive(Debug, Default)]
pub struct HeadCache(Mutex<VecDeque<[u8; 32]>>);

impl HeadCache {
    /// Makes an empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many heads it remembers, at most 64.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Tells whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<[u8; 32]>> {
        // A panic elsewhere leaves the list as whole as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self, root: &PublicIdentity, head: &SignedHead) -> Result<(), VerifyError> {
        let hash = sha256(&[root.as_bytes(), &head.bytes, head.signature.as_bytes()]);
        if self.known().contains(&hash) {
            return Ok(());
        }
        head.verify(root)?;
        let mut known = self.known();
        if known.len() == CACHED_HEADS {
            known.pop_front();
        }
        known.push_back(hash);
        Ok(())
    }
}

/// A proof does not make its holder a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The proof is about another node than the one that shows it.
    #[error("the membership proof belongs to another node")]
    OtherNode,
    /// The proof is about another network.
    #[error("the membership proof belongs to another network")]
    OtherNetwork,
    /// Our roster, as new or newer, does not have the node.
    #[error("the node is not a member of the network")]
    NotAMember,
    /// The node was expelled.
    #[error("the node was expelled from the network")]
    Revoked,
    /// The membership has not begun.
    #[error("the membership has not begun; compare the clocks of both machines")]
    NotYetValid,
    /// The membership has ended.
    #[error("the membership has ended; the coordinator renews it")]
    Expired,
    /// The proof is about a newer roster than ours and brings no head.
    #[error("the membership proof is newer than our roster and brings no signed head")]
    HeadMissing,
    /// The proof brings no root keys.
    #[error("the membership proof brings no root keys")]
    RootMissing,
    /// The root did not sign the head.
    #[error("the head in the membership proof is not signed by the root of the network")]
    Signature(#[from] VerifyError),
    /// The leaf is not the one that the head fixes at this place.
    #[error("the membership proof does not lead to the signed head")]
    Path,
}

pub(super) fn check_dates(leaf: &Leaf, now: UnixSeconds) -> Result<(), ProofError> {
    if now.after(CLOCK_SKEW) < leaf.not_before {
        return Err(ProofError::NotYetValid);
    }
    if now.before(CLOCK_SKEW) > leaf.not_after {
        return Err(ProofError::Expired);
    }
    Ok(())
}

/// Enough for the networks of a busy relay with one version each; a miss costs a quarter of a millisecond.
const CACHED_HEADS: usize = 64;
