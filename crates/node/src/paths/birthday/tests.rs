//! Guessing by itself: how often it hits, what it costs, and that it ends.

use std::collections::{HashMap, HashSet};

use mesh_wire::NodeId;
use mesh_wire::control::{Candidate, Candidates};
use proptest::prelude::*;

use super::*;

const HARD_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const EASY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 2), 4747);

fn setting(mapping: Mapping) -> Setting {
    Setting { searches: true, relay: true, birthday: true, mapping, most: 1420 }
}

fn sequential() -> Mapping {
    Mapping::Sequential(PortStep::new(1).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
fn begin() -> Instant {
    Instant::now()
}

/// Paths to a peer that says this of itself.
fn paths(now: Instant, peer: Mapping, public: SocketAddrV4, own: Mapping) -> Paths {
    let mut paths = Paths::new(NodeId([7; 32]));
    let list = vec![
        Candidate { kind: CandidateKind::Host, address: "10.0.0.1:4747".parse().unwrap() },
        Candidate { kind: CandidateKind::Reflexive, address: public.into() },
    ];
    paths.candidates(now, &Candidates { mapping: peer, list }, setting(own));
    paths
}

/// Every guess of the next attempt with its time, the node agreeing to it at once, and when it was over.
fn attempt(paths: &mut Paths, now: &mut Instant, own: Mapping, seed: u64) -> Vec<(Duration, SocketAddr, By)> {
    let start = *now;
    let (mut guesses, mut begun) = (Vec::new(), false);
    paths.search(*now, setting(own));
    while let Some(due) = paths.due() {
        *now = (*now).max(due);
        for step in paths.timeout(*now, setting(own)) {
            match step {
                Step::Tell => paths.tells(*now),
                Step::Birthday => begun |= paths.begin_birthday(*now, seed, setting(own)),
                Step::Guess(to, by) if paths.guesses() && begun => guesses.push((*now - start, to, by)),
                Step::Guess(..)
                | Step::Open(_)
                | Step::Challenge(..)
                | Step::Moved
                | Step::Sized
                | Step::Failed => {}
            }
        }
    }
    assert!(begun, "no attempt");
    guesses
}

/// A number that depends on another in no visible way.
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Lets a hard and an easy side guess; after what time one of them was heard, if one was.
fn meet(seed: u64) -> Option<Duration> {
    let now = begin();
    let mut easy = paths(now, Mapping::Dependent, SocketAddrV4::new(HARD_HOST, 9999), Mapping::Independent);
    let mut hard = paths(now, Mapping::Independent, EASY, Mapping::Dependent);
    let mut all = attempt(&mut easy, &mut now.clone(), Mapping::Independent, mixed(seed));
    all.extend(attempt(&mut hard, &mut now.clone(), Mapping::Dependent, mixed(!seed)));
    all.sort();
    // What the hard NAT gave out, and what the easy one let in.
    let (mut mapped, mut open) = (HashMap::new(), HashSet::new());
    for (at, to, by) in all {
        let (given, opened) = match by {
            By::Extra(socket) => {
                let number = u64::try_from(mapped.len()).unwrap();
                let port = *mapped.entry(socket).or_insert_with(|| {
                    FIRST_PORT + u16::try_from(mixed(seed ^ (number << 20)) % u64::from(PORTS)).unwrap()
                });
                (port, open.contains(&port))
            }
            By::Usual | By::Hops(_) => {
                open.insert(to.port());
                (to.port(), mapped.values().any(|port| *port == to.port()))
            }
        };
        if opened {
            assert!(mapped.values().any(|port| *port == given));
            return Some(at);
        }
    }
    None
}

#[test]
fn hard_and_easy_side_meet_about_as_often_as_is_said() {
    let times: Vec<_> = (0..300).filter_map(meet).collect();
    let chance = chance(Mapping::Dependent, Mapping::Independent).unwrap();
    assert!((0.97..0.99).contains(&chance), "{chance}");
    assert!(times.len() >= 285, "{} of 300", times.len());
    assert!(times.iter().all(|at| *at < Duration::from_secs(9)));
    let soon = times.iter().filter(|at| **at < Duration::from_secs(3)).count();
    assert!(soon * 2 > times.len(), "half of them within 2 s of guessing");
}

#[test]
fn chances_are_honest() {
    let of = |own, peer| chance(own, peer);
    assert_eq!(of(Mapping::Independent, Mapping::Independent), None);
    assert_eq!(of(Mapping::Unknown, Mapping::Dependent), None);
    assert_eq!(of(Mapping::Dependent, Mapping::None), of(Mapping::None, Mapping::Dependent));
    let both = of(Mapping::Dependent, Mapping::Dependent).unwrap();
    assert!((0.000_2..0.000_3).contains(&both), "{both}");
    let one = of(sequential(), Mapping::Dependent).unwrap();
    assert!((0.015..0.017).contains(&one), "{one}");
}

#[test]
fn every_port_is_guessed_once() {
    for seed in 0..50 {
        let order = Order::mixed(mixed(seed));
        let ports: HashSet<u16> = (0..PORTS).map(|number| order.port(number)).collect();
        assert_eq!(ports.len(), usize::try_from(PORTS).unwrap());
        assert!(ports.iter().all(|port| *port >= FIRST_PORT));
    }
}

#[test]
fn attempts_grow_rare_and_a_path_makes_up_for_it() {
    let mut now = begin();
    let mut easy = paths(now, Mapping::Dependent, SocketAddrV4::new(HARD_HOST, 9), Mapping::None);
    let mut pauses = Vec::new();
    for seed in 0..10 {
        attempt(&mut easy, &mut now, Mapping::None, seed);
        let next = easy.birthday().next.expect("it failed");
        pauses.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]);
    easy.begin_birthday(now, 1, setting(Mapping::None));
    easy.shown(now, Path::Udp(EASY.into()), setting(Mapping::None));
    assert!(!easy.guesses() && easy.birthday().next.is_none());
    assert_eq!((easy.birthday().attempts, easy.birthday().found), (11, 1));
}

#[test]
fn nothing_is_guessed_where_it_is_switched_off_or_needless() {
    let now = begin();
    for (own, peer, birthday) in [
        (Mapping::None, Mapping::Dependent, false),
        (Mapping::Independent, Mapping::Independent, true),
        (Mapping::Unknown, Mapping::Dependent, true),
    ] {
        let mut easy = paths(now, peer, SocketAddrV4::new(HARD_HOST, 9), own);
        let setting = Setting { birthday, ..setting(own) };
        easy.search(now, setting);
        while let Some(due) = easy.due() {
            assert!(!easy.timeout(due, setting).contains(&Step::Birthday), "{own:?} {peer:?}");
        }
    }
}

#[test]
fn peers_together_get_so_many_attempts_an_hour() {
    let mut allowance = Allowance::default();
    let now = begin();
    let taken = |allowance: &mut Allowance, at| (0..1000).filter(|_| allowance.take(at)).count();
    assert_eq!(taken(&mut allowance, now), HOURLY);
    assert_eq!(taken(&mut allowance, now + HOUR / 2), 0);
    assert_eq!(taken(&mut allowance, now + HOUR), HOURLY);
    assert!(allowance.begun.len() <= HOURLY);
}

fn mappings() -> impl Strategy<Value = Mapping> {
    prop_oneof![
        Just(Mapping::None),
        Just(Mapping::Independent),
        Just(Mapping::Dependent),
        (1..=16).prop_map(|step| Mapping::Sequential(PortStep::new(step).unwrap())),
    ]
}

proptest! {
    /// Whatever the peer says meanwhile, and however late the node looks.
    #[test]
    fn attempt_keeps_its_budget_its_rate_and_its_end(
        own in mappings(),
        peer in mappings(),
        seed in any::<u64>(),
        late in proptest::collection::vec(0_u64..300, 1..40),
        said in proptest::collection::vec((any::<u32>(), 1..u16::MAX, mappings()), 0..40),
    ) {
        let mut now = begin();
        let mut paths = paths(now, peer, SocketAddrV4::new(HARD_HOST, 9), own);
        prop_assume!(paths.begin_birthday(now, seed, setting(own)));
        let start = now;
        let (mut sent, mut last) = (0, None);
        let mut targets = HashSet::new();
        let mut delays = late.iter().cycle();
        let mut said = said.into_iter();
        while paths.guesses() {
            now = now.max(paths.due().unwrap()) + Duration::from_millis(*delays.next().unwrap());
            if let Some((ip, port, mapping)) = said.next() {
                let address = SocketAddrV4::new(Ipv4Addr::from_bits(ip), port).into();
                let list = vec![Candidate { kind: CandidateKind::Reflexive, address }];
                paths.candidates(now, &Candidates { mapping, list }, setting(own));
            }
            let mut steps = Vec::new();
            paths.birthday_goes_on(now, setting(own), &mut steps);
            prop_assert!(steps.len() <= BURST as usize);
            if !steps.is_empty() {
                prop_assert!(last.is_none_or(|last| now - last >= TICK));
                last = Some(now);
            }
            sent += steps.len();
            for step in steps {
                let Step::Guess(to, by) = step else { panic!("{step:?}") };
                prop_assert!(to.port() != 0 && to.is_ipv4());
                prop_assert!(!matches!(by, By::Extra(number) if number >= EXTRA_SOCKETS));
                targets.insert(to.ip());
            }
            prop_assert!(now - start <= LONGEST + Duration::from_secs(1));
        }
        prop_assert!(sent <= BUDGET as usize, "{sent}");
        prop_assert!(targets.len() <= KNOWN, "{targets:?}");
        prop_assert!(paths.birthday().next.unwrap() >= now + PAUSE);
    }
}
