//! NATs that take it ill when the peer is first, and those that give out another port for each destination.

use mesh_wire::control::Step as PortStep;

use super::*;

/// What a search did until it was at rest, and when, in milliseconds.
fn steps(paths: &mut Paths, mut now: Instant, setting: Setting) -> Vec<(u64, Step)> {
    let begin = now;
    let mut done = Vec::new();
    while let Some(due) = paths.due() {
        now = now.max(due);
        let at = u64::try_from((now - begin).as_millis()).unwrap();
        for step in paths.timeout(now, setting) {
            match step {
                Step::Tell => paths.tells(now),
                Step::Challenge(to, size) => paths.challenged(now, to, at, size),
                Step::Open(_)
                | Step::Guess(..)
                | Step::Moved
                | Step::Birthday
                | Step::Sized
                | Step::Failed => {}
            }
            done.push((at, step));
        }
        assert!(done.len() < 10_000, "never at rest");
    }
    done
}

fn sequential(public: &str) -> Candidates {
    let list = vec![
        Candidate { kind: CandidateKind::Host, address: address("10.0.0.1:1") },
        Candidate { kind: CandidateKind::Reflexive, address: address(public) },
    ];
    Candidates { mapping: Mapping::Sequential(PortStep::new(1).unwrap()), list }
}

#[test]
fn own_nat_is_opened_before_the_peer_is_told_and_long_before_anything_reaches_its_nat() {
    let mut peer = Peer::new();
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1", "192.0.2.2:1"]), ALL);
    let done = steps(&mut peer.paths, peer.now, ALL);
    let opens = [Step::Open(address("192.0.2.1:1")), Step::Open(address("192.0.2.2:1"))];
    assert_eq!(done[..3], [(0, opens[0]), (0, opens[1]), (0, Step::Tell)]);
    let first = done.iter().find(|(_, step)| matches!(step, Step::Challenge(..))).unwrap();
    assert_eq!(first.0, 120);
    let opened = done.iter().filter(|(_, step)| matches!(step, Step::Open(_))).count();
    assert_eq!(opened, 2, "once for each search");
}

#[test]
fn address_that_was_heard_of_is_challenged_at_once() {
    let mut peer = Peer::new();
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1"]), ALL);
    peer.paths.timeout(peer.now, ALL);
    peer.now += Duration::from_millis(51);
    assert!(peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL));
    let challenge = Step::Challenge(address("192.0.2.1:1"), Size::Short);
    assert_eq!(peer.paths.timeout(peer.now, ALL), [challenge]);
    assert!(!peer.paths.heard(peer.now, Path::Udp(address("192.0.2.1:1")), ALL), "once");
}

#[test]
fn peer_that_cannot_be_told_anything_is_challenged_after_a_second() {
    let mut peer = Peer::new();
    peer.paths.candidates(peer.now, &said(&["192.0.2.1:1"]), ALL);
    let mut first = None;
    while let Some(due) = peer.paths.due() {
        let done = peer.paths.timeout(due, ALL);
        if done.iter().any(|step| matches!(step, Step::Challenge(..))) {
            first.get_or_insert(due - peer.now);
        }
    }
    let first = first.expect("it is challenged in the end");
    assert!((1100..1500).contains(&first.as_millis()), "{first:?}");
}

#[test]
fn next_ports_of_a_nat_that_counts_are_tried_twice_in_a_search() {
    let mut peer = Peer::new();
    peer.paths.candidates(peer.now, &sequential("203.0.113.1:5000"), ALL);
    let done = steps(&mut peer.paths, peer.now, ALL);
    let guesses: Vec<_> = done.iter().filter(|(_, step)| matches!(step, Step::Guess(..))).collect();
    assert_eq!(guesses.len(), 64);
    assert_eq!(guesses[0].1, Step::Guess(address("203.0.113.1:5001"), By::Usual));
    assert_eq!(guesses[31].1, Step::Guess(address("203.0.113.1:5032"), By::Usual));
    assert!(guesses[0].0 >= 120, "not before the peer had time to open its NAT");
    assert_eq!(peer.paths.guessed(), 64);
}

#[test]
fn nothing_is_guessed_from_behind_such_a_nat_itself_nor_where_a_path_answers() {
    for mapping in [Mapping::Dependent, Mapping::Sequential(PortStep::new(1).unwrap())] {
        let mut peer = Peer::new();
        let setting = Setting { mapping, ..ALL };
        peer.paths.candidates(peer.now, &sequential("203.0.113.1:5000"), setting);
        steps(&mut peer.paths, peer.now, setting);
        assert_eq!(peer.paths.guessed(), 0, "{mapping:?}");
    }
    let mut peer = Peer::direct();
    peer.paths.candidates(peer.now, &sequential("203.0.113.1:5000"), ALL);
    steps(&mut peer.paths, peer.now, ALL);
    assert_eq!(peer.paths.guessed(), 0);
}

#[test]
fn peer_that_names_ever_other_counting_nats_causes_few_guesses() {
    let mut peer = Peer::new();
    for number in 0..1000_u32 {
        let public = SocketAddr::from((std::net::Ipv4Addr::from_bits(0xc633_6400 + number), 5000));
        peer.paths.candidates(peer.now, &sequential(&public.to_string()), ALL);
        peer.pass(5, |_, _| false);
    }
    assert!(peer.paths.guessed() <= 64, "{} in 5 s", peer.paths.guessed());
}
