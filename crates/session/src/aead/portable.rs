//! ChaCha20-Poly1305 of the crate `chacha20poly1305`.

use std::fmt;

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Tag};

use super::{Aead, OpenError, TAG};

pub(super) struct PortableKey(ChaCha20Poly1305);

impl PortableKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }
}

impl Aead for PortableKey {
    fn seal_in_place(&self, nonce: &[u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; TAG] {
        self.0
            .encrypt_inout_detached(nonce.into(), ad, buffer.into())
            .expect("sealing fails only above the length limit of RFC 8439")
            .into()
    }

    fn open_in_place<'a>(
        &self,
        nonce: &[u8; 12],
        ad: &[u8],
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (ciphertext, tag) = buffer.split_last_chunk_mut::<TAG>().ok_or(OpenError)?;
        let tag = Tag::from(*tag);
        self.0
            .decrypt_inout_detached(nonce.into(), ad, (&mut *ciphertext).into(), &tag)
            .map_err(|_| OpenError)?;
        Ok(ciphertext)
    }
}

impl fmt::Debug for PortableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortableKey([redacted])")
    }
}
