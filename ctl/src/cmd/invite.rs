//! `meshctl invite`

use mesh_control::{Client, InviteRequest, Timestamp};

use crate::cli::InviteArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};

pub(super) async fn run(args: InviteArgs, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let request = InviteRequest {
        name: args.name,
        groups: args.groups,
        uses: args.uses.get(),
        ttl_s: args.ttl.as_secs(),
    };
    let answer = client.invite(&request).await?;
    screen.answer(&answer, |_| format!("{}\n", answer.ticket.expose()))?;
    screen.note(&view::invite(&answer, Timestamp::now()));
    Ok(Exit::Done)
}
