use mesh_wire::cookie::COOKIE_LEN;

use super::super::tests::{member, run, world};
use super::super::{AwaitResponse, Network};
use super::*;

fn node(byte: u8) -> Source {
    Source::Relay(NodeId([byte; 32]))
}

#[expect(clippy::disallowed_methods, reason = "an instant has no other beginning; no time passes here")]
fn start() -> Instant {
    Instant::now()
}

fn jar(network: &Network, own: NodeId, now: Instant) -> CookieJar {
    CookieJar::new(network, own, now, &[1; 32])
}

#[test]
fn cookie_opens_the_way_and_leaves_the_handshake_as_it_was() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let honest = run(&world);
    let jar = jar(&world.network, bob, start());
    assert!(!jar.checks(&honest.hello, &node(1)), "no mac2 yet");

    let reply = jar.make_reply(&honest.hello, &node(1), &[5; NONCE]).unwrap();
    assert_eq!(reply.len(), COOKIE_LEN);
    assert!(reply.len() < honest.hello.len());
    let cookie = world.network.open_cookie(&reply, &honest.hello, bob).unwrap();
    let again = with_cookie(&honest.hello, &cookie).unwrap();
    assert_eq!(again[..HELLO_LEN - 16], honest.hello[..HELLO_LEN - 16]);
    assert!(jar.checks(&again, &node(1)));
    assert!(world.network.knows_hello(&again, bob));

    let claims = super::super::tests::claims(b"");
    let (state, hello) =
        super::super::AwaitChallenge::start(&world.alice, &world.network, bob, 7, [0; 32]).unwrap();
    let again = with_cookie(&hello, &cookie).unwrap();
    let (_, challenge) = AwaitResponse::start(&world.bob, &world.network, bob, &again, 3, [0; 32]).unwrap();
    assert!(state.take(&world.alice, &world.network, &challenge, &claims).is_ok());
}

#[test]
fn cookie_of_another_source_hello_or_jar_is_refused() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let hello = run(&world).hello;
    let jar = jar(&world.network, bob, start());
    let reply = jar.make_reply(&hello, &node(1), &[5; NONCE]).unwrap();
    let cookie = world.network.open_cookie(&reply, &hello, bob).unwrap();
    let again = with_cookie(&hello, &cookie).unwrap();
    let udp = |text: &str| Source::Udp(text.parse().unwrap());
    for source in [node(2), udp("192.0.2.1:1"), udp("[2001:db8::1]:1")] {
        assert!(!jar.checks(&again, &source));
    }
    assert!(!CookieJar::new(&world.network, bob, start(), &[2; 32]).checks(&again, &node(1)));
    for at in [0, 20, HELLO_BODY, HELLO_LEN - 1] {
        let mut changed = again.clone();
        changed[at] ^= 1;
        assert!(!jar.checks(&changed, &node(1)));
    }
    assert!(!jar.checks(&again[1..], &node(1)));
}

#[test]
fn address_and_port_are_part_of_the_source() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let hello = run(&world).hello;
    let jar = jar(&world.network, bob, start());
    let udp = |text: &str| Source::Udp(text.parse().unwrap());
    let reply = jar.make_reply(&hello, &udp("192.0.2.1:7"), &[5; NONCE]).unwrap();
    let again = with_cookie(&hello, &world.network.open_cookie(&reply, &hello, bob).unwrap()).unwrap();
    assert!(jar.checks(&again, &udp("192.0.2.1:7")));
    assert!(!jar.checks(&again, &udp("192.0.2.1:8")));
    assert!(!jar.checks(&again, &udp("192.0.2.2:7")));
}

#[test]
fn forged_cookie_message_is_refused() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let hello = run(&world).hello;
    let reply = jar(&world.network, bob, start()).make_reply(&hello, &node(1), &[5; NONCE]).unwrap();
    for at in 8..reply.len() {
        let mut bad = reply.clone();
        bad[at] ^= 1;
        assert_eq!(world.network.open_cookie(&bad, &hello, bob), Err(HandshakeError::Box));
    }
    let mut index = reply.clone();
    index[4] ^= 1;
    assert_eq!(world.network.open_cookie(&index, &hello, bob), Err(HandshakeError::Index));
    let other = run(&world).hello;
    assert_eq!(world.network.open_cookie(&reply, &other, bob), Err(HandshakeError::Box));
    assert_eq!(world.network.open_cookie(&reply, &hello, NodeId([3; 32])), Err(HandshakeError::Box));
    assert_eq!(member(8).open_cookie(&reply, &hello, bob), Err(HandshakeError::Box));
}

#[test]
fn secret_before_the_last_is_recognised_and_the_one_before_that_is_not() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let hello = run(&world).hello;
    let start = start();
    let mut jar = jar(&world.network, bob, start);
    let reply = jar.make_reply(&hello, &node(1), &[5; NONCE]).unwrap();
    let again = with_cookie(&hello, &world.network.open_cookie(&reply, &hello, bob).unwrap()).unwrap();
    assert_eq!(jar.due(), start + Duration::from_secs(120));
    jar.rotate(start + COOKIE_LIFETIME, &[2; 32]);
    assert!(jar.checks(&again, &node(1)));
    assert_eq!(jar.due(), start + Duration::from_secs(240));
    jar.rotate(start + 2 * COOKIE_LIFETIME, &[3; 32]);
    assert!(!jar.checks(&again, &node(1)));
}

#[test]
fn late_rotation_does_not_stretch_a_cookie() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let hello = run(&world).hello;
    let start = start();
    let mut jar = jar(&world.network, bob, start);
    let reply = jar.make_reply(&hello, &node(1), &[5; NONCE]).unwrap();
    let again = with_cookie(&hello, &world.network.open_cookie(&reply, &hello, bob).unwrap()).unwrap();
    jar.rotate(start + 2 * COOKIE_LIFETIME, &[2; 32]);
    assert!(!jar.checks(&again, &node(1)));
}
