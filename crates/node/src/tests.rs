//! Two and three nodes in one process, with a clock of our own and a carrier that tests may cut, drop and reorder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_identity::{Identity, NewMember, Roster, RosterDraft, UnixSeconds, default_pool};
use mesh_session::handshake::Local;
use mesh_session::{AeadKind, ProviderKind};
use mesh_wire::NodeId;
use mesh_wire::fragment::FRAGMENT;
use mesh_wire::frame::FrameHeader;
use mesh_wire::roster::{Link as WireLink, RosterSettings};
use zeroize::Zeroizing;

use crate::*;

mod agents;
mod beyond;
mod crossing;
mod direct;
mod door;
mod order;
mod relays;
mod threads;

const UNIX: u64 = 1_800_000_000;
const YEAR: u64 = 365 * 86_400;

struct World {
    now: Instant,
    root: Identity,
    roster: Arc<Roster>,
    identities: BTreeMap<NodeId, Arc<Identity>>,
    nodes: BTreeMap<NodeId, Together>,
    ids: Vec<NodeId>,
    link: Link,
    /// Sessions are mixed with the exporter of a connection that always stands.
    mixes: bool,
    /// No exporter comes.
    stalled: bool,
    /// Each side gets an exporter of its own.
    different: bool,
    timings: Timings,
    /// How often a node was started, so that each start has a pin of its own.
    starts: u8,
    /// Peers know each other's UDP addresses; the relay may be gone.
    udp: bool,
    relay: bool,
    /// Nodes look for paths without the relay.
    direct: bool,
    /// Longer datagrams are lost over UDP.
    udp_limit: usize,
    /// What a datagram takes over the relay, and those under way, by when they arrive and in which order they left.
    relay_delay: Duration,
    on_relay: BTreeMap<(Instant, usize), (NodeId, Path, Transmit)>,
    /// Nodes that the carrier does not reach.
    cut: BTreeSet<NodeId>,
    delivered: BTreeMap<NodeId, Vec<Vec<u8>>>,
    events: BTreeMap<NodeId, Vec<NodeEvent>>,
    datagrams: usize,
    /// Threads of each node, and frames on the lanes of those beside the first.
    threads: BTreeMap<NodeId, u16>,
    lanes: BTreeMap<(NodeId, u16), Arriving>,
}

/// Frames on their way to a thread, and what each came over.
type Arriving = VecDeque<(Path, Vec<u8>)>;

fn member(name: &str) -> NewMember {
    NewMember {
        name: name.parse().unwrap(),
        groups: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        not_before: UnixSeconds(UNIX - 10),
        not_after: UnixSeconds(UNIX + YEAR),
    }
}

impl World {
    fn new(count: usize, link: Link) -> Self {
        Self::made(count, link, |_| {})
    }

    /// Makes a world that `change` has changed before its nodes start.
    fn made(count: usize, link: Link, change: impl FnOnce(&mut Self)) -> Self {
        let root = Identity::generate().unwrap();
        let identities: Vec<_> = (0..count).map(|_| Arc::new(Identity::generate().unwrap())).collect();
        let ids: Vec<NodeId> = identities.iter().map(|identity| identity.node_id()).collect();
        let settings = RosterSettings {
            name: "home".parse().unwrap(),
            ipv4_pool: default_pool(root.net_id(), 0),
            link: WireLink::Tun,
            mtu: 1420,
            relays: Vec::new(),
        };
        let mut draft = RosterDraft::new(root.public(), settings, ids[0], member("n0")).unwrap();
        for (number, id) in ids.iter().enumerate().skip(1) {
            draft.admit(*id, member(&format!("n{number}"))).unwrap();
        }
        let roster = Arc::new(draft.sign(&root, UnixSeconds(UNIX), YEAR).unwrap());
        let mut world = Self {
            now: Instant::now(),
            root,
            roster: Arc::clone(&roster),
            identities: ids.iter().copied().zip(identities).collect(),
            nodes: BTreeMap::new(),
            ids: ids.clone(),
            link,
            mixes: false,
            stalled: false,
            different: false,
            timings: Timings::default(),
            starts: 0,
            udp: false,
            relay: true,
            direct: false,
            udp_limit: usize::MAX,
            relay_delay: Duration::ZERO,
            on_relay: BTreeMap::new(),
            cut: BTreeSet::new(),
            delivered: BTreeMap::new(),
            events: BTreeMap::new(),
            datagrams: 0,
            threads: BTreeMap::new(),
            lanes: BTreeMap::new(),
        };
        change(&mut world);
        for id in ids {
            world.start(id, Arc::clone(&roster));
        }
        world
    }

    /// Starts a node, or starts it anew without memory of its sessions.
    fn start(&mut self, id: NodeId, roster: Arc<Roster>) {
        self.starts += 1;
        let numbers = Numbers::default();
        let endpoints = self.ids.iter().filter(|peer| self.udp && **peer != id);
        let config = NodeConfig {
            own: id,
            provider: ProviderKind::AwsLc.provider(),
            net: self.root.net_id(),
            link: self.link,
            mtu: 1420,
            numbers: numbers.clone(),
            endpoints: endpoints.map(|peer| (self.name(*peer), vec![self.udp_address(*peer)])).collect(),
            direct: self.direct,
            birthday: self.direct,
            hold_until_mixed: self.mixes,
            timings: self.timings,
            threads: self.threads.get(&id).copied().unwrap_or(1),
        };
        let handshaker = HandshakerConfig {
            local: Local {
                identity: Arc::clone(&self.identities[&id]),
                provider: ProviderKind::AwsLc.provider(),
                aead: AeadKind::AwsLc.provider(),
            },
            net: self.root.net_id(),
            network_secret: Zeroizing::new([7; 32]),
            mtu: 1420,
            tls_pin: if self.mixes { [self.starts; 32] } else { [0; 32] },
            numbers,
        };
        let mut state = u64::from_le_bytes(id.0[..8].try_into().unwrap());
        let random = move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = state.to_le_bytes()[7];
            }
        };
        let node = Node::new(config, Arc::clone(&roster), Box::new(random));
        let handshaker = Handshaker::new(handshaker, roster, Box::new(random));
        self.nodes.insert(id, Together { node, handshaker });
    }

    fn name(&self, id: NodeId) -> String {
        self.roster.leaf(&id).unwrap().name.to_string()
    }

    fn udp_address(&self, id: NodeId) -> SocketAddr {
        let host = self.ids.iter().position(|known| *known == id).unwrap();
        (Ipv4Addr::new(192, 0, 2, u8::try_from(host).unwrap()), 4747).into()
    }

    /// Returns whom a path leads to, and the path that he sees.
    fn resolve(&self, from: NodeId, to: Path) -> Option<(NodeId, Path)> {
        match to {
            Path::Relay(to) => self.relay.then_some((to, Path::Relay(from))),
            Path::Udp(address) => {
                let to = self.ids.iter().find(|id| self.udp_address(**id) == address)?;
                Some((*to, Path::Udp(self.udp_address(from))))
            }
        }
    }

    fn now(&self) -> Now {
        Now { instant: self.now, unix: UNIX }
    }

    fn with(&mut self, id: NodeId, act: impl FnOnce(&mut Node, Now, &mut TxQueue)) {
        let mut tx = TxQueue::new();
        let now = self.now();
        self.nodes.get_mut(&id).unwrap().with_node(now, &mut tx, |node, tx| act(node, now, tx));
        self.carry(id, tx);
    }

    /// Delivers what a node sent, and what that leads to.
    fn carry(&mut self, from: NodeId, tx: TxQueue) {
        let mut waiting = vec![(from, tx)];
        while let Some((from, mut tx)) = waiting.pop() {
            while let Some(mut transmit) = tx.pop() {
                self.datagrams += 1;
                if matches!(transmit.by, By::Hops(_)) {
                    // It ends before it gets anywhere.
                    continue;
                }
                let Some((to, path)) = self.resolve(from, transmit.to) else { continue };
                if self.cut.contains(&from) || self.cut.contains(&to) {
                    continue;
                }
                if matches!(path, Path::Relay(_)) && !self.relay_delay.is_zero() {
                    let place = (self.now + self.relay_delay, self.datagrams);
                    self.on_relay.insert(place, (to, path, transmit));
                    continue;
                }
                let answer = self.hand_over(to, path, &mut transmit);
                waiting.insert(0, (to, answer));
            }
            self.collect(from);
        }
        for id in self.ids.clone() {
            self.collect(id);
        }
    }

    /// Gives a message to a node and returns what it sends.
    fn hand_over(&mut self, to: NodeId, path: Path, transmit: &mut Transmit) -> TxQueue {
        let (now, mut answer) = (self.now(), TxQueue::new());
        let Some(node) = self.nodes.get_mut(&to) else { return answer };
        let segment = transmit.segment.map_or(transmit.payload.len(), usize::from);
        for datagram in transmit.payload.chunks_mut(segment) {
            if matches!(path, Path::Udp(_)) && datagram.len() > self.udp_limit {
                continue;
            }
            let thread = FrameHeader::parse(datagram)
                .map_or(0, |header| header.lane % self.threads.get(&to).copied().unwrap_or(1));
            if thread > 0 && matches!(path, Path::Udp(_)) {
                self.lanes.entry((to, thread)).or_default().push_back((path, datagram.to_vec()));
                continue;
            }
            for delivered in node.handle_datagram(now, path, datagram, &mut answer) {
                let LateDelivery::Packet(packet) = delivered else { panic!("nobody sends QUIC here") };
                self.delivered.entry(to).or_default().push(packet);
            }
        }
        answer
    }

    /// Takes the events of a node; a session that is to be mixed is, once its peer has it too.
    fn collect(&mut self, id: NodeId) {
        while let Some(event) = self.nodes.get_mut(&id).and_then(|node| node.node.poll_event()) {
            if let NodeEvent::Session { peer, session, mixes: true, .. } = event
                && !self.stalled
            {
                let mut exporter = Zeroizing::new([session[0]; 64]);
                if self.different {
                    exporter[..32].copy_from_slice(&id.0);
                }
                let mut tx = TxQueue::new();
                let now = self.now();
                let node = self.nodes.get_mut(&id).unwrap();
                node.with_node(now, &mut tx, |node, tx| node.mix(now, peer, session, &exporter, tx));
                while let Some(late) = node.node.poll_late() {
                    let LateDelivery::Packet(packet) = late else { panic!("nobody sends QUIC here") };
                    self.delivered.entry(id).or_default().push(packet);
                }
                self.carry(id, tx);
            }
            self.events.entry(id).or_default().push(event);
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrives = self.on_relay.keys().next().map(|(at, _)| *at);
            let timers = self.nodes.values().filter_map(Together::poll_timeout);
            let Some(at) = timers.chain(arrives).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            while self.on_relay.keys().next().is_some_and(|(at, _)| *at <= self.now)
                && let Some((_, (to, path, mut transmit))) = self.on_relay.pop_first()
            {
                let answer = self.hand_over(to, path, &mut transmit);
                self.carry(to, answer);
            }
            for id in self.ids.clone() {
                if self.nodes[&id].poll_timeout().is_some_and(|at| at <= self.now) {
                    let (now, mut tx) = (self.now(), TxQueue::new());
                    self.nodes.get_mut(&id).unwrap().handle_timeout(now, &mut tx);
                    self.carry(id, tx);
                }
            }
        }
        self.now = end;
    }

    fn address(&self, id: NodeId) -> Ipv4Addr {
        self.roster.leaf(&id).unwrap().ipv4
    }

    fn packet(&self, from: NodeId, to: NodeId, mark: u8) -> Vec<u8> {
        ipv4(self.address(from), self.address(to), &[mark; 30])
    }

    fn send(&mut self, from: NodeId, to: NodeId, mark: u8) {
        let packet = self.packet(from, to, mark);
        self.with(from, |node, now, tx| node.handle_packet(now, &packet, tx));
    }

    fn got(&mut self, id: NodeId) -> Vec<Vec<u8>> {
        self.delivered.remove(&id).unwrap_or_default()
    }

    fn drops(&self, id: NodeId, reason: DropReason) -> u64 {
        let node = &self.nodes[&id];
        node.node.counters().plus(node.handshaker.counters()).get(reason)
    }

    fn snapshot(&self, id: NodeId) -> Snapshot {
        let node = &self.nodes[&id];
        node.node.snapshot(self.now, node.handshaker.counters())
    }

    fn session(&self, at: NodeId, with: NodeId) -> Option<[u8; 16]> {
        self.snapshot(at).peers.iter().find(|peer| peer.id == with)?.session.map(|session| session.id)
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

#[test]
fn first_packet_waits_for_the_session_and_arrives() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    let expected = world.packet(a, b, 1);
    assert_eq!(world.got(b), [expected]);
    world.send(b, a, 2);
    let expected = world.packet(b, a, 2);
    assert_eq!(world.got(a), [expected]);
    assert!(world.events[&a].iter().any(|event| matches!(event, NodeEvent::Pong { .. })));
    assert_eq!(world.session(a, b), world.session(b, a));
}

#[test]
fn packets_keep_their_order_behind_the_first() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.cut.insert(b);
    for mark in 0..10 {
        world.send(a, b, mark);
    }
    world.cut.clear();
    world.pass(Duration::from_secs(2));
    let marks: Vec<u8> = world.got(b).iter().map(|packet| packet[20]).collect();
    assert_eq!(marks, (0..10).collect::<Vec<u8>>());
}

#[test]
fn packets_of_one_batch_share_a_message() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 0);
    world.datagrams = 0;
    let packets: Vec<_> = (0..20).map(|mark| world.packet(a, b, mark)).collect();
    world.with(a, |node, now, tx| {
        for packet in &packets {
            node.handle_packet(now, packet, tx);
        }
    });
    assert_eq!(world.datagrams, 1);
    assert_eq!(world.got(b).len(), 21);
}

#[test]
fn foreign_source_address_is_dropped_and_counted() {
    let mut world = World::new(3, Link::Ip);
    let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
    let forged = ipv4(world.address(c), world.address(b), b"forged");
    world.with(a, |node, now, tx| node.handle_packet(now, &forged, tx));
    assert!(world.got(b).is_empty());
    assert_eq!(world.drops(b, DropReason::SourceNotAllowed), 1);
}

#[test]
fn packet_for_nobody_is_counted() {
    let mut world = World::new(2, Link::Ip);
    let a = world.ids[0];
    let packet = ipv4(world.address(a), Ipv4Addr::new(192, 0, 2, 1), b"x");
    world.with(a, |node, now, tx| node.handle_packet(now, &packet, tx));
    world.with(a, |node, now, tx| node.handle_packet(now, b"noise", tx));
    assert_eq!(world.drops(a, DropReason::NoRoute), 1);
    assert_eq!(world.drops(a, DropReason::NotAPacket), 1);
    assert_eq!(world.datagrams, 0);
}

#[test]
fn simultaneous_open_settles_on_one_session() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    let (mut from_a, mut from_b) = (TxQueue::new(), TxQueue::new());
    let (to_b, to_a, now) = (world.packet(a, b, 1), world.packet(b, a, 2), world.now());
    let sends = |node: &mut Together, packet: &[u8], tx: &mut TxQueue| {
        node.with_node(now, tx, |node, tx| node.handle_packet(now, packet, tx));
    };
    sends(world.nodes.get_mut(&a).unwrap(), &to_b, &mut from_a);
    sends(world.nodes.get_mut(&b).unwrap(), &to_a, &mut from_b);
    world.carry(a, from_a);
    world.carry(b, from_b);
    assert_eq!((world.got(b).len(), world.got(a).len()), (1, 1));
    for mark in 0..5 {
        world.send(a, b, mark);
        world.send(b, a, mark);
    }
    assert_eq!((world.got(b).len(), world.got(a).len()), (5, 5));
    assert_eq!(world.session(a, b), world.session(b, a));
    world.pass(Duration::from_secs(60));
    world.send(a, b, 9);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn presence_does_not_disturb_a_handshake_under_way() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    let (mut tx, now, packet) = (TxQueue::new(), world.now(), world.packet(a, b, 1));
    let node = world.nodes.get_mut(&a).unwrap();
    node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
    let hello = tx.pop().unwrap();
    node.with_node(now, &mut tx, |node, tx| node.handle_presence(now, b, true, tx));
    assert!(tx.pop().is_none(), "the HELLO on its way is not replaced");
    let mut later = TxQueue::new();
    later.message(hello.to, &hello.payload);
    world.carry(a, later);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn dial_that_waits_is_repeated_when_the_peer_comes() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.cut.insert(b);
    world.with(a, |node, _, _| {
        node.connect(b);
    });
    world.pass(Duration::from_secs(20));
    world.cut.clear();
    world.with(a, |node, now, tx| node.handle_presence(now, b, true, tx));
    assert!(world.session(a, b).is_some());
}

#[test]
fn restarted_peer_is_noticed_when_it_comes_back() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    let before = world.session(a, b);
    world.with(a, |node, now, tx| node.handle_presence(now, b, false, tx));
    world.start(b, Arc::clone(&world.roster));
    world.got(b);
    world.with(a, |node, now, tx| node.handle_presence(now, b, true, tx));
    world.pass(Duration::from_secs(1));
    world.send(a, b, 2);
    assert_eq!(world.got(b).len(), 1);
    assert_ne!(world.session(a, b), before);
}

#[test]
fn peer_that_restarts_soon_after_a_session_is_back_at_once() {
    for smaller_began in [true, false] {
        let mut world = World::new(2, Link::Ip);
        world.ids.sort();
        let [mut a, mut b] = [world.ids[0], world.ids[1]];
        if !smaller_began {
            (a, b) = (b, a);
        }
        world.send(a, b, 1);
        world.pass(Duration::from_secs(5));
        world.start(b, Arc::clone(&world.roster));
        world.send(b, a, 2);
        world.got(b);
        world.send(a, b, 3);
        assert_eq!(world.got(b).len(), 1, "begun by the smaller id: {smaller_began}");
    }
}

/// Sends a packet each way every 100 ms and returns how many did not arrive, and over how many keys the rest went.
fn stream(world: &mut World, [a, b]: [NodeId; 2], seconds: u32) -> (usize, usize) {
    let mut keys = BTreeSet::new();
    let mut lost = 0;
    for _ in 0..seconds * 10 {
        world.send(a, b, 1);
        world.send(b, a, 2);
        lost += 2 - (world.got(b).len() + world.got(a).len()).min(2);
        keys.insert(world.session(a, b));
        world.pass(Duration::from_millis(100));
    }
    (lost, keys.len())
}

#[test]
fn keys_are_replaced_under_traffic_without_a_loss() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 0);
    world.got(b);
    let (lost, keys) = stream(&mut world, [a, b], 1000);
    assert_eq!((lost, keys), (0, 9));
    let snapshot = world.snapshot(a);
    let session = snapshot.peers[0].session.unwrap();
    assert!(session.age >= Duration::from_secs(1000) && session.key_age <= Duration::from_secs(121));
}

#[test]
fn one_way_traffic_is_rekeyed_by_whoever_sends() {
    for sender_began in [true, false] {
        let mut world = World::new(2, Link::Ip);
        let [a, b] = [world.ids[0], world.ids[1]];
        let (sender, receiver) = if sender_began { (a, b) } else { (b, a) };
        world.send(a, b, 0);
        world.got(b);
        let before = world.session(a, b);
        for _ in 0..1500 {
            world.send(sender, receiver, 1);
            assert_eq!(world.got(receiver).len(), 1);
            world.pass(Duration::from_millis(100));
        }
        assert_ne!(world.session(a, b), before);
        assert_eq!(world.session(a, b), world.session(b, a));
    }
}

/// Keys that are replaced often.
const SHORT: Timings = Timings {
    rekey: Duration::from_secs(12),
    reject: Duration::from_secs(40),
    handshake: Duration::from_secs(60),
    frames: 1 << 59,
};

#[test]
fn hourly_handshake_replaces_the_chain_without_a_loss() {
    let mut world = World::made(2, Link::Ip, |world| world.timings = SHORT);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 0);
    world.got(b);
    let (lost, keys) = stream(&mut world, [a, b], 300);
    assert_eq!(lost, 0);
    assert!(keys > 20, "{keys} keys");
    let age = world.snapshot(a).peers[0].session.unwrap().age;
    assert!(age <= Duration::from_secs(61), "{age:?}");
}

#[test]
fn keys_are_replaced_by_count_too() {
    let often = Timings { frames: 100, ..Timings::default() };
    let mut world = World::made(2, Link::Ip, |world| world.timings = often);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 0);
    world.got(b);
    let (lost, keys) = stream(&mut world, [a, b], 50);
    assert_eq!(lost, 0);
    assert!((5..=8).contains(&keys), "{keys} keys for 500 packets each way");
}

#[test]
fn newer_roster_leads_to_a_handshake_under_traffic() {
    for begun_by_sender in [true, false] {
        let mut world = World::new(2, Link::Ip);
        let [a, b] = [world.ids[0], world.ids[1]];
        let (sender, receiver) = if begun_by_sender { (a, b) } else { (b, a) };
        world.send(a, b, 0);
        world.pass(Duration::from_secs(30));
        let mut draft = RosterDraft::from_roster(&world.roster);
        draft.admit(Identity::generate().unwrap().node_id(), member("n2")).unwrap();
        let newer = Arc::new(draft.sign(&world.root, UnixSeconds(UNIX), YEAR).unwrap());
        for id in [a, b] {
            world.with(id, |node, _, tx| node.set_roster(Arc::clone(&newer), tx));
        }
        let before = world.session(a, b);
        world.send(sender, receiver, 1);
        assert_eq!(world.session(a, b), before, "a session that is this young stays");
        world.pass(Duration::from_secs(42));
        world.send(sender, receiver, 2);
        assert_ne!(world.session(a, b), before);
        assert_eq!(world.session(a, b), world.session(b, a));
        let after = world.session(a, b);
        world.pass(Duration::from_secs(40));
        world.send(sender, receiver, 3);
        assert_eq!(world.session(a, b), after, "once is enough");
    }
}

#[test]
fn old_keys_are_rejected_where_no_rekey_gets_through() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 0);
    world.cut.insert(b);
    for _ in 0..200 {
        world.send(a, b, 1);
        world.pass(Duration::from_secs(1));
    }
    assert_eq!((world.session(a, b), world.session(b, a)), (None, None));
    world.cut.clear();
    world.pass(Duration::from_secs(20));
    world.got(b);
    world.send(a, b, 2);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn doubted_session_does_not_outlive_its_successor() {
    let mut world = World::new(2, Link::Ip);
    world.ids.sort();
    let [smaller, larger] = [world.ids[0], world.ids[1]];
    world.send(smaller, larger, 1);
    world.start(smaller, Arc::clone(&world.roster));
    world.with(larger, |node, now, tx| node.handle_presence(now, smaller, true, tx));
    world.pass(Duration::from_secs(2));
    world.send(larger, smaller, 2);
    assert_eq!(world.got(smaller).len(), 1);
}

#[test]
fn late_goodbye_does_not_end_the_session_after_it() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    let mut goodbye = TxQueue::new();
    world.nodes.get_mut(&b).unwrap().node.close(&mut goodbye);
    world.start(b, Arc::clone(&world.roster));
    world.send(b, a, 2);
    world.carry(b, goodbye);
    world.got(b);
    world.send(a, b, 3);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn flood_of_hellos_is_limited_and_an_honest_peer_gets_through() {
    let mut world = World::new(3, Link::Ip);
    let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
    let mut hello = TxQueue::new();
    let (now, packet) = (world.now(), world.packet(c, b, 1));
    let node = world.nodes.get_mut(&c).unwrap();
    node.with_node(now, &mut hello, |node, tx| node.handle_packet(now, &packet, tx));
    let hello = hello.pop().unwrap().payload;
    let mut answers = TxQueue::new();
    for _ in 0..500 {
        let node = world.nodes.get_mut(&b).unwrap();
        node.handle_datagram(now, Path::Relay(c), &mut hello.clone(), &mut answers);
    }
    // One answer, and the same again for the first repetitions.
    let lengths: Vec<usize> = std::iter::from_fn(|| answers.pop()).map(|sent| sent.payload.len()).collect();
    assert_eq!(lengths, [1668; 5]);
    assert_eq!(world.drops(b, DropReason::RateLimited), 495);
    world.send(a, b, 1);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn session_survives_a_lost_question() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    let before = world.session(a, b);
    world.cut.insert(b);
    world.with(a, |node, now, tx| node.handle_presence(now, b, true, tx));
    world.cut.clear();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.session(a, b), before);
}

#[test]
fn session_survives_an_absence_from_the_relay() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    let before = world.session(a, b);
    for present in [false, true] {
        world.with(a, |node, now, tx| node.handle_presence(now, b, present, tx));
        world.with(b, |node, now, tx| node.handle_presence(now, a, present, tx));
    }
    world.pass(Duration::from_secs(5));
    world.send(b, a, 2);
    assert_eq!(world.got(a).len(), 1);
    assert_eq!(world.session(a, b), before);
}

#[test]
fn unanswered_data_leads_to_a_new_session() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    world.start(b, Arc::clone(&world.roster));
    for _ in 0..20 {
        world.send(a, b, 2);
        world.pass(Duration::from_secs(1));
    }
    world.got(b);
    world.send(a, b, 3);
    assert_eq!(world.got(b).len(), 1);
    assert!(world.drops(b, DropReason::UnknownSession) > 0);
}

#[test]
fn idle_peers_are_silent_and_forget_their_keys() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    world.pass(Duration::from_secs(30));
    world.datagrams = 0;
    world.pass(Duration::from_secs(500));
    assert_eq!(world.datagrams, 0);
    world.pass(Duration::from_secs(100));
    assert_eq!((world.session(a, b), world.session(b, a)), (None, None));
    assert_eq!(world.nodes[&a].poll_timeout(), None);
    world.send(a, b, 2);
    assert_eq!(world.got(b).len(), 2);
}

#[test]
fn newly_admitted_node_introduces_itself() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    let identity = Arc::new(Identity::generate().unwrap());
    let c = identity.node_id();
    let mut draft = RosterDraft::from_roster(&world.roster);
    draft.admit(c, member("n2")).unwrap();
    let newer = Arc::new(draft.sign(&world.root, UnixSeconds(UNIX), YEAR).unwrap());
    world.identities.insert(c, identity);
    world.ids.push(c);
    world.roster = Arc::clone(&newer);
    world.start(c, newer);

    world.send(c, b, 1);
    assert_eq!(world.got(b).len(), 1);
    world.send(b, c, 2);
    assert_eq!(world.got(c).len(), 1);
    world.send(b, a, 3);
    assert_eq!(world.got(a).len(), 1);
}

#[test]
fn removed_node_loses_its_session_and_gets_no_other() {
    let mut world = World::new(3, Link::Ip);
    let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
    world.send(c, b, 1);
    world.send(a, b, 1);
    world.got(b);
    let mut draft = RosterDraft::from_roster(&world.roster);
    draft.revoke(&c).unwrap();
    let newer = Arc::new(draft.sign(&world.root, UnixSeconds(UNIX), YEAR).unwrap());
    world.with(b, |node, _, tx| node.set_roster(newer, tx));
    world.send(c, b, 2);
    world.pass(Duration::from_secs(30));
    world.send(c, b, 3);
    world.pass(Duration::from_secs(30));
    assert!(world.got(b).is_empty());
    assert!(world.drops(b, DropReason::NotMember) > 0);
    world.send(a, b, 4);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn goodbye_ends_every_session_on_both_sides() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    world.with(a, |node, _, tx| node.close(tx));
    assert_eq!((world.session(a, b), world.session(b, a)), (None, None));
    assert!(world.events[&b].contains(&NodeEvent::Lost { peer: a }));
}

#[test]
fn lost_messages_are_made_up_for() {
    for lost in 0..6 {
        let mut world = World::new(2, Link::Ip);
        let [a, b] = [world.ids[0], world.ids[1]];
        let packet = world.packet(a, b, 1);
        let (mut tx, now) = (TxQueue::new(), world.now());
        let node = world.nodes.get_mut(&a).unwrap();
        node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
        // Message by message, losing the one with this number.
        let mut waiting = vec![(a, tx)];
        let mut number = 0;
        while let Some((from, mut tx)) = waiting.pop() {
            while let Some(mut transmit) = tx.pop() {
                number += 1;
                if number == lost + 1 {
                    continue;
                }
                let (to, path) = world.resolve(from, transmit.to).unwrap();
                let answer = world.hand_over(to, path, &mut transmit);
                waiting.push((to, answer));
            }
        }
        world.pass(Duration::from_secs(20));
        world.send(a, b, 2);
        world.send(b, a, 3);
        world.pass(Duration::from_secs(20));
        assert!(world.got(b).iter().any(|packet| packet[20] == 2), "message {lost} lost");
        assert!(world.got(a).iter().any(|packet| packet[20] == 3), "message {lost} lost");
    }
}

#[test]
fn ethernet_broadcast_reaches_all_and_answers_find_their_way() {
    let mut world = World::new(3, Link::Ethernet);
    let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
    let frame = |dst: [u8; 6], src: u8| {
        let mut bytes = dst.to_vec();
        bytes.extend([2, 0, 0, 0, 0, src, 0x12, 0x34, 9, 9]);
        bytes
    };
    let broadcast = frame([0xff; 6], 1);
    world.with(a, |node, now, tx| node.handle_packet(now, &broadcast, tx));
    assert_eq!(
        (world.got(b).as_slice(), world.got(c).as_slice()),
        ([broadcast.clone()].as_slice(), [broadcast].as_slice())
    );
    let answer = frame([2, 0, 0, 0, 0, 1], 2);
    world.with(b, |node, now, tx| node.handle_packet(now, &answer, tx));
    assert_eq!(world.got(a), [answer]);
    assert!(world.got(c).is_empty());
}

#[test]
fn ethernet_member_cannot_take_over_anothers_traffic() {
    let mut world = World::new(3, Link::Ethernet);
    let [a, b, m] = [world.ids[0], world.ids[1], world.ids[2]];
    let stolen = [&[0xff; 6][..], &mac_of(b), &[0x12, 0x34]].concat();
    world.with(m, |node, now, tx| node.handle_packet(now, &stolen, tx));
    assert_eq!(world.drops(a, DropReason::SourceNotAllowed), 1);
    world.delivered.clear();

    let packet = world.packet(a, b, 1);
    for mac in [mac_of(b), mac_of(m)] {
        let frame = [&mac[..], &mac_of(a), &[0x08, 0x00], &packet].concat();
        world.with(a, |node, now, tx| node.handle_packet(now, &frame, tx));
        assert_eq!(world.got(b), [frame]);
    }
    assert!(world.got(m).is_empty());
}

#[test]
fn ethernet_member_cannot_claim_anothers_overlay_address() {
    let mut world = World::new(3, Link::Ethernet);
    let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
    let arp = |claimed: IpAddr| {
        let IpAddr::V4(claimed) = claimed else { unreachable!("tests use IPv4") };
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
        bytes.extend(claimed.octets());
        bytes.extend([0; 10]);
        bytes
    };
    let (own, foreign, outside) =
        (arp(world.address(a).into()), arp(world.address(c).into()), arp("192.168.7.7".parse().unwrap()));
    for frame in [&own, &foreign, &outside] {
        world.with(a, |node, now, tx| node.handle_packet(now, frame, tx));
    }
    assert_eq!(world.got(b), [own, outside]);
    assert_eq!(world.drops(b, DropReason::SourceNotAllowed), 1);
}

fn mixing(count: usize) -> World {
    World::made(count, Link::Ip, |world| (world.mixes, world.timings) = (true, SHORT))
}

#[test]
fn packets_wait_until_the_exporter_is_in_the_keys() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    assert_eq!(world.got(b).len(), 1);
    let session = world.snapshot(a).peers[0].session.unwrap();
    assert!(session.mixed);
    assert_eq!(world.session(a, b), world.session(b, a));
    let named =
        |event: &NodeEvent| matches!(event, NodeEvent::Session { session: id, .. } if *id == session.id);
    assert!(!world.events[&a].iter().any(named), "packets go under the session that follows");
}

#[test]
fn exporter_that_does_not_come_calls_for_another_handshake() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.stalled = true;
    world.send(a, b, 1);
    world.pass(Duration::from_secs(1));
    world.stalled = false;
    world.pass(Duration::from_secs(4));
    assert_eq!(world.got(b).len(), 1, "the first packet, without another one that would ask");
}

#[test]
fn keys_that_were_mixed_differently_are_soon_given_up() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.different = true;
    world.send(a, b, 1);
    world.different = false;
    assert!(world.got(b).is_empty());
    let (mut lost, mut last) = (0, 0);
    for mark in 0..40 {
        world.pass(Duration::from_millis(100));
        world.send(a, b, mark);
        if world.got(b).is_empty() {
            (lost, last) = (lost + 1, mark);
        }
    }
    assert!(lost > 0 && last < 20, "{lost} lost, the last after {last} tenths of a second");
}

#[test]
fn mixed_keys_are_replaced_under_traffic_without_a_loss() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 0);
    world.got(b);
    let (lost, keys) = stream(&mut world, [a, b], 300);
    assert_eq!(lost, 0);
    assert!(keys > 20, "{keys} keys");
    let session = world.snapshot(a).peers[0].session.unwrap();
    assert!(session.mixed && session.age <= Duration::from_secs(61), "{session:?}");
}

#[test]
fn new_pin_tells_that_the_peer_was_started_anew() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    world.start(b, Arc::clone(&world.roster));
    world.send(b, a, 2);
    world.got(b);
    world.send(a, b, 3);
    assert_eq!(world.got(b).len(), 1, "the old session is not used any more");
}

#[test]
fn handshake_over_udp_needs_no_relay() {
    let mut world = World::made(2, Link::Ip, |world| {
        (world.mixes, world.udp, world.relay) = (true, true, false);
    });
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    assert_eq!(world.got(b).len(), 1);
    world.send(b, a, 2);
    assert_eq!(world.got(a).len(), 1);
    let address = world.udp_address(b);
    assert_eq!(world.snapshot(a).peers[0].path, Path::Udp(address));
    world.pass(Duration::from_secs(30));
    world.datagrams = 0;
    world.pass(Duration::from_secs(100));
    assert_eq!(world.datagrams, 0, "nothing is repeated once all arrived");
}

#[test]
fn way_without_the_relay_is_taken_whichever_handshake_ends_first() {
    for relay_first in [true, false] {
        let mut world = World::made(2, Link::Ip, |world| world.udp = true);
        let [a, b] = [world.ids[0], world.ids[1]];
        for relay in [relay_first, !relay_first] {
            let path = if relay { Path::Relay(b) } else { Path::Udp(world.udp_address(b)) };
            let order = Order::Dial { peer: b, paths: vec![path], holds_session: false };
            let (now, mut tx) = (world.now(), TxQueue::new());
            let node = world.nodes.get_mut(&a).unwrap();
            node.handshaker.handle_order(now, order, &mut tx);
            world.carry(a, tx);
        }
        world.relay = false;
        world.send(a, b, 1);
        world.send(b, a, 2);
        assert_eq!((world.got(a).len(), world.got(b).len()), (1, 1), "over the relay first: {relay_first}");
    }
}

#[test]
fn lost_fragments_are_made_up_for() {
    for lost in 0..60 {
        let mut world = World::made(2, Link::Ip, |world| (world.udp, world.relay) = (true, false));
        let [a, b] = [world.ids[0], world.ids[1]];
        let (mut tx, now, packet) = (TxQueue::new(), world.now(), world.packet(a, b, 1));
        let node = world.nodes.get_mut(&a).unwrap();
        node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
        let mut waiting = vec![(a, tx)];
        let mut number = 0;
        while let Some((from, mut tx)) = waiting.pop() {
            while let Some(mut transmit) = tx.pop() {
                let Some((to, path)) = world.resolve(from, transmit.to) else { continue };
                number += u32::from(transmit.payload[0] == FRAGMENT);
                // Two neighbours, so that a message and its repetition are hit, too.
                if transmit.payload[0] == FRAGMENT && (number == lost + 1 || number == lost + 2) {
                    continue;
                }
                let answer = world.hand_over(to, path, &mut transmit);
                waiting.push((to, answer));
            }
        }
        world.pass(Duration::from_millis(900));
        assert_eq!(world.got(b).len(), 1, "datagrams {lost} and the next lost");
    }
}

#[test]
fn handshake_over_udp_survives_a_long_way() {
    for delay in [150, 300, 450] {
        let mut world = World::made(2, Link::Ip, |world| (world.udp, world.relay) = (true, false));
        let [a, b] = [world.ids[0], world.ids[1]];
        let (mut tx, now, packet) = (TxQueue::new(), world.now(), world.packet(a, b, 1));
        let node = world.nodes.get_mut(&a).unwrap();
        node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
        // Every datagram takes its time, so that a HELLO is repeated before its CHALLENGE can be back.
        let mut in_flight = VecDeque::new();
        let delay = Duration::from_millis(delay);
        let fly = |world: &World, from: NodeId, mut tx: TxQueue, in_flight: &mut VecDeque<_>| {
            while let Some(transmit) = tx.pop() {
                if let Some((to, path)) = world.resolve(from, transmit.to) {
                    in_flight.push_back((world.now + delay, to, path, transmit));
                }
            }
        };
        fly(&world, a, tx, &mut in_flight);
        let end = world.now + Duration::from_secs(3);
        while world.now < end && world.delivered.is_empty() {
            let arrival = in_flight.front().map(|(at, ..)| *at);
            let timer = world.nodes.values().filter_map(Together::poll_timeout).min();
            let Some(next) = arrival.into_iter().chain(timer).min() else { break };
            world.now = world.now.max(next);
            while in_flight.front().is_some_and(|(at, ..)| *at <= world.now) {
                let (_, to, path, mut transmit) = in_flight.pop_front().unwrap();
                let answer = world.hand_over(to, path, &mut transmit);
                fly(&world, to, answer, &mut in_flight);
            }
            for id in [a, b] {
                let (now, mut tx) = (world.now(), TxQueue::new());
                world.nodes.get_mut(&id).unwrap().handle_timeout(now, &mut tx);
                fly(&world, id, tx, &mut in_flight);
            }
        }
        assert_eq!(world.got(b).len(), 1, "one way of {delay:?}");
    }
}

#[test]
fn junk_after_a_hello_takes_nothing_from_others() {
    let mut world = World::new(3, Link::Ip);
    let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
    let (mut tx, now, packet) = (TxQueue::new(), world.now(), world.packet(c, b, 1));
    let node = world.nodes.get_mut(&c).unwrap();
    node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
    let mut hello = tx.pop().unwrap().payload;
    let node = world.nodes.get_mut(&b).unwrap();
    node.handle_datagram(now, Path::Relay(c), &mut hello, &mut TxQueue::new());
    for _ in 0..2000 {
        node.handle_datagram(now, Path::Relay(c), &mut [0x92; 300], &mut TxQueue::new());
    }
    world.send(a, b, 1);
    assert_eq!(world.got(b).len(), 1);
}

#[test]
fn unproven_address_gets_no_more_bytes_than_it_sent() {
    let mut world = World::made(2, Link::Ip, |world| (world.udp, world.relay) = (true, false));
    let [a, b] = [world.ids[0], world.ids[1]];
    let (mut tx, now, packet) = (TxQueue::new(), world.now(), world.packet(a, b, 1));
    let node = world.nodes.get_mut(&a).unwrap();
    node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
    let sent = std::iter::from_fn(|| tx.pop()).filter(|sent| matches!(sent.to, Path::Udp(_)));
    let parts: Vec<_> = sent.map(|sent| sent.payload).collect();
    assert_eq!(parts.len(), 2);
    let victim = Path::Udp("203.0.113.9:53".parse().unwrap());
    let (mut sent, mut answered) = (0, 0);
    for round in 0..600 {
        for part in &parts {
            let mut answer = TxQueue::new();
            sent += part.len();
            world.nodes.get_mut(&b).unwrap().handle_datagram(now, victim, &mut part.clone(), &mut answer);
            answered += std::iter::from_fn(|| answer.pop()).map(|answer| answer.payload.len()).sum::<usize>();
            assert!(answered <= sent, "round {round}: {answered} bytes for {sent}");
        }
    }
    let (mut answer, later) = (TxQueue::new(), Duration::from_secs(20));
    world.pass(later);
    let now = world.now();
    world.nodes.get_mut(&b).unwrap().handle_timeout(now, &mut answer);
    assert!(answer.pop().is_none(), "nothing is repeated to an address that does not answer");
}

#[test]
fn responder_under_load_is_reached_with_a_cookie() {
    for udp in [false, true] {
        let mut world = World::made(3, Link::Ip, |world| (world.udp, world.relay) = (udp, !udp));
        let [a, b, c] = [world.ids[0], world.ids[1], world.ids[2]];
        let (mut tx, now, packet) = (TxQueue::new(), world.now(), world.packet(c, b, 1));
        let node = world.nodes.get_mut(&c).unwrap();
        node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
        let hello: Vec<_> = std::iter::from_fn(|| tx.pop()).map(|transmit| transmit.payload).collect();
        for number in 0..1000_u32 {
            let host = Ipv4Addr::from_bits(0x0a00_0000 | number);
            let from = if udp { Path::Udp((host, 1).into()) } else { Path::Relay(NodeId([3; 32])) };
            for part in &hello {
                let mut answer = TxQueue::new();
                world.nodes.get_mut(&b).unwrap().handle_datagram(now, from, &mut part.clone(), &mut answer);
            }
        }
        // The flood also used the cookies of this moment up; they come back at 2000 a second.
        world.pass(Duration::from_millis(100));
        world.send(a, b, 2);
        world.pass(Duration::from_millis(100));
        assert!(world.got(b).iter().any(|packet| packet[20] == 2), "over UDP: {udp}");
    }
}

#[test]
fn frame_that_comes_before_its_keys_is_kept_for_them() {
    let mut world = mixing(2);
    let [a, b] = [world.ids[0], world.ids[1]];
    // Both ends hold the first session; only one mixes it, and sends at once.
    world.mixes = false;
    let (now, mut tx) = (world.now(), TxQueue::new());
    let node = world.nodes.get_mut(&a).unwrap();
    let packet = ipv4(world.roster.leaf(&a).unwrap().ipv4, world.roster.leaf(&b).unwrap().ipv4, &[1; 30]);
    node.with_node(now, &mut tx, |node, tx| node.handle_packet(now, &packet, tx));
    let mut waiting = vec![(a, tx)];
    while let Some((from, mut tx)) = waiting.pop() {
        while let Some(mut transmit) = tx.pop() {
            let (to, path) = world.resolve(from, transmit.to).unwrap();
            let answer = world.hand_over(to, path, &mut transmit);
            waiting.push((to, answer));
        }
    }
    let session = |node: &mut Together| {
        std::iter::from_fn(|| node.node.poll_event())
            .find_map(
                |event| if let NodeEvent::Session { session, .. } = event { Some(session) } else { None },
            )
            .unwrap()
    };
    let id = session(world.nodes.get_mut(&a).unwrap());
    assert_eq!(session(world.nodes.get_mut(&b).unwrap()), id);
    let exporter = Zeroizing::new([5; 64]);
    let mut tx = TxQueue::new();
    let node = world.nodes.get_mut(&a).unwrap();
    node.with_node(now, &mut tx, |node, tx| node.mix(now, b, id, &exporter, tx));
    while let Some(mut transmit) = tx.pop() {
        world.hand_over(b, Path::Relay(a), &mut transmit);
    }
    assert!(world.got(b).is_empty());
    let (node, mut tx) = (world.nodes.get_mut(&b).unwrap(), TxQueue::new());
    node.with_node(now, &mut tx, |node, tx| node.mix(now, a, id, &exporter, tx));
    assert_eq!(node.node.poll_late(), Some(LateDelivery::Packet(packet)));
}
