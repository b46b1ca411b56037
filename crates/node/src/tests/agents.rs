//! Searches that agents of ICE lead, or had their time in.

use mesh_wire::control::{Candidate, CandidateKind, Candidates, IceCredentials, IceOffer, Mapping};

use super::*;

/// Two nodes that look for paths with agents, know their own addresses and speak over the relay alone.
fn world() -> World {
    let mut world = World::made(2, Link::Ip, |world| (world.direct, world.udp_limit) = (true, 0));
    for id in world.ids.clone() {
        prepare(&mut world, id);
    }
    world
}

fn prepare(world: &mut World, id: NodeId) {
    let list = vec![Candidate { kind: CandidateKind::Host, address: world.udp_address(id) }];
    let candidates = Candidates { mapping: Mapping::None, list };
    world.with(id, |node, now, tx| {
        node.find_by_ice();
        node.set_candidates(now, candidates, tx);
    });
}

/// Sends a packet each way every 20 ms.
fn traffic(world: &mut World, millis: u64) {
    let [a, b] = [world.ids[0], world.ids[1]];
    for _ in 0..millis / 20 {
        world.send(a, b, 1);
        world.send(b, a, 2);
        world.pass(Duration::from_millis(20));
    }
}

/// The agent of each node tells the other one its credentials.
fn agents_speak(world: &mut World) {
    let [a, b] = [world.ids[0], world.ids[1]];
    for (at, peer) in [(a, b), (b, a)] {
        let credentials = IceCredentials {
            fragment: "fragment".into(),
            password: Zeroizing::new("a+password+that+is+long+enough".into()),
        };
        let finding = Finding::Offer(IceOffer { credentials, answers: None });
        world.with(at, |node, now, tx| node.handle_finding(now, peer, finding, tx));
    }
}

/// Challenges that the first node sent.
fn challenges(world: &World) -> u32 {
    world.snapshot(world.ids[0]).peers[0].remotes.iter().map(|remote| remote.sent).sum()
}

#[test]
fn search_after_one_in_which_the_agents_found_nothing_does_not_wait_for_them() {
    let mut world = world();
    traffic(&mut world, 100);
    agents_speak(&mut world);
    traffic(&mut world, 2800);
    assert_eq!(challenges(&world), 0, "the agents have their time");
    traffic(&mut world, 6000);
    let first = challenges(&world);
    assert!(first > 0, "the rest is for the challenges");
    // Five seconds after the end of the first search the second one begins.
    traffic(&mut world, 3000);
    assert!(challenges(&world) > first, "the next search is for the challenges");
}

#[test]
fn peer_that_began_anew_has_a_new_agent() {
    let mut world = world();
    traffic(&mut world, 100);
    agents_speak(&mut world);
    // The agents have time and find nothing, the next search is for the challenges; and then the peer begins anew.
    traffic(&mut world, 6000);
    let [a, b] = [world.ids[0], world.ids[1]];
    let roster = Arc::clone(&world.roster);
    world.with(b, |node, _, tx| node.close(tx));
    world.start(b, roster);
    prepare(&mut world, b);
    traffic(&mut world, 100);
    agents_speak(&mut world);
    traffic(&mut world, 2000);
    let peer = world.snapshot(a).peers[0].clone();
    assert!(peer.searching && peer.remotes.len() == 1, "{peer:?}");
    assert_eq!(challenges(&world), 0, "{peer:?}");
}
