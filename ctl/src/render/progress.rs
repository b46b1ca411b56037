//! What a verb waits for: one line that changes on a terminal, a line per change elsewhere.

use std::time::Instant;

use super::{clean, stderr};

/// The line about the waiting. Cleared when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    enabled: bool,
    terminal: bool,
    started: Instant,
    shown: String,
}

impl Progress {
    pub(super) fn new(enabled: bool, terminal: bool) -> Self {
        Self { enabled, terminal, started: Instant::now(), shown: String::new() }
    }

    /// Shows the text; elsewhere than on a terminal only when it differs from the last.
    pub(crate) fn show(&mut self, text: &str) {
        if self.enabled
            && let Some(line) = self.update(&clean(text), self.started.elapsed().as_secs())
        {
            stderr(&line);
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            stderr(CLEAR_LINE);
        }
        self.shown.clear();
    }

    /// What to print.
    fn update(&mut self, text: &str, seconds: u64) -> Option<String> {
        let line = if self.terminal {
            // Cut by the terminal rather than wrapped, since a wrapped line could not be taken back.
            format!("{CLEAR_LINE}{NO_WRAP}{text} ({seconds} s){WRAP}")
        } else {
            format!("meshctl: {text}\n")
        };
        let fresh = if self.terminal { self.shown != line } else { self.shown != text };
        if !fresh {
            return None;
        }
        self.shown = if self.terminal { line.clone() } else { text.to_owned() };
        Some(line)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Back to the start of the line, erase it (ECMA-48 EL).
const CLEAR_LINE: &str = "\r\x1b[2K";
/// DECAWM off and on.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_only_when_the_reason_changes() {
        let mut progress = Progress::new(true, false);
        assert_eq!(progress.update("waiting for a", 0).as_deref(), Some("meshctl: waiting for a\n"));
        assert_eq!(progress.update("waiting for a", 5), None);
        assert_eq!(progress.update("waiting for b", 6).as_deref(), Some("meshctl: waiting for b\n"));
        progress.shown.clear();
    }

    #[test]
    fn terminal_line_counts_seconds_in_place() {
        let mut progress = Progress::new(true, true);
        let line = progress.update("waiting", 1).unwrap();
        assert!(line.starts_with("\r\x1b[2K") && line.contains("waiting (1 s)") && !line.contains('\n'));
        assert_eq!(progress.update("waiting", 1), None);
        assert!(progress.update("waiting", 2).is_some());
        progress.shown.clear();
    }
}
