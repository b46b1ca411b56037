//! Members of one network, and a carrier between them that does only what a test tells it to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use mesh_identity::{Identity, NewMember, Roster, RosterDraft, UnixSeconds, default_pool};
use mesh_node::{
    DropReason, Handshaker, HandshakerConfig, LateDelivery, Link, Node, NodeConfig, NodeEvent, Now, Numbers,
    Path, Timings, Together, TxQueue,
};
use mesh_session::handshake::Local;
use mesh_session::{AeadKind, ProviderKind};
use mesh_wire::handshake::Params;
use mesh_wire::roster::{Link as NetworkLink, RosterSettings};
use mesh_wire::{NetId, NodeId};
use zeroize::Zeroizing;

/// The present of every world at its start.
pub(super) const UNIX: u64 = 1_800_000_000;
pub(super) const YEAR: u64 = 365 * 86_400;
/// What all members know, and an insider too.
pub(super) const SECRET: [u8; 32] = [7; 32];
/// Members whose time has come and is not over: all but the last two.
pub(super) const GOOD: usize = 3;
/// The member whose membership is over.
pub(super) const EXPIRED: usize = 3;
/// The member whose membership has not begun.
pub(super) const EARLY: usize = 4;

/// Who is in the network that all tests share; making keys would take most of the time.
pub(super) struct Cast {
    pub(super) root: Identity,
    pub(super) identities: Vec<Arc<Identity>>,
    pub(super) roster: Arc<Roster>,
    pub(super) net: NetId,
}

pub(super) static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let root = identity(100);
    let identities: Vec<_> = (1..=5).map(|number| Arc::new(identity(number))).collect();
    let ids: Vec<NodeId> = identities.iter().map(|identity| identity.node_id()).collect();
    let mut draft = RosterDraft::new(root.public(), settings(root.net_id()), ids[0], member(0)).unwrap();
    for (number, id) in ids.iter().enumerate().skip(1) {
        draft.admit(*id, member(number)).unwrap();
    }
    let roster = Arc::new(draft.sign(&root, UnixSeconds(UNIX), YEAR).unwrap());
    let net = root.net_id();
    Cast { root, identities, roster, net }
});

pub(super) fn identity(number: u8) -> Identity {
    Identity::from_seeds(&[number; 32], &[number; 32]).unwrap()
}

pub(super) fn settings(net: NetId) -> RosterSettings {
    RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: default_pool(net, 0),
        link: NetworkLink::Tun,
        mtu: 1420,
        relays: Vec::new(),
    }
}

pub(super) fn member(number: usize) -> NewMember {
    let (from, to) = match number {
        EXPIRED => (UNIX - YEAR, UNIX - 86_400),
        EARLY => (UNIX + 86_400, UNIX + YEAR),
        _ => (UNIX - YEAR, UNIX + YEAR),
    };
    NewMember {
        name: format!("n{number}").parse().unwrap(),
        groups: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        not_before: UnixSeconds(from),
        not_after: UnixSeconds(to),
    }
}

pub(super) fn id(at: usize) -> NodeId {
    CAST.identities[at].node_id()
}

/// Parameters that a node could send.
pub(super) fn params() -> Params {
    Params {
        capabilities: 0,
        lanes: 4,
        mtu: 1420,
        roster_version: 1,
        tls_pin: [0; 32],
        mixed_index: 0,
        connection: [0; 8],
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(count).unwrap()).unwrap()
    }

    /// A byte that changes whatever it is added to.
    pub(super) fn pattern(&mut self) -> u8 {
        u8::try_from(1 + self.pick(255)).unwrap()
    }
}

/// One datagram as the carrier holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mail {
    /// Whom the carrier names as the sender.
    pub(super) from: usize,
    /// To whom it is brought.
    pub(super) to: usize,
    pub(super) bytes: Vec<u8>,
}

impl Mail {
    pub(super) fn kind(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(0)
    }

    pub(super) fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut mail = self.clone();
        change(&mut mail.bytes);
        mail
    }
}

/// A node as the tests use it: the only place that knows its interface.
struct Member {
    machines: Together,
    /// With whom a session has come to stand.
    established: Vec<NodeId>,
    /// Sessions that wait for the exporter.
    waiting: BTreeMap<NodeId, [u8; 16]>,
}

impl Member {
    fn new(at: usize, mixes: bool, dice: &mut Dice) -> Self {
        let numbers = Numbers::default();
        let node = NodeConfig {
            own: id(at),
            provider: ProviderKind::AwsLc.provider(),
            net: CAST.net,
            link: Link::Ip,
            mtu: 1420,
            numbers: numbers.clone(),
            endpoints: BTreeMap::new(),
            direct: false,
            birthday: false,
            hold_until_mixed: mixes,
            timings: Timings::default(),
            threads: 1,
        };
        let handshaker = HandshakerConfig {
            local: local(at),
            net: CAST.net,
            network_secret: Zeroizing::new(SECRET),
            mtu: 1420,
            tls_pin: if mixes { [1 + dice.roll().to_le_bytes()[0] % 250; 32] } else { [0; 32] },
            numbers,
        };
        let mut random = || {
            let mut dice = Dice(dice.roll());
            Box::new(move |bytes: &mut [u8]| bytes.fill_with(|| dice.roll().to_le_bytes()[0]))
        };
        let node = Node::new(node, Arc::clone(&CAST.roster), random());
        let handshaker = Handshaker::new(handshaker, Arc::clone(&CAST.roster), random());
        Self { machines: Together { node, handshaker }, established: Vec::new(), waiting: BTreeMap::new() }
    }

    fn packet(&mut self, now: Now, packet: &[u8], tx: &mut TxQueue) {
        self.machines.with_node(now, tx, |node, tx| node.handle_packet(now, packet, tx));
    }

    /// Returns the packets that went to the device.
    fn datagram(&mut self, now: Now, from: NodeId, mut bytes: Vec<u8>, tx: &mut TxQueue) -> Vec<Vec<u8>> {
        let mut delivered = self.machines.handle_datagram(now, Path::Relay(from), &mut bytes, tx);
        delivered.extend(self.settle(now, tx));
        let packet = |delivery| match delivery {
            LateDelivery::Packet(packet) => packet,
            LateDelivery::Quic(..) => panic!("nobody sends QUIC here"),
        };
        delivered.into_iter().map(packet).collect()
    }

    /// Takes the events. Keys that wait for the exporter of QUIC get it once both ends hold the session; here it is made
    /// of what only the two of them know.
    fn settle(&mut self, now: Now, tx: &mut TxQueue) -> Vec<LateDelivery> {
        let mut late = Vec::new();
        while let Some(event) = self.machines.node.poll_event() {
            match event {
                NodeEvent::Session { peer, session, mixes: true, .. } => {
                    self.waiting.insert(peer, session);
                }
                NodeEvent::Established { peer } => {
                    self.established.push(peer);
                    // QUIC has something to say to a peer that holds the session.
                    let Some(session) = self.waiting.remove(&peer) else { continue };
                    let exporter = Zeroizing::new([session[0]; 64]);
                    self.machines.with_node(now, tx, |node, tx| node.mix(now, peer, session, &exporter, tx));
                    late.extend(std::iter::from_fn(|| self.machines.node.poll_late()));
                }
                NodeEvent::Session { .. }
                | NodeEvent::Pong { .. }
                | NodeEvent::Path { .. }
                | NodeEvent::PathSize { .. }
                | NodeEvent::Relays { .. }
                | NodeEvent::Door { .. }
                | NodeEvent::NoDirect { .. }
                | NodeEvent::Absent { .. }
                | NodeEvent::Gather
                | NodeEvent::Ice { .. }
                | NodeEvent::Near { .. }
                | NodeEvent::Guessed { .. }
                | NodeEvent::Idle { .. }
                | NodeEvent::Lost { .. } => {}
            }
        }
        late
    }

    fn timeout(&mut self, now: Now, tx: &mut TxQueue) {
        self.machines.handle_timeout(now, tx);
    }

    fn set_roster(&mut self, now: Now, roster: Arc<Roster>, tx: &mut TxQueue) {
        self.machines.with_node(now, tx, |node, tx| node.set_roster(roster, tx));
    }

    fn due(&self) -> Option<Instant> {
        self.machines.poll_timeout()
    }

    /// The session in use with a peer.
    fn session(&self, now: Instant, peer: NodeId) -> Option<[u8; 16]> {
        let peers = self.machines.node.snapshot(now, self.machines.handshaker.counters()).peers;
        peers.into_iter().find(|found| found.id == peer)?.session.map(|session| session.id)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.machines.node.counters().get(reason) + self.machines.handshaker.counters().get(reason)
    }
}

/// The node that a path over the relay leads to; there are no others.
fn party(path: Path) -> NodeId {
    match path {
        Path::Relay(party) => party,
        Path::Udp(address) => panic!("nobody knows an address, and yet {address} was sent to"),
    }
}

/// Who proves what.
pub(super) fn local(at: usize) -> Local {
    Local {
        identity: Arc::clone(&CAST.identities[at]),
        provider: ProviderKind::AwsLc.provider(),
        aead: AeadKind::AwsLc.provider(),
    }
}

/// Some members and what is on its way between them. Nothing moves by itself.
pub(super) struct World {
    members: Vec<Member>,
    mixes: bool,
    now: Instant,
    pub(super) dice: Dice,
    /// What nodes sent, in order, not delivered yet.
    pub(super) wire: VecDeque<Mail>,
    /// Everything that nodes ever sent.
    pub(super) tape: Vec<Mail>,
    /// What nodes sent to who is no member.
    strays: Vec<(NodeId, Vec<u8>)>,
    number: u64,
    sent: BTreeMap<u64, (usize, usize)>,
    received: BTreeSet<u64>,
    /// How often a session came to stand at each node.
    established: Vec<usize>,
}

impl World {
    /// Makes a world in which, where the seed is odd, the exporter of QUIC is mixed into the keys.
    pub(super) fn new(seed: u64) -> Self {
        let (mut dice, mixes) = (Dice(seed), !seed.is_multiple_of(2));
        let members: Vec<_> =
            (0..CAST.identities.len()).map(|at| Member::new(at, mixes, &mut dice)).collect();
        Self {
            established: vec![0; members.len()],
            members,
            mixes,
            now: *START,
            dice,
            wire: VecDeque::new(),
            tape: Vec::new(),
            strays: Vec::new(),
            number: 0,
            sent: BTreeMap::new(),
            received: BTreeSet::new(),
        }
    }

    fn time(&self) -> Now {
        Now { instant: self.now, unix: UNIX }
    }

    /// Gives a node a packet for another one and returns the packet's number.
    pub(super) fn send(&mut self, from: usize, to: usize) -> u64 {
        self.number += 1;
        self.sent.insert(self.number, (from, to));
        let packet = packet(address(from), address(to), self.number);
        let (now, mut tx) = (self.time(), TxQueue::new());
        self.members[from].packet(now, &packet, &mut tx);
        self.take(from, tx);
        self.number
    }

    /// Brings one datagram.
    pub(super) fn deliver(&mut self, mail: &Mail) {
        let (now, mut tx) = (self.time(), TxQueue::new());
        let packets = self.members[mail.to].datagram(now, id(mail.from), mail.bytes.clone(), &mut tx);
        for packet in packets {
            let number = number_of(&packet);
            let (from, to) = *self.sent.get(&number).expect("a packet that nobody sent was accepted");
            assert_eq!(to, mail.to, "packet {number} of {from} was accepted by the wrong node");
            assert!(self.received.insert(number), "packet {number} was accepted twice");
        }
        self.take(mail.to, tx);
    }

    /// Brings one datagram from somebody who is no member, and returns what goes back to that name.
    pub(super) fn deliver_as(&mut self, from: NodeId, to: usize, bytes: &[u8]) -> Vec<Vec<u8>> {
        let (now, mut tx) = (self.time(), TxQueue::new());
        let packets = self.members[to].datagram(now, from, bytes.to_vec(), &mut tx);
        assert!(packets.is_empty(), "a packet of a stranger was accepted");
        self.take(to, tx);
        self.strays
            .drain(..)
            .map(|(name, bytes)| if name == from { bytes } else { panic!("sent to {name}") })
            .collect()
    }

    /// Gives a node a newer roster.
    pub(super) fn set_roster(&mut self, at: usize, roster: Roster) {
        let (now, mut tx) = (self.time(), TxQueue::new());
        self.members[at].set_roster(now, Arc::new(roster), &mut tx);
        self.take(at, tx);
    }

    /// Starts a node anew: it has forgotten everything but its keys and its roster.
    pub(super) fn restart(&mut self, at: usize) {
        self.members[at] = Member::new(at, self.mixes, &mut self.dice);
    }

    /// Takes what is on its way.
    pub(super) fn drain(&mut self) -> Vec<Mail> {
        self.wire.drain(..).collect()
    }

    /// Leads a handshake of 0 with 1 honestly until message `stage` (0 HELLO, 3 ESTABLISHED) is on its way, and returns
    /// it undelivered.
    pub(super) fn stage(&mut self, stage: usize) -> Mail {
        self.stage_between(0, 1, stage)
    }

    pub(super) fn stage_between(&mut self, from: usize, to: usize, stage: usize) -> Mail {
        assert!(self.wire.is_empty(), "something is on its way already");
        self.send(from, to);
        self.go_on(stage)
    }

    /// Delivers `steps` messages, of which each is answered by the next one, and returns the one after them.
    pub(super) fn go_on(&mut self, steps: usize) -> Mail {
        for _ in 0..steps {
            let mail = self.only();
            self.deliver(&mail);
        }
        self.only()
    }

    /// The one message that is on its way.
    pub(super) fn only(&mut self) -> Mail {
        let mails = self.drain();
        assert_eq!(
            mails.len(),
            1,
            "one message is on its way, of {:?}",
            mails.iter().map(Mail::kind).collect::<Vec<_>>()
        );
        mails.into_iter().next().unwrap()
    }

    /// Lets time pass under a carrier that does its work.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..5_000 {
            if let Some(mail) = self.wire.pop_front() {
                self.deliver(&mail);
            } else if let Some(due) =
                self.members.iter().filter_map(Member::due).min().filter(|at| *at <= end)
            {
                self.now = self.now.max(due);
                self.fire();
            } else {
                self.now = end;
                return;
            }
        }
        panic!("the nodes do not come to rest");
    }

    /// Lets time pass under a carrier that keeps everything; returns what was sent meanwhile.
    pub(super) fn pass_in_silence(&mut self, duration: Duration) -> Vec<Mail> {
        self.now += duration;
        self.fire();
        self.drain()
    }

    fn fire(&mut self) {
        for at in 0..self.members.len() {
            if self.members[at].due().is_some_and(|due| due <= self.now) {
                let (now, mut tx) = (self.time(), TxQueue::new());
                self.members[at].timeout(now, &mut tx);
                self.take(at, tx);
            }
        }
    }

    fn take(&mut self, from: usize, mut tx: TxQueue) {
        while let Some(transmit) = tx.pop() {
            let to = party(transmit.to);
            let Some(to) = (0..self.members.len()).find(|at| id(*at) == to) else {
                leaks_nothing(from, &transmit.payload);
                self.strays.push((to, transmit.payload.to_vec()));
                continue;
            };
            let segment = transmit.segment.map_or(transmit.payload.len(), usize::from);
            for datagram in transmit.payload.chunks(segment) {
                leaks_nothing(from, datagram);
                let mail = Mail { from, to, bytes: datagram.to_vec() };
                self.tape.push(mail.clone());
                self.wire.push_back(mail);
            }
        }
        self.established[from] += std::mem::take(&mut self.members[from].established).len();
    }

    /// The session that one node uses with another.
    pub(super) fn session(&self, at: usize, with: usize) -> Option<[u8; 16]> {
        self.members[at].session(self.now, id(with))
    }

    /// How often a session came to stand at a node.
    pub(super) fn established(&self, at: usize) -> usize {
        self.established[at]
    }

    pub(super) fn received(&self) -> usize {
        self.received.len()
    }

    pub(super) fn drops(&self, at: usize, reason: DropReason) -> u64 {
        self.members[at].drops(reason)
    }

    /// Fails unless `at` has no session with anybody and never had one.
    pub(super) fn stands_alone(&self, at: usize, what: &str) {
        for with in (0..self.members.len()).filter(|with| *with != at) {
            assert_eq!(self.session(at, with), None, "{what}: {at} has a session with {with}");
        }
        assert_eq!(self.established[at], 0, "{what}: a session came to stand at {at}");
    }

    /// Fails unless the two reach each other soon after the carrier began to do its work.
    pub(super) fn recovers(&mut self, a: usize, b: usize, what: &str) {
        let end = self.now + RECOVERY;
        loop {
            let there = self.send(a, b);
            self.pass(Duration::from_millis(500));
            let back = self.send(b, a);
            self.pass(Duration::from_millis(500));
            if [there, back].iter().all(|number| self.received.contains(number)) {
                return;
            }
            assert!(self.now < end, "{what}: {a} and {b} do not reach each other");
        }
    }

    /// The same, under one session; each may send under a session of its own only where both began one.
    pub(super) fn agree(&mut self, a: usize, b: usize, what: &str) {
        self.recovers(a, b, what);
        let session = self.session(a, b);
        assert!(session.is_some(), "{what}: {a} has no session with {b}");
        assert_eq!(session, self.session(b, a), "{what}: {a} and {b} use different sessions");
    }
}

/// Longer than a node sends into a session that its peer has forgotten, and the longest wait between two attempts.
const RECOVERY: Duration = Duration::from_secs(35);

/// Whatever a node sends, nothing of a packet and no public key of a member stands in it in clear.
fn leaks_nothing(from: usize, datagram: &[u8]) {
    assert!(!contains(datagram, MARK), "plaintext of a packet from {from} on the wire");
    let keys = CAST.identities[from].public().as_bytes();
    assert!(!contains(datagram, &keys[keys.len() - 32..]), "the Ed25519 key of {from} on the wire in clear");
    assert!(!contains(datagram, &keys[..32]), "the ML-DSA key of {from} on the wire in clear");
    assert!(!contains(datagram, &id(from).0), "the node id of {from} on the wire in clear");
}

/// Jumps from one occurrence of the first byte to the next: a plain search takes a third of the run in a debug build.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == part[0]) {
        if rest[at..].starts_with(part) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Stands in every packet, so that plaintext on the wire is recognised.
const MARK: &[u8] = b"plaintext under a malicious relay";

pub(super) fn address(at: usize) -> Ipv4Addr {
    CAST.roster.leaf(&id(at)).unwrap().ipv4
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, number: u64) -> Vec<u8> {
    let length = u16::try_from(20 + 8 + MARK.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(number.to_be_bytes());
    packet.extend(MARK);
    packet
}

fn number_of(packet: &[u8]) -> u64 {
    assert!(packet.ends_with(MARK), "a packet arrived changed");
    u64::from_be_bytes(packet[20..28].try_into().unwrap())
}
