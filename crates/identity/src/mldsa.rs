//! ML-DSA-87 (FIPS 204) behind one trait, with two independent implementations.
//!
//! Signing and verifying always use the empty context string. Both implementations sign with fresh randomness
//! ("hedged"), so a signature cannot be foretold from key and message.

use std::fmt;

use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{KeyPair, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair, UnparsedPublicKey};
use mesh_wire::limits::{MLDSA_PUBLIC, MLDSA_SIGNATURE};
use pqcrypto_mldsa::mldsa87;
use pqcrypto_traits::sign::{DetachedSignature as _, PublicKey as _, SecretKey as _};
use zeroize::Zeroizing;

/// An implementation of ML-DSA-87.
pub trait MlDsa87: Send + Sync + fmt::Debug {
    /// Returns the name used in the configuration.
    fn name(&self) -> &'static str;

    /// Expands a 32-byte seed (FIPS 204, `ML-DSA.KeyGen_internal`) into a key that signs.
    ///
    /// # Errors
    /// [`MlDsaError`] when the implementation fails.
    fn signer(&self, seed: &[u8; 32]) -> Result<Box<dyn MlDsaSigner>, MlDsaError>;

    /// Verifies a signature with the empty context string (FIPS 204, algorithm 3).
    ///
    /// # Errors
    /// [`MlDsaError`] when the signature is not one of this key over this message.
    fn verify(
        &self,
        public: &[u8; MLDSA_PUBLIC],
        message: &[u8],
        signature: &[u8; MLDSA_SIGNATURE],
    ) -> Result<(), MlDsaError>;
}

/// An expanded ML-DSA-87 key.
pub trait MlDsaSigner: Send + Sync {
    /// Returns the public key.
    fn public(&self) -> Box<[u8; MLDSA_PUBLIC]>;

    /// Signs with the empty context string (FIPS 204, algorithm 2).
    ///
    /// # Errors
    /// [`MlDsaError`] when the implementation fails.
    fn sign(&self, message: &[u8]) -> Result<Box<[u8; MLDSA_SIGNATURE]>, MlDsaError>;
}

impl fmt::Debug for dyn MlDsaSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MlDsaSigner([redacted])")
    }
}

/// An ML-DSA-87 operation failed or a signature is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{implementation}: ML-DSA-87 {operation} failed")]
pub struct MlDsaError {
    implementation: &'static str,
    operation: &'static str,
}

/// ML-DSA-87 of AWS-LC: the default.
#[derive(Debug, Clone, Copy)]
pub struct AwsLc;

impl MlDsa87 for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn signer(&self, seed: &[u8; 32]) -> Result<Box<dyn MlDsaSigner>, MlDsaError> {
        Ok(Box::new(AwsLcSigner(expand(seed)?)))
    }

    fn verify(
        &self,
        public: &[u8; MLDSA_PUBLIC],
        message: &[u8],
        signature: &[u8; MLDSA_SIGNATURE],
    ) -> Result<(), MlDsaError> {
        UnparsedPublicKey::new(&ML_DSA_87, public)
            .verify(message, signature)
            .map_err(|_| MlDsaError { implementation: self.name(), operation: "verification" })
    }
}

/// ML-DSA-87 of PQClean's portable C, through `pqcrypto-mldsa`.
///
/// Its interface has no key generation from a seed. The signing key is therefore expanded by AWS-LC, whose expanded
/// form is the encoding of FIPS 204 that PQClean reads; signing itself then runs in PQClean alone.
#[derive(Debug, Clone, Copy)]
pub struct Pqcrypto;

impl MlDsa87 for Pqcrypto {
    fn name(&self) -> &'static str {
        "pqcrypto"
    }

    fn signer(&self, seed: &[u8; 32]) -> Result<Box<dyn MlDsaSigner>, MlDsaError> {
        let failed = MlDsaError { implementation: self.name(), operation: "key expansion" };
        let pair = expand(seed)?;
        let raw = pair.private_key().as_raw_bytes().map_err(|_| failed)?;
        let mut expanded = Box::new(Zeroizing::new([0; EXPANDED]));
        if raw.as_ref().len() != EXPANDED {
            return Err(failed);
        }
        expanded.copy_from_slice(raw.as_ref());
        Ok(Box::new(PqcryptoSigner { expanded, public: public_of(&pair) }))
    }

    fn verify(
        &self,
        public: &[u8; MLDSA_PUBLIC],
        message: &[u8],
        signature: &[u8; MLDSA_SIGNATURE],
    ) -> Result<(), MlDsaError> {
        let failed = MlDsaError { implementation: self.name(), operation: "verification" };
        let key = mldsa87::PublicKey::from_bytes(public).map_err(|_| failed)?;
        let signature = mldsa87::DetachedSignature::from_bytes(signature).map_err(|_| failed)?;
        mldsa87::verify_detached_signature(&signature, message, &key).map_err(|_| failed)
    }
}

struct AwsLcSigner(PqdsaKeyPair);

impl MlDsaSigner for AwsLcSigner {
    fn public(&self) -> Box<[u8; MLDSA_PUBLIC]> {
        public_of(&self.0)
    }

    fn sign(&self, message: &[u8]) -> Result<Box<[u8; MLDSA_SIGNATURE]>, MlDsaError> {
        let mut signature = Box::new([0; MLDSA_SIGNATURE]);
        match self.0.sign(message, signature.as_mut_slice()) {
            Ok(MLDSA_SIGNATURE) => Ok(signature),
            Ok(_) | Err(_) => Err(MlDsaError { implementation: AwsLc.name(), operation: "signing" }),
        }
    }
}

/// Holds the expanded key as bytes, because the key type of `pqcrypto-mldsa` is `Copy` and does not wipe itself. The
/// copy that a call makes on the stack is overwritten only by later calls.
struct PqcryptoSigner {
    expanded: Box<Zeroizing<[u8; EXPANDED]>>,
    public: Box<[u8; MLDSA_PUBLIC]>,
}

impl MlDsaSigner for PqcryptoSigner {
    fn public(&self) -> Box<[u8; MLDSA_PUBLIC]> {
        self.public.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Box<[u8; MLDSA_SIGNATURE]>, MlDsaError> {
        let failed = MlDsaError { implementation: Pqcrypto.name(), operation: "signing" };
        let key = mldsa87::SecretKey::from_bytes(self.expanded.as_slice()).map_err(|_| failed)?;
        let signature = mldsa87::detached_sign(message, &key);
        Box::<[u8]>::from(signature.as_bytes()).try_into().map_err(|_| failed)
    }
}

fn expand(seed: &[u8; 32]) -> Result<PqdsaKeyPair, MlDsaError> {
    PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, seed)
        .map_err(|_| MlDsaError { implementation: AwsLc.name(), operation: "key expansion" })
}

fn public_of(pair: &PqdsaKeyPair) -> Box<[u8; MLDSA_PUBLIC]> {
    Box::<[u8]>::from(pair.public_key().as_ref()).try_into().expect("an ML-DSA-87 public key is 2592 bytes")
}

/// Bytes of an expanded ML-DSA-87 private key (FIPS 204, table 2).
const EXPANDED: usize = 4896;
