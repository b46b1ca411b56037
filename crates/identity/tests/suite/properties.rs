//! What must hold for any input.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use mesh_identity::{
    Identity, Label, MembershipProof, PublicIdentity, Roster, Signature, Ticket, TicketSecret, UnixSeconds,
};
use mesh_wire::roster::{Group, Leaf, Prefix, Roles, overlay_ipv6};
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};
use proptest::prelude::*;

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::from_seeds(&[1; 32], &[2; 32]).unwrap());
static SIGNATURE: LazyLock<Signature> =
    LazyLock::new(|| IDENTITY.sign(Label::RosterHead, b"message").unwrap());

fn prefixes() -> impl Strategy<Value = BTreeSet<Prefix>> {
    let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, len)| {
        let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
        Prefix::new(std::net::Ipv4Addr::from(bits & !host).into(), len).unwrap()
    });
    let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, len)| {
        let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
        Prefix::new(std::net::Ipv6Addr::from(bits & !host).into(), len).unwrap()
    });
    prop::collection::btree_set(prop_oneof![v4, v6], 0..=16)
}

fn leaves() -> impl Strategy<Value = Leaf> {
    let groups =
        prop::collection::btree_set("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?".prop_map(parse::<Group>), 0..=16);
    let name = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    (any::<u64>(), any::<[u8; 32]>(), name, any::<[u8; 4]>(), prefixes(), groups, any::<u64>()).prop_map(
        |(serial, id, name, ipv4, prefixes, groups, end)| Leaf {
            serial,
            node_id: NodeId(id),
            name: parse(name),
            ipv4: ipv4.into(),
            ipv6: overlay_ipv6(NetId(id), NodeId(id)),
            prefixes,
            groups,
            roles: Roles::NONE,
            not_before: UnixSeconds(end / 2),
            not_after: UnixSeconds(end),
        },
    )
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: String) -> T {
    text.parse().unwrap()
}

proptest! {
    #[test]
    fn leaves_are_read_back(leaf in leaves()) {
        let bytes = leaf.encode();
        prop_assert!(bytes.len() <= mesh_wire::roster::LEAF_MAX);
        prop_assert_eq!(Leaf::parse(&bytes).unwrap(), leaf);
        for len in 0..bytes.len() {
            prop_assert!(Leaf::parse(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn tickets_are_read_back_and_no_flipped_bit_passes(
        net: [u8; 32], pin: [u8; 32], seed: [u8; 16], expires: u32, port in 1..=u16::MAX, at: prop::sample::Index, bit in 0..7_u8,
    ) {
        let relay = RelayUrl::new("relay.example", port).unwrap();
        let secret = TicketSecret::from_seed(&seed);
        let ticket = Ticket::new(NetId(net), relay.clone(), Pin(pin), secret, UnixSeconds(expires.into()));
        let text = ticket.to_text();
        let back = Ticket::parse(&text).unwrap();
        prop_assert_eq!((back.net(), back.pin(), back.relay()), (NetId(net), Pin(pin), &relay));
        prop_assert_eq!(back.expires(), UnixSeconds(expires.into()));
        prop_assert_eq!(back.invite_id(), ticket.invite_id());

        let mut bad = text.as_bytes().to_vec();
        let at = at.index(bad.len());
        bad[at] ^= 1 << bit;
        let bad = String::from_utf8(bad).unwrap();
        // A blank in its place is a missing character, not a skipped one.
        prop_assert!(Ticket::parse(&bad).is_err());
    }

    #[test]
    fn a_flipped_bit_in_a_signature_is_refused(at in 0..4691_usize, bit in 0..8_u8) {
        let mut bytes = *SIGNATURE.as_bytes();
        bytes[at] ^= 1 << bit;
        let bad = Signature::parse(&bytes).unwrap();
        prop_assert!(IDENTITY.public().verify(Label::RosterHead, b"message", &bad).is_err());
    }

    #[test]
    fn a_flipped_bit_in_the_keys_is_refused_and_changes_the_id(at in 0..2624_usize, bit in 0..8_u8) {
        let mut bytes = *IDENTITY.public().as_bytes();
        bytes[at] ^= 1 << bit;
        let other = PublicIdentity::parse(&bytes).unwrap();
        prop_assert_ne!(other.node_id(), IDENTITY.node_id());
        prop_assert!(other.verify(Label::RosterHead, b"message", &SIGNATURE).is_err());
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..10_000), text in ".{0,300}") {
        let _ = MembershipProof::parse(&bytes);
        let _ = Roster::verify(&bytes, NetId([0; 32]), UnixSeconds(0));
        let _ = Ticket::parse(&text);
        let _ = RelayUrl::parse_with_pin(&text);
        let _ = RelayUrl::parse_with_pin(&format!("wss://{text}"));
        let _ = text.parse::<Prefix>();
    }
}

#[test]
fn a_signature_of_any_other_length_is_refused() {
    for len in (0..4691).chain([4692]) {
        assert!(Signature::parse(&vec![0; len]).is_err());
    }
}
