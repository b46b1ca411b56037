//! Paths without the relay, found and left while packets flow.

use mesh_wire::control::{Candidate, CandidateKind, Candidates, Mapping};

use super::*;

/// Two nodes that look for paths and know their own addresses.
pub(super) fn world(mixes: bool) -> World {
    let mut world = World::made(2, Link::Ip, |world| (world.direct, world.mixes) = (true, mixes));
    for id in world.ids.clone() {
        let list = vec![Candidate { kind: CandidateKind::Host, address: world.udp_address(id) }];
        let candidates = Candidates { mapping: Mapping::None, list };
        world.with(id, |node, now, tx| node.set_candidates(now, candidates, tx));
    }
    world
}

fn path(world: &World, at: NodeId) -> Path {
    world.snapshot(at).peers[0].path
}

/// Sends a packet each way every 20 ms and returns how many of each did not come at once.
fn traffic(world: &mut World, millis: u64) -> [u64; 2] {
    let [a, b] = [world.ids[0], world.ids[1]];
    let mut lost = [0; 2];
    for mark in 0..millis / 20 {
        for (lost, [from, to]) in lost.iter_mut().zip([[a, b], [b, a]]) {
            world.send(from, to, u8::try_from(mark % 251).unwrap());
            let got = world.got(to).len();
            assert!(got <= 1, "{got} copies of a packet");
            *lost += u64::from(got == 0);
        }
        world.pass(Duration::from_millis(20));
    }
    lost
}

#[test]
fn direct_path_is_found_under_traffic_without_a_loss() {
    for mixes in [false, true] {
        let mut world = world(mixes);
        let [a, b] = [world.ids[0], world.ids[1]];
        assert_eq!(traffic(&mut world, 2000), [0, 0]);
        assert_eq!(path(&world, a), Path::Udp(world.udp_address(b)));
        assert_eq!(path(&world, b), Path::Udp(world.udp_address(a)));
        world.relay = false;
        assert_eq!(traffic(&mut world, 2000), [0, 0], "the relay is not needed any more");
        let named = |event: &NodeEvent| matches!(event, NodeEvent::Path { path: Path::Udp(_), .. });
        assert_eq!(world.events[&a].iter().filter(|event| named(event)).count(), 1);
    }
}

#[test]
fn direct_path_that_ends_with_the_session_is_told() {
    let mut world = world(true);
    let [a, b] = [world.ids[0], world.ids[1]];
    traffic(&mut world, 2000);
    let direct = Path::Udp(world.udp_address(b));
    assert_eq!(path(&world, a), direct);
    world.with(b, |node, _, tx| node.close(tx));
    assert_eq!(path(&world, a), Path::Relay(b));
    let (path, reason) = (Path::Relay(b), ChangeReason::Ended);
    let told = NodeEvent::Path { peer: b, from: direct, path, reason };
    assert!(world.events[&a].contains(&told), "{:?}", world.events[&a]);
}

#[test]
fn path_that_dies_is_left_within_a_second_and_taken_again_when_it_heals() {
    let mut world = world(true);
    traffic(&mut world, 2000);
    world.udp_limit = 0;
    let lost = traffic(&mut world, 3000);
    assert!(lost.iter().all(|lost| *lost <= 50), "{lost:?} of 150 packets");
    assert!(matches!(path(&world, world.ids[0]), Path::Relay(_)));
    world.udp_limit = usize::MAX;
    assert_eq!(traffic(&mut world, 12_000), [0, 0]);
    assert!(matches!(path(&world, world.ids[0]), Path::Udp(_)));
}

#[test]
fn path_for_short_frames_only_is_never_taken() {
    let mut world = world(false);
    world.udp_limit = 1200;
    assert_eq!(traffic(&mut world, 20_000), [0, 0]);
    assert!(world.ids.iter().all(|id| matches!(path(&world, *id), Path::Relay(_))));
}

#[test]
fn packets_after_a_long_silence_arrive_though_the_path_is_gone() {
    let mut world = world(true);
    traffic(&mut world, 2000);
    world.pass(Duration::from_secs(40));
    world.udp_limit = 0;
    assert_eq!(traffic(&mut world, 3000), [0, 0]);
}

#[test]
fn idle_pair_with_a_direct_path_is_silent() {
    let mut world = world(true);
    traffic(&mut world, 2000);
    world.pass(Duration::from_secs(15));
    world.datagrams = 0;
    world.pass(Duration::from_secs(120));
    assert_eq!(world.datagrams, 0);
}

/// The address is that of somebody who answers nothing.
#[test]
fn member_that_names_a_stranger_as_its_nat_causes_few_guesses() {
    let mut world = world(false);
    let [a, b] = [world.ids[0], world.ids[1]];
    let own = vec![Candidate { kind: CandidateKind::Host, address: world.udp_address(a) }];
    let said = vec![Candidate { kind: CandidateKind::Reflexive, address: "198.51.100.9:9".parse().unwrap() }];
    for (id, mapping, list) in [(a, Mapping::Independent, own), (b, Mapping::Dependent, said)] {
        world.with(id, |node, now, tx| node.set_candidates(now, Candidates { mapping, list }, tx));
    }
    // The one who lies tells nothing true to it, so that no path is found.
    world.udp_limit = 0;
    traffic(&mut world, 66_000);
    let peer = world.snapshot(a).peers[0].clone();
    assert_eq!((peer.birthday.attempts, peer.birthday.found, peer.guesses), (1, 0, 1024));
    assert!(peer.birthday.next.is_some_and(|wait| wait <= Duration::from_secs(60)));
    traffic(&mut world, 66_000);
    let peer = world.snapshot(a).peers[0].clone();
    assert_eq!((peer.birthday.attempts, peer.guesses), (2, 2048));
    let ended = world.events[&a].iter().filter(|event| matches!(event, NodeEvent::Guessed { .. })).count();
    assert_eq!(ended, 2, "the sockets are closed after each");
}

#[test]
fn node_that_does_not_search_answers_those_who_do() {
    let mut world = World::made(2, Link::Ip, |_| {});
    let [a, b] = [world.ids[0], world.ids[1]];
    traffic(&mut world, 3000);
    assert!(matches!(path(&world, a), Path::Relay(_)) && matches!(path(&world, b), Path::Relay(_)));
    assert!(!world.events[&a].contains(&NodeEvent::Gather), "a node without the wish asks nobody");
}

#[test]
fn overlay_addresses_are_no_candidates() {
    let mut world = world(false);
    let [a, b] = [world.ids[0], world.ids[1]];
    let inner = SocketAddr::from((world.address(b), 4747));
    let list = vec![Candidate { kind: CandidateKind::Host, address: inner }];
    let candidates = Candidates { mapping: Mapping::None, list };
    world.with(b, |node, now, tx| node.set_candidates(now, candidates, tx));
    traffic(&mut world, 3000);
    assert!(world.snapshot(a).peers[0].remotes.iter().all(|remote| remote.address != inner));
}

#[test]
fn ping_takes_the_path_and_has_the_length_that_is_asked_for() {
    let mut world = world(false);
    let [a, b] = [world.ids[0], world.ids[1]];
    traffic(&mut world, 2000);
    let ask = |world: &mut World, via, size| {
        let before = world.events[&a].len();
        let mut sent = Ok(None);
        world.with(a, |node, now, tx| {
            sent = node.echo(now, b, Echo { via: Some(via), size: Some(size) }, tx);
        });
        world.pass(Duration::from_millis(100));
        let answer = world.events[&a][before..].iter().find_map(|event| {
            let NodeEvent::Pong { id, path, .. } = event else { return None };
            (sent == Ok(Some(*id))).then_some(*path)
        });
        sent.map(|_| answer)
    };
    let udp = Path::Udp(world.udp_address(b));
    assert_eq!(ask(&mut world, Via::Relay, 1200), Ok(Some(Path::Relay(b))));
    assert_eq!(ask(&mut world, Via::Direct, 1200), Ok(Some(udp)));
    world.udp_limit = 1000;
    assert_eq!(ask(&mut world, Via::Direct, 1200), Ok(None));
    assert_eq!(ask(&mut world, Via::Relay, 1200), Ok(Some(Path::Relay(b))));
    world.udp_limit = 0;
    traffic(&mut world, 2000);
    assert_eq!(ask(&mut world, Via::Direct, 100), Err(NoPath::NoDirect));
}
