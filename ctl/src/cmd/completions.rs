//! `meshctl completions`

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Screen;

pub(super) fn run(shell: Shell, screen: &Screen) -> Result<Exit, Failure> {
    screen.refuse_json("completions")?;
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "meshctl", &mut script);
    screen.raw(&script)?;
    Ok(Exit::Done)
}
