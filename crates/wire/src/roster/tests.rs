use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::{NetId, NodeId, Pin, WireError};

fn leaf() -> Leaf {
    Leaf {
        serial: 7,
        node_id: NodeId([2; 32]),
        name: "pi".parse().unwrap(),
        ipv4: Ipv4Addr::new(100, 64, 16, 1),
        ipv6: overlay_ipv6(NetId([1; 32]), NodeId([2; 32])),
        prefixes: ["10.1.0.0/16", "fd00::/64"].map(|p| p.parse().unwrap()).into(),
        groups: ["ci", "lab"].map(|g| g.parse().unwrap()).into(),
        roles: Roles::COORDINATOR,
        not_before: UnixSeconds(1),
        not_after: UnixSeconds(2),
    }
}

fn settings() -> RosterSettings {
    RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: "100.64.16.0/20".parse().unwrap(),
        link: Link::Tap,
        mtu: 1420,
        relays: vec![
            ("wss://b.example".parse().unwrap(), Pin([4; 32])),
            ("wss://a.example:8443".parse().unwrap(), Pin([5; 32])),
        ],
    }
}

fn head() -> Head {
    Head {
        net: NetId([1; 32]),
        version: 3,
        previous: [2; 32],
        issued_at: UnixSeconds(4),
        fresh_until: UnixSeconds(5),
        leaf_count: 1,
        merkle_root: [6; 32],
        settings_hash: [7; 32],
        revoked_hash: [8; 32],
    }
}

fn file_bytes() -> Vec<u8> {
    let (head, leaf, settings) = (head().encode(), leaf().encode(), settings().encode());
    RosterParts {
        root: &[9; 2624],
        head: &head,
        signature: &[10; 4691],
        settings: &settings,
        revoked: vec![NodeId([11; 32]), NodeId([12; 32])],
        leaves: vec![&leaf],
    }
    .encode()
}

fn proof_bytes(with_head: bool, with_root: bool) -> Vec<u8> {
    let (head, leaf) = (head().encode(), leaf().encode());
    ProofParts {
        root: with_root.then_some(&[9; 2624]),
        head: with_head.then_some((&head, &[10; 4691])),
        version: 3,
        index: 0,
        leaf: &leaf,
        path: vec![[1; 32], [2; 32]],
    }
    .encode()
}

#[test]
fn leaf_bytes_are_fixed() {
    let mut expected = vec![7, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&[2; 32]);
    expected.extend_from_slice(b"\x02pi");
    expected.extend_from_slice(&[100, 64, 16, 1]);
    expected.extend_from_slice(&[0xfd, 1, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2]);
    expected.extend_from_slice(&[2, 4, 10, 1, 0, 0, 16]);
    expected.extend_from_slice(&[6, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64]);
    expected.extend_from_slice(b"\x02\x02ci\x03lab");
    expected.extend_from_slice(&[1, 0, 0, 0]);
    expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(leaf().encode(), expected);
    assert_eq!(Leaf::parse(&expected), Ok(leaf()));
}

#[test]
fn settings_bytes_are_fixed() {
    let mut expected = b"\x04home".to_vec();
    expected.extend_from_slice(&[100, 64, 16, 0, 20, 1, 0x8c, 0x05, 2]);
    expected.extend_from_slice(b"\x09b.example");
    expected.extend_from_slice(&[4; 32]);
    expected.extend_from_slice(b"\x0ea.example:8443");
    expected.extend_from_slice(&[5; 32]);
    assert_eq!(settings().encode(), expected);
    assert_eq!(RosterSettings::parse(&expected), Ok(settings()));
}

#[test]
fn head_bytes_are_fixed() {
    let bytes = head().encode();
    assert_eq!(bytes.len(), 189);
    assert_eq!(bytes[..34], [&[1], [1; 32].as_slice(), &[3]].concat());
    assert_eq!(bytes[41..73], [2; 32]);
    assert_eq!(bytes[34..41], [0; 7]);
    assert_eq!(bytes[73..93], [4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bytes[93..], [[6; 32], [7; 32], [8; 32]].concat());
    assert_eq!(Head::parse(&bytes), Ok(head()));
}

#[test]
fn file_and_proofs_have_fixed_bytes() {
    let (head, leaf, settings) = (head().encode(), leaf().encode(), settings().encode());
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_le_bytes();
    let file = [
        &[1][..],
        &[9; 2624],
        &head,
        &[10; 4691],
        &length(&settings),
        &settings,
        &[2, 0],
        &[11; 32],
        &[12; 32],
        &length(&leaf),
        &leaf,
    ]
    .concat();
    assert_eq!(file_bytes(), file);
    let rest =
        [&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &length(&leaf), &leaf, &[2], &[1; 32], &[2; 32]].concat();
    assert_eq!(proof_bytes(false, false), [&[1, 0][..], &rest].concat());
    assert_eq!(proof_bytes(true, false), [&[1, 1][..], &head, &[10; 4691], &rest].concat());
    assert_eq!(proof_bytes(true, true), [&[1, 3][..], &[9; 2624], &head, &[10; 4691], &rest].concat());
}

#[test]
fn file_and_proofs_are_read_back() {
    let bytes = file_bytes();
    assert_eq!(RosterParts::parse(&bytes).unwrap().encode(), bytes);
    for (head, root) in [(false, false), (true, false), (true, true)] {
        let bytes = proof_bytes(head, root);
        assert!(bytes.len() <= PROOF_MAX);
        assert_eq!(ProofParts::parse(&bytes).unwrap().encode(), bytes);
    }
    assert_eq!(ProofParts::parse(&proof_bytes(false, true)).unwrap_err(), WireError::Invalid("proof flags"));
}

#[test]
fn every_shorter_or_longer_input_is_refused() {
    fn check<T>(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<T>) {
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_none(), "{len} bytes");
        }
        assert!(parse(&[bytes, &[0]].concat()).is_none());
    }
    check(&leaf().encode(), |b| Leaf::parse(b).ok());
    check(&settings().encode(), |b| RosterSettings::parse(b).ok());
    check(&head().encode(), |b| Head::parse(b).ok());
    check(&file_bytes(), |b| RosterParts::parse(b).ok().map(drop));
    check(&proof_bytes(false, false), |b| ProofParts::parse(b).ok().map(drop));
    check(&proof_bytes(true, true), |b| ProofParts::parse(b).ok().map(drop));
}

#[test]
fn flipped_bits_never_panic_and_what_is_accepted_is_canonical() {
    let (good, file) = (leaf().encode(), settings().encode());
    for at in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(leaf) = Leaf::parse(&bytes) {
            assert_eq!(leaf.encode(), bytes);
        }
    }
    for at in 0..file.len() * 8 {
        let mut bytes = file.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(settings) = RosterSettings::parse(&bytes) {
            assert_eq!(settings.encode(), bytes);
        }
    }
}

#[test]
fn unsorted_or_repeated_lists_are_refused() {
    let swap = |from: &[u8], a: &[u8], b: &[u8]| {
        let at = from.windows(a.len()).position(|w| w == a).unwrap();
        [&from[..at], b, &from[at + a.len()..]].concat()
    };
    let bytes = leaf().encode();
    for lists in [b"\x03lab\x02ci", b"\x02ci\x03ci1"] {
        let swapped = swap(&bytes, b"\x02ci\x03lab", lists);
        assert_eq!(Leaf::parse(&swapped).is_ok(), lists == b"\x02ci\x03ci1");
    }
    let repeated = swap(&bytes, b"\x02\x02ci\x03lab", b"\x02\x02ci\x02ci");
    assert_eq!(Leaf::parse(&repeated), Err(WireError::Invalid("list of groups")));
    let repeated = swap(&settings().encode(), b"\x0ea.example:8443", b"\x09b.example");
    assert_eq!(RosterSettings::parse(&repeated), Err(WireError::Invalid("list of relays")));

    let bytes = file_bytes();
    let repeated = swap(&bytes, &[12; 32], &[11; 32]);
    assert_eq!(RosterParts::parse(&repeated).unwrap_err(), WireError::Invalid("list of revoked nodes"));
}

#[test]
fn lists_above_their_limits_are_refused() {
    let many = (0..17).map(|i| format!("g{i:02}").parse().unwrap()).collect::<BTreeSet<Group>>();
    let bytes = Leaf { groups: many, ..leaf() }.encode();
    assert_eq!(Leaf::parse(&bytes), Err(WireError::TooLong("list of groups")));
    let many = (0..17).map(|i| format!("10.{i}.0.0/16").parse().unwrap()).collect::<BTreeSet<Prefix>>();
    let bytes = Leaf { prefixes: many, ..leaf() }.encode();
    assert_eq!(Leaf::parse(&bytes), Err(WireError::TooLong("list of prefixes")));
    let many = (0..17).map(|i| (format!("wss://r{i}.example").parse().unwrap(), Pin([0; 32]))).collect();
    let bytes = RosterSettings { relays: many, ..settings() }.encode();
    assert_eq!(RosterSettings::parse(&bytes), Err(WireError::TooLong("list of relays")));
    let bytes = Head { leaf_count: 4097, ..head() }.encode();
    assert_eq!(Head::parse(&bytes), Err(WireError::TooLong("list of nodes")));
}

#[test]
fn senseless_values_are_refused() {
    for bad in [
        Head { leaf_count: 0, ..head() },
        Head { version: 0, ..head() },
        Head { fresh_until: UnixSeconds(3), ..head() },
    ] {
        assert!(Head::parse(&bad.encode()).is_err());
    }
    for mtu in [0, 1279, 65_001] {
        assert!(RosterSettings::parse(&RosterSettings { mtu, ..settings() }.encode()).is_err());
    }
    assert!(Leaf::parse(&Leaf { not_after: UnixSeconds(0), ..leaf() }.encode()).is_err());
    assert!(Roles::from_bits(2).is_err());
}

#[test]
fn names_follow_the_rules_of_dns() {
    for good in ["a", "9", "a-b", &"a".repeat(63)] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
    assert!("a".repeat(33).parse::<Group>().is_err());
}

#[test]
fn prefixes_cover_what_they_should() {
    let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
    assert!(prefix.contains(IpAddr::from([10, 1, 255, 255])));
    assert!(!prefix.contains(IpAddr::from([10, 2, 0, 0])));
    assert!(!prefix.contains("::".parse().unwrap()));
    assert!(prefix.covers(&"10.1.2.0/24".parse().unwrap()));
    assert!(!prefix.covers(&"10.0.0.0/8".parse().unwrap()));
    let all: Prefix = "::/0".parse().unwrap();
    assert!(all.contains("fd00::1".parse().unwrap()));
    for bad in ["10.1.0.0", "10.1.0.0/33", "10.1.0.1/16", "::/129", "10.1.0.0/+8", "x/8"] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
}

#[test]
fn pool_gives_hosts_only() {
    let pool: Ipv4Pool = "100.64.16.0/30".parse().unwrap();
    let hosts: Vec<_> = pool.hosts().collect();
    assert_eq!(hosts, [Ipv4Addr::new(100, 64, 16, 1), Ipv4Addr::new(100, 64, 16, 2)]);
    for last in 0..=255 {
        let address = Ipv4Addr::new(100, 64, 16, last);
        assert_eq!(pool.has_host(address), hosts.contains(&address));
    }
    for bad in
        ["10.0.0.0/7", "10.0.0.0/31", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/8", "10.0.0.1/8", "fd00::/8"]
    {
        assert!(bad.parse::<Ipv4Pool>().is_err(), "{bad}");
    }
}

#[test]
fn ipv6_addresses_follow_from_the_ids() {
    let net = NetId(std::array::from_fn(|i| u8::try_from(i).unwrap() + 0x10));
    let node = NodeId(std::array::from_fn(|i| u8::try_from(i).unwrap() + 0xa0));
    assert_eq!(ula(net).to_string(), "fd10:1112:1314::/48");
    assert_eq!(overlay_ipv6(net, node).to_string(), "fd10:1112:1314:0:a0a1:a2a3:a4a5:a6a7");
    assert!(ula(net).contains(overlay_ipv6(net, node).into()));
}

#[test]
fn a_node_owns_its_addresses_and_prefixes() {
    let leaf = leaf();
    assert!(leaf.owns(leaf.ipv4.into()) && leaf.owns(leaf.ipv6.into()));
    assert!(leaf.owns("10.1.2.3".parse().unwrap()) && leaf.owns("fd00::5".parse().unwrap()));
    assert!(!leaf.owns("100.64.16.2".parse().unwrap()));
}

proptest! {
    #[test]
    fn heads_are_read_back(
        net: [u8; 32],
        version in 1u64..,
        times: [u64; 2],
        leaf_count in 1u32..=4096,
        previous: [u8; 32],
        hashes: [[u8; 32]; 3],
    ) {
        let head = Head {
            net: NetId(net),
            version,
            // The first version has none before it.
            previous: if version == 1 { [0; 32] } else { previous },
            issued_at: UnixSeconds(times[0].min(times[1])),
            fresh_until: UnixSeconds(times[0].max(times[1])),
            leaf_count,
            merkle_root: hashes[0],
            settings_hash: hashes[1],
            revoked_hash: hashes[2],
        };
        prop_assert_eq!(Head::parse(&head.encode()), Ok(head));
    }

    #[test]
    fn settings_are_read_back(name in "[a-z]{1,63}", octet in 64u8..128, tap: bool, mtu in MTU_MIN..=MTU_MAX, hosts in proptest::collection::btree_set("[a-z]{1,30}", 0..16)) {
        let settings = RosterSettings {
            name: name.parse().unwrap(),
            ipv4_pool: format!("100.{octet}.0.0/16").parse().unwrap(),
            link: if tap { Link::Tap } else { Link::Tun },
            mtu,
            relays: hosts
                .iter()
                .map(|host| (format!("wss://{host}.example").parse().unwrap(), Pin([octet; 32])))
                .collect(),
        };
        let bytes = settings.encode();
        let back = RosterSettings::parse(&bytes);
        prop_assert_eq!(back.map(|back| back.encode()), Ok(bytes));
    }

    #[test]
    fn files_of_any_content_are_read_back(
        fill: u8,
        leaf_count in 1u32..20,
        leaf in proptest::collection::vec(any::<u8>(), 1..60),
        settings in proptest::collection::vec(any::<u8>(), 1..60),
        revoked in proptest::collection::btree_set(any::<[u8; 32]>(), 0..20),
    ) {
        let head = Head { leaf_count, ..head() }.encode();
        let parts = RosterParts {
            root: &[fill; 2624],
            head: &head,
            signature: &[!fill; 4691],
            settings: &settings,
            revoked: revoked.into_iter().map(NodeId).collect(),
            leaves: vec![&leaf; usize::try_from(leaf_count).unwrap()],
        };
        let bytes = parts.encode();
        prop_assert_eq!(RosterParts::parse(&bytes).map(|parts| parts.encode()), Ok(bytes));
    }

    #[test]
    fn proofs_of_any_content_are_read_back(
        flags in 0usize..3,
        version: u64,
        index: u32,
        leaf in proptest::collection::vec(any::<u8>(), 1..60),
        path in proptest::collection::vec(any::<[u8; 32]>(), 0..=12),
    ) {
        let head = head().encode();
        let parts = ProofParts {
            root: (flags == 2).then_some(&[9; 2624]),
            head: (flags >= 1).then_some((&head, &[10; 4691])),
            version,
            index,
            leaf: &leaf,
            path,
        };
        let bytes = parts.encode();
        prop_assert_eq!(ProofParts::parse(&bytes).map(|parts| parts.encode()), Ok(bytes));
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let noise = [&[1], &noise[..]].concat();
        prop_assert!(RosterParts::parse(&noise).is_err());
        if let Ok(proof) = ProofParts::parse(&noise) {
            prop_assert_eq!(proof.encode(), noise.clone());
        }
        if let Ok(leaf) = Leaf::parse(&noise[1..]) {
            prop_assert_eq!(leaf.encode(), &noise[1..]);
        }
    }
}
