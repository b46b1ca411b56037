//! What survives a restart: the node's keys, its membership, and the coordinator's ledger.
//!
//! Files of the state directory (0700): `identity.key` and `root.key` (seeds), `network.state` (membership and
//! secrets), `roster.bin` (signed), `ledger.state` (coordinator: invitations and the roster they led to, one file so
//! that a use of an invitation and the admission it led to are one durable step), `lock`.
//!
//! Invariants: a file is replaced whole or not at all; a damaged one is reported by name and never replaced.

mod file;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use mesh_identity::{Identity, Roster, UnixSeconds};
use mesh_session::ProviderKind;
use mesh_wire::{NetId, Pin, RelayUrl};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};
use zeroize::Zeroizing;

pub use self::file::{StateError, secret_text};

/// Bytes that a membership may take: the largest roster, and the secrets beside it.
const ROOM: usize = mesh_wire::limits::ROSTER + 64 * 1024;

/// The state directory of one daemon, locked against a second one.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    provider: ProviderKind,
    _lock: Flock<File>,
}

/// A node's membership as stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredMembership {
    #[serde(with = "file::as_text")]
    net: NetId,
    #[serde(with = "secret_text")]
    network_secret: Zeroizing<[u8; 32]>,
    secret_epoch: u32,
    relay: String,
    #[serde(with = "file::as_text")]
    pin: Pin,
    /// Whether the daemon comes up by itself.
    up: bool,
}

/// A node's membership.
#[derive(Clone)]
pub struct Membership {
    /// The network.
    pub net: NetId,
    /// The secret all members share.
    pub network_secret: Zeroizing<[u8; 32]>,
    /// The number of that secret.
    pub secret_epoch: u32,
    /// The relay to meet at.
    pub relay: RelayUrl,
    /// The relay's key.
    pub pin: Pin,
    /// Whether the daemon comes up by itself.
    pub up: bool,
    /// Who is a member, as last heard.
    pub roster: Arc<Roster>,
}

impl StateDir {
    /// Opens the directory, making it where it is missing, and locks it.
    ///
    /// # Errors
    /// One line that names the path and what to do.
    pub fn open(dir: &Path, provider: ProviderKind) -> anyhow::Result<Self> {
        let name = dir.display();
        match fs::DirBuilder::new().mode(0o700).recursive(true).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| {
                    format!("cannot make the state directory {name}; name another one with --state-dir")
                });
            }
            _ => {}
        }
        check_access(dir)?;
        let path = dir.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write in the state directory {name}"))?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!(
                "another meshd uses the state directory {name}; stop it, or name another directory with --state-dir"
            );
        };
        sweep(dir).with_context(|| format!("cannot clear the state directory {name} of unfinished files"))?;
        Ok(Self { dir: dir.to_owned(), provider, _lock: lock })
    }

    /// Loads the node's keys, or makes them at the first start.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        self.keys("identity.key", true)?.context("keys were just made")
    }

    /// Loads the keys of the network's root, where this node holds them.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn root(&self) -> anyhow::Result<Option<Identity>> {
        self.keys("root.key", false)
    }

    /// Stores the keys of a new network's root.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn store_root(&self, root: &Identity) -> anyhow::Result<()> {
        Ok(blocking(|| root.save_new(&self.path("root.key")))?)
    }

    /// Loads the membership; none for a node that is in no network.
    ///
    /// # Errors
    /// [`StateError`] that names the damaged file; nothing is changed.
    pub fn membership(&self, now: u64) -> Result<Option<Membership>, StateError> {
        let path = self.path("network.state");
        let Some(stored) = file::read::<StoredMembership>(&path)? else { return Ok(None) };
        let roster = self.roster(stored.net, now)?;
        let (relay, _) = RelayUrl::parse_with_pin(&stored.relay)
            .map_err(|error| StateError::Damaged { path, what: error.to_string() })?;
        Ok(Some(Membership {
            net: stored.net,
            network_secret: stored.network_secret,
            secret_epoch: stored.secret_epoch,
            relay,
            pin: stored.pin,
            up: stored.up,
            roster,
        }))
    }

    /// Stores a membership. The roster goes first, so that a membership never stands without one.
    ///
    /// # Errors
    /// [`StateError`] when the disk does not take it; what stood there before still stands.
    pub fn store_membership(&self, membership: &Membership) -> Result<(), StateError> {
        self.store_roster(&membership.roster)?;
        let stored = StoredMembership {
            net: membership.net,
            network_secret: membership.network_secret.clone(),
            secret_epoch: membership.secret_epoch,
            relay: membership.relay.to_string(),
            pin: membership.pin,
            up: membership.up,
        };
        blocking(|| file::write(&self.path("network.state"), &stored))
    }

    /// Finds out that a membership could be stored, before a ticket is used for it: writes as much as the largest roster
    /// takes, and removes it again.
    ///
    /// # Errors
    /// [`StateError::Write`] with the system's reason, such as a full disk.
    pub fn check_room(&self) -> Result<(), StateError> {
        blocking(|| file::try_room(&self.path("room.new"), ROOM))
    }

    /// Stores a newer roster.
    ///
    /// # Errors
    /// [`StateError`] when the disk does not take it; the older roster still stands.
    pub fn store_roster(&self, roster: &Roster) -> Result<(), StateError> {
        blocking(|| file::write_bytes(&self.path("roster.bin"), roster.encode()))
    }

    /// Returns the path of a file in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Loads a state file of another part of the daemon.
    ///
    /// # Errors
    /// [`StateError`] that names the damaged file.
    pub fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, StateError> {
        file::read(&self.path(name))
    }

    /// Stores a state file of another part of the daemon, durably.
    ///
    /// # Errors
    /// [`StateError`] when the disk does not take it; what stood there before still stands.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        blocking(|| file::write(&self.path(name), value))
    }

    fn roster(&self, net: NetId, now: u64) -> Result<Arc<Roster>, StateError> {
        let path = self.path("roster.bin");
        let bytes = file::read_bytes(&path)?
            .ok_or_else(|| StateError::Damaged { path: path.clone(), what: "it is missing".into() })?;
        let roster = Roster::verify(&bytes, net, UnixSeconds(now))
            .map_err(|error| StateError::of_roster(path, &error))?;
        Ok(Arc::new(roster))
    }

    fn keys(&self, name: &str, make: bool) -> anyhow::Result<Option<Identity>> {
        let path = self.path(name);
        if !path.exists() {
            if !make {
                return Ok(None);
            }
            if self.path("network.state").exists() {
                bail!(
                    "{} is missing although this node is in a network; restore it from a backup, or remove {} to start anew",
                    path.display(),
                    self.dir.display()
                );
            }
            Identity::generate()?.save_new(&path)?;
        }
        let identity = Identity::load(&path)?;
        Ok(Some(identity.with_signer(self.provider.provider().signer())))
    }
}

/// Refuses a directory in which others could replace the files.
fn check_access(dir: &Path) -> anyhow::Result<()> {
    let name = dir.display();
    let metadata = fs::metadata(dir).with_context(|| format!("cannot look at the state directory {name}"))?;
    let (owner, user) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if !metadata.is_dir() {
        bail!("{name} is no directory; name another state directory with --state-dir");
    }
    if owner != user {
        bail!(
            "the state directory {name} belongs to user id {owner}, this program runs as {user}; run: chown -R {user} {name}"
        );
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        bail!("others may write in the state directory {name} (mode {mode:03o}); run: chmod 700 {name}");
    }
    Ok(())
}

/// Removes what a crash left half written; it holds secrets and was never in force. Only for the holder of the lock.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let unfinished =
            name.to_str().is_some_and(|name| name.starts_with(".key-") || name.ends_with(".new"));
        if unfinished && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Waits for the disk without holding up the other tasks of the thread, where the runtime has other threads.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("net", &self.net)
            .field("secrets", &"[redacted]")
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StoredMembership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredMembership").field("net", &self.net).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
