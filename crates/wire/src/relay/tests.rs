use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

fn client_round_trip(message: ClientMessage<'_>, hex: &str) {
    let bytes = message.encode();
    assert_eq!(HEXLOWER.encode(&bytes), hex);
    assert_eq!(ClientMessage::parse(&bytes), Ok(message));
    refuses_cut_and_extended(&bytes, |bytes| ClientMessage::parse(bytes).is_err());
}

fn relay_round_trip(message: RelayMessage<'_>, hex: &str) {
    let bytes = message.encode();
    assert_eq!(HEXLOWER.encode(&bytes), hex);
    assert_eq!(RelayMessage::parse(&bytes), Ok(message));
    refuses_cut_and_extended(&bytes, |bytes| RelayMessage::parse(bytes).is_err());
}

fn refuses_cut_and_extended(bytes: &[u8], refused: impl Fn(&[u8]) -> bool) {
    for len in 0..bytes.len() {
        assert!(refused(&bytes[..len]), "{len} bytes of {}", HEXLOWER.encode(bytes));
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(refused(&longer));
}

#[test]
fn fixed_size_messages_have_fixed_bytes() {
    let node = NodeId([0x11; 32]);
    let node_hex = "11".repeat(32);
    client_round_trip(ClientMessage::Bind(node), &format!("04{node_hex}"));
    client_round_trip(ClientMessage::Unbind(0x0102_0304), "0604030201");
    client_round_trip(ClientMessage::Ping(*b"12345678"), "093132333435363738");
    client_round_trip(ClientMessage::Pong(*b"12345678"), "0a3132333435363738");
    relay_round_trip(
        RelayMessage::Bound(Bound { node, handle: 7, present: true }),
        &format!("05{node_hex}0700000001"),
    );
    relay_round_trip(RelayMessage::PeerGone(1), "0701000000");
    relay_round_trip(RelayMessage::PeerPresent(2), "0802000000");
    relay_round_trip(RelayMessage::Ping(*b"12345678"), "093132333435363738");
    relay_round_trip(RelayMessage::Pong(*b"12345678"), "0a3132333435363738");
    relay_round_trip(RelayMessage::Health("slow"), "0b04736c6f77");
    relay_round_trip(RelayMessage::Restarting { min_ms: 250, max_ms: 2000 }, "0cfa000000d0070000");
    relay_round_trip(RelayMessage::Error { code: ErrorCode::NotAdmitted, text: "no" }, "0d0400026e6f");
}

#[test]
fn hello_and_welcome_have_fixed_bytes() {
    let hello = ServerHello {
        relay_id: [0xaa; 32],
        challenge: [0xbb; 32],
        binding: Binding::Exporter,
        max_payload: 65536,
        max_roster: 1_052_672,
    };
    relay_round_trip(
        RelayMessage::Hello(hello),
        &format!("0101{}{}010000010000101000", "aa".repeat(32), "bb".repeat(32)),
    );
    let welcome = Welcome {
        connection: [0xcc; 16],
        observed: "192.0.2.1:1234".parse().unwrap(),
        heartbeat: 30,
        handles: 4096,
        rate: 1 << 20,
    };
    let hex =
        format!("03{}00000000000000000000ffffc0000201d2041e00001000000000100000000000", "cc".repeat(16));
    relay_round_trip(RelayMessage::Welcome(welcome), &hex);
}

#[test]
fn authentication_has_fixed_bytes() {
    let (keys, signature) = ([0x22; PUBLIC_IDENTITY], [0x33; SIGNATURE]);
    let auth = ClientAuth {
        role: Role::Member,
        net: NetId([0x44; 32]),
        keys: &keys,
        admission: b"proof",
        signature: &signature,
    };
    let hex = format!(
        "020101{}{}050070726f6f66{}",
        "44".repeat(32),
        "22".repeat(PUBLIC_IDENTITY),
        "33".repeat(SIGNATURE)
    );
    let bytes = ClientMessage::Auth(auth).encode();
    assert_eq!(HEXLOWER.encode(&bytes), hex);
    assert_eq!(ClientMessage::parse(&bytes), Ok(ClientMessage::Auth(auth)));
    refuses_cut_and_extended(&bytes, |bytes| ClientMessage::parse(bytes).is_err());

    for role in [Role::Root, Role::Guest] {
        let with_proof = ClientMessage::Auth(ClientAuth { role, ..auth }).encode();
        assert_eq!(ClientMessage::parse(&with_proof), Err(WireError::Invalid("admission")));
        let without = ClientMessage::Auth(ClientAuth { role, admission: b"", ..auth }).encode();
        assert!(ClientMessage::parse(&without).is_ok());
    }
    let no_proof = ClientMessage::Auth(ClientAuth { admission: b"", ..auth }).encode();
    assert_eq!(ClientMessage::parse(&no_proof), Err(WireError::Invalid("admission")));

    let mut later = bytes.clone();
    later[1] = 2;
    assert_eq!(ClientMessage::parse(&later), Err(WireError::Version(2)));
}

#[test]
fn signed_input_has_fixed_bytes() {
    let hello = ServerHello {
        relay_id: [1; 32],
        challenge: [2; 32],
        binding: Binding::Exporter,
        max_payload: 0,
        max_roster: 0,
    };
    let input = auth_input(&hello, &[3; 32], Role::Guest, NetId([4; 32]), &[5; 64]);
    let hex = format!(
        "{}{}{}03{}{}",
        "01".repeat(32),
        "02".repeat(32),
        "03".repeat(32),
        "04".repeat(32),
        "05".repeat(64)
    );
    assert_eq!(HEXLOWER.encode(&input), hex);
}

#[test]
fn data_has_fixed_bytes_and_splits_into_frames() {
    let single = Data { handle: 5, segment: None, payload: b"abcdefg" };
    let batch = Data { segment: Some(3), ..single };
    for (data, send, recv) in [
        (single, "100500000061626364656667", "120500000061626364656667"),
        (batch, "1105000000030061626364656667", "1305000000030061626364656667"),
    ] {
        let message = ClientMessage::Send(data).encode();
        assert_eq!(HEXLOWER.encode(&message), send);
        assert_eq!(ClientMessage::parse(&message), Ok(ClientMessage::Send(data)));
        assert_eq!(message.len(), data.header_len() + 7);
        let message = RelayMessage::Recv(data).encode();
        assert_eq!(HEXLOWER.encode(&message), recv);
        assert_eq!(RelayMessage::parse(&message), Ok(RelayMessage::Recv(data)));
    }
    assert_eq!(single.frames().collect::<Vec<_>>(), [b"abcdefg"]);
    assert_eq!(batch.frames().collect::<Vec<_>>(), [b"abc".as_slice(), b"def", b"g"]);
}

#[test]
fn bad_data_is_refused() {
    assert_eq!(ClientMessage::parse(&[SEND, 1, 0, 0, 0]), Err(WireError::Truncated));
    assert_eq!(ClientMessage::parse(&[SEND_BATCH, 1, 0, 0, 0, 1, 0]), Err(WireError::Truncated));
    assert_eq!(
        ClientMessage::parse(&[SEND_BATCH, 1, 0, 0, 0, 0, 0, 9]),
        Err(WireError::Invalid("segment size"))
    );
    let long = vec![SEND; DATA_HEADER + RELAY_PAYLOAD + 1];
    assert_eq!(ClientMessage::parse(&long), Err(WireError::TooLong("relay payload")));
    assert!(ClientMessage::parse(&long[..DATA_HEADER + RELAY_PAYLOAD]).is_ok());
}

#[test]
fn rosters_are_bounded() {
    let roster = RosterBlob { version: 9, blob: b"sealed" };
    assert_eq!(HEXLOWER.encode(&ClientMessage::RosterPut(roster).encode()), "0e09000000000000007365616c6564");
    let bytes = RelayMessage::Roster(roster).encode();
    assert_eq!(HEXLOWER.encode(&bytes), "0f09000000000000007365616c6564");
    assert_eq!(RelayMessage::parse(&bytes), Ok(RelayMessage::Roster(roster)));
    assert_eq!(RelayMessage::parse(&bytes[..9]), Err(WireError::Truncated));
    assert!(RelayMessage::parse(&vec![ROSTER_PUSH; ROSTER_MESSAGE]).is_ok());
    assert_eq!(
        RelayMessage::parse(&vec![ROSTER_PUSH; ROSTER_MESSAGE + 1]),
        Err(WireError::TooLong("roster"))
    );
}

#[test]
fn values_of_no_version_are_refused() {
    assert_eq!(ClientMessage::parse(&[]), Err(WireError::Truncated));
    assert!(ClientMessage::parse(&[WELCOME; 80]).is_err());
    assert!(RelayMessage::parse(&[SEND; 80]).is_err());
    let mut bound = RelayMessage::Bound(Bound { node: NodeId([0; 32]), handle: 1, present: true }).encode();
    *bound.last_mut().unwrap() = 2;
    assert_eq!(RelayMessage::parse(&bound), Err(WireError::Invalid("presence")));
    let restarting = RelayMessage::Restarting { min_ms: 2, max_ms: 1 }.encode();
    assert_eq!(RelayMessage::parse(&restarting), Err(WireError::Invalid("restart delay")));
    let error = RelayMessage::Error { code: ErrorCode::Other(700), text: "" }.encode();
    assert_eq!(
        RelayMessage::parse(&error),
        Ok(RelayMessage::Error { code: ErrorCode::Other(700), text: "" })
    );
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let text = "ä".repeat(150);
    let bytes = RelayMessage::Health(&text).encode();
    assert_eq!(RelayMessage::parse(&bytes), Ok(RelayMessage::Health(&"ä".repeat(100))));
}

#[test]
fn error_codes_are_read_back() {
    for code in 0..=100 {
        assert_eq!(ErrorCode::from_u16(code).to_u16(), code);
    }
}

fn client_messages() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..300);
    let auth = (0..3usize, any::<[u8; 32]>(), any::<u8>(), bytes()).prop_map(|(role, net, fill, proof)| {
        let role = [Role::Member, Role::Root, Role::Guest][role];
        let admission = if role == Role::Member { proof.as_slice() } else { &[] };
        let (keys, signature) = ([fill; PUBLIC_IDENTITY], [!fill; SIGNATURE]);
        let auth = ClientAuth { role, net: NetId(net), keys: &keys, admission, signature: &signature };
        ClientMessage::Auth(auth).encode()
    });
    let data = (any::<u32>(), prop::option::of(1u16..), bytes()).prop_map(|(handle, segment, payload)| {
        ClientMessage::Send(Data { handle, segment, payload: &payload }).encode()
    });
    prop_oneof![
        auth,
        data,
        any::<[u8; 32]>().prop_map(|node| ClientMessage::Bind(NodeId(node)).encode()),
        any::<u32>().prop_map(|handle| ClientMessage::Unbind(handle).encode()),
        any::<[u8; 8]>().prop_map(|id| ClientMessage::Ping(id).encode()),
        any::<[u8; 8]>().prop_map(|id| ClientMessage::Pong(id).encode()),
        (any::<u64>(), bytes()).prop_map(|(version, blob)| ClientMessage::RosterPut(RosterBlob {
            version,
            blob: &blob
        })
        .encode()),
    ]
}

fn relay_messages() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..300);
    let hello = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u32>(), any::<u32>()).prop_map(
        |(relay_id, challenge, max_payload, max_roster)| {
            let binding = Binding::Exporter;
            RelayMessage::Hello(ServerHello { relay_id, challenge, binding, max_payload, max_roster })
                .encode()
        },
    );
    let welcome = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u16; 2]>(), any::<u32>(), any::<u64>())
        .prop_map(|(connection, ip, [port, heartbeat], handles, rate)| {
            let observed = SocketAddr::new(std::net::Ipv6Addr::from(ip).to_canonical(), port);
            RelayMessage::Welcome(Welcome { connection, observed, heartbeat, handles, rate }).encode()
        });
    let data = (any::<u32>(), prop::option::of(1u16..), bytes()).prop_map(|(handle, segment, payload)| {
        RelayMessage::Recv(Data { handle, segment, payload: &payload }).encode()
    });
    prop_oneof![
        hello,
        welcome,
        data,
        (any::<[u8; 32]>(), any::<u32>(), any::<bool>()).prop_map(|(node, handle, present)| {
            RelayMessage::Bound(Bound { node: NodeId(node), handle, present }).encode()
        }),
        any::<u32>().prop_map(|handle| RelayMessage::PeerGone(handle).encode()),
        any::<u32>().prop_map(|handle| RelayMessage::PeerPresent(handle).encode()),
        any::<[u8; 8]>().prop_map(|id| RelayMessage::Ping(id).encode()),
        any::<[u8; 8]>().prop_map(|id| RelayMessage::Pong(id).encode()),
        "[a-z ]{0,100}".prop_map(|text| RelayMessage::Health(&text).encode()),
        any::<[u32; 2]>()
            .prop_map(|[a, b]| { RelayMessage::Restarting { min_ms: a.min(b), max_ms: a.max(b) }.encode() }),
        (any::<u16>(), "[a-z ]{0,100}").prop_map(|(code, text)| {
            RelayMessage::Error { code: ErrorCode::from_u16(code), text: &text }.encode()
        }),
        (any::<u64>(), bytes()).prop_map(|(version, blob)| RelayMessage::Roster(RosterBlob {
            version,
            blob: &blob
        })
        .encode()),
    ]
}

proptest! {
    #[test]
    fn messages_of_a_client_are_read_back(bytes in client_messages()) {
        let message = ClientMessage::parse(&bytes).unwrap();
        prop_assert_eq!(message.encode(), bytes);
    }

    #[test]
    fn messages_of_a_relay_are_read_back(bytes in relay_messages()) {
        let message = RelayMessage::parse(&bytes).unwrap();
        prop_assert_eq!(message.encode(), bytes);
    }

    #[test]
    fn any_bytes_parse_or_fail_and_what_parses_encodes_equal(
        kind in 0_u8..0x16,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [[kind].as_slice(), &body].concat();
        if let Ok(message) = ClientMessage::parse(&bytes) {
            prop_assert_eq!(&message.encode(), &bytes);
        }
        if let Ok(message) = RelayMessage::parse(&bytes) {
            prop_assert_eq!(&message.encode(), &bytes);
        }
    }

    #[test]
    fn frames_of_a_batch_join_to_its_payload(
        payload in prop::collection::vec(any::<u8>(), 1..4000),
        segment in 1_u16..2000,
    ) {
        let data = Data { handle: 1, segment: Some(segment), payload: &payload };
        prop_assert_eq!(data.frames().collect::<Vec<_>>().concat(), payload);
    }
}
