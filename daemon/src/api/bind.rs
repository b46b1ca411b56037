//! The socket file: made with the right owner and mode before anyone can connect.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tracing::warn;

/// Makes the socket at `path`, mode 0660, and gives it to `group` where that group exists.
///
/// A missing directory is made with mode 0755. A socket file that nobody listens on is replaced; it is what a killed
/// daemon leaves behind. The mode is set before the socket listens, so nobody connects earlier than the mode allows.
/// Must be called inside a tokio runtime.
///
/// # Errors
/// When a daemon listens there already, the path is no socket or too long, or the system refuses.
pub fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, BindError> {
    let address = address(path)?;
    make_directory(path)?;
    remove_stale(path, &address)?;

    let fail = |step| move |source| BindError::System { path: path.to_owned(), step, source };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail("create"))?;
    socket.bind(&address).map_err(fail("bind"))?;
    give_to_group(path, group);
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(fail("set the mode of"))?;
    socket.listen(BACKLOG).map_err(fail("listen on"))?;
    socket.set_nonblocking(true).map_err(fail("set up"))?;
    UnixListener::from_std(socket.into()).map_err(fail("watch"))
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("a daemon already listens on {}; use --socket to name another path", path.display())]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// Something else stands at the path and is left alone.
    #[error("{} exists and is no socket; remove it or use --socket to name another path", path.display())]
    NotASocket {
        /// The path of the socket.
        path: PathBuf,
    },
    /// Unix socket addresses have room for 107 bytes.
    #[error("the socket path {} has {length} bytes and may have {PATH_LIMIT}; use --socket to name a shorter one", path.display())]
    TooLong {
        /// The path of the socket.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The directory of the socket is missing and could not be made.
    #[error("failed to create the directory {} for the socket", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A system call failed.
    #[error("failed to {step} the socket {}", path.display())]
    System {
        /// The path of the socket.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

fn address(path: &Path) -> Result<SockAddr, BindError> {
    let length = path.as_os_str().len();
    if length > PATH_LIMIT {
        return Err(BindError::TooLong { path: path.to_owned(), length });
    }
    SockAddr::unix(path).map_err(|source| BindError::System { path: path.to_owned(), step: "name", source })
}

fn make_directory(path: &Path) -> Result<(), BindError> {
    let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    // The umask may have taken bits away that the group needs to reach the socket.
    made.and_then(|()| fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)))
        .map_err(|source| BindError::Directory { directory: directory.to_owned(), source })
}

/// Removes a socket file whose daemon is gone; leaves everything else as it is.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let fail = |step| move |source| BindError::System { path: path.to_owned(), step, source };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("look at")(error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail("probe"))?;
    probe.set_nonblocking(true).map_err(fail("probe"))?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(fail("replace"))
        }
        // A full backlog (EAGAIN) has a listener behind it as well.
        Ok(()) => Err(BindError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::InUse { path: path.to_owned() })
        }
        Err(error) => Err(fail("probe")(error)),
    }
}

/// A missing group, or one that this user may not give the file to, leaves the socket to the daemon's own user: less
/// reachable than wished, never more.
fn give_to_group(path: &Path, group: Option<&str>) {
    let Some(name) = group else { return };
    let given = match Group::from_name(name) {
        Ok(Some(group)) => std::os::unix::fs::lchown(path, None, Some(group.gid.as_raw())),
        Ok(None) => Err(io::Error::new(io::ErrorKind::NotFound, "no such group")),
        Err(errno) => Err(errno.into()),
    };
    if let Err(error) = given {
        warn!(group = name, reason = %error, "the socket was not given to its group");
    }
}

const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o755;

/// Connections wait here only for the moment until `serve` takes them.
const BACKLOG: i32 = 64;

/// `sun_path` has 108 bytes, of which one ends the text.
const PATH_LIMIT: usize = 107;
