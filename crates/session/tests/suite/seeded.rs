//! Implementations of the primitives that draw everything from a seed, and an AEAD that writes down what it seals.

use std::fmt;
use std::sync::{Arc, Mutex};

use mesh_identity::{AwsLc, MlDsa87, MlDsaError, MlDsaSigner};
use mesh_session::aead::{self, Aead, AeadKind, AeadProvider, TAG};
use mesh_session::pq::{KemSecret, PqError, PqProvider, ProviderKind, SharedSecret};
use mesh_session::{DhError, EphemeralSecret, kdf};
use mesh_wire::limits::{KEM_CIPHERTEXT, KEM_PUBLIC, MLDSA_PUBLIC, MLDSA_SIGNATURE};
use ml_dsa::signature::Keypair as _;
use ml_dsa::{MlDsa87 as Parameters, SigningKey};
#[expect(deprecated, reason = "the session holds keys in the expanded form")]
use ml_kem::ExpandedKeyEncoding as _;
use ml_kem::{DecapsulationKey, EncapsulationKey, MlKem1024};

/// Random bytes that follow from a seed: SHA-512 over seed and a counter.
#[derive(Debug)]
pub(crate) struct Stream {
    seed: &'static str,
    block: u64,
}

impl Stream {
    pub(crate) const fn new(seed: &'static str) -> Self {
        Self { seed, block: 0 }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.block += 1;
        let block = kdf::sha512(&[self.seed.as_bytes(), &self.block.to_le_bytes()]);
        *block.first_chunk().unwrap()
    }
}

/// Makes every fresh key from a seed, with the crate `ml-kem`; decapsulates as `aws-lc` does.
#[derive(Debug)]
pub(crate) struct Seeded(Mutex<Stream>);

impl Seeded {
    pub(crate) fn leaked(seed: &'static str) -> &'static Self {
        Box::leak(Box::new(Self(Mutex::new(Stream::new(seed)))))
    }

    fn bytes<const N: usize>(&self) -> [u8; N] {
        self.0.lock().unwrap().bytes()
    }
}

impl PqProvider for Seeded {
    fn name(&self) -> &'static str {
        "seeded"
    }

    #[expect(deprecated, reason = "the session holds keys in the expanded form")]
    fn kem_generate(&self) -> Result<(KemSecret, Box<[u8; KEM_PUBLIC]>), PqError> {
        let key = DecapsulationKey::<MlKem1024>::from_seed(self.bytes::<64>().into());
        let expanded = key.to_expanded_bytes();
        let ek: [u8; KEM_PUBLIC] = expanded[1536..1536 + KEM_PUBLIC].try_into().unwrap();
        Ok((KemSecret::from_bytes(&expanded)?, Box::new(ek)))
    }

    fn kem_encapsulate(
        &self,
        ek: &[u8; KEM_PUBLIC],
    ) -> Result<(Box<[u8; KEM_CIPHERTEXT]>, SharedSecret), PqError> {
        let key = EncapsulationKey::<MlKem1024>::new(&(*ek).into()).map_err(|_| PqError::EncapsulationKey)?;
        let (ciphertext, secret) = key.encapsulate_deterministic(&self.bytes::<32>().into());
        Ok((Box::new(ciphertext.into()), SharedSecret::copy(&secret)?))
    }

    fn kem_decapsulate(
        &self,
        secret: &KemSecret,
        ciphertext: &[u8; KEM_CIPHERTEXT],
    ) -> Result<SharedSecret, PqError> {
        ProviderKind::AwsLc.provider().kem_decapsulate(secret, ciphertext)
    }

    fn dh_generate(&self) -> Result<(EphemeralSecret, [u8; 32]), DhError> {
        let secret = EphemeralSecret::from_bytes(&self.bytes());
        let public = secret.public()?;
        Ok((secret, public))
    }

    fn signer(&self) -> &'static dyn MlDsa87 {
        &Deterministic
    }
}

/// Signs as FIPS 204 allows without randomness (algorithm 2, deterministic variant), with the crate `ml-dsa`.
#[derive(Debug)]
pub(crate) struct Deterministic;

struct Signer(SigningKey<Parameters>);

impl MlDsa87 for Deterministic {
    fn name(&self) -> &'static str {
        "deterministic"
    }

    fn signer(&self, seed: &[u8; 32]) -> Result<Box<dyn MlDsaSigner>, MlDsaError> {
        Ok(Box::new(Signer(SigningKey::from_seed(&(*seed).into()))))
    }

    fn verify(
        &self,
        public: &[u8; MLDSA_PUBLIC],
        message: &[u8],
        signature: &[u8; MLDSA_SIGNATURE],
    ) -> Result<(), MlDsaError> {
        AwsLc.verify(public, message, signature)
    }
}

impl MlDsaSigner for Signer {
    fn public(&self) -> Box<[u8; MLDSA_PUBLIC]> {
        Box::new(self.0.verifying_key().encode().into())
    }

    fn sign(&self, message: &[u8]) -> Result<Box<[u8; MLDSA_SIGNATURE]>, MlDsaError> {
        let signature = self.0.expanded_key().sign_deterministic(message, b"").unwrap();
        Ok(Box::new(signature.encode().into()))
    }
}

/// What was sealed: key and nonce.
pub(crate) type Sealed = ([u8; 32], [u8; 12]);

/// Seals and opens as another implementation does and writes down each sealing.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    kind: AeadKind,
    log: Arc<Mutex<Vec<Sealed>>>,
}

impl Recorder {
    pub(crate) fn leaked(kind: AeadKind) -> &'static Self {
        Box::leak(Box::new(Self { kind, log: Arc::default() }))
    }

    pub(crate) fn log(&self) -> Vec<Sealed> {
        self.log.lock().unwrap().clone()
    }
}

impl AeadProvider for Recorder {
    fn key(&self, key: &[u8; 32]) -> Arc<dyn Aead> {
        Arc::new(Recording { key: *key, inner: self.kind.key(key), log: Arc::clone(&self.log) })
    }
}

struct Recording {
    key: [u8; 32],
    inner: Arc<dyn Aead>,
    log: Arc<Mutex<Vec<Sealed>>>,
}

impl Aead for Recording {
    fn seal_in_place(&self, nonce: &[u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; TAG] {
        self.log.lock().unwrap().push((self.key, *nonce));
        self.inner.seal_in_place(nonce, ad, buffer)
    }

    fn open_in_place<'a>(
        &self,
        nonce: &[u8; 12],
        ad: &[u8],
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], aead::OpenError> {
        self.inner.open_in_place(nonce, ad, buffer)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}
