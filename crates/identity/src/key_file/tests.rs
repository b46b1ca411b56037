use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;

fn saved() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.key");
    Identity::from_seeds(&[1; 32], &[2; 32]).unwrap().save_new(&path).unwrap();
    (directory, path)
}

/// One line that names the file and, in this set, says what to do after a semicolon.
fn assert_is_helpful(error: &KeyFileError, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("; ") && !text.contains('\n'), "{text}");
}

#[test]
fn key_is_read_back_from_a_private_file_with_nothing_left_beside_it() {
    let (directory, path) = saved();
    let loaded = Identity::load(&path).unwrap();
    assert_eq!(loaded.node_id(), Identity::from_seeds(&[1; 32], &[2; 32]).unwrap().node_id());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().len(), u64::try_from(KEY_FILE_LEN).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn existing_file_is_not_overwritten() {
    let (directory, path) = saved();
    let before = fs::read(&path).unwrap();
    let error = Identity::generate().unwrap().save_new(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }));
    assert_is_helpful(&error, &path);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn file_open_to_others_is_refused_with_the_command_that_helps() {
    for mode in [0o640, 0o604, 0o620, 0o601] {
        let (_directory, path) = saved();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Permissions { .. }));
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())));
        assert_is_helpful(&error, &path);
    }
}

#[test]
fn file_of_another_user_is_refused() {
    let (_directory, path) = saved();
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        eprintln!("not run: only root can give a file away");
        return;
    }
    let error = Identity::load(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Owner { owner: 12_345, .. }));
    assert_is_helpful(&error, &path);
}

#[test]
fn missing_file_directory_and_socket_have_their_own_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.key");
    let error = Identity::load(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Missing { .. }));
    assert_is_helpful(&error, &path);

    let error = Identity::load(directory.path()).unwrap_err();
    assert!(matches!(error, KeyFileError::NotAFile { .. }));
    assert_is_helpful(&error, directory.path());

    let _listener = UnixListener::bind(&path).unwrap();
    assert!(matches!(Identity::load(&path), Err(KeyFileError::NotAFile { .. })));
}

#[test]
fn wrong_length_version_and_content_are_told_apart() {
    let (_directory, path) = saved();
    let good = fs::read(&path).unwrap();
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Identity::load(&path).unwrap_err();
        assert_is_helpful(&error, &path);
        error
    };
    for len in 0..good.len() {
        assert!(matches!(load(&good[..len]), KeyFileError::Format { .. }));
    }
    assert!(matches!(load(&[good.as_slice(), &[0]].concat()), KeyFileError::Format { .. }));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let error = load(&bad);
        let expected = match at {
            0..7 => matches!(error, KeyFileError::Format { .. }),
            7 => matches!(error, KeyFileError::Version { version: 0x11, .. }),
            _ => matches!(error, KeyFileError::Checksum { .. }),
        };
        assert!(expected, "byte {at}: {error}");
    }
}

#[test]
fn unwritable_place_is_reported() {
    let path = Path::new("/proc/identity.key");
    let error = Identity::generate().unwrap().save_new(path).unwrap_err();
    assert!(matches!(error, KeyFileError::Write { .. }));
    assert_is_helpful(&error, path);
}
