use mesh_wire::frame::{PAYLOAD_OFFSET, PayloadKind};
use mesh_wire::handshake::{BOX_HEADER, CHALLENGE, CHALLENGE_LEN, ENROL, HELLO};
use proptest::prelude::*;

use super::*;
use crate::aead::AeadKind;
use crate::pq::ProviderKind;

const NET: NetId = NetId([7; 32]);

pub(super) struct World {
    pub(super) alice: Local,
    pub(super) bob: Local,
    pub(super) network: Network,
}

fn local(provider: ProviderKind, aead: AeadKind) -> Local {
    let identity = Identity::generate().unwrap().with_signer(provider.provider().signer());
    Local { identity: Arc::new(identity), provider: provider.provider(), aead: aead.provider() }
}

pub(super) fn world() -> World {
    World {
        alice: local(ProviderKind::AwsLc, AeadKind::AwsLc),
        bob: local(ProviderKind::Pqcrypto, AeadKind::ChaCha20Poly1305),
        network: member(9),
    }
}

pub(super) fn member(secret: u8) -> Network {
    Network::new(NET, Zeroizing::new([secret; 32]), Purpose::Member)
}

pub(super) fn claims(proof: &[u8]) -> LocalClaims {
    let params = Params {
        capabilities: 0,
        lanes: 2,
        mtu: 1420,
        roster_version: 3,
        tls_pin: [0; 32],
        mixed_index: 4,
        connection: [0; 8],
    };
    LocalClaims { proof: proof.to_vec(), params }
}

/// The four messages of one honest handshake and both ends' states before they take them.
pub(super) struct Run {
    pub(super) await_challenge: AwaitChallenge,
    pub(super) hello: Vec<u8>,
    pub(super) await_response: AwaitResponse,
    pub(super) challenge: Vec<u8>,
    pub(super) await_established: AwaitEstablished,
    pub(super) response: Vec<u8>,
}

pub(super) fn run(world: &World) -> Run {
    let bob = world.bob.identity.node_id();
    let (await_challenge, hello) =
        AwaitChallenge::start(&world.alice, &world.network, bob, 11, [1; 32]).unwrap();
    let (await_response, challenge) =
        AwaitResponse::start(&world.bob, &world.network, bob, &hello, 22, [2; 32]).unwrap();
    let (await_established, response) =
        await_challenge.take(&world.alice, &world.network, &challenge, &claims(b"alice")).unwrap();
    Run { await_challenge, hello, await_response, challenge, await_established, response }
}

pub(super) fn finish(world: &World, run: Run) -> (Established, Peer, Session) {
    let bob = world.bob.identity.node_id();
    let peer = run.await_response.take(&world.bob, bob, &run.response).unwrap();
    let initiator = run.await_response.proven(peer, &run.response);
    let (peer, session, established) = initiator.establish(&world.bob, &claims(b"bob")).unwrap();
    (run.await_established.take(&world.alice, &established).unwrap(), peer, session)
}

fn carry(from: &mut Session, to: &mut Session) {
    let mut frame = vec![0; Session::frame_len(4)];
    frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(b"ping");
    from.seal(0, PayloadKind::Control, &mut frame).unwrap();
    assert_eq!(to.open(&mut frame).unwrap().payload, b"ping");
}

#[test]
fn both_ends_agree_across_providers() {
    let world = world();
    let run = run(&world);
    let (mut established, peer, mut session) = finish(&world, run);
    assert_eq!(peer.id, world.alice.identity.node_id());
    assert_eq!(peer.proof, b"alice");
    assert_eq!(established.peer.id, world.bob.identity.node_id());
    assert_eq!(established.peer.proof, b"bob");
    assert_eq!(established.session.id(), session.id());
    carry(&mut established.session, &mut session);
    carry(&mut session, &mut established.session);
}

#[test]
fn two_handshakes_share_no_key() {
    let world = world();
    let (mut first, _, _) = finish(&world, run(&world));
    let (second, _, mut session) = finish(&world, run(&world));
    assert_ne!(first.session.id(), second.session.id());
    let mut frame = vec![0; Session::frame_len(0)];
    first.session.seal(0, PayloadKind::Control, &mut frame).unwrap();
    assert!(session.open(&mut frame).is_err());
}

#[test]
fn stranger_without_the_secret_gets_no_answer() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let (_, hello) = AwaitChallenge::start(&world.alice, &member(8), bob, 1, [0; 32]).unwrap();
    assert!(!world.network.knows_hello(&hello, bob));
    let answer = AwaitResponse::start(&world.bob, &world.network, bob, &hello, 2, [0; 32]);
    assert_eq!(answer.unwrap_err(), HandshakeError::Mac);
}

#[test]
fn hello_for_another_node_or_purpose_is_refused() {
    let world = world();
    let (bob, other) = (world.bob.identity.node_id(), NodeId([3; 32]));
    let (_, hello) = AwaitChallenge::start(&world.alice, &world.network, other, 1, [0; 32]).unwrap();
    assert!(!world.network.knows_hello(&hello, bob));

    let enrol = Network::new(NET, Zeroizing::new([9; 32]), Purpose::Enrol);
    let (waiting, hello) = AwaitChallenge::start(&world.alice, &enrol, bob, 1, [0; 32]).unwrap();
    let (_, challenge) = AwaitResponse::start(&world.bob, &world.network, bob, &hello, 2, [0; 32]).unwrap();
    let error = waiting.take(&world.alice, &enrol, &challenge, &claims(b"")).unwrap_err();
    assert_eq!(error, HandshakeError::Confirmation);
}

#[test]
fn impostor_with_the_secret_but_other_keys_is_refused() {
    let world = world();
    let mallory = local(ProviderKind::AwsLc, AeadKind::AwsLc);
    let bob = world.bob.identity.node_id();
    let (waiting, hello) = AwaitChallenge::start(&world.alice, &world.network, bob, 1, [0; 32]).unwrap();
    let (state, challenge) = AwaitResponse::start(&mallory, &world.network, bob, &hello, 5, [0; 32]).unwrap();
    let (waiting, response) = waiting.take(&world.alice, &world.network, &challenge, &claims(b"")).unwrap();
    let peer = state.take(&mallory, bob, &response).unwrap();
    let (_, _, established) = state.proven(peer, &response).establish(&mallory, &claims(b"")).unwrap();
    assert_eq!(waiting.take(&world.alice, &established).unwrap_err(), HandshakeError::Identity);
}

#[test]
fn root_answers_an_enrolment_under_the_network_id() {
    let joiner = local(ProviderKind::AwsLc, AeadKind::AwsLc);
    let root = local(ProviderKind::AwsLc, AeadKind::AwsLc);
    let net = root.identity.net_id();
    let network = Network::new(net, Zeroizing::new([1; 32]), Purpose::Enrol);
    let (waiting, hello) = AwaitChallenge::start(&joiner, &network, net.as_party(), 1, [0; 32]).unwrap();
    let (state, challenge) =
        AwaitResponse::start(&root, &network, net.as_party(), &hello, 2, [0; 32]).unwrap();
    let (waiting, response) = waiting.take(&joiner, &network, &challenge, &claims(b"")).unwrap();
    let peer = state.take(&root, net.as_party(), &response).unwrap();
    let (_, mut session, established) = state.proven(peer, &response).establish(&root, &claims(b"")).unwrap();
    let mut end = waiting.take(&joiner, &established).unwrap();
    assert_eq!(end.peer.id, net.as_party());
    carry(&mut end.session, &mut session);
}

#[test]
fn forged_message_leaves_the_state_usable() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let honest = run(&world);
    let mut challenge = honest.challenge.clone();
    challenge[CHALLENGE_LEN - 1] ^= 1;
    assert!(honest.await_challenge.take(&world.alice, &world.network, &challenge, &claims(b"")).is_err());
    let mut response = honest.response.clone();
    response[BOX_HEADER] ^= 1;
    assert_eq!(honest.await_response.take(&world.bob, bob, &response).unwrap_err(), HandshakeError::Box);
    finish(&world, honest);
}

#[test]
fn messages_of_two_runs_do_not_mix() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let (one, two) = (run(&world), run(&world));
    let taken = one.await_challenge.take(&world.alice, &world.network, &two.challenge, &claims(b""));
    assert_eq!(taken.unwrap_err(), HandshakeError::Confirmation);
    assert_eq!(one.await_response.take(&world.bob, bob, &two.response).unwrap_err(), HandshakeError::Box);
}

#[test]
fn state_that_went_on_takes_nothing_more() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let honest = run(&world);
    let again = honest.await_challenge.take(&world.alice, &world.network, &honest.challenge, &claims(b""));
    assert_eq!(again.unwrap_err(), HandshakeError::Spent);
    let peer = honest.await_response.take(&world.bob, bob, &honest.response).unwrap();
    let (_, _, established) =
        honest.await_response.proven(peer, &honest.response).establish(&world.bob, &claims(b"")).unwrap();
    honest.await_established.take(&world.alice, &established).unwrap();
    let again = honest.await_established.take(&world.alice, &established);
    assert_eq!(again.unwrap_err(), HandshakeError::Spent);
}

#[test]
fn states_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<(Local, Network, CookieJar, AwaitChallenge, AwaitEstablished, AwaitResponse, Initiator)>();
    check::<(Fragments, Assembly, Session, crate::Rekey)>();
}

#[test]
fn first_bytes_tell_the_messages_apart() {
    let run = run(&world());
    assert_eq!((run.hello[0], run.challenge[0]), (HELLO, CHALLENGE));
    const { assert!(ENROL >= 0x90 && ENROL <= 0x9f) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_stops_the_handshake(at in any::<prop::sample::Index>(), bit in 0u8..8, which in 0usize..4) {
        let world = world();
        let bob = world.bob.identity.node_id();
        let mut honest = run(&world);
        let flip = |bytes: &mut Vec<u8>| { let at = at.index(bytes.len()); bytes[at] ^= 1 << bit; at };
        match which {
            0 => {
                let at = flip(&mut honest.hello);
                let answer = AwaitResponse::start(&world.bob, &world.network, bob, &honest.hello, 3, [0; 32]);
                // mac2 is outside mac1 and the transcript: without load nobody reads it.
                prop_assert!(answer.is_err() || at >= honest.hello.len() - 16);
            }
            1 => {
                flip(&mut honest.challenge);
                prop_assert!(honest.await_challenge.take(&world.alice, &world.network, &honest.challenge, &claims(b"")).is_err());
            }
            2 => {
                flip(&mut honest.response);
                prop_assert!(honest.await_response.take(&world.bob, bob, &honest.response).is_err());
            }
            _ => {
                let peer = honest.await_response.take(&world.bob, bob, &honest.response).unwrap();
                let (_, _, mut established) =
                    honest.await_response.proven(peer, &honest.response).establish(&world.bob, &claims(b"")).unwrap();
                flip(&mut established);
                prop_assert!(honest.await_established.take(&world.alice, &established).is_err());
            }
        }
    }
}
