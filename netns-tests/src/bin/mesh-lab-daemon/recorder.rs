//! Libraries that tell their keys. The bytes go from where they are to the kernel; no copy is made on the way.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lab::{Entry, SecretKind};
use mesh_identity::MlDsa87;
use mesh_session::aead::OpenError;
use mesh_session::{
    Aead, AeadProvider, DhError, EphemeralSecret, KemSecret, PqError, PqProvider, SharedSecret,
};
use mesh_wire::limits::{KEM_CIPHERTEXT, KEM_PUBLIC};

/// The pipe to who listens.
#[derive(Debug)]
pub(crate) struct Recorder {
    pipe: File,
    serial: AtomicU64,
}

impl Recorder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { pipe: OpenOptions::new().write(true).open(path)?, serial: AtomicU64::new(0) })
    }

    /// Tells a secret and returns its number.
    fn made(&self, kind: SecretKind, secret: &[u8]) -> u64 {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let length = u16::try_from(secret.len()).expect("secrets are shorter than 64 KiB");
        let entry = Entry { serial, kind, gone: false, length }.encode();
        // Below the 4 KiB that a pipe takes whole, so that threads do not write into each other's lines.
        let written = (&self.pipe).write_vectored(&[IoSlice::new(&entry), IoSlice::new(secret)]);
        assert_eq!(
            written.ok(),
            Some(entry.len() + secret.len()),
            "a key that nobody hears of is not searched for"
        );
        serial
    }

    fn gone(&self, kind: SecretKind, serial: u64) {
        let entry = Entry { serial, kind, gone: true, length: 0 }.encode();
        // At the end of a run there may be nobody to tell.
        let _ = (&self.pipe).write_all(&entry);
    }
}

/// An AEAD whose keys are told when they are made and when they are dropped.
#[derive(Debug)]
pub(crate) struct RecordedAead {
    inner: &'static dyn AeadProvider,
    recorder: &'static Recorder,
}

impl RecordedAead {
    pub(crate) fn new(inner: &'static dyn AeadProvider, recorder: &'static Recorder) -> Self {
        Self { inner, recorder }
    }
}

impl AeadProvider for RecordedAead {
    fn key(&self, key: &[u8; 32]) -> Arc<dyn Aead> {
        let serial = self.recorder.made(SecretKind::Aead, key);
        let told = Told { recorder: self.recorder, serial };
        Arc::new(RecordedKey { inner: self.inner.key(key), _told: told })
    }

    fn suites(&self) -> &'static [u16] {
        self.inner.suites()
    }

    fn session_key(&self, suite: u16, key: &[u8; 32]) -> Arc<dyn Aead> {
        let serial = self.recorder.made(SecretKind::Aead, key);
        let told = Told { recorder: self.recorder, serial };
        Arc::new(RecordedKey { inner: self.inner.session_key(suite, key), _told: told })
    }
}

/// Fields are dropped in this order: the key is wiped before its end is told.
#[derive(Debug)]
struct RecordedKey {
    inner: Arc<dyn Aead>,
    _told: Told,
}

#[derive(Debug)]
struct Told {
    recorder: &'static Recorder,
    serial: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.recorder.gone(SecretKind::Aead, self.serial);
    }
}

impl Aead for RecordedKey {
    fn seal_in_place(&self, nonce: &[u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        self.inner.seal_in_place(nonce, ad, buffer)
    }

    fn open_in_place<'a>(
        &self,
        nonce: &[u8; 12],
        ad: &[u8],
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        self.inner.open_in_place(nonce, ad, buffer)
    }
}

/// A provider whose private keys and secrets are told.
#[derive(Debug)]
pub(crate) struct RecordedPq {
    inner: &'static dyn PqProvider,
    recorder: &'static Recorder,
}

impl RecordedPq {
    pub(crate) fn new(inner: &'static dyn PqProvider, recorder: &'static Recorder) -> Self {
        Self { inner, recorder }
    }
}

impl PqProvider for RecordedPq {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn kem_generate(&self) -> Result<(KemSecret, Box<[u8; KEM_PUBLIC]>), PqError> {
        let (secret, public) = self.inner.kem_generate()?;
        self.recorder.made(SecretKind::Kem, secret.as_bytes());
        Ok((secret, public))
    }

    fn kem_encapsulate(
        &self,
        ek: &[u8; KEM_PUBLIC],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT]>, SharedSecret), PqError> {
        let (ciphertext, shared) = self.inner.kem_encapsulate(ek)?;
        self.recorder.made(SecretKind::KemShared, shared.as_bytes());
        Ok((ciphertext, shared))
    }

    fn kem_decapsulate(
        &self,
        secret: &KemSecret,
        ciphertext: &[u8; KEM_CIPHERTEXT],
    ) -> Result<SharedSecret, PqError> {
        let shared = self.inner.kem_decapsulate(secret, ciphertext)?;
        self.recorder.made(SecretKind::KemShared, shared.as_bytes());
        Ok(shared)
    }

    fn dh_generate(&self) -> Result<(EphemeralSecret, [u8; 32]), DhError> {
        let (secret, public) = self.inner.dh_generate()?;
        self.recorder.made(SecretKind::Dh, secret.as_bytes());
        Ok((secret, public))
    }

    fn signer(&self) -> &'static dyn MlDsa87 {
        self.inner.signer()
    }
}
