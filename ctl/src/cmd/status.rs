//! `meshctl status`

use mesh_control::{Client, NodeState, Timestamp};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let status = client.status().await?;
    screen.answer(&status, |style| view::status(&status, Timestamp::now(), style))?;
    Ok(match status.state {
        NodeState::Unenrolled | NodeState::Down => Exit::NotUp,
        NodeState::Starting | NodeState::Connecting => Exit::Degraded,
        NodeState::Up | NodeState::Unknown => Exit::Done,
    })
}
