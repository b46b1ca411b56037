//! Hashes over several parts.

use aws_lc_rs::digest::{Context, SHA256, SHA512};

/// Returns SHA-512 (FIPS 180-4) of the parts, one after the other.
///
/// The parts are not separated: a caller gives variable lengths a prefix.
#[must_use]
pub fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-512 returns 64 bytes")
}

/// Returns SHA-256 (FIPS 180-4) of the parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 returns 32 bytes")
}
