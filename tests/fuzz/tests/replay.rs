//! Gives every kept input to its target, with the ordinary toolchain.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use mesh_fuzz_targets::{TARGETS, Target, seeds};

/// Kept inputs of one target: enough to reach what the fuzzer has reached, little enough to replay with every build.
const MOST_FILES: usize = 200;
const MOST_BYTES: u64 = 300 * 1024;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn kept_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn replay((name, target): &Target) {
    let kept = [fuzz_dir().join("corpus").join(name), fuzz_dir().join("regressions").join(name)];
    let files: Vec<PathBuf> = kept.iter().flat_map(|dir| kept_in(dir)).collect();
    assert!(!files.is_empty(), "{name} has no corpus; run: cargo run -p mesh-fuzz-targets --example seeds");
    for path in files {
        let input = fs::read(&path).expect("a kept input can be read");
        let held = catch_unwind(|| target(&input)).is_ok();
        assert!(held, "{} breaks a property of {name}, see above", path.display());
    }
}

/// A test for each target, so that they run beside each other.
macro_rules! replay {
    ($($name:ident),+) => {
        $(#[test]
        fn $name() {
            replay(&(stringify!($name), mesh_fuzz_targets::$name));
        })+

        const REPLAYED: &[&str] = &[$(stringify!($name)),+];
    };
}

replay!(
    handshake,
    fragment,
    frame,
    relay,
    roster,
    ticket,
    control_api,
    config,
    node,
    hub,
    packet,
    stun,
    ice,
    lan,
    files
);

#[test]
fn every_target_is_replayed_and_built_by_cargo_fuzz() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, REPLAYED.iter().copied().collect());
    let manifest: toml::Table = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap().parse().unwrap();
    let built: BTreeSet<&str> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    assert_eq!(names, built);
    for name in names {
        let text = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("mesh_fuzz_targets::{name}(data)")), "{name}.rs calls another target");
    }
}

#[test]
fn every_corpus_has_its_seeds_and_is_small() {
    for (name, _) in TARGETS {
        assert!(!seeds::of(name).is_empty(), "{name} has no seeds");
        let files = kept_in(&fuzz_dir().join("corpus").join(name));
        let bytes: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(
            files.len() <= MOST_FILES && bytes <= MOST_BYTES,
            "the corpus of {name} has {} files and {bytes} bytes; minimize it",
            files.len()
        );
    }
}

/// Properties hold for genuine messages, whatever the corpus has.
#[test]
fn properties_hold_for_all_seeds() {
    for (name, target) in TARGETS {
        for (number, seed) in seeds::of(name).iter().enumerate() {
            assert!(catch_unwind(|| target(seed)).is_ok(), "seed {number} of {name}");
        }
    }
}
