//! `meshctl up`

mod ticket;
mod wait;

use mesh_control::{Client, NodeState, UpRequest};
use tokio::time::Instant;

use crate::cli::UpArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Screen, view};
use wait::Outcome;

pub(super) async fn run(args: UpArgs, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let (request, doing) = request(&args, screen)?;
    // Reading a ticket from a person takes as long as it takes.
    let deadline = Instant::now() + args.timeout;
    let mut progress = screen.progress();
    progress.show(doing);
    if args.no_wait {
        client.up(&request).await?;
        progress.clear();
        let status = client.status().await?;
        screen.answer(&status, |style| view::up(&status, style))?;
        return Ok(Exit::Done);
    }
    if let Err(reason) = wait::for_answer(client, &request, deadline, &mut progress).await? {
        let limit = args.timeout.as_secs_f64();
        let message = format!("{doing} took longer than {limit} s{reason}");
        return Err(Failure::new(Exit::Timeout, "timeout", message)
            .with_hint("meshd goes on trying, \"meshctl status\" shows how far it is"));
    }
    let (outcome, status) = wait::until_ready(client, deadline, &mut progress).await?;
    progress.clear();
    match outcome {
        Outcome::DataPassed if status.state == NodeState::Connecting => {
            screen.answer(&status, |style| view::up(&status, style))?;
            screen.note(&format!(
                "only members that are found without the relay are reached; waiting for {}",
                wait::reason(&status)
            ));
            Ok(Exit::Degraded)
        }
        Outcome::DataPassed | Outcome::OnlyMember => {
            screen.answer(&status, |style| view::up(&status, style))?;
            Ok(Exit::Done)
        }
        Outcome::AllOffline => {
            screen.answer(&status, |style| view::up(&status, style))?;
            screen.note("every other member is offline; data passes as soon as one appears");
            Ok(Exit::Degraded)
        }
        Outcome::TimedOut => {
            let message = format!(
                "not ready after {} s: waiting for {}",
                args.timeout.as_secs_f64(),
                wait::reason(&status)
            );
            Err(Failure::new(Exit::Timeout, "timeout", message)
                .with_hint("meshd goes on trying, \"meshctl status\" shows how far it is"))
        }
    }
}

/// The request, and what to call it while it runs.
fn request(args: &UpArgs, screen: &Screen) -> Result<(UpRequest, &'static str), Failure> {
    if let (Some(network_name), Some(relay)) = (args.new.clone(), args.relay.clone()) {
        let request =
            UpRequest::New { network_name, relay, node_name: args.name.clone(), ipv4_pool: args.ipv4_pool };
        return Ok((request, "creating the network"));
    }
    if let Some(ticket) = ticket::read(args.ticket_file.as_deref(), screen)? {
        return Ok((UpRequest::Join { ticket, node_name: args.name.clone() }, "joining the network"));
    }
    if args.name.is_some() {
        return Err(Failure::usage("--name needs --new or a ticket")
            .with_hint("a node keeps the name that it joined with; see \"meshctl up --help\""));
    }
    Ok((UpRequest::Resume {}, "coming up"))
}
