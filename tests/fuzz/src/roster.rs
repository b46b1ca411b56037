//! The roster: its file, its parts, proofs from it, and the sealed copy at the relay.

use std::sync::OnceLock;

use mesh_identity::{HeadCache, MembershipProof, ProofKind, Roster, UnixSeconds};
use mesh_wire::limits::ROSTER;
use mesh_wire::roster::{
    Head, LEAF_MAX, Leaf, PROOF_MAX, ProofParts, RosterParts, RosterSettings, SETTINGS_MAX,
};
use meshd::roster_seal;
use meshd::state::Membership;

use crate::input::{Input, assert_cuts_fail, edited};
use crate::world::{UNIX, world};

/// Reads the bytes as each part of a roster; then judges edited genuine rosters, proofs and sealed copies.
pub fn roster(data: &[u8]) {
    parts(data);
    proofs(data);
    verified(data);
    judged(data);
}

fn parts(data: &[u8]) {
    if let Ok(head) = Head::parse(data) {
        assert_eq!(head.encode(), data, "a head has one encoding");
        assert_cuts_fail("head", data, |cut| Head::parse(cut).is_ok());
    }
    if let Ok(settings) = RosterSettings::parse(data) {
        assert_eq!(settings.encode(), data, "settings have one encoding");
        assert!(data.len() <= SETTINGS_MAX, "settings are bounded");
        assert_cuts_fail("settings", data, |cut| RosterSettings::parse(cut).is_ok());
    }
    if let Ok(leaf) = Leaf::parse(data) {
        assert_eq!(leaf.encode(), data, "a leaf has one encoding");
        assert!(data.len() <= LEAF_MAX, "a leaf is bounded");
        assert!(leaf.prefixes.iter().all(|prefix| leaf.owns(prefix.address())));
        assert_cuts_fail("leaf", data, |cut| Leaf::parse(cut).is_ok());
    }
    if let Ok(parts) = RosterParts::parse(data) {
        assert_eq!(parts.encode(), data, "a roster has one encoding");
        assert!(data.len() <= ROSTER, "a roster is bounded");
        assert_cuts_fail("roster", data, |cut| RosterParts::parse(cut).is_ok());
    }
}

fn proofs(data: &[u8]) {
    let world = world();
    if let Ok(parts) = ProofParts::parse(data) {
        assert_eq!(parts.encode(), data, "a proof has one encoding");
        assert!(data.len() <= PROOF_MAX, "a proof is bounded");
        assert_cuts_fail("proof", data, |cut| ProofParts::parse(cut).is_ok());
    }
    let Ok(proof) = MembershipProof::parse(data) else { return };
    assert_eq!(proof.encode(), data, "a proof has one encoding");
    let (node, now) = (proof.node_id(), UnixSeconds(UNIX));
    if let Ok(leaf) = proof.verify(&node, world.root.net_id(), now, &HeadCache::new()) {
        assert_eq!(Some(leaf), genuine_leaf(&proof), "a proof of what the root never signed");
    }
    if let Ok(admitted) = world.roster.accepts(&node, &proof, now, &HeadCache::new()) {
        assert_eq!(Some(&admitted.leaf), world.roster.leaf(&node), "our roster's leaf counts");
        assert!(!admitted.newer);
    }
    // Who has the older edition takes the newer one's word, and nobody else's.
    if let Ok(admitted) = world.older.accepts(&node, &proof, now, &HeadCache::new()) {
        let leaf = if admitted.newer { genuine_leaf(&proof) } else { world.older.leaf(&node) };
        assert_eq!(Some(&admitted.leaf), leaf, "a proof of what the root never signed");
    }
}

fn genuine_leaf(proof: &MembershipProof) -> Option<&'static Leaf> {
    let world = world();
    let roster = [&world.older, &world.roster].into_iter().find(|roster| roster.version() == proof.version());
    roster.and_then(|roster| roster.leaf(&proof.node_id()))
}

/// What verifies was signed by the root: one of the two editions.
fn verified(data: &[u8]) {
    let world = world();
    let Ok(roster) = Roster::verify(data, world.root.net_id(), UnixSeconds(UNIX)) else { return };
    let genuine = [&world.older, &world.roster];
    assert!(
        genuine.iter().any(|genuine| genuine.head_hash() == roster.head_hash()
            && genuine.leaves() == roster.leaves()
            && genuine.settings() == roster.settings()),
        "a roster that the root never signed"
    );
    assert_eq!(roster.encode(), data);
}

fn judged(data: &[u8]) {
    let world = world();
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => {
            let file = edited(world.roster.encode(), world.older.encode(), &mut input);
            verified(&file);
            let genuine = [world.roster.encode(), world.older.encode()].contains(&&file[..]);
            let judged = Roster::verify(&file, world.root.net_id(), UnixSeconds(UNIX));
            assert_eq!(judged.is_ok(), genuine, "an edited roster is judged wrongly");
        }
        1 => {
            let kinds = [ProofKind::Bare, ProofKind::WithHead, ProofKind::WithRoot];
            let node = world.id(input.below(world.members.len()));
            let kind = *input.pick(&kinds);
            let Some(proof) = world.roster.proof(&node, kind) else { return };
            let other = world.older.proof(&world.id(0), kind).map_or_else(Vec::new, |proof| proof.encode());
            proofs(&edited(&proof.encode(), &other, &mut input));
        }
        2 => sealed(&mut input),
        _ => {}
    }
}

fn sealed(input: &mut Input<'_>) {
    static MEMBERSHIP: OnceLock<(Membership, Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (membership, genuine, other) = MEMBERSHIP.get_or_init(|| {
        let (world, membership) = (world(), world().membership());
        let seal = |roster| roster_seal::seal(&membership, roster).expect("there is randomness");
        let (genuine, other) = (seal(&world.roster), seal(&world.older));
        (membership, genuine, other)
    });
    let version = u64::from(input.u8() % 4);
    let blob = edited(genuine, other, input);
    for blob in [&blob[..], input.rest()] {
        let opened = roster_seal::open(membership, version, blob, UNIX);
        let fits = (blob == genuine && version == 2) || (blob == other && version == 1);
        assert_eq!(opened.is_some(), fits, "a sealed roster is judged wrongly");
    }
}
