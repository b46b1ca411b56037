//! The verified roster of a network and the rules by which nodes and relays accept a member.
//!
//! The root signs one head per version. The head fixes the leaves through a Merkle tree, so a node proves its place with
//! its leaf and a path of at most 12 hashes. Rules: versions only grow; who is in an older roster and not in ours is no
//! member; a revoked node never comes back; dates count with [`CLOCK_SKEW`] of leeway.

mod draft;
mod merkle;
mod proof;

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub use draft::{AdmitError, NewMember, RosterDraft, SignRosterError, default_pool};
use mesh_wire::roster::{
    HEAD_LEN, Head, Leaf, Name, Prefix, RosterParts, RosterSettings, UnixSeconds, overlay_ipv6, ula,
};
use mesh_wire::{NetId, NodeId, WireError};
pub use proof::{Admitted, HeadCache, MembershipProof, ProofError, ProofKind};

use crate::hash::sha256;
use crate::keys::{PublicIdentity, VerifyError};
use crate::label::Label;
use crate::signature::Signature;

/// Seconds by which the clocks of two machines may differ when the dates of a membership are compared.
pub const CLOCK_SKEW: u64 = 300;

/// A roster whose signature, hashes and rules were checked. Cloning shares the bytes.
#[derive(Clone)]
pub struct Roster {
    bytes: Arc<[u8]>,
    root: PublicIdentity,
    head: SignedHead,
    settings: RosterSettings,
    revoked: BTreeSet<NodeId>,
    leaves: Vec<Leaf>,
    /// Leaf hashes in the order of `leaves`.
    hashes: Vec<[u8; 32]>,
}

/// A head with the signature over it, which only [`SignedHead::verify`] checks.
#[derive(Clone)]
struct SignedHead {
    head: Head,
    bytes: [u8; HEAD_LEN],
    signature: Signature,
}

impl Roster {
    /// Reads and checks a whole roster: the root behind `net` must have signed it and every rule must hold.
    ///
    /// # Errors
    /// [`RosterError`] says what is wrong; nothing of such a roster may be used.
    pub fn verify(bytes: &[u8], net: NetId, now: UnixSeconds) -> Result<Self, RosterError> {
        let parts = RosterParts::parse(bytes)?;
        let root = PublicIdentity::parse(parts.root)?;
        let head = SignedHead::parse(parts.head, parts.signature)?;
        if root.net_id() != net || head.head.net != net {
            return Err(RosterError::OtherNetwork);
        }
        head.verify(&root)?;
        if head.head.issued_at > now.after(MAX_AHEAD) {
            return Err(RosterError::FromTheFuture);
        }

        let hashes: Vec<_> = parts.leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
        if merkle::root(&hashes) != head.head.merkle_root
            || settings_hash(parts.settings) != head.head.settings_hash
            || revoked_hash(&parts.revoked) != head.head.revoked_hash
        {
            return Err(RosterError::Content);
        }

        let settings = RosterSettings::parse(parts.settings)?;
        let leaves = parts.leaves.iter().map(|leaf| Leaf::parse(leaf)).collect::<Result<Vec<_>, _>>()?;
        let revoked = parts.revoked.iter().copied().collect();
        check_rules(&head.head, &settings, &revoked, &leaves)?;
        Ok(Self { bytes: bytes.into(), root, head, settings, revoked, leaves, hashes })
    }

    /// Tells whether this roster may replace `older`: same network, greater version and, one version on, its successor.
    ///
    /// # Errors
    /// [`UpdateError`]; the older roster then stays in force.
    pub fn check_replaces(&self, older: &Self) -> Result<(), UpdateError> {
        if self.net() != older.net() {
            return Err(UpdateError::OtherNetwork);
        }
        if self.version() == older.version() && self.head_hash() != older.head_hash() {
            return Err(UpdateError::Forked);
        }
        if self.version() <= older.version() {
            return Err(UpdateError::NotNewer);
        }
        if self.version() - older.version() == 1 && self.head.head.previous != older.head_hash() {
            return Err(UpdateError::Forked);
        }
        Ok(())
    }

    /// Returns the proof that a node stands in this roster, or `None` when it does not.
    #[must_use]
    pub fn proof(&self, node: &NodeId, kind: ProofKind) -> Option<MembershipProof> {
        let index = self.position(node)?;
        let path = merkle::path(index, &self.hashes);
        let index = u32::try_from(index).expect("a roster has at most 4096 nodes");
        let (head, root) = match kind {
            ProofKind::Bare => (None, None),
            ProofKind::WithHead => (Some(self.head.clone()), None),
            ProofKind::WithRoot => (Some(self.head.clone()), Some(self.root.clone())),
        };
        let leaf = self.leaves.get(usize::try_from(index).ok()?)?.clone();
        Some(MembershipProof { root, head, version: self.version(), index, leaf, path })
    }

    /// Decides whether the holder of the keys behind `node`, who showed `proof`, is a member.
    ///
    /// A proof of our version or an older one counts only as a pointer into our roster, whose leaf is used. A newer one
    /// must bring a head signed by our root and a path to it; [`Admitted::newer`] then tells the caller to ask for the
    /// newer roster.
    ///
    /// # Errors
    /// [`ProofError`] says why not.
    pub fn accepts(
        &self,
        node: &NodeId,
        proof: &MembershipProof,
        now: UnixSeconds,
        cache: &HeadCache,
    ) -> Result<Admitted, ProofError> {
        if proof.leaf.node_id != *node {
            return Err(ProofError::OtherNode);
        }
        if self.revoked.contains(node) {
            return Err(ProofError::Revoked);
        }
        let newer = proof.version > self.version();
        let leaf = if newer {
            let head = proof.head.as_ref().ok_or(ProofError::HeadMissing)?;
            proof.check_head(head, &self.root, cache)?;
            &proof.leaf
        } else {
            if proof.version == self.version() {
                proof.check_path(&self.head.head)?;
            }
            self.leaf(node).ok_or(ProofError::NotAMember)?
        };
        proof::check_dates(leaf, now)?;
        Ok(Admitted { leaf: leaf.clone(), newer })
    }

    /// Returns the encoded roster, which [`Roster::verify`] reads.
    #[must_use]
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the network.
    #[must_use]
    pub const fn net(&self) -> NetId {
        self.head.head.net
    }

    /// Returns the version, at least 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.head.head.version
    }

    /// Returns the public keys of the root.
    #[must_use]
    pub const fn root(&self) -> &PublicIdentity {
        &self.root
    }

    /// Returns when the root signed this version.
    #[must_use]
    pub const fn issued_at(&self) -> UnixSeconds {
        self.head.head.issued_at
    }

    /// Returns until when it is no concern that no newer version was heard of.
    #[must_use]
    pub const fn fresh_until(&self) -> UnixSeconds {
        self.head.head.fresh_until
    }

    /// Returns the settings of the network.
    #[must_use]
    pub const fn settings(&self) -> &RosterSettings {
        &self.settings
    }

    /// Returns the leaf of a node.
    #[must_use]
    pub fn leaf(&self, node: &NodeId) -> Option<&Leaf> {
        self.leaves.get(self.position(node)?)
    }

    /// Returns the leaf of the node with this name.
    #[must_use]
    pub fn leaf_by_name(&self, name: &str) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.name.as_str() == name)
    }

    /// Returns all leaves, sorted by node id.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Tells whether the node was expelled.
    #[must_use]
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.contains(node)
    }

    /// Returns the ids of all expelled nodes.
    #[must_use]
    pub const fn revoked(&self) -> &BTreeSet<NodeId> {
        &self.revoked
    }

    /// Returns SHA-256 of `"mesh/1 roster-head"` and the head, which names this version.
    #[must_use]
    pub fn head_hash(&self) -> [u8; 32] {
        sha256(&[b"mesh/1 roster-head", &self.head.bytes])
    }

    fn position(&self, node: &NodeId) -> Option<usize> {
        self.leaves.binary_search_by_key(node, |leaf| leaf.node_id).ok()
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster")
            .field("net", &self.net())
            .field("version", &self.version())
            .field("nodes", &self.leaves.len())
            .finish_non_exhaustive()
    }
}

impl SignedHead {
    fn parse(bytes: &[u8; HEAD_LEN], signature: &[u8]) -> Result<Self, WireError> {
        Ok(Self { head: Head::parse(bytes)?, bytes: *bytes, signature: Signature::parse(signature)? })
    }

    fn verify(&self, root: &PublicIdentity) -> Result<(), VerifyError> {
        root.verify(Label::RosterHead, &self.bytes, &self.signature)
    }
}

/// Bytes are not a roster of this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// The layout is wrong.
    #[error("the roster cannot be read")]
    Format(#[from] WireError),
    /// Another root made it.
    #[error("the roster belongs to another network")]
    OtherNetwork,
    /// The root did not sign the head.
    #[error("the roster is not signed by the root of the network")]
    Signature(#[from] VerifyError),
    /// The head is signed, the rest is not what it says.
    #[error("the content of the roster does not match its signed head")]
    Content,
    /// It was signed more than a day after the given time.
    #[error("the roster is dated more than a day ahead; check the clock of this machine")]
    FromTheFuture,
    /// The root signed what breaks the rules.
    #[error("the roster breaks a rule: {0}")]
    Rule(&'static str),
}

/// A roster may not replace the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It is of another network.
    #[error("the roster belongs to another network")]
    OtherNetwork,
    /// Its version is not greater.
    #[error("the roster is not newer than the one in force")]
    NotNewer,
    /// The root signed two different histories, as after restoring it from an old backup.
    #[error("the roster does not descend from the one in force")]
    Forked,
}

fn check_rules(
    head: &Head,
    settings: &RosterSettings,
    revoked: &BTreeSet<NodeId>,
    leaves: &[Leaf],
) -> Result<(), RosterError> {
    let rule = |holds: bool, text: &'static str| if holds { Ok(()) } else { Err(RosterError::Rule(text)) };
    rule((head.version == 1) == (head.previous == [0; 32]), "only the first version has no predecessor")?;
    rule(leaves.is_sorted_by(|a, b| a.node_id < b.node_id), "nodes are sorted by id and unique")?;
    let mut names: BTreeSet<&Name> = BTreeSet::new();
    let mut addresses: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut interfaces: BTreeSet<&[u8]> = BTreeSet::new();
    let mut prefixes: BTreeSet<Prefix> = BTreeSet::new();
    for leaf in leaves {
        rule(!revoked.contains(&leaf.node_id), "a revoked node is not a member")?;
        rule(leaf.serial <= head.version, "a leaf is not younger than its roster")?;
        rule(names.insert(&leaf.name), "names are unique")?;
        rule(settings.ipv4_pool.has_host(leaf.ipv4), "IPv4 addresses lie in the pool")?;
        rule(addresses.insert(leaf.ipv4), "IPv4 addresses are unique")?;
        rule(leaf.ipv6 == overlay_ipv6(head.net, leaf.node_id), "IPv6 addresses follow from the ids")?;
        rule(interfaces.insert(&leaf.node_id.0[..8]), "IPv6 addresses are unique")?;
        for prefix in &leaf.prefixes {
            rule(
                !is_reserved(prefix, head.net, settings),
                "prefixes lie outside the network's own addresses",
            )?;
            rule(prefixes.insert(*prefix), "prefixes are unique")?;
        }
    }
    Ok(())
}

/// Tells whether all of a prefix lies in the addresses that nodes get anyway.
fn is_reserved(prefix: &Prefix, net: NetId, settings: &RosterSettings) -> bool {
    ula(net).covers(prefix) || settings.ipv4_pool.prefix().covers(prefix)
}

fn settings_hash(encoded: &[u8]) -> [u8; 32] {
    sha256(&[b"mesh/1 roster-settings", encoded])
}

fn revoked_hash(ids: &[NodeId]) -> [u8; 32] {
    let mut parts: Vec<&[u8]> = vec![b"mesh/1 roster-revoked"];
    parts.extend(ids.iter().map(|id| id.0.as_slice()));
    sha256(&parts)
}

/// A day: clocks without a battery start in the past and jump when the network is up.
const MAX_AHEAD: u64 = 86_400;

#[cfg(test)]
mod tests;
