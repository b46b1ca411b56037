//! ChaCha20-Poly1305 (RFC 8439) behind one trait, with two implementations of the same bytes, and AES-256-GCM (SP 800-38D) for
//! processors that have instructions for it.

mod aws_lc;
mod portable;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use mesh_wire::handshake::{SUITE, SUITE_AES};

/// Bytes of an authentication tag (RFC 8439, section 2.8).
pub const TAG: usize = 16;

/// An AEAD key. A nonce must never be used twice with one key for sealing; who counts nonces is the caller.
pub trait Aead: Send + Sync + fmt::Debug {
    /// Encrypts `buffer` in place and returns the tag over it and `ad`.
    ///
    /// # Panics
    /// When `buffer` is longer than the algorithm allows (64 GiB).
    fn seal_in_place(&self, nonce: &[u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; TAG];

    /// Decrypts `buffer` (ciphertext, then tag) in place and returns the plaintext within it.
    ///
    /// # Errors
    /// [`OpenError`] when the tag is wrong or missing; the buffer then holds nothing of use.
    fn open_in_place<'a>(
        &self,
        nonce: &[u8; 12],
        ad: &[u8],
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError>;
}

/// Makes AEAD keys of one implementation.
pub trait AeadProvider: Send + Sync + fmt::Debug {
    /// Makes a key of ChaCha20-Poly1305 that is wiped on drop, where it lies: one that were moved would leave its bytes behind.
    fn key(&self, key: &[u8; 32]) -> Arc<dyn Aead>;

    /// The suites whose frames it seals and opens, the best first: what is offered, and what is taken of an offer.
    fn suites(&self) -> &'static [u16] {
        &[SUITE]
    }

    /// Makes a key for the frames of a session under one of [`AeadProvider::suites`], which is wiped on drop.
    fn session_key(&self, suite: u16, key: &[u8; 32]) -> Arc<dyn Aead> {
        debug_assert_eq!(suite, SUITE, "only suites that are offered are agreed on");
        self.key(key)
    }
}

/// The sealed bytes were not sealed under this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes fail authentication")]
pub struct OpenError;

/// Which implementation seals and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AeadKind {
    /// AWS-LC: the default, about four times as fast on frames of packet size.
    #[default]
    AwsLc,
    /// The crate `chacha20poly1305`: portable Rust.
    ChaCha20Poly1305,
}

impl AeadKind {
    /// Every implementation.
    pub const ALL: [Self; 2] = [Self::AwsLc, Self::ChaCha20Poly1305];

    /// Returns the implementation.
    #[must_use]
    pub const fn provider(self) -> &'static dyn AeadProvider {
        match self {
            Self::AwsLc => &Self::AwsLc,
            Self::ChaCha20Poly1305 => &Self::ChaCha20Poly1305,
        }
    }

    /// Returns the implementation with AES-256-GCM beside ChaCha20-Poly1305, where it has that and the processor has
    /// instructions for it; without them, AES is slow, and its tables tell an observer of the cache about the key.
    #[must_use]
    pub fn provider_with_aes(self) -> &'static dyn AeadProvider {
        match self {
            Self::AwsLc if processor_has_aes() => &AwsLcWithAes,
            Self::AwsLc | Self::ChaCha20Poly1305 => self.provider(),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }
}

impl AeadProvider for AeadKind {
    fn key(&self, key: &[u8; 32]) -> Arc<dyn Aead> {
        match self {
            Self::AwsLc => Arc::new(aws_lc::AwsLcKey::new(key)),
            Self::ChaCha20Poly1305 => Arc::new(portable::PortableKey::new(key)),
        }
    }
}

/// AWS-LC with both suites.
#[derive(Debug)]
struct AwsLcWithAes;

impl AeadProvider for AwsLcWithAes {
    fn key(&self, key: &[u8; 32]) -> Arc<dyn Aead> {
        AeadKind::AwsLc.key(key)
    }

    fn suites(&self) -> &'static [u16] {
        &[SUITE_AES, SUITE]
    }

    fn session_key(&self, suite: u16, key: &[u8; 32]) -> Arc<dyn Aead> {
        if suite == SUITE_AES { Arc::new(aws_lc::AwsLcKey::aes(key)) } else { self.key(key) }
    }
}

/// Whether AES and the multiplication of GCM are instructions.
fn processor_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

impl fmt::Display for AeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AeadKind {
    type Err = UnknownAead;

    fn from_str(text: &str) -> Result<Self, UnknownAead> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownAead)
    }
}

/// The text names no AEAD implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown AEAD implementation: use \"aws-lc\" or \"chacha20poly1305\"")]
pub struct UnknownAead;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seals_what_the_other_opens() {
        for (a, b) in [(AeadKind::ALL[0], AeadKind::ALL[1]), (AeadKind::ALL[1], AeadKind::ALL[0])] {
            let mut buffer = b"a packet".to_vec();
            let tag = a.key(&[7; 32]).seal_in_place(&[1; 12], b"header", &mut buffer);
            buffer.extend_from_slice(&tag);
            let opened = b.key(&[7; 32]).open_in_place(&[1; 12], b"header", &mut buffer).unwrap();
            assert_eq!(opened, b"a packet");
        }
    }

    #[test]
    fn any_change_is_refused() {
        for kind in AeadKind::ALL {
            let key = kind.key(&[7; 32]);
            let mut sealed = b"a packet".to_vec();
            let tag = key.seal_in_place(&[1; 12], b"header", &mut sealed);
            sealed.extend_from_slice(&tag);
            for at in 0..sealed.len() {
                let mut bad = sealed.clone();
                bad[at] ^= 1;
                assert_eq!(key.open_in_place(&[1; 12], b"header", &mut bad), Err(OpenError));
            }
            for len in 0..sealed.len() {
                assert_eq!(
                    key.open_in_place(&[1; 12], b"header", &mut sealed.clone()[..len]),
                    Err(OpenError)
                );
            }
            assert_eq!(key.open_in_place(&[2; 12], b"header", &mut sealed.clone()), Err(OpenError));
            assert_eq!(key.open_in_place(&[1; 12], b"reader", &mut sealed.clone()), Err(OpenError));
        }
    }

    /// Test case 16 of the GCM specification (McGrew and Viega), the one of AES-256 with associated data.
    #[test]
    fn aes_seals_the_published_bytes() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let half = bytes("feffe9928665731c6d6a8f9467308308");
        let key: [u8; 32] = [half.clone(), half].concat().try_into().unwrap();
        let nonce = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let ad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let mut buffer = bytes(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let plain = buffer.clone();
        let key = AwsLcWithAes.session_key(SUITE_AES, &key);
        let tag = key.seal_in_place(&nonce, &ad, &mut buffer);
        let sealed = concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        );
        assert_eq!(buffer, bytes(sealed));
        assert_eq!(tag.as_slice(), bytes("76fc6ece0f4e1768cddf8853bb2d551b"));
        buffer.extend_from_slice(&tag);
        assert_eq!(key.open_in_place(&nonce, &ad, &mut buffer).unwrap(), plain);
        buffer[3] ^= 1;
        assert_eq!(key.open_in_place(&nonce, &ad, &mut buffer), Err(OpenError));
        assert!(format!("{key:?}").contains("[redacted]"));
    }

    #[test]
    fn aes_is_offered_only_where_it_is_to_be_had() {
        assert_eq!(AeadKind::AwsLc.provider().suites(), [SUITE]);
        assert_eq!(AeadKind::ChaCha20Poly1305.provider_with_aes().suites(), [SUITE]);
        let expected: &[u16] = if processor_has_aes() { &[SUITE_AES, SUITE] } else { &[SUITE] };
        assert_eq!(AeadKind::AwsLc.provider_with_aes().suites(), expected);
    }

    #[test]
    fn names_are_read_back_and_keys_are_not_printed() {
        for kind in AeadKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert!(format!("{:?}", kind.key(&[7; 32])).contains("[redacted]"));
        }
        assert_eq!("aes".parse::<AeadKind>(), Err(UnknownAead));
    }
}
