//! `meshctl ping`

use std::time::Duration;

use mesh_control::{Client, ClientError, ErrorCode, PathKind, PingRequest, PingVia};
use tokio::time::{Instant, sleep_until};

use super::suggest;
use crate::cli::{PingArgs, Via};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::view::PingSummary;
use crate::render::{Screen, view};

/// Sends one after the other; the interval counts from the start of one to the start of the next.
pub(super) async fn run(args: PingArgs, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let longest = Duration::from_millis(PingRequest::MAX_TIMEOUT_MS);
    if args.timeout > longest {
        return Err(Failure::usage(format!("--timeout may be {} at most", longest.as_secs())));
    }
    let timeout_ms = u64::try_from(args.timeout.as_millis()).unwrap_or(PingRequest::MAX_TIMEOUT_MS).max(1);
    let request = PingRequest { peer: args.peer, timeout_ms, via: args.via.map(path), size: args.size };
    let mut summary = PingSummary::new(&request.peer);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut direct = false;
    while args.count == 0 || summary.sent < args.count {
        let next = Instant::now() + args.interval;
        let answer = tokio::select! {
            biased;
            _ = &mut interrupted => break,
            answer = client.ping(&request) => answer,
        };
        summary.sent = summary.sent.saturating_add(1);
        match answer {
            Ok(answer) => {
                summary.replied(&answer);
                direct = answer.path == PathKind::Direct;
                screen.line(&answer, || view::ping_reply(&answer, summary.sent))?;
            }
            Err(error) if is_loss(&error) => {
                screen.note(&view::ping_loss(&request.peer, summary.sent, &error))
            }
            Err(error) => return Err(suggest::peers(error, &request.peer, client).await),
        }
        if summary.sent == args.count || (args.until_direct && direct) {
            break;
        }
        tokio::select! {
            biased;
            _ = &mut interrupted => break,
            () = sleep_until(next) => {}
        }
    }
    screen.ping_summary(&summary)?;
    Ok(match (summary.received(), summary.sent) {
        (0, 1..) => Exit::Timeout,
        _ if args.until_direct && !direct => {
            screen.note(&format!("no direct path; \"meshctl why {}\" tells why", request.peer));
            Exit::Degraded
        }
        _ => Exit::Done,
    })
}

fn path(via: Via) -> PingVia {
    match via {
        Via::Relay => PingVia::Relay,
        Via::Direct => PingVia::Direct,
    }
}

/// Whether the next one may well come through.
fn is_loss(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::Timeout | ErrorCode::RelayUnreachable | ErrorCode::Degraded))
}
