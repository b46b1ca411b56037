//! Keys that remember what they sealed, so that a nonce which stands for two contents is seen.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mesh_session::aead::{OpenError, TAG};
use mesh_session::{Aead, AeadKind, AeadProvider};

/// Makes recording keys; what they seal is remembered per thread, until [`forget`].
#[derive(Debug)]
pub(super) struct Recorder;

/// The one of the simulation.
pub(super) static RECORDER: Recorder = Recorder;

/// By key and nonce, a hash of the associated data and the content.
type Contents = HashMap<([u8; 32], [u8; 12]), u64>;

thread_local! {
    /// What was sealed.
    static SEALED: RefCell<Contents> = RefCell::default();
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Forgets what other runs on this thread sealed; `seed` is named where the next one fails.
pub(super) fn forget(seed: u64) {
    SEALED.with_borrow_mut(HashMap::clear);
    SEED.set(seed);
}

#[derive(Debug)]
struct Key {
    bytes: [u8; 32],
    inner: Arc<dyn Aead>,
}

impl AeadProvider for Recorder {
    fn key(&self, key: &[u8; 32]) -> Arc<dyn Aead> {
        Arc::new(Key { bytes: *key, inner: AeadKind::AwsLc.provider().key(key) })
    }
}

impl Aead for Key {
    fn seal_in_place(&self, nonce: &[u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; TAG] {
        let mut hasher = DefaultHasher::new();
        (ad, &*buffer).hash(&mut hasher);
        let hash = hasher.finish();
        let before = SEALED.with_borrow_mut(|sealed| sealed.insert((self.bytes, *nonce), hash));
        // Parts of a handshake message may be made again, byte for byte.
        let seed = SEED.get();
        assert!(before.is_none_or(|before| before == hash), "seed {seed}: a nonce was used for two contents");
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

#[test]
#[should_panic(expected = "a nonce was used for two contents")]
fn recorder_sees_a_nonce_that_is_used_again() {
    let key = RECORDER.key(&[1; 32]);
    key.seal_in_place(&[0; 12], b"", &mut *b"one".to_owned().as_mut_slice());
    RECORDER.key(&[1; 32]).seal_in_place(&[0; 12], b"", &mut *b"two".to_owned().as_mut_slice());
}
