//! `meshctl man`

use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Screen;

pub(super) fn run(directory: &Path, screen: &Screen) -> Result<Exit, Failure> {
    screen.refuse_json("man")?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
        let message = format!("failed to write manual pages into {}: {error}", directory.display());
        Failure::new(Exit::Failed, "output", message)
            .with_hint("name a directory that exists and that you may write")
    })?;
    Ok(Exit::Done)
}
