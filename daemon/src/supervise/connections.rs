//! The QUIC connections with peers, as far as they make keys: which session waits for which exporter.
//!
//! In: what the engine says of sessions and the QUIC endpoint of connections. Out: what to expect for the endpoint,
//! exporters for the engine, connection ids for the handshakes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_net::{QuicEndpoint, QuicEvent};
use mesh_node::Order;
use mesh_wire::{NodeId, Pin};
use tokio::time::Instant;

use crate::engine::{Command, Inbox};
use crate::handshakes::Handshakes;

/// Sessions of one peer that wait for a connection; of more the oldest are past use.
const WAITING: usize = 4;
/// A connection that is younger than this may be newer than what the peer said in its handshake.
const YOUNG: Duration = Duration::from_secs(10);

/// A connection without a session is kept this long: longer than a handshake that named it may take.
const GRACE: Duration = Duration::from_secs(120);

/// The connections of a node that is up.
pub(super) struct Connections {
    quic: Arc<QuicEndpoint>,
    handshakes: Arc<Handshakes>,
    engine: Arc<Inbox>,
    peers: BTreeMap<NodeId, Connection>,
}

#[derive(Default)]
struct Connection {
    pin: Option<Pin>,
    /// The connection that stands, and since when.
    ready: Option<([u8; 8], Instant)>,
    waiting: Vec<[u8; 16]>,
    /// When it is forgotten, for want of a session.
    ends_at: Option<Instant>,
}

impl Connections {
    pub(super) fn new(quic: Arc<QuicEndpoint>, handshakes: Arc<Handshakes>, engine: Arc<Inbox>) -> Self {
        Self { quic, handshakes, engine, peers: BTreeMap::new() }
    }

    /// A session with a peer was established; with `keeps`, both sides go on with the connection that they have.
    pub(super) fn session(&mut self, peer: NodeId, session: [u8; 16], pin: Pin, keeps: bool) {
        let connection = self.peers.entry(peer).or_default();
        let same_start = connection.pin == Some(pin);
        let young = connection.ready.is_none_or(|(_, since)| since.elapsed() < YOUNG);
        let keeps = same_start && (keeps || young);
        (connection.pin, connection.ends_at) = (Some(pin), None);
        if !keeps {
            connection.ready = None;
        }
        if connection.waiting.len() == WAITING {
            connection.waiting.remove(0);
        }
        connection.waiting.push(session);
        self.quic.expect(peer, pin, keeps);
        if keeps {
            self.mix(peer);
        }
    }

    /// The last session with a peer ended for want of traffic: no other handshake names its connection.
    pub(super) fn idle(&mut self, peer: NodeId) {
        if let Some(connection) = self.peers.get_mut(&peer) {
            connection.ends_at = Some(Instant::now() + GRACE);
            self.handshakes.order(Order::Connection { peer, id: [0; 8] });
        }
    }

    /// Returns when [`Connections::expire`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.peers.values().filter_map(|connection| connection.ends_at).min()
    }

    /// Forgets the connections that no session needed for long.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let ended = self.peers.iter().filter(|(_, known)| known.ends_at.is_some_and(|at| at <= now));
        for peer in ended.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.lost(peer);
        }
    }

    /// The peer said goodbye or is no member any more.
    pub(super) fn lost(&mut self, peer: NodeId) {
        if self.peers.remove(&peer).is_some() {
            self.quic.forget(peer);
            self.handshakes.order(Order::Connection { peer, id: [0; 8] });
        }
    }

    /// Takes what the endpoint says.
    pub(super) fn event(&mut self, event: QuicEvent) {
        match event {
            QuicEvent::Ready { peer, connection } => {
                let Some(known) = self.peers.get_mut(&peer) else { return };
                known.ready = Some((connection, Instant::now()));
                self.handshakes.order(Order::Connection { peer, id: connection });
                self.mix(peer);
            }
            QuicEvent::Lost { peer, reason } => {
                tracing::debug!(%peer, %reason, "QUIC connection lost");
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.ready = None;
                }
                self.handshakes.order(Order::Connection { peer, id: [0; 8] });
            }
            QuicEvent::Info { .. } => {}
        }
    }

    /// Hands the engine the exporter for every session that waits.
    fn mix(&mut self, peer: NodeId) {
        let Some(connection) = self.peers.get_mut(&peer) else { return };
        let Some((id, _)) = connection.ready else { return };
        connection.waiting.retain(|session| match self.quic.exporter(peer, id, session) {
            Some(exporter) => {
                self.engine.command(Command::Mix(peer, *session, exporter));
                false
            }
            None => true,
        });
    }
}
