//! The node itself: what it holds and how it takes a new roster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_identity::{HeadCache, ProofKind, Roster};
use mesh_session::handshake::{Local, LocalClaims, Network, Purpose};
use mesh_wire::handshake::Params;
use mesh_wire::roster::Leaf;
use mesh_wire::{NetId, NodeId};

use crate::bucket::{Bucket, Buckets};
use crate::counters::Counters;
use crate::dial::HalfOpen;
use crate::index::{IndexTable, Owner};
use crate::peer::Peer;
use crate::rekey::Timings;
use crate::routes::Routes;
use crate::segment::Segment;
use crate::tx::TxQueue;

/// Lanes we grant a peer. One worker over one path uses one; the others are for a second path and more workers.
const LANES: u8 = 4;
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
    /// Its keys and libraries.
    pub local: Local,
    /// Its network.
    pub net: NetId,
    /// The secret that all members share.
    pub network_secret: zeroize::Zeroizing<[u8; 32]>,
    /// What the network carries.
    pub link: Link,
    /// The largest inner packet in bytes.
    pub mtu: u16,
}

/// Fills a slice with unpredictable bytes.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Something that happened, for people and for whoever waits for it.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeEvent {
    /// A session stands.
    Established {
        /// With whom.
        peer: NodeId,
    },
    /// A sealed ping came back.
    Pong {
        /// From whom.
        peer: NodeId,
        /// The id of the ping.
        id: u64,
        /// How long it took.
        rtt: Duration,
    },
    /// The peer forgot its session or fell silent.
    Lost {
        /// Who.
        peer: NodeId,
    },
}

/// The place of a peer in the node's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) usize);

/// One node of one network.
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) network: Network,
    pub(crate) own: NodeId,
    pub(crate) roster: Arc<Roster>,
    pub(crate) heads: HeadCache,
    /// What we say in a RESPONSE, with the signed head of our roster.
    pub(crate) claims: LocalClaims,
    /// What we say in an ESTABLISHED to a peer whose roster is as new as ours.
    pub(crate) short_claims: LocalClaims,
    pub(crate) peers: Vec<Peer>,
    pub(crate) by_id: BTreeMap<NodeId, Slot>,
    pub(crate) routes: Routes,
    pub(crate) segment: Segment,
    pub(crate) indices: IndexTable,
    pub(crate) half_open: BTreeMap<NodeId, HalfOpen>,
    pub(crate) hellos: Buckets,
    pub(crate) all_hellos: Bucket,
    pub(crate) all_responses: Bucket,
    pub(crate) deadlines: BTreeSet<(Instant, Slot)>,
    pub(crate) timings: Timings,
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<NodeEvent>,
    pub(crate) random: Random,
}

impl Node {
    /// Makes a node that stands on `roster`; nothing is sent before a packet or a request asks for it.
    #[must_use]
    pub fn new(config: NodeConfig, roster: Arc<Roster>, random: Random) -> Self {
        let network = Network::new(config.net, config.network_secret.clone(), Purpose::Member);
        let own = config.local.identity.node_id();
        let empty = LocalClaims { proof: Vec::new(), params: params(config.mtu, 0) };
        let mut node = Self {
            network,
            own,
            roster: Arc::clone(&roster),
            heads: HeadCache::default(),
            claims: empty.clone(),
            short_claims: empty,
            peers: Vec::new(),
            by_id: BTreeMap::new(),
            routes: Routes::default(),
            segment: Segment::default(),
            indices: IndexTable::default(),
            half_open: BTreeMap::new(),
            hellos: Buckets::default(),
            all_hellos: Bucket::default(),
            all_responses: Bucket::default(),
            deadlines: BTreeSet::new(),
            timings: Timings::default(),
            counters: Counters::default(),
            events: VecDeque::new(),
            random,
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
            }
        }
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
        self.events.pop_front()
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
        add_routes(&mut self.routes, leaf, slot);
        self.segment.add_member(leaf.node_id, Some(slot));
        slot
    }

    pub(crate) fn event(&mut self, event: NodeEvent) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn random_nonce(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        (self.random)(&mut bytes);
        bytes
    }

    /// Rebuilds peers, routes and numbers for a roster. Peers that stay keep their sessions.
    fn stand_on(&mut self, roster: Arc<Roster>) {
        let mut before: BTreeMap<NodeId, Peer> =
            std::mem::take(&mut self.peers).into_iter().map(|peer| (peer.id, peer)).collect();
        self.by_id.clear();
        self.deadlines.clear();
        self.segment = Segment::default();
        self.segment.add_member(self.own, None);
        self.routes = Routes::default();
        for leaf in roster.leaves().iter().filter(|leaf| leaf.node_id != self.own) {
            let slot = Slot(self.peers.len());
            let mut peer = before
                .remove(&leaf.node_id)
                .unwrap_or_else(|| Peer::new(leaf.node_id, leaf.name.to_string()));
            peer.name = leaf.name.to_string();
            for index in peer.indices() {
                self.indices.assign(index, Owner::Peer(slot));
            }
            if let Some(at) = peer.armed {
                self.deadlines.insert((at, slot));
            }
            self.by_id.insert(leaf.node_id, slot);
            add_routes(&mut self.routes, leaf, slot);
            self.segment.add_member(leaf.node_id, Some(slot));
            self.peers.push(peer);
        }
        for index in before.values().flat_map(Peer::indices) {
            self.indices.release(index);
        }
        let params = params(self.config.mtu, roster.version());
        let proof = |kind| roster.proof(&self.own, kind).map_or_else(Vec::new, |proof| proof.encode());
        self.claims = LocalClaims { proof: proof(ProofKind::WithHead), params };
        self.short_claims = LocalClaims { proof: proof(ProofKind::Bare), params };
        self.roster = roster;
    }
}

fn params(mtu: u16, roster_version: u64) -> Params {
    Params { capabilities: 0, lanes: LANES, mtu, roster_version, tls_pin: [0; 32] }
}

fn add_routes(routes: &mut Routes, leaf: &Leaf, slot: Slot) {
    routes.insert(leaf.ipv4.into(), 32, slot);
    routes.insert(leaf.ipv6.into(), 128, slot);
    for prefix in &leaf.prefixes {
        routes.insert(prefix.address(), prefix.prefix_len(), slot);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("own", &self.own)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig").field("net", &self.net).field("link", &self.link).finish_non_exhaustive()
    }
}
