//! The connection to the relay: what it is made with, and what it tells.

use std::sync::Arc;

use mesh_control::{NoticeLevel, RelayState, RelayStatus, Timestamp};
use mesh_identity::{ProofKind, Roster};
use mesh_net::{RelayConfig, RelayEvent};
use mesh_session::handshake::Local;
use mesh_wire::NodeId;
use mesh_wire::relay::Role;
use mesh_wire::roster::Roles;
use tokio::time::Instant;

use super::super::Shared;
use super::super::proof::Proof;
use super::{After, Running};
use crate::engine::{Command, unix_now};
use crate::roster_seal;
use crate::state::Membership;

/// Peers whose presence is asked for at the start; of a larger network the others are asked for when needed.
pub(super) const ASK_AT_START: usize = 64;

impl Running {
    pub(super) fn relay_event(&mut self, shared: &Shared, event: RelayEvent) -> After {
        let now = Some(Timestamp::now());
        match event {
            RelayEvent::Connecting => {
                if self.relay.state == RelayState::Connecting {
                    return After::Nothing;
                }
                self.relay.state = RelayState::Connecting;
                self.relay.since = now;
                self.relay.retry_in_ms = None;
            }
            RelayEvent::Up { observed, connect_time } => {
                tracing::info!(relay = %self.relay.url, "relay connected");
                self.relay = RelayStatus {
                    url: self.relay.url.clone(),
                    state: RelayState::Connected,
                    error: None,
                    since: now,
                    connect_ms: u64::try_from(connect_time.as_millis()).ok(),
                    observed_address: Some(observed),
                    retry_in_ms: None,
                    udp: false,
                };
                self.passed.relay_changed();
                self.forget_presence();
                self.engine.send(Command::Relay(true));
                self.ask();
            }
            RelayEvent::Down { reason, retry_in } => {
                let reason = reason.to_string();
                if self.relay.error.as_ref() != Some(&reason) {
                    tracing::warn!(relay = %self.relay.url, %reason, "relay is not connected");
                }
                if self.relay.connect_ms.is_some() {
                    self.passed.relay_changed();
                }
                self.relay.state = RelayState::Disconnected;
                self.relay.error = Some(reason);
                self.relay.since = now;
                self.relay.retry_in_ms = u64::try_from(retry_in.as_millis()).ok();
                self.relay.connect_ms = None;
                self.relay.udp = false;
                self.forget_presence();
                self.prove_near();
                self.engine.send(Command::Relay(false));
            }
            RelayEvent::Udp(udp) => {
                if self.relay.udp == udp {
                    return After::Nothing;
                }
                tracing::debug!(relay = %self.relay.url, udp, "frames change their way to the relay");
                self.relay.udp = udp;
            }
            RelayEvent::Peer { node, present } => {
                if self.membership.roster.leaf(&node).is_none() {
                    return After::Nothing;
                }
                self.present.insert(node, present);
                if present && !self.passed.ever() && self.proof.came(node) {
                    self.prove(node);
                }
            }
            RelayEvent::Roster { version, blob } => {
                if self.coordinator.is_some() || version <= self.membership.roster.version() {
                    return After::Nothing;
                }
                return match roster_seal::open(&self.membership, version, &blob, unix_now()) {
                    Some(roster) => After::Adopt(Arc::new(roster)),
                    None => {
                        tracing::warn!(epoch = version, "a roster from the relay is not of this network");
                        After::Nothing
                    }
                };
            }
            RelayEvent::Notice(text) => {
                let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
                shared.notice(NoticeLevel::Info, None, format!("the relay says: {text}"));
                return After::Nothing;
            }
        }
        After::Show
    }

    /// What was known of an earlier connection does not hold for the next one.
    fn forget_presence(&mut self) {
        self.present.clear();
        self.proof = Proof::new(Instant::now());
    }

    /// Asks the relay which members are there, the coordinator first.
    pub(super) fn ask(&self) {
        let others = self.membership.roster.leaves().iter().filter(|leaf| leaf.node_id != self.own);
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|leaf| !leaf.roles.contains(Roles::COORDINATOR));
        for leaf in others.into_iter().take(ASK_AT_START) {
            if self.sender.bind(leaf.node_id).is_err() {
                return;
            }
        }
    }
}

pub(super) fn config(shared: &Shared, local: &Local, membership: &Membership) -> RelayConfig {
    RelayConfig {
        udp: shared.config.relay_udp,
        url: membership.relay.clone(),
        pin: Some(membership.pin),
        role: Role::Member,
        net: membership.net,
        identity: Arc::clone(&local.identity),
        admission: admission(&membership.roster, shared.own),
    }
}

/// Returns what shows the relay that this node is a member.
pub(super) fn admission(roster: &Roster, own: NodeId) -> Vec<u8> {
    roster.proof(&own, ProofKind::WithRoot).map_or_else(Vec::new, |proof| proof.encode())
}
