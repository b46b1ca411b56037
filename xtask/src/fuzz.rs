//! Every fuzz target for a while, one after the other, with a table of what came out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{packages, say, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these targets; all of them otherwise.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Put what was found into the corpus that is kept in the repository, minimized.
    #[arg(long)]
    keep: bool,
}

/// What a target did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    coverage: u64,
    new_inputs: u64,
}

/// Runs the targets; fails if one of them found something.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    check_tools()?;
    let known = targets()?;
    if let Some(unknown) = arguments.target.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {unknown}; there are {}", known.join(", "));
    }
    let chosen = if arguments.target.is_empty() { &known } else { &arguments.target };
    say::heading("Building");
    ensure!(cargo_fuzz(&["build"])?.status()?.success(), "the targets do not build");
    let head = ["target", "seconds", "executions", "coverage", "new inputs", "crashes", "kept"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut crashes = BTreeSet::new();
    for target in chosen {
        say::heading(target);
        let start = Instant::now();
        let (figures, found) = fuzz(target, arguments.seconds)?;
        let kept = if arguments.keep && found.is_empty() { keep(target)? } else { corpus_len(target) };
        for path in &found {
            say::problem(&format!(
                "{target} fails; once fixed, keep {} as fuzz/regressions/{target}/NAME",
                path.display()
            ));
        }
        rows.push(vec![
            target.clone(),
            start.elapsed().as_secs().to_string(),
            figures.executions.to_string(),
            figures.coverage.to_string(),
            figures.new_inputs.to_string(),
            found.len().to_string(),
            kept.to_string(),
        ]);
        crashes.extend(found);
    }
    say::heading("Summary");
    say::table(&rows);
    Ok(if crashes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what is missing; a fuzzer is too large a thing to install unasked.
fn check_tools() -> Result<()> {
    if !packages::exists("c++") {
        bail!(
            "the fuzzer is built with a C++ compiler; install one with: sudo apt-get install build-essential"
        );
    }
    let found = cargo_fuzz(&["--version"])?.output().is_ok_and(|output| output.status.success());
    ensure!(found, "cargo-fuzz is missing; install it with: cargo install --locked cargo-fuzz");
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let output = cargo_fuzz(&["list"])?.output()?;
    ensure!(output.status.success(), "cargo fuzz list failed");
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// Runs one target from the kept corpus and from what earlier runs found. Returns its figures and the inputs that fail.
fn fuzz(target: &str, seconds: u64) -> Result<(Figures, BTreeSet<PathBuf>)> {
    let (found, log) = (work_dir(target), work_dir(target).with_extension("log"));
    fs::create_dir_all(&found)?;
    let artifacts = fuzz_dir().join("artifacts").join(target);
    let before = files(&artifacts);
    let mut command = cargo_fuzz(&["run", target])?;
    command.args([&found, &corpus_dir(target)]).arg("--").args(LIMITS);
    command.arg(format!("-max_total_time={seconds}"));
    let status = command.stderr(File::create(&log)?).status()?;
    let text = fs::read_to_string(&log).context("cannot read what the fuzzer said")?;
    let crashes: BTreeSet<PathBuf> = files(&artifacts).difference(&before).cloned().collect();
    ensure!(status.success() || !crashes.is_empty(), "{target} did not run; see {}", log.display());
    Ok((read_figures(&text), crashes))
}

/// Replaces the kept corpus by a minimal one that reaches as much, as far as it fits. Returns how many files these are.
fn keep(target: &str) -> Result<usize> {
    let merged = work_dir(target).with_extension("merged");
    // What an interrupted run left would count as reached already.
    if merged.exists() {
        fs::remove_dir_all(&merged)?;
    }
    fs::create_dir_all(&merged)?;
    let kept = corpus_dir(target);
    let mut command = cargo_fuzz(&["run", target])?;
    command.args([&merged, &kept, &work_dir(target)]).arg("--").args(LIMITS).arg("-set_cover_merge=1");
    let log = File::create(work_dir(target).with_extension("merge.log"))?;
    ensure!(command.stderr(log).status()?.success(), "the corpus of {target} cannot be merged");
    for path in files(&kept).iter().filter(|path| !is_seed(path)) {
        fs::remove_file(path)?;
    }
    let seeds: BTreeSet<Vec<u8>> = files(&kept).iter().map(fs::read).collect::<Result<_, _>>()?;
    let (mut count, mut bytes) = (corpus_len(target), seeds.iter().map(Vec::len).sum::<usize>());
    for path in thinned(&merged, MOST_FILES.saturating_sub(count))? {
        let input = fs::read(&path)?;
        if bytes + input.len() > MOST_BYTES {
            break;
        }
        if let (false, Some(name)) = (seeds.contains(&input), path.file_name()) {
            fs::write(kept.join(name), &input)?;
            (count, bytes) = (count + 1, bytes + input.len());
        }
    }
    Ok(count)
}

/// Returns at most `most` of the files, from the smallest to the largest: small ones alone would reach little.
fn thinned(dir: &Path, most: usize) -> Result<Vec<PathBuf>> {
    let mut sized: Vec<(u64, PathBuf)> = Vec::new();
    for path in files(dir) {
        sized.push((fs::metadata(&path)?.len(), path));
    }
    sized.sort();
    let step = sized.len().div_ceil(most.max(1)).max(1);
    Ok(sized.into_iter().step_by(step).take(most).map(|(_, path)| path).collect())
}

/// Reads the last line of progress and the statistics at the end.
fn read_figures(text: &str) -> Figures {
    let after = |line: &str, word: &str| line.split_once(word)?.1.split_whitespace().next()?.parse().ok();
    let last = |word: &str| text.lines().rev().find_map(|line| after(line, word)).unwrap_or(0);
    Figures {
        executions: last("stat::number_of_executed_units:"),
        coverage: last(" cov: "),
        new_inputs: last("stat::new_units_added:"),
    }
}

/// A cargo-fuzz command. The ordinary compiler has what it needs behind a switch.
fn cargo_fuzz(words: &[&str]) -> Result<Command> {
    let mut command = workspace::cargo(&[&["fuzz"], words].concat());
    ensure!(fuzz_dir().is_dir(), "{} is missing", fuzz_dir().display());
    command.env("RUSTC_BOOTSTRAP", "1");
    Ok(command)
}

fn is_seed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
}

fn corpus_len(target: &str) -> usize {
    files(&corpus_dir(target)).len()
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn fuzz_dir() -> PathBuf {
    workspace::root().join("fuzz")
}

fn corpus_dir(target: &str) -> PathBuf {
    fuzz_dir().join("corpus").join(target)
}

/// What the fuzzer found so far on this machine.
fn work_dir(target: &str) -> PathBuf {
    fuzz_dir().join("work").join(target)
}

/// An input that takes this long, or this much memory, is a fault as well.
const LIMITS: [&str; 3] = ["-timeout=25", "-rss_limit_mb=2048", "-print_final_stats=1"];
/// Of one target's kept corpus, which is replayed with every build.
const MOST_FILES: usize = 200;
const MOST_BYTES: usize = 300 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_fuzzer_says() {
        let text = "INFO: seed corpus\n#2\tINITED cov: 20 ft: 21 corp: 1/1b\n#9\tNEW    cov: 31 ft: 40 corp: 2/9b\n\
                    Done 1200 runs in 3 second(s)\nstat::number_of_executed_units: 1200\nstat::new_units_added:         7\n";
        assert_eq!(read_figures(text), Figures { executions: 1200, coverage: 31, new_inputs: 7 });
        assert_eq!(read_figures("did not build"), Figures::default());
    }

    #[test]
    fn seeds_are_told_from_findings() {
        assert!(is_seed(Path::new("corpus/frame/seed-03")) && !is_seed(Path::new("corpus/frame/00ab")));
    }
}
