//! What is left of keys in the memory of a daemon, and what keeps its memory from the disk.
//!
//! Searched for are the halves of every 32-byte secret, and the parts of every decapsulation key, packed as it is
//! stored and spread out as it is computed with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Mesh, MeshOptions, Needles, Process, Recorded, Search, SecretKind, scenario, wait_until};
use mesh_session::EphemeralSecret;
use nix::sys::signal::Signal;

use crate::keyed::{HANDSHAKE, Pair, REJECT, REKEY};

#[test]
fn erased_keys_are_gone_with_the_default_libraries() {
    scenario("erased_keys_are_gone_with_the_default_libraries", |lab| {
        erased_keys_are_gone(&mut Pair::new(lab, |_, _| Ok(String::new()))?)
    });
}

#[test]
fn erased_keys_are_gone_with_the_portable_libraries() {
    scenario("erased_keys_are_gone_with_the_portable_libraries", |lab| {
        let portable = "[crypto]\nprovider = \"pqcrypto\"\naead = \"chacha20poly1305\"\n";
        erased_keys_are_gone(&mut Pair::new(lab, |_, _| Ok(portable.into()))?)
    });
}

fn erased_keys_are_gone(pair: &mut Pair<'_>) -> Result<()> {
    let address = pair.mesh.nodes[1].ipv4()?;
    let pings = pair.mesh.nodes[0].host().run("ping").args(["-n", "-i", "0.1", &address]).spawn("ping")?;
    // A handshake at the enrolment, one between the nodes, four rekeys, a handshake at the end of the chain and a rekey.
    wait_until("eight exchanges on both nodes", HANDSHAKE + REKEY * 12, || {
        let enough = pair.logs.iter().all(|log| of_kind(&log.records(), SecretKind::Dh).len() >= 8);
        Ok(enough.then_some(()))
    })?;
    for place in [0, 1] {
        in_use(pair, place)?;
    }
    drop(pings);
    pair.mesh.nodes[0].ctl(&["down"])?.success()?;
    for place in [0, 1] {
        at_rest(pair, place)?;
    }
    // What is in use all the time is there, which also shows that a daemon at rest was searched in earnest.
    for place in [0, 1] {
        identities(&mut pair.mesh.nodes[place])?;
    }
    Ok(())
}

/// While packets flow: the keys in use are found, and no key that was replaced.
fn in_use(pair: &mut Pair<'_>, place: usize) -> Result<()> {
    // A handshake makes the keys of its boxes for each use and holds them until it ends: so look between exchanges.
    let before = pair.logs[place].quiet(Duration::from_secs(1), HANDSHAKE * 2)?;
    let shared = agreed(pair)?;
    let mut wanted = Wanted::default();
    for record in of_kind(&before, SecretKind::Aead) {
        wanted.secret(if record.gone { "replaced" } else { "live" }, record);
    }
    for kind in [SecretKind::Dh, SecretKind::Kem, SecretKind::KemShared] {
        // The newest may belong to an exchange that goes on.
        let made = of_kind(&before, kind);
        for record in &made[..made.len().saturating_sub(UNDER_WAY)] {
            wanted.secret("finished", record);
        }
    }
    for secret in &shared {
        wanted.shared(secret);
    }
    let found = wanted.search(pair.mesh.nodes[place].process()?)?;
    let after = pair.logs[place].records();
    let live: Vec<_> = of_kind(&after, SecretKind::Aead)
        .into_iter()
        .filter(|key| !key.gone && before.iter().any(|earlier| earlier.serial == key.serial))
        .map(|key| format!("live {key:?}"))
        .collect();
    ensure!(live.len() >= 2, "a session has two keys at least: {live:?}");
    for name in &live {
        ensure!(
            found.contains_key(name),
            "{name} is in use and was not found: the search is blind; {found:?}"
        );
    }
    let left: Vec<_> = found.iter().filter(|(name, _)| !name.starts_with("live")).collect();
    ensure!(left.is_empty(), "in memory while it runs: {left:#?}");
    Ok(())
}

/// Once the sessions ended: nothing of any of them.
fn at_rest(pair: &mut Pair<'_>, place: usize) -> Result<()> {
    wait_until("the end of all sessions", REJECT * 2, || {
        let records = pair.logs[place].records();
        Ok(of_kind(&records, SecretKind::Aead).iter().all(|key| key.gone).then_some(()))
    })?;
    let records = pair.logs[place].quiet(Duration::from_secs(2), REJECT * 2)?;
    let mut wanted = Wanted::default();
    for record in &records {
        wanted.secret("ended", record);
    }
    for secret in &agreed(pair)? {
        wanted.shared(secret);
    }
    let found = wanted.search(pair.mesh.nodes[place].process()?)?;
    ensure!(found.is_empty(), "in memory at rest: {found:#?}");
    Ok(())
}

/// The seeds of the node's keys: ours, and what AWS-LC keeps of each.
fn identities(node: &mut Daemon) -> Result<()> {
    let file = fs::read(node.state_dir().join("identity.key"))?;
    let seeds: [&[u8]; 2] = [&file[8..40], &file[40..72]];
    let mut needles = Needles::default();
    for (label, seed) in seeds.into_iter().enumerate() {
        needles.add(label, seed);
    }
    let search = needles.search(node.process()?)?;
    for label in [0, 1] {
        let copies = search.hits.iter().filter(|hit| hit.label == label).count();
        ensure!((1..=2).contains(&copies), "{copies} copies of seed {label}: {:?}", search.hits);
    }
    Ok(())
}

#[derive(Default)]
struct Wanted {
    needles: Needles,
    names: Vec<String>,
}

impl Wanted {
    fn secret(&mut self, state: &str, record: &Recorded) {
        let name = format!("{state} {record:?}");
        match record.kind {
            SecretKind::Aead | SecretKind::KemShared => self.halves(name, &record.secret),
            SecretKind::Dh => {
                // Between its ends, which are changed before a private key is used (RFC 7748, section 5).
                self.windows(name, [&record.secret[1..17], &record.secret[15..31]]);
            }
            SecretKind::Kem => {
                // The key for decryption; the encapsulation key and its hash; the seed of implicit rejection.
                let (key, rest) = record.secret.split_at(1536);
                self.windows(format!("{name} packed"), key.chunks_exact(32));
                let spread: Vec<Vec<u8>> = key.chunks_exact(24).map(coefficients).collect();
                self.windows(format!("{name} spread"), spread.iter().map(Vec::as_slice));
                self.halves(format!("{name} seed"), &rest[rest.len() - 32..]);
            }
        }
    }

    fn shared(&mut self, secret: &[u8; 32]) {
        self.halves("agreed by X25519".into(), secret);
    }

    fn halves(&mut self, name: String, secret: &[u8]) {
        self.windows(name, secret.chunks_exact(16));
    }

    fn windows<'a>(&mut self, name: String, windows: impl IntoIterator<Item = &'a [u8]>) {
        for window in windows {
            self.needles.add(self.names.len(), window);
        }
        self.names.push(name);
    }

    /// Names what was found, with the places.
    fn search(&self, process: &Process) -> Result<BTreeMap<String, Vec<String>>> {
        let Search { hits, .. } = self.needles.search(process)?;
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for hit in hits {
            let place = format!("{:x} in {}", hit.address, hit.mapping);
            found.entry(self.names[hit.label].clone()).or_default().push(place);
        }
        Ok(found)
    }
}

/// Sixteen coefficients of twelve bits as numbers of sixteen bits (FIPS 203, algorithm 6).
fn coefficients(packed: &[u8]) -> Vec<u8> {
    let mut spread = Vec::new();
    for bytes in packed.chunks_exact(3) {
        let [low, middle, high] = [bytes[0], bytes[1], bytes[2]].map(u16::from);
        spread.extend_from_slice(&(low | (middle & 0x0f) << 8).to_le_bytes());
        spread.extend_from_slice(&(middle >> 4 | high << 4).to_le_bytes());
    }
    spread
}

/// What any key of the one node agrees with any of the other.
fn agreed(pair: &Pair<'_>) -> Result<Vec<[u8; 32]>> {
    let [ours, theirs] = pair.logs.each_ref().map(|log| of_kind_owned(&log.records(), SecretKind::Dh));
    let mut secrets = Vec::new();
    for one in &ours[..ours.len().saturating_sub(UNDER_WAY)] {
        let one = EphemeralSecret::from_bytes(one.first_chunk().context("a private key is 32 bytes")?);
        for other in &theirs[..theirs.len().saturating_sub(UNDER_WAY)] {
            let other =
                EphemeralSecret::from_bytes(other.first_chunk().context("a private key is 32 bytes")?);
            secrets.push(*one.agree(&other.public()?)?);
        }
    }
    Ok(secrets)
}

fn of_kind(records: &[Recorded], kind: SecretKind) -> Vec<&Recorded> {
    records.iter().filter(|record| record.kind == kind).collect()
}

fn of_kind_owned(records: &[Recorded], kind: SecretKind) -> Vec<Vec<u8>> {
    of_kind(records, kind).into_iter().map(|record| record.secret.clone()).collect()
}

#[test]
fn memory_stays_in_memory() {
    scenario("memory_stays_in_memory", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop"], &MeshOptions::default())?;
        let dir = mesh.nodes[0].dir().to_owned();
        let process = mesh.nodes[0].process()?;
        let proc = format!("/proc/{}", process.pid());
        let limits = fs::read_to_string(format!("{proc}/limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        let locked = process.locked_kib()?;
        if may_lock(&limits)? {
            assert!(locked > 0, "no memory is locked");
            // Locking takes what is used, not all that is mapped: thread stacks alone are 2 MiB each.
            assert!(process.rss_kib()? < locked, "{} KiB resident of {locked}", process.rss_kib()?);
        } else {
            assert_eq!(locked, 0, "a limit binds, so nothing may be locked");
        }
        process.signal(Signal::SIGABRT)?;
        let status = process.wait(Duration::from_secs(10))?;
        assert!(!format!("{status}").contains("core dumped"), "{status}");
        for place in [&dir, Path::new("."), Path::new("/")] {
            let core = fs::read_dir(place)?.flatten().find(|entry| {
                entry.file_name().to_string_lossy().starts_with("core") && entry.path().is_file()
            });
            assert!(core.is_none(), "{core:?}");
        }
        Ok(())
    });
}

/// Whether the system lets the programs of this test lock memory without a limit.
fn may_lock(limits: &str) -> Result<bool> {
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).context("no limit")?;
    // The privilege counts only where it was given by the system itself.
    let initial = fs::read_to_string("/proc/self/uid_map")?.contains("4294967295");
    let status = fs::read_to_string("/proc/self/status")?;
    let privileges = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no privileges")?;
    let lock = u64::from_str_radix(privileges.trim(), 16)? & CAP_IPC_LOCK != 0;
    Ok(line.contains("unlimited") || (initial && lock))
}

/// `CAP_IPC_LOCK` of capabilities(7) as a bit.
const CAP_IPC_LOCK: u64 = 1 << 14;
/// Exchanges that may go on at once, more than there can be.
const UNDER_WAY: usize = 3;
