//! X25519 (RFC 7748).

use std::fmt;

use crate::kdf::constant_time_eq;
use crate::secret::Secret;
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::rand;

/// A private key made for one handshake or one rekey, wiped on drop and never printed.
///
/// Kept as bytes: AWS-LC wipes what it allocates itself, and a key is built per call.
pub struct EphemeralSecret(Secret<32>);

impl EphemeralSecret {
    /// Makes a private key and returns it with its public key.
    ///
    /// # Errors
    /// [`DhError`] when the system has no randomness.
    pub fn generate() -> Result<(Self, [u8; 32]), DhError> {
        let mut bytes = Secret::zero();
        rand::fill(bytes.as_mut_slice()).map_err(|_| DhError)?;
        let secret = Self(bytes);
        let public = secret.public()?;
        Ok((secret, public))
    }

    /// Returns the public key.
    ///
    /// # Errors
    /// [`DhError`] when the library fails.
    pub fn public(&self) -> Result<[u8; 32], DhError> {
        let public = self.key()?.compute_public_key().map_err(|_| DhError)?;
        public.as_ref().try_into().map_err(|_| DhError)
    }

    /// Takes a private key made elsewhere, for golden transcripts and test vectors.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::copy(bytes))
    }

    /// Returns the private key; for implementations of [`crate::PqProvider`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the secret shared with the holder of `public`.
    ///
    /// # Errors
    /// [`ZeroSharedSecret`] when the result is all zero (RFC 7748, section 6.1): the peer sent a point of small order,
    /// or the agreement failed.
    pub fn agree(&self, public: &[u8; 32]) -> Result<Secret<32>, ZeroSharedSecret> {
        let key = self.key().map_err(|_| ZeroSharedSecret)?;
        let mut shared = Secret::zero();
        agree(&key, UnparsedPublicKey::new(&X25519, public), ZeroSharedSecret, |bytes| {
            if bytes.len() != shared.len() {
                return Err(ZeroSharedSecret);
            }
            shared.copy_from_slice(bytes);
            Ok(())
        })?;
        if constant_time_eq(shared.as_slice(), &[0; 32]) { Err(ZeroSharedSecret) } else { Ok(shared) }
    }

    fn key(&self) -> Result<PrivateKey, DhError> {
        PrivateKey::from_private_key(&X25519, self.0.as_slice()).map_err(|_| DhError)
    }
}

impl fmt::Debug for EphemeralSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EphemeralSecret([redacted])")
    }
}

/// No X25519 key could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no X25519 key could be made; the system may lack randomness")]
pub struct DhError;

/// The agreement gave no secret: the peer's public key is a point of small order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the X25519 shared secret is zero")]
pub struct ZeroSharedSecret;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let (a, a_public) = EphemeralSecret::generate().unwrap();
        let (b, b_public) = EphemeralSecret::generate().unwrap();
        assert_eq!(a.agree(&b_public).unwrap(), b.agree(&a_public).unwrap());
        assert_ne!(a_public, b_public);
    }

    #[test]
    fn point_of_small_order_is_refused() {
        let (secret, _) = EphemeralSecret::generate().unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(secret.agree(&[0; 32]), Err(ZeroSharedSecret));
        assert_eq!(secret.agree(&one), Err(ZeroSharedSecret));
    }
}
