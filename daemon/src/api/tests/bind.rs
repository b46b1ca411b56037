//! What may stand at the path of the socket.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use nix::unistd::{Group, geteuid};
use tempfile::TempDir;
use tokio::net::UnixStream;

use crate::api::{BindError, bind};

#[tokio::test]
async fn socket_is_for_owner_and_group_and_its_directory_for_all_to_pass() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("run/shadowmesh/meshd.sock");
    let _listener = bind(&path, None).unwrap();
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(path.parent().unwrap()), 0o755);
}

#[tokio::test]
async fn socket_goes_to_the_group() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root may give a file to any group");
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    let group = Group::from_name("daemon").unwrap().expect("Debian has this group").gid.as_raw();
    let _listener = bind(&path, Some("daemon")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().gid(), group);
}

#[tokio::test]
async fn missing_group_keeps_the_socket_to_the_owner() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    let _listener = bind(&path, Some("no-such-group-here")).unwrap();
    assert_eq!(mode(&path), 0o660);
    assert_eq!(fs::metadata(&path).unwrap().uid(), geteuid().as_raw());
}

#[tokio::test]
async fn abandoned_socket_is_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    drop(StdListener::bind(&path).unwrap());
    let _listener = bind(&path, None).unwrap();
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn living_daemon_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    let _first = bind(&path, None).unwrap();
    let error = bind(&path, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("a daemon already listens on {}; use --socket to name another path", path.display())
    );
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn anything_else_at_the_path_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "precious").unwrap();
    symlink(directory.path().join("elsewhere"), &link).unwrap();
    for path in [&file, &link, &directory.path().to_owned()] {
        let error = bind(path, None).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn path_that_is_too_long_is_refused_with_its_length() {
    let path = Path::new("/tmp").join("x".repeat(104));
    let error = bind(&path, None).unwrap_err();
    assert!(matches!(error, BindError::TooLong { length: 109, .. }), "{error}");
}

#[tokio::test]
async fn directory_that_cannot_be_made_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = bind(&file.join("run/s"), None).unwrap_err();
    assert!(matches!(error, BindError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("file/run"), "{error}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
