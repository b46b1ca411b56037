//! The keys that a laboratory daemon made, told through a pipe: what its memory is searched for.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::wait::wait_until;

/// What a recorded secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// A key of ChaCha20-Poly1305: of a session, of the parts or of a box of a handshake.
    Aead,
    /// An X25519 private key.
    Dh,
    /// An ML-KEM-1024 decapsulation key, expanded.
    Kem,
    /// A secret that ML-KEM-1024 gave.
    KemShared,
}

/// One line of the pipe: `serial u64 | kind u8 | state u8 | length u16`, then the secret where it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Counts from zero within a run of a daemon.
    pub serial: u64,
    /// What it is for.
    pub kind: SecretKind,
    /// Whether its owner dropped it.
    pub gone: bool,
    /// Bytes of the secret that follow.
    pub length: u16,
}

/// A secret that a daemon made.
#[derive(Clone)]
pub struct Recorded {
    /// Counts from zero within a run of a daemon.
    pub serial: u64,
    /// What it is for.
    pub kind: SecretKind,
    /// Its owner dropped it; known of [`SecretKind::Aead`] only.
    pub gone: bool,
    /// The secret.
    pub secret: Vec<u8>,
}

/// What a daemon told so far.
#[derive(Debug)]
pub struct KeyLog {
    path: PathBuf,
    records: Arc<Mutex<Vec<Recorded>>>,
}

impl Entry {
    /// Bytes of an entry without the secret.
    pub const LEN: usize = 12;

    /// Returns its bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.serial.to_le_bytes());
        bytes[8] = match self.kind {
            SecretKind::Aead => 0,
            SecretKind::Dh => 1,
            SecretKind::Kem => 2,
            SecretKind::KemShared => 3,
        };
        bytes[9] = u8::from(self.gone);
        bytes[10..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; Self::LEN]) -> Result<Self> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, kind, gone, l0, l1] = bytes;
        let kind = match kind {
            0 => SecretKind::Aead,
            1 => SecretKind::Dh,
            2 => SecretKind::Kem,
            3 => SecretKind::KemShared,
            other => anyhow::bail!("kind of secret {other}"),
        };
        let serial = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        Ok(Self { serial, kind, gone: gone == 1, length: u16::from_le_bytes([l0, l1]) })
    }
}

impl KeyLog {
    /// Makes a pipe for one daemon and reads what comes until the end of this program.
    ///
    /// # Errors
    /// The pipe cannot be made.
    pub fn new(path: PathBuf) -> Result<Self> {
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).context("cannot make a pipe")?;
        // Open for writing too: then it never ends, and opening it waits for nobody.
        let pipe = OpenOptions::new().read(true).write(true).open(&path)?;
        let records = Arc::default();
        let log = Self { path, records: Arc::clone(&records) };
        thread::spawn(move || read_all(pipe, &records));
        Ok(log)
    }

    /// Where the daemon writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything told so far.
    pub fn records(&self) -> Vec<Recorded> {
        lock(&self.records).clone()
    }

    /// Waits until the daemon neither made nor dropped a key for a while, and returns everything.
    ///
    /// # Errors
    /// It goes on doing so.
    pub fn quiet(&self, pause: Duration, limit: Duration) -> Result<Vec<Recorded>> {
        let state = |records: &[Recorded]| (records.len(), records.iter().filter(|r| r.gone).count());
        let mut last = (state(&self.records()), std::time::Instant::now());
        wait_until("an end of new keys", limit, || {
            let records = self.records();
            if state(&records) != last.0 {
                last = (state(&records), std::time::Instant::now());
            }
            Ok((last.1.elapsed() >= pause).then_some(records))
        })
    }
}

fn read_all(mut pipe: File, records: &Mutex<Vec<Recorded>>) {
    while let Ok((entry, secret)) = read_one(&mut pipe) {
        let mut records = lock(records);
        if entry.gone {
            records.iter_mut().filter(|record| record.serial == entry.serial).for_each(|record| {
                record.gone = true;
            });
        } else {
            records.push(Recorded { serial: entry.serial, kind: entry.kind, gone: false, secret });
        }
    }
}

fn read_one(pipe: &mut File) -> Result<(Entry, Vec<u8>)> {
    let mut header = [0; Entry::LEN];
    pipe.read_exact(&mut header)?;
    let entry = Entry::decode(header)?;
    let mut secret = vec![0; usize::from(entry.length)];
    pipe.read_exact(&mut secret)?;
    Ok((entry, secret))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.kind, self.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_read_back() {
        for kind in [SecretKind::Aead, SecretKind::Dh, SecretKind::Kem, SecretKind::KemShared] {
            let entry = Entry { serial: 77, kind, gone: kind == SecretKind::Dh, length: 3168 };
            assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
        }
        assert!(Entry::decode([9; Entry::LEN]).is_err());
    }
}
