//! What an insider tries: it knows the network secret, so its messages authenticate as far as that goes, and it can
//! answer in a member's place. It lacks the member's keys, or one of the two halves of them, or a place in the roster.

use std::collections::BTreeSet;

use mesh_identity::{Identity, Label, ProofKind, RosterDraft, UnixSeconds};
use mesh_node::DropReason;
use mesh_wire::NodeId;
use mesh_wire::handshake::{Claims, Params};
use mesh_wire::roster::{Head, ProofParts};

use super::insider::{Insider, Leading, sign};
use super::world::{CAST, EARLY, EXPIRED, Mail, UNIX, World, YEAR, id, identity, member, params, settings};

/// Bytes of the ML-DSA-87 half, which comes first.
const MLDSA: usize = 4627;

/// The insider, who leads a handshake with 1 under the name of 0 and was challenged.
fn led(world: &mut World, index: u32) -> Insider {
    let (leading, hello) = Leading::start(id(1), index);
    world.deliver(&Mail { from: 0, to: 1, bytes: hello });
    leading.challenged(&world.only().bytes)
}

/// The insider, who answers 0 in the place of 1, with the RESPONSE that this brought.
fn answered(world: &mut World) -> (Insider, Vec<u8>) {
    let hello = world.stage(0);
    let (insider, challenge) = Insider::answer(&hello.bytes, 77);
    world.deliver(&Mail { from: 1, to: 0, bytes: challenge });
    (insider, world.only().bytes)
}

fn proof(at: usize, kind: ProofKind) -> Vec<u8> {
    CAST.roster.proof(&id(at), kind).unwrap().encode()
}

fn claims(keys: &[u8], proof: &[u8], params: Params, signature: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Claims { identity: keys, proof, params, signature }.encode(&mut out);
    out
}

/// Every way to lack one or both halves of a signature, with what `own` and `old` signed at hand.
fn spoiled(good: &[u8], own: &[u8], old: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let join = |mldsa: &[u8], ed25519: &[u8]| [&mldsa[..MLDSA], &ed25519[ed25519.len() - 64..]].concat();
    let (zero, ones) = (vec![0; good.len()], vec![0xff; good.len()]);
    let changed = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    vec![
        ("none", zero.clone()),
        ("ones", ones.clone()),
        ("no ML-DSA", join(&zero, good)),
        ("no Ed25519", join(good, &zero)),
        ("ones for ML-DSA", join(&ones, good)),
        ("ones for Ed25519", join(good, &ones)),
        ("ML-DSA of its own", join(own, good)),
        ("Ed25519 of its own", join(good, own)),
        ("both of its own", own.to_vec()),
        ("ML-DSA of another run", join(old, good)),
        ("Ed25519 of another run", join(good, old)),
        ("both of another run", old.to_vec()),
        ("first byte of ML-DSA", changed(0)),
        ("last byte of ML-DSA", changed(MLDSA - 1)),
        ("first byte of Ed25519", changed(MLDSA)),
        ("last byte of Ed25519", changed(good.len() - 1)),
        ("Ed25519 alone", good[MLDSA..].to_vec()),
        ("ML-DSA alone", good[..MLDSA].to_vec()),
        ("halves turned round", [&good[MLDSA..], &good[..MLDSA]].concat()),
        ("one byte less", good[..good.len() - 1].to_vec()),
        ("one byte more", [good, &[0]].concat()),
    ]
}

#[test]
fn response_needs_both_halves_of_the_signature() {
    let mut world = World::new(1);
    let (victim, stranger) = (&CAST.identities[0], identity(50));
    let (proof, params) = (proof(0, ProofKind::WithHead), params());
    let old_input = led(&mut world, 1).initiator_input(id(0), id(1), &proof, &params);
    let insider = led(&mut world, 2);
    let input = insider.initiator_input(id(0), id(1), &proof, &params);
    let good = sign(victim, Label::Initiator, &input);
    let own = sign(&stranger, Label::Initiator, &input);
    let old = sign(victim, Label::Initiator, &old_input);
    let mut tries = spoiled(&good, &own, &old);
    tries.push(("a responder's", sign(victim, Label::Responder, &input)));
    let keys = &victim.public().as_bytes()[..];
    for (what, signature) in &tries {
        let bytes = insider.response(&claims(keys, &proof, params, signature));
        world.deliver(&Mail { from: 0, to: 1, bytes });
        assert!(world.wire.is_empty(), "{what}: the responder said its name");
        world.stands_alone(1, what);
    }
    // Keys that are half of the victim and half its own: another identity, hence another node.
    for keys in mixed(keys, &stranger) {
        let bytes = insider.response(&claims(&keys, &proof, params, &good));
        world.deliver(&Mail { from: 0, to: 1, bytes });
        assert!(world.wire.is_empty(), "mixed keys: the responder said its name");
        world.stands_alone(1, "mixed keys");
    }
    assert_eq!(world.drops(1, DropReason::RateLimited), 0, "limits of rate hid the checks");
    // With everything right it is taken: what was wrong was the signature alone.
    let bytes = insider.response(&claims(keys, &proof, params, &good));
    world.deliver(&Mail { from: 0, to: 1, bytes });
    assert!(world.session(1, 0).is_some(), "a whole signature was refused as well");
    world.drain();
    world.recovers(0, 1, "the true node");
}

#[test]
fn established_needs_both_halves_of_the_signature() {
    let mut world = World::new(2);
    let (victim, stranger) = (&CAST.identities[1], identity(50));
    let (proof, params) = (proof(1, ProofKind::Bare), params());
    let (insider, response) = answered(&mut world);
    let input = insider.responder_input(&response, id(1), id(0), &proof, &params);
    let good = sign(victim, Label::Responder, &input);
    let own = sign(&stranger, Label::Responder, &input);
    // Over the transcript before RESPONSE: what the victim may have signed for somebody else.
    let early = insider.initiator_input(id(1), id(0), &proof, &params);
    let mut tries = spoiled(&good, &own, &sign(victim, Label::Responder, &early));
    tries.push(("an initiator's", sign(victim, Label::Initiator, &input)));
    let keys = &victim.public().as_bytes()[..];
    for (what, signature) in &tries {
        let bytes = insider.established(&claims(keys, &proof, params, signature));
        world.deliver(&Mail { from: 1, to: 0, bytes });
        assert!(world.wire.is_empty(), "{what}: the initiator sent under keys of the insider");
        world.stands_alone(0, what);
    }
    let mut others = mixed(keys, &stranger);
    others.push(stranger.public().as_bytes().to_vec());
    for keys in others {
        let bytes = insider.established(&claims(&keys, &proof, params, &own));
        world.deliver(&Mail { from: 1, to: 0, bytes });
        assert!(world.wire.is_empty(), "other keys: the initiator sent under keys of the insider");
        world.stands_alone(0, "other keys");
    }
    let bytes = insider.established(&claims(keys, &proof, params, &good));
    world.deliver(&Mail { from: 1, to: 0, bytes });
    assert!(world.session(0, 1).is_some(), "a whole signature was refused as well");

    // The same without the last step, which the insider cannot take: the true node is reached.
    let mut world = World::new(3);
    let (insider, _) = answered(&mut world);
    let bytes = insider.established(&claims(keys, &proof, params, &own));
    world.deliver(&Mail { from: 1, to: 0, bytes });
    world.stands_alone(0, "own signature");
    world.recovers(0, 1, "after an impostor");
}

fn mixed(keys: &[u8], other: &Identity) -> Vec<Vec<u8>> {
    let (other, at) = (other.public().as_bytes(), keys.len() - 32);
    vec![[&keys[..at], &other[at..]].concat(), [&other[..at], &keys[at..]].concat()]
}

/// What the two sides sign is of their own handshake: claims taken out of one do not open another.
#[test]
fn insider_in_the_middle_cannot_pass_claims_on() {
    let mut world = World::new(4);
    let (towards_0, response) = answered(&mut world);
    let stolen = towards_0.open_response(&response);
    let parsed = Claims::parse(&stolen).unwrap();
    assert_eq!(
        parsed.identity,
        &CAST.identities[0].public().as_bytes()[..],
        "a member who answers learns the name"
    );
    let towards_1 = led(&mut world, 5);
    world.deliver(&Mail { from: 0, to: 1, bytes: towards_1.response(&stolen) });
    assert!(world.wire.is_empty(), "the responder took claims of another handshake");
    world.stands_alone(1, "passed on");
    // Nor do the initiator's own claims come back to it as the answer.
    world.deliver(&Mail { from: 1, to: 0, bytes: towards_0.established(&stolen) });
    assert!(world.wire.is_empty(), "the initiator took its own claims");
    world.stands_alone(0, "reflected");
    world.recovers(0, 1, "after a man in the middle");
}

/// Every proof that somebody without a place in the roster can show.
fn papers(stranger: &Identity) -> Vec<(&'static str, Vec<u8>)> {
    let own_root = identity(60);
    let node = stranger.node_id();
    let mut draft =
        RosterDraft::new(own_root.public(), settings(own_root.net_id()), node, member(0)).unwrap();
    let mut editions = Vec::new();
    for _ in 0..3 {
        let roster = draft.sign(&own_root, UnixSeconds(UNIX), YEAR).unwrap();
        draft = RosterDraft::from_roster(&roster);
        editions.push(roster);
    }
    let of = |edition: usize, kind| editions[edition].proof(&node, kind).unwrap().encode();
    let mut papers = vec![
        ("none", Vec::new()),
        ("noise", vec![0xa5; 600]),
        ("of another member", proof(0, ProofKind::WithHead)),
        ("own root, same version", of(0, ProofKind::Bare)),
        ("own root, same version, with head", of(0, ProofKind::WithHead)),
        ("own root, newer", of(2, ProofKind::Bare)),
        ("own root, newer, with head", of(2, ProofKind::WithHead)),
        ("own root, newer, with root", of(2, ProofKind::WithRoot)),
    ];

    // A leaf of its own in the place of a member's, below heads of both roots and with signatures of either.
    let (bare, theirs) = (of(2, ProofKind::Bare), proof(0, ProofKind::WithRoot));
    let (own, true_parts) = (ProofParts::parse(&bare).unwrap(), ProofParts::parse(&theirs).unwrap());
    let (true_head, true_signature) = true_parts.head.unwrap();
    let forged_head = |net, version| {
        let own_head = of(2, ProofKind::WithHead);
        let head = Head::parse(ProofParts::parse(&own_head).unwrap().head.unwrap().0).unwrap();
        Head { net, version, ..head }.encode()
    };
    let by_own_root = |head: &[u8]| <[u8; 4691]>::try_from(sign(&own_root, Label::RosterHead, head)).unwrap();
    for (what, version) in [("true head, own leaf", 1), ("true head, own leaf, newer", 3)] {
        let parts =
            ProofParts { head: Some((true_head, true_signature)), root: None, version, ..own.clone() };
        papers.push((what, parts.encode()));
    }
    let head = forged_head(CAST.net, 3);
    let signature = by_own_root(&head);
    for (what, root, signature) in [
        ("head of this network, signed by its own root", true_parts.root, &signature),
        ("the same without a root", None, &signature),
        ("the same with its own root", Some(own_root.public().as_bytes()), &signature),
        ("head of this network, signature of the true one", true_parts.root, true_signature),
    ] {
        let parts = ProofParts { head: Some((&head, signature)), root, version: 3, ..own.clone() };
        papers.push((what, parts.encode()));
    }
    for half in [0..MLDSA, MLDSA..MLDSA + 64] {
        // What remains is a good half of nothing: the root's keys are not the insider's.
        let mut signature = *true_signature;
        signature[half].fill(0);
        let parts =
            ProofParts { head: Some((&head, &signature)), root: true_parts.root, version: 3, ..own.clone() };
        papers.push(("half a signature of the root", parts.encode()));
    }
    papers
}

#[test]
fn own_root_admits_nobody() {
    let stranger = identity(50);
    let name = stranger.node_id();
    let keys = &stranger.public().as_bytes()[..];
    for (number, (what, proof)) in papers(&stranger).into_iter().enumerate() {
        let mut world = World::new(u64::try_from(number).unwrap());
        let insider = led(&mut world, 6);
        let input = insider.initiator_input(name, id(1), &proof, &params());
        let signature = sign(&stranger, Label::Initiator, &input);
        let bytes = insider.response(&claims(keys, &proof, params(), &signature));
        world.deliver(&Mail { from: 0, to: 1, bytes });
        assert!(world.wire.is_empty(), "{what}: the responder said its name");
        world.stands_alone(1, what);
        world.recovers(0, 1, what);

        let mut world = World::new(u64::try_from(number).unwrap());
        let (insider, response) = answered(&mut world);
        let input = insider.responder_input(&response, name, id(0), &proof, &params());
        let signature = sign(&stranger, Label::Responder, &input);
        let bytes = insider.established(&claims(keys, &proof, params(), &signature));
        world.deliver(&Mail { from: 1, to: 0, bytes });
        assert!(world.wire.is_empty(), "{what}: the initiator sent under keys of the insider");
        world.stands_alone(0, what);
        world.recovers(0, 1, what);
    }
}

/// The same papers, under the stranger's true name: the relay says who it is, and it is nobody.
#[test]
fn stranger_under_its_own_name_is_nobody() {
    let stranger = identity(50);
    let name = stranger.node_id();
    let keys = &stranger.public().as_bytes()[..];
    for (number, (what, proof)) in papers(&stranger).into_iter().enumerate() {
        let mut world = World::new(u64::try_from(number).unwrap());
        let (leading, hello) = Leading::start(id(1), 7);
        let challenge = world.deliver_as(name, 1, &hello);
        let insider = leading.challenged(&challenge[0]);
        let input = insider.initiator_input(name, id(1), &proof, &params());
        let signature = sign(&stranger, Label::Initiator, &input);
        let response = insider.response(&claims(keys, &proof, params(), &signature));
        let answers = world.deliver_as(name, 1, &response);
        assert!(answers.is_empty(), "{what}: the responder said its name");
        world.stands_alone(1, what);
        assert_eq!(world.drops(1, DropReason::NotMember), 1, "{what}: refused for another reason");
        world.recovers(0, 1, what);
    }
}

/// True nodes with true keys whose time is over, or has not come.
#[test]
fn memberships_count_in_their_time_only() {
    for other in [EXPIRED, EARLY] {
        let mut world = World::new(5);
        // It leads: the responder judges its proof before it says who it is.
        let response = world.stage_between(other, 1, 2);
        world.deliver(&response);
        assert!(world.wire.is_empty(), "{other}: the responder said its name");
        world.stands_alone(1, "not in its time");
        // It answers, and takes no notice of its own dates.
        for kind in [ProofKind::Bare, ProofKind::WithHead, ProofKind::WithRoot] {
            let mut world = World::new(6);
            let hello = world.stage_between(1, other, 0);
            let (insider, challenge) = Insider::answer(&hello.bytes, 8);
            world.deliver(&Mail { from: other, to: 1, bytes: challenge });
            let response = world.only().bytes;
            let proof = proof(other, kind);
            let input = insider.responder_input(&response, id(other), id(1), &proof, &params());
            let signature = sign(&CAST.identities[other], Label::Responder, &input);
            let keys = &CAST.identities[other].public().as_bytes()[..];
            let bytes = insider.established(&claims(keys, &proof, params(), &signature));
            world.deliver(&Mail { from: other, to: 1, bytes });
            assert!(world.wire.is_empty(), "{other}: the initiator sent to somebody whose time it is not");
            world.stands_alone(1, "not in its time");
            assert_eq!(world.drops(1, DropReason::NotMember), 1, "refused for another reason");
        }
    }
}

/// Taken out of the roster: the keys are true, the old proof was true, the newer roster has nobody of that name.
#[test]
fn former_members_stay_outside() {
    let mut world = World::new(7);
    let newer = {
        let mut draft = RosterDraft::from_roster(&CAST.roster);
        draft.remove(&id(0));
        draft.sign(&CAST.root, UnixSeconds(UNIX), YEAR).unwrap()
    };
    world.recovers(0, 1, "while it is a member");
    world.set_roster(1, newer);
    assert_eq!(world.session(1, 0), None, "the session of a former member stands");
    let before = world.established(1);
    world.drain();
    world.restart(0);
    let response = world.stage(2);
    world.deliver(&response);
    assert!(world.wire.is_empty(), "the responder said its name");
    assert_eq!((world.established(1), world.session(1, 0)), (before, None));
    world.recovers(1, 2, "the others");
}

/// A name that no proof can be for, so that the lists above stay honest about who the stranger is.
#[test]
fn stranger_is_no_member() {
    let known: BTreeSet<NodeId> = CAST.roster.leaves().iter().map(|leaf| leaf.node_id).collect();
    assert!(!known.contains(&identity(50).node_id()));
    assert!(identity(60).net_id() != CAST.net);
}
