//! `meshctl why`

use mesh_control::{Client, NodeState, PathKind};

use super::suggest;
use crate::cli::WhyArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Screen;
use crate::why::judge;

/// Looks at the peer and the node at once; the daemon refuses names that no peer has.
pub(super) async fn run(args: WhyArgs, client: &Client, screen: &Screen) -> Result<Exit, Failure> {
    let peer = match client.peer(&args.peer).await {
        Ok(peer) => peer,
        Err(error) => return Err(suggest::peers(error, &args.peer, client).await),
    };
    let status = client.status().await?;
    if matches!(status.state, NodeState::Unenrolled | NodeState::Down) {
        return Err(
            Failure::new(Exit::NotUp, "down", "this node is down").with_hint("run \"meshctl up\" first")
        );
    }
    // The same moment for both, where the peer is still a member.
    let peer = status.peers.iter().find(|known| known.node_id == peer.node_id).unwrap_or(&peer);
    screen.why(peer, &judge(&status, peer))?;
    Ok(if peer.path == PathKind::Direct { Exit::Done } else { Exit::Degraded })
}
