//! `meshctl relay`

use mesh_control::{Client, RelayRequest, Timestamp};

use crate::cli::RelayVerb;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(verb: RelayVerb, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let relays = match verb {
        RelayVerb::List => client.relays().await?,
        RelayVerb::Add { relay } => client.change_relays(&RelayRequest::Add { relay }).await?,
        RelayVerb::Remove { relay } => client.change_relays(&RelayRequest::Remove { relay }).await?,
    };
    screen.answer(&relays, |style| view::relays(&relays, Timestamp::now(), style))?;
    Ok(Exit::Done)
}
