//! Where the ticket comes from: never from the arguments, which every user of the machine can read.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;

use mesh_control::SecretText;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Screen;

/// The environment variable that may hold a ticket.
const TICKET_ENV: &str = "SHADOWMESH_TICKET";

/// Far more than a ticket has; a file that is larger is another file.
const LIMIT: u64 = 16 * 1024;

/// Reads the ticket from `file` (`-` is standard input), or else from the environment; nothing when neither has one.
pub(super) fn read(file: Option<&Path>, screen: &Screen) -> Result<Option<SecretText>, Failure> {
    let Some(file) = file else { return from_environment() };
    if file == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            screen.note("paste the ticket and press Enter");
        }
        return first_line(stdin.lock(), "standard input").map(Some);
    }
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| failed(&name, &error))?;
    first_line(BufReader::new(opened), &name).map(Some)
}

fn from_environment() -> Result<Option<SecretText>, Failure> {
    match env::var(TICKET_ENV) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => first_line(text.as_bytes(), TICKET_ENV).map(Some),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage(format!("{TICKET_ENV} holds no text"))),
    }
}

/// The first line that holds anything. Does not wait for the end of the input, since a person would have to type it.
fn first_line(input: impl BufRead, name: &str) -> Result<SecretText, Failure> {
    let mut input = input.take(LIMIT);
    loop {
        let mut line = String::new();
        let read = input.read_line(&mut line).map_err(|error| failed(name, &error))?;
        let line = SecretText::new(line);
        let text = line.expose().trim();
        if !text.is_empty() {
            return Ok(SecretText::new(text.to_owned()));
        }
        if read == 0 {
            return Err(Failure::usage(format!("there is no ticket in {name}"))
                .with_hint("\"meshctl invite\" on the coordinator prints one"));
        }
    }
}

fn failed(name: &str, error: &io::Error) -> Failure {
    let error = if error.kind() == io::ErrorKind::InvalidData {
        "it is no text".to_owned()
    } else {
        error.to_string()
    };
    Failure::new(Exit::Usage, "usage", format!("failed to read a ticket from {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_with_text_is_the_ticket() {
        for text in ["mesh1abc", "mesh1abc\n", "\n  mesh1abc \r\nsecond\n"] {
            assert_eq!(first_line(text.as_bytes(), "x").unwrap().expose(), "mesh1abc");
        }
    }

    #[test]
    fn nothing_and_no_text_are_refused() {
        assert_eq!(first_line(b"\n \n".as_slice(), "x").unwrap_err().message, "there is no ticket in x");
        let error = first_line(b"\xff\xfe\n".as_slice(), "x").unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.exit),
            ("failed to read a ticket from x: it is no text", Exit::Usage)
        );
    }

    #[test]
    fn endless_input_is_cut_off() {
        assert!(first_line(BufReader::new(io::repeat(b'\n')), "x").is_err());
        assert_eq!(first_line(BufReader::new(io::repeat(b'a')), "x").unwrap().expose().len(), 16 * 1024);
    }
}
