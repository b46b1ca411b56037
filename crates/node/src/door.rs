//! Doors of peers, and the own one: where nodes take connections of each other without a relay (direct WSS).
//!
//! The connections are somebody else's work, and what goes over them counts as going by the relay. This file tells the
//! peers where the own door is and hears where theirs are; the paths say when no direct path over UDP was found.

use std::net::SocketAddr;
use std::time::Instant;

use mesh_wire::NodeId;
use mesh_wire::control::{CandidateKind, Control, DoorTold, may_be_a_door};

use crate::bucket::Rate;
use crate::counters::DropReason;
use crate::node::{Node, NodeEvent, Now, Slot};
use crate::tx::TxQueue;

/// How often a peer may say where its door is: a change of its network makes a few changes at once.
const TOLD: Rate = Rate { per_second: 1, burst: 8 };

impl Node {
    /// Takes where this node takes connections of its peers by itself, and tells these where it changed. Poll for
    /// transmits afterwards.
    pub fn set_door(&mut self, now: Now, door: Option<DoorTold>, tx: &mut TxQueue) {
        if self.door == door {
            return;
        }
        self.door = door;
        for slot in (0..self.peers.len()).map(Slot) {
            self.tell_door(now.instant, slot, tx);
        }
    }

    /// Says whether what goes by the relay reaches a peer past the relays, which then need not be connected. Poll for
    /// transmits, orders, events and the timeout afterwards.
    pub fn handle_beside(&mut self, now: Now, peer: NodeId, beside: bool) {
        let Some(slot) = self.by_id.get(&peer).copied() else { return };
        let peer = &mut self.peers[slot.0];
        peer.beside = beside;
        if beside && peer.current().is_none() && (peer.dialling || !peer.queue.is_empty()) {
            self.dial(slot);
        } else if !self.setting(slot).relay {
            self.relay_lost(now.instant, slot);
        }
    }

    /// Tells a peer with a session where the own door is.
    pub(crate) fn tell_door(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) {
        if !self.peers[slot.0].sessions.is_empty() {
            let message = Control::Door(self.door.clone());
            self.send_control(now, slot, &message, tx);
        }
    }

    pub(crate) fn handle_door(&mut self, now: Instant, slot: Slot, told: Option<DoorTold>) {
        let peer = &mut self.peers[slot.0];
        if !peer.told_door.take(now, TOLD) {
            return self.counters.count(DropReason::RateLimited);
        }
        let peer = peer.id;
        let door = told.and_then(|mut door| {
            let own = |ip| {
                let hosts = self.candidates.list.iter().filter(|own| own.kind == CandidateKind::Host);
                hosts.map(|own| own.address.ip()).any(|host| host == ip)
            };
            // A connection inside the overlay would carry frames in frames, one to this machine finds no peer.
            let is_good = |address: &SocketAddr| {
                may_be_a_door(address) && !self.is_overlay(address.ip()) && !own(address.ip())
            };
            door.addresses.retain(is_good);
            (!door.addresses.is_empty()).then_some(door)
        });
        self.event(NodeEvent::Door { peer, door });
    }
}
