//! HKDF-SHA-512 (RFC 5869), SHA-512 and HMAC-SHA-512.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hkdf, hmac};
pub use mesh_identity::sha512;

use crate::secret::Secret;

/// A pseudorandom key: the result of HKDF-Extract, wiped on drop and never printed.
pub struct Prk(Secret<64>);

/// Returns HKDF-Extract (RFC 5869, section 2.2) over the parts of `ikm`, one after the other.
///
/// The parts are not separated: a caller gives variable lengths a prefix.
#[must_use]
pub fn extract(salt: &[u8], ikm: &[&[u8]]) -> Prk {
    let mut prk = Secret::zero();
    prk.copy_from_slice(hmac_sha512(salt, ikm).as_ref());
    Prk(prk)
}

impl Prk {
    /// Returns `N` bytes of HKDF-Expand (RFC 5869, section 2.3) with the bytes of `label` as info.
    #[must_use]
    pub fn expand<const N: usize>(&self, label: &str) -> Secret<N> {
        const { assert!(N <= MAX_OUTPUT, "HKDF-SHA-512 gives at most 16,320 bytes") };
        let mut out = Secret::zero();
        self.expand_into(label.as_bytes(), out.as_mut_slice()).expect("the length is within the limit");
        out
    }

    /// Returns `N` bytes as [`Prk::expand`] does, for what is no secret: ids that are sent or shown.
    #[must_use]
    pub fn expand_public<const N: usize>(&self, label: &str) -> [u8; N] {
        const { assert!(N <= MAX_OUTPUT, "HKDF-SHA-512 gives at most 16,320 bytes") };
        let mut out = [0; N];
        self.expand_into(label.as_bytes(), &mut out).expect("the length is within the limit");
        out
    }

    /// Fills `out` from HKDF-Expand (RFC 5869, section 2.3).
    ///
    /// # Errors
    /// [`OutputTooLong`] above 255 times 64 bytes.
    pub fn expand_into(&self, info: &[u8], out: &mut [u8]) -> Result<(), OutputTooLong> {
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA512, self.0.as_slice());
        prk.expand(&[info], Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| OutputTooLong)
    }
}

impl fmt::Debug for Prk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prk([redacted])")
    }
}

/// Returns HMAC-SHA-512 (RFC 2104) over the parts, one after the other, cut to 16 bytes.
#[must_use]
pub fn hmac_sha512_16(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    *hmac_sha512(key, parts).as_ref().first_chunk().expect("64 bytes begin with 16 bytes")
}

/// Tells whether two strings are equal, in a time that depends on their lengths alone.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// HKDF-SHA-512 was asked for more than 16,320 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HKDF-SHA-512 gives at most 16,320 bytes")]
pub struct OutputTooLong;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn hmac_sha512(key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// Most bytes of one expansion: 255 blocks of 64 bytes (RFC 5869, section 2.3).
const MAX_OUTPUT: usize = 255 * 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_string() {
        let whole = extract(b"salt", &[b"abc"]).expand::<32>("label");
        assert_eq!(extract(b"salt", &[b"a", b"", b"bc"]).expand::<32>("label"), whole);
        assert_ne!(extract(b"salt", &[b"abc"]).expand::<32>("other"), whole);
        assert_eq!(hmac_sha512_16(b"k", &[b"ab", b"c"]), hmac_sha512_16(b"k", &[b"abc"]));
        assert_eq!(sha512(&[b"ab", b"c"]), sha512(&[b"abc"]));
    }

    #[test]
    fn comparison_sees_content_and_length() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
    }

    #[test]
    fn too_long_an_output_is_refused() {
        assert_eq!(extract(b"", &[b"x"]).expand_into(b"", &mut [0; 16_321]), Err(OutputTooLong));
    }
}
