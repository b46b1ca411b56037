//! How things look, and the only place that prints: results to stdout, the rest to stderr.

mod progress;
mod table;
mod units;
pub(crate) mod view;

use std::env;
use std::io::{self, IsTerminal, Write};

use mesh_control::{Document, PeerStatus, Version};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::why::Verdict;
pub(crate) use progress::Progress;
pub(crate) use units::clean;

/// Where the output goes and what that place can show.
#[derive(Debug)]
pub(crate) struct Screen {
    json: bool,
    style: Style,
}

/// What text for people may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Colours are understood and wanted.
    pub(crate) colour: bool,
    /// Columns of the terminal; nothing when the output is no terminal, which has room for everything.
    pub(crate) width: Option<usize>,
}

impl Screen {
    /// Looks at stdout and the environment.
    pub(crate) fn detect(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width = terminal.then(terminal_size::terminal_size).flatten();
        let style = Style {
            colour: terminal && wanted && !dumb,
            width: width.map(|(terminal_size::Width(columns), _)| usize::from(columns)),
        };
        Self { json, style }
    }

    /// Prints an answer of the daemon: its JSON, or the text made of it.
    pub(crate) fn answer<T: Document>(
        &self,
        answer: &T,
        text: impl FnOnce(Style) -> String,
    ) -> io::Result<()> {
        if self.json {
            let json = answer.to_json_pretty().map_err(io::Error::other)?;
            return self.raw(format!("{json}\n").as_bytes());
        }
        self.raw(text(self.style).as_bytes())
    }

    /// Prints one of several answers, each on one line.
    pub(crate) fn line<T: Document>(&self, answer: &T, text: impl FnOnce() -> String) -> io::Result<()> {
        let line = if self.json { answer.to_json().map_err(io::Error::other)? } else { text() };
        self.raw(format!("{line}\n").as_bytes())
    }

    /// Prints both versions; that of the daemon is absent when it does not answer.
    pub(crate) fn versions(
        &self,
        own: &str,
        daemon: Option<&Version>,
        text: impl FnOnce(&str, Option<&Version>) -> String,
    ) -> io::Result<()> {
        if self.json {
            return self
                .value(&json!({ "schema": "shadowmesh.versions/1", "meshctl": own, "meshd": daemon }));
        }
        self.raw(text(own, daemon).as_bytes())
    }

    /// Prints what became of all pings.
    pub(crate) fn ping_summary(&self, summary: &view::PingSummary) -> io::Result<()> {
        if self.json { self.value(&summary.json()) } else { self.raw(summary.text().as_bytes()) }
    }

    /// Prints why frames to a peer take their path.
    pub(crate) fn why(&self, peer: &PeerStatus, verdict: &Verdict) -> io::Result<()> {
        if self.json {
            return self.value(&view::why_json(peer, verdict));
        }
        self.raw(view::why(peer, verdict, self.style).as_bytes())
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Tells a person something beside the result. Silent with `--json`, where stderr is for errors alone.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            stderr(&format!("meshctl: {}\n", clean(text)));
        }
    }

    /// Shows what a verb waits for.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(!self.json, io::stderr().is_terminal())
    }

    /// Tells why a verb failed, and gives its exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        if failure.quiet {
            return failure.exit;
        }
        if self.json {
            let mut error = json!({
                "schema": "shadowmesh.error/1", "code": failure.code, "message": failure.message,
            });
            if let Some(hint) = &failure.hint {
                error["hint"] = Value::from(hint.as_str());
            }
            stderr(&format!("{error}\n"));
        } else {
            stderr(&format!("{}\n", failure_line(failure)));
        }
        failure.exit
    }

    /// For verbs whose result is no data.
    pub(crate) fn refuse_json(&self, verb: &str) -> Result<(), Failure> {
        if self.json { Err(Failure::usage(format!("\"{verb}\" has no JSON form"))) } else { Ok(()) }
    }

    fn value(&self, value: &Value) -> io::Result<()> {
        self.raw(format!("{value}\n").as_bytes())
    }
}

fn failure_line(failure: &Failure) -> String {
    let hint = failure.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("meshctl: {}", clean(&format!("{}{hint}", failure.message)))
}

/// A closed stderr leaves nobody to tell.
fn stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_one_line() {
        let failure = Failure::usage("the relay\nsays\x1b[2J no").with_hint("ask it");
        assert_eq!(failure_line(&failure), "meshctl: the relay says[2J no; ask it");
    }
}
