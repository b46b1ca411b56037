//! Runs the symbolic models of `docs/models` and compares their verdicts with the expected ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{say, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only models whose file name contains this; can be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Only runs that take a few seconds.
    #[arg(long)]
    fast: bool,
    /// The program, where it is not on the path.
    #[arg(long, default_value = "verifpal")]
    verifpal: PathBuf,
}

/// What `expected.toml` holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The version of Verifpal that gave the codes.
    verifpal: String,
    run: Vec<Run>,
}

/// One run of one model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    file: String,
    /// How many instances of each principal act at the same time.
    sessions: u32,
    /// A letter and a digit for each query, in the order of the model: 0 holds, 1 falls.
    code: String,
    /// What it took on two slow cores.
    seconds: f64,
}

/// Runs the models one after the other; fails if a verdict differs from the expected one.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let expected = read_expected()?;
    let version = version(arguments)?;
    if version != expected.verifpal {
        say::line(&format!("The codes were found with Verifpal {}; this is {version}.", expected.verifpal));
    }
    let runs: Vec<&Run> = expected.run.iter().filter(|run| arguments.chosen(run)).collect();
    ensure!(!runs.is_empty(), "no model of {} fits what was asked for", directory().display());
    let total = Duration::from_secs_f64(runs.iter().map(|run| run.seconds).sum());
    say::heading(&format!("{} runs, about {} s in all", runs.len(), total.as_secs()));
    let mut failures = 0_usize;
    for (number, run) in runs.iter().enumerate() {
        let start = Instant::now();
        let verdict = match run.verify(arguments) {
            Ok(code) if code == run.code => format!("as expected, {code}"),
            Ok(code) => {
                failures += 1;
                format!("DIFFERS: expected {}, found {code}", run.code)
            }
            Err(error) => {
                failures += 1;
                format!("FAILED: {error:#}")
            }
        };
        let (file, sessions, seconds) = (&run.file, run.sessions, start.elapsed().as_secs_f64());
        say::line(&format!("{}/{} {file} x{sessions}: {verdict} ({seconds:.1} s)", number + 1, runs.len()));
    }
    if failures == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    say::problem(&format!("{failures} of {} runs did not end as {EXPECTED} says", runs.len()));
    Ok(ExitCode::FAILURE)
}

impl Arguments {
    fn chosen(&self, run: &Run) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|part| run.file.contains(part));
        named && (!self.fast || run.seconds <= FAST)
    }
}

impl Run {
    fn verify(&self, arguments: &Arguments) -> Result<String> {
        let limit = (self.seconds * SLOWER).max(LEAST_LIMIT);
        let mut command = Command::new("nice");
        command.args(["-n", "15", "timeout", "--kill-after=5", &format!("{limit:.0}")]);
        command.arg(&arguments.verifpal).args(["verify", "--result-code"]);
        command.args(["--sessions", &self.sessions.to_string()]).arg(directory().join(&self.file));
        let output = command.stdin(Stdio::null()).output().context("cannot run nice and timeout")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.code() == Some(124) {
            bail!("no verdict within {limit:.0} s");
        }
        ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        let last = text.lines().last().unwrap_or("").trim();
        ensure!(is_code(last), "verifpal printed no result code: {}", text.trim_end());
        Ok(last.to_owned())
    }
}

/// Whether a text has the form of a result code.
fn is_code(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len().is_multiple_of(2)
        && bytes.chunks(2).all(|pair| pair[0].is_ascii_lowercase() && matches!(pair[1], b'0' | b'1'))
}

fn version(arguments: &Arguments) -> Result<String> {
    let program = arguments.verifpal.display();
    let output = Command::new(&arguments.verifpal).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| {
        format!(
            "cannot run {program}; install it with \"cargo install --locked verifpal --ignore-rust-version\", \
             or name it with --verifpal (it is under the GPL: it is run, and never part of a program here)"
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().last().map(str::to_owned).with_context(|| format!("{program} tells no version"))
}

/// Reads the expected verdicts and compares the list with the files beside it.
fn read_expected() -> Result<Expected> {
    let path = directory().join(EXPECTED);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let expected: Expected = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(directory())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".vp") {
            files.insert(name);
        }
    }
    let listed: BTreeSet<String> = expected.run.iter().map(|run| run.file.clone()).collect();
    let odd: Vec<&String> = files.symmetric_difference(&listed).collect();
    ensure!(odd.is_empty(), "{EXPECTED} and the models beside it do not name the same files: {odd:?}");
    Ok(expected)
}

fn directory() -> PathBuf {
    workspace::root().join("docs/models")
}

const EXPECTED: &str = "expected.toml";
/// Runs up to this many seconds are fast.
const FAST: f64 = 10.0;
/// How much slower than the noted machine another one, or a busy one, may be before a run is given up.
const SLOWER: f64 = 10.0;
/// No run is given up before this many seconds.
const LEAST_LIMIT: f64 = 900.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_code_with_a_digit_for_each_of_its_queries() {
        let expected = read_expected().unwrap();
        assert!(expected.run.iter().any(|run| run.sessions > 1), "concurrent sessions are never looked at");
        for run in &expected.run {
            let text = fs::read_to_string(directory().join(&run.file)).unwrap();
            let (_, queries) = text.rsplit_once("queries[").unwrap();
            let letters: String =
                queries.lines().filter_map(|line| line.trim().chars().next()).filter(|c| *c != ']').collect();
            assert!(is_code(&run.code), "{}: {}", run.file, run.code);
            let found: String = run.code.chars().step_by(2).collect();
            assert_eq!(found, letters, "{}", run.file);
        }
    }

    #[test]
    fn texts_that_are_no_code_are_told_apart() {
        assert!(is_code("c0a1e0"));
        for text in ["", "c", "c2", "C0", "Info . Attacker is configured as active."] {
            assert!(!is_code(text), "{text}");
        }
    }

    #[test]
    fn fast_and_only_choose_runs() {
        let run = |file: &str, seconds| Run { file: file.into(), sessions: 1, code: "c0".into(), seconds };
        let arguments = |only: &[&str], fast| Arguments {
            only: only.iter().map(|part| (*part).to_owned()).collect(),
            fast,
            verifpal: PathBuf::new(),
        };
        assert!(arguments(&[], false).chosen(&run("01_base.vp", 600.0)));
        assert!(!arguments(&[], true).chosen(&run("01_base.vp", 600.0)));
        assert!(arguments(&["base", "x"], true).chosen(&run("01_base.vp", 1.0)));
        assert!(!arguments(&["mix"], false).chosen(&run("01_base.vp", 1.0)));
    }
}
