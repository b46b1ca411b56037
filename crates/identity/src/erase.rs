//! Erasure of what computations with secrets leave on the stack.
//!
//! Values of ours live in boxes that are wiped in place. Libraries, though, return secrets by value and keep copies in
//! frames that nobody clears: `pqcrypto` all its keys, `aws-lc-rs` the results of HMAC, AWS-LC the key of each
//! ChaCha20-Poly1305 call, the optimiser whatever it spills. Such copies stay until a later call happens to run over
//! them. Here a call is made to.

use std::hint::black_box;

/// Runs `work` and then overwrites the stack below it. What `work` returns must hold its secrets in boxes.
#[inline(never)]
pub fn erased<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe_stack();
    result
}

/// Overwrites the next 256 KiB of this thread's stack.
///
/// Copies above the caller stay: call it nearer to the beginning of the stack than any use of the secrets.
#[inline(never)]
pub fn wipe_stack() {
    let mut area = [0_u8; DEPTH];
    // Seen by something that the optimiser cannot look into, the zeros have to be written.
    black_box(&mut area);
}

/// Keeps the frame of `work` below that of its caller.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Signing with ML-DSA-87 takes about 130 KiB in either library, the deepest of all that is called; threads of Rust have
/// 2 MiB.
const DEPTH: usize = 256 * 1024;
