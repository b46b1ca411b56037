//! Handshake messages, and the states that wait for them.

use mesh_session::handshake::{AwaitChallenge, AwaitResponse, HandshakeError, LocalClaims};
use mesh_wire::handshake::{
    BOX_HEADER, CHALLENGE_BODY, Challenge, Claims, ESTABLISHED, HELLO_BODY, HELLO_LEN, Hello, RESPONSE,
    box_header, encode_enrol, encode_enrol_unknown, parse_box, parse_enrol, parse_enrol_unknown,
};

use crate::input::{Input, assert_cuts_fail, edited};
use crate::world::{handshakes, world};

/// Reads the bytes as each handshake message; then gives edited genuine messages to the state that waits for them.
pub fn handshake(data: &[u8]) {
    fixed_messages(data);
    boxes(data);
    enrolment(data);
    states(data);
}

fn fixed_messages(data: &[u8]) {
    if let Ok(hello) = Hello::parse(data) {
        assert_eq!(hello.encode_body(), data[..HELLO_BODY], "a HELLO has one encoding");
        assert_cuts_fail("HELLO", data, |cut| Hello::parse(cut).is_ok());
    }
    if let Ok((challenge, tag)) = Challenge::parse(data) {
        assert_eq!([&challenge.encode_body()[..], &tag].concat(), data, "a CHALLENGE has one encoding");
        assert_eq!(data.len(), CHALLENGE_BODY + tag.len());
        assert_cuts_fail("CHALLENGE", data, |cut| Challenge::parse(cut).is_ok());
    }
}

fn boxes(data: &[u8]) {
    for kind in [RESPONSE, ESTABLISHED] {
        if let Ok(receiver) = parse_box(kind, data) {
            assert_eq!(box_header(kind, receiver), data[..BOX_HEADER], "a box header has one encoding");
        }
    }
    if let Ok(claims) = Claims::parse(data) {
        let mut out = Vec::new();
        claims.encode(&mut out);
        assert_eq!(out, data, "claims have one encoding");
        assert_cuts_fail("claims", data, |cut| Claims::parse(cut).is_ok());
    }
}

fn enrolment(data: &[u8]) {
    if let Ok((invite, hello)) = parse_enrol(data) {
        assert_eq!(encode_enrol(&invite, hello), data, "an ENROL has one encoding");
        assert_eq!(hello.len(), HELLO_LEN);
        assert_cuts_fail("ENROL", data, |cut| parse_enrol(cut).is_ok());
    }
    if let Ok(invite) = parse_enrol_unknown(data) {
        assert_eq!(encode_enrol_unknown(&invite), data, "an answer to ENROL has one encoding");
        assert_cuts_fail("answer to ENROL", data, |cut| parse_enrol_unknown(cut).is_ok());
    }
}

/// Each state takes the message that it waits for and refuses every other one, unchanged.
fn states(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 8 {
        0 => hello(&mut input),
        1 | 2 => challenge(&mut input),
        3 | 4 => response(&mut input),
        5 => established(&mut input),
        6 => insider(&mut input),
        _ => raw(input.rest()),
    }
}

/// mac1 and the transcript cover all of a HELLO but the two macs behind it.
fn hello(input: &mut Input<'_>) {
    let (world, halted) = (world(), handshakes());
    let message = edited(&halted.hello, &halted.others[0], input);
    let network = world.network();
    let keyed = is_keyed(&message);
    assert_eq!(network.knows_hello(&message, world.id(1)), keyed, "mac1 is judged wrongly");
    assert!(!network.knows_hello(&message, world.id(2)), "a HELLO counts for another node");
    let started = AwaitResponse::start(&world.local(1), &network, world.id(1), &message, 9, [9; 32]);
    assert_eq!(started.is_ok(), keyed, "a HELLO without the network's secret is answered");
    let Ok((_, challenge)) = started else { return };
    assert!(challenge.len() <= message.len(), "the answer is longer than the question");
    let taken = halted.initiator.take(&world.local(0), &network, &challenge, &halted.claims);
    let own = message[..KEYED] == halted.hello[..KEYED];
    assert_eq!(fits(&taken), own, "the transcript does not cover the HELLO");
}

fn challenge(input: &mut Input<'_>) {
    let (world, halted) = (world(), handshakes());
    let message = edited(&halted.challenge, &halted.others[1], input);
    let taken = halted.initiator.take(&world.local(0), &world.network(), &message, &halted.claims);
    assert_eq!(fits(&taken), message == halted.challenge, "a CHALLENGE is judged wrongly");
}

fn response(input: &mut Input<'_>) {
    let (world, halted) = (world(), handshakes());
    let message = edited(&halted.response, &halted.others[2], input);
    let taken = halted.responder.take(&world.local(1), world.id(1), &message);
    assert_eq!(taken.is_ok(), message == halted.response, "a RESPONSE is judged wrongly");
    if let Ok(peer) = taken {
        assert_eq!((peer.id, peer.proof), (world.id(0), halted.claims.proof.clone()));
    }
}

fn established(input: &mut Input<'_>) {
    let (world, halted) = (world(), handshakes());
    let message = edited(&halted.established, &halted.response, input);
    let taken = halted.last.take(&world.local(0), &message);
    assert_eq!(fits(&taken), message == halted.established, "an ESTABLISHED is judged wrongly");
    if let Ok(established) = taken {
        assert_eq!(established.peer.id, world.id(1));
    }
}

/// Tells whether a state knows the message as its own; it takes it once only.
fn fits<T>(taken: &Result<T, HandshakeError>) -> bool {
    matches!(taken, Ok(_) | Err(HandshakeError::Spent))
}

/// A member that says about itself what it likes: it is taken at its word or refused, and nothing else.
fn insider(input: &mut Input<'_>) {
    let (world, network) = (world(), world().network());
    let mut claims = handshakes().claims.clone();
    claims.params.capabilities = input.u32();
    claims.params.lanes = input.u8() % 32;
    claims.params.mtu = input.u16();
    claims.params.roster_version = input.u64();
    claims.params.mixed_index = input.u32();
    claims.params.connection = input.u64().to_le_bytes();
    let wide = usize::from(input.u8()) * 16;
    claims.proof = [input.rest(), &vec![0; wide]].concat();
    claims.proof.truncate(mesh_wire::limits::HANDSHAKE_MESSAGE / 2);
    let (answered, challenge) = {
        let (initiator, hello) = AwaitChallenge::start(&world.local(0), &network, world.id(1), 3, [3; 32])
            .expect("keys can be made");
        let (responder, challenge) =
            AwaitResponse::start(&world.local(1), &network, world.id(1), &hello, 4, [4; 32])
                .expect("the HELLO is genuine");
        ((initiator, responder), challenge)
    };
    let (initiator, responder) = answered;
    let Ok((_, response)) = initiator.take(&world.local(0), &network, &challenge, &claims) else { return };
    let sane = (1..=mesh_wire::limits::LANES).contains(&usize::from(claims.params.lanes));
    match responder.take(&world.local(1), world.id(1), &response) {
        Ok(peer) => {
            assert!(sane, "a number of lanes that no session has");
            let LocalClaims { proof, params } = claims;
            assert_eq!((peer.id, peer.proof, peer.params), (world.id(0), proof, params));
        }
        Err(error) => assert!(!sane || response.len() > mesh_wire::limits::HANDSHAKE_MESSAGE, "{error}"),
    }
}

/// No state takes anything but its message, which the fuzzer may have seen: it learns from comparisons.
fn raw(data: &[u8]) {
    let (world, halted) = (world(), handshakes());
    let network = world.network();
    let started = AwaitResponse::start(&world.local(1), &network, world.id(1), data, 9, [9; 32]);
    assert_eq!(started.is_ok(), is_keyed(data));
    let taken = halted.initiator.take(&world.local(0), &network, data, &halted.claims);
    assert_eq!(fits(&taken), data == halted.challenge);
    let taken = halted.responder.take(&world.local(1), world.id(1), data);
    assert_eq!(fits(&taken), data == halted.response);
    assert_eq!(fits(&halted.last.take(&world.local(0), data)), data == halted.established);
}

/// Tells whether a HELLO is one of the genuine ones, its last mac aside.
fn is_keyed(message: &[u8]) -> bool {
    let halted = handshakes();
    let genuine = [&halted.hello, &halted.others[0]];
    message.len() == HELLO_LEN && genuine.iter().any(|genuine| message[..KEYED] == genuine[..KEYED])
}

/// Bytes of a HELLO up to its last mac.
const KEYED: usize = HELLO_BODY + 16;
