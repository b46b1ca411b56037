//! What the packet path and the handshakes say to each other.

use std::sync::Arc;

use mesh_identity::Roster;
use mesh_session::Session;
use mesh_session::handshake::HandshakeError;
use mesh_wire::NodeId;
use mesh_wire::handshake::Params;
use mesh_wire::roster::Leaf;

use crate::index::Number;
use crate::path::Path;

/// What a [`Node`](crate::Node) asks of its [`Handshaker`](crate::Handshaker).
#[derive(Debug)]
pub enum Order {
    /// Lead a handshake with a peer, over all of these paths at once; an attempt that was just made goes on.
    Dial {
        /// With whom.
        peer: NodeId,
        /// Where it may be; what answers first is used.
        paths: Vec<Path>,
        /// A session with it stands and is not in doubt.
        holds_session: bool,
    },
    /// Give the handshake up that we lead with a peer.
    Stop {
        /// With whom.
        peer: NodeId,
    },
    /// Whether a session with a peer stands has changed.
    Holds {
        /// With whom.
        peer: NodeId,
        /// A session with it stands and is not in doubt.
        session: bool,
    },
    /// The QUIC connection that we hold with a peer has changed.
    Connection {
        /// With whom.
        peer: NodeId,
        /// Its id, zero for none.
        id: [u8; 8],
    },
    /// Stand on a newer roster.
    Roster(Arc<Roster>),
}

/// What a [`Handshaker`](crate::Handshaker) tells its [`Node`](crate::Node).
#[derive(Debug)]
pub enum Outcome {
    /// A handshake is done.
    Established(Box<Establishment>),
    /// A message of a handshake that we lead was refused; the handshake goes on.
    Refused {
        /// With whom we lead it.
        peer: NodeId,
        /// Why.
        error: HandshakeError,
    },
    /// Nobody answered for so long that the handshake is over.
    GaveUp {
        /// With whom we led it.
        peer: NodeId,
    },
}

/// A session with a member.
#[derive(Debug)]
pub struct Establishment {
    /// What the roster, or a newer proof, says of the member.
    pub leaf: Leaf,
    /// The session.
    pub session: Session,
    /// Our number for it.
    pub number: Number,
    /// Our number for the session that follows once the QUIC exporter is mixed in; none where we do without.
    pub mixed: Option<Number>,
    /// Who sent the HELLO.
    pub initiator: NodeId,
    /// The initiator held another session or handshake with the responder, or the responder had begun one.
    pub crossed: bool,
    /// What it came about over.
    pub path: Path,
    /// The member's parameters.
    pub params: Params,
    /// Both sides hold the same QUIC connection and go on with it.
    pub keeps_connection: bool,
    /// The version of our roster by which the member was judged.
    pub roster_version: u64,
}
