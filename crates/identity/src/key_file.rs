//! The key file: `"meshkey" | version 1 | ML-DSA-87 seed 32 | Ed25519 seed 32 | checksum 8`.
//!
//! The checksum is the start of `SHA-512("mesh/1 key-file" || everything before it)`. It tells a damaged disk from a
//! changed identity; it protects nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::hash::sha512;
use crate::keys::{Identity, KeyError};

/// Bytes of a key file.
pub const KEY_FILE_LEN: usize = MAGIC.len() + 1 + SEEDS + CHECKSUM;

impl Identity {
    /// Loads an identity from a key file.
    ///
    /// # Errors
    /// [`KeyFileError`] when the file is missing or unreadable, is not a regular file, belongs to another user, lets
    /// its group or others in, or holds anything but one undamaged key.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let at = || path.to_owned();
        let open_error = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                KeyFileError::Missing { path: at() }
            } else {
                KeyFileError::Read { path: at(), source }
            }
        };
        // Looked at before opening, because opening a pipe would wait for its other end.
        if !fs::metadata(path).map_err(open_error)?.is_file() {
            return Err(KeyFileError::NotAFile { path: at() });
        }
        let mut file = File::open(path).map_err(open_error)?;
        check_access(&file, path)?;

        // One byte more than a key file has, to notice a longer one.
        let mut bytes = Zeroizing::new([0; KEY_FILE_LEN + 1]);
        let length = read_up_to(&mut file, bytes.as_mut_slice())
            .map_err(|source| KeyFileError::Read { path: at(), source })?;
        Self::from_joined(decode(&bytes[..length], path)?)
            .map_err(|source| KeyFileError::Key { path: at(), source })
    }

    /// Writes the identity to a new key file with mode 0600, so that after a crash it is there whole or not at all.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] when something has that name already, else [`KeyFileError::Write`].
    pub fn save_new(&self, path: &Path) -> Result<(), KeyFileError> {
        let write_error = |source: io::Error| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::AlreadyExists {
                KeyFileError::Exists { path }
            } else {
                KeyFileError::Write { path, source }
            }
        };
        let temporary = temporary_beside(path).map_err(write_error)?;
        let result = write_synced(&temporary, encode(self.seeds()).as_slice())
            // A link, other than a rename, never replaces a file that is there.
            .and_then(|()| fs::hard_link(&temporary, path));
        let removed = fs::remove_file(&temporary);
        result.and(removed).map_err(write_error)?;
        File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(write_error)
    }
}

/// A key file cannot be used or made. Each message is one line that names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no key file {}; restore it from a backup or enrol this node again", path.display())]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The file cannot be opened or read.
    #[error("cannot read the key file {}; make it readable for the user that this program runs as", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The name is that of a directory, device, pipe or socket.
    #[error("the key file {} is not a regular file; move it away and restore the key", path.display())]
    NotAFile {
        /// The key file.
        path: PathBuf,
    },
    /// Another user owns the file.
    #[error("the key file {} belongs to user id {owner}, this program runs as {user}; run: chown {user} {}", path.display(), path.display())]
    Owner {
        /// The key file.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// Others than the owner have rights on the file.
    #[error("the key file {} has mode {mode:04o}, which lets others in; run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// The file is no key file, or is cut short or too long.
    #[error("{} is not a key file of {KEY_FILE_LEN} bytes; restore it from a backup", path.display())]
    Format {
        /// The key file.
        path: PathBuf,
    },
    /// A newer program wrote the file.
    #[error("the key file {} has version {version}, which this program does not know; update it", path.display())]
    Version {
        /// The key file.
        path: PathBuf,
        /// The version found.
        version: u8,
    },
    /// The checksum is wrong.
    #[error("the key file {} is damaged; restore it from a backup or enrol this node again", path.display())]
    Checksum {
        /// The key file.
        path: PathBuf,
    },
    /// The seeds give no key.
    #[error("cannot use the key in {}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What failed.
        source: KeyError,
    },
    /// The name is taken.
    #[error("{} exists and is not overwritten; move it away first", path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write the key file {}; check free space and the rights on its directory", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn check_access(file: &File, path: &Path) -> Result<(), KeyFileError> {
    let metadata = file.metadata().map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(KeyFileError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]) {
            Ok(0) => return Ok(length),
            Ok(n) => length += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn decode(bytes: &[u8], path: &Path) -> Result<Box<Zeroizing<[u8; SEEDS]>>, KeyFileError> {
    let format = || KeyFileError::Format { path: path.to_owned() };
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(format)?;
    let (&version, rest) = rest.split_first().ok_or_else(format)?;
    if version != VERSION {
        return Err(KeyFileError::Version { path: path.to_owned(), version });
    }
    let (content, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(format)?;
    if rest.len() != SEEDS + CHECKSUM {
        return Err(format());
    }
    if checksum(content) != *sum {
        return Err(KeyFileError::Checksum { path: path.to_owned() });
    }
    let mut seeds = Box::new(Zeroizing::new([0; SEEDS]));
    seeds.copy_from_slice(&rest[..SEEDS]);
    Ok(seeds)
}

fn encode(seeds: &[u8; SEEDS]) -> Box<Zeroizing<[u8; KEY_FILE_LEN]>> {
    let mut bytes = Box::new(Zeroizing::new([0; KEY_FILE_LEN]));
    let (content, sum) = bytes.split_at_mut(KEY_FILE_LEN - CHECKSUM);
    content[..MAGIC.len()].copy_from_slice(MAGIC);
    content[MAGIC.len()] = VERSION;
    content[MAGIC.len() + 1..].copy_from_slice(seeds);
    sum.copy_from_slice(&checksum(content));
    bytes
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| io::Error::other("the system gave no random bytes"))?;
    Ok(directory_of(path).join(format!(".key-{}", HEXLOWER.encode(&random))))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    *sha512(&[b"mesh/1 key-file", content]).first_chunk().expect("64 bytes begin with 8 bytes")
}

const MAGIC: &[u8; 7] = b"meshkey";
const VERSION: u8 = 1;
const SEEDS: usize = 64;
const CHECKSUM: usize = 8;

#[cfg(test)]
mod tests;
