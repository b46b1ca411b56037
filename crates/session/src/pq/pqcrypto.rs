//! ML-KEM-1024 of PQClean's portable C.
//!
//! The key types of `pqcrypto-mlkem` are `Copy` and do not wipe themselves, so keys live as bytes in
//! [`KemSecret`] and a type is built per call. What a call leaves on the stack is overwritten only by later calls. When
//! the system has no randomness, the C code ends the process rather than going on without.

use mesh_identity::{MlDsa87, Pqcrypto};
use mesh_wire::limits::{KEM_CIPHERTEXT, KEM_PUBLIC};
use pqcrypto_mlkem::mlkem1024;
use pqcrypto_traits::kem::{Ciphertext as _, PublicKey as _, SecretKey as _, SharedSecret as _};

use super::{KemSecret, PqError, PqProvider, SharedSecret, check_modulus};

#[derive(Debug)]
pub(super) struct PqcryptoProvider;

impl PqProvider for PqcryptoProvider {
    fn name(&self) -> &'static str {
        "pqcrypto"
    }

    fn kem_generate(&self) -> Result<(KemSecret, Box<[u8; KEM_PUBLIC]>), PqError> {
        let (ek, secret) = mlkem1024::keypair();
        let ek = Box::<[u8]>::from(ek.as_bytes())
            .try_into()
            .map_err(|_| PqError::Failed("ML-KEM-1024 key generation (pqcrypto)"))?;
        Ok((KemSecret::from_bytes(secret.as_bytes())?, ek))
    }

    fn kem_encapsulate(
        &self,
        ek: &[u8; KEM_PUBLIC],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT]>, SharedSecret), PqError> {
        check_modulus(ek)?;
        let failed = PqError::Failed("ML-KEM-1024 encapsulation (pqcrypto)");
        let ek = mlkem1024::PublicKey::from_bytes(ek).map_err(|_| failed)?;
        let (secret, ciphertext) = mlkem1024::encapsulate(&ek);
        let ciphertext = Box::<[u8]>::from(ciphertext.as_bytes()).try_into().map_err(|_| failed)?;
        Ok((ciphertext, SharedSecret::copy(secret.as_bytes())?))
    }

    fn kem_decapsulate(
        &self,
        secret: &KemSecret,
        ciphertext: &[u8; KEM_CIPHERTEXT],
    ) -> Result<SharedSecret, PqError> {
        let failed = PqError::Failed("ML-KEM-1024 decapsulation (pqcrypto)");
        let key = mlkem1024::SecretKey::from_bytes(secret.as_bytes()).map_err(|_| failed)?;
        let ciphertext = mlkem1024::Ciphertext::from_bytes(ciphertext).map_err(|_| failed)?;
        SharedSecret::copy(mlkem1024::decapsulate(&ciphertext, &key).as_bytes())
    }

    fn signer(&self) -> &'static dyn MlDsa87 {
        &Pqcrypto
    }
}
