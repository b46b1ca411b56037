use std::os::unix::fs::PermissionsExt;

use super::*;

fn open(dir: &Path) -> anyhow::Result<StateDir> {
    StateDir::open(dir, ProviderKind::AwsLc)
}

fn refusal(dir: &Path) -> String {
    format!("{:#}", open(dir).unwrap_err())
}

#[test]
fn second_daemon_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(refusal(dir.path()).contains("another meshd uses"));
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn directory_that_others_may_write_in_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o702, 0o777] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert!(refusal(dir.path()).contains("chmod 700"));
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn file_in_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    fs::write(&path, "").unwrap();
    assert!(refusal(&path).contains("--state-dir"));
}

#[test]
fn leftovers_of_a_crash_are_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".key-0011", "ledger.state.new", "ledger.state", "notes"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::create_dir(dir.path().join("dir.new")).unwrap();
    let _state = open(dir.path()).unwrap();
    let mut left: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["dir.new", "ledger.state", "lock", "notes"]);
}

#[test]
fn keys_are_made_once_and_missed_in_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    let id = state.identity().unwrap().node_id();
    assert_eq!(state.identity().unwrap().node_id(), id);
    assert!(state.root().unwrap().is_none());
    fs::write(state.path("network.state"), "").unwrap();
    fs::remove_file(state.path("identity.key")).unwrap();
    assert!(format!("{:#}", state.identity().unwrap_err()).contains("restore it from a backup"));
}

#[test]
fn damaged_membership_names_its_file_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    assert!(state.membership(0).unwrap().is_none());
    let path = state.path("network.state");
    fs::write(&path, "shadowmesh").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = state.membership(0).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }) && error.to_string().contains("network.state"));
    assert_eq!(fs::read(&path).unwrap(), b"shadowmesh");
}
