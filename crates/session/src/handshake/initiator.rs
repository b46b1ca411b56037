//! The side that speaks first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_identity::erased;
use mesh_wire::handshake::{CHALLENGE_LEN, Challenge, ESTABLISHED, Hello, RESPONSE, box_header, parse_box};
use mesh_wire::{NodeId, limits};

use super::schedule::{Ends, HandshakeKeys, Transcript, open_claims, seal_claims};
use super::{Established, Fragments, HandshakeError, Local, LocalClaims, Network};
use crate::dh::EphemeralSecret;
use crate::kdf;
use crate::pq::KemSecret;
use crate::session::{Role, Session, Side};

/// HELLO is sent; CHALLENGE is awaited.
pub struct AwaitChallenge {
    responder: NodeId,
    index: u32,
    dh: EphemeralSecret,
    kem: KemSecret,
    th1: Transcript,
    /// Set by the CHALLENGE that was taken: a second RESPONSE would be sealed with the same key and nonce.
    spent: AtomicBool,
}

/// RESPONSE is sent; ESTABLISHED is awaited.
pub struct AwaitEstablished {
    responder: NodeId,
    index: u32,
    remote: u32,
    suite: u16,
    lanes: u8,
    keys: HandshakeKeys,
    th3: Transcript,
    /// Set by the ESTABLISHED that was taken: a second session would count from zero under the same keys.
    spent: AtomicBool,
}

impl AwaitChallenge {
    /// Makes a HELLO for `responder`; `index` is our number for the session, `nonce` is random.
    ///
    /// # Errors
    /// [`HandshakeError::Library`] when keys cannot be made.
    pub fn start(
        local: &Local,
        network: &Network,
        responder: NodeId,
        index: u32,
        nonce: [u8; 32],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        erased(|| {
            let (dh, x25519) = local.provider.dh_generate().map_err(|_| HandshakeError::Library)?;
            let (kem, kem_public) = local.provider.kem_generate().map_err(|_| HandshakeError::Library)?;
            let hello =
                Hello { sender: index, suites: local.aead.suites().to_vec(), nonce, x25519, kem_public };
            let mut message = hello.encode_body();
            let mac1 = network.mac1(&message, responder);
            message.extend_from_slice(&mac1);
            message.extend_from_slice(&[0; 16]);
            let th1 = Transcript::start(network.purpose, network.net).hello(&message);
            Ok((Self { responder, index, dh, kem, th1, spent: AtomicBool::new(false) }, message))
        })
    }

    /// Takes a CHALLENGE and returns the RESPONSE. The key confirmation is checked before anything of ours is said.
    ///
    /// # Errors
    /// [`HandshakeError`]; the state is unchanged and may take another CHALLENGE, except after
    /// [`HandshakeError::Library`]. [`HandshakeError::Spent`] when it took one before.
    pub fn take(
        &self,
        local: &Local,
        network: &Network,
        message: &[u8],
        claims: &LocalClaims,
    ) -> Result<(AwaitEstablished, Vec<u8>), HandshakeError> {
        erased(|| {
            let (challenge, tag) = Challenge::parse(message)?;
            debug_assert_eq!(message.len(), CHALLENGE_LEN, "parse accepts one length");
            if challenge.receiver != self.index {
                return Err(HandshakeError::Index);
            }
            if !local.aead.suites().contains(&challenge.suite) {
                return Err(HandshakeError::Suite);
            }
            let dh = self.dh.agree(&challenge.x25519).map_err(|_| HandshakeError::Exchange)?;
            let kem = local
                .provider
                .kem_decapsulate(&self.kem, &challenge.ciphertext)
                .map_err(|_| HandshakeError::Exchange)?;
            let th2 = self.th1.challenge(message);
            let ends = Ends { role: Role::Initiator, local: self.index, remote: challenge.sender };
            let keys = HandshakeKeys::derive(th2, (kem.as_bytes(), &dh), network, local.aead, &ends);
            if !kdf::constant_time_eq(&keys.tag(th2), &tag) {
                return Err(HandshakeError::Confirmation);
            }
            if self.spent.swap(true, Ordering::Relaxed) {
                return Err(HandshakeError::Spent);
            }
            let header = box_header(RESPONSE, challenge.sender);
            let response = seal_claims(
                local,
                Role::Initiator,
                header,
                keys.box_key(Role::Initiator),
                (th2, self.responder),
                claims,
            )?;
            let next = AwaitEstablished {
                responder: self.responder,
                index: self.index,
                remote: challenge.sender,
                suite: challenge.suite,
                lanes: claims.params.lanes,
                th3: th2.sealed(&response),
                keys,
                spent: AtomicBool::new(false),
            };
            Ok((next, response))
        })
    }
}

impl AwaitEstablished {
    /// Returns what splits our RESPONSE and opens the parts of ESTABLISHED.
    #[must_use]
    pub fn fragments(&self) -> Arc<Fragments> {
        Arc::clone(&self.keys.fragments)
    }

    /// Takes ESTABLISHED and returns the session.
    ///
    /// # Errors
    /// [`HandshakeError`]; the state is unchanged and may take another message. [`HandshakeError::Spent`] when it gave
    /// a session before.
    pub fn take(&self, local: &Local, message: &[u8]) -> Result<Established, HandshakeError> {
        erased(|| {
            if parse_box(ESTABLISHED, message)? != self.index {
                return Err(HandshakeError::Index);
            }
            let peer = open_claims(
                local.aead,
                Role::Responder,
                self.keys.box_key(Role::Responder),
                message,
                (self.th3, local.identity.node_id(), Some(self.responder)),
            )?;
            if self.spent.swap(true, Ordering::Relaxed) {
                return Err(HandshakeError::Spent);
            }
            let keys = self.keys.session(self.th3.sealed(message), Role::Initiator);
            let own = Side { index: self.index, lanes: self.lanes };
            let remote = Side { index: self.remote, lanes: peer.params.lanes };
            let aead = (local.aead, self.suite);
            Ok(Established { session: Session::new(keys, Role::Initiator, aead, own, remote), peer })
        })
    }
}
impl fmt::Debug for AwaitChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitChallenge").field("index", &self.index).finish_non_exhaustive()
    }
}

impl fmt::Debug for AwaitEstablished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitEstablished").field("index", &self.index).finish_non_exhaustive()
    }
}

const _: () = assert!(limits::LANES <= 255, "lanes fit their byte");
