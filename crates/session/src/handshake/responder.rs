//! The side that answers.

use std::fmt;
use std::sync::Arc;

use mesh_identity::erased;
use mesh_wire::NodeId;
use mesh_wire::handshake::{Challenge, ESTABLISHED, Hello, RESPONSE, box_header, parse_box};

use super::schedule::{Ends, HandshakeKeys, Transcript, open_claims, opens, seal_claims};
use super::{Fragments, HandshakeError, Local, LocalClaims, Network, Peer};
use crate::session::{Role, Session, Side};

/// CHALLENGE is sent; RESPONSE is awaited. Holds derived keys only.
pub struct AwaitResponse {
    index: u32,
    remote: u32,
    suite: u16,
    keys: HandshakeKeys,
    th2: Transcript,
}

/// An initiator that proved its keys and waits for ESTABLISHED.
pub struct Initiator {
    /// Who it is; whether it may join is the caller's judgement.
    pub peer: Peer,
    index: u32,
    remote: u32,
    suite: u16,
    keys: HandshakeKeys,
    th3: Transcript,
}

impl AwaitResponse {
    /// Returns what opens the parts of RESPONSE and splits our ESTABLISHED.
    #[must_use]
    pub fn fragments(&self) -> Arc<Fragments> {
        Arc::clone(&self.keys.fragments)
    }

    /// Takes a HELLO addressed to `own` and returns the CHALLENGE; `index` is our number for the session, `nonce` is
    /// random. `own` differs from our node id only where the network's root answers under the network's id.
    ///
    /// # Errors
    /// [`HandshakeError`]; nothing is kept.
    pub fn start(
        local: &Local,
        network: &Network,
        own: NodeId,
        hello: &[u8],
        index: u32,
        nonce: [u8; 32],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        if !network.knows_hello(hello, own) {
            return Err(HandshakeError::Mac);
        }
        let parsed = Hello::parse(hello)?;
        // The better of those that both have, by our order: both lists hold AES only where the processor has it.
        let suite = local.aead.suites().iter().copied().find(|suite| parsed.suites.contains(suite));
        let suite = suite.ok_or(HandshakeError::Suite)?;
        erased(|| {
            let (dh, x25519) = local.provider.dh_generate().map_err(|_| HandshakeError::Library)?;
            let dh = dh.agree(&parsed.x25519).map_err(|_| HandshakeError::Exchange)?;
            let (ciphertext, kem) =
                local.provider.kem_encapsulate(&parsed.kem_public).map_err(|_| HandshakeError::Exchange)?;
            let challenge =
                Challenge { sender: index, receiver: parsed.sender, suite, nonce, x25519, ciphertext };
            let mut message = challenge.encode_body();
            let th2 = Transcript::start(network.purpose, network.net).hello(hello).challenge(&message);
            let ends = Ends { role: Role::Responder, local: index, remote: parsed.sender };
            let keys = HandshakeKeys::derive(th2, (kem.as_bytes(), &dh), network, local.aead, &ends);
            message.extend_from_slice(&keys.tag(th2));
            Ok((Self { index, remote: parsed.sender, suite, keys, th2 }, message))
        })
    }

    /// Tells whether a RESPONSE is sealed by who got the CHALLENGE: 6 us, where judging it takes 400.
    #[must_use]
    pub fn authenticates(&self, local: &Local, message: &[u8]) -> bool {
        parse_box(RESPONSE, message).is_ok_and(|index| index == self.index)
            && opens(local.aead, self.keys.box_key(Role::Initiator), message)
    }

    /// Takes a RESPONSE addressed to `own` and verifies the initiator's signature.
    ///
    /// # Errors
    /// [`HandshakeError`]; the state is unchanged and may take another RESPONSE.
    pub fn take(&self, local: &Local, own: NodeId, message: &[u8]) -> Result<Peer, HandshakeError> {
        erased(|| {
            if parse_box(RESPONSE, message)? != self.index {
                return Err(HandshakeError::Index);
            }
            open_claims(
                local.aead,
                Role::Initiator,
                self.keys.box_key(Role::Initiator),
                message,
                (self.th2, own, None),
            )
        })
    }

    /// Goes on with the initiator that [`AwaitResponse::take`] returned for the same `message`.
    #[must_use]
    pub fn proven(self, peer: Peer, message: &[u8]) -> Initiator {
        Initiator {
            peer,
            index: self.index,
            remote: self.remote,
            suite: self.suite,
            th3: self.th2.sealed(message),
            keys: self.keys,
        }
    }
}

impl Initiator {
    /// Returns what acknowledges the parts of RESPONSE and splits our ESTABLISHED.
    #[must_use]
    pub fn fragments(&self) -> Arc<Fragments> {
        Arc::clone(&self.keys.fragments)
    }

    /// Admits the initiator: returns ESTABLISHED and the session, which may send once that is on its way.
    ///
    /// # Errors
    /// [`HandshakeError::Library`] when signing fails.
    pub fn establish(
        self,
        local: &Local,
        claims: &LocalClaims,
    ) -> Result<(Peer, Session, Vec<u8>), HandshakeError> {
        erased(|| {
            let message = seal_claims(
                local,
                Role::Responder,
                box_header(ESTABLISHED, self.remote),
                self.keys.box_key(Role::Responder),
                (self.th3, self.peer.id),
                claims,
            )?;
            let keys = self.keys.session(self.th3.sealed(&message), Role::Responder);
            let own = Side { index: self.index, lanes: claims.params.lanes };
            let remote = Side { index: self.remote, lanes: self.peer.params.lanes };
            Ok((
                self.peer,
                Session::new(keys, Role::Responder, (local.aead, self.suite), own, remote),
                message,
            ))
        })
    }
}

impl fmt::Debug for AwaitResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitResponse").field("index", &self.index).finish_non_exhaustive()
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("peer", &self.peer.id).finish_non_exhaustive()
    }
}
