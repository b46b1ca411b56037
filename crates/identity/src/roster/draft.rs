//! The next roster, as the coordinator prepares it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use mesh_wire::limits::{GROUPS, PREFIXES, REVOKED, ROSTER, ROSTER_NODES};
use mesh_wire::roster::{
    Group, Head, Ipv4Pool, Leaf, Name, Prefix, Roles, RosterParts, RosterSettings, UnixSeconds, overlay_ipv6,
};
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};

use super::{Roster, RosterError, is_reserved, merkle, revoked_hash, settings_hash};
use crate::keys::{Identity, PublicIdentity, SignError};
use crate::label::Label;

/// A roster that is being changed. It counts only once the root has signed it.
#[derive(Debug, Clone)]
pub struct RosterDraft {
    root: PublicIdentity,
    /// Version of the roster that [`RosterDraft::sign`] makes.
    version: u64,
    previous: [u8; 32],
    not_before: UnixSeconds,
    settings: RosterSettings,
    revoked: BTreeSet<NodeId>,
    leaves: BTreeMap<NodeId, Leaf>,
}

/// What the coordinator decides about a new node; its addresses follow.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// Its name.
    pub name: Name,
    /// Its groups.
    pub groups: BTreeSet<Group>,
    /// Inner prefixes beside its own addresses.
    pub prefixes: BTreeSet<Prefix>,
    /// First second of the membership.
    pub not_before: UnixSeconds,
    /// Last second of the membership.
    pub not_after: UnixSeconds,
}

impl RosterDraft {
    /// Begins the roster of a new network, version 1, with the coordinator as its first node.
    ///
    /// # Errors
    /// [`AdmitError`] as for any node.
    pub fn new(
        root: &PublicIdentity,
        settings: RosterSettings,
        coordinator: NodeId,
        member: NewMember,
    ) -> Result<Self, AdmitError> {
        let mut draft = Self {
            root: root.clone(),
            version: 1,
            previous: [0; 32],
            not_before: UnixSeconds(0),
            settings,
            revoked: BTreeSet::new(),
            leaves: BTreeMap::new(),
        };
        draft.insert(coordinator, member, Roles::COORDINATOR)?;
        Ok(draft)
    }

    /// Begins the roster that follows `roster`.
    #[must_use]
    pub fn from_roster(roster: &Roster) -> Self {
        Self {
            root: roster.root().clone(),
            version: roster.version() + 1,
            previous: roster.head_hash(),
            not_before: roster.issued_at(),
            settings: roster.settings().clone(),
            revoked: roster.revoked.clone(),
            leaves: roster.leaves().iter().map(|leaf| (leaf.node_id, leaf.clone())).collect(),
        }
    }

    /// Admits a node and gives it the lowest free IPv4 address of the pool.
    ///
    /// # Errors
    /// [`AdmitError`] says why not; the draft is then unchanged.
    pub fn admit(&mut self, node: NodeId, member: NewMember) -> Result<&Leaf, AdmitError> {
        self.insert(node, member, Roles::NONE)
    }

    /// Sets the dates of a membership; tells whether the node is a member.
    ///
    /// # Errors
    /// [`AdmitError::Dates`] when it would end before it begins.
    pub fn set_dates(
        &mut self,
        node: &NodeId,
        not_before: UnixSeconds,
        not_after: UnixSeconds,
    ) -> Result<bool, AdmitError> {
        if not_after < not_before {
            return Err(AdmitError::Dates);
        }
        let Some(leaf) = self.leaves.get_mut(node) else { return Ok(false) };
        (leaf.not_before, leaf.not_after, leaf.serial) = (not_before, not_after, self.version);
        Ok(true)
    }

    /// Takes a node out; it may be admitted again. Tells whether it was a member.
    pub fn remove(&mut self, node: &NodeId) -> bool {
        self.leaves.remove(node).is_some()
    }

    /// Expels a node for good: no later roster may have its id. Tells whether it was a member.
    ///
    /// # Errors
    /// [`AdmitError::TooManyRevoked`] when the list is full; the node is then still a member.
    pub fn revoke(&mut self, node: &NodeId) -> Result<bool, AdmitError> {
        if self.revoked.len() >= REVOKED && !self.revoked.contains(node) {
            return Err(AdmitError::TooManyRevoked);
        }
        self.revoked.insert(*node);
        Ok(self.remove(node))
    }

    /// Replaces the relays that the roster announces.
    pub fn set_relays(&mut self, relays: Vec<(RelayUrl, Pin)>) {
        self.settings.relays = relays;
    }

    /// Returns the settings as they will be signed.
    #[must_use]
    pub const fn settings(&self) -> &RosterSettings {
        &self.settings
    }

    /// Returns the leaf of a node.
    #[must_use]
    pub fn leaf(&self, node: &NodeId) -> Option<&Leaf> {
        self.leaves.get(node)
    }

    /// Returns the version that [`RosterDraft::sign`] makes.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Signs the draft and checks the result by the rules that every node applies.
    ///
    /// `fresh_for` is how many seconds a node need not worry that it hears of no newer version.
    ///
    /// # Errors
    /// [`SignRosterError`] says what stands against it.
    pub fn sign(&self, root: &Identity, now: UnixSeconds, fresh_for: u64) -> Result<Roster, SignRosterError> {
        if *root.public() != self.root {
            return Err(SignRosterError::WrongRoot);
        }
        let leaves: Vec<Vec<u8>> = self.leaves.values().map(Leaf::encode).collect();
        let hashes: Vec<_> = leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
        let settings = self.settings.encode();
        let revoked: Vec<NodeId> = self.revoked.iter().copied().collect();
        // A clock that was set back must not make a roster look older than the one that it follows.
        let issued_at = now.max(self.not_before);
        let head = Head {
            net: root.net_id(),
            version: self.version,
            previous: self.previous,
            issued_at,
            fresh_until: issued_at.after(fresh_for),
            leaf_count: u32::try_from(leaves.len()).map_err(|_| SignRosterError::TooLarge)?,
            merkle_root: merkle::root(&hashes),
            settings_hash: settings_hash(&settings),
            revoked_hash: revoked_hash(&revoked),
        }
        .encode();
        let signature = root.sign(Label::RosterHead, &head)?;
        let bytes = RosterParts {
            root: root.public().as_bytes(),
            head: &head,
            signature: signature.as_bytes(),
            settings: &settings,
            revoked,
            leaves: leaves.iter().map(Vec::as_slice).collect(),
        }
        .encode();
        if bytes.len() > ROSTER {
            return Err(SignRosterError::TooLarge);
        }
        Ok(Roster::verify(&bytes, root.net_id(), issued_at)?)
    }

    fn insert(&mut self, node: NodeId, member: NewMember, roles: Roles) -> Result<&Leaf, AdmitError> {
        let NewMember { name, groups, prefixes, not_before, not_after } = member;
        let net = self.root.net_id();
        if self.revoked.contains(&node) {
            return Err(AdmitError::Revoked);
        }
        if self.leaves.contains_key(&node) {
            return Err(AdmitError::AlreadyMember);
        }
        if self.leaves.values().any(|leaf| leaf.name == name) {
            return Err(AdmitError::NameTaken(name));
        }
        if self.leaves.len() >= ROSTER_NODES {
            return Err(AdmitError::TooManyNodes);
        }
        if groups.len() > GROUPS {
            return Err(AdmitError::TooManyGroups);
        }
        if prefixes.len() > PREFIXES {
            return Err(AdmitError::TooManyPrefixes);
        }
        if not_after < not_before {
            return Err(AdmitError::Dates);
        }
        for prefix in &prefixes {
            let taken = self.leaves.values().any(|leaf| leaf.prefixes.contains(prefix));
            if taken || is_reserved(prefix, net, &self.settings) {
                return Err(AdmitError::PrefixTaken(*prefix));
            }
        }
        let ipv6 = overlay_ipv6(net, node);
        if self.leaves.values().any(|leaf| leaf.ipv6 == ipv6) {
            return Err(AdmitError::AddressClash);
        }
        let ipv4 = self.free_ipv4().ok_or(AdmitError::PoolExhausted)?;
        let serial = self.version;
        let leaf =
            Leaf { serial, node_id: node, name, ipv4, ipv6, prefixes, groups, roles, not_before, not_after };
        Ok(self.leaves.entry(node).or_insert(leaf))
    }

    fn free_ipv4(&self) -> Option<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.leaves.values().map(|leaf| leaf.ipv4).collect();
        self.settings.ipv4_pool.hosts().find(|address| !taken.contains(address))
    }
}

/// Returns a pool for a network whose creator named none: a /20 inside 100.64.0.0/10 (RFC 6598) that follows from the id.
///
/// When it collides with a route of the machine, the caller goes on with the next `attempt`; 1024 attempts meet every /20
/// once.
#[must_use]
pub fn default_pool(net: NetId, attempt: u32) -> Ipv4Pool {
    let [.., a, b] = net.0;
    let start = u32::from(u16::from_le_bytes([a, b]));
    // An odd step visits all 1024 ranges and jumps out of a neighbourhood that is in use.
    let index = start.wrapping_add(attempt.wrapping_mul(397)) % 1024;
    let network = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + index * 4096;
    Ipv4Pool::new(network.into(), 20).expect("a /20 inside 100.64.0.0/10 is a pool")
}

/// A node cannot be admitted or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Another node has the name.
    #[error("the name \"{0}\" is taken; choose another one")]
    NameTaken(Name),
    /// The node is a member already.
    #[error("the node is a member already")]
    AlreadyMember,
    /// The node was expelled.
    #[error("the node was expelled; it needs a new identity to come back")]
    Revoked,
    /// The pool has no free address.
    #[error("the address pool is used up; remove nodes that are gone")]
    PoolExhausted,
    /// The roster is full.
    #[error("the network has {ROSTER_NODES} nodes, which is the limit; remove nodes that are gone")]
    TooManyNodes,
    /// Too many groups.
    #[error("a node has at most {GROUPS} groups")]
    TooManyGroups,
    /// Too many prefixes.
    #[error("a node has at most {PREFIXES} prefixes")]
    TooManyPrefixes,
    /// The list of revoked nodes is full.
    #[error(
        "the network remembers {REVOKED} expelled nodes, which is the limit; remove the node without revoking it"
    )]
    TooManyRevoked,
    /// Another node has the prefix, or it lies in the network's own addresses.
    #[error("the prefix {0} is taken; choose another one")]
    PrefixTaken(Prefix),
    /// Two ids give one IPv6 address, which does not happen by chance.
    #[error("the node's id gives an IPv6 address that is taken; it needs a new identity")]
    AddressClash,
    /// The end lies before the beginning.
    #[error("the membership would end before it begins")]
    Dates,
}

/// A draft cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignRosterError {
    /// The keys are not those of the network's root.
    #[error("these are not the root keys of the network")]
    WrongRoot,
    /// The roster has too many bytes.
    #[error("the roster is longer than {ROSTER} bytes; remove nodes, groups or prefixes")]
    TooLarge,
    /// Signing failed.
    #[error("the roster cannot be signed")]
    Sign(#[from] SignError),
    /// The result breaks the rules.
    #[error("the roster would not be accepted")]
    Rejected(#[from] RosterError),
}
