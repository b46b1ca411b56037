use proptest::prelude::*;

use super::*;

fn part(kind: MessageKind, index: u8, count: u8, payload: usize) -> Vec<u8> {
    let header = FragmentHeader { kind, index, count, receiver: 0x0102_0304, message: [9; MESSAGE_ID] };
    [&header.encode()[..], &vec![7; payload], &[8; TAG]].concat()
}

#[test]
fn part_has_the_documented_bytes() {
    let bytes = part(MessageKind::Response, 6, 7, 2);
    let expected = [
        0x96, 6, 7, 0x92, 4, 3, 2, 1, 9, 9, 9, 9, 9, 9, 9, 9, 7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
        8, 8,
    ];
    assert_eq!(bytes, expected);
    let header = FragmentHeader {
        kind: MessageKind::Response,
        index: 6,
        count: 7,
        receiver: 0x0102_0304,
        message: [9; MESSAGE_ID],
    };
    assert_eq!(Fragment::parse(&bytes), Ok(Fragment::Part(header, &[7, 7], &[8; TAG])));
    assert_eq!((header.offset(), header.is_last()), (6 * 1168, true));
}

#[test]
fn acknowledgement_has_the_documented_bytes() {
    let ack = Ack { receiver: 0x0102_0304, message: [9; MESSAGE_ID], bitmap: 0x7f };
    let bytes = [&ack.encode_body()[..], &[8; TAG]].concat();
    let expected = [
        0x96, 0xff, 0, 0x9f, 4, 3, 2, 1, 9, 9, 9, 9, 9, 9, 9, 9, 0x7f, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8,
        8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    ];
    assert_eq!(bytes, expected);
    assert_eq!(bytes.len(), ACK_LEN);
    assert_eq!(Fragment::parse(&bytes), Ok(Fragment::Ack(ack, &[8; TAG])));
    for length in 0..bytes.len() {
        assert_eq!(Fragment::parse(&bytes[..length]), Err(WireError::Truncated));
    }
    assert_eq!(Fragment::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
    for (at, value) in [(1, 0), (1, 0xfe), (2, 1)] {
        let mut bad = bytes.clone();
        bad[at] = value;
        assert_eq!(Fragment::parse(&bad), Err(WireError::Invalid("fragment number")));
    }
}

#[test]
fn limits_are_the_documented_ones() {
    assert_eq!((DATAGRAM, HEADER, TAG, PAYLOAD, COUNT, ACK_LEN), (1200, 16, 16, 1168, 15, 40));
}

#[test]
fn every_truncation_of_a_part_is_refused() {
    for (kind, index, count, payload) in [
        (MessageKind::Hello, 0, 2, PAYLOAD),
        (MessageKind::Hello, 1, 2, HELLO_LEN - PAYLOAD),
        (MessageKind::Challenge, 0, 2, PAYLOAD),
        (MessageKind::Challenge, 1, 2, CHALLENGE_LEN - PAYLOAD),
        (MessageKind::Response, 0, 7, PAYLOAD),
        (MessageKind::Established, 6, 7, 1),
    ] {
        let bytes = part(kind, index, count, payload);
        assert!(Fragment::parse(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(Fragment::parse(&bytes[..length]).is_err(), "{kind:?} {index} {length}");
        }
    }
}

#[test]
fn part_that_fits_into_no_message_is_refused() {
    let number = Err(WireError::Invalid("fragment number"));
    let length = Err(WireError::Invalid("fragment length"));
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 0, 0, 5)), number);
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 2, 2, 5)), number);
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 0, 16, PAYLOAD)), number);
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 0xff, 0xff, 5)), number);
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 0, 2, PAYLOAD - 1)), length);
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 1, 2, 0)), length);
    assert_eq!(Fragment::parse(&part(MessageKind::Response, 14, 15, 33)), length);
    assert!(Fragment::parse(&part(MessageKind::Response, 14, 15, 32)).is_ok());
    for kind in [MessageKind::Hello, MessageKind::Challenge] {
        let last = kind.fixed_len().unwrap() - PAYLOAD;
        for count in [1, 3] {
            assert_eq!(Fragment::parse(&part(kind, 0, count, PAYLOAD)), length);
        }
        assert_eq!(Fragment::parse(&part(kind, 1, 2, last - 1)), length);
        assert_eq!(Fragment::parse(&part(kind, 1, 2, last + 1)), length);
    }
    let long = Fragment::parse(&[0x96; DATAGRAM + 1]).unwrap_err();
    assert_eq!(long, WireError::TooLong("fragment"));
    let mut foreign = part(MessageKind::Response, 0, 1, 5);
    foreign[3] = 0x94;
    assert_eq!(Fragment::parse(&foreign), Err(WireError::Invalid("message type")));
    foreign[0] = 0x92;
    assert_eq!(Fragment::parse(&foreign), Err(WireError::Invalid("message type")));
}

#[test]
fn message_that_no_kind_has_is_not_split() {
    for (kind, length) in [
        (MessageKind::Hello, HELLO_LEN - 1),
        (MessageKind::Challenge, CHALLENGE_LEN + 1),
        (MessageKind::Response, 0),
        (MessageKind::Established, limits::HANDSHAKE_MESSAGE + 1),
    ] {
        assert!(split(kind, 1, [0; MESSAGE_ID], &vec![0; length]).is_err());
    }
}

proptest! {
    #[test]
    fn parts_of_a_message_are_read_back(
        which in 0usize..4,
        length in 1..=limits::HANDSHAKE_MESSAGE,
        receiver: u32,
        id: [u8; MESSAGE_ID],
        fill: u8,
    ) {
        let kind = MessageKind::ALL[which];
        let message = vec![fill; kind.fixed_len().unwrap_or(length)];
        let mut back = Vec::new();
        for (header, payload) in split(kind, receiver, id, &message).unwrap() {
            prop_assert_eq!(header.offset(), back.len());
            let datagram = [&header.encode()[..], payload, &[1; TAG]].concat();
            prop_assert!(datagram.len() <= DATAGRAM);
            prop_assert_eq!(Fragment::parse(&datagram), Ok(Fragment::Part(header, payload, &[1; TAG])));
            back.extend_from_slice(payload);
        }
        prop_assert_eq!(back, message);
    }

    #[test]
    fn noise_never_panics_and_what_is_read_is_written_back(mut noise in proptest::collection::vec(any::<u8>(), 0..1300), start in 0usize..5) {
        if let (Some(first), 1..) = (noise.first_mut(), start) {
            *first = FRAGMENT;
        }
        if let (Some(kind), 2..) = (noise.get_mut(3), start) {
            *kind = [HELLO, CHALLENGE, RESPONSE, ACK][start - 1];
        }
        match Fragment::parse(&noise) {
            Ok(Fragment::Part(header, payload, tag)) => {
                prop_assert_eq!([&header.encode()[..], payload, tag].concat(), noise);
            }
            Ok(Fragment::Ack(ack, tag)) => prop_assert_eq!([&ack.encode_body()[..], tag].concat(), noise),
            Err(_) => {}
        }
    }
}
