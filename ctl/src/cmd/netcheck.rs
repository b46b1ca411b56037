//! `meshctl netcheck`

use mesh_control::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let answer = client.netcheck().await?;
    screen.answer(&answer, |_| view::netcheck(&answer))?;
    let reached = answer.families.iter().any(|family| family.relay_tcp_ms.is_some());
    Ok(if reached || answer.relay.is_none() { Exit::Done } else { Exit::Degraded })
}
