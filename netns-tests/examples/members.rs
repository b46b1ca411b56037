//! Joins a network many times with one ticket, each time as a new node with keys of its own that is never seen again.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use mesh_identity::{Identity, Ticket};
use mesh_session::handshake::Local;
use mesh_session::{AeadKind, ProviderKind};
use meshd::enrol::join;
use tokio::sync::watch;

#[derive(Debug, Parser)]
struct Arguments {
    /// A file with a ticket that admits so many nodes.
    #[arg(long)]
    ticket_file: PathBuf,
    /// How many nodes.
    #[arg(long)]
    count: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let text = fs::read_to_string(&arguments.ticket_file).context("cannot read the ticket")?;
    let ticket = Ticket::parse(text.trim())?;
    for number in 1..=arguments.count {
        let identity = Arc::new(Identity::generate()?);
        let (provider, aead) = (ProviderKind::default().provider(), AeadKind::default().provider());
        let local = Local { identity, provider, aead };
        let (progress, _watched) = watch::channel(String::new());
        // An answer without the node in its roster is an error.
        join(&ticket, &local, &format!("away-{number}"), &progress)
            .await
            .map_err(|error| anyhow!("node {number} was not admitted: {}", error.message))?;
    }
    Ok(())
}
