//! What the verbs do, one file each.

mod completions;
mod down;
mod id;
mod invite;
mod man;
mod netcheck;
mod peers;
mod ping;
mod relay;
mod status;
mod suggest;
mod up;
mod version;
mod why;

use std::future::Future;

use mesh_control::Client;

use crate::cli::{Cli, Verb};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Screen;

/// Runs the verb.
pub(crate) fn run(cli: Cli, screen: &Screen) -> Result<Exit, Failure> {
    let client = Client::new(cli.socket);
    match cli.verb {
        Verb::Up(args) => wait_for(up::run(args, &client, screen)),
        Verb::Down => wait_for(down::run(&client, screen)),
        Verb::Status => wait_for(status::run(&client, screen)),
        Verb::Peers(args) => wait_for(peers::run(args, &client, screen)),
        Verb::Ping(args) => wait_for(ping::run(args, &client, screen)),
        Verb::Why(args) => wait_for(why::run(args, &client, screen)),
        Verb::Netcheck => wait_for(netcheck::run(&client, screen)),
        Verb::Invite(args) => wait_for(invite::run(args, &client, screen)),
        Verb::Relay { verb } => wait_for(relay::run(verb, &client, screen)),
        Verb::Id => wait_for(id::run(&client, screen)),
        Verb::Version => wait_for(version::run(&client, screen)),
        Verb::Completions { shell } => completions::run(shell, screen),
        Verb::Man { directory } => man::run(&directory, screen),
    }
}

fn wait_for(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Failed, "internal", format!("failed to start: {error}")))?;
    runtime.block_on(verb)
}
