//! Pings over a path that somebody names, and of a length that somebody names.

use mesh_wire::NodeId;
use mesh_wire::control::{Control, PATH_CHALLENGE, PROBE, PathChallenge};

use crate::node::{Node, Now};
use crate::path::Path;
use crate::tx::TxQueue;

/// What is asked of a ping beyond an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Echo {
    /// The path that it takes; the one in use unless given.
    pub via: Option<Via>,
    /// Bytes of the sealed message, both ways; as short as can be unless given.
    pub size: Option<u16>,
}

/// A path that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The relay.
    Relay,
    /// UDP.
    Direct,
}

/// Why a ping cannot take the path that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPath {
    /// This node is not connected to the relay.
    RelayDown,
    /// The peer is not connected to the relay.
    PeerNotAtRelay,
    /// No direct path is in use, and none is looked for.
    DirectOff,
    /// No address of the peer has carried full frames lately.
    NoDirect,
}

impl Node {
    /// Sends a sealed ping as asked and returns its id; none when there is no session. Poll afterwards.
    ///
    /// # Errors
    /// [`NoPath`] when the path that is asked for does not exist.
    pub fn echo(
        &mut self,
        now: Now,
        peer: NodeId,
        echo: Echo,
        tx: &mut TxQueue,
    ) -> Result<Option<u64>, NoPath> {
        let Some(slot) = self.by_id.get(&peer).copied() else { return Ok(None) };
        if echo == Echo::default() {
            return Ok(self.ping_slot(now.instant, slot, tx));
        }
        let peer = &self.peers[slot.0];
        let Some(at) = peer.settled() else { return Ok(None) };
        let number = peer.sessions[at].number.get();
        let known = Known {
            current: peer.paths.current(),
            relay: Path::Relay(peer.id),
            connected: self.relay || peer.beside,
            present: peer.beside || peer.online != Some(false),
            direct: peer.paths.direct(now.instant),
            searches: self.config.direct,
        };
        let path = known.choose(echo.via)?;
        let size = echo.size.map_or(PATH_CHALLENGE, usize::from).clamp(PATH_CHALLENGE, PROBE);
        let size = u16::try_from(size).expect("9000 at most");
        let id = self.random_u64();
        let challenge = Control::PathChallenge(PathChallenge { id, size });
        // The answer says something about this length alone.
        tx.end(path);
        let sent = self.send_control_over(now.instant, slot, number, path, &challenge, tx);
        tx.end(path);
        if !sent {
            return Ok(None);
        }
        self.peers[slot.0].echoed(id, now.instant, path);
        Ok(Some(id))
    }
}

/// What is known of the paths to a peer.
#[derive(Debug, Clone, Copy)]
struct Known {
    current: Path,
    relay: Path,
    connected: bool,
    present: bool,
    direct: Option<Path>,
    searches: bool,
}

impl Known {
    fn choose(self, via: Option<Via>) -> Result<Path, NoPath> {
        match via {
            None => Ok(self.current),
            Some(Via::Relay) if !self.connected => Err(NoPath::RelayDown),
            Some(Via::Relay) if !self.present => Err(NoPath::PeerNotAtRelay),
            Some(Via::Relay) => Ok(self.relay),
            Some(Via::Direct) => {
                self.direct.ok_or(if self.searches { NoPath::NoDirect } else { NoPath::DirectOff })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_that_is_asked_for_is_taken_or_its_absence_explained() {
        let relay = Path::Relay(NodeId([1; 32]));
        let udp = Path::Udp("192.0.2.1:1".parse().unwrap());
        let both =
            Known { current: udp, relay, connected: true, present: true, direct: Some(udp), searches: true };
        assert_eq!(both.choose(None), Ok(udp));
        assert_eq!(both.choose(Some(Via::Relay)), Ok(relay));
        assert_eq!(both.choose(Some(Via::Direct)), Ok(udp));
        let relayed = Known { current: relay, direct: None, ..both };
        assert_eq!(relayed.choose(None), Ok(relay));
        assert_eq!(relayed.choose(Some(Via::Direct)), Err(NoPath::NoDirect));
        let never = Known { searches: false, ..relayed };
        assert_eq!(never.choose(Some(Via::Direct)), Err(NoPath::DirectOff));
        assert_eq!(Known { present: false, ..both }.choose(Some(Via::Relay)), Err(NoPath::PeerNotAtRelay));
        assert_eq!(Known { connected: false, ..both }.choose(Some(Via::Relay)), Err(NoPath::RelayDown));
    }
}
