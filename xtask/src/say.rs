//! What a person sees.

use std::io::{self, IsTerminal, Write};

/// Starts a section.
pub(crate) fn heading(text: &str) {
    line(&format!("\n{}", strong(&format!("== {text}"))));
}

/// One line on the standard output.
pub(crate) fn line(text: &str) {
    // A reader that went away is no reason to leave namespaces behind.
    let _ = writeln!(io::stdout(), "{text}");
}

/// A command as a user types it.
pub(crate) fn command(host: &str, text: &str) {
    line(&strong(&format!("{host}$ {text}")));
}

/// What a command printed.
pub(crate) fn output(text: &str) {
    for row in text.trim_end().lines() {
        line(&format!("  {row}"));
    }
}

/// What went wrong, on the standard error.
pub(crate) fn problem(text: &str) {
    let _ = writeln!(io::stderr(), "xtask: {text}");
}

/// Rows in columns; the first row is the head.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let text = format!("  {}", cells.join("  ").trim_end());
        line(&if number == 0 { strong(&text) } else { text });
    }
}

fn strong(text: &str) -> String {
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
