//! The ways past the relays: connections of this node to the doors of peers, and of peers to its own (direct WSS).
//!
//! Both carry what goes by the relay, for one peer each. Which of them carries is decided when frames leave.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mesh_net::{RelaySender, SendError};
use mesh_wire::NodeId;
use meshrelay::DoorSender;

/// A connection with a peer, past the relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beside {
    /// The peer's end.
    pub(crate) address: SocketAddr,
    /// It is the peer's door; otherwise the peer is at the own one.
    pub(crate) theirs: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Doors {
    own: Option<DoorSender>,
    peers: BTreeMap<NodeId, Peer>,
    /// Peers whose door is to be dialled, since there are frames for them.
    wanted: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
struct Peer {
    theirs: Option<Theirs>,
    /// From where it is at the own door.
    guest: Option<SocketAddr>,
    /// Frames for it should lead to a connection to its door.
    wished: bool,
}

/// A client of a peer's door.
#[derive(Debug)]
struct Theirs {
    sender: RelaySender,
    /// Where the door is, while the connection stands.
    address: Option<SocketAddr>,
    /// The peer is behind it.
    present: bool,
}

/// What became of frames.
#[derive(Debug)]
pub(super) enum Sent {
    Yes(Result<(), SendError>),
    /// No connection past the relays carries them.
    No(BytesMut),
    /// The same, and one is worth making.
    Wanted(BytesMut),
}

impl Doors {
    /// Sends frames to a peer that is connected past the relays.
    pub(super) fn send(&mut self, to: &NodeId, payload: BytesMut, segment: Option<u16>) -> Sent {
        let Some(peer) = self.peers.get_mut(to) else { return Sent::No(payload) };
        if let Some(theirs) = peer.theirs() {
            return Sent::Yes(theirs.sender.send(*to, payload, segment));
        }
        if let Some(own) = self.own.as_ref().filter(|own| peer.guest.is_some() && own.reaches(to)) {
            own.send(to, &payload, segment);
            return Sent::Yes(Ok(()));
        }
        if std::mem::take(&mut peer.wished) && self.wanted.insert(*to) {
            return Sent::Wanted(payload);
        }
        Sent::No(payload)
    }

    /// Returns what carries frames for a peer past the relays.
    pub(super) fn beside(&self, node: &NodeId) -> Option<Beside> {
        let peer = self.peers.get(node)?;
        if let Some(address) = peer.theirs().and_then(|theirs| theirs.address) {
            return Some(Beside { address, theirs: true });
        }
        let address = peer.guest?;
        self.own.as_ref()?.reaches(node).then_some(Beside { address, theirs: false })
    }

    /// Opens or closes the own door. Returns who was there and is not any more.
    pub(super) fn set_own(&mut self, own: Option<DoorSender>) -> Vec<NodeId> {
        let closes = own.is_none();
        self.own = own;
        let left = |(node, peer): (&NodeId, &mut Peer)| peer.guest.take().map(|_| *node);
        if closes { self.peers.iter_mut().filter_map(left).collect() } else { Vec::new() }
    }

    pub(super) fn own(&self) -> Option<&DoorSender> {
        self.own.as_ref()
    }

    /// Takes that a peer is at the own door, or is not any more.
    pub(super) fn set_guest(&mut self, node: NodeId, from: Option<SocketAddr>) {
        self.change(node, |peer| peer.guest = from);
    }

    /// Puts a client of a peer's door in its place, or takes it out.
    pub(super) fn set_theirs(&mut self, node: NodeId, sender: Option<RelaySender>) {
        self.change(node, |peer| {
            peer.theirs = sender.map(|sender| Theirs { sender, address: None, present: false });
        });
    }

    /// Takes that the connection to a peer's door stands, or does not.
    pub(super) fn set_connected(&mut self, node: NodeId, address: Option<SocketAddr>) {
        if let Some(theirs) = self.peers.get_mut(&node).and_then(|peer| peer.theirs.as_mut()) {
            theirs.address = address;
            theirs.present &= address.is_some();
        }
    }

    /// Takes whether a peer is behind its door.
    pub(super) fn set_present(&mut self, node: NodeId, present: bool) {
        if let Some(theirs) = self.peers.get_mut(&node).and_then(|peer| peer.theirs.as_mut()) {
            theirs.present = present;
        }
    }

    /// Says whether frames for a peer should lead to a connection to its door.
    pub(super) fn set_wished(&mut self, node: NodeId, wished: bool) {
        self.change(node, |peer| peer.wished = wished);
    }

    /// Returns the peers whose door is to be dialled, once.
    pub(super) fn take_wanted(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.wanted)
    }

    /// Returns for how long nothing went through a peer's door.
    pub(super) fn idle_for(&self, node: &NodeId, now: Instant) -> Option<Duration> {
        Some(self.peers.get(node)?.theirs.as_ref()?.sender.idle_for(now))
    }

    /// The clients of peers' doors.
    pub(super) fn senders(&self) -> impl Iterator<Item = &RelaySender> {
        self.peers.values().filter_map(|peer| peer.theirs.as_ref()).map(|theirs| &theirs.sender)
    }

    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Peer)) {
        let peer = self.peers.entry(node).or_default();
        change(peer);
        if peer.theirs.is_none() && peer.guest.is_none() && !peer.wished {
            self.peers.remove(&node);
        }
    }
}

impl Peer {
    /// The client of its door, while that carries frames.
    fn theirs(&self) -> Option<&Theirs> {
        self.theirs.as_ref().filter(|theirs| theirs.present && theirs.sender.is_ready())
    }
}
