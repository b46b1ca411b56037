//! `meshctl down`

use mesh_control::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let answer = client.down().await?;
    screen.answer(&answer, |_| view::down(&answer))?;
    Ok(Exit::Done)
}
