//! ChaCha20-Poly1305 and AES-256-GCM of AWS-LC.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{Aead, OpenError, TAG};

pub(super) struct AwsLcKey(LessSafeKey);

impl AwsLcKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key of ChaCha20-Poly1305");
        Self(LessSafeKey::new(key))
    }

    pub(super) fn aes(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256");
        Self(LessSafeKey::new(key))
    }
}

impl Aead for AwsLcKey {
    fn seal_in_place(&self, nonce: &[u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; TAG] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(ad), buffer)
            .expect("sealing fails only above the length limit");
        tag.as_ref().try_into().expect("a tag is 16 bytes")
    }

    fn open_in_place<'a>(
        &self,
        nonce: &[u8; 12],
        ad: &[u8],
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(ad), buffer)
            .map_err(|_| OpenError)
    }
}

impl fmt::Debug for AwsLcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsLcKey([redacted])")
    }
}
