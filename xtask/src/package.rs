//! Building the packages and trying them in a clean system.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::root;

/// Builds the packages and installs them in a clean system.
pub(crate) fn run() -> Result<()> {
    for script in [BUILD, TEST] {
        let path = root().join(script);
        ensure!(path.is_file(), "{script} is missing");
        let status = Command::new("bash").arg(&path).current_dir(root()).status();
        ensure!(status.with_context(|| format!("cannot run {script}"))?.success(), "{script} failed");
    }
    Ok(())
}

/// Builds the packages.
const BUILD: &str = "packaging/build.sh";
/// Installs them in a clean system and tries them.
const TEST: &str = "packaging/test-install.sh";
