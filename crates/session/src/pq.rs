//! ML-KEM-1024 (FIPS 203) and the choice of an ML-DSA-87 implementation, behind one trait.

mod aws_lc;
mod pqcrypto;

use std::fmt;
use std::str::FromStr;

use ::aws_lc_rs::digest::{SHA3_256, digest};
use mesh_identity::MlDsa87;
use mesh_wire::limits::{KEM_CIPHERTEXT, KEM_PUBLIC};

use crate::dh::{DhError, EphemeralSecret};
use crate::secret::Secret;

/// An implementation of the post-quantum primitives.
pub trait PqProvider: Send + Sync + fmt::Debug {
    /// Returns the name used in the configuration.
    fn name(&self) -> &'static str;

    /// Makes a key pair (FIPS 203, algorithm 19): the decapsulation key and the encapsulation key.
    ///
    /// # Errors
    /// [`PqError::Failed`] when the implementation or the system's randomness fails.
    fn kem_generate(&self) -> Result<(KemSecret, Box<[u8; KEM_PUBLIC]>), PqError>;

    /// Makes a shared secret for the holder of `ek` (FIPS 203, algorithm 20).
    ///
    /// # Errors
    /// [`PqError::EncapsulationKey`] when `ek` fails the modulus check of FIPS 203, section 7.2, else
    /// [`PqError::Failed`].
    fn kem_encapsulate(
        &self,
        ek: &[u8; KEM_PUBLIC],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT]>, SharedSecret), PqError>;

    /// Returns the shared secret of a ciphertext (FIPS 203, algorithm 21).
    ///
    /// A ciphertext made for another key gives a secret that nobody else knows (implicit rejection), not an error.
    ///
    /// # Errors
    /// [`PqError::Failed`] when the implementation fails.
    fn kem_decapsulate(
        &self,
        secret: &KemSecret,
        ciphertext: &[u8; KEM_CIPHERTEXT],
    ) -> Result<SharedSecret, PqError>;

    /// Makes an X25519 key pair (RFC 7748). It stands here so that one provider decides about all fresh keys.
    ///
    /// # Errors
    /// [`DhError`] when the system has no randomness.
    fn dh_generate(&self) -> Result<(EphemeralSecret, [u8; 32]), DhError> {
        EphemeralSecret::generate()
    }

    /// Returns the ML-DSA-87 implementation for signing.
    fn signer(&self) -> &'static dyn MlDsa87;
}

/// An expanded ML-KEM-1024 decapsulation key (FIPS 203, table 3), the same bytes for every provider.
///
/// Wiped on drop and never printed.
pub struct KemSecret(Secret<KEM_SECRET>);

impl KemSecret {
    /// Takes a key: length and hash are checked as FIPS 203, section 7.3 says, which no provider does by itself.
    ///
    /// # Errors
    /// [`PqError::DecapsulationKey`] when the input is not a decapsulation key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PqError> {
        if bytes.len() != KEM_SECRET {
            return Err(PqError::DecapsulationKey);
        }
        // The key for decryption, the encapsulation key, its hash and a seed (FIPS 203, algorithm 16, line 3).
        let (_, rest) = bytes.split_at(KEM_SECRET - KEM_PUBLIC - 64);
        let (ek, rest) = rest.split_at(KEM_PUBLIC);
        let (hash, _) = rest.split_at(32);
        if digest(&SHA3_256, ek).as_ref() != hash {
            return Err(PqError::DecapsulationKey);
        }
        let mut secret = Secret::zero();
        secret.copy_from_slice(bytes);
        Ok(Self(secret))
    }

    /// Returns the 3168 bytes of the key; for implementations of [`PqProvider`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemSecret([redacted])")
    }
}

/// The 32-byte result of ML-KEM, wiped on drop and never printed.
pub struct SharedSecret(Secret<32>);

impl SharedSecret {
    /// Returns the secret.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes a secret of 32 bytes; for implementations of [`PqProvider`].
    ///
    /// # Errors
    /// [`PqError::Failed`] for any other length.
    pub fn copy(bytes: &[u8]) -> Result<Self, PqError> {
        let mut secret = Secret::zero();
        if bytes.len() != secret.len() {
            return Err(PqError::Failed("ML-KEM-1024 shared secret"));
        }
        secret.copy_from_slice(bytes);
        Ok(Self(secret))
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret([redacted])")
    }
}

/// Which implementation provides the post-quantum primitives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProviderKind {
    /// AWS-LC: the default.
    #[default]
    AwsLc,
    /// PQClean's portable C, through the `pqcrypto` crates.
    Pqcrypto,
}

impl ProviderKind {
    /// Every provider.
    pub const ALL: [Self; 2] = [Self::AwsLc, Self::Pqcrypto];

    /// Returns the implementation.
    #[must_use]
    pub const fn provider(self) -> &'static dyn PqProvider {
        match self {
            Self::AwsLc => &aws_lc::AwsLcProvider,
            Self::Pqcrypto => &pqcrypto::PqcryptoProvider,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc",
            Self::Pqcrypto => "pqcrypto",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownProvider)
    }
}

/// The text names no provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown provider: use \"aws-lc\" or \"pqcrypto\"")]
pub struct UnknownProvider;

/// A post-quantum operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PqError {
    /// The peer's encapsulation key is not one (FIPS 203, section 7.2).
    #[error("the ML-KEM-1024 encapsulation key fails its modulus check")]
    EncapsulationKey,
    /// The bytes are not a decapsulation key (FIPS 203, section 7.3).
    #[error("the ML-KEM-1024 decapsulation key fails its check")]
    DecapsulationKey,
    /// The implementation or the system's randomness failed.
    #[error("{0} failed")]
    Failed(&'static str),
}

/// Refuses a key with a coefficient that is not below the modulus (FIPS 203, section 7.2).
///
/// Two coefficients of 12 bits stand in three bytes; the last 32 bytes are a seed and may be anything.
fn check_modulus(ek: &[u8; KEM_PUBLIC]) -> Result<(), PqError> {
    let (coefficients, _seed) = ek.split_at(KEM_PUBLIC - 32);
    let mut valid = true;
    for bytes in coefficients.chunks_exact(3) {
        let [low, middle, high] = [bytes[0], bytes[1], bytes[2]].map(u16::from);
        valid &= (low | (middle & 0x0f) << 8) < MODULUS;
        valid &= (middle >> 4 | high << 4) < MODULUS;
    }
    if valid { Ok(()) } else { Err(PqError::EncapsulationKey) }
}

/// The modulus q of ML-KEM (FIPS 203, section 2.4).
const MODULUS: u16 = 3329;
/// Bytes of an expanded ML-KEM-1024 decapsulation key (FIPS 203, table 3).
const KEM_SECRET: usize = 3168;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_agree_on_keys_and_secrets() {
        for a in ProviderKind::ALL.map(ProviderKind::provider) {
            for b in ProviderKind::ALL.map(ProviderKind::provider) {
                let (secret, ek) = a.kem_generate().unwrap();
                let (ciphertext, expected) = b.kem_encapsulate(&ek).unwrap();
                for c in ProviderKind::ALL.map(ProviderKind::provider) {
                    let shared = c.kem_decapsulate(&secret, &ciphertext).unwrap();
                    assert_eq!(shared.as_bytes(), expected.as_bytes());
                }
            }
        }
    }

    #[test]
    fn coefficient_at_the_modulus_is_refused_in_either_half() {
        for provider in ProviderKind::ALL.map(ProviderKind::provider) {
            let (_, ek) = provider.kem_generate().unwrap();
            for (at, value) in [(0, [0x01, 0x0d, 0x00]), (1533, [0x00, 0x10, 0xd0])] {
                let mut bad = ek.clone();
                bad[at..at + 3].copy_from_slice(&value);
                assert_eq!(provider.kem_encapsulate(&bad).unwrap_err(), PqError::EncapsulationKey);
                bad[at..at + 3].copy_from_slice(&[0x00, 0x0d, 0xd0]);
                assert!(provider.kem_encapsulate(&bad).is_ok());
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in ProviderKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.provider().name(), kind.to_string());
            assert_eq!(kind.provider().signer().name(), kind.to_string());
        }
        assert_eq!("ring".parse::<ProviderKind>(), Err(UnknownProvider));
    }
}
