//! `meshctl why`

use mesh_control::{Client, NodeState, PathKind, PeerStatus};

use super::suggest;
use crate::cli::WhyArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Screen;
use crate::why::judge;

/// Looks at the node and the peer at one moment.
pub(super) async fn run(args: WhyArgs, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let status = client.status().await?;
    let found = status.peers.iter().find(|peer| is(peer, &args.peer)).cloned();
    let peer = match found {
        Some(peer) => peer,
        // The daemon's own refusal: no such peer, or no network at all.
        None => match client.peer(&args.peer).await {
            Ok(peer) => peer,
            Err(error) => return Err(suggest::peers(error, &args.peer, client).await),
        },
    };
    if status.state == NodeState::Down {
        return Err(
            Failure::new(Exit::NotUp, "down", "this node is down").with_hint("run \"meshctl up\" first")
        );
    }
    screen.why(&peer, &judge(&status, &peer))?;
    let direct = matches!(peer.path, PathKind::Direct | PathKind::DirectWss);
    Ok(if direct { Exit::Done } else { Exit::Degraded })
}

/// Whether this is the peer's name, id or address.
fn is(peer: &PeerStatus, text: &str) -> bool {
    peer.name == text
        || peer.node_id == text
        || text.parse().is_ok_and(|address| peer.addresses.contains(&address))
}
