use proptest::prelude::*;

use super::*;

fn hello() -> Hello {
    Hello {
        sender: 0x0102_0304,
        suites: vec![SUITE],
        nonce: [1; 32],
        x25519: [2; 32],
        kem_public: Box::new([3; limits::KEM_PUBLIC]),
    }
}

fn challenge() -> Challenge {
    Challenge {
        sender: 5,
        receiver: 6,
        suite: SUITE,
        nonce: [1; 32],
        x25519: [2; 32],
        ciphertext: Box::new([3; limits::KEM_CIPHERTEXT]),
    }
}

fn sealed_hello() -> Vec<u8> {
    let mut bytes = hello().encode_body();
    bytes.extend_from_slice(&[9; 32]);
    bytes
}

#[test]
fn hello_has_the_documented_bytes() {
    let bytes = sealed_hello();
    assert_eq!(bytes.len(), HELLO_LEN);
    assert_eq!(bytes[..20], [0x90, 1, 0, 0, 4, 3, 2, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Hello::parse(&bytes), Ok(hello()));
}

#[test]
fn challenge_has_the_documented_bytes_and_does_not_amplify() {
    let mut bytes = challenge().encode_body();
    bytes.extend_from_slice(&[7; 16]);
    assert_eq!(bytes.len(), CHALLENGE_LEN);
    const { assert!(CHALLENGE_LEN <= HELLO_LEN) };
    assert_eq!(bytes[..20], [0x91, 1, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Challenge::parse(&bytes), Ok((challenge(), [7; 16])));
}

#[test]
fn every_other_length_is_refused() {
    let bytes = sealed_hello();
    for length in 0..bytes.len() {
        assert_eq!(Hello::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Hello::parse(&longer), Err(WireError::Trailing));
}

#[test]
fn unknown_versions_flags_and_suite_lists_are_refused() {
    for (at, value, error) in [
        (1, 2, WireError::Version(2)),
        (2, 1, WireError::Invalid("flags")),
        (8, 0, WireError::Invalid("suite list")),
        (8, 5, WireError::Invalid("suite list")),
        (9, 1, WireError::Invalid("suite list")),
        (14, 1, WireError::Invalid("suite list")),
    ] {
        let mut bytes = sealed_hello();
        bytes[at] = value;
        assert_eq!(Hello::parse(&bytes), Err(error), "byte {at} = {value}");
    }
}

fn params() -> Params {
    Params {
        capabilities: HOLDS_SESSION,
        lanes: 4,
        mtu: 1420,
        roster_version: 7,
        tls_pin: [8; 32],
        mixed_index: 0x0102_0304,
        connection: [9; CONNECTION_ID],
    }
}

#[test]
fn params_have_the_documented_bytes() {
    let bytes = params().encode();
    let expected =
        [&[1, 0, 0, 0, 4, 0x8c, 5, 7, 0, 0, 0, 0, 0, 0, 0][..], &[8; 32], &[4, 3, 2, 1], &[9; 8]].concat();
    assert_eq!(bytes.as_slice(), expected);
    assert_eq!(bytes.len(), 59);
}

#[test]
fn claims_have_the_documented_bytes() {
    let claims = Claims {
        identity: &[1; limits::PUBLIC_IDENTITY],
        proof: b"proof",
        params: params(),
        signature: &[2; limits::SIGNATURE],
    };
    let mut bytes = Vec::new();
    claims.encode(&mut bytes);
    let expected = [&[1; 2624][..], &[5, 0], b"proof", &params().encode(), &[2; 4691]].concat();
    assert_eq!(bytes, expected);
    assert_eq!(Claims::parse(&bytes), Ok(claims));
    for length in 0..bytes.len() {
        assert_eq!(Claims::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert_eq!(Claims::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    for lanes in [0, 17] {
        bytes[limits::PUBLIC_IDENTITY + 2 + 5 + 4] = lanes;
        assert_eq!(Claims::parse(&bytes), Err(WireError::Invalid("lanes")));
    }
}

#[test]
fn enrolment_messages_have_the_documented_bytes() {
    let hello = sealed_hello();
    let message = encode_enrol(&[4; 16], &hello);
    assert_eq!(message, [&[0x97][..], &[4; 16], &hello].concat());
    assert_eq!(parse_enrol(&message), Ok(([4; 16], hello.as_slice())));
    let unknown = encode_enrol_unknown(&[4; 16]);
    assert_eq!(unknown, [&[0x98][..], &[4; 16]].concat());
    assert_eq!(parse_enrol_unknown(&unknown), Ok([4; 16]));

    for length in 0..message.len() {
        assert_eq!(parse_enrol(&message[..length]), Err(WireError::Truncated));
    }
    assert_eq!(parse_enrol(&[&message[..], &[0]].concat()), Err(WireError::Trailing));
    for length in 0..unknown.len() {
        assert_eq!(parse_enrol_unknown(&unknown[..length]), Err(WireError::Truncated));
    }
    assert_eq!(parse_enrol_unknown(&[&unknown[..], &[0]].concat()), Err(WireError::Trailing));
    let mut foreign = message;
    foreign[0] = HELLO;
    assert_eq!(parse_enrol(&foreign), Err(WireError::Invalid("message type")));
    let mut foreign = unknown;
    foreign[0] = ENROL;
    assert_eq!(parse_enrol_unknown(&foreign), Err(WireError::Invalid("message type")));
}

#[test]
fn boxes_have_the_documented_header() {
    for (kind, first) in [(RESPONSE, 0x92), (ESTABLISHED, 0x93)] {
        let mut message = box_header(kind, 0x0102_0304).to_vec();
        assert_eq!(message, [first, 0, 0, 0, 4, 3, 2, 1]);
        message.extend_from_slice(&[0; 16]);
        for length in 0..message.len() {
            assert_eq!(parse_box(kind, &message[..length]), Err(WireError::Truncated));
        }
        assert_eq!(parse_box(kind, &message), Ok(0x0102_0304));
        assert!(parse_box(if kind == RESPONSE { ESTABLISHED } else { RESPONSE }, &message).is_err());
        for at in 1..4 {
            let mut reserved = message.clone();
            reserved[at] = 1;
            assert_eq!(parse_box(kind, &reserved), Err(WireError::Invalid("handshake header")));
        }
        message.resize(limits::HANDSHAKE_MESSAGE + 1, 0);
        assert_eq!(parse_box(kind, &message), Err(WireError::TooLong("handshake message")));
    }
}

#[test]
fn every_truncation_of_a_challenge_is_refused() {
    let bytes = [&challenge().encode_body()[..], &[7; 16]].concat();
    for length in 0..bytes.len() {
        assert_eq!(Challenge::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert_eq!(Challenge::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    for (at, value, error) in [
        (0, HELLO, WireError::Invalid("message type")),
        (1, 0, WireError::Version(0)),
        (3, 1, WireError::Invalid("flags")),
        (14, 1, WireError::Invalid("reserved bytes")),
        (19, 1, WireError::Invalid("reserved bytes")),
    ] {
        let mut bad = bytes.clone();
        bad[at] = value;
        assert_eq!(Challenge::parse(&bad), Err(error), "byte {at} = {value}");
    }
}

proptest! {
    #[test]
    fn hello_is_read_back(sender: u32, suites in proptest::collection::vec(any::<u16>(), 1..=SUITES), nonce: [u8; 32], x25519: [u8; 32], fill: u8) {
        let hello = Hello { sender, suites, nonce, x25519, kem_public: Box::new([fill; limits::KEM_PUBLIC]) };
        let bytes = [&hello.encode_body()[..], &[fill; 32]].concat();
        prop_assert_eq!(Hello::parse(&bytes), Ok(hello));
    }

    #[test]
    fn challenge_is_read_back(sender: u32, receiver: u32, suite: u16, nonce: [u8; 32], x25519: [u8; 32], fill: u8, tag: [u8; 16]) {
        let challenge =
            Challenge { sender, receiver, suite, nonce, x25519, ciphertext: Box::new([fill; limits::KEM_CIPHERTEXT]) };
        let bytes = [&challenge.encode_body()[..], &tag].concat();
        prop_assert_eq!(Challenge::parse(&bytes), Ok((challenge, tag)));
    }

    #[test]
    fn claims_are_read_back(
        capabilities: u32,
        lanes in 1u8..=16,
        mtu: u16,
        roster_version: u64,
        tls_pin: [u8; 32],
        mixed_index: u32,
        connection: [u8; CONNECTION_ID],
        proof in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let params = Params { capabilities, lanes, mtu, roster_version, tls_pin, mixed_index, connection };
        let claims = Claims {
            identity: &[1; limits::PUBLIC_IDENTITY],
            proof: &proof,
            params,
            signature: &[2; limits::SIGNATURE],
        };
        let mut bytes = Vec::new();
        claims.encode(&mut bytes);
        prop_assert_eq!(Claims::parse(&bytes), Ok(claims));
    }
}
