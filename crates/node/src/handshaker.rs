//! Handshakes of one node: led, answered, repeated. The other half of [`Node`](crate::Node), for a thread of its own:
//! nothing here is on a packet's way.
//!
//! In: handshake messages and UDP fragments of a carrier ([`Handshaker::handle_datagram`]), [`Order`]s of the node, the
//! passing of time. Out: datagrams appended to a [`TxQueue`], and [`Outcome`]s for the node, which go first: a session
//! is known before its peer can use it.
//!
//! Map: `handshaker/gate.rs` is what a stranger meets: rates, load, cookies; `dial.rs` leads; `answer.rs` answers;
//! `fragments.rs` carries messages over UDP.
//!
//! Invariants: no clock, socket or randomness inside; every table is bounded; nothing is sent to whom does not know the
//! network secret, nor more bytes than came before an address has answered.

mod answer;
mod dial;
mod fragments;
mod gate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use mesh_identity::{HeadCache, MembershipProof, ProofKind, Roster, UnixSeconds};
use mesh_session::handshake::{Local, LocalClaims, Network, Peer as Claimed, Purpose};
use mesh_wire::cookie::COOKIE;
use mesh_wire::fragment::FRAGMENT;
use mesh_wire::handshake::{CHALLENGE, ESTABLISHED, HELLO, Params, RESPONSE};
use mesh_wire::roster::Leaf;
use mesh_wire::{NetId, NodeId};
use zeroize::Zeroizing;

use self::answer::HalfOpen;
use self::dial::Dial;
use self::fragments::{Closing, Incoming, Origins};
use self::gate::Gate;
use crate::contact::LEARNED;
use crate::counters::{Counters, DropReason};
use crate::index::{Number, Numbers};
use crate::node::{Now, Random};
use crate::order::{Order, Outcome};
use crate::path::Path;
use crate::tx::TxQueue;

/// Lanes we grant a peer: one for each thread that it may have. A window takes memory only once it is used.
const LANES: u8 = 16;
/// Outcomes that wait for the node, at most; each is a handshake that both sides worked for.
const OUTCOMES: usize = 4096;

/// What a handshaker is made of.
pub struct HandshakerConfig {
    /// Its keys and libraries.
    pub local: Local,
    /// Its network.
    pub net: NetId,
    /// The secret that all members share.
    pub network_secret: Zeroizing<[u8; 32]>,
    /// The largest inner packet in bytes.
    pub mtu: u16,
    /// Hash of our TLS public key; zero where we do without QUIC, and sessions are not mixed.
    pub tls_pin: [u8; 32],
    /// Session numbers, shared with the node.
    pub numbers: Numbers,
}

/// The handshakes of one node.
pub struct Handshaker {
    local: Local,
    network: Network,
    own: NodeId,
    mtu: u16,
    tls_pin: [u8; 32],
    numbers: Numbers,
    roster: Arc<Roster>,
    heads: HeadCache,
    /// Our proof of membership with the signed head of the roster.
    proof: Vec<u8>,
    /// The same without the head, for a peer whose roster is as new as ours.
    short_proof: Vec<u8>,
    /// Members that are newer than our roster.
    learned: BTreeSet<NodeId>,
    /// Peers with which the node holds a session that is not in doubt.
    held: BTreeSet<NodeId>,
    connections: BTreeMap<NodeId, [u8; 8]>,
    dials: BTreeMap<NodeId, Dial>,
    /// Whom a message for one of our numbers belongs to.
    dialled: BTreeMap<u32, NodeId>,
    half_open: BTreeMap<Path, HalfOpen>,
    gate: Gate,
    incoming: Incoming,
    origins: Origins,
    closing: Closing,
    counters: Counters,
    outcomes: VecDeque<Outcome>,
    random: Random,
}

impl Handshaker {
    /// Makes a handshaker that stands on `roster`.
    #[must_use]
    pub fn new(config: HandshakerConfig, roster: Arc<Roster>, random: Random) -> Self {
        let mut handshaker = Self {
            own: config.local.identity.node_id(),
            network: Network::new(config.net, config.network_secret, Purpose::Member),
            local: config.local,
            mtu: config.mtu,
            tls_pin: config.tls_pin,
            numbers: config.numbers,
            roster: Arc::clone(&roster),
            heads: HeadCache::default(),
            proof: Vec::new(),
            short_proof: Vec::new(),
            learned: BTreeSet::new(),
            held: BTreeSet::new(),
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            dialled: BTreeMap::new(),
            half_open: BTreeMap::new(),
            gate: Gate::default(),
            incoming: Incoming::default(),
            origins: Origins::default(),
            closing: Closing::default(),
            counters: Counters::default(),
            outcomes: VecDeque::new(),
            random,
        };
        handshaker.stand_on(roster);
        handshaker
    }

    /// Tells whether a datagram is one of a handshake: all others are for the node.
    #[must_use]
    pub const fn takes(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(&(HELLO | CHALLENGE | RESPONSE | ESTABLISHED | COOKIE | FRAGMENT)))
    }

    /// The same for one that came over UDP, where all but COOKIE comes in parts.
    #[must_use]
    pub const fn takes_over_udp(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(&(COOKIE | FRAGMENT)))
            && datagram.len() <= mesh_wire::fragment::DATAGRAM
    }

    /// Takes a datagram; `backlog` is how many more wait to be handled. Poll for outcomes, transmits and the timeout
    /// afterwards.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        from: Path,
        datagram: &[u8],
        backlog: usize,
        tx: &mut TxQueue,
    ) {
        let result = match (datagram.first().copied(), from) {
            (Some(COOKIE), _) => self.handle_cookie(now, from, datagram, tx),
            // Over UDP every other message comes in fragments, each of which proves itself.
            (Some(FRAGMENT), Path::Udp(_)) => self.handle_fragment(now, from, datagram, backlog, tx),
            (_, Path::Relay(_)) => self.handle_message(now, from, datagram, backlog, tx),
            (_, Path::Udp(_)) => Err(DropReason::Malformed),
        };
        if let Err(reason) = result {
            self.counters.count(reason);
        }
    }

    /// Takes an order of the node. Poll for outcomes, transmits and the timeout afterwards.
    pub fn handle_order(&mut self, now: Now, order: Order, tx: &mut TxQueue) {
        match order {
            Order::Dial { peer, paths, holds_session } => {
                self.hold(peer, holds_session);
                self.dial(now, peer, paths, tx);
            }
            Order::Stop { peer } => {
                self.stop_dial(peer);
            }
            Order::Holds { peer, session } => self.hold(peer, session),
            Order::Connection { peer, id: [0, 0, 0, 0, 0, 0, 0, 0] } => {
                self.connections.remove(&peer);
            }
            Order::Connection { peer, id } => {
                self.connections.insert(peer, id);
            }
            Order::Roster(roster) => self.stand_on(roster),
        }
    }

    /// Does what is due. Poll for outcomes, transmits and the timeout afterwards.
    pub fn handle_timeout(&mut self, now: Now, tx: &mut TxQueue) {
        self.expire_half_open(now.instant);
        self.incoming.expire(now.instant);
        self.retry_dials(now, tx);
        self.resend(now.instant, tx);
    }

    /// Returns when [`Handshaker::handle_timeout`] is due. Poll after every `handle_*`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().map(Dial::due);
        let half_open = self.half_open.values().map(HalfOpen::due);
        dials.chain(half_open).chain(self.incoming.due()).chain(self.closing.due()).min()
    }

    /// Takes the next outcome for the node. Poll after every `handle_*`, before what was sent leaves.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Returns what was dropped and why.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    fn handle_message(
        &mut self,
        now: Now,
        from: Path,
        message: &[u8],
        backlog: usize,
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        match message.first().copied() {
            Some(HELLO) => self.handle_hello(now, from, message, backlog, tx),
            Some(CHALLENGE) => self.handle_challenge(now, from, message, tx),
            Some(RESPONSE) => self.handle_response(now, from, message, tx),
            Some(ESTABLISHED) => self.handle_established(now, from, message),
            _ => Err(DropReason::Malformed),
        }
    }

    /// Judges who proved its keys: it must be whom the carrier named, if it names anybody, and a member.
    fn admit(&mut self, now: Now, from: Path, claimed: &Claimed) -> Result<Leaf, DropReason> {
        if let Path::Relay(named) = from
            && claimed.id != named
        {
            return Err(DropReason::HandshakeRefused);
        }
        let proof = MembershipProof::parse(&claimed.proof).map_err(|_| DropReason::NotMember)?;
        let admitted = self
            .roster
            .accepts(&claimed.id, &proof, UnixSeconds(now.unix), &self.heads)
            .map_err(|_| DropReason::NotMember)?;
        if self.roster.leaf(&claimed.id).is_none() && !self.learned.contains(&claimed.id) {
            if self.learned.len() == LEARNED {
                return Err(DropReason::TableFull);
            }
            self.learned.insert(claimed.id);
        }
        Ok(admitted.leaf.clone())
    }

    /// Returns what we say in a message to a peer whose roster has this version, none where it did not say.
    fn claims(&self, peer: NodeId, theirs: Option<u64>, mixed: Option<&Number>, flags: u32) -> LocalClaims {
        let short = theirs.is_some_and(|version| version >= self.roster.version());
        let params = Params {
            capabilities: flags,
            lanes: LANES,
            mtu: self.mtu,
            roster_version: self.roster.version(),
            tls_pin: self.tls_pin,
            mixed_index: mixed.map_or(0, Number::get),
            connection: self.connections.get(&peer).copied().unwrap_or_default(),
        };
        LocalClaims { proof: if short { &self.short_proof } else { &self.proof }.clone(), params }
    }

    /// Allocates the number of the session after the mix; none where we do without.
    fn mixed_number(&self) -> Option<Number> {
        (self.tls_pin != [0; 32]).then(|| self.numbers.allocate()).flatten()
    }

    fn hold(&mut self, peer: NodeId, holds: bool) {
        if holds {
            self.held.insert(peer);
        } else {
            self.held.remove(&peer);
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        if self.outcomes.len() == OUTCOMES {
            self.outcomes.pop_front();
            self.counters.count(DropReason::TableFull);
        }
        self.outcomes.push_back(outcome);
    }

    fn nonce<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.random)(&mut bytes);
        bytes
    }

    fn stand_on(&mut self, roster: Arc<Roster>) {
        let proof = |kind| roster.proof(&self.own, kind).map_or_else(Vec::new, |proof| proof.encode());
        (self.proof, self.short_proof) = (proof(ProofKind::WithHead), proof(ProofKind::Bare));
        self.learned.clear();
        let gone: Vec<NodeId> =
            self.dials.keys().copied().filter(|peer| roster.leaf(peer).is_none()).collect();
        for peer in gone {
            self.stop_dial(peer);
            self.tell(Outcome::GaveUp { peer });
        }
        self.held.retain(|peer| roster.leaf(peer).is_some());
        self.connections.retain(|peer, _| roster.leaf(peer).is_some());
        self.roster = roster;
    }
}

impl fmt::Debug for Handshaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshaker")
            .field("own", &self.own)
            .field("dials", &self.dials.len())
            .field("half_open", &self.half_open.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HandshakerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakerConfig").field("net", &self.net).finish_non_exhaustive()
    }
}
