use data_encoding::HEXLOWER_PERMISSIVE;
use proptest::prelude::*;

use super::*;

/// RFC 5769, section 2.1.
const SAMPLE_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
    802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36\
    000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";
/// RFC 5769, section 2.2.
const SAMPLE_ANSWER_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f7220002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
/// RFC 5769, section 2.3.
const SAMPLE_ANSWER_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
    00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";
const TRANSACTION: TransactionId = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap()
}

#[test]
fn sample_request_of_rfc_5769_is_understood() {
    let request = BindingRequest::parse(&hex(SAMPLE_REQUEST)).unwrap();
    assert_eq!(request, BindingRequest { transaction: TRANSACTION, fingerprint: true, change: None });
    assert!(is_stun(&hex(SAMPLE_REQUEST)));
}

#[test]
fn sample_answers_of_rfc_5769_are_understood() {
    let answer = BindingSuccess::parse(&hex(SAMPLE_ANSWER_V4)).unwrap();
    assert_eq!(answer.transaction, TRANSACTION);
    assert_eq!(answer.mapped, "192.0.2.1:32853".parse().unwrap());
    let answer = BindingSuccess::parse(&hex(SAMPLE_ANSWER_V6)).unwrap();
    assert_eq!(answer.mapped, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
}

#[test]
fn damaged_samples_are_refused() {
    for sample in [SAMPLE_ANSWER_V4, SAMPLE_ANSWER_V6] {
        let bytes = hex(sample);
        // The type of the FINGERPRINT itself is left out: changed, it names another attribute that may be skipped.
        let kind = bytes.len() - 8..bytes.len() - 6;
        for index in (0..bytes.len()).filter(|index| !kind.contains(index)) {
            let mut bad = bytes.clone();
            bad[index] ^= 1;
            assert!(BindingSuccess::parse(&bad).is_err(), "byte {index}");
        }
        for len in 0..bytes.len() {
            assert!(BindingSuccess::parse(&bytes[..len]).is_err());
            assert!(BindingRequest::parse(&bytes[..len]).is_err());
        }
    }
    let request = hex(SAMPLE_REQUEST);
    for len in 0..request.len() {
        assert!(BindingRequest::parse(&request[..len]).is_err());
    }
    let mut longer = request;
    longer.push(0);
    assert!(BindingRequest::parse(&longer).is_err());
}

#[test]
fn own_messages_have_fixed_bytes() {
    let request = BindingRequest { transaction: TRANSACTION, fingerprint: false, change: None };
    assert_eq!(request.encode(), hex("000100002112a442b7e7a701bc34d686fa87dfae"));
    let answer = BindingSuccess {
        transaction: TRANSACTION,
        mapped: "192.0.2.1:32853".parse().unwrap(),
        fingerprint: false,
        origin: None,
        other: None,
    };
    assert_eq!(answer.encode(), hex("0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643"));
}

#[test]
fn mapped_ipv4_is_answered_as_ipv4_and_answers_stay_small() {
    let mapped = BindingSuccess {
        transaction: TRANSACTION,
        mapped: "[::ffff:192.0.2.1]:9".parse().unwrap(),
        fingerprint: false,
        origin: None,
        other: None,
    };
    assert_eq!(mapped.encode().len(), 32);
    let wide: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
    let (origin, other) = (Some(wide), Some(wide));
    let widest = BindingSuccess { mapped: wide, fingerprint: true, origin, other, ..mapped };
    assert_eq!(widest.encode().len(), ANSWER);
}

#[test]
fn change_request_of_rfc_5780_has_fixed_bytes() {
    let head = "000100082112a442b7e7a701bc34d686fa87dfae00030004";
    for (flags, address, port) in [
        ("00000000", false, false),
        ("00000002", false, true),
        ("00000004", true, false),
        ("00000006", true, true),
    ] {
        let bytes = hex(&format!("{head}{flags}"));
        let request = BindingRequest::parse(&bytes).unwrap();
        assert_eq!(request.change, Some(Change { address, port }));
        assert_eq!(request.encode(), bytes);
    }
    for flags in ["00000001", "00000008", "80000002"] {
        let bytes = hex(&format!("{head}{flags}"));
        assert_eq!(BindingRequest::parse(&bytes), Err(WireError::Invalid("STUN change")), "{flags}");
    }
    let twice = hex("000100102112a442b7e7a701bc34d686fa87dfae00030004000000020003000400000002");
    assert!(BindingRequest::parse(&twice).is_err());
}

#[test]
fn requests_for_more_than_an_address_are_refused() {
    // RESPONSE-PORT (RFC 5780) asks the server to answer to elsewhere.
    let bytes = hex("000100082112a442b7e7a701bc34d686fa87dfae0027000412340000");
    assert_eq!(BindingRequest::parse(&bytes), Err(WireError::Invalid("STUN attribute")));
    assert!(BindingRequest::parse(&vec![0; MESSAGE + 1]).is_err());
    // An indication and an answer are no requests.
    assert!(BindingRequest::parse(&hex("001100002112a442b7e7a701bc34d686fa87dfae")).is_err());
    assert!(BindingRequest::parse(&hex(SAMPLE_ANSWER_V4)).is_err());
}

#[test]
fn nothing_may_follow_the_fingerprint() {
    let mut bytes = BindingRequest { transaction: TRANSACTION, fingerprint: true, change: None }.encode();
    bytes.extend_from_slice(&hex("8022000141000000"));
    bytes[3] += 8;
    assert!(BindingRequest::parse(&bytes).is_err());
}

proptest! {
    #[test]
    fn messages_are_read_back(transaction: TransactionId, v6: bool, ip: [u8; 16], port: u16, fingerprint: bool) {
        let request = BindingRequest { transaction, fingerprint, change: None };
        prop_assert_eq!(BindingRequest::parse(&request.encode()), Ok(request));
        let ip = if v6 {
            IpAddr::V6(Ipv6Addr::from(ip)).to_canonical()
        } else {
            IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]))
        };
        let mapped = SocketAddr::new(ip, port);
        let answer = BindingSuccess { transaction, mapped, fingerprint, origin: Some(mapped), other: None };
        prop_assert_eq!(BindingSuccess::parse(&answer.encode()), Ok(answer));
    }

    #[test]
    fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = bytes;
        let _ = BindingRequest::parse(&bytes);
        if bytes.len() >= 8 {
            bytes[..2].copy_from_slice(&[1, 1]);
            bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            let _ = BindingSuccess::parse(&bytes);
        }
    }
}
