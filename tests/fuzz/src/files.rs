//! Files of the state directory, as a damaged disk or another program leaves them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64, HEXLOWER};
use mesh_identity::{Identity, KEY_FILE_LEN, sha512};
use mesh_session::ProviderKind;
use meshd::coordinator::Ledger;
use meshd::state::StateDir;

use crate::input::Input;
use crate::world::{UNIX, world};

/// Loads the bytes as a key file and as each state file, with and without the checksum that the fuzzer cannot guess.
pub fn files(data: &[u8]) {
    thread_local! {
        static DIR: (tempfile::TempDir, StateDir) = open();
    }
    DIR.with(|(dir, state)| {
        let mut input = Input::new(data);
        let choice = input.u8();
        let rest = input.rest();
        match choice % 6 {
            0 => key(dir.path(), rest),
            1 => key(dir.path(), &with_key_sum(rest)),
            2 => membership(dir.path(), state, rest),
            3 => membership(dir.path(), state, &with_state_sum(rest)),
            4 => ledger(dir.path(), state, rest),
            _ => ledger(dir.path(), state, &with_state_sum(&fill_in(rest))),
        }
    });
}

fn open() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().expect("the system has room for a directory");
    let state = StateDir::open(dir.path(), ProviderKind::AwsLc).expect("a new directory is free");
    store(&dir.path().join("roster.bin"), world().roster.encode());
    (dir, state)
}

/// A key file is read back as it was written.
fn key(dir: &Path, data: &[u8]) {
    let path = dir.join("identity.key");
    store(&path, data);
    match Identity::load(&path) {
        Ok(identity) => {
            assert_eq!(data.len(), KEY_FILE_LEN, "a key file has one length");
            let copy = dir.join("copy.key");
            identity.save_new(&copy).expect("there is room");
            assert_eq!(fs::read(&copy).ok().as_deref(), Some(data), "a key file has one encoding");
            fs::remove_file(&copy).expect("the file was just made");
        }
        Err(error) => one_line(&error.to_string(), "identity.key"),
    }
}

fn membership(dir: &Path, state: &StateDir, data: &[u8]) {
    store(&dir.join("network.state"), data);
    match state.membership(UNIX) {
        Ok(membership) => {
            let membership = membership.expect("the file is there");
            assert_eq!(membership.roster.net(), membership.net, "a roster of another network");
            assert_eq!(membership.net, world().root.net_id());
            state.store_membership(&membership).expect("there is room");
            let back = state.membership(UNIX).expect("what was stored is whole");
            assert!(back.is_some_and(|back| back.network_secret == membership.network_secret
                && back.relay == membership.relay
                && back.pin == membership.pin));
        }
        Err(error) => one_line(&error.to_string(), "state"),
    }
    fs::remove_file(dir.join("network.state")).expect("the file was just made");
}

fn ledger(dir: &Path, state: &StateDir, data: &[u8]) {
    store(&dir.join(Ledger::FILE), data);
    match Ledger::load(state, world().root.net_id(), UNIX) {
        Ok(ledger) => {
            let ledger = ledger.expect("the file is there");
            assert!(ledger.roster().version() <= world().roster.version(), "a roster that nobody signed");
            ledger.store(state).expect("there is room");
            let stored = fs::read(dir.join(Ledger::FILE)).ok();
            let back = Ledger::load(state, world().root.net_id(), UNIX).expect("what was stored is whole");
            back.expect("the file is there").store(state).expect("there is room");
            assert_eq!(fs::read(dir.join(Ledger::FILE)).ok(), stored, "a ledger changes by being loaded");
        }
        Err(error) => one_line(&error.to_string(), Ledger::FILE),
    }
    fs::remove_file(dir.join(Ledger::FILE)).expect("the file was just made");
}

/// An operator reads one line, which names the file.
fn one_line(message: &str, file: &str) {
    assert!(message.contains(file) && !message.contains('\n'), "{message}");
}

fn store(path: &Path, bytes: &[u8]) {
    let opened = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).expect("there is room");
}

/// Returns a key file of these 64 bytes.
pub(crate) fn with_key_sum(seeds: &[u8]) -> Vec<u8> {
    let mut bytes = [b"meshkey\x01", seeds].concat();
    let sum = sha512(&[b"mesh/1 key-file", &bytes]);
    bytes.extend_from_slice(&sum[..8]);
    bytes
}

/// Returns a state file of this text.
pub(crate) fn with_state_sum(body: &[u8]) -> Vec<u8> {
    let sum = HEXLOWER.encode(digest(&SHA256, body).as_ref());
    [format!("shadowmesh-state/1 sha256 {sum}\n").as_bytes(), body].concat()
}

/// Puts the genuine roster where the text says `ROSTER`: twenty kilobytes that the fuzzer need not carry along.
fn fill_in(body: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(body) else { return body.to_vec() };
    text.replacen("ROSTER", &BASE64.encode(world().roster.encode()), 1).into_bytes()
}
