//! What the coordinator must never lose: who is invited, who came, and the roster that says so.
//!
//! One value, stored in one file: the use of an invitation and the admission it led to stand or fall together. Pure:
//! time and keys are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use mesh_control::InviteRequest;
use mesh_identity::{
    AdmitError, Identity, NewMember, PublicIdentity, Roster, RosterDraft, Ticket, UnixSeconds,
};
use mesh_wire::control::Refusal;
use mesh_wire::handshake::INVITE_ID;
use mesh_wire::roster::{Group, Name};
use mesh_wire::{NetId, NodeId, limits};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::RelayChange;
use crate::relays::ANNOUNCED;
use crate::state::{StateDir, StateError, secret_text};

/// Invitations kept, spent ones included.
const INVITES: usize = 1024;
/// Spent and expired invitations are kept this long, so that their holders are told what happened.
const KEEP: u64 = 30 * 24 * 3600;
/// The longest life of an invitation.
const TTL_MOST: u64 = 365 * 24 * 3600;
/// The most uses of an invitation.
const USES_MOST: u32 = 10_000;
/// A membership is signed for this long; the coordinator renews it long before.
pub const MEMBERSHIP: u64 = 90 * 24 * 3600;
/// A node need not worry for this long that it hears of no newer roster: the coordinator renews long before.
pub const FRESH_FOR: u64 = MEMBERSHIP;
const RENEW_BEFORE: u64 = 60 * 24 * 3600;

/// Invitations and the roster they led to.
#[derive(Debug, Clone)]
pub struct Ledger {
    roster: Arc<Roster>,
    invites: BTreeMap<[u8; INVITE_ID], Invite>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    #[serde(with = "secret_text")]
    psk: Zeroizing<[u8; 32]>,
    name: Option<String>,
    groups: Vec<String>,
    uses: u32,
    used_by: BTreeSet<String>,
    expires: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    roster: String,
    invites: BTreeMap<String, Invite>,
}

/// Why the ledger refuses.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The request to invite is out of bounds.
    #[error("{0}")]
    Request(String),
    /// The invitation is not known any more.
    #[error("the invitation was withdrawn")]
    Unknown,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
    /// It has admitted as many nodes as it may.
    #[error("the ticket has been used")]
    Used,
    /// The roster does not take the node.
    #[error("{0}")]
    Admit(#[from] AdmitError),
    /// The roster could not be signed.
    #[error("the roster could not be signed ({0})")]
    Sign(String),
}

impl LedgerError {
    /// Returns how a joining node is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Expired => Refusal::Expired,
            Self::Used => Refusal::Used,
            Self::Admit(AdmitError::NameTaken(_)) => Refusal::NameTaken,
            Self::Admit(AdmitError::PoolExhausted | AdmitError::TooManyNodes) => Refusal::Full,
            Self::Sign(_) => Refusal::Storage,
            Self::Request(_) | Self::Unknown | Self::Admit(_) => Refusal::Malformed,
        }
    }
}

impl Ledger {
    /// The file's name in the state directory.
    pub const FILE: &str = "ledger.state";

    /// Starts with a roster and no invitation.
    #[must_use]
    pub fn new(roster: Arc<Roster>) -> Self {
        Self { roster, invites: BTreeMap::new() }
    }

    /// Loads the ledger; none where this node never coordinated.
    ///
    /// # Errors
    /// [`StateError`] that names the damaged file.
    pub fn load(state: &StateDir, net: NetId, now: u64) -> Result<Option<Self>, StateError> {
        let Some(stored) = state.read::<Stored>(Self::FILE)? else { return Ok(None) };
        let damaged = |what: String| StateError::Damaged { path: state.path(Self::FILE), what };
        let bytes = BASE64.decode(stored.roster.as_bytes()).map_err(|error| damaged(error.to_string()))?;
        let roster = Roster::verify(&bytes, net, UnixSeconds(now))
            .map_err(|error| StateError::of_roster(state.path(Self::FILE), &error))?;
        let mut invites = BTreeMap::new();
        for (id, invite) in stored.invites {
            let id = HEXLOWER.decode(id.as_bytes()).ok().and_then(|id| id.try_into().ok());
            invites.insert(id.ok_or_else(|| damaged("an invitation's id is wrong".into()))?, invite);
        }
        Ok(Some(Self { roster: Arc::new(roster), invites }))
    }

    /// Takes a newer roster than its own and tells whether it was one. It stands beside a ledger that was restored from
    /// an older backup: which invitations were used since then is unknown, so none stays open.
    pub fn catch_up(&mut self, roster: &Arc<Roster>) -> bool {
        if roster.version() <= self.roster.version() {
            return false;
        }
        self.roster = Arc::clone(roster);
        self.invites.clear();
        true
    }

    /// Stores the ledger durably.
    ///
    /// # Errors
    /// [`StateError`] when the disk does not take it.
    pub fn store(&self, state: &StateDir) -> Result<(), StateError> {
        let invites = self.invites.iter().map(|(id, invite)| (HEXLOWER.encode(id), invite.clone()));
        state.write(
            Self::FILE,
            &Stored { roster: BASE64.encode(self.roster.encode()), invites: invites.collect() },
        )
    }

    /// Returns the roster in force.
    #[must_use]
    pub const fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Returns the secret of an invitation.
    #[must_use]
    pub fn psk(&self, invite: &[u8; INVITE_ID]) -> Option<Zeroizing<[u8; 32]>> {
        self.invites.get(invite).map(|invite| invite.psk.clone())
    }

    /// Returns how many nodes an invitation may still admit.
    #[must_use]
    pub fn places(&self, invite: &[u8; INVITE_ID]) -> usize {
        self.invites.get(invite).map_or(0, Invite::places)
    }

    /// Notes an invitation.
    ///
    /// # Errors
    /// [`LedgerError::Request`] when the request is out of bounds.
    pub fn invite(&mut self, ticket: &Ticket, request: &InviteRequest, now: u64) -> Result<(), LedgerError> {
        let refuse = |text: &str| Err(LedgerError::Request(text.to_owned()));
        if request.uses == 0 || request.uses > USES_MOST {
            return refuse("uses has to be between 1 and 10000");
        }
        if request.ttl_s == 0 || request.ttl_s > TTL_MOST {
            return refuse("ttl has to be between one second and 365 days");
        }
        if let Some(name) = &request.name {
            if request.uses > 1 {
                return refuse("a ticket with a name admits one node; leave the name out for several uses");
            }
            parse_name(name)?;
            if self.roster.leaf_by_name(name).is_some() {
                return refuse("another member has this name");
            }
        }
        if request.groups.len() > limits::GROUPS {
            return refuse("a node has at most 16 groups");
        }
        parse_groups(&request.groups)?;
        self.invites.retain(|_, invite| invite.expires.saturating_add(KEEP) > now);
        if self.invites.len() >= INVITES {
            return refuse("too many invitations are open; wait for some to expire");
        }
        let invite = Invite {
            psk: ticket.psk(),
            name: request.name.clone(),
            groups: request.groups.clone(),
            uses: request.uses,
            used_by: BTreeSet::new(),
            expires: ticket.expires().0,
        };
        self.invites.insert(ticket.invite_id(), invite);
        Ok(())
    }

    /// Changes which relays the roster announces; tells whether anything changed.
    ///
    /// # Errors
    /// [`LedgerError::Request`] when the list would be too long, empty, or name a key twice.
    pub fn change_relays(
        &mut self,
        change: RelayChange,
        now: u64,
        root: &Identity,
    ) -> Result<bool, LedgerError> {
        let refuse = |text: String| Err(LedgerError::Request(text));
        let mut relays = self.roster.settings().relays.clone();
        match change {
            RelayChange::Add(url, pin) => {
                if relays.contains(&(url.clone(), pin)) {
                    return Ok(false);
                }
                if let Some((known, _)) = relays.iter().find(|(known, key)| *known == url || *key == pin) {
                    return refuse(format!("the network announces {known} already; remove that first"));
                }
                if relays.len() >= ANNOUNCED {
                    return refuse(format!(
                        "the network announces {ANNOUNCED} relays, the most; remove one first"
                    ));
                }
                relays.push((url, pin));
            }
            RelayChange::Remove(url) => {
                let before = relays.len();
                relays.retain(|(known, _)| *known != url);
                if relays.len() == before {
                    return refuse(format!(
                        "the network does not announce {url}; \"meshctl relay list\" shows which it does"
                    ));
                }
                if relays.is_empty() {
                    return refuse(format!("{url} is the last relay of the network; add another one first"));
                }
            }
        }
        let mut draft = RosterDraft::from_roster(&self.roster);
        draft.set_relays(relays);
        self.roster = Arc::new(sign(&draft, root, now)?);
        Ok(true)
    }

    /// Admits a node with an invitation and tells whether anything changed: a member that comes again, because it never
    /// got its answer or missed the rosters since, is answered again and uses nothing. One whose membership has ended
    /// needs a place as a new node does, and keeps its name and addresses.
    ///
    /// # Errors
    /// [`LedgerError`]; the ledger is unchanged.
    pub fn admit(
        &mut self,
        id: &[u8; INVITE_ID],
        node: &PublicIdentity,
        wanted: &str,
        now: u64,
        root: &Identity,
    ) -> Result<bool, LedgerError> {
        let node_id = node.node_id();
        let invite = self.invites.get_mut(id).ok_or(LedgerError::Unknown)?;
        let member = self.roster.leaf(&node_id);
        if member.is_some_and(|leaf| leaf.not_after.0 > now) {
            return Ok(false);
        }
        invite.check(node_id, now)?;
        let mut draft = RosterDraft::from_roster(&self.roster);
        let not_after = UnixSeconds(now + MEMBERSHIP);
        if let Some(leaf) = member {
            draft.set_dates(&node_id, leaf.not_before, not_after)?;
        } else {
            let name = invite.name.clone().unwrap_or_else(|| free_name(&self.roster, wanted, node_id));
            let member = NewMember {
                name: parse_name(&name)?,
                groups: parse_groups(&invite.groups)?,
                prefixes: BTreeSet::new(),
                not_before: UnixSeconds(now),
                not_after,
            };
            draft.admit(node_id, member)?;
        }
        let roster = sign(&draft, root, now)?;
        invite.used_by.insert(node_id.to_string());
        self.roster = Arc::new(roster);
        Ok(true)
    }

    /// Renews memberships that end within 60 days and tells whether anything changed.
    ///
    /// # Errors
    /// [`LedgerError::Sign`]; the ledger is unchanged.
    pub fn renew(&mut self, now: u64, root: &Identity) -> Result<bool, LedgerError> {
        if self.roster.leaves().iter().all(|leaf| leaf.not_after.0 > now + RENEW_BEFORE) {
            return Ok(false);
        }
        let mut draft = RosterDraft::from_roster(&self.roster);
        for leaf in self.roster.leaves() {
            draft.set_dates(&leaf.node_id, leaf.not_before, UnixSeconds(now + MEMBERSHIP))?;
        }
        self.roster = Arc::new(sign(&draft, root, now)?);
        Ok(true)
    }
}

impl Invite {
    fn places(&self) -> usize {
        usize::try_from(self.uses).unwrap_or(usize::MAX).saturating_sub(self.used_by.len())
    }

    /// Tells whether it may admit a node: there is room, it has not ended, and the node did not use it before.
    fn check(&self, node: NodeId, now: u64) -> Result<(), LedgerError> {
        if self.places() == 0 || self.used_by.contains(&node.to_string()) {
            return Err(LedgerError::Used);
        }
        if self.expires <= now {
            return Err(LedgerError::Expired);
        }
        Ok(())
    }
}

/// Returns the wanted name; one behind `~` is only a proposal and gets the node's id behind it where it is taken.
fn free_name(roster: &Roster, wanted: &str, node: NodeId) -> String {
    let Some(proposal) = wanted.strip_prefix('~') else { return wanted.to_owned() };
    if roster.leaf_by_name(proposal).is_some() {
        let kept: String = proposal.chars().take(limits::NAME - 9).collect();
        return format!("{kept}-{}", node.short());
    }
    proposal.to_owned()
}

fn parse_name(name: &str) -> Result<Name, LedgerError> {
    name.parse().map_err(|error| LedgerError::Request(format!("the name \"{name}\" is wrong: {error}")))
}

fn parse_groups(groups: &[String]) -> Result<BTreeSet<Group>, LedgerError> {
    groups
        .iter()
        .map(|group| {
            group
                .parse()
                .map_err(|error| LedgerError::Request(format!("the group \"{group}\" is wrong: {error}")))
        })
        .collect()
}

fn sign(draft: &RosterDraft, root: &Identity, now: u64) -> Result<Roster, LedgerError> {
    draft.sign(root, UnixSeconds(now), FRESH_FOR).map_err(|error| LedgerError::Sign(crate::one_line(&error)))
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("psk", &"[redacted]")
            .field("uses", &self.uses)
            .field("used_by", &self.used_by.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
