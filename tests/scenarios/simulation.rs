//! Two to five nodes under a carrier that loses, repeats, reorders and damages datagrams, lies about who is there, and
//! sees nodes restart. A seed replays exactly, up to the keys themselves. Every key is a recording one: a nonce that
//! stands for two contents fails the run.
//!
//! `SHADOWMESH_SEEDS=100000 cargo test -p mesh-tests simulation` runs more of them, `SHADOWMESH_SEED=17` a single one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use mesh_ice::Finder;
use mesh_identity::{Identity, NewMember, Roster, RosterDraft, UnixSeconds, default_pool};
use mesh_node::{
    DropReason, Handshaker, HandshakerConfig, LateDelivery, Link, Node, NodeConfig, NodeEvent, Now, Numbers,
    Path, Timings, Together, TxQueue,
};
use mesh_session::ProviderKind;
use mesh_session::handshake::Local;
use mesh_wire::NodeId;
use mesh_wire::frame::SEALED;
use mesh_wire::roster::{Link as NetworkLink, RosterSettings};
use zeroize::Zeroizing;

use self::paths::Air;
use self::quic::{Ends, Told};
use self::recorder::RECORDER;

mod agents;
mod paths;
mod quic;
mod recorder;

const SEEDS: u64 = 10_000;
const UNIX: u64 = 1_800_000_000;
const YEAR: u64 = 365 * 86_400;
const NODES: usize = 5;
/// How long the carrier misbehaves, and how long it may take until everybody reaches everybody again.
const TROUBLE: Duration = Duration::from_secs(45);
const RECOVERY: Duration = Duration::from_secs(25);

/// The members of the one network that all seeds share; making keys would take most of the time.
struct Cast {
    identities: Vec<Arc<Identity>>,
    roster: Arc<Roster>,
    net: mesh_wire::NetId,
}

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    // Fixed seeds: which of two ids is the smaller one decides between sessions.
    let identity = |number: u8| Identity::from_seeds(&[number; 32], &[number; 32]).unwrap();
    let root = identity(100);
    let identities: Vec<_> = (1..).take(NODES).map(|number| Arc::new(identity(number))).collect();
    let member = |number: usize| NewMember {
        name: format!("n{number}").parse().unwrap(),
        groups: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        not_before: UnixSeconds(UNIX - YEAR),
        not_after: UnixSeconds(UNIX + YEAR),
    };
    let settings = RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: default_pool(root.net_id(), 0),
        link: NetworkLink::Tun,
        mtu: 1420,
        relays: Vec::new(),
    };
    let mut draft = RosterDraft::new(root.public(), settings, identities[0].node_id(), member(0)).unwrap();
    for (number, identity) in identities.iter().enumerate().skip(1) {
        draft.admit(identity.node_id(), member(number)).unwrap();
    }
    let roster = Arc::new(draft.sign(&root, UnixSeconds(UNIX), YEAR).unwrap());
    Cast { identities, roster, net: root.net_id() }
});

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.below(u64::try_from(count).unwrap())).unwrap()
    }
}

/// How badly the carrier behaves.
#[derive(Clone, Copy, Default)]
struct Weather {
    loss: u64,
    repeat: u64,
    damage: u64,
    delay_ms: u64,
    restart: u64,
    absence: u64,
}

struct Simulation {
    seed: u64,
    dice: Dice,
    now: Instant,
    /// Seconds that this machine's wall clock is off.
    clock: i64,
    weather: Weather,
    nodes: Vec<Together>,
    /// The QUIC connections of each node, as far as they make keys.
    quic: Vec<Ends>,
    /// Peers that a node has had a session with since it started.
    met: BTreeSet<(usize, usize)>,
    starts: u64,
    /// By whom, over what they come to him, and what.
    in_flight: BTreeMap<(Instant, u64), (usize, Path, Vec<u8>)>,
    /// What there is beside the relay.
    air: Option<Air>,
    /// The agents of ICE of each node, where there are any.
    agents: Option<Vec<Finder<NodeId>>>,
    /// When the first two nodes find out where they are.
    learn_at: [Option<Instant>; 2],
    number: u64,
    sent: BTreeMap<u64, (usize, usize)>,
    received: BTreeSet<u64>,
    drops: BTreeMap<DropReason, u64>,
    /// A hash of everything that the carrier was given: when, from whom, for whom, what kind and how long.
    trace: DefaultHasher,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self::with_air(seed, None)
    }

    fn with_air(seed: u64, air: Option<Air>) -> Self {
        let mut dice = Dice(seed);
        // Larger networks are rare: they cost more and show little that pairs do not.
        let count = if dice.percent(20) { 2 + dice.pick(NODES - 1) } else { 2 };
        recorder::forget(seed);
        let weather = Weather {
            loss: dice.below(40),
            repeat: dice.below(20),
            damage: dice.below(10),
            delay_ms: 1 + dice.below(400),
            restart: dice.below(2),
            absence: dice.below(4),
        };
        let mut simulation = Self {
            seed,
            dice,
            now: *START,
            clock: 0,
            weather,
            nodes: Vec::new(),
            quic: Vec::new(),
            met: BTreeSet::new(),
            starts: 0,
            in_flight: BTreeMap::new(),
            air,
            agents: None,
            learn_at: [None; 2],
            number: 0,
            sent: BTreeMap::new(),
            received: BTreeSet::new(),
            drops: BTreeMap::new(),
            trace: DefaultHasher::new(),
        };
        for at in 0..count {
            let node = simulation.node(at);
            simulation.nodes.push(node);
            simulation.quic.push(Ends::default());
        }
        simulation
    }

    fn node(&mut self, at: usize) -> Together {
        let identity = &CAST.identities[at];
        let numbers = Numbers::default();
        let provider = ProviderKind::AwsLc.provider();
        self.starts += 1;
        let mut tls_pin = [0; 32];
        tls_pin[..8].copy_from_slice(&self.starts.to_le_bytes());
        let node = NodeConfig {
            own: identity.node_id(),
            provider,
            net: CAST.net,
            link: Link::Ip,
            mtu: 1420,
            numbers: numbers.clone(),
            endpoints: BTreeMap::new(),
            direct: self.air.is_some(),
            birthday: false,
            hold_until_mixed: true,
            // Fast enough for rekeys and new handshakes to happen in the middle of trouble.
            threads: 1,
            timings: Timings {
                rekey: Duration::from_secs(7),
                reject: Duration::from_secs(30),
                handshake: Duration::from_secs(40),
                // And by count, in a part of the runs.
                frames: if self.seed.is_multiple_of(4) && self.air.is_none() { 20 } else { 1 << 59 },
            },
        };
        let handshaker = HandshakerConfig {
            local: Local { identity: Arc::clone(identity), provider, aead: &RECORDER },
            net: CAST.net,
            network_secret: Zeroizing::new([7; 32]),
            mtu: 1420,
            tls_pin,
            numbers,
        };
        let mut random = || {
            let mut dice = Dice(self.dice.roll());
            Box::new(move |bytes: &mut [u8]| bytes.fill_with(|| dice.roll().to_le_bytes()[0]))
        };
        Together {
            node: Node::new(node, Arc::clone(&CAST.roster), random()),
            handshaker: Handshaker::new(handshaker, Arc::clone(&CAST.roster), random()),
        }
    }

    fn time(&self) -> Now {
        Now { instant: self.now, unix: UNIX.saturating_add_signed(self.clock) }
    }

    fn run(&mut self) {
        let end = self.now + TROUBLE;
        while self.now < end {
            self.trouble();
            let (from, to) = self.pair();
            self.send(from, to);
            let pause = Duration::from_millis(50 + self.dice.below(2500));
            self.pass(pause);
        }
        self.heal();
        let end = self.now + RECOVERY;
        while self.now < end {
            let (from, to) = self.pair();
            self.send(from, to);
            self.pass(Duration::from_millis(200));
        }
        self.everybody_reaches_everybody();
        self.nobody_is_busy();
    }

    fn pair(&mut self) -> (usize, usize) {
        let from = self.dice.pick(self.nodes.len());
        let to = (from + 1 + self.dice.pick(self.nodes.len() - 1)) % self.nodes.len();
        (from, to)
    }

    fn trouble(&mut self) {
        let at = self.dice.pick(self.nodes.len());
        if self.dice.percent(self.weather.restart) {
            self.note_drops(at);
            self.nodes[at] = self.node(at);
            self.quic[at] = Ends::default();
            self.met.retain(|(who, _)| *who != at);
        }
        if self.dice.percent(self.weather.absence) {
            let (observer, observed) = self.pair();
            let present = self.dice.percent(50);
            self.presence(observer, observed, present);
        }
        if self.dice.percent(2) {
            self.clock = i64::try_from(self.dice.below(86_400)).unwrap() - 43_200;
        }
    }

    /// The carrier works again and says truly who is there.
    fn heal(&mut self) {
        self.weather = Weather { delay_ms: 1 + self.dice.below(50), ..Weather::default() };
        for observer in 0..self.nodes.len() {
            for observed in 0..self.nodes.len() {
                if observer != observed {
                    self.presence(observer, observed, true);
                }
            }
        }
    }

    fn presence(&mut self, observer: usize, observed: usize, present: bool) {
        let peer = CAST.identities[observed].node_id();
        self.with(observer, |node, now, tx| node.handle_presence(now, peer, present, tx));
    }

    /// Hands a packet with a number of its own to a node's device side.
    fn send(&mut self, from: usize, to: usize) -> u64 {
        self.send_long(from, to, 0)
    }

    /// The same with so many bytes of padding.
    fn send_long(&mut self, from: usize, to: usize, padding: usize) -> u64 {
        self.number += 1;
        let number = self.number;
        self.sent.insert(number, (from, to));
        let packet = packet(address(from), address(to), number, padding);
        self.with(from, |node, now, tx| node.handle_packet(now, &packet, tx));
        number
    }

    fn with(&mut self, at: usize, act: impl FnOnce(&mut Node, Now, &mut TxQueue)) {
        let mut tx = TxQueue::new();
        let now = self.time();
        self.nodes[at].with_node(now, &mut tx, |node, tx| act(node, now, tx));
        self.take(at, tx);
    }

    /// Gives what a node sent to the carrier.
    fn take(&mut self, from: usize, mut tx: TxQueue) {
        while let Some(transmit) = tx.pop() {
            let to = match transmit.to {
                Path::Relay(to) => to,
                Path::Udp(to) => {
                    self.fly(from, to, &transmit);
                    continue;
                }
            };
            let Some(to) = (0..self.nodes.len()).find(|at| CAST.identities[*at].node_id() == to) else {
                continue;
            };
            let segment = transmit.segment.map_or(transmit.payload.len(), usize::from);
            for datagram in transmit.payload.chunks(segment) {
                // Handshake messages are long and random; to search them too would take most of the time.
                let clear = datagram.len() < 500 && contains(datagram, MARK);
                assert!(!clear, "seed {}: plaintext on the wire", self.seed);
                let early =
                    datagram[0] == SEALED && !self.met.contains(&(from, to)) && !self.announced(from, to);
                assert!(!early, "seed {}: a frame before the handshake was done", self.seed);
                let copies = if self.dice.percent(self.weather.repeat) { 2 } else { 1 };
                for _ in 0..copies {
                    self.launch(from, to, datagram.to_vec());
                }
            }
        }
        self.hear(from);
    }

    /// Tells whether a session that was just made explains the frame.
    fn announced(&mut self, from: usize, to: usize) -> bool {
        let peer = CAST.identities[to].node_id();
        let known = self.view(from, to).is_some_and(|view| view.id == peer && view.session.is_some());
        if known {
            self.met.insert((from, to));
        }
        known
    }

    /// Takes a node's events.
    fn hear(&mut self, at: usize) {
        while let Some(event) = self.nodes[at].node.poll_event() {
            match event {
                NodeEvent::Pong { rtt, .. } => {
                    assert!(rtt < Duration::from_secs(60), "seed {}: absurd rtt {rtt:?}", self.seed);
                }
                NodeEvent::Session { peer, session, tls_pin, keeps_connection, mixes } => {
                    assert!(mixes, "seed {}: a session that is not to be mixed", self.seed);
                    let client = CAST.identities[at].node_id() < peer;
                    let connection = self.dice.roll() | 1;
                    let keeps = keeps_connection;
                    let told =
                        self.quic[at].session(self.now, peer, session, (tls_pin, keeps), client, connection);
                    self.tell(at, peer, told);
                }
                // The connection stays for handshakes under way; no other one is told of it.
                NodeEvent::Idle { peer } => self.tell(at, peer, vec![Told::Connection([0; 8])]),
                NodeEvent::Lost { peer } => {
                    let told = self.quic[at].forget(peer);
                    self.tell(at, peer, told);
                }
                NodeEvent::Ice { peer, offer, remotes } => self.ask_agent(at, peer, offer, remotes),
                NodeEvent::Established { .. }
                | NodeEvent::Path { .. }
                | NodeEvent::PathSize { .. }
                | NodeEvent::Relays { .. }
                | NodeEvent::Door { .. }
                | NodeEvent::NoDirect { .. }
                | NodeEvent::Absent { .. }
                | NodeEvent::Gather
                | NodeEvent::Near { .. }
                | NodeEvent::Guessed { .. } => {}
            }
        }
    }

    /// Does what the QUIC endpoint of a node asks for.
    fn tell(&mut self, at: usize, peer: NodeId, told: Vec<Told>) {
        let (now, mut tx) = (self.time(), TxQueue::new());
        for told in told {
            let node = &mut self.nodes[at];
            match told {
                Told::Send(datagram) => node.with_node(now, &mut tx, |node, tx| {
                    node.handle_quic(now, peer, &datagram, datagram.len(), tx);
                }),
                Told::Connection(id) => {
                    let order = mesh_node::Order::Connection { peer, id };
                    node.handshaker.handle_order(now, order, &mut tx);
                }
                Told::Mix(session, exporter) => {
                    node.with_node(now, &mut tx, |node, tx| node.mix(now, peer, session, &exporter, tx));
                    while let Some(late) = self.nodes[at].node.poll_late() {
                        self.arrive(at, late);
                    }
                }
            }
        }
        self.take(at, tx);
    }

    fn launch(&mut self, from: usize, to: usize, mut datagram: Vec<u8>) {
        (self.now - *START, from, to, datagram[0], datagram.len()).hash(&mut self.trace);
        if self.dice.percent(self.weather.loss) {
            return;
        }
        if self.dice.percent(self.weather.damage) {
            let at = self.dice.pick(datagram.len());
            datagram[at] ^= 1 << self.dice.below(8);
        }
        let delay = Duration::from_millis(1 + self.dice.below(self.weather.delay_ms));
        let unique = self.dice.roll();
        let path = Path::Relay(CAST.identities[from].node_id());
        self.in_flight.insert((self.now + delay, unique), (to, path, datagram));
    }

    /// Lets time pass, one delivery or timer after the other.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut steps = 0;
        loop {
            let arrival = self.in_flight.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.iter().filter_map(Together::poll_timeout);
            let agents = self.agents.iter_mut().flatten().filter_map(Finder::poll_timeout);
            let timer = timers.chain(self.quic.iter().filter_map(Ends::due)).chain(agents).min();
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            steps += 1;
            assert!(steps < 20_000, "seed {}: the nodes do not come to rest", self.seed);
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, (to, path, datagram)) = self.in_flight.pop_first().unwrap();
                self.deliver(to, path, datagram);
            }
            for at in 0..self.nodes.len() {
                if self.nodes[at].poll_timeout().is_some_and(|due| due <= self.now) {
                    let (now, mut tx) = (self.time(), TxQueue::new());
                    self.nodes[at].handle_timeout(now, &mut tx);
                    self.take(at, tx);
                }
                self.agent_timeout(at);
                if self.quic[at].due().is_some_and(|due| due <= self.now) {
                    let connection = self.dice.roll() | 1;
                    for (peer, told) in self.quic[at].timeout(self.now, connection) {
                        self.tell(at, peer, told);
                    }
                }
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, path: Path, mut datagram: Vec<u8>) {
        if self.is_for_agent(to, path, &datagram) {
            return;
        }
        let (now, mut tx) = (self.time(), TxQueue::new());
        let late = self.nodes[to].handle_datagram(now, path, &mut datagram, &mut tx);
        // Sessions before what came under them.
        self.take(to, tx);
        for delivered in late {
            self.arrive(to, delivered);
        }
    }

    /// Takes what a node has for its device or its QUIC endpoint.
    fn arrive(&mut self, to: usize, delivered: LateDelivery) {
        match delivered {
            // Somebody is told that a packet of his was too long.
            LateDelivery::Packet(packet) if packet[9] == ICMP => assert!(self.air.is_some()),
            LateDelivery::Packet(packet) => {
                let (seed, number) = (self.seed, number_of(&packet));
                let sent = self.sent.get(&number).copied();
                let Some((from, _)) = sent.filter(|(_, receiver)| *receiver == to) else {
                    panic!("seed {seed}: a packet nobody sent to {to}")
                };
                assert!(self.received.insert(number), "seed {seed}: packet {number} was accepted twice");
                let session = self.view(to, from).and_then(|view| view.session);
                assert!(session.is_some_and(|session| session.mixed), "seed {seed}: keys without exporter");
            }
            LateDelivery::Quic(peer, datagram) => {
                let told = self.quic[to].datagram(self.now, peer, &datagram);
                self.tell(to, peer, told);
            }
        }
    }

    fn everybody_reaches_everybody(&mut self) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                let number = self.send(from, to);
                self.pass(Duration::from_secs(2));
                let seed = self.seed;
                let ends = || (self.view(from, to), self.view(to, from));
                assert!(
                    self.received.contains(&number),
                    "seed {seed}: {from} does not reach {to}: {:#?}",
                    ends()
                );
            }
        }
    }

    /// What one node knows of another, for the message of a failure.
    fn view(&self, at: usize, of: usize) -> Option<mesh_node::PeerSnapshot> {
        let node = &self.nodes[at];
        let peers = node.node.snapshot(self.now, node.handshaker.counters()).peers;
        peers.into_iter().find(|peer| peer.id == CAST.identities[of].node_id())
    }

    /// After the traffic ends, the nodes fall silent.
    fn nobody_is_busy(&mut self) {
        self.pass(Duration::from_secs(200));
        for at in 0..self.nodes.len() {
            assert_eq!(self.nodes[at].poll_timeout(), None, "seed {}: node {at} keeps a timer", self.seed);
            self.note_drops(at);
        }
    }

    fn note_drops(&mut self, at: usize) {
        let node = &self.nodes[at];
        for (reason, count) in node.node.counters().plus(node.handshaker.counters()).iter() {
            *self.drops.entry(reason).or_default() += count;
        }
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Stands in every packet, so that plaintext on the wire is recognised.
const MARK: &[u8] = b"plaintext of a simulated packet";

const ICMP: u8 = 1;

fn address(at: usize) -> Ipv4Addr {
    let id: NodeId = CAST.identities[at].node_id();
    CAST.roster.leaf(&id).unwrap().ipv4
}

/// One that may not be cut.
fn packet(from: Ipv4Addr, to: Ipv4Addr, number: u64, padding: usize) -> Vec<u8> {
    let length = u16::try_from(20 + 8 + padding + MARK.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(number.to_be_bytes());
    packet.resize(packet.len() + padding, 0);
    packet.extend(MARK);
    packet
}

fn number_of(packet: &[u8]) -> u64 {
    assert!(packet.ends_with(MARK), "a packet arrived changed");
    u64::from_be_bytes(packet[20..28].try_into().unwrap())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Runs so many seeds, or those that the environment wants, on all threads; returns how many there were.
fn each_seed(usual: u64, run: impl Fn(u64) + Sync) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, last) = match number("SHADOWMESH_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SHADOWMESH_SEEDS").unwrap_or(usual)),
    };
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
    last - first
}

#[test]
fn nodes_recover_from_any_weather() {
    let drops = Mutex::new(BTreeMap::<DropReason, u64>::new());
    let seeds = each_seed(SEEDS, |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        let mut all = drops.lock().unwrap();
        for (reason, count) in simulation.drops {
            *all.entry(reason).or_default() += count;
        }
    });
    if seeds >= 1000 {
        // What the weather is meant to cause has to have occurred, or the test shows nothing.
        let drops = drops.into_inner().unwrap();
        for reason in [
            DropReason::Replayed,
            DropReason::Forged,
            DropReason::HandshakeRefused,
            DropReason::UnknownSession,
        ] {
            assert!(drops.get(&reason).is_some_and(|count| *count > 100), "{reason:?} is rare: {drops:?}");
        }
    }
}

#[test]
fn seed_replays_exactly() {
    let trace = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        simulation.trace.finish()
    };
    let traces: BTreeSet<u64> = (0..20)
        .map(|seed| {
            let first = trace(seed);
            assert_eq!(first, trace(seed), "seed {seed} takes another course");
            first
        })
        .collect();
    assert_eq!(traces.len(), 20, "seeds differ");
}
