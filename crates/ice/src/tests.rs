//! Two finders that talk through a simulated network.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_wire::control::{Candidate, CandidateKind, IceCredentials, IceOffer};
use zeroize::Zeroizing;

use crate::{AGENTS, Finder, IceCounts, Output, PairState, REMOTES, SansIo, Setting};

/// Between the ends, each way.
const WAY: Duration = Duration::from_millis(10);

/// A NAT that maps the same for all and lets in who was sent to (RFC 4787: endpoint independent mapping, address and
/// port dependent filtering); without one the address is public.
struct Nat {
    outside: SocketAddr,
    opened: Vec<SocketAddr>,
}

struct End {
    finder: Finder<u8>,
    own: SocketAddr,
    nat: Option<Nat>,
    controlling: bool,
    named: Vec<Candidate>,
    nominated: Option<SocketAddr>,
    failed: u32,
}

enum Travels {
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    Offer(usize, IceOffer),
}

struct World {
    now: Instant,
    ends: [End; 2],
    wires: VecDeque<(Instant, Travels)>,
    /// Offers that the relay loses, from now on.
    loses: u32,
    /// No datagram arrives any more.
    cut: bool,
    datagrams: usize,
}

fn candidate(kind: CandidateKind, address: SocketAddr) -> Candidate {
    Candidate { kind, address }
}

fn finder() -> Finder<u8> {
    let random = Box::new(|bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).unwrap());
    Finder::new(&SansIo, random, Arc::new(|| {}))
}

fn end(number: u8, nat: bool, controlling: bool) -> End {
    let own = SocketAddr::from(([10, 0, number, 1], 1000));
    let outside = SocketAddr::from(([203, 0, 113, number], 2000));
    let mut finder = finder();
    finder.set_bases(vec![own]);
    let mut named = vec![candidate(CandidateKind::Host, own)];
    if nat {
        named.push(candidate(CandidateKind::Reflexive, outside));
    }
    let nat = nat.then(|| Nat { outside, opened: Vec::new() });
    End { finder, own, nat, controlling, named, nominated: None, failed: 0 }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn new(nats: [bool; 2], controlling: [bool; 2]) -> Self {
        let ends = [end(1, nats[0], controlling[0]), end(2, nats[1], controlling[1])];
        Self { now: Instant::now(), ends, wires: VecDeque::new(), loses: 0, cut: false, datagrams: 0 }
    }

    fn setting(&self, of: usize) -> Setting {
        Setting { controlling: self.ends[of].controlling, remotes: self.ends[1 - of].named.clone() }
    }

    fn search(&mut self, of: usize) {
        let setting = self.setting(of);
        self.ends[of].finder.search(self.now, 0, &setting);
        self.collect();
    }

    fn collect(&mut self) {
        for at in 0..2 {
            while let Some(output) = self.ends[at].finder.poll_output() {
                match output {
                    Output::Transmit(transmit) => {
                        self.datagrams += 1;
                        let from = self.ends[at].nat.as_mut().map_or(self.ends[at].own, |nat| {
                            nat.opened.push(transmit.to);
                            nat.outside
                        });
                        let travels = Travels::Datagram(from, transmit.to, transmit.payload);
                        self.wires.push_back((self.now + WAY, travels));
                    }
                    Output::Say(_, _) if self.loses > 0 => self.loses -= 1,
                    Output::Say(_, offer) => {
                        self.wires.push_back((self.now + 2 * WAY, Travels::Offer(1 - at, offer)));
                    }
                    Output::Nominated(_, address) => self.ends[at].nominated = Some(address),
                    Output::Failed(_) => self.ends[at].failed += 1,
                }
            }
        }
    }

    fn arrive(&mut self, travels: Travels) {
        match travels {
            Travels::Offer(to, offer) => {
                let setting = self.setting(to);
                self.ends[to].finder.handle_offer(self.now, 0, &offer, &setting);
            }
            Travels::Datagram(..) if self.cut => {}
            Travels::Datagram(from, to, payload) => {
                let reached = self.ends.iter_mut().find(|end| match &end.nat {
                    None => end.own == to,
                    Some(nat) => nat.outside == to && nat.opened.contains(&from),
                });
                if let Some(end) = reached {
                    end.finder.handle_datagram(self.now, from, &payload);
                }
            }
        }
        self.collect();
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.wires.make_contiguous().sort_by_key(|(at, _)| *at);
            let wire = self.wires.front().map(|(at, _)| *at);
            let timer = self.ends.iter_mut().filter_map(|end| end.finder.poll_timeout()).min();
            let Some(next) = [wire, timer].into_iter().flatten().min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if wire.is_some_and(|at| at <= self.now)
                && let Some((_, travels)) = self.wires.pop_front()
            {
                self.arrive(travels);
                continue;
            }
            for end in &mut self.ends {
                end.finder.handle_timeout(self.now);
            }
            self.collect();
        }
    }

    fn meet(&self) -> bool {
        let address = |end: &End| end.nat.as_ref().map_or(end.own, |nat| nat.outside);
        let [one, two] = &self.ends;
        one.nominated == Some(address(two)) && two.nominated == Some(address(one))
    }
}

#[test]
fn two_agents_nominate_one_pair_with_and_without_nats() {
    for nats in [[false, false], [true, false], [false, true], [true, true]] {
        let mut world = World::new(nats, [true, false]);
        world.search(0);
        world.run(Duration::from_secs(1));
        assert!(world.meet(), "{nats:?}");
        for end in &world.ends {
            let pairs = end.finder.pairs(0);
            let nominated = pairs.iter().filter(|pair| pair.state == PairState::Nominated).count();
            assert_eq!(nominated, 1, "{pairs:?}");
            assert!(end.finder.counts().nominated >= 1);
        }
    }
}

#[test]
fn both_ends_that_want_the_same_role_meet_all_the_same() {
    for role in [true, false] {
        let mut world = World::new([true, true], [role, role]);
        world.search(0);
        world.run(Duration::from_secs(3));
        assert!(world.meet(), "both {role}");
    }
}

#[test]
fn offers_may_cross_and_be_lost() {
    for lost in 0..4 {
        let mut world = World::new([true, true], [false, true]);
        world.loses = lost;
        world.search(0);
        world.search(1);
        for _ in 0..3 {
            world.run(Duration::from_secs(1));
            world.search(0);
        }
        world.run(Duration::from_secs(1));
        assert!(world.meet(), "{lost} offers lost");
    }
}

#[test]
fn search_that_follows_soon_hears_at_once_what_the_agents_agreed_on() {
    let mut world = World::new([true, true], [true, false]);
    world.search(0);
    world.run(Duration::from_secs(1));
    assert!(world.meet());
    for end in &mut world.ends {
        end.nominated = None;
    }
    world.search(0);
    world.search(1);
    assert!(world.meet());
}

#[test]
fn peer_that_begins_anew_is_met_again() {
    let mut world = World::new([true, true], [true, false]);
    world.search(0);
    world.run(Duration::from_secs(1));
    assert!(world.meet());
    // Its program was started anew, and it has another port.
    world.ends[0] = end(1, true, true);
    world.ends[0].nat.as_mut().unwrap().outside.set_port(2001);
    world.ends[0].named[1].address.set_port(2001);
    world.search(0);
    world.run(Duration::from_secs(1));
    assert!(world.meet());
}

#[test]
fn peer_that_always_begins_anew_makes_few_agents() {
    let mut world = World::new([false, false], [true, false]);
    let setting = world.setting(0);
    for number in 0..3000 {
        let credentials = IceCredentials {
            fragment: format!("peer{number:04}"),
            password: Zeroizing::new("a+password+that+is+long+enough".into()),
        };
        let offer = IceOffer { credentials, answers: None };
        world.ends[0].finder.handle_offer(world.now, 0, &offer, &setting);
        world.now += Duration::from_millis(1);
    }
    let finder = &mut world.ends[0].finder;
    let said = std::iter::from_fn(|| finder.poll_output()).filter(|output| matches!(output, Output::Say(..)));
    assert_eq!((said.count(), world.ends[0].finder.counts().hasty), (13, 2987));
}

#[test]
fn silent_peer_fails_in_time_and_is_forgotten() {
    let mut world = World::new([false, false], [true, false]);
    world.cut = true;
    world.search(0);
    world.run(Duration::from_secs(5));
    assert_eq!(world.ends[0].failed, 1);
    assert!(world.ends[0].finder.pairs(0).iter().all(|pair| pair.state == PairState::Failed));
    world.run(Duration::from_secs(10));
    let sent = world.datagrams;
    assert_eq!(world.ends.each_mut().map(|end| end.finder.poll_timeout()), [None, None]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.datagrams, sent, "who found nothing is silent");
}

#[test]
fn without_an_answer_nothing_is_sent() {
    let mut world = World::new([false, false], [true, false]);
    world.loses = u32::MAX;
    world.search(0);
    world.run(Duration::from_secs(60));
    assert_eq!((world.datagrams, world.ends[0].finder.poll_timeout()), (0, None));
}

#[test]
fn many_candidates_make_a_bounded_table_and_few_datagrams() {
    let mut world = World::new([false, false], [true, false]);
    let far = |number: u16| SocketAddr::from(([198, 51, 100, 1], number + 1));
    world.ends[1].named = (0..2000).map(|number| candidate(CandidateKind::Host, far(number))).collect();
    world.search(0);
    for _ in 0..4 {
        world.run(Duration::from_secs(1));
        world.search(0);
    }
    assert!(world.ends[0].finder.pairs(0).len() <= REMOTES);
    assert!(world.datagrams < 500, "{} datagrams", world.datagrams);
}

#[test]
fn strangers_get_no_answer_and_are_counted() {
    let mut world = World::new([false, false], [true, false]);
    world.search(0);
    world.run(Duration::from_secs(1));
    assert!(world.meet());
    let mut sample = Vec::new();
    // What the peer sends, and the same of an agent under another password.
    world.ends[1].finder.handle_timeout(world.now + Duration::from_secs(1));
    while let Some(output) = world.ends[1].finder.poll_output() {
        if let Output::Transmit(transmit) = output {
            sample = transmit.payload;
        }
    }
    assert!(!sample.is_empty());
    let finder = &mut world.ends[0].finder;
    let before = finder.counts();
    let from = SocketAddr::from(([198, 51, 100, 7], 7));
    let mut forged = sample.clone();
    // Another transaction under the old MESSAGE-INTEGRITY, with a FINGERPRINT that anybody can make.
    forged[8] ^= 1;
    seal_fingerprint(&mut forged);
    let unasked = answer_to(&sample);
    let mut unknown = sample.clone();
    let at = 20 + unknown[20..].windows(4).position(|at| at[..2] == [0, 6]).unwrap() + 4;
    unknown[at] = if unknown[at] == b'x' { b'y' } else { b'x' };
    seal_fingerprint(&mut unknown);
    for datagram in [&forged, &unasked, &unknown, &sample[..40].to_vec(), &Vec::new()] {
        finder.handle_datagram(world.now, from, datagram);
    }
    let after = finder.counts();
    let expected = IceCounts { unauthenticated: 1, unasked: 1, strangers: 1, malformed: 2, ..before };
    assert_eq!(after, expected);
    assert!(finder.poll_output().is_none(), "somebody was answered");
}

#[test]
fn recorded_check_from_everywhere_is_answered_to_few() {
    let mut world = World::new([false, false], [true, false]);
    world.search(0);
    world.run(Duration::from_secs(1));
    let mut sample = Vec::new();
    world.ends[1].finder.handle_timeout(world.now + Duration::from_secs(1));
    while let Some(output) = world.ends[1].finder.poll_output() {
        if let Output::Transmit(transmit) = output {
            sample = transmit.payload;
        }
    }
    let finder = &mut world.ends[0].finder;
    for number in 1..5000 {
        finder.handle_datagram(world.now, SocketAddr::from(([198, 51, 100, 7], number)), &sample);
    }
    let mut reached = BTreeMap::<SocketAddr, u32>::new();
    while let Some(output) = finder.poll_output() {
        if let Output::Transmit(transmit) = output {
            *reached.entry(transmit.to).or_default() += 1;
        }
    }
    assert!(reached.len() <= 6, "{reached:?}");
    assert!(finder.counts().crowded > 4900);
    assert!(finder.pairs(0).len() <= REMOTES);
}

#[test]
fn agents_have_a_limit_and_the_next_peer_is_told_at_once() {
    let mut finder = finder();
    let setting = Setting { controlling: true, remotes: Vec::new() };
    let world = World::new([false, false], [true, false]);
    let peers = u8::try_from(AGENTS).unwrap();
    for peer in 0..=peers {
        finder.search(world.now, peer, &setting);
    }
    let outputs: Vec<_> = std::iter::from_fn(|| finder.poll_output()).collect();
    assert_eq!(outputs.last(), Some(&Output::Failed(peers)));
    assert_eq!((outputs.len(), finder.counts().agents_full), (AGENTS + 1, 1));
    let later = world.now + Duration::from_secs(60);
    finder.handle_timeout(later);
    finder.search(later, peers, &setting);
    assert!(matches!(finder.poll_output(), Some(Output::Say(..))));
}

/// Makes the FINGERPRINT at the end right (RFC 8489, section 14.7).
fn seal_fingerprint(datagram: &mut [u8]) {
    let end = datagram.len() - 8;
    let mut crc = u32::MAX;
    for byte in &datagram[..end] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    datagram[end + 4..].copy_from_slice(&(!crc ^ 0x5354_554e).to_be_bytes());
}

/// A binding success that answers a request which this side never sent.
fn answer_to(request: &[u8]) -> Vec<u8> {
    let mut answer = vec![1, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42];
    answer.extend_from_slice(&request[8..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1, 1, 1, 1, 1, 1, 1]);
    answer.extend_from_slice(&[0, 8, 0, 20]);
    answer.extend_from_slice(&[9; 20]);
    answer.extend_from_slice(&[0x80, 0x28, 0, 4, 0, 0, 0, 0]);
    seal_fingerprint(&mut answer);
    answer
}
