//! Where the relay client and the QUIC endpoint put what they bring.

use std::sync::Arc;

use bytes::BytesMut;
use mesh_net::{QuicEvent, QuicSink, RelayEvent, RelaySink};
use mesh_wire::NodeId;
use tokio::sync::mpsc;

use super::pending::Pending;
use crate::engine::{Command, Datagrams, Frames, Inbox};
use crate::relays::pool::RelayPool;
use crate::relays::table::Slot;

/// Brings what the client of one relay hears to the engine and the supervisor.
pub(super) struct Sink {
    pub(super) inbox: Arc<Inbox>,
    pub(super) events: Arc<Pending>,
    pub(super) pool: RelayPool,
    /// The relay's place in the pool.
    pub(super) slot: Slot,
}

impl Sink {
    fn present(&self, node: NodeId, present: bool) {
        self.inbox.command(Command::Presence(node, present));
        self.events.put(RelayEvent::Peer { node, present });
    }
}

impl RelaySink for Sink {
    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        self.inbox.frames(Frames { from, payload, segment, marked: false });
    }

    fn marked_frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        self.inbox.frames(Frames { from, payload, segment, marked: true });
    }

    fn event(&self, event: RelayEvent) {
        if let RelayEvent::Peer { node, present } = event {
            // Whoever is at another relay is present all the same.
            if let Some(present) = self.pool.presence(self.slot, node, present) {
                self.present(node, present);
            }
            return;
        }
        let down = matches!(event, RelayEvent::Down { .. });
        self.events.put(event);
        if down {
            for node in self.pool.lost(self.slot) {
                self.present(node, false);
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.events.end();
    }
}

/// Brings what the client of a peer's door hears to the engine and the supervisor. Of others than the peer the door may say
/// what it wants.
pub(super) struct DoorClientSink {
    pub(super) peer: NodeId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) events: Arc<Pending>,
    pub(super) pool: RelayPool,
}

impl RelaySink for DoorClientSink {
    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        if from == self.peer {
            self.inbox.frames(Frames { from, payload, segment, marked: false });
        }
    }

    fn event(&self, event: RelayEvent) {
        match &event {
            RelayEvent::Peer { node, present } if *node == self.peer => {
                self.pool.set_door_present(*node, *present);
            }
            RelayEvent::Peer { .. } | RelayEvent::Roster { .. } | RelayEvent::Notice(_) => return,
            RelayEvent::Up { relay, .. } => self.pool.set_door_connected(self.peer, *relay),
            RelayEvent::Down { .. } => self.pool.set_door_connected(self.peer, None),
            RelayEvent::Connecting | RelayEvent::Udp(_) | RelayEvent::Suspect(_) | RelayEvent::Rtt(_) => {}
        }
        self.events.put(event);
    }
}

impl Drop for DoorClientSink {
    fn drop(&mut self) {
        self.events.end();
    }
}

/// Brings what the QUIC endpoint sends to the engine, and what it tells to the supervisor.
pub(super) struct Sealed {
    pub(super) inbox: Arc<Inbox>,
    pub(super) events: mpsc::Sender<QuicEvent>,
}

impl QuicSink for Sealed {
    fn transmit(&self, to: NodeId, payload: BytesMut, segment: Option<u16>) -> bool {
        self.inbox.quic(Datagrams { to, payload, segment })
    }

    fn event(&self, event: QuicEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("an event of a QUIC connection was lost: the supervisor does not keep up");
        }
    }
}
