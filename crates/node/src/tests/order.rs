//! Packets keep their order when their path leaves the relay, which is the longer way.

use super::direct::world;
use super::*;

const DELAY: Duration = Duration::from_millis(20);

/// A packet with a number and so many bytes of payload.
fn numbered(world: &World, from: NodeId, to: NodeId, (number, bytes): (u32, usize)) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    ipv4(world.address(from), world.address(to), &payload)
}

fn numbers(packets: &[Vec<u8>]) -> Vec<u32> {
    packets.iter().map(|packet| u32::from_be_bytes(packet[20..24].try_into().unwrap())).collect()
}

/// Two nodes with a session over the relay, which is far away, and that begin to look for the shorter path.
fn far_from_the_relay() -> World {
    let mut world = world(false);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.udp_limit = 0;
    world.send(a, b, 1);
    world.pass(Duration::from_secs(10));
    (world.relay_delay, world.udp_limit) = (DELAY, usize::MAX);
    for (id, peer) in [(a, b), (b, a)] {
        world.with(id, |node, now, tx| node.search(now, peer, tx));
        world.got(id);
    }
    world
}

/// Sends numbered packets each way, one in each millisecond, until the path of the first is direct. Returns how many.
fn until_direct(world: &mut World) -> u32 {
    let [a, b] = [world.ids[0], world.ids[1]];
    for number in 0..5000 {
        for (from, to) in [(a, b), (b, a)] {
            let packet = numbered(world, from, to, (number, 30));
            world.with(from, |node, now, tx| node.handle_packet(now, &packet, tx));
        }
        world.pass(Duration::from_millis(1));
        if matches!(world.snapshot(a).peers[0].path, Path::Udp(_)) {
            return number + 1;
        }
    }
    panic!("no direct path");
}

#[test]
fn packets_keep_their_order_when_a_path_is_found() {
    let mut world = far_from_the_relay();
    let [a, b] = [world.ids[0], world.ids[1]];
    let sent = until_direct(&mut world);
    for number in sent..sent + 500 {
        for (from, to) in [(a, b), (b, a)] {
            let packet = numbered(&world, from, to, (number, 30));
            world.with(from, |node, now, tx| node.handle_packet(now, &packet, tx));
        }
        world.pass(Duration::from_millis(1));
    }
    assert!(world.ids.iter().all(|id| matches!(world.snapshot(*id).peers[0].path, Path::Udp(_))));
    for id in [a, b] {
        assert_eq!(numbers(&world.got(id)), (0..sent + 500).collect::<Vec<_>>());
    }
}

#[test]
fn packets_wait_no_longer_than_the_way_over_the_relay_takes() {
    let mut world = far_from_the_relay();
    let [a, b] = [world.ids[0], world.ids[1]];
    let sent = until_direct(&mut world);
    let packet = numbered(&world, a, b, (sent, 30));
    world.with(a, |node, now, tx| node.handle_packet(now, &packet, tx));
    assert!(numbers(&world.got(b)).last() < Some(&sent));
    // There over the relay, and back without.
    world.pass(2 * DELAY);
    assert_eq!(numbers(&world.got(b)).last(), Some(&sent));
}

#[test]
fn packets_wait_a_tenth_of_a_second_at_most() {
    let mut world = far_from_the_relay();
    let [a, b] = [world.ids[0], world.ids[1]];
    let sent = until_direct(&mut world);
    // What was under way is lost, and the ping with it.
    world.on_relay.clear();
    let packet = numbered(&world, a, b, (sent, 30));
    world.with(a, |node, now, tx| node.handle_packet(now, &packet, tx));
    world.pass(Duration::from_millis(105));
    assert_eq!(numbers(&world.got(b)).last(), Some(&sent));
}

#[test]
fn more_than_may_wait_is_sent_at_once_and_nothing_is_lost() {
    let mut world = far_from_the_relay();
    let [a, b] = [world.ids[0], world.ids[1]];
    let sent = until_direct(&mut world);
    let packets: Vec<_> = (sent..sent + 1000).map(|number| numbered(&world, a, b, (number, 1300))).collect();
    world.with(a, |node, now, tx| packets.iter().for_each(|packet| node.handle_packet(now, packet, tx)));
    let at_once = numbers(&world.got(b)).iter().filter(|number| **number >= sent).count();
    assert_eq!(at_once, 1000);
    world.pass(Duration::from_millis(200));
    assert!(world.got(b).iter().all(|packet| numbers(std::slice::from_ref(packet))[0] < sent));
}

#[test]
fn packet_of_a_peer_that_sent_nothing_lately_does_not_wait() {
    let mut world = far_from_the_relay();
    let [a, b] = [world.ids[0], world.ids[1]];
    world.send(a, b, 1);
    // The answers that lead to the path come long after the packet.
    world.pass(Duration::from_secs(2));
    assert!(matches!(world.snapshot(a).peers[0].path, Path::Udp(_)));
    world.got(b);
    world.send(a, b, 2);
    assert_eq!(world.got(b).len(), 1);
}
