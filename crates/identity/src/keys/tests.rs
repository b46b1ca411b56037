use super::*;

fn identity() -> Identity {
    Identity::from_seeds(&[1; 32], &[2; 32]).unwrap()
}

#[test]
fn signatures_of_both_implementations_are_accepted() {
    let signature = identity().sign(Label::Initiator, b"hello").unwrap();
    identity().public().verify(Label::Initiator, b"hello", &signature).unwrap();

    let other = identity().with_signer(&Pqcrypto);
    let signature = other.sign(Label::Initiator, b"hello").unwrap();
    identity().public().verify(Label::Initiator, b"hello", &signature).unwrap();
}

#[test]
fn signature_under_another_label_key_or_message_is_refused() {
    let signature = identity().sign(Label::Initiator, b"hello").unwrap();
    let public = identity().public().clone();
    assert!(public.verify(Label::Responder, b"hello", &signature).is_err());
    assert!(public.verify(Label::Initiator, b"hellp", &signature).is_err());
    let other = Identity::generate().unwrap();
    assert!(other.public().verify(Label::Initiator, b"hello", &signature).is_err());
}

#[test]
fn one_half_of_a_signature_is_not_enough() {
    let both = identity().sign(Label::RelayAuth, b"hello").unwrap();
    let same_mldsa = Identity::from_seeds(&[1; 32], &[3; 32]).unwrap();
    let same_ed25519 = Identity::from_seeds(&[3; 32], &[2; 32]).unwrap();
    let bad_ed =
        Signature::join(both.mldsa(), same_mldsa.sign(Label::RelayAuth, b"hello").unwrap().ed25519());
    let bad_mldsa =
        Signature::join(same_ed25519.sign(Label::RelayAuth, b"hello").unwrap().mldsa(), both.ed25519());
    let public = identity().public().clone();
    assert_eq!(public.verify(Label::RelayAuth, b"hello", &bad_ed), Err(VerifyError::Ed25519));
    assert!(matches!(public.verify(Label::RelayAuth, b"hello", &bad_mldsa), Err(VerifyError::MlDsa(_))));
}

#[test]
fn node_and_network_ids_differ_and_follow_from_the_keys() {
    let public = PublicIdentity::parse(identity().public().as_bytes()).unwrap();
    assert_eq!(public, *identity().public());
    assert_eq!(public.node_id(), identity().node_id());
    assert_ne!(public.node_id().0, public.net_id().0);
    assert!(PublicIdentity::parse(&public.as_bytes()[1..]).is_err());
}

#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}", identity());
    assert!(text.contains("[redacted]"));
    assert!(!text.contains("1, 1, 1"));
}

/// A change of these would cut off every node and network there is.
#[test]
fn ids_of_known_seeds_are_fixed() {
    assert_eq!(identity().node_id().to_string(), "u566bh6ngpsyokhkyk2iu3hxwijokwgtlptzhx2gejyfbldd42oa");
    assert_eq!(identity().net_id().to_string(), "rajuzoona7uljqxakfpkbg5iuiew7mj4wkkybtfhyetimxfknk2a");
    let keys = identity().public().as_bytes().to_vec();
    let hash = sha512(&[&b"mesh/1 node-id\x20\x0a\0\0"[..], &keys]);
    assert_eq!(identity().node_id().0, hash[..32]);
}
