//! Nodes on a carrier that belongs to the enemy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_identity::Roster;
use mesh_node::{
    Handshaker, HandshakerConfig, LateDelivery, Link, Node, NodeConfig, NodeEvent, Now, Numbers, Path,
    Timings, Together, TxQueue,
};
use mesh_packet::IpPacket;
use mesh_session::ProviderKind;
use mesh_wire::control::{Candidate, CandidateKind, Candidates, Mapping};
use zeroize::Zeroizing;

use crate::input::{Input, edited};
use crate::world::{SECRET, UNIX, world};

/// Lets three nodes send packets and QUIC datagrams to each other, over a relay and over UDP, while the script delivers,
/// holds back, repeats, edits and invents datagrams; in the end the carrier is honest, and a packet has to arrive.
pub fn node(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let mut net = Net::new(Kind { mixes: flags & 4 != 0, udp: flags & 8 != 0 });
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        net.step(&mut input);
    }
    if flags & 3 == 0 {
        net.heal();
    }
}

struct Net {
    kind: Kind,
    now: Instant,
    nodes: Vec<Together>,
    starts: u8,
    /// Datagrams on their way.
    carried: Vec<Datagram>,
    /// Every datagram that a node sent, with its receiver.
    genuine: BTreeSet<(usize, Vec<u8>)>,
    /// How often something was sent to a node and has not arrived.
    sent: BTreeMap<(usize, Sent), usize>,
}

/// How the nodes are configured.
#[derive(Clone, Copy)]
struct Kind {
    /// Packets wait for a key from a QUIC connection, which always stands.
    mixes: bool,
    /// The nodes know each other's UDP addresses.
    udp: bool,
}

/// What one member sent to another one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sent {
    Packet(Vec<u8>),
    Quic(usize, Vec<u8>),
}

#[derive(Clone)]
struct Datagram {
    /// As its receiver sees it.
    from: Path,
    to: usize,
    bytes: Vec<u8>,
}

impl Net {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            now: Instant::now(),
            nodes: (0..NODES).map(|member| start(member, &world().roster, kind, 1)).collect(),
            starts: 1,
            carried: Vec::new(),
            genuine: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.u8() % 15;
        let who = input.below(NODES);
        match step {
            0 | 1 => {
                let packet = ipv4(who, input.below(NODES), &[input.u8(); 24]);
                self.send(who, &packet);
            }
            2 => {
                let length = usize::from(input.u8());
                self.send(who, input.bytes(length));
            }
            3 => {
                let (from, length) = (path(input), usize::from(input.u16() % 2048));
                self.deliver(&Datagram { from, to: who, bytes: input.bytes(length).to_vec() });
            }
            4..=7 => self.carry(input, |net, datagram, _| {
                net.carried.retain(|other| other.bytes != datagram.bytes);
                net.deliver(datagram);
            }),
            8 => self.carry(input, |net, datagram, _| net.deliver(datagram)),
            9 => self.carry(input, |net, datagram, input| {
                let other = net.carried.last().map_or_else(Vec::new, |other| other.bytes.clone());
                let from = if input.flag() { datagram.from } else { path(input) };
                let bytes = edited(&datagram.bytes, &other, input);
                net.deliver(&Datagram { from, bytes, ..*datagram });
            }),
            10 => self.pass(Duration::from_millis(u64::from(input.u16()) * 2)),
            11 => {
                let (peer, present) = (world().id(input.below(NODES)), input.flag());
                self.act(who, |node, now, tx| node.handle_presence(now, peer, present, tx));
            }
            12 => {
                let peer = world().id(input.below(NODES));
                self.act(who, |node, now, tx| {
                    if node.ping(now, peer, tx).is_none() {
                        node.connect(peer);
                    }
                });
            }
            13 => {
                let (to, payload) = (input.below(NODES), [input.u8(); 20]);
                *self.sent.entry((to, Sent::Quic(who, payload.to_vec()))).or_default() += 1;
                let peer = world().id(to);
                self.act(who, |node, now, tx| node.handle_quic(now, peer, &payload, payload.len(), tx));
            }
            _ => match input.u8() % 6 {
                0 => self.restart(who, &world().roster),
                1 => self.restart(who, &world().older),
                2 => {
                    let of = input.below(NODES);
                    let list = vec![Candidate { kind: CandidateKind::Host, address: address(of) }];
                    let candidates = Candidates { mapping: Mapping::Independent, list };
                    self.act(who, |node, now, tx| node.set_candidates(now, candidates, tx));
                }
                3 => {
                    let connected = input.flag();
                    self.act(who, |node, now, _| node.handle_relay(now, connected));
                }
                4 => self.act(who, |node, now, tx| node.handle_network_change(now, tx)),
                _ => self.act(who, |node, _, tx| node.set_roster(Arc::clone(&world().roster), tx)),
            },
        }
    }

    fn restart(&mut self, who: usize, roster: &Arc<Roster>) {
        self.starts = self.starts.wrapping_add(1).max(1);
        self.nodes[who] = start(who, roster, self.kind, self.starts);
    }

    /// Does something with one of the datagrams on their way.
    fn carry(&mut self, input: &mut Input<'_>, act: impl Fn(&mut Self, &Datagram, &mut Input<'_>)) {
        // Read also where there is none, so that scripts keep their steps.
        let at = input.below(self.carried.len().max(1));
        if let Some(datagram) = self.carried.get(at).cloned() {
            act(self, &datagram, input);
        }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        if let Ok(header) = IpPacket::parse(packet)
            && let Some(to) = (0..NODES).find(|member| owns(*member, &header))
            && let Some(trimmed) = header.trim(packet)
        {
            *self.sent.entry((to, Sent::Packet(trimmed.to_vec()))).or_default() += 1;
        }
        self.act(from, |node, now, tx| node.handle_packet(now, packet, tx));
    }

    /// Gives a datagram to a node: something comes out only if a member sent it, and a stranger gets no more than it gave.
    fn deliver(&mut self, datagram: &Datagram) {
        let genuine = self.genuine.contains(&(datagram.to, datagram.bytes.clone()));
        let mut bytes = datagram.bytes.clone();
        let (now, mut tx) = (self.now(), TxQueue::new());
        let delivered = self.nodes[datagram.to].handle_datagram(now, datagram.from, &mut bytes, &mut tx);
        assert!(genuine || delivered.is_empty(), "a forged datagram brings something");
        self.arrive(datagram.to, delivered);
        let answered = self.collect(datagram.to, tx);
        assert!(genuine || answered <= datagram.bytes.len(), "{answered} bytes for a forgery");
    }

    fn arrive(&mut self, at: usize, delivered: Vec<LateDelivery>) {
        for delivery in delivered {
            let sent = match delivery {
                LateDelivery::Packet(packet) => Sent::Packet(packet),
                LateDelivery::Quic(peer, bytes) => Sent::Quic(member_of(Path::Relay(peer)), bytes),
            };
            let waiting = self.sent.get_mut(&(at, sent)).expect("something that nobody sent arrives");
            *waiting = waiting.checked_sub(1).expect("something arrives more often than it was sent");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for who in 0..NODES {
            for turn in 0.. {
                if self.nodes[who].poll_timeout().is_none_or(|at| at > self.now) {
                    break;
                }
                assert!(turn < 200, "timers that never end");
                let (now, mut tx) = (self.now(), TxQueue::new());
                self.nodes[who].handle_timeout(now, &mut tx);
                self.collect(who, tx);
            }
        }
    }

    fn act(&mut self, who: usize, act: impl FnOnce(&mut Node, Now, &mut TxQueue)) {
        let (now, mut tx) = (self.now(), TxQueue::new());
        self.nodes[who].with_node(now, &mut tx, |node, tx| act(node, now, tx));
        self.collect(who, tx);
    }

    /// Puts on the way what a node sends, and mixes its sessions. Returns how many bytes these are.
    fn collect(&mut self, who: usize, mut tx: TxQueue) -> usize {
        let now = self.now();
        while let Some(event) = self.nodes[who].node.poll_event() {
            if let NodeEvent::Session { peer, session, mixes: true, .. } = event {
                let exporter = Zeroizing::new([session[0]; 64]);
                let node = &mut self.nodes[who];
                node.with_node(now, &mut tx, |node, tx| node.mix(now, peer, session, &exporter, tx));
            }
        }
        let late = std::iter::from_fn(|| self.nodes[who].node.poll_late()).collect();
        self.arrive(who, late);
        let mut bytes = 0;
        while let Some(transmit) = tx.pop() {
            bytes += transmit.payload.len();
            let from = match transmit.to {
                Path::Relay(_) => Path::Relay(world().id(who)),
                Path::Udp(_) => Path::Udp(address(who)),
            };
            let segment = transmit.segment.map_or(transmit.payload.len(), usize::from);
            let Some(to) = known(transmit.to) else { continue };
            for frame in transmit.payload.chunks(segment.max(1)) {
                self.genuine.insert((to, frame.to_vec()));
                self.carried.push(Datagram { from, to, bytes: frame.to_vec() });
            }
        }
        assert!(bytes <= BURST, "{bytes} bytes at once");
        let surplus = self.carried.len().saturating_sub(CARRIED);
        self.carried.drain(..surplus);
        let snapshot = self.nodes[who].node.snapshot(self.now, self.nodes[who].handshaker.counters());
        assert!(snapshot.peers.len() < NODES, "peers that are no members");
        bytes
    }

    /// From here on all goes well: whatever state the enemy left, a packet arrives within two minutes.
    fn heal(&mut self) {
        self.restart(2, &world().roster);
        for who in 0..2 {
            self.act(who, |node, _, tx| node.set_roster(Arc::clone(&world().roster), tx));
            let peer = world().id(1 - who);
            self.act(who, |node, now, tx| node.handle_presence(now, peer, true, tx));
        }
        for second in 0..120u8 {
            let packet = ipv4(0, 1, &[second, 1, 2, 3, 4, 5, 6]);
            self.send(0, &packet);
            while !self.carried.is_empty() {
                let datagram = self.carried.remove(0);
                self.deliver(&datagram);
            }
            if self.sent.get(&(1, Sent::Packet(packet))) == Some(&0) {
                return;
            }
            self.pass(Duration::from_secs(1));
        }
        panic!("no packet arrives over an honest carrier");
    }

    fn now(&self) -> Now {
        Now { instant: self.now, unix: UNIX }
    }
}

fn start(member: usize, roster: &Arc<Roster>, kind: Kind, starts: u8) -> Together {
    let world = world();
    // Who is not in the older edition cannot stand on it.
    let roster = if roster.leaf(&world.id(member)).is_some() { roster } else { &world.roster };
    let numbers = Numbers::default();
    let others = (0..NODES).filter(|other| kind.udp && *other != member);
    let named = |other: usize| {
        let leaf = world.roster.leaf(&world.id(other)).expect("the edition has all members");
        (leaf.name.to_string(), vec![address(other)])
    };
    let node = NodeConfig {
        own: world.id(member),
        provider: ProviderKind::AwsLc.provider(),
        net: world.root.net_id(),
        link: Link::Ip,
        mtu: 1420,
        numbers: numbers.clone(),
        endpoints: others.map(named).collect(),
        direct: kind.udp,
        birthday: kind.udp,
        hold_until_mixed: kind.mixes,
        timings: Timings::default(),
        threads: 1,
    };
    let handshaker = HandshakerConfig {
        local: world.local(member),
        net: world.root.net_id(),
        network_secret: Zeroizing::new(SECRET),
        mtu: 1420,
        tls_pin: if kind.mixes { [starts; 32] } else { [0; 32] },
        numbers,
    };
    let mut state = u64::try_from(member).unwrap_or(0) | (u64::from(starts) << 8);
    let random = move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_le_bytes()[7];
        }
    };
    Together {
        node: Node::new(node, Arc::clone(roster), Box::new(random)),
        handshaker: Handshaker::new(handshaker, Arc::clone(roster), Box::new(random)),
    }
}

/// The path from some member, or from a stranger's address.
fn path(input: &mut Input<'_>) -> Path {
    let from = input.below(2 * NODES + 1);
    if from < NODES { Path::Relay(world().id(from)) } else { Path::Udp(address(from - NODES)) }
}

fn address(member: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, u8::try_from(member).unwrap_or(u8::MAX)), 4747).into()
}

/// The member that a path leads to; none for a stranger's address.
fn known(path: Path) -> Option<usize> {
    (0..NODES).find(|member| match path {
        Path::Relay(id) => world().id(*member) == id,
        Path::Udp(udp) => address(*member) == udp,
    })
}

fn member_of(path: Path) -> usize {
    known(path).expect("nodes know members only")
}

fn owns(member: usize, header: &IpPacket) -> bool {
    world().roster.leaf(&world().id(member)).is_some_and(|leaf| leaf.owns(header.dst))
}

/// Returns a packet between two members.
pub(crate) fn ipv4(from: usize, to: usize, payload: &[u8]) -> Vec<u8> {
    let address = |member| world().roster.leaf(&world().id(member)).map_or([0; 4], |leaf| leaf.ipv4.octets());
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(address(from));
    packet.extend(address(to));
    packet.extend(payload);
    packet
}

const NODES: usize = 3;
/// Steps of one script.
const STEPS: usize = 200;
/// Datagrams on their way at most; the oldest are lost.
const CARRIED: usize = 64;
/// What one call may send: a queue of packets for one peer, and handshakes.
const BURST: usize = 512 * 1024;
