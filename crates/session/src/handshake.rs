//! SIGMA-R in four messages: HELLO, CHALLENGE, RESPONSE, ESTABLISHED (`docs/protocol.md`, "Handshake").
//!
//! ```text
//! initiator: AwaitChallenge::start ── HELLO ─────►  responder: AwaitResponse::start
//!            AwaitChallenge::take  ◄─ CHALLENGE ──
//!            AwaitEstablished      ── RESPONSE ──►             AwaitResponse::take → Initiator, judged by the caller
//!            AwaitEstablished::take ◄ ESTABLISHED             Initiator::establish → Session
//! ```
//! Each state is left by a message that proves itself, once; any other message leaves it as it was, so the caller
//! keeps the state until its deadline. Membership is the caller's judgement: this module proves only who holds which keys.

mod cookie;
mod fragment;
mod initiator;
mod responder;
mod schedule;

use std::fmt;
use std::sync::{Arc, OnceLock};

use mesh_identity::{Identity, PublicIdentity};
use mesh_wire::handshake::{HELLO_BODY, HELLO_LEN, Params};
use mesh_wire::{NetId, NodeId, WireError};
use zeroize::Zeroizing;

pub use self::cookie::{COOKIE_LIFETIME, CookieJar, with_cookie};
pub use self::fragment::{Assembly, FragmentError, Fragments};
pub use self::initiator::{AwaitChallenge, AwaitEstablished};
pub use self::responder::{AwaitResponse, Initiator};
use crate::aead::AeadProvider;
use crate::kdf;
use crate::pq::PqProvider;
use crate::secret::Secret;
use crate::session::Session;

/// Who this side is and which libraries it computes with.
#[derive(Clone)]
pub struct Local {
    /// The keys it proves.
    pub identity: Arc<Identity>,
    /// ML-KEM-1024 and the signer.
    pub provider: &'static dyn PqProvider,
    /// ChaCha20-Poly1305.
    pub aead: &'static dyn AeadProvider,
}

/// What a handshake is for; the two never mix, because the first hash of the transcript differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A session between two members, keyed by the network secret too.
    Member,
    /// A session between a joining node and the network's root, keyed by the secret of an invitation too.
    Enrol,
}

/// The network a handshake is bound to.
pub struct Network {
    net: NetId,
    psk: Box<Zeroizing<[u8; 32]>>,
    purpose: Purpose,
    /// Keys of HELLOs to the first node that one was checked for, which is this one: what strangers send has to cost
    /// little.
    own: OnceLock<(NodeId, HelloKeys)>,
}

/// Keys that show of a HELLO or a part of one that its sender knows the network's secret.
struct HelloKeys {
    mac1: Secret<64>,
    part: Secret<64>,
}

/// What this side says of itself inside its box.
#[derive(Debug, Clone)]
pub struct LocalClaims {
    /// Proof of membership, empty in an enrolment.
    pub proof: Vec<u8>,
    /// Parameters of the coming session.
    pub params: Params,
}

/// A peer whose signature has been verified; whether it is a member is still to be judged.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its keys.
    pub identity: PublicIdentity,
    /// Its node id, the hash of the keys.
    pub id: NodeId,
    /// Its proof of membership as sent.
    pub proof: Vec<u8>,
    /// Its parameters.
    pub params: Params,
}

/// The initiator's end: a verified responder and the session with it.
#[derive(Debug)]
pub struct Established {
    /// Who answered.
    pub peer: Peer,
    /// The session; it may send at once.
    pub session: Session,
}

/// Why a message was not taken. The state that refused it is unchanged and may go on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Its bytes are not the expected message.
    #[error("handshake message is malformed")]
    Malformed(#[source] WireError),
    /// Its mac1 is not made with this network's secret.
    #[error("HELLO is not keyed by this network")]
    Mac,
    /// No suite in common, or one that was not offered.
    #[error("no suite in common")]
    Suite,
    /// It belongs to another handshake.
    #[error("message belongs to another handshake")]
    Index,
    /// The public key or ciphertext in it is invalid.
    #[error("key exchange failed")]
    Exchange,
    /// The CHALLENGE's key confirmation is wrong.
    #[error("CHALLENGE does not confirm the key")]
    Confirmation,
    /// Its box does not open.
    #[error("message does not authenticate")]
    Box,
    /// It was answered by keys of another node.
    #[error("answered by another node")]
    Identity,
    /// The composite signature is wrong.
    #[error("identity signature is wrong")]
    Signature,
    /// The state took such a message before and has gone on.
    #[error("handshake has gone on already")]
    Spent,
    /// The local library failed, for example for want of randomness.
    #[error("cryptographic library failed")]
    Library,
}

impl Network {
    /// Binds handshakes to a network and the secret that both sides must know.
    #[must_use]
    pub fn new(net: NetId, psk: Zeroizing<[u8; 32]>, purpose: Purpose) -> Self {
        Self { net, psk: Box::new(psk), purpose, own: OnceLock::new() }
    }

    /// Tells whether a HELLO for `responder` is keyed by this network's secret. About 2 us, and silent otherwise.
    #[must_use]
    pub fn knows_hello(&self, hello: &[u8], responder: NodeId) -> bool {
        if hello.len() != HELLO_LEN {
            return false;
        }
        let (body, macs) = hello.split_at(HELLO_BODY);
        let expected = self.with_hello_keys(responder, |keys| kdf::hmac_sha512_16(&keys.mac1[..], &[body]));
        kdf::constant_time_eq(&expected, &macs[..16])
    }

    fn mac1(&self, body: &[u8], responder: NodeId) -> [u8; 16] {
        kdf::hmac_sha512_16(&self.key::<64>(responder, "mesh/1 mac1")[..], &[body])
    }

    /// Uses the keys by which a HELLO to `responder` is checked.
    fn with_hello_keys<T>(&self, responder: NodeId, check: impl FnOnce(&HelloKeys) -> T) -> T {
        let derive = || HelloKeys {
            mac1: self.key(responder, "mesh/1 mac1"),
            part: self.key(responder, "mesh/1 fragment i"),
        };
        let (known, keys) = self.own.get_or_init(|| (responder, derive()));
        if *known == responder { check(keys) } else { check(&derive()) }
    }

    /// Derives a key for messages before there is a handshake's secret.
    fn key<const N: usize>(&self, responder: NodeId, label: &str) -> Secret<N> {
        kdf::extract(&self.psk[..], &[&responder.0]).expand(label)
    }
}

impl From<WireError> for HandshakeError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("id", &self.identity.node_id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("net", &self.net)
            .field("psk", &"[redacted]")
            .field("purpose", &self.purpose)
            .finish()
    }
}

#[cfg(test)]
mod tests;
