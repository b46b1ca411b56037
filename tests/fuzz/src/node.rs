//! Nodes on a carrier that belongs to the enemy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_identity::Roster;
use mesh_node::{
    Handshaker, HandshakerConfig, LateDelivery, Link, Node, NodeConfig, Now, Numbers, Path, Timings,
    Together, TxQueue,
};
use mesh_packet::IpPacket;
use zeroize::Zeroizing;

use crate::input::{Input, edited};
use crate::world::{SECRET, UNIX, world};

/// Lets three nodes send packets to each other while the script delivers, holds back, repeats, edits and invents
/// datagrams; in the end the carrier is honest, and a packet has to arrive.
pub fn node(data: &[u8]) {
    let mut input = Input::new(data);
    let heals = input.u8().is_multiple_of(4);
    let mut net = Net::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        net.step(&mut input);
    }
    if heals {
        net.heal();
    }
}

struct Net {
    now: Instant,
    nodes: Vec<Together>,
    /// Datagrams on their way.
    carried: Vec<Datagram>,
    /// Every datagram that a node sent, with its receiver.
    genuine: BTreeSet<(usize, Vec<u8>)>,
    /// How often each packet was sent to a node and has not arrived.
    sent: BTreeMap<(usize, Vec<u8>), usize>,
}

#[derive(Clone)]
struct Datagram {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl Net {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            nodes: (0..NODES).map(|member| start(member, &world().roster)).collect(),
            carried: Vec::new(),
            genuine: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.u8() % 14;
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
                let (from, length) = (input.below(NODES), usize::from(input.u16() % 2048));
                self.deliver(&Datagram { from, to: who, bytes: input.bytes(length).to_vec() });
            }
            4..=7 => self.carry(input, |net, datagram, _| {
                net.carried.retain(|other| other.bytes != datagram.bytes);
                net.deliver(datagram);
            }),
            8 => self.carry(input, |net, datagram, _| net.deliver(datagram)),
            9 => self.carry(input, |net, datagram, input| {
                let other = net.carried.last().map_or_else(Vec::new, |other| other.bytes.clone());
                let from = input.below(NODES);
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
            _ => match input.u8() % 3 {
                0 => self.nodes[who] = start(who, &world().roster),
                1 => self.nodes[who] = start(who, &world().older),
                _ => self.act(who, |node, _, tx| node.set_roster(Arc::clone(&world().roster), tx)),
            },
        }
    }

    /// Does something with one of the datagrams on their way.
    fn carry(&mut self, input: &mut Input<'_>, act: impl Fn(&mut Self, &Datagram, &mut Input<'_>)) {
        if self.carried.is_empty() {
            return;
        }
        let datagram = self.carried[input.below(self.carried.len())].clone();
        act(self, &datagram, input);
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        if let Ok(header) = IpPacket::parse(packet)
            && let Some(to) = (0..NODES).find(|member| owns(*member, &header))
            && let Some(trimmed) = header.trim(packet)
        {
            *self.sent.entry((to, trimmed.to_vec())).or_default() += 1;
        }
        self.act(from, |node, now, tx| node.handle_packet(now, packet, tx));
    }

    /// Gives a datagram to a node: a packet comes out only if a member sent it, and a stranger gets no more than it gave.
    fn deliver(&mut self, datagram: &Datagram) {
        let from = world().id(datagram.from);
        let mut bytes = datagram.bytes.clone();
        let mut delivered = Vec::new();
        let answered = self.sends(datagram.to, |node, now, tx| {
            delivered = node.handle_datagram(now, Path::Relay(from), &mut bytes, tx);
        });
        let genuine = self.genuine.contains(&(datagram.to, datagram.bytes.clone()));
        assert!(genuine || answered <= datagram.bytes.len(), "{answered} bytes for a forgery");
        for late in delivered {
            let LateDelivery::Packet(packet) = late else { panic!("a QUIC datagram that nobody sent") };
            assert!(genuine, "a forged datagram has a packet");
            let waiting =
                self.sent.get_mut(&(datagram.to, packet)).expect("a packet that nobody sent arrives");
            *waiting = waiting.checked_sub(1).expect("a packet arrives more often than it was sent");
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
                self.sends(who, Together::handle_timeout);
            }
        }
    }

    fn act(&mut self, who: usize, act: impl FnOnce(&mut Node, Now, &mut TxQueue)) {
        self.sends(who, |node, now, tx| node.with_node(now, tx, |node, tx| act(node, now, tx)));
    }

    /// Does something with a node and collects what it sends. Returns how many bytes these are.
    fn sends(&mut self, who: usize, act: impl FnOnce(&mut Together, Now, &mut TxQueue)) -> usize {
        let mut tx = TxQueue::new();
        act(&mut self.nodes[who], Now { instant: self.now, unix: UNIX }, &mut tx);
        let mut bytes = 0;
        while let Some(transmit) = tx.pop() {
            bytes += transmit.payload.len();
            let to = (0..NODES).find(|member| Path::Relay(world().id(*member)) == transmit.to);
            let to = to.expect("nodes send to members only");
            let segment = transmit.segment.map_or(transmit.payload.len(), usize::from);
            for frame in transmit.payload.chunks(segment.max(1)) {
                self.genuine.insert((to, frame.to_vec()));
                self.carried.push(Datagram { from: who, to, bytes: frame.to_vec() });
            }
        }
        assert!(bytes <= BURST, "{bytes} bytes at once");
        let surplus = self.carried.len().saturating_sub(CARRIED);
        self.carried.drain(..surplus);
        let Together { node, handshaker } = &mut self.nodes[who];
        while node.poll_event().is_some() {}
        let snapshot = node.snapshot(self.now, handshaker.counters());
        assert!(snapshot.peers.len() < NODES, "peers that are no members");
        bytes
    }

    /// From here on all goes well: whatever state the enemy left, a packet arrives within two minutes.
    fn heal(&mut self) {
        self.nodes[2] = start(2, &world().roster);
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
            if self.sent.get(&(1, packet)) == Some(&0) {
                return;
            }
            self.pass(Duration::from_secs(1));
        }
        panic!("no packet arrives over an honest carrier");
    }
}

fn start(member: usize, roster: &Arc<Roster>) -> Together {
    let world = world();
    // Who is not in the older edition cannot stand on it.
    let roster = if roster.leaf(&world.id(member)).is_some() { roster } else { &world.roster };
    let numbers = Numbers::default();
    let local = world.local(member);
    let node = NodeConfig {
        own: world.id(member),
        provider: local.provider,
        net: world.root.net_id(),
        link: Link::Ip,
        mtu: 1420,
        numbers: numbers.clone(),
        endpoints: BTreeMap::new(),
        hold_until_mixed: false,
        timings: Timings::default(),
    };
    let handshaker = HandshakerConfig {
        local,
        net: world.root.net_id(),
        network_secret: Zeroizing::new(SECRET),
        mtu: 1420,
        tls_pin: [0; 32],
        numbers,
    };
    let mut state = u64::try_from(member).unwrap_or(0);
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
