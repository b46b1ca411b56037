//! The connections to the relays: what they are made with, and what they tell.

use std::sync::Arc;

use mesh_control::{ApiError, ErrorCode, NoticeLevel, RelayState, RelayStatus, Timestamp};
use mesh_identity::{ProofKind, Roster};
use mesh_net::RelayEvent;
use mesh_session::handshake::Local;
use mesh_wire::roster::Roles;
use mesh_wire::{NodeId, Pin};
use tokio::time::Instant;

use super::super::Shared;
use super::super::proof::Proof;
use super::super::relays::{Credentials, RelaysEvent};
use super::{After, Running};
use crate::engine::{Command, unix_now};
use crate::roster_seal;
use crate::state::Membership;

/// Peers whose presence is asked for at the start; of a larger network the others are asked for when needed.
pub(super) const ASK_AT_START: usize = 64;

impl Running {
    pub(super) fn relays_event(&mut self, shared: &Shared, event: RelaysEvent) -> After {
        match event {
            RelaysEvent::Told(pin, event) => return self.relay_event(shared, pin, event),
            RelaysEvent::Wanted(wants) => self.relays.open_wanted(wants),
            RelaysEvent::Due => self.relays.timeout(),
            RelaysEvent::Ended => {
                return After::Failed(ApiError::new(
                    ErrorCode::Internal,
                    "a relay client ended unexpectedly",
                ));
            }
        }
        After::Show
    }

    fn relay_event(&mut self, shared: &Shared, pin: Pin, event: RelayEvent) -> After {
        let before = self.relays.is_connected();
        match event {
            RelayEvent::Peer { node, present } => self.peer_event(shared, node, present),
            RelayEvent::Roster { version, blob } => return self.roster_event(version, &blob),
            RelayEvent::Notice(text) => {
                let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
                shared.notice(NoticeLevel::Info, None, format!("the relay says: {text}"));
                return After::Nothing;
            }
            RelayEvent::Rtt(rtt) => self.relays.measured(&pin, rtt),
            event @ (RelayEvent::Connecting
            | RelayEvent::Up { .. }
            | RelayEvent::Down { .. }
            | RelayEvent::Udp(_)
            | RelayEvent::Suspect(_)) => {
                let Some(up) = self.relays.status_mut(&pin).map(|status| note(status, event)) else {
                    return After::Nothing;
                };
                if let Some(up) = up {
                    self.relays.set_up(&pin, up);
                }
            }
        }
        let connected = self.relays.is_connected();
        if connected != before {
            self.passed.relay_changed();
            self.forget_presence(shared);
            self.engine.send(Command::Relay(connected));
            if connected {
                self.ask();
            } else {
                self.prove_near();
            }
        }
        After::Show
    }

    fn peer_event(&mut self, shared: &Shared, node: NodeId, present: bool) {
        if self.membership.roster.leaf(&node).is_none() {
            return;
        }
        if self.present.insert(node, present) != Some(present) {
            shared.changed.put(node);
        }
        if present && !self.passed.ever() && self.proof.came(node) {
            self.prove(node);
        }
    }

    fn roster_event(&self, version: u64, blob: &[u8]) -> After {
        if self.coordinator.is_some() || version <= self.membership.roster.version() {
            return After::Nothing;
        }
        match roster_seal::open(&self.membership, version, blob, unix_now()) {
            Some(roster) => After::Adopt(Arc::new(roster)),
            None => {
                tracing::warn!(epoch = version, "a roster from the relay is not of this network");
                After::Nothing
            }
        }
    }

    /// What was known of an earlier connection does not hold for the next one.
    fn forget_presence(&mut self, shared: &Shared) {
        for peer in std::mem::take(&mut self.present).into_keys() {
            shared.changed.put(peer);
        }
        self.proof = Proof::new(Instant::now());
    }

    /// Asks the relay which members are there, the coordinator first.
    pub(super) fn ask(&self) {
        let others = self.membership.roster.leaves().iter().filter(|leaf| leaf.node_id != self.own);
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|leaf| !leaf.roles.contains(Roles::COORDINATOR));
        let pool = self.relays.pool();
        for leaf in others.into_iter().take(ASK_AT_START) {
            if pool.bind(leaf.node_id).is_err() {
                return;
            }
        }
    }
}

/// Notes what happened to a connection. Returns whether the relay can be used, where that is news.
fn note(status: &mut RelayStatus, event: RelayEvent) -> Option<bool> {
    let now = Some(Timestamp::now());
    match event {
        RelayEvent::Connecting => {
            if status.state != RelayState::Connecting {
                (status.state, status.since, status.retry_in_ms) = (RelayState::Connecting, now, None);
            }
            None
        }
        RelayEvent::Up { observed, connect_time, relay: _ } => {
            tracing::info!(relay = %status.url, "relay connected");
            (status.state, status.since, status.retry_in_ms) = (RelayState::Connected, now, None);
            (status.error, status.udp, status.suspect) = (None, false, false);
            status.connect_ms = u64::try_from(connect_time.as_millis()).ok();
            status.observed_address = Some(observed);
            Some(true)
        }
        RelayEvent::Down { reason, retry_in } => {
            let reason = reason.to_string();
            if status.error.as_ref() != Some(&reason) {
                tracing::warn!(relay = %status.url, %reason, "relay is not connected");
            }
            (status.state, status.since, status.error) = (RelayState::Disconnected, now, Some(reason));
            status.retry_in_ms = u64::try_from(retry_in.as_millis()).ok();
            (status.connect_ms, status.udp, status.suspect) = (None, false, false);
            Some(false)
        }
        RelayEvent::Udp(udp) => {
            tracing::debug!(relay = %status.url, udp, "frames change their way to the relay");
            status.udp = udp;
            None
        }
        RelayEvent::Suspect(suspect) => {
            tracing::debug!(relay = %status.url, suspect, "the relay leaves frames without a sign of life, or not");
            status.suspect = suspect;
            Some(!suspect)
        }
        RelayEvent::Peer { .. } | RelayEvent::Roster { .. } | RelayEvent::Notice(_) | RelayEvent::Rtt(_) => {
            None
        }
    }
}

/// As whom this node connects.
pub(super) fn credentials(shared: &Shared, local: &Local, membership: &Membership) -> Credentials {
    Credentials {
        net: membership.net,
        identity: Arc::clone(&local.identity),
        admission: admission(&membership.roster, shared.own),
        udp: shared.config.relay_udp,
    }
}

/// Returns what shows the relay that this node is a member.
pub(super) fn admission(roster: &Roster, own: NodeId) -> Vec<u8> {
    roster.proof(&own, ProofKind::WithRoot).map_or_else(Vec::new, |proof| proof.encode())
}
