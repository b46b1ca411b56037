//! The node itself: what it holds and how it takes a new roster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_identity::{Roster, wipe_stack};
use mesh_session::PqProvider;
use mesh_wire::control::{Candidate, Candidates, DoorTold, IceOffer, RelaysTold};
use mesh_wire::roster::Leaf;
use mesh_wire::{NetId, NodeId, Pin};

use crate::counters::Counters;
use crate::early::Early;
use crate::index::{Numbers, Owners};
use crate::lanes::Sharing;
use crate::offload::Succession;
use crate::order::Order;
use crate::path::Path;
use crate::paths::{Allowance, ChangeReason};
use crate::peer::Peer;
use crate::rekey::Timings;
use crate::routes::Routes;
use crate::segment::Segment;
use crate::tx::TxQueue;

/// Events kept until they are polled; beyond it the oldest is lost, as status shows the same.
const EVENTS: usize = 256;

/// The present, as the caller's clocks tell it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time, for timers.
    pub instant: Instant,
    /// Seconds since 1970, for the dates of memberships.
    pub unix: u64,
}

/// What the network carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// IP packets, routed by address (TUN).
    Ip,
    /// Ethernet frames, switched by MAC address (TAP).
    Ethernet,
}

/// What a node is made of.
pub struct NodeConfig {
    /// Its id.
    pub own: NodeId,
    /// ML-KEM, for rekeys.
    pub provider: &'static dyn PqProvider,
    /// Its network.
    pub net: NetId,
    /// What the network carries.
    pub link: Link,
    /// The largest inner packet in bytes.
    pub mtu: u16,
    /// Session numbers, shared with the handshaker.
    pub numbers: Numbers,
    /// Addresses at which peers may be reached without the relay, by name.
    pub endpoints: BTreeMap<String, Vec<SocketAddr>>,
    /// Looks for paths to peers without the relay.
    pub direct: bool,
    /// Guesses ports of NATs that give each destination another one.
    pub birthday: bool,
    /// User packets wait until the QUIC exporter is mixed into the keys.
    pub hold_until_mixed: bool,
    /// When keys are replaced.
    pub timings: Timings,
    /// Threads that move packets, 1 to 16: this one, and a [`Worker`](crate::Worker) for each further one.
    pub threads: u16,
}

/// Fills a slice with unpredictable bytes.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Something that happened, for people and for whoever waits for it.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeEvent {
    /// Both sides hold a session.
    Established {
        /// With whom.
        peer: NodeId,
    },
    /// A handshake led to a session; its keys wait for the exporter of the QUIC connection where `mixes` says so.
    Session {
        /// With whom.
        peer: NodeId,
        /// The session's id.
        session: [u8; 16],
        /// The hash of the peer's TLS public key.
        tls_pin: [u8; 32],
        /// Both sides hold the same QUIC connection and go on with it.
        keeps_connection: bool,
        /// [`Node::mix`] is awaited for this session.
        mixes: bool,
    },
    /// A sealed ping came back.
    Pong {
        /// From whom.
        peer: NodeId,
        /// The id of the ping.
        id: u64,
        /// How long it took.
        rtt: Duration,
        /// What the answer came over.
        path: Path,
    },
    /// Frames to the peer take another path.
    Path {
        /// Who.
        peer: NodeId,
        /// The one before.
        from: Path,
        /// Which.
        path: Path,
        /// Why.
        reason: ChangeReason,
    },
    /// The path in use carries packets of another length than before; [`Node::snapshot`] shows which.
    PathSize {
        /// Who.
        peer: NodeId,
    },
    /// The peer was found on a local network, at an address that is new.
    Near {
        /// Who.
        peer: NodeId,
    },
    /// The peer says at which relays it is, home first.
    Relays {
        /// Who.
        peer: NodeId,
        /// Their keys, at most [`RELAYS_TOLD`](mesh_wire::control::RELAYS_TOLD).
        relays: Vec<Pin>,
    },
    /// The peer says where it takes connections by itself, or that it does not any more.
    Door {
        /// Who.
        peer: NodeId,
        /// Where; no address of the overlay, no list is empty.
        door: Option<DoorTold>,
    },
    /// A search for a path without the relay found nothing while packets went over the relay.
    NoDirect {
        /// With whom.
        peer: NodeId,
    },
    /// Packets wait for a peer that is at no relay of this node, and no other way to it is known.
    Absent {
        /// Who.
        peer: NodeId,
    },
    /// A search begins: the node's own addresses are to be found anew, and told with [`Node::set_candidates`].
    Gather,
    /// An agent of ICE is to find a path to the peer, and is told what the peer's said; what it finds is told with
    /// [`Node::handle_finding`]. Only after [`Node::find_by_ice`].
    Ice {
        /// Who.
        peer: NodeId,
        /// What the peer's agent says.
        offer: Option<IceOffer>,
        /// Where the peer may be reached.
        remotes: Vec<Candidate>,
    },
    /// Guessing ports with the peer is over: extra sockets that frames do not use are not needed any more.
    Guessed {
        /// Who.
        peer: NodeId,
    },
    /// The last session with the peer ended for want of traffic.
    Idle {
        /// Who.
        peer: NodeId,
    },
    /// The peer said goodbye or is no member any more.
    Lost {
        /// Who.
        peer: NodeId,
    },
}

/// What came for this node.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// A packet for the device.
    Packet(&'a mut [u8]),
    /// A packet for the device whose transport checksum covers the pseudo header only.
    Partial {
        /// Where the IP header begins.
        network: usize,
        /// The packet; padding may follow it.
        packet: &'a mut [u8],
        /// The sender says that it may be joined to the packet before it.
        continued: bool,
    },
    /// A QUIC datagram of a peer.
    Quic(NodeId, &'a [u8]),
}

/// The same as [`Delivery`], of a frame that had to wait for its keys.
#[derive(Debug, PartialEq, Eq)]
pub enum LateDelivery {
    /// A packet for the device.
    Packet(Vec<u8>),
    /// A QUIC datagram of a peer.
    Quic(NodeId, Vec<u8>),
}

/// The place of a peer in the node's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) usize);

/// One node of one network: the packet path.
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) roster: Arc<Roster>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) by_id: BTreeMap<NodeId, Slot>,
    pub(crate) routes: Arc<Routes<Slot>>,
    pub(crate) succession: Succession,
    pub(crate) segment: Segment,
    pub(crate) owners: Owners,
    pub(crate) early: Early,
    pub(crate) late: VecDeque<LateDelivery>,
    pub(crate) deadlines: BTreeSet<(Instant, Slot)>,
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<NodeEvent>,
    pub(crate) orders: VecDeque<Order>,
    pub(crate) random: Random,
    /// The addresses at which this node may be reached.
    pub(crate) candidates: Candidates,
    /// An agent of ICE finds paths before the challenges do.
    pub(crate) ice: bool,
    /// The relay is connected.
    pub(crate) relay: bool,
    pub(crate) sharing: Sharing,
    /// The peer with which ports are guessed, or were until a moment ago.
    pub(crate) guessing: Option<NodeId>,
    pub(crate) allowance: Allowance,
    /// Something came that [`Node::take_proof`] tells of.
    pub(crate) proof: bool,
    /// The relays at which this node is, home first, where there is a choice.
    pub(crate) relays: RelaysTold,
    /// Where this node takes connections of its peers by itself.
    pub(crate) door: Option<DoorTold>,
}

impl Node {
    /// Makes a node that stands on `roster`; nothing is sent before a packet or a request asks for it. Its handshaker
    /// stands on the same roster.
    #[must_use]
    pub fn new(config: NodeConfig, roster: Arc<Roster>, random: Random) -> Self {
        let mut node = Self {
            roster: Arc::clone(&roster),
            peers: Vec::new(),
            by_id: BTreeMap::new(),
            routes: Arc::default(),
            succession: Succession::default(),
            segment: Segment::default(),
            owners: if config.threads > 1 { Owners::noting() } else { Owners::default() },
            early: Early::default(),
            late: VecDeque::new(),
            deadlines: BTreeSet::new(),
            counters: Counters::default(),
            events: VecDeque::new(),
            orders: VecDeque::new(),
            random,
            candidates: Candidates::default(),
            ice: false,
            relay: true,
            sharing: Sharing::new(config.threads),
            guessing: None,
            allowance: Allowance::default(),
            proof: false,
            relays: RelaysTold::default(),
            door: None,
            config,
        };
        node.stand_on(roster);
        node
    }

    /// Takes a newer roster: peers it lacks lose their sessions at once, new ones become reachable. Poll for
    /// transmits afterwards.
    pub fn set_roster(&mut self, roster: Arc<Roster>, tx: &mut TxQueue) {
        let gone: Vec<NodeId> = self.by_id.keys().copied().filter(|id| roster.leaf(id).is_none()).collect();
        for id in gone {
            if let Some(slot) = self.by_id.get(&id).copied() {
                self.forget_sessions(slot, Some(tx));
                self.event(NodeEvent::Lost { peer: id });
            }
        }
        self.orders.push_back(Order::Roster(Arc::clone(&roster)));
        self.stand_on(roster);
    }

    /// Returns the roster the node stands on.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Returns what was dropped and why.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes the oldest event. Poll after every `handle_*`.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front().or_else(|| self.guessing_ended())
    }

    /// Takes the next order for the handshaker. Poll after every `handle_*`.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Takes the next packet or datagram that had to wait for its keys. Poll after [`Node::handle_outcome`] and
    /// [`Node::mix`].
    pub fn poll_late(&mut self) -> Option<LateDelivery> {
        self.late.pop_front()
    }

    /// Returns when [`Node::handle_timeout`] is due. Poll after every `handle_*`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Adds a peer that proved a membership newer than our roster.
    pub(crate) fn learn(&mut self, leaf: &Leaf) -> Slot {
        let slot = Slot(self.peers.len());
        self.peers.push(Peer::new(leaf.node_id, leaf.name.to_string()));
        self.by_id.insert(leaf.node_id, slot);
        add_routes(Arc::make_mut(&mut self.routes), leaf, slot);
        self.segment.add_member(leaf.node_id, Some(slot));
        self.share_routes();
        slot
    }

    pub(crate) fn event(&mut self, event: NodeEvent) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        // An event moves through queues whole, with what its variant leaves unused: bytes of the stack, where ciphers leave
        // keys. So it is put together once more, on a stack that was just overwritten.
        wipe_stack();
        push_anew(&mut self.events, &event);
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Rebuilds peers, routes and numbers for a roster. Peers that stay keep their sessions.
    fn stand_on(&mut self, roster: Arc<Roster>) {
        let mut before: BTreeMap<NodeId, Peer> =
            std::mem::take(&mut self.peers).into_iter().map(|peer| (peer.id, peer)).collect();
        self.by_id.clear();
        self.deadlines.clear();
        self.segment = Segment::default();
        self.segment.add_member(self.config.own, None);
        let mut routes = Routes::default();
        for leaf in roster.leaves().iter().filter(|leaf| leaf.node_id != self.config.own) {
            let slot = Slot(self.peers.len());
            let mut peer = before
                .remove(&leaf.node_id)
                .unwrap_or_else(|| Peer::new(leaf.node_id, leaf.name.to_string()));
            peer.name = leaf.name.to_string();
            for live in &peer.sessions {
                self.owners.set(live.number.get(), slot);
            }
            if let Some(at) = peer.armed {
                self.deadlines.insert((at, slot));
            }
            self.by_id.insert(leaf.node_id, slot);
            add_routes(&mut routes, leaf, slot);
            self.segment.add_member(leaf.node_id, Some(slot));
            self.peers.push(peer);
        }
        for live in before.values().flat_map(|peer| &peer.sessions) {
            self.owners.remove(live.number.get());
        }
        self.routes = Arc::new(routes);
        self.share_routes();
        self.roster = roster;
    }
}

/// Appends a copy of an event that is made in a frame of its own.
#[inline(never)]
fn push_anew(events: &mut VecDeque<NodeEvent>, event: &NodeEvent) {
    events.push_back(event.clone());
}

fn add_routes(routes: &mut Routes<Slot>, leaf: &Leaf, slot: Slot) {
    routes.insert(leaf.ipv4.into(), 32, slot);
    routes.insert(leaf.ipv6.into(), 128, slot);
    for prefix in &leaf.prefixes {
        routes.insert(prefix.address(), prefix.prefix_len(), slot);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("own", &self.config.own)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig").field("net", &self.net).field("link", &self.link).finish_non_exhaustive()
    }
}
