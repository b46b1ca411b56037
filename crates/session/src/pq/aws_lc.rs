//! ML-KEM-1024 of AWS-LC.

use aws_lc_rs::kem::{DecapsulationKey, EncapsulationKey, ML_KEM_1024};
use mesh_identity::{AwsLc, MlDsa87};
use mesh_wire::limits::{KEM_CIPHERTEXT, KEM_PUBLIC};

use super::{KemSecret, PqError, PqProvider, SharedSecret, check_modulus};

#[derive(Debug)]
pub(super) struct AwsLcProvider;

impl PqProvider for AwsLcProvider {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn kem_generate(&self) -> Result<(KemSecret, Box<[u8; KEM_PUBLIC]>), PqError> {
        let failed = PqError::Failed("ML-KEM-1024 key generation (aws-lc)");
        let key = DecapsulationKey::generate(&ML_KEM_1024).map_err(|_| failed)?;
        let ek = key.encapsulation_key().and_then(|ek| ek.key_bytes()).map_err(|_| failed)?;
        let ek = Box::<[u8]>::from(ek.as_ref()).try_into().map_err(|_| failed)?;
        let secret = key.key_bytes().map_err(|_| failed)?;
        Ok((KemSecret::from_bytes(secret.as_ref())?, ek))
    }

    fn kem_encapsulate(
        &self,
        ek: &[u8; KEM_PUBLIC],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT]>, SharedSecret), PqError> {
        check_modulus(ek)?;
        let failed = PqError::Failed("ML-KEM-1024 encapsulation (aws-lc)");
        let key = EncapsulationKey::new(&ML_KEM_1024, ek).map_err(|_| failed)?;
        let (ciphertext, secret) = key.encapsulate().map_err(|_| failed)?;
        let ciphertext = Box::<[u8]>::from(ciphertext.as_ref()).try_into().map_err(|_| failed)?;
        Ok((ciphertext, SharedSecret::copy(secret.as_ref())?))
    }

    fn kem_decapsulate(
        &self,
        secret: &KemSecret,
        ciphertext: &[u8; KEM_CIPHERTEXT],
    ) -> Result<SharedSecret, PqError> {
        let failed = PqError::Failed("ML-KEM-1024 decapsulation (aws-lc)");
        let key = DecapsulationKey::new(&ML_KEM_1024, secret.as_bytes()).map_err(|_| failed)?;
        let secret = key.decapsulate(ciphertext.as_slice().into()).map_err(|_| failed)?;
        SharedSecret::copy(secret.as_ref())
    }

    fn signer(&self) -> &'static dyn MlDsa87 {
        &AwsLc
    }
}
