use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_wire::roster::{Link, Roles};

use super::*;
use crate::Identity;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const DAY: u64 = 86_400;

fn root() -> Identity {
    Identity::from_seeds(&[1; 32], &[2; 32]).unwrap()
}

fn node(n: u8) -> NodeId {
    let mut id = [n; 32];
    id[31] = 0xee;
    NodeId(id)
}

fn member(name: &str) -> NewMember {
    NewMember {
        name: name.parse().unwrap(),
        groups: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        not_before: NOW,
        not_after: NOW.after(DAY),
    }
}

fn settings() -> RosterSettings {
    RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: "100.64.16.0/29".parse().unwrap(),
        link: Link::Tun,
        mtu: 1420,
        relays: vec![("wss://relay.example:8443".parse().unwrap(), mesh_wire::Pin([5; 32]))],
    }
}

/// Nodes 1 (coordinator) to 3.
fn draft() -> RosterDraft {
    let mut draft = RosterDraft::new(root().public(), settings(), node(1), member("laptop")).unwrap();
    draft.admit(node(2), member("pi")).unwrap();
    draft.admit(node(3), member("server")).unwrap();
    draft
}

fn roster() -> Roster {
    draft().sign(&root(), NOW, DAY).unwrap()
}

fn verify(bytes: &[u8]) -> Result<Roster, RosterError> {
    Roster::verify(bytes, root().net_id(), NOW)
}

/// Takes a roster apart, changes a part, and signs a head that fits the change, as a root with a bug would.
fn resigned(change: impl FnOnce(&mut Vec<Leaf>, &mut Vec<NodeId>, &mut Head)) -> Result<Roster, RosterError> {
    let roster = roster();
    let mut leaves = roster.leaves().to_vec();
    let mut revoked = Vec::new();
    let mut head = roster.head.head.clone();
    change(&mut leaves, &mut revoked, &mut head);
    let leaves: Vec<_> = leaves.iter().map(Leaf::encode).collect();
    let hashes: Vec<_> = leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
    head.leaf_count = u32::try_from(leaves.len()).unwrap();
    head.merkle_root = merkle::root(&hashes);
    head.revoked_hash = revoked_hash(&revoked);
    let head = head.encode();
    let signature = root().sign(Label::RosterHead, &head).unwrap();
    let bytes = RosterParts {
        root: root().public().as_bytes(),
        head: &head,
        signature: signature.as_bytes(),
        settings: &roster.settings().encode(),
        revoked,
        leaves: leaves.iter().map(Vec::as_slice).collect(),
    }
    .encode();
    verify(&bytes)
}

#[test]
fn signed_roster_is_read_back() {
    let roster = roster();
    let back = verify(roster.encode()).unwrap();
    assert_eq!(back.encode(), roster.encode());
    assert_eq!((back.version(), back.net()), (1, root().net_id()));
    assert_eq!(back.settings(), &settings());
    assert_eq!(back.root(), root().public());
    assert_eq!((back.issued_at(), back.fresh_until()), (NOW, NOW.after(DAY)));
    assert!(back.leaf(&node(1)).unwrap().roles.contains(Roles::COORDINATOR));
    assert!(!back.leaf(&node(2)).unwrap().roles.contains(Roles::COORDINATOR));
    assert_eq!(back.leaf_by_name("pi").unwrap().node_id, node(2));
    assert_eq!(back.leaf(&node(9)), None);
}

#[test]
fn nodes_get_the_lowest_free_address() {
    let mut draft = draft();
    let ipv4 = |draft: &RosterDraft, n| draft.leaf(&node(n)).unwrap().ipv4.octets()[3];
    assert_eq!([1, 2, 3].map(|n| ipv4(&draft, n)), [1, 2, 3]);
    assert!(draft.remove(&node(2)));
    assert!(!draft.remove(&node(2)));
    draft.admit(node(4), member("four")).unwrap();
    assert_eq!(ipv4(&draft, 4), 2);
    for (n, name) in [(5, "five"), (6, "six"), (7, "seven")] {
        draft.admit(node(n), member(name)).unwrap();
    }
    assert_eq!(ipv4(&draft, 7), 6);
    assert_eq!(draft.admit(node(8), member("eight")).unwrap_err(), AdmitError::PoolExhausted);
}

#[test]
fn admission_keeps_the_rules() {
    let mut draft = draft();
    let refused = |draft: &mut RosterDraft, n, member| draft.admit(node(n), member).unwrap_err();
    assert_eq!(refused(&mut draft, 4, member("pi")), AdmitError::NameTaken("pi".parse().unwrap()));
    assert_eq!(refused(&mut draft, 2, member("other")), AdmitError::AlreadyMember);
    let backwards = NewMember { not_after: NOW.before(1), ..member("four") };
    assert_eq!(refused(&mut draft, 4, backwards), AdmitError::Dates);
    let groups = (0..17).map(|i| format!("g{i}").parse().unwrap()).collect();
    assert_eq!(refused(&mut draft, 4, NewMember { groups, ..member("four") }), AdmitError::TooManyGroups);

    let with = |text: &str| NewMember { prefixes: [text.parse().unwrap()].into(), ..member("four") };
    draft.admit(node(4), with("10.1.0.0/16")).unwrap();
    let inside_ula = format!("{}:1::/64", ula(root().net_id()).address().to_string().trim_end_matches("::"));
    for taken in ["10.1.0.0/16", "100.64.16.0/30", inside_ula.as_str()] {
        let member = NewMember { name: "five".parse().unwrap(), ..with(taken) };
        assert_eq!(refused(&mut draft, 5, member), AdmitError::PrefixTaken(taken.parse().unwrap()));
    }

    assert_eq!(draft.revoke(&node(3)), Ok(true));
    assert_eq!(refused(&mut draft, 3, member("server")), AdmitError::Revoked);
    let mut same_interface = node(2).0;
    same_interface[20] ^= 1;
    assert_eq!(draft.admit(NodeId(same_interface), member("twin")).unwrap_err(), AdmitError::AddressClash);
}

#[test]
fn next_version_follows_the_one_before() {
    let first = roster();
    let mut draft = RosterDraft::from_roster(&first);
    assert!(draft.set_dates(&node(2), NOW, NOW.after(2 * DAY)).unwrap());
    draft.revoke(&node(3)).unwrap();
    // The clock was set back: the new head is not dated before the old one.
    let second = draft.sign(&root(), NOW.before(DAY), DAY).unwrap();
    assert_eq!((second.version(), second.issued_at()), (2, NOW));
    assert_eq!(second.leaf(&node(2)).unwrap().serial, 2);
    assert_eq!(second.leaf(&node(1)).unwrap().serial, 1);
    assert!(second.is_revoked(&node(3)) && second.leaf(&node(3)).is_none());

    assert_eq!(second.check_replaces(&first), Ok(()));
    assert_eq!(first.check_replaces(&second), Err(UpdateError::NotNewer));
    assert_eq!(first.check_replaces(&first), Err(UpdateError::NotNewer));
    let rival = draft.sign(&root(), NOW.after(1), DAY).unwrap();
    assert_eq!(rival.check_replaces(&second), Err(UpdateError::Forked));
    let after_rival = RosterDraft::from_roster(&rival).sign(&root(), NOW.after(2), DAY).unwrap();
    assert_eq!(after_rival.check_replaces(&second), Err(UpdateError::Forked));
}

#[test]
fn only_the_root_signs() {
    let other = Identity::from_seeds(&[3; 32], &[4; 32]).unwrap();
    assert_eq!(draft().sign(&other, NOW, DAY).unwrap_err(), SignRosterError::WrongRoot);
    assert_eq!(
        Roster::verify(roster().encode(), other.net_id(), NOW).unwrap_err(),
        RosterError::OtherNetwork
    );
    assert_eq!(
        Roster::verify(roster().encode(), root().net_id(), NOW.before(2 * DAY)).unwrap_err(),
        RosterError::FromTheFuture
    );
}

#[test]
fn one_flipped_bit_anywhere_in_a_roster_is_refused() {
    let good = roster().encode().to_vec();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(verify(&bad).is_err(), "byte {at}");
    }
    for len in 0..good.len() {
        assert!(verify(&good[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn even_the_root_cannot_break_the_rules() {
    assert!(resigned(|_, _, _| {}).is_ok());
    let broken = |change: fn(&mut Vec<Leaf>, &mut Vec<NodeId>, &mut Head)| {
        assert!(matches!(resigned(change).unwrap_err(), RosterError::Rule(_)));
    };
    broken(|leaves, _, _| leaves.swap(0, 1));
    broken(|leaves, _, _| leaves[1] = leaves[0].clone());
    broken(|leaves, _, _| leaves[1].name = leaves[0].name.clone());
    broken(|leaves, _, _| leaves[1].ipv4 = leaves[0].ipv4);
    broken(|leaves, _, _| leaves[1].ipv4 = "100.64.16.0".parse().unwrap());
    broken(|leaves, _, _| leaves[1].ipv4 = "100.64.16.7".parse().unwrap());
    broken(|leaves, _, _| leaves[1].ipv4 = "100.64.17.1".parse().unwrap());
    broken(|leaves, _, _| leaves[1].ipv6 = leaves[0].ipv6);
    broken(|leaves, _, _| leaves[1].serial = 2);
    broken(|leaves, _, _| leaves[1].prefixes = ["100.64.16.4/32".parse().unwrap()].into());
    broken(|leaves, _, _| {
        leaves[0].prefixes = ["10.0.0.0/8".parse().unwrap()].into();
        leaves[1].prefixes = ["10.0.0.0/8".parse().unwrap()].into();
    });
    broken(|leaves, revoked, _| revoked.push(leaves[1].node_id));
    broken(|_, _, head| head.previous = [1; 32]);
    broken(|_, _, head| head.version = 2);
}

#[test]
fn proofs_are_read_back_and_have_the_documented_sizes() {
    let roster = roster();
    for (kind, sizes) in [
        (ProofKind::Bare, 100..600),
        (ProofKind::WithHead, 5_000..5_500),
        (ProofKind::WithRoot, 7_600..8_200),
    ] {
        for leaf in roster.leaves() {
            let bytes = roster.proof(&leaf.node_id, kind).unwrap().encode();
            assert!(sizes.contains(&bytes.len()), "{kind:?}: {} bytes", bytes.len());
            let back = MembershipProof::parse(&bytes).unwrap();
            assert_eq!((back.encode(), back.kind()), (bytes.clone(), kind));
            assert_eq!((back.version(), back.node_id()), (1, leaf.node_id));
            assert!((0..bytes.len()).all(|len| MembershipProof::parse(&bytes[..len]).is_err()));
        }
    }
    assert!(roster.proof(&node(9), ProofKind::Bare).is_none());
}

#[test]
fn proof_of_our_version_or_an_older_one_points_into_our_roster() {
    let first = roster();
    let mut draft = RosterDraft::from_roster(&first);
    draft.set_dates(&node(1), NOW, NOW.after(9 * DAY)).unwrap();
    draft.revoke(&node(2)).unwrap();
    draft.remove(&node(3));
    let second = draft.sign(&root(), NOW, DAY).unwrap();
    let cache = HeadCache::new();

    for kind in [ProofKind::Bare, ProofKind::WithHead] {
        let accepts = |n| second.accepts(&node(n), &first.proof(&node(n), kind).unwrap(), NOW, &cache);
        let admitted = accepts(1).unwrap();
        assert!(!admitted.newer);
        assert_eq!(admitted.leaf, *second.leaf(&node(1)).unwrap());
        assert_eq!(accepts(2), Err(ProofError::Revoked));
        assert_eq!(accepts(3), Err(ProofError::NotAMember));
    }
    let proof = second.proof(&node(1), ProofKind::Bare).unwrap();
    assert!(second.accepts(&node(1), &proof, NOW, &cache).is_ok());
    assert_eq!(second.accepts(&node(2), &proof, NOW, &cache), Err(ProofError::OtherNode));
    let moved = MembershipProof { index: 5, ..proof };
    assert_eq!(second.accepts(&node(1), &moved, NOW, &cache), Err(ProofError::Path));
}

#[test]
fn newer_proof_needs_a_head_of_our_root_and_a_path() {
    let first = roster();
    let mut draft = RosterDraft::from_roster(&first);
    draft.admit(node(4), member("four")).unwrap();
    let second = draft.sign(&root(), NOW, DAY).unwrap();
    let cache = HeadCache::new();
    let accepts = |proof: &MembershipProof| first.accepts(&node(4), proof, NOW, &cache);

    let bare = second.proof(&node(4), ProofKind::Bare).unwrap();
    assert_eq!(accepts(&bare), Err(ProofError::HeadMissing));
    let good = second.proof(&node(4), ProofKind::WithHead).unwrap();
    let leaf = second.leaf(&node(4)).unwrap().clone();
    assert_eq!(accepts(&good), Ok(Admitted { leaf, newer: true }));

    let other = Identity::from_seeds(&[3; 32], &[4; 32]).unwrap();
    let foreign = RosterDraft::new(other.public(), settings(), node(4), member("four")).unwrap();
    let mut foreign = foreign.sign(&other, NOW, DAY).unwrap().proof(&node(4), ProofKind::WithHead).unwrap();
    foreign.version = 2;
    assert_eq!(accepts(&foreign), Err(ProofError::OtherNetwork));
}

#[test]
fn revoked_node_stays_out_whatever_it_shows() {
    let first = roster();
    let second = RosterDraft::from_roster(&first).sign(&root(), NOW, DAY).unwrap();
    let mut draft = RosterDraft::from_roster(&first);
    draft.revoke(&node(2)).unwrap();
    let expelled = draft.sign(&root(), NOW, DAY).unwrap();
    let third = RosterDraft::from_roster(&second).sign(&root(), NOW, DAY).unwrap();
    let proof = third.proof(&node(2), ProofKind::WithHead).unwrap();
    assert_eq!(expelled.accepts(&node(2), &proof, NOW, &HeadCache::new()), Err(ProofError::Revoked));
}

#[test]
fn dates_count_with_leeway_for_clocks() {
    let roster = roster();
    let proof = roster.proof(&node(2), ProofKind::WithRoot).unwrap();
    let cache = HeadCache::new();
    let end = NOW.after(DAY);
    for (now, expected) in [
        (NOW.before(CLOCK_SKEW), Ok(())),
        (NOW.before(CLOCK_SKEW + 1), Err(ProofError::NotYetValid)),
        (end.after(CLOCK_SKEW), Ok(())),
        (end.after(CLOCK_SKEW + 1), Err(ProofError::Expired)),
    ] {
        assert_eq!(roster.accepts(&node(2), &proof, now, &cache).map(drop), expected);
        assert_eq!(proof.verify(&node(2), roster.net(), now, &cache).map(drop), expected);
    }
}

#[test]
fn relay_verifies_with_the_network_id_alone() {
    let roster = roster();
    let cache = HeadCache::new();
    let net = roster.net();
    let proof = |kind| roster.proof(&node(2), kind).unwrap();
    assert_eq!(proof(ProofKind::WithRoot).verify(&node(2), net, NOW, &cache).unwrap().name.as_str(), "pi");
    let errors = [
        (ProofKind::Bare, node(2), net, ProofError::HeadMissing),
        (ProofKind::WithHead, node(2), net, ProofError::RootMissing),
        (ProofKind::WithRoot, node(3), net, ProofError::OtherNode),
        (ProofKind::WithRoot, node(2), NetId([0; 32]), ProofError::OtherNetwork),
    ];
    for (kind, node, net, error) in errors {
        assert_eq!(proof(kind).verify(&node, net, NOW, &cache).unwrap_err(), error);
    }
}

#[test]
fn one_flipped_bit_anywhere_in_a_proof_is_refused() {
    let roster = roster();
    let good = roster.proof(&node(2), ProofKind::WithRoot).unwrap().encode();
    // One cache for all, so that a remembered head is no way around.
    let cache = HeadCache::new();
    let verify = |bytes: &[u8]| {
        MembershipProof::parse(bytes)
            .is_ok_and(|proof| proof.verify(&node(2), roster.net(), NOW, &cache).is_ok())
    };
    assert!(verify(&good));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(!verify(&bad), "byte {at}");
    }
}

#[test]
fn head_cache_is_bounded_and_holds_only_verified_heads() {
    let cache = HeadCache::new();
    let mut roster = roster();
    for _ in 0..70 {
        let proof = roster.proof(&node(1), ProofKind::WithRoot).unwrap();
        proof.verify(&node(1), roster.net(), NOW, &cache).unwrap();
        proof.verify(&node(1), roster.net(), NOW, &cache).unwrap();
        roster = RosterDraft::from_roster(&roster).sign(&root(), NOW, DAY).unwrap();
    }
    assert_eq!(cache.len(), 64);
}

#[test]
fn default_pools_are_distinct_and_shared_address_space() {
    let net = root().net_id();
    let pools: BTreeSet<_> = (0..1024).map(|attempt| default_pool(net, attempt).network()).collect();
    assert_eq!(pools.len(), 1024);
    let shared: Prefix = "100.64.0.0/10".parse().unwrap();
    assert!(pools.iter().all(|network| shared.contains(IpAddr::V4(*network))));
    assert_eq!(default_pool(net, 0).prefix_len(), 20);
    assert_eq!(default_pool(net, 0), default_pool(net, 1024));
}

#[test]
fn roster_of_a_thousand_nodes_works() {
    let pool = "10.0.0.0/16".parse().unwrap();
    let settings = RosterSettings { ipv4_pool: pool, ..settings() };
    let mut draft = RosterDraft::new(root().public(), settings, node(0), member("first")).unwrap();
    for i in 1..1000_u16 {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&i.to_be_bytes());
        draft.admit(NodeId(id), member(&format!("node-{i}"))).unwrap();
    }
    let roster = draft.sign(&root(), NOW, DAY).unwrap();
    let leaf = &roster.leaves()[777];
    let proof = roster.proof(&leaf.node_id, ProofKind::WithRoot).unwrap();
    assert!(proof.verify(&leaf.node_id, roster.net(), NOW, &HeadCache::new()).is_ok());
    assert!(proof.encode().len() <= mesh_wire::roster::PROOF_MAX);
}
