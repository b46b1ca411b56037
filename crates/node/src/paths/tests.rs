//! The choice of path by itself: proofs, checks, and what a hostile peer can and cannot move.

use mesh_wire::control::{Candidate, CandidateKind};

use super::*;

mod hard;

const PEER: NodeId = NodeId([7; 32]);
const ALL: Setting =
    Setting { searches: true, relay: true, birthday: false, mapping: Mapping::Independent, most: 1420 };

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn said(addresses: &[&str]) -> Candidates {
    let candidate = |text: &&str| Candidate { kind: CandidateKind::Host, address: address(text) };
    Candidates { mapping: Mapping::Independent, list: addresses.iter().map(candidate).collect() }
}

struct Peer {
    paths: Paths,
    now: Instant,
    next: u64,
    /// Answers under way.
    back: Vec<(Instant, SocketAddr, u64)>,
}

impl Peer {
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn new() -> Self {
        Self { paths: Paths::new(PEER), now: Instant::now(), next: 0, back: Vec::new() }
    }

    /// Lets time pass; whoever `answers` says answers its challenges after 10 ms. Returns the longest pause in ms
    /// between the paths' wish and the end, and every path that was taken.
    fn pass(&mut self, millis: u64, answers: impl Fn(SocketAddr, Size) -> bool) -> Vec<(u64, Path)> {
        let begin = self.now;
        let end = begin + Duration::from_millis(millis);
        let mut moved = Vec::new();
        let mut steps = 0;
        loop {
            let next = self.paths.due().into_iter().chain(self.back.iter().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            steps += 1;
            assert!(steps < 10_000, "never at rest");
            self.now = self.now.max(next);
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.back).into_iter().partition(|(at, ..)| *at <= self.now);
            self.back = later;
            let mut todo = self.paths.timeout(self.now, ALL);
            for (_, from, id) in due {
                self.paths.heard(self.now, Path::Udp(from), ALL);
                let (rtt, steps) = self.paths.answered_by(self.now, Path::Udp(from), id, ALL);
                assert!(rtt.is_none_or(|rtt| rtt == Duration::from_millis(10)), "{rtt:?}");
                todo.extend(steps);
            }
            for step in todo {
                match step {
                    Step::Challenge(to, size) => {
                        self.next += 1;
                        self.paths.challenged(self.now, to, self.next, size);
                        if answers(to, size) {
                            self.back.push((self.now + Duration::from_millis(10), to, self.next));
                        }
                    }
                    Step::Moved => {
                        let at = u64::try_from((self.now - begin).as_millis()).unwrap();
                        moved.push((at, self.paths.current()));
                    }
                    Step::Tell => self.paths.tells(self.now),
                    Step::Open(_) | Step::Guess(..) | Step::Birthday | Step::Sized | Step::Failed => {}
                }
            }
        }
        self.now = end;
        moved
    }

    /// Sends a packet every 20 ms.
    fn send(
        &mut self,
        millis: u64,
        long: bool,
        answers: impl Fn(SocketAddr, Size) -> bool,
    ) -> Vec<(u64, Path)> {
        let mut moved = Vec::new();
        for at in (0..millis).step_by(20) {
            self.paths.sends(self.now, long, ALL);
            moved.extend(self.pass(20, &answers).into_iter().map(|(after, path)| (at + after, path)));
        }
        moved
    }

    fn direct() -> Self {
        let mut peer = Self::new();
        peer.paths.sends(peer.now, false, ALL);
        peer.paths.candidates(peer.now, &said(&["192.0.2.1:1"]), ALL);
        peer.pass(6000, |_, _| true);
        assert_eq!(peer.paths.current(), Path::Udp(address("192.0.2.1:1")));
        peer
    }
}

#[test]
fn path_is_taken_within_two_round_trips_of_its_proof() {
    let mut peer = Peer::new();
    assert!(peer.paths.sends(peer.now, false, ALL));
    assert!(peer.paths.candidates(peer.now, &said(&["192.0.2.1:1", "192.0.2.2:1"]), ALL));
    let moved = peer.pass(6000, |to, _| to == address("192.0.2.2:1"));
    // The peer had 120 ms to open its own NAT first.
    assert_eq!(moved, [(140, Path::Udp(address("192.0.2.2:1")))]);
    assert_eq!(peer.paths.changes(), 1);
    assert_eq!(peer.paths.due(), None, "nothing goes on without traffic");
}

/// One direction died: the peer noticed first, and its challenges, which still arrive, are no answer to anything.
#[test]
fn questions_of_a_peer_that_looks_for_a_path_do_not_keep_a_dead_one() {
    let mut peer = Peer::direct();
    let used = peer.paths.current();
    let mut moved = Vec::new();
    for _ in 0..5 {
        peer.paths.heard(peer.now, used, ALL);
        peer.paths.sought(peer.now, used);
        moved.extend(peer.send(200, false, |_, _| false));
    }
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(moved[0].1, Path::Relay(PEER));
}

#[test]
fn questions_of_a_peer_that_looks_for_a_path_do_not_move_one_that_carries() {
    let mut peer = Peer::direct();
    let used = peer.paths.current();
    for _ in 0..50 {
        peer.paths.heard(peer.now, used, ALL);
        peer.paths.sought(peer.now, used);
        assert_eq!(peer.send(100, false, |_, _| true), []);
    }
}

#[test]
fn path_that_carries_only_short_frames_is_not_taken() {
    let mut peer = Peer::new();
    peer.paths.sends(peer.now, false, ALL);
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1"]), ALL);
    assert_eq!(peer.pass(60_000, |_, size| size == Size::Short), []);
    assert_eq!(peer.paths.current(), Path::Relay(PEER));
}

#[test]
fn searches_that_find_nothing_grow_rare_and_need_traffic() {
    let mut peer = Peer::new();
    let mut sent = Vec::new();
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1"]), ALL);
    for _ in 0..30 {
        let before = peer.next;
        peer.send(10_000, false, |_, _| false);
        sent.push(peer.next - before);
    }
    assert!(sent[0] >= 10, "{sent:?}");
    assert!(sent[10..].iter().sum::<u64>() < 20 * 6, "{sent:?}");
    let before = peer.next;
    peer.pass(600_000, |_, _| false);
    assert!(peer.next - before < 20, "idle peers are silent");
}

#[test]
fn dead_path_is_left_within_a_second_of_traffic() {
    for long in [false, true] {
        let mut peer = Peer::direct();
        let moved = peer.send(3000, long, |_, _| true);
        assert_eq!(moved, [], "a path that answers stays");
        let moved = peer.send(3000, long, |_, _| false);
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert!(moved[0].0 <= 1000 && moved[0].1 == Path::Relay(PEER), "{moved:?}");
        let moved = peer.send(6000, long, |_, _| true);
        assert_eq!(moved.len(), 1, "back: {moved:?}");
        assert!(moved[0].0 <= 5000, "{moved:?}");
    }
}

#[test]
fn path_that_stops_carrying_long_frames_is_left_and_does_not_flap() {
    let mut peer = Peer::direct();
    peer.send(3000, true, |_, _| true);
    // Short frames come back all the time.
    let mut moved = Vec::new();
    for at in (0..20_000).step_by(20) {
        peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL);
        peer.paths.sends(peer.now, true, ALL);
        moved.extend(
            peer.pass(20, |_, size| size == Size::Short).into_iter().map(|(after, path)| (at + after, path)),
        );
    }
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(moved[0].0 <= 2000, "{moved:?}");
}

#[test]
fn relay_carries_the_same_while_a_path_was_silent_for_long() {
    let mut peer = Peer::direct();
    assert_eq!(peer.paths.also(peer.now, ALL), None);
    peer.pass(20_000, |_, _| true);
    assert_eq!(peer.paths.also(peer.now, ALL), Some(Path::Relay(PEER)));
    assert_eq!(peer.paths.also(peer.now, Setting { relay: false, ..ALL }), None);
    peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL);
    assert_eq!(peer.paths.also(peer.now, ALL), None);
}

#[test]
fn answer_counts_only_with_its_id_and_from_its_address() {
    let mut peer = Peer::new();
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1", "192.0.2.2:1"]), ALL);
    peer.paths.challenged(peer.now, address("192.0.2.1:1"), 5, Size::Long(1420));
    for (from, id) in [("192.0.2.2:1", 5), ("192.0.2.9:1", 5), ("192.0.2.1:1", 6)] {
        let (rtt, steps) = peer.paths.answered_by(peer.now, Path::Udp(address(from)), id, ALL);
        assert_eq!((rtt, steps), (None, Vec::new()), "{from} {id}");
    }
    let (rtt, _) = peer.paths.answered_by(peer.now, Path::Relay(PEER), 5, ALL);
    assert_eq!((rtt, peer.paths.current()), (None, Path::Relay(PEER)));
    let (_, steps) = peer.paths.answered_by(peer.now, Path::Udp(address("192.0.2.1:1")), 5, ALL);
    assert_eq!(steps, [Step::Moved]);
}

#[test]
fn address_that_was_only_seen_is_searched_too() {
    let mut peer = Peer::new();
    assert!(peer.paths.heard(peer.now, Path::Udp(address("198.51.100.1:9")), ALL));
    let moved = peer.pass(1000, |to, _| to == address("198.51.100.1:9"));
    assert_eq!(moved.len(), 1);
}

#[test]
fn addresses_are_bounded_and_the_one_in_use_stays() {
    let mut peer = Peer::direct();
    for port in 1..500 {
        peer.paths.heard(peer.now, Path::Udp((std::net::Ipv4Addr::new(203, 0, 113, 1), port).into()), ALL);
    }
    assert_eq!(peer.paths.remotes().len(), REMOTES);
    assert!(peer.paths.remotes().iter().any(|remote| remote.address == address("192.0.2.1:1")));
}

#[test]
fn peer_that_names_ever_other_addresses_causes_few_challenges() {
    let mut peer = Peer::new();
    peer.paths.sends(peer.now, false, ALL);
    for number in 0..10_000_u32 {
        let list = (0..16).map(|port| Candidate {
            kind: CandidateKind::Host,
            address: (std::net::Ipv4Addr::from_bits(0xc633_6400 | (number % 250)), port + 1).into(),
        });
        let said = Candidates { mapping: Mapping::Unknown, list: list.collect() };
        peer.paths.candidates(peer.now, &said, ALL);
        peer.paths.heard(peer.now, Path::Udp((std::net::Ipv4Addr::from_bits(number + 1), 9).into()), ALL);
        peer.pass(1, |_, _| false);
    }
    assert!(peer.next <= 3 * u64::from(ROUNDS) * u64::try_from(REMOTES).unwrap(), "{} in 10 s", peer.next);
}

#[test]
fn near_path_is_preferred_and_small_differences_do_not_matter() {
    let rank = |text, millis| {
        let mut remote = Remote::seen(address(text));
        remote.rtt = Some(Duration::from_millis(millis));
        remote.rank()
    };
    assert!(rank("10.0.0.1:1", 9).is_clearly_better(&rank("192.0.2.1:1", 5)));
    assert!(!rank("192.0.2.1:1", 5).is_clearly_better(&rank("10.0.0.1:1", 9)));
    assert!(!rank("192.0.2.1:1", 18).is_clearly_better(&rank("192.0.2.2:1", 20)));
    assert!(rank("192.0.2.1:1", 10).is_clearly_better(&rank("192.0.2.2:1", 20)));
}

#[test]
fn handshake_over_the_relay_does_not_take_a_path_that_lives() {
    let mut peer = Peer::direct();
    peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL);
    peer.paths.shown(peer.now, Path::Relay(PEER), ALL);
    assert_eq!(peer.paths.current(), Path::Udp(address("192.0.2.1:1")));
    peer.pass(20_000, |_, _| true);
    peer.paths.shown(peer.now, Path::Relay(PEER), ALL);
    assert_eq!(peer.paths.current(), Path::Relay(PEER));
}

#[test]
fn lost_relay_is_replaced_by_a_proved_path() {
    let mut peer = Peer::direct();
    peer.paths.move_to(peer.now, Path::Relay(PEER), ChangeReason::Silent, ALL);
    peer.paths.sends(peer.now, false, Setting { searches: false, ..ALL });
    let moved = peer.paths.relay_lost(peer.now, ALL);
    assert!(moved && matches!(peer.paths.current(), Path::Udp(_)));
    let mut other = Peer::new();
    assert!(!other.paths.relay_lost(other.now, ALL));
}

#[test]
fn segmentation_that_fails_is_given_up_and_the_path_is_kept() {
    let mut peer = Peer::direct();
    let path = Path::Udp(address("192.0.2.1:1"));
    assert!(!peer.paths.is_single(peer.now, path));
    let moved = peer.send(6000, true, |_, size| !matches!(size, Size::Pair(_)));
    assert_eq!(moved, [], "what goes by itself arrives, so the path is kept");
    assert!(peer.paths.is_single(peer.now, path));
    assert!(!peer.paths.is_single(peer.now, Path::Udp(address("192.0.2.2:1"))));
    // Ten minutes later it is tried again.
    peer.now += Duration::from_secs(600);
    assert!(!peer.paths.is_single(peer.now, path));
}

#[test]
fn segmentation_is_kept_where_pairs_arrive() {
    let mut peer = Peer::direct();
    assert_eq!(peer.send(10_000, true, |_, _| true), []);
    assert!(!peer.paths.is_single(peer.now, Path::Udp(address("192.0.2.1:1"))));
}

/// Says whether a challenge fits payloads of so many bytes.
fn fits(size: Size, limit: u16) -> bool {
    match size {
        Size::Short => true,
        Size::Long(bytes) | Size::Pair(bytes) => bytes <= limit,
    }
}

#[test]
fn path_is_taken_with_the_length_that_it_carries() {
    let mut peer = Peer::new();
    peer.paths.sends(peer.now, false, ALL);
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1"]), ALL);
    assert_eq!(peer.paths.limit(), u16::MAX);
    let moved = peer.pass(6000, |_, size| fits(size, 1300));
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(moved[0].0 <= 2000 && matches!(moved[0].1, Path::Udp(_)), "{moved:?}");
    assert!((1284..=1300).contains(&peer.paths.limit()), "{}", peer.paths.limit());
    assert!(!peer.paths.is_measured());
    assert_eq!(peer.send(20_000, true, |_, size| fits(size, 1300)), []);
    let change = peer.paths.last_change().unwrap();
    assert_eq!((change.from, change.reason), (Path::Relay(PEER), ChangeReason::Found));
}

#[test]
fn path_that_carries_less_than_before_is_kept_and_measured_within_two_seconds() {
    let mut peer = Peer::direct();
    peer.send(3000, true, |_, _| true);
    assert_eq!(peer.paths.limit(), 1420);
    let mut least = None;
    let mut done = None;
    for at in (0..10_000).step_by(20) {
        // Short frames come back all the time.
        peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL);
        peer.paths.sends(peer.now, true, ALL);
        assert_eq!(peer.pass(20, |_, size| fits(size, 1250)), []);
        if peer.paths.limit() < 1420 {
            least.get_or_insert(at);
        }
        if peer.paths.limit() < 1420 && !peer.paths.is_measured() {
            done.get_or_insert(at);
        }
    }
    assert!(least.is_some_and(|at| at <= 2000), "{least:?}");
    assert!(done.is_some_and(|at| at <= 3500), "{done:?}");
    assert!((1234..=1250).contains(&peer.paths.limit()), "{}", peer.paths.limit());
    assert_eq!(peer.paths.changes(), 1);
    // It carries more again: that is found out in ten minutes, by traffic.
    peer.send(620_000, true, |_, _| true);
    assert_eq!((peer.paths.limit(), peer.paths.changes()), (1420, 1));
}

#[test]
fn relay_carries_the_same_while_long_frames_are_not_answered() {
    let mut peer = Peer::direct();
    peer.send(1500, true, |_, _| true);
    let mut also = false;
    for _ in 0..100 {
        peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL);
        peer.paths.sends(peer.now, true, ALL);
        peer.pass(20, |_, size| size == Size::Short);
        also |= matches!(peer.paths.current(), Path::Udp(_)) && peer.paths.also(peer.now, ALL).is_some();
    }
    assert!(also);
    assert_eq!(peer.paths.last_change().unwrap().reason, ChangeReason::ShortOnly);
}

#[test]
fn lost_challenges_neither_shrink_a_path_nor_leave_it() {
    let mut peer = Peer::direct();
    let lottery = std::cell::Cell::new(0_u64);
    let moved = peer.send(120_000, true, |_, _| {
        lottery.set(lottery.get() + 1);
        let mut mixed = lottery.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) >> 40 & 0xff >= 26
    });
    assert_eq!((moved, peer.paths.limit()), (Vec::new(), 1420), "one in ten is lost");
}
