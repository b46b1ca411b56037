//! Transcript hashes and the key schedule.

use mesh_identity::{Label, PublicIdentity, Signature};
use mesh_wire::handshake::{BOX_HEADER, CHALLENGE_BODY, Claims, HELLO_BODY, PARAMS_LEN};
use mesh_wire::{NetId, NodeId, limits};
use zeroize::Zeroizing;

use super::fragment::Fragments;
use super::{HandshakeError, Local, LocalClaims, Network, Peer, Purpose};
use std::sync::Arc;

use crate::aead::AeadProvider;
use crate::kdf;
use crate::secret::Secret;
use crate::session::{Role, SessionKeys};

const PROTOCOL: &[u8] = b"mesh/1 SIGMA-R X25519+ML-KEM-1024 ML-DSA-87+Ed25519 ChaCha20Poly1305 SHA512";
const ENROL_PROTOCOL: &[u8] =
    b"mesh/1 enrol SIGMA-R X25519+ML-KEM-1024 ML-DSA-87+Ed25519 ChaCha20Poly1305 SHA512";
/// Each box has a key of its own and is sealed once.
const BOX_NONCE: [u8; 12] = [0; 12];

/// A transcript hash; th1 to th4 are this type at successive messages.
#[derive(Clone, Copy)]
pub(super) struct Transcript([u8; 64]);

impl Transcript {
    pub(super) fn start(purpose: Purpose, net: NetId) -> Self {
        let protocol = match purpose {
            Purpose::Member => PROTOCOL,
            Purpose::Enrol => ENROL_PROTOCOL,
        };
        Self(kdf::sha512(&[protocol, &net.0]))
    }

    /// Adds HELLO without its macs (th1).
    pub(super) fn hello(self, message: &[u8]) -> Self {
        self.add(&message[..HELLO_BODY])
    }

    /// Adds CHALLENGE without its tag (th2).
    pub(super) fn challenge(self, message: &[u8]) -> Self {
        self.add(&message[..CHALLENGE_BODY])
    }

    /// Adds a RESPONSE (th3) or ESTABLISHED (th4), sealed as it was sent.
    pub(super) fn sealed(self, message: &[u8]) -> Self {
        self.add(message)
    }

    fn add(self, message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).expect("handshake messages are below 16 KiB");
        Self(kdf::sha512(&[&self.0, &length.to_le_bytes(), message]))
    }
}

/// The keys of one handshake, known to both sides after CHALLENGE.
pub(super) struct HandshakeKeys {
    initiator_box: Secret<32>,
    responder_box: Secret<32>,
    confirm: Secret<32>,
    master: Secret<64>,
    pub(super) fragments: Arc<Fragments>,
}

/// Who computes a handshake's keys: its side, its own number and the other's.
pub(super) struct Ends {
    pub(super) role: Role,
    pub(super) local: u32,
    pub(super) remote: u32,
}

impl HandshakeKeys {
    pub(super) fn derive(
        th2: Transcript,
        (kem, dh): (&[u8; 32], &[u8; 32]),
        network: &Network,
        aead: &'static dyn AeadProvider,
        ends: &Ends,
    ) -> Self {
        let secret = kdf::extract(&th2.0, &[kem, dh, &network.psk[..]]);
        Self {
            fragments: Arc::new(Fragments::derive(&secret, aead, ends.role, ends.local, ends.remote)),
            initiator_box: secret.expand("i hs"),
            responder_box: secret.expand("r hs"),
            confirm: secret.expand("confirm"),
            master: secret.expand("master"),
        }
    }

    /// Returns the key confirmation at the end of CHALLENGE.
    pub(super) fn tag(&self, th2: Transcript) -> [u8; 16] {
        kdf::hmac_sha512_16(&self.confirm[..], &[&th2.0])
    }

    pub(super) fn box_key(&self, sender: Role) -> &[u8; 32] {
        match sender {
            Role::Initiator => &self.initiator_box,
            Role::Responder => &self.responder_box,
        }
    }

    /// Derives the session's keys as `side` uses them.
    pub(super) fn session(&self, th4: Transcript, side: Role) -> SessionKeys {
        SessionKeys::derive(&kdf::extract(&th4.0, &[&self.master[..]]), side)
    }
}

const fn label(role: Role) -> Label {
    match role {
        Role::Initiator => Label::Initiator,
        Role::Responder => Label::Responder,
    }
}

/// Builds a RESPONSE or ESTABLISHED: signs the claims and seals them.
pub(super) fn seal_claims(
    local: &Local,
    role: Role,
    header: [u8; BOX_HEADER],
    key: &[u8; 32],
    (transcript, peer): (Transcript, NodeId),
    claims: &LocalClaims,
) -> Result<Vec<u8>, HandshakeError> {
    let public = local.identity.public();
    let input =
        signed_bytes(transcript, local.identity.node_id(), peer, &claims.proof, &claims.params.encode());
    let signature = local.identity.sign(label(role), &input).map_err(|_| HandshakeError::Library)?;
    let claims = Claims {
        identity: &public.as_bytes()[..],
        proof: &claims.proof,
        params: claims.params,
        signature: &signature.as_bytes()[..],
    };
    // Long enough at once: growing would leave the claims behind in the clear.
    let length =
        BOX_HEADER + limits::PUBLIC_IDENTITY + 2 + claims.proof.len() + PARAMS_LEN + limits::SIGNATURE + 16;
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&header);
    claims.encode(&mut message);
    if message.len() + 16 > limits::HANDSHAKE_MESSAGE {
        return Err(HandshakeError::Library);
    }
    let tag = local.aead.key(key).seal_in_place(&BOX_NONCE, &header, &mut message[BOX_HEADER..]);
    message.extend_from_slice(&tag);
    Ok(message)
}

/// Tells whether a RESPONSE or ESTABLISHED is sealed under `key`.
pub(super) fn opens(aead: &dyn AeadProvider, key: &[u8; 32], message: &[u8]) -> bool {
    let Some((header, sealed)) = message.split_at_checked(BOX_HEADER) else { return false };
    let mut buffer = Zeroizing::new(sealed.to_vec());
    aead.key(key).open_in_place(&BOX_NONCE, header, &mut buffer).is_ok()
}

/// Opens a RESPONSE or ESTABLISHED and verifies the signature in it.
///
/// `expected` is the node that must have answered, where the side knows it beforehand.
pub(super) fn open_claims(
    aead: &dyn AeadProvider,
    role: Role,
    key: &[u8; 32],
    message: &[u8],
    (transcript, own, expected): (Transcript, NodeId, Option<NodeId>),
) -> Result<Peer, HandshakeError> {
    let (header, sealed) = message.split_at_checked(BOX_HEADER).ok_or(HandshakeError::Box)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let plain =
        aead.key(key).open_in_place(&BOX_NONCE, header, &mut buffer).map_err(|_| HandshakeError::Box)?;
    let claims = Claims::parse(plain)?;
    let identity = PublicIdentity::parse(claims.identity).map_err(|_| HandshakeError::Signature)?;
    let id = match expected {
        Some(party) if party == identity.node_id() || party == identity.net_id().as_party() => party,
        Some(_) => return Err(HandshakeError::Identity),
        None => identity.node_id(),
    };
    let signature = Signature::parse(claims.signature).map_err(|_| HandshakeError::Signature)?;
    let input = signed_bytes(transcript, identity.node_id(), own, claims.proof, &claims.params.encode());
    identity.verify(label(role), &input, &signature).map_err(|_| HandshakeError::Signature)?;
    Ok(Peer { id, proof: claims.proof.to_vec(), params: claims.params, identity })
}

fn signed_bytes(transcript: Transcript, own: NodeId, peer: NodeId, proof: &[u8], params: &[u8]) -> Vec<u8> {
    [&transcript.0[..], &own.0, &peer.0, &kdf::sha512(&[proof, params])].concat()
}
