//! `meshctl version`

use mesh_control::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

/// Shows our own version even when the daemon does not answer.
pub(super) async fn run(client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let daemon = client.version().await;
    screen.versions(env!("CARGO_PKG_VERSION"), daemon.as_ref().ok(), view::versions)?;
    daemon?;
    Ok(Exit::Done)
}
