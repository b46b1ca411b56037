//! State files: JSON under a line with its checksum, replaced atomically.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use mesh_identity::RosterError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// No state file is larger: a roster and some.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
const MAGIC: &str = "shadowmesh-state/1 sha256 ";

/// Why state could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is not what was written.
    #[error(
        "state file {} is damaged ({what}); restore it from a backup, or remove the state directory to start anew",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file is whole, and younger than this machine's clock says that it can be.
    #[error(
        "state file {} is dated more than a day after this machine's clock; set the clock, then start again",
        path.display()
    )]
    Clock {
        /// Which file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("state file {} is open to others (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system does not let us read it.
    #[error("cannot read the state file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system does not take it.
    #[error("cannot store {}; nothing was changed", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StateError {
    /// Says what is wrong with a stored roster.
    pub(crate) fn of_roster(path: PathBuf, error: &RosterError) -> Self {
        if *error == RosterError::FromTheFuture {
            return Self::Clock { path };
        }
        Self::Damaged { path, what: error.to_string() }
    }
}

/// Loads a file that [`write()`] made; none when there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    // What the error quotes from the file must not break the line that a person reads.
    let printable = |what: &str| what.replace(char::is_control, " ");
    let damaged = |what: &str| StateError::Damaged { path: path.to_owned(), what: printable(what) };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text"))?;
    let (first, body) = text.split_once('\n').ok_or_else(|| damaged("it is cut short"))?;
    let checksum =
        first.strip_prefix(MAGIC).ok_or_else(|| damaged("its first line is not that of a state file"))?;
    if checksum != checksum_of(body.as_bytes()) {
        return Err(damaged("its checksum does not fit"));
    }
    serde_json::from_str(body).map(Some).map_err(|error| damaged(&error.to_string()))
}

/// Stores a value durably, 0600.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let body = Zeroizing::new(serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?);
    let text = Zeroizing::new(format!("{MAGIC}{}\n{}", checksum_of(body.as_bytes()), body.as_str()));
    write_bytes(path, text.as_bytes())
}

/// Loads a bounded file that nobody else may read; none when there is none.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    let failed = |source| StateError::Read { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StateError::Open { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_BYTES || !metadata.is_file() {
        return Err(StateError::Damaged { path: path.to_owned(), what: "it is no state file".into() });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Replaces a file: a new one beside it is written, synced and renamed over it, then the directory is synced.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = replace(path, &beside, bytes);
    if written.is_err() {
        // What is left is a file that was never in force; the error that matters is the first one.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

/// Writes zeros to a file and removes it, whether or not they fit.
pub(super) fn try_room(path: &Path, bytes: usize) -> Result<(), StateError> {
    let written = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(&vec![0; bytes]).and_then(|()| file.sync_all()));
    let removed = fs::remove_file(path);
    written.and(removed).map_err(|source| StateError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, beside: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(beside)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn checksum_of(body: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, body).as_ref())
}

/// Stores an id as its text.
pub(super) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Stores 32 secret bytes as text.
pub mod secret_text {
    use super::{Deserialize, HEXLOWER, Zeroizing};
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    /// Writes the bytes.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(value: &Zeroizing<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(HEXLOWER.encode(&value[..])))
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// When the text is not that of 32 bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<[u8; 32]>, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = HEXLOWER.decode(text.as_bytes()).map(Zeroizing::new).map_err(D::Error::custom)?;
        let mut secret = Zeroizing::new([0; 32]);
        if bytes.len() != secret.len() {
            return Err(D::Error::custom("a secret has 32 bytes"));
        }
        secret.copy_from_slice(&bytes);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_value_is_read_back_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.state");
        assert!(read::<Vec<u32>>(&path).unwrap().is_none());
        write(&path, &vec![1u32, 2]).unwrap();
        write(&path, &vec![3u32]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_change_is_noticed_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.state");
        write(&path, &vec![1u32, 2]).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let error = read::<Vec<u32>>(&path).unwrap_err().to_string();
            assert!(error.contains("a.state"), "{error}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err());
        }
    }

    #[test]
    fn file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.state");
        write(&path, &1u32).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read::<u32>(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn room_is_tried_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        try_room(&dir.path().join("room.new"), 100_000).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(try_room(&dir.path().join("missing/room.new"), 10).is_err());
    }

    #[test]
    fn failed_store_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.state");
        write(&path, &1u32).unwrap();
        fs::create_dir(dir.path().join("a.state.new")).unwrap();
        assert!(write(&path, &2u32).is_err());
        assert_eq!(read::<u32>(&path).unwrap(), Some(1));
    }
}
