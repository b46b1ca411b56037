//! `meshctl peers`

use mesh_control::Client;

use super::suggest;
use crate::cli::PeersArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(args: PeersArgs, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    if let Some(name) = args.name {
        let peer = match client.peer(&name).await {
            Ok(peer) => peer,
            Err(error) => return Err(suggest::peers(error, &name, client).await),
        };
        screen.answer(&peer, |style| view::peer(&peer, style))?;
    } else {
        let peers = client.peers().await?;
        screen.answer(&peers, |style| view::peers(&peers.peers, style))?;
    }
    Ok(Exit::Done)
}
