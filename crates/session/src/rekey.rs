//! The ratchet: fresh X25519 and ML-KEM-1024 keys mixed into a session's chain, without signatures.
//!
//! ```text
//! leader: Session::lead_rekey   ── offer ──►  follower: Session::follow_rekey → the next session
//!         Session::finish_rekey ◄─ answer ──            (sends under it once the leader's first frame came)
//!         → the next session, which may send at once
//! ck' = HKDF-Extract(salt = ck, ikm = mlkem_ss || x25519_ss || SHA-512(offer || answer))
//! ```
//! Offer and answer travel in sealed frames of the session, which authenticates them. The chain key is used once and
//! wiped: who learns today's keys cannot go back. A passive listener who learnt them is shut out by the fresh exchange.

use std::fmt;

use mesh_identity::erased;
use mesh_wire::WireError;
use mesh_wire::control::{RekeyAnswer, RekeyOffer};

use crate::dh::EphemeralSecret;
use crate::kdf;
use crate::pq::{KemSecret, PqProvider};
use crate::session::{Role, Session, SessionKeys, Side};

/// An offer that was made and waits for its answer.
pub struct Rekey {
    index: u32,
    dh: EphemeralSecret,
    kem: KemSecret,
    offer: Vec<u8>,
}

/// Why a rekey does not go on. The session is unchanged and may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// The bytes are no offer or answer.
    #[error("rekey message is malformed")]
    Malformed(#[source] WireError),
    /// The session has been rekeyed already.
    #[error("session was rekeyed before")]
    Spent,
    /// The public key or ciphertext in it is invalid.
    #[error("key exchange failed")]
    Exchange,
    /// The local library failed, for example for want of randomness.
    #[error("cryptographic library failed")]
    Library,
}

impl Session {
    /// Makes an offer of fresh keys; `index` is our number for the next session.
    ///
    /// # Errors
    /// [`RekeyError::Spent`] when this session was rekeyed already, or [`RekeyError::Library`].
    pub fn lead_rekey(&self, provider: &dyn PqProvider, index: u32) -> Result<Rekey, RekeyError> {
        erased(|| {
            if self.chain.is_none() {
                return Err(RekeyError::Spent);
            }
            let (dh, x25519) = provider.dh_generate().map_err(|_| RekeyError::Library)?;
            let (kem, kem_public) = provider.kem_generate().map_err(|_| RekeyError::Library)?;
            let offer = RekeyOffer { index, x25519, kem_public }.encode();
            Ok(Rekey { index, dh, kem, offer })
        })
    }

    /// Takes the peer's offer and returns the next session with the answer; `index` is our number for it. The next
    /// session must not send before a frame of the peer arrived under it.
    ///
    /// # Errors
    /// [`RekeyError`]; the session is unchanged.
    pub fn follow_rekey(
        &mut self,
        provider: &dyn PqProvider,
        offer: &[u8],
        index: u32,
    ) -> Result<(Self, Vec<u8>), RekeyError> {
        erased(|| {
            let parsed = RekeyOffer::parse(offer).map_err(RekeyError::Malformed)?;
            if self.chain.is_none() {
                return Err(RekeyError::Spent);
            }
            let (dh, x25519) = provider.dh_generate().map_err(|_| RekeyError::Library)?;
            let dh = dh.agree(&parsed.x25519).map_err(|_| RekeyError::Exchange)?;
            let (ciphertext, kem) =
                provider.kem_encapsulate(&parsed.kem_public).map_err(|_| RekeyError::Exchange)?;
            let answer = RekeyAnswer { index, x25519, ciphertext }.encode();
            let next = self.next(index, parsed.index, &[kem.as_bytes(), &dh[..]], &[offer, &answer])?;
            Ok((next, answer))
        })
    }

    /// Takes the answer to our offer and returns the next session.
    ///
    /// # Errors
    /// [`RekeyError`]; the session is unchanged and may take another answer.
    pub fn finish_rekey(
        &mut self,
        provider: &dyn PqProvider,
        rekey: &Rekey,
        answer: &[u8],
    ) -> Result<Self, RekeyError> {
        erased(|| {
            let parsed = RekeyAnswer::parse(answer).map_err(RekeyError::Malformed)?;
            let dh = rekey.dh.agree(&parsed.x25519).map_err(|_| RekeyError::Exchange)?;
            let kem =
                provider.kem_decapsulate(&rekey.kem, &parsed.ciphertext).map_err(|_| RekeyError::Exchange)?;
            self.next(rekey.index, parsed.index, &[kem.as_bytes(), &dh[..]], &[&rekey.offer, answer])
        })
    }

    /// Mixes the TLS exporter of a QUIC connection between the two ends into the keys and returns the session that
    /// follows; no message is needed. `local` and `remote` are the two sides' numbers for it, as each announced them in
    /// its parameters.
    ///
    /// # Errors
    /// [`RekeyError::Spent`] when this session was followed by another one already.
    pub fn mix(&mut self, exporter: &[u8; 64], local: u32, remote: u32) -> Result<Self, RekeyError> {
        erased(|| {
            let (initiator, responder) = match self.role {
                Role::Initiator => (local, remote),
                Role::Responder => (remote, local),
            };
            let messages: [&[u8]; 4] = [MIX, &self.id(), &initiator.to_le_bytes(), &responder.to_le_bytes()];
            self.next(local, remote, &[exporter], &messages)
        })
    }

    /// Moves the chain on. The old chain key is wiped here.
    fn next(
        &mut self,
        local: u32,
        remote: u32,
        secrets: &[&[u8]],
        messages: &[&[u8]],
    ) -> Result<Self, RekeyError> {
        let chain = self.chain.take().ok_or(RekeyError::Spent)?;
        let transcript = kdf::sha512(messages);
        let head = kdf::extract(&chain[..], &[secrets, &[&transcript]].concat());
        let keys = SessionKeys::derive(&head, self.role);
        let local = Side { index: local, ..self.local };
        let remote = Side { index: remote, ..self.remote };
        Ok(Self::new(keys, self.role, (self.aead, self.suite), local, remote))
    }
}

impl Rekey {
    /// Returns the offer's bytes.
    #[must_use]
    pub fn offer(&self) -> &[u8] {
        &self.offer
    }

    /// Returns our number for the next session.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }
}

impl fmt::Debug for Rekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rekey").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What the hash of a mix begins with; an offer has another length.
const MIX: &[u8] = b"mesh/1 mix";

#[cfg(test)]
mod tests {
    use mesh_wire::frame::{PAYLOAD_OFFSET, PayloadKind};

    use super::*;
    use mesh_wire::handshake::SUITE;

    use crate::aead::AeadKind;
    use crate::pq::ProviderKind;

    fn pair() -> (Session, Session) {
        let head = || kdf::extract(b"salt", &[b"secret"]);
        let (a, b) = (Side { index: 1, lanes: 2 }, Side { index: 2, lanes: 2 });
        let session = |role, own, other| {
            Session::new(
                SessionKeys::derive(&head(), role),
                role,
                (AeadKind::AwsLc.provider(), SUITE),
                own,
                other,
            )
        };
        (session(Role::Initiator, a, b), session(Role::Responder, b, a))
    }

    fn carries(from: &mut Session, to: &mut Session) -> bool {
        let mut frame = vec![0; Session::frame_len(4)];
        frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(b"ping");
        from.seal(0, PayloadKind::Control, &mut frame).unwrap();
        to.open(&mut frame).is_ok_and(|opened| opened.payload == b"ping")
    }

    #[test]
    fn keys_change_and_agree_over_generations_and_providers() {
        let (mut a, mut b) = pair();
        for generation in 0..6u32 {
            let (one, two) = (ProviderKind::AwsLc.provider(), ProviderKind::Pqcrypto.provider());
            let (leader, follower) = if generation % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let rekey = leader.lead_rekey(one, 100 + generation).unwrap();
            let (mut followed, answer) = follower.follow_rekey(two, rekey.offer(), 200 + generation).unwrap();
            let mut led = leader.finish_rekey(one, &rekey, &answer).unwrap();
            assert_eq!(led.id(), followed.id());
            assert_ne!(led.id(), leader.id());
            assert_eq!((led.local_index(), followed.local_index()), (100 + generation, 200 + generation));
            assert!(carries(&mut led, &mut followed) && carries(&mut followed, &mut led));
            assert!(!carries(&mut a, &mut followed));
            assert!(carries(&mut a, &mut b), "the previous keys receive until they are dropped");
            (a, b) = if generation % 2 == 0 { (led, followed) } else { (followed, led) };
        }
    }

    #[test]
    fn chain_key_is_used_once() {
        let provider = ProviderKind::AwsLc.provider();
        let (mut a, mut b) = pair();
        let rekey = a.lead_rekey(provider, 5).unwrap();
        let (_, answer) = b.follow_rekey(provider, rekey.offer(), 6).unwrap();
        assert_eq!(b.follow_rekey(provider, rekey.offer(), 7).unwrap_err(), RekeyError::Spent);
        a.finish_rekey(provider, &rekey, &answer).unwrap();
        assert_eq!(a.finish_rekey(provider, &rekey, &answer).unwrap_err(), RekeyError::Spent);
        assert_eq!(a.lead_rekey(provider, 8).unwrap_err(), RekeyError::Spent);
    }

    #[test]
    fn other_answer_gives_other_keys() {
        let provider = ProviderKind::AwsLc.provider();
        let (mut a, mut b) = pair();
        let rekey = a.lead_rekey(provider, 5).unwrap();
        let (mut followed, mut answer) = b.follow_rekey(provider, rekey.offer(), 6).unwrap();
        answer[0] ^= 1;
        let mut led = a.finish_rekey(provider, &rekey, &answer).unwrap();
        assert_ne!(led.id(), followed.id());
        assert!(!carries(&mut led, &mut followed));
    }

    #[test]
    fn mix_agrees_and_depends_on_exporter_and_numbers() {
        let ids = [([1; 64], 5, 6), ([2; 64], 5, 6), ([1; 64], 6, 5), ([1; 64], 5, 7)].map(
            |(exporter, a_index, b_index)| {
                let (mut a, mut b) = pair();
                let mut left = a.mix(&exporter, a_index, b_index).unwrap();
                let mut right = b.mix(&exporter, b_index, a_index).unwrap();
                assert_eq!(left.id(), right.id());
                assert_eq!((left.local_index(), right.local_index()), (a_index, b_index));
                assert!(carries(&mut left, &mut right) && carries(&mut right, &mut left));
                assert!(!carries(&mut a, &mut right));
                assert!(carries(&mut a, &mut b), "the previous keys receive until they are dropped");
                assert_eq!(a.mix(&exporter, 1, 2).unwrap_err(), RekeyError::Spent);
                left.id()
            },
        );
        assert!(ids.iter().enumerate().all(|(at, id)| !ids[at + 1..].contains(id)));
    }

    #[test]
    fn malformed_messages_change_nothing() {
        let provider = ProviderKind::AwsLc.provider();
        let (mut a, mut b) = pair();
        let rekey = a.lead_rekey(provider, 5).unwrap();
        assert!(matches!(b.follow_rekey(provider, b"", 6), Err(RekeyError::Malformed(_))));
        let mut zero = rekey.offer().to_vec();
        zero[4..36].fill(0);
        assert_eq!(b.follow_rekey(provider, &zero, 6).unwrap_err(), RekeyError::Exchange);
        let mut overflow = rekey.offer().to_vec();
        overflow[36..].fill(0xff);
        assert_eq!(b.follow_rekey(provider, &overflow, 6).unwrap_err(), RekeyError::Exchange);
        assert!(matches!(a.finish_rekey(provider, &rekey, b"x"), Err(RekeyError::Malformed(_))));
        let (_, answer) = b.follow_rekey(provider, rekey.offer(), 6).unwrap();
        assert!(a.finish_rekey(provider, &rekey, &answer).is_ok());
    }
}
