//! The permitted arrows between our crates, and where `unsafe` may stand.
//!
//! The table is that of the architecture: a crate that is not in it, or an arrow that is not, fails the test. Whoever
//! changes the table changes the architecture and says so in `docs/architecture.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each package may depend on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("mesh-packet", &[]),
    ("mesh-wire", &[]),
    ("mesh-socket", &[]),
    ("mesh-identity", &["mesh-wire"]),
    ("mesh-session", &["mesh-identity", "mesh-wire"]),
    ("mesh-node", &["mesh-session", "mesh-identity", "mesh-wire", "mesh-packet"]),
    ("mesh-net", &["mesh-identity", "mesh-wire", "mesh-packet", "mesh-socket"]),
    ("mesh-ice", &["mesh-wire"]),
    ("mesh-tun", &["mesh-packet"]),
    ("mesh-channel", &["mesh-wire"]),
    ("mesh-cache", &["mesh-channel", "mesh-identity"]),
    ("mesh-content", &["mesh-channel", "mesh-identity"]),
    ("mesh-control", &[]),
    (
        "meshd",
        &[
            "mesh-packet",
            "mesh-wire",
            "mesh-socket",
            "mesh-identity",
            "mesh-session",
            "mesh-node",
            "mesh-net",
            "mesh-ice",
            "mesh-tun",
            "mesh-channel",
            "mesh-cache",
            "mesh-content",
            "mesh-control",
            // A node with a door runs a relay for itself.
            "meshrelay",
        ],
    ),
    ("meshrelay", &["mesh-identity", "mesh-wire", "mesh-socket"]),
    ("meshctl", &["mesh-control"]),
    ("mesh-tests", &[]),
    (
        "mesh-fuzz-targets",
        &[
            "mesh-packet",
            "mesh-wire",
            "mesh-identity",
            "mesh-session",
            "mesh-node",
            "mesh-net",
            "mesh-ice",
            "mesh-control",
            "meshd",
            "meshrelay",
        ],
    ),
    ("mesh-models", &["mesh-node", "mesh-wire"]),
    // Its daemon is the real one with other libraries and timings; its malicious relay speaks the relay's protocol.
    ("mesh-netns-tests", &["mesh-ice", "mesh-identity", "mesh-node", "mesh-session", "mesh-wire", "meshd"]),
    ("xtask", &[]),
];

/// Packages whose tests may use any other: they hold programs together, and nothing depends on them.
const FREE_IN_TESTS: &[&str] = &["meshd", "meshrelay", "mesh-tests", "mesh-netns-tests"];

/// The files in which `unsafe` may stand: system calls that no library offers in safe form.
const MAY_BE_UNSAFE: &[&str] = &["crates/net/src/sys.rs", "crates/tun/src/sys.rs"];

#[test]
fn arrows_between_crates_are_those_of_the_architecture() {
    let manifests = manifests();
    let ours: Vec<&str> = manifests.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (package, manifest) in &manifests {
        let Some((_, permitted)) = MAY_USE.iter().find(|(name, _)| name == package) else {
            wrong.push(format!("{package} has no line in the table"));
            continue;
        };
        for (table, dependency) in dependencies(manifest) {
            let tests_only = table == "dev-dependencies";
            let free = tests_only && FREE_IN_TESTS.contains(&package.as_str());
            if ours.contains(&dependency.as_str()) && !free && !permitted.contains(&dependency.as_str()) {
                wrong.push(format!("{package} -> {dependency} ({table})"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the architecture does not have:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_sys_files_only() {
    let mut wrong = Vec::new();
    for path in rust_files(&root()) {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if MAY_BE_UNSAFE.contains(&relative.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if opens_unsafe(line) {
                wrong.push(format!("{relative}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe outside {MAY_BE_UNSAFE:?}:\n{}", wrong.join("\n"));
}

#[test]
fn every_package_inherits_the_lints() {
    for (package, manifest) in manifests() {
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(inherits.and_then(toml::Value::as_bool), Some(true), "{package} has its own lints");
    }
}

/// Whether a line of code (not a comment, not a string) opens an unsafe block, function, impl or the lint itself.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    // The halves keep this line from finding itself.
    let word = concat!("un", "safe");
    if code.contains(&format!("({word}_code")) {
        return true;
    }
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let rest = code[at + word.len()..].trim_start();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '"'))
            && ["{", "fn ", "impl ", "impl<", "extern ", "trait "].iter().any(|start| rest.starts_with(start))
    })
}

#[test]
fn unsafe_is_recognised() {
    let word = concat!("un", "safe");
    assert!(opens_unsafe(&format!("let x = {word} {{ y() }};")));
    assert!(opens_unsafe(&format!("pub {word} fn f()")));
    assert!(opens_unsafe(&format!("#![expect({word}_code, reason = \"\")]")));
    assert!(!opens_unsafe(&format!("// {word} {{ }}")));
    assert!(!opens_unsafe(&format!("fn not_{word}() {{}}")));
}

/// All manifests of the workspace by package name.
fn manifests() -> BTreeMap<String, toml::Table> {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = text.parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut dirs = Vec::new();
    for member in members.iter().map(|member| member.as_str().unwrap()) {
        match member.strip_suffix("/*") {
            Some(parent) => {
                dirs.extend(fs::read_dir(root().join(parent)).unwrap().map(|entry| entry.unwrap().path()));
            }
            None => dirs.push(root().join(member)),
        }
    }
    let mut manifests = BTreeMap::new();
    for path in dirs.iter().map(|dir| dir.join("Cargo.toml")).filter(|path| path.exists()) {
        let manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        manifests.insert(manifest["package"]["name"].as_str().unwrap().to_owned(), manifest);
    }
    manifests
}

/// Every dependency with the table that it stands in, those for one platform included.
fn dependencies(manifest: &toml::Table) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut places = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        places.extend(targets.values().filter_map(toml::Value::as_table));
    }
    for place in places {
        for table in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let entries = place.get(table).and_then(toml::Value::as_table);
            found.extend(entries.into_iter().flatten().map(|(name, entry)| {
                // A renamed dependency is still the same arrow.
                let package = entry.get("package").and_then(toml::Value::as_str);
                (table, package.unwrap_or(name).to_owned())
            }));
        }
    }
    found
}

/// Every Rust file that belongs to the project.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(rust_files(&path));
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}
