use mesh_wire::Pin;
use mesh_wire::control::{Candidate, CandidateKind, Candidates, DoorTold, Mapping};

use super::*;

fn door(number: u8, addresses: &[&str]) -> DoorTold {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    DoorTold { pin: Pin([number; 32]), addresses }
}

/// What `at` heard of the doors of others.
fn heard(world: &World, at: NodeId) -> Vec<Option<DoorTold>> {
    let mut heard = Vec::new();
    for event in &world.events[&at] {
        if let NodeEvent::Door { door, .. } = event {
            heard.push(door.clone());
        }
    }
    heard
}

#[test]
fn peers_are_told_of_the_door_with_the_session_and_at_changes() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    let first = door(1, &["192.0.2.1:443", "[2001:db8::1]:443"]);
    world.with(a, |node, now, tx| node.set_door(now, Some(first.clone()), tx));
    world.send(b, a, 1);
    assert_eq!(heard(&world, b), [Some(first.clone())]);
    assert!(heard(&world, a).is_empty(), "the other has none");
    let second = door(1, &["192.0.2.2:443"]);
    for _ in 0..2 {
        world.with(a, |node, now, tx| node.set_door(now, Some(second.clone()), tx));
    }
    world.with(a, |node, now, tx| node.set_door(now, None, tx));
    assert_eq!(heard(&world, b), [Some(first), Some(second), None]);
}

#[test]
fn door_inside_the_overlay_is_none() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    let inside = format!("{}:443", world.roster.leaves()[0].ipv4);
    world.with(a, |node, now, tx| node.set_door(now, Some(door(1, &[&inside, "192.0.2.1:443"])), tx));
    world.with(a, |node, now, tx| node.set_door(now, Some(door(1, &[&inside])), tx));
    assert_eq!(heard(&world, b), [Some(door(1, &["192.0.2.1:443"])), None]);
}

#[test]
fn door_at_an_own_or_special_address_is_none() {
    let mut world = World::made(2, Link::Ip, |world| world.direct = true);
    let [a, b] = [world.ids[0], world.ids[1]];
    let own = world.udp_address(b);
    let list = vec![Candidate { kind: CandidateKind::Host, address: own }];
    world.with(b, |node, now, tx| {
        node.set_candidates(now, Candidates { mapping: Mapping::None, list }, tx);
    });
    let own = format!("{}:443", own.ip());
    let told = door(1, &[&own, "169.254.169.254:80", "192.0.2.99:443"]);
    world.with(a, |node, now, tx| node.set_door(now, Some(told), tx));
    world.send(a, b, 1);
    assert_eq!(heard(&world, b), [Some(door(1, &["192.0.2.99:443"]))]);
}

#[test]
fn peer_that_moves_its_door_all_the_time_is_not_listened_to() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    for number in 0..200 {
        let other = door(number, &["192.0.2.1:443"]);
        world.with(a, |node, now, tx| node.set_door(now, Some(other), tx));
    }
    assert!((1..20).contains(&heard(&world, b).len()));
    assert!(world.drops(b, DropReason::RateLimited) > 180);
}

#[test]
fn peer_that_is_connected_past_the_relays_is_reached_without_them() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    // The relays do not know the peer, and then there is none.
    world.with(a, |node, now, tx| node.handle_presence(now, b, false, tx));
    world.with(a, |node, now, _| node.handle_relay(now, false));
    world.with(a, |node, now, _| node.handle_beside(now, b, true));
    world.send(a, b, 1);
    assert!(world.events[&a].contains(&NodeEvent::Established { peer: b }), "{:?}", world.events[&a]);
    let absent = |event: &NodeEvent| *event == NodeEvent::Absent { peer: b };
    assert!(!world.events[&a].iter().any(absent));
}

#[test]
fn search_that_finds_nothing_is_told_while_the_relay_carries_packets() {
    let mut world = World::made(2, Link::Ip, |world| world.direct = true);
    let [a, b] = [world.ids[0], world.ids[1]];
    let told = |world: &World| {
        let failed = |event: &&NodeEvent| **event == NodeEvent::NoDirect { peer: b };
        world.events[&a].iter().filter(failed).count()
    };
    world.send(a, b, 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&world), 0, "it goes on");
    for _ in 0..8 {
        world.pass(Duration::from_secs(1));
        world.send(a, b, 2);
    }
    assert_eq!(told(&world), 1);
}
