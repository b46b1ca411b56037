use mesh_wire::Pin;
use mesh_wire::control::RelaysTold;

use super::*;

fn told(numbers: &[u8]) -> RelaysTold {
    RelaysTold { list: numbers.iter().map(|number| Pin([*number; 32])).collect() }
}

/// What `at` heard of the relays of others.
fn heard(world: &World, at: NodeId) -> Vec<Vec<Pin>> {
    let mut heard = Vec::new();
    for event in &world.events[&at] {
        if let NodeEvent::Relays { relays, .. } = event {
            heard.push(relays.clone());
        }
    }
    heard
}

#[test]
fn peers_are_told_of_relays_with_the_session_and_at_changes() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.with(a, |node, now, tx| node.set_relays(now, told(&[1, 2]), tx));
    world.send(b, a, 1);
    assert_eq!(heard(&world, b), [told(&[1, 2]).list]);
    assert!(heard(&world, a).is_empty(), "the other has nothing to tell");
    world.with(a, |node, now, tx| node.set_relays(now, told(&[2, 1]), tx));
    world.with(a, |node, now, tx| node.set_relays(now, told(&[2, 1]), tx));
    assert_eq!(heard(&world, b), [told(&[1, 2]).list, told(&[2, 1]).list]);
}

#[test]
fn peer_that_changes_its_relays_all_the_time_is_not_listened_to() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    for number in 0..200 {
        world.with(a, |node, now, tx| node.set_relays(now, told(&[number]), tx));
    }
    assert!((1..20).contains(&heard(&world, b).len()));
    assert!(world.drops(b, DropReason::RateLimited) > 180);
    world.pass(Duration::from_secs(10));
    world.with(a, |node, now, tx| node.set_relays(now, told(&[7]), tx));
    assert_eq!(heard(&world, b).last(), Some(&told(&[7]).list));
}

#[test]
fn packets_for_a_peer_that_is_nowhere_are_told_once() {
    let mut world = World::new(2, Link::Ip);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.with(a, |node, now, tx| node.handle_presence(now, b, false, tx));
    for mark in 0..10 {
        world.send(a, b, mark);
    }
    let absent = |event: &&NodeEvent| **event == NodeEvent::Absent { peer: b };
    assert_eq!(world.events[&a].iter().filter(absent).count(), 1);
}
