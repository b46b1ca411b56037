//! `meshctl id`

use mesh_control::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let id = client.id().await?;
    screen.answer(&id, |_| view::id(&id))?;
    Ok(Exit::Done)
}
