use proptest::prelude::*;

use super::*;
use mesh_wire::handshake::SUITE;

use crate::aead::AeadKind;

pub(super) fn pair(aead: AeadKind) -> (Session, Session) {
    let key = |byte| Secret::copy(&[byte; 32]);
    let chain = || Secret::copy(&[3; 64]);
    let left = SessionKeys { id: [9; 16], send: key(1), receive: key(2), chain: chain() };
    let right = SessionKeys { id: [9; 16], send: key(2), receive: key(1), chain: chain() };
    let (a, b) = (Side { index: 10, lanes: 2 }, Side { index: 20, lanes: 3 });
    (
        Session::new(left, Role::Initiator, (aead.provider(), SUITE), a, b),
        Session::new(right, Role::Responder, (aead.provider(), SUITE), b, a),
    )
}

fn seal(session: &mut Session, lane: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; Session::frame_len(payload.len())];
    frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
    session.seal(lane, PayloadKind::Ip, &mut frame).unwrap();
    frame
}

#[test]
fn sealed_frame_is_opened_by_the_peer_with_either_backend() {
    for (sealing, opening) in
        [(AeadKind::AwsLc, AeadKind::ChaCha20Poly1305), (AeadKind::ChaCha20Poly1305, AeadKind::AwsLc)]
    {
        let (mut a, _) = pair(sealing);
        let (_, mut b) = pair(opening);
        let mut frame = seal(&mut a, 2, b"hello");
        let opened = b.open(&mut frame).unwrap();
        assert_eq!(opened.kind, PayloadKind::Ip);
        assert_eq!(opened.payload, b"hello");
    }
}

#[test]
fn replayed_frame_is_refused() {
    let (mut a, mut b) = pair(AeadKind::AwsLc);
    let frame = seal(&mut a, 0, b"once");
    assert!(b.open(&mut frame.clone()).is_ok());
    assert_eq!(b.open(&mut frame.clone()).unwrap_err(), OpenError::Replayed);
}

#[test]
fn lanes_have_counters_of_their_own() {
    let (mut a, mut b) = pair(AeadKind::AwsLc);
    for lane in 0..3 {
        let mut frame = seal(&mut a, lane, b"x");
        assert_eq!(FrameHeader::parse(&frame).unwrap().counter, 0);
        assert!(b.open(&mut frame).is_ok());
    }
    assert_eq!(a.seal(3, PayloadKind::Ip, &mut [0; 64]), Err(SealError::Lane(3)));
    let mut foreign = seal(&mut b, 1, b"x");
    foreign[1] = 9;
    assert_eq!(a.open(&mut foreign).unwrap_err(), OpenError::Lane);
}

#[test]
fn frame_of_another_session_is_refused() {
    let (mut a, mut b) = pair(AeadKind::AwsLc);
    let mut frame = seal(&mut a, 0, b"x");
    frame[3] ^= 1;
    assert_eq!(b.open(&mut frame).unwrap_err(), OpenError::Index);
    let mut own = seal(&mut a, 0, b"x");
    assert_eq!(a.open(&mut own).unwrap_err(), OpenError::Index);
}

#[test]
fn worn_out_key_seals_and_opens_nothing() {
    let (mut a, mut b) = pair(AeadKind::AwsLc);
    let mut frame = seal(&mut a, 0, b"x");
    a.sealed = MAX_FRAMES;
    assert_eq!(a.seal(0, PayloadKind::Ip, &mut [0; 64]), Err(SealError::Exhausted));
    b.forgeries = MAX_FORGERIES;
    assert_eq!(b.open(&mut frame).unwrap_err(), OpenError::Spent);
}

#[test]
fn forgery_does_not_move_the_window() {
    let (mut a, mut b) = pair(AeadKind::AwsLc);
    let genuine = seal(&mut a, 0, b"x");
    let mut forged = genuine.clone();
    forged[7..15].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(b.open(&mut forged).unwrap_err(), OpenError::Forged);
    assert!(b.open(&mut genuine.clone()).is_ok());
}

proptest! {
    #[test]
    fn any_flipped_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut a, mut b) = pair(AeadKind::AwsLc);
        let mut frame = seal(&mut a, 0, &payload);
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        prop_assert!(b.open(&mut frame).is_err());
    }

    #[test]
    fn noise_is_refused(mut noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_, mut b) = pair(AeadKind::AwsLc);
        prop_assert!(b.open(&mut noise).is_err());
    }
}
