//! Two handshakes that cross: whatever order their messages arrive in, both sides have to send under the same session,
//! for each forgets the other one.

use std::time::Duration;

use mesh_wire::NodeId;

use super::World;
use crate::{Link, Path, TxQueue};

impl World {
    /// Starts a handshake from both sides and carries all messages of a turn at once, so that each step of one meets
    /// the same step of the other.
    fn cross(&mut self, ids: [NodeId; 2]) {
        let mut turn = Vec::new();
        for (own, peer) in [(ids[0], ids[1]), (ids[1], ids[0])] {
            let (now, mut tx) = (self.now(), TxQueue::new());
            let node = self.nodes.get_mut(&own).unwrap();
            node.with_node(now, &mut tx, |node, _| assert!(node.connect(peer)));
            turn.push((own, tx));
        }
        let mut moved = true;
        while std::mem::take(&mut moved) {
            let mut next = Vec::new();
            for (from, mut tx) in turn {
                while let Some(mut transmit) = tx.pop() {
                    moved = true;
                    if let Some((to, path)) = self.resolve(from, transmit.to) {
                        next.push((to, self.hand_over(to, path, &mut transmit)));
                    }
                }
            }
            turn = next;
        }
        for id in ids {
            self.collect(id);
        }
    }
}

fn settle(relay: bool, mixes: bool) {
    let mut world = World::made(2, Link::Ip, |world| {
        (world.udp, world.relay, world.mixes) = (!relay, relay, mixes);
    });
    let [a, b] = [world.ids[0], world.ids[1]];
    world.cross([a, b]);
    assert_eq!(world.session(a, b), world.session(b, a));
    // Nothing but control messages, of which each answers under the session that it was asked under.
    world.pass(Duration::from_secs(30));
    for (from, to) in [(a, b), (b, a)] {
        world.send(from, to, 1);
        assert_eq!(world.got(to).len(), 1, "{:?}", world.snapshot(to));
    }
    let expected = if relay { Path::Relay(b) } else { Path::Udp(world.udp_address(b)) };
    assert_eq!(world.snapshot(a).peers[0].path, expected);
}

#[test]
fn handshakes_that_cross_at_every_step_settle_on_one_session() {
    for relay in [true, false] {
        for mixes in [true, false] {
            settle(relay, mixes);
        }
    }
}

#[test]
fn session_that_the_peer_sends_packets_under_is_kept_whatever_answers_come_under() {
    let mut world = World::made(2, Link::Ip, |world| world.udp = true);
    let [a, b] = [world.ids[0], world.ids[1]];
    world.cross([a, b]);
    // Each of them holds its own handshake for the one that counts.
    for id in [a, b] {
        let peer = &mut world.nodes.get_mut(&id).unwrap().node.peers[0];
        for live in &mut peer.sessions {
            live.crossed = live.initiator != id;
            live.handshake += Duration::from_secs(if live.initiator == id { 1 } else { 0 });
        }
    }
    world.pass(Duration::from_secs(1));
    assert_ne!(world.session(a, b), world.session(b, a));
    for _ in 0..2 {
        for (from, to) in [(a, b), (b, a)] {
            world.send(from, to, 1);
            assert_eq!(world.got(to).len(), 1, "{:?}", world.snapshot(to));
        }
        for (from, to) in [(a, b), (b, a)] {
            world.with(from, |node, now, tx| assert!(node.ping(now, to, tx).is_some()));
        }
        world.pass(Duration::from_secs(30));
    }
}
