//! Reading of vector files.

use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::Value;

/// Reads the tests of an ACVP file.
pub(crate) fn acvp(name: &str) -> Vec<Value> {
    load("acvp", name)["tests"].as_array().unwrap().clone()
}

/// Reads the tests of a Wycheproof file, each with its group.
pub(crate) fn wycheproof(name: &str) -> Vec<(Value, Value)> {
    let mut tests = Vec::new();
    for mut group in load("wycheproof", name)["testGroups"].as_array().unwrap().clone() {
        let Value::Array(list) = group["tests"].take() else { panic!("tests are a list") };
        tests.extend(list.into_iter().map(|test| (group.clone(), test)));
    }
    tests
}

/// Decodes a field of hex; a missing or null field is empty.
pub(crate) fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(value.as_str().unwrap_or("").as_bytes()).unwrap()
}

/// Decodes a field into an array, or nothing when it has another length.
pub(crate) fn array<const N: usize>(value: &Value) -> Option<[u8; N]> {
    hex(value).try_into().ok()
}

/// Tells whether a Wycheproof test must be accepted.
pub(crate) fn is_valid(test: &Value) -> bool {
    match test["result"].as_str().unwrap() {
        "valid" | "acceptable" => true,
        "invalid" => false,
        other => panic!("unknown result {other}"),
    }
}

fn load(folder: &str, name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder).join(name);
    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()
}
