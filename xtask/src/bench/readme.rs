//! The figures in the README: a table between two marks, and the picture beside it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::workspace;

/// Replaces what README.md holds between the marks, and the picture that it shows.
pub(crate) fn renew(introduction: &str, table: &str, picture: &str) -> Result<()> {
    let (path, image) = (workspace::root().join("README.md"), workspace::root().join(PICTURE));
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = format!("{introduction}\n\n![figures]({PICTURE})\n\n{table}");
    let new =
        replaced(&old, &text).with_context(|| format!("{} has no marks for figures", path.display()))?;
    write(&image, picture)?;
    write(&path, &new)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// None where the marks are missing.
fn replaced(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}{END}{after}"))
}

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";
const PICTURE: &str = "docs/figures.svg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&old, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replaced(&new, "new\n"), Some(new));
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn readme_has_the_marks_and_the_picture() {
        let text = fs::read_to_string(workspace::root().join("README.md")).unwrap();
        assert!(replaced(&text, "").is_some());
        assert!(workspace::root().join(PICTURE).is_file());
    }
}
