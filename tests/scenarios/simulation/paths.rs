//! The same nodes with UDP beside a relay that works: networks on which each of them has an address or has not, that
//! die without a word in one direction or both, carry short datagrams alone, repeat and reorder, and come back.
//!
//! `SHADOWMESH_SEEDS=5000 cargo test -p mesh-tests paths` runs more seeds, `SHADOWMESH_SEED=17` a single one.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_node::{By, Transmit};
use mesh_wire::control::{Candidate, CandidateKind, Candidates, Mapping};

use super::*;

const SEEDS: u64 = 150;
pub(super) const NETWORKS: usize = 3;
/// Packets of a pair follow each other so closely.
pub(super) const APART: Duration = Duration::from_millis(40);
/// A packet of this much padding makes a frame as long as there is.
const PADDING: usize = 1420 - 20 - 8 - MARK.len();
/// A path that carries data without an answer is left within a second, says `docs/protocol.md`; what was on its way
/// when it died, and the time between two packets, come on top.
const LEFT: Duration = Duration::from_millis(1000 + 2 * LONGEST_WAY + 100);
/// Where one direction lives, the end that hears nothing leaves first, and the other one hears nothing from then on.
const LEFT_BY_BOTH: Duration = LEFT.saturating_mul(2);
/// The longest pause between two searches, and a search.
const FOUND: Duration = Duration::from_secs(60 + 5);
/// A path that dies is left for the next one, perhaps for all of them in turn, and each may be found again.
const CHANGES: u64 = 2;
/// Milliseconds.
pub(super) const LONGEST_WAY: u64 = 60;

/// The networks beside the relay, and who is where.
#[derive(Clone)]
pub(super) struct Air {
    pub(super) networks: [Network; NETWORKS],
    here: [[bool; NETWORKS]; NODES],
    /// Datagrams that were given to it.
    sent: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Network {
    /// From a node to those with greater numbers, and back.
    alive: [bool; 2],
    /// The longest datagram.
    limit: usize,
    pub(super) delay_ms: u64,
    /// Of a hundred datagrams, as what follows.
    pub(super) loss: u64,
    repeat: u64,
    /// How many of a hundred datagrams are overtaken by others.
    late: u64,
}

impl Network {
    const GOOD: Self =
        Self { alive: [true; 2], limit: usize::MAX, delay_ms: 10, loss: 0, repeat: 0, late: 0 };
}

impl Air {
    pub(super) fn new() -> Self {
        Self { networks: [Network::GOOD; NETWORKS], here: [[true; NETWORKS]; NODES], sent: 0 }
    }

    /// Who has an address, and on which network.
    fn find(&self, address: SocketAddr) -> Option<(usize, usize)> {
        let all = (0..NODES).flat_map(|node| (0..NETWORKS).map(move |network| (node, network)));
        all.filter(|(node, network)| self.here[*node][*network])
            .find(|(node, network)| place(*node, *network) == address)
    }

    /// Tells whether a datagram gets from a node to an address.
    fn carries(&self, from: usize, to: SocketAddr, length: usize) -> bool {
        self.find(to).is_some_and(|(node, network)| {
            let quality = self.networks[network];
            self.here[from][network] && quality.alive[usize::from(from > node)] && length <= quality.limit
        })
    }
}

pub(super) fn place(node: usize, network: usize) -> SocketAddr {
    let host = u8::try_from(node + 1).unwrap();
    match network {
        0 => (Ipv4Addr::new(192, 0, 2, host), 4000).into(),
        1 => (Ipv4Addr::new(198, 51, 100, host), 4000).into(),
        _ => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()), 4000).into(),
    }
}

/// Where frames of a node to another one go without arriving.
type Broken = BTreeMap<(usize, usize), Wall>;

#[derive(Clone, Copy)]
struct Wall {
    address: SocketAddr,
    since: Instant,
    /// How long they may go there.
    limit: Duration,
}

impl Simulation {
    /// Gives datagrams for an address to its network.
    pub(super) fn fly(&mut self, from: usize, to: SocketAddr, transmit: &Transmit) {
        let segment = transmit.segment.map_or(transmit.payload.len(), usize::from);
        for datagram in transmit.payload.chunks(segment) {
            // What is to open the own NAT ends before it gets anywhere.
            self.cast(from, to, datagram, matches!(transmit.by, By::Hops(_)));
        }
    }

    pub(super) fn cast(&mut self, from: usize, to: SocketAddr, datagram: &[u8], ends: bool) {
        let Some(air) = &mut self.air else { panic!("there is no UDP here") };
        air.sent += 1;
        let begin = &datagram[..datagram.len().min(200)];
        assert!(!contains(begin, MARK), "seed {}: plaintext on the wire", self.seed);
        let Some((node, network)) = air.find(to).filter(|_| !ends) else { return };
        if !air.carries(from, to, datagram.len()) {
            return;
        }
        let quality = air.networks[network];
        if self.dice.percent(quality.loss) {
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(quality.repeat));
        for _ in 0..copies {
            let late = if self.dice.percent(quality.late) { LONGEST_WAY - quality.delay_ms } else { 0 };
            let delay = Duration::from_millis(quality.delay_ms + self.dice.below(late + 1));
            let unique = self.dice.roll();
            let arrival = (node, Path::Udp(place(from, network)), datagram.to_vec());
            self.in_flight.insert((self.now + delay, unique), arrival);
        }
    }

    pub(super) fn air(&mut self) -> &mut Air {
        self.air.as_mut().unwrap()
    }

    /// Tells a node where it may be reached, as far as it knows.
    pub(super) fn tell_addresses(&mut self, at: usize) {
        let here = self.air().here[at];
        let list = (0..NETWORKS).filter(|network| here[*network]);
        let list = list
            .map(|network| Candidate { kind: CandidateKind::Host, address: place(at, network) })
            .collect();
        self.with(at, |node, now, tx| {
            node.set_candidates(now, Candidates { mapping: Mapping::None, list }, tx);
        });
    }

    /// One thing becomes better or worse.
    fn weather_changes(&mut self, broken: &mut Broken) {
        let (network, node) = (self.dice.pick(NETWORKS), self.dice.pick(self.nodes.len()));
        let (kind, good) = (self.dice.below(7), self.dice.percent(60));
        let (direction, delay_ms) = (self.dice.pick(2), 1 + self.dice.below(LONGEST_WAY));
        let limit = if good { usize::MAX } else { 500 + self.dice.pick(1000) };
        let quality = &mut self.air().networks[network];
        match kind {
            0 => quality.alive = [good; 2],
            1 => quality.alive[direction] = good,
            2 => quality.limit = limit,
            3 => (quality.delay_ms, quality.late) = (delay_ms, if good { 0 } else { 30 }),
            4 => quality.repeat = if good { 0 } else { 30 },
            // A node has an address more or less, and learns of it or not.
            _ => {
                self.air().here[node][network] = good;
                if kind == 5 {
                    // Whether a path lives is asked anew; until it is known, the relay carries the same.
                    broken.retain(|(at, _), _| *at != node);
                    self.tell_addresses(node);
                    self.with(node, |node, now, tx| node.handle_network_change(now, tx));
                }
            }
        }
    }

    pub(super) fn path(&self, at: usize, of: usize) -> (Path, u64) {
        let view = self.view(at, of).expect("all are members");
        (view.path, view.path_changes)
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        (0..count).flat_map(|at| (0..count).filter(move |of| *of != at).map(move |of| (at, of))).collect()
    }

    /// All send to all for a while; nobody's frames may go nowhere for long.
    fn chat(&mut self, time: Duration, broken: &mut Broken) -> Vec<u64> {
        let (end, mut numbers) = (self.now + time, Vec::new());
        while self.now < end {
            for (from, to) in self.pairs() {
                numbers.push(self.send(from, to));
                // Whether a path lives shows in another way where all packets are short.
                if from.is_multiple_of(2) && self.dice.percent(20) {
                    self.send_long(from, to, PADDING);
                }
            }
            self.pass(APART);
            self.nobody_talks_to_the_wall(broken);
        }
        numbers
    }

    fn nobody_talks_to_the_wall(&mut self, broken: &mut Broken) {
        for (at, of) in self.pairs() {
            let (Path::Udp(address), _) = self.path(at, of) else {
                broken.remove(&(at, of));
                continue;
            };
            let air = self.air.as_ref().unwrap();
            if air.carries(at, address, 0) {
                broken.remove(&(at, of));
                continue;
            }
            let network = air.find(address).map_or(NETWORKS, |(_, network)| network);
            let back = network < NETWORKS && air.carries(of, place(at, network), 0);
            let new = Wall { address, since: self.now, limit: LEFT };
            let wall = broken.entry((at, of)).or_insert(new);
            if wall.address != address {
                *wall = new;
            }
            if back {
                wall.limit = LEFT_BY_BOTH;
            }
            let (since, limit) = (wall.since, wall.limit);
            let (seed, silent) = (self.seed, self.now - since);
            let view = || self.view(at, of);
            assert!(
                silent <= limit,
                "seed {seed}: {at} sends to {address} in vain for {silent:?}: {:#?}",
                view()
            );
        }
    }

    pub(super) fn all_direct(&self) -> bool {
        self.pairs().into_iter().all(|(at, of)| matches!(self.path(at, of).0, Path::Udp(_)))
    }

    fn becomes_direct(&mut self, limit: Duration, broken: &mut Broken) {
        let end = self.now + limit;
        while !self.all_direct() {
            let views = || self.pairs().into_iter().map(|(at, of)| self.view(at, of)).collect::<Vec<_>>();
            assert!(self.now < end, "seed {}: not direct after {limit:?}: {:#?}", self.seed, views());
            self.chat(APART, broken);
        }
    }

    fn story(&mut self) {
        let mut broken = Broken::new();
        for at in 0..self.nodes.len() {
            self.tell_addresses(at);
        }
        self.becomes_direct(Duration::from_secs(5), &mut broken);
        let (end, mut events) = (self.now + TROUBLE, 0);
        while self.now < end {
            self.weather_changes(&mut broken);
            events += 1;
            let pause = Duration::from_millis(self.dice.below(3000));
            self.chat(pause, &mut broken);
        }
        for (at, of) in self.pairs() {
            let (seed, changes) = (self.seed, self.path(at, of).1);
            assert!(
                changes <= CHANGES * events,
                "seed {seed}: {changes} changes of path after {events} of weather"
            );
        }
        *self.air() = Air { sent: self.air().sent, ..Air::new() };
        for at in 0..self.nodes.len() {
            self.tell_addresses(at);
        }
        self.becomes_direct(FOUND, &mut broken);
        self.nothing_moves(&mut broken);
        self.nobody_is_busy();
        let (sent, seed) = (self.air().sent, self.seed);
        self.pass(Duration::from_secs(600));
        assert_eq!(self.air().sent, sent, "seed {seed}: idle peers are not silent");
    }

    /// While nothing changes no packet is lost, and paths stay what they are once a better one had its time.
    fn nothing_moves(&mut self, broken: &mut Broken) {
        self.chat(Duration::from_secs(10), broken);
        let changes =
            |this: &Self| this.pairs().into_iter().map(|(at, of)| this.path(at, of)).collect::<Vec<_>>();
        let before = changes(self);
        let numbers = self.chat(Duration::from_secs(20), broken);
        self.pass(Duration::from_secs(1));
        assert_eq!(changes(self), before, "seed {}: paths change without a reason", self.seed);
        let lost = numbers.iter().filter(|number| !self.received.contains(number)).count();
        assert_eq!(lost, 0, "seed {}: of {} packets", self.seed, numbers.len());
    }
}

fn simulation(seed: u64) -> Simulation {
    let mut simulation = Simulation::with_air(seed, Some(Air::new()));
    // The relay works, and is slower than what lies beside it.
    simulation.weather = Weather { delay_ms: 1 + LONGEST_WAY, ..Weather::default() };
    simulation
}

#[test]
fn paths_beside_the_relay_are_found_left_and_found_again() {
    each_seed(SEEDS, |seed| simulation(seed).story());
}

#[test]
fn seed_with_paths_replays_exactly() {
    let story = |seed| {
        let mut simulation = simulation(seed);
        simulation.story();
        (simulation.trace.finish(), simulation.air().sent)
    };
    for seed in 0..3 {
        assert_eq!(story(seed), story(seed), "seed {seed} takes another course");
    }
}
