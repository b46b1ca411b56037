//! Secrets of fixed length.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

use crate::kdf::constant_time_eq;

/// `N` secret bytes in a box of their own: moved without a copy, wiped on drop, never printed, compared in constant
/// time. A box of zeros is made first and filled in place.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Makes a box of zeros, to be filled in place.
    #[must_use]
    pub fn zero() -> Self {
        Self(Box::new([0; N]))
    }

    /// Copies a secret; the caller wipes its own copy.
    #[must_use]
    pub fn copy(bytes: &[u8; N]) -> Self {
        let mut secret = Self::zero();
        secret.0.copy_from_slice(bytes);
        secret
    }
}

impl<const N: usize> Deref for Secret<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Secret<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        #[cfg(test)]
        crate::erasure::remember(self.0.as_slice());
        self.0.zeroize();
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.as_slice(), other.as_slice())
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
