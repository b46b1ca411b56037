use proptest::prelude::*;

use super::*;
use crate::Pin;

fn candidate(kind: CandidateKind, address: &str) -> Candidate {
    Candidate { kind, address: address.parse().unwrap() }
}

fn samples() -> Vec<(Control<'static>, &'static [u8])> {
    vec![
        (Control::Keepalive, &[0]),
        (Control::Ping(1), &[1, 1, 0, 0, 0, 0, 0, 0, 0]),
        (Control::Pong(2), &[2, 2, 0, 0, 0, 0, 0, 0, 0]),
        (Control::Close, &[3]),
        (
            Control::Candidates(Candidates {
                mapping: Mapping::Independent,
                list: vec![
                    candidate(CandidateKind::Host, "10.0.0.1:513"),
                    candidate(CandidateKind::Reflexive, "[2001:db8::2]:4"),
                ],
            }),
            &[
                4, 2, 2, 1, 4, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 6, 0x20, 1, 0x0d,
                0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0,
            ],
        ),
        (
            Control::Candidates(Candidates {
                mapping: Mapping::Sequential(Step::new(-2).unwrap()),
                list: Vec::new(),
            }),
            &[4, 4, 0xfe, 0],
        ),
        (
            Control::PathChallenge(PathChallenge { id: 3, size: 29 }),
            &[5, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Control::PathResponse(PathResponse { id: 3, seen: Some("1.2.3.4:5".parse().unwrap()), size: 30 }),
            &[6, 3, 0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0],
        ),
        (
            Control::PathResponse(PathResponse { id: 3, seen: None, size: 28 }),
            &[6, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Control::Ice(IceOffer {
                credentials: IceCredentials {
                    fragment: "aB+/".into(),
                    password: Zeroizing::new("0123456789abcdefghijkl".into()),
                },
                answers: Some("wxyz".into()),
            }),
            b"\x0e\x04aB+/\x160123456789abcdefghijkl\x04wxyz",
        ),
        (Control::Door(None), &[0x0c, 0]),
        (
            Control::Door(Some(DoorTold {
                pin: Pin([7; 32]),
                addresses: vec!["1.2.3.4:443".parse().unwrap()],
            })),
            &[
                0x0c, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                7, 7, 7, 7, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbb, 1,
            ],
        ),
        (Control::EnrolRequest { name: "pi" }, &[0x10, 2, b'p', b'i']),
        (
            Control::EnrolPart { total: 9, offset: 7, bytes: &[5, 6] },
            &[0x11, 9, 0, 0, 0, 7, 0, 0, 0, 2, 0, 5, 6],
        ),
        (Control::EnrolRefused { refusal: Refusal::Used, text: "no" }, &[0x12, 2, 2, b'n', b'o']),
    ]
}

#[test]
fn messages_have_the_documented_bytes() {
    for (message, bytes) in samples() {
        assert_eq!(message.encode(), bytes);
        assert_eq!(Control::parse(bytes), Ok(message));
    }
}

#[test]
fn rekey_messages_are_read_back() {
    const { assert!(REKEY_PART * 2 == REKEY_LEN) };
    let offer = RekeyOffer { index: 7, x25519: [1; 32], kem_public: Box::new([2; limits::KEM_PUBLIC]) };
    assert_eq!(offer.encode()[..6], [7, 0, 0, 0, 1, 1]);
    assert_eq!(RekeyOffer::parse(&offer.encode()), Ok(offer));
    let bytes =
        RekeyOffer { index: 7, x25519: [1; 32], kem_public: Box::new([2; limits::KEM_PUBLIC]) }.encode();
    assert_eq!(bytes, [&[7, 0, 0, 0][..], &[1; 32], &[2; 1568]].concat());
    for length in 0..bytes.len() {
        assert_eq!(RekeyOffer::parse(&bytes[..length]), Err(WireError::Truncated));
        assert_eq!(RekeyAnswer::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert_eq!(RekeyOffer::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    let answer = RekeyAnswer { index: 8, x25519: [1; 32], ciphertext: Box::new([2; limits::KEM_CIPHERTEXT]) };
    let bytes = answer.encode();
    assert_eq!(RekeyAnswer::parse(&bytes[1..]), Err(WireError::Truncated));
    assert_eq!(RekeyAnswer::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    assert_eq!(RekeyAnswer::parse(&bytes), Ok(answer));

    let half = [9; REKEY_PART];
    let part = RekeyPart { id: 3, half: Half::Second, bytes: &half };
    let bytes = Control::RekeyOffer(part).encode();
    assert_eq!(bytes[..7], [8, 3, 0, 0, 0, 1, 9]);
    assert_eq!(Control::parse(&bytes), Ok(Control::RekeyOffer(part)));
    let bytes = Control::RekeyAnswer(part).encode();
    assert_eq!(Control::parse(&bytes), Ok(Control::RekeyAnswer(part)));
    for length in 0..bytes.len() {
        assert_eq!(Control::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert_eq!(Control::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    let mut wrong = bytes;
    wrong[5] = 2;
    assert_eq!(Control::parse(&wrong), Err(WireError::Invalid("half")));
}

#[test]
fn answer_is_read_back() {
    let answer = EnrolAnswer { secret_epoch: 3, network_secret: Zeroizing::new([7; 32]), roster: b"roster" };
    let bytes = answer.encode();
    assert_eq!(bytes[..5], [3, 0, 0, 0, 7]);
    assert_eq!(EnrolAnswer::parse(&bytes), Ok(answer));
    assert_eq!(*bytes, [&[3, 0, 0, 0][..], &[7; 32], b"roster"].concat());
    for length in 0..36 {
        assert_eq!(EnrolAnswer::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert!(EnrolAnswer::parse(&vec![0; ENROL_ANSWER + 1]).is_err());
}

#[test]
fn cut_extended_and_unknown_messages_are_refused() {
    let padded =
        |message: &Control<'_>| matches!(message, Control::PathChallenge(_) | Control::PathResponse(_));
    for (_, bytes) in samples().into_iter().filter(|(message, _)| !padded(message)) {
        for length in 0..bytes.len() {
            assert!(Control::parse(&bytes[..length]).is_err());
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(Control::parse(&longer), Err(WireError::Trailing));
    }
    assert_eq!(Control::parse(&[0xff]), Err(WireError::Invalid("control type")));
    assert_eq!(Control::parse(&[0x12, 99, 0]), Err(WireError::Invalid("refusal")));
}

#[test]
fn probes_have_a_length_between_two_limits_and_zeros_behind() {
    const { assert!(PATH_CHALLENGE == 28) };
    for message in [
        Control::PathChallenge(PathChallenge { id: 1, size: 1000 }),
        Control::PathResponse(PathResponse { id: 1, seen: None, size: 1000 }),
    ] {
        let bytes = message.encode();
        assert_eq!(bytes.len(), 1000);
        for length in 0..PATH_CHALLENGE {
            assert!(Control::parse(&bytes[..length]).is_err());
        }
        for at in 28..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] = 1;
            assert_eq!(Control::parse(&wrong), Err(WireError::Invalid("padding")));
        }
        let longest = [&bytes[..], &vec![0; PROBE - bytes.len()]].concat();
        assert!(Control::parse(&longest).is_ok());
        assert_eq!(Control::parse(&[&longest[..], &[0]].concat()), Err(WireError::Invalid("probe length")));
    }
}

#[test]
fn addresses_that_no_peer_has_are_refused() {
    for bad in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "192.0.2.1:0"] {
        let list = vec![candidate(CandidateKind::Host, bad)];
        let bytes = Control::Candidates(Candidates { mapping: Mapping::None, list }).encode();
        assert_eq!(Control::parse(&bytes), Err(WireError::Invalid("address")), "{bad}");
    }
    for bad in ["[::]:1", "[::1]:1", "[ff02::1]:1", "[fe80::1]:1", "[::ffff:192.0.2.1]:1"] {
        let list = vec![candidate(CandidateKind::Host, bad)];
        let bytes = Control::Candidates(Candidates { mapping: Mapping::None, list }).encode();
        assert_eq!(Control::parse(&bytes), Err(WireError::Invalid("address")), "{bad}");
    }
    let many = vec![candidate(CandidateKind::Host, "192.0.2.1:1"); CANDIDATES + 1];
    let bytes = Control::Candidates(Candidates { mapping: Mapping::None, list: many }).encode();
    assert!(matches!(Control::parse(&bytes), Ok(Control::Candidates(read)) if read.list.len() == CANDIDATES));
    let mut more = bytes;
    more[2] = 17;
    assert_eq!(Control::parse(&more), Err(WireError::TooLong("candidates")));
}

#[test]
fn steps_that_are_none_are_refused() {
    for distance in [0, 17, -17, 127, -128, 40_000] {
        assert_eq!(Step::new(distance), None, "{distance}");
        if let Ok(byte) = i8::try_from(distance) {
            let bytes = [4, 4, byte.to_be_bytes()[0], 0];
            assert_eq!(Control::parse(&bytes), Err(WireError::Invalid("step")), "{distance}");
        }
    }
}

#[test]
fn credentials_have_the_characters_and_lengths_of_ice() {
    let offer = |fragment: &str, password: &str, answers: &str| {
        let texts = [fragment, password, answers];
        let body: Vec<u8> = texts
            .iter()
            .flat_map(|text| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat())
            .collect();
        Control::parse(&[&[0x0e][..], &body].concat()).map(drop)
    };
    let password = "0123456789abcdefghijkl";
    assert!(offer("abcd", password, "").is_ok());
    assert!(offer(&"a".repeat(FRAGMENT), &"b".repeat(PASSWORD), &"c".repeat(FRAGMENT)).is_ok());
    for (fragment, password, answers) in [
        ("abc", password, ""),
        ("ab:d", password, ""),
        ("abcd", "too short", ""),
        ("abcd", "0123456789abcdefghijk ", ""),
        ("abcd", password, "abc"),
        (&"a".repeat(FRAGMENT + 1), password, ""),
        ("abcd", &"b".repeat(PASSWORD + 1), ""),
    ] {
        assert!(offer(fragment, password, answers).is_err(), "{fragment} {password} {answers}");
    }
    let text = format!(
        "{:?}",
        IceCredentials { fragment: "abcd".into(), password: Zeroizing::new(password.into()) }
    );
    assert!(text.contains("abcd") && !text.contains(password), "{text}");
}

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let half = prop_oneof![Just(Half::First), Just(Half::Second)];
    let part = (any::<bool>(), any::<u32>(), half, any::<u8>()).prop_map(|(offer, id, half, fill)| {
        let bytes = [fill; REKEY_PART];
        let part = RekeyPart { id, half, bytes: &bytes };
        if offer { Control::RekeyOffer(part).encode() } else { Control::RekeyAnswer(part).encode() }
    });
    let piece = (any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..400))
        .prop_map(|(total, offset, bytes)| Control::EnrolPart { total, offset, bytes: &bytes }.encode());
    prop_oneof![
        Just(Control::Keepalive.encode()),
        Just(Control::Close.encode()),
        any::<u64>().prop_map(|id| Control::Ping(id).encode()),
        any::<u64>().prop_map(|id| Control::Pong(id).encode()),
        "[a-z~-]{0,64}".prop_map(|name| Control::EnrolRequest { name: &name }.encode()),
        (0..6usize, "[a-z ]{0,200}").prop_map(|(at, text)| {
            Control::EnrolRefused { refusal: Refusal::ALL[at].0, text: &text }.encode()
        }),
        part,
        piece,
    ]
}

proptest! {
    #[test]
    fn messages_are_read_back(bytes in messages()) {
        let message = Control::parse(&bytes).unwrap();
        prop_assert_eq!(message.encode(), bytes);
    }

    #[test]
    fn rekey_messages_with_any_content_are_read_back(index: u32, x25519: [u8; 32], fill: u8) {
        let offer = RekeyOffer { index, x25519, kem_public: Box::new([fill; limits::KEM_PUBLIC]) };
        prop_assert_eq!(RekeyOffer::parse(&offer.encode()), Ok(offer));
        let answer = RekeyAnswer { index, x25519, ciphertext: Box::new([fill; limits::KEM_CIPHERTEXT]) };
        prop_assert_eq!(RekeyAnswer::parse(&answer.encode()), Ok(answer));
    }

    #[test]
    fn what_is_read_is_written_back(kind in 0u8..0x14, body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let bytes = [&[kind][..], &body].concat();
        if let Ok(message) = Control::parse(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}

#[test]
fn relays_are_told_by_their_keys_and_bounded() {
    let told = RelaysTold { list: vec![Pin([1; 32]), Pin([2; 32])] };
    let bytes = Control::Relays(told.clone()).encode();
    assert_eq!(bytes, [&[0x0b, 2][..], &[1; 32], &[2; 32]].concat());
    assert_eq!(Control::parse(&bytes), Ok(Control::Relays(told)));
    assert_eq!(Control::parse(&[0x0b, 0]), Ok(Control::Relays(RelaysTold::default())));
    for length in 1..bytes.len() {
        assert_eq!(Control::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert_eq!(Control::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    let three = [&[0x0b, 3][..], &[1; 32], &[2; 32], &[3; 32]].concat();
    assert_eq!(Control::parse(&three), Err(WireError::TooLong("relays")));
    let twice = [&[0x0b, 2][..], &[1; 32], &[1; 32]].concat();
    assert_eq!(Control::parse(&twice), Err(WireError::Invalid("relays")));
}

#[test]
fn doors_name_few_addresses_that_a_host_can_have_each_once() {
    let told = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Control::Door(Some(DoorTold { pin: Pin([7; 32]), addresses })).encode()
    };
    let four = ["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1"];
    assert!(
        matches!(Control::parse(&told(&four)), Ok(Control::Door(Some(door))) if door.addresses.len() == 4)
    );
    let mut five = told(&four);
    five[1] = 5;
    assert_eq!(Control::parse(&five), Err(WireError::TooLong("door addresses")));
    assert_eq!(Control::parse(&told(&four[..1]).as_slice()[..40]), Err(WireError::Truncated));
    for wrong in [
        "127.0.0.1:1",
        "224.0.0.1:1",
        "0.0.0.0:1",
        "255.255.255.255:1",
        "10.0.0.1:0",
        "[::1]:1",
        "[fe80::1]:1",
    ] {
        assert_eq!(Control::parse(&told(&[wrong])), Err(WireError::Invalid("address")), "{wrong}");
    }
    assert_eq!(
        Control::parse(&told(&["10.0.0.1:1", "10.0.0.1:1"])),
        Err(WireError::Invalid("door addresses"))
    );
    let mut none = told(&four[..1]);
    none[34..].fill(0);
    assert_eq!(Control::parse(&none), Err(WireError::Invalid("door address")));
}
