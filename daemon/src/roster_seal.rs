//! The roster as the relay keeps it for the members: sealed under a key of the network secret, so that it reads
//! nothing. XChaCha20-Poly1305 with a random nonce: `nonce 24 | ciphertext | tag 16`.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use mesh_control::{ApiError, ErrorCode};
use mesh_identity::{Roster, UnixSeconds};
use mesh_session::kdf;

use crate::enrol::link::random;
use crate::state::Membership;

const NONCE: usize = 24;

/// Seals a roster.
///
/// # Errors
/// When the system gives no randomness.
pub fn seal(membership: &Membership, roster: &Roster) -> Result<Vec<u8>, ApiError> {
    let nonce: [u8; NONCE] = random()?;
    let aad = associated(membership, roster.version());
    let sealed = cipher(membership)
        .encrypt(&XNonce::from(nonce), Payload { msg: roster.encode(), aad: &aad })
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the roster could not be sealed"))?;
    Ok([&nonce[..], &sealed].concat())
}

/// Opens a roster that the relay held; none when it is not sealed with this network's secret or not signed by its root.
#[must_use]
pub fn open(membership: &Membership, version: u64, blob: &[u8], now: u64) -> Option<Roster> {
    let (nonce, sealed) = blob.split_first_chunk::<NONCE>()?;
    let aad = associated(membership, version);
    let plain = cipher(membership).decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok()?;
    let roster = Roster::verify(&plain, membership.net, UnixSeconds(now)).ok()?;
    (roster.version() == version).then_some(roster)
}

fn cipher(membership: &Membership) -> XChaCha20Poly1305 {
    let key =
        kdf::extract(&membership.net.0, &[&membership.network_secret[..]]).expand::<32>("mesh/1 roster seal");
    XChaCha20Poly1305::new((&*key).into())
}

fn associated(membership: &Membership, version: u64) -> Vec<u8> {
    [&membership.net.0[..], &version.to_le_bytes()].concat()
}
