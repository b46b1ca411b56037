//! Every check, one after the other, with a summary.

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::unistd::geteuid;

use crate::{isolate, package, packages, say, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only what finds most mistakes soonest: format, lints, tests.
    #[arg(long)]
    quick: bool,
    /// Only these steps.
    #[arg(long, value_enum)]
    only: Vec<Step>,
    /// The packages too, built and installed in a clean system; takes some minutes and a download.
    #[arg(long)]
    package: bool,
    /// Go on after a step failed.
    #[arg(long)]
    keep_going: bool,
}

/// One step, each with a command of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// `cargo fmt --check`
    Fmt,
    /// `cargo clippy` with warnings as errors
    Clippy,
    /// Unit, property and program tests of all crates
    Test,
    /// Tests in the documentation
    Doctest,
    /// Documentation with private items and warnings as errors
    Doc,
    /// Licences, advisories and sources of dependencies
    Deny,
    /// The real programs in network namespaces
    Netns,
    /// Packages, built and installed in a clean system
    Package,
}

/// How a step ended.
enum Outcome {
    Passed,
    Skipped(String),
}

/// Runs the steps; fails if any of them does.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let steps: Vec<Step> = if !arguments.only.is_empty() {
        arguments.only.clone()
    } else if arguments.quick {
        vec![Step::Fmt, Step::Clippy, Step::Test]
    } else {
        let all = Step::value_variants().iter().copied();
        all.filter(|step| *step != Step::Package || arguments.package).collect()
    };
    if !isolate::is_inside() {
        packages::ensure_installed(&[packages::BUILD])?;
    }
    let mut rows = vec![vec!["step".to_owned(), "result".to_owned(), "seconds".to_owned()]];
    let mut failures = Vec::new();
    for step in steps {
        say::heading(&step.name());
        let start = Instant::now();
        let result = step.run();
        let text = match &result {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Skipped(why)) => format!("SKIPPED: {why}"),
            Err(error) => format!("FAILED: {error:#}"),
        };
        if result.is_err() {
            say::problem(&text);
            failures.push(step.name());
        }
        rows.push(vec![step.name(), text, format!("{:.1}", start.elapsed().as_secs_f64())]);
        if !failures.is_empty() && !arguments.keep_going {
            break;
        }
    }
    say::heading("Summary");
    say::table(&rows);
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self) -> Result<Outcome> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"]),
            Self::Clippy => {
                cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
                let packages = ["-p", "mesh-ice", "-p", "mesh-netns-tests", "--features", LABORATORY];
                let words =
                    [&["clippy", "--locked", "--all-targets"], &packages[..], &["--", "-D", "warnings"]];
                cargo(&words.concat())
            }
            Self::Test => tests(),
            Self::Doctest => cargo(&["test", "--locked", "--workspace", "--doc", "--quiet"]),
            Self::Doc => {
                let words =
                    ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
                let mut command = workspace::cargo(&words);
                command.env("RUSTDOCFLAGS", "-D warnings");
                passed(command)
            }
            Self::Deny => deny(),
            Self::Netns => namespaces(),
            Self::Package => packaging(),
        }
    }
}

/// All tests except those that need namespaces.
fn tests() -> Result<Outcome> {
    let others = ["--locked", "--workspace", "--exclude", "mesh-netns-tests"];
    let laboratory = ["--locked", "-p", "mesh-netns-tests", "--lib", "--bins"];
    let runner: &[&str] = if has_nextest() { &["nextest", "run"] } else { &["test"] };
    for words in [&others[..], &laboratory[..]] {
        cargo(&[runner, words].concat())?;
    }
    Ok(Outcome::Passed)
}

/// What only scenarios need: a second library of ICE agents, which is in no program that users get.
const LABORATORY: &str = "mesh-netns-tests/webrtc-ice";

fn deny() -> Result<Outcome> {
    if !packages::exists("cargo-deny") {
        if required("CI") {
            bail!("cargo-deny is not installed");
        }
        return Ok(Outcome::Skipped("install it with: cargo install --locked cargo-deny".into()));
    }
    cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"])?;
    // The database of advisories comes from another place than crates do, which a build machine may not reach.
    let fetched = workspace::cargo(&["deny", "--locked", "fetch", "db"]).stderr(Stdio::null()).status();
    if !fetched.is_ok_and(|status| status.success()) {
        return Ok(Outcome::Skipped(
            "advisories only, their database cannot be fetched; the rest passed".into(),
        ));
    }
    cargo(&["deny", "--locked", "check", "advisories"])
}

/// The scenarios, with the binaries that users get.
fn namespaces() -> Result<Outcome> {
    if !isolate::is_inside() {
        packages::ensure_installed(&[packages::NAMESPACES, packages::SCENARIOS])?;
        workspace::build(&workspace::PROGRAMS)?;
        cargo(&["test", "--locked", "--workspace", "--features", LABORATORY, "--test", "netns", "--no-run"])?;
    }
    if isolate::is_inside() {
        isolate::ensure_root_of_networks()?;
    } else if !geteuid().is_root() {
        // Only this step goes into namespaces of its own; the others have no business there.
        if let Err(error) = isolate::check_possible() {
            if required("SHADOWMESH_REQUIRE_NETNS") {
                return Err(error);
            }
            return Ok(Outcome::Skipped(format!("{error:#}")));
        }
        return passed(isolate::command(&["test", "--only", "netns"])?);
    }
    scenarios()
}

fn scenarios() -> Result<Outcome> {
    // Two at a time, but for those that need the machine alone: each scenario runs several programs that share its cores.
    // Only nextest knows which those are.
    let mut command = if has_nextest() {
        let words = ["nextest", "run", "--locked", "--workspace", "--test", "netns", "--no-fail-fast"];
        workspace::cargo(&[&words[..], &["--features", LABORATORY, "--test-threads", "2"]].concat())
    } else {
        let words = ["test", "--locked", "--workspace", "--test", "netns", "--no-fail-fast"];
        workspace::cargo(&[&words[..], &["--features", LABORATORY, "--", "--test-threads", "1"]].concat())
    };
    command.env("SHADOWMESH_BIN_DIR", workspace::release_dir());
    passed(command)
}

fn packaging() -> Result<Outcome> {
    if !geteuid().is_root() {
        return Ok(Outcome::Skipped("a clean system is made by root only".into()));
    }
    packages::ensure_installed(&[packages::BUILD, packages::PACKAGING])?;
    package::run().map(|()| Outcome::Passed)
}

fn has_nextest() -> bool {
    let version =
        workspace::cargo(&["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn required(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value == "1" || value == "true")
}

fn cargo(words: &[&str]) -> Result<Outcome> {
    passed(workspace::cargo(words))
}

fn passed(mut command: Command) -> Result<Outcome> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(Outcome::Passed)
}
