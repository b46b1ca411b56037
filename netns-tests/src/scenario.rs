//! How a test body gets a laboratory.

use std::env;

use anyhow::Result;

use crate::namespace::Lab;

/// Set to `1` where namespaces must be available: a test that would be skipped fails there.
const REQUIRE: &str = "SHADOWMESH_REQUIRE_NETNS";

/// Runs `body` in a laboratory of its own; prints one line and returns where the machine cannot make namespaces.
///
/// # Panics
/// When the body fails, after printing the end of every log; and when namespaces are required but not available.
#[expect(clippy::print_stderr, reason = "the reader of a test run is told what was skipped and why")]
pub fn scenario(name: &str, body: impl FnOnce(&Lab) -> Result<()>) {
    let lab = match Lab::new(name) {
        Ok(lab) => lab,
        Err(error) if env::var_os(REQUIRE).is_some_and(|value| value == "1") => {
            panic!("{REQUIRE}=1, but namespaces are not available: {error:#}")
        }
        Err(error) => {
            eprintln!("SKIPPED {name}: no network namespaces here: {error:#}");
            return;
        }
    };
    if let Err(error) = body(&lab) {
        // The panic below makes the laboratory print its logs while it is dropped.
        panic!("{name}: {error:#}");
    }
}
