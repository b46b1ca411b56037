//! What status shows of a node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use mesh_wire::control::{CandidateKind, Candidates, Mapping};

use crate::counters::{Counters, DropReason};
use crate::node::Node;
use crate::path::Path;
use crate::paths::{Birthday, ChangeReason, Remote, chance};
use crate::peer::Peer;

/// A node at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its peers, in the order of the roster.
    pub peers: Vec<PeerSnapshot>,
    /// What it dropped.
    pub drops: Vec<(DropReason, u64)>,
    /// The version of its roster.
    pub roster_version: u64,
    /// It looks for paths without the relay.
    pub direct: bool,
    /// It guesses ports where nothing else leads to a direct path.
    pub birthday: bool,
    /// Where it may be reached without the relay, as far as it was found out.
    pub candidates: Candidates,
}

/// A peer at one moment.
#[derive(Debug, Clone)]
pub struct PeerSnapshot {
    /// Its id.
    pub id: NodeId,
    /// Its name in the roster.
    pub name: String,
    /// Whether the relay says that it is connected.
    pub online: Option<bool>,
    /// Where frames to it go.
    pub path: Path,
    /// How often that changed.
    pub path_changes: u64,
    /// The last time that it did.
    pub last_change: Option<ChangeSnapshot>,
    /// The longest packet that a direct path carries, in bytes.
    pub path_mtu: Option<u16>,
    /// The addresses that are known of it.
    pub remotes: Vec<RemoteSnapshot>,
    /// How its NAT maps, as it says.
    pub mapping: Mapping,
    /// A search for a path without the relay goes on.
    pub searching: bool,
    /// How long until traffic begins the next search.
    pub next_search: Option<Duration>,
    /// Challenges that went to ports which it did not name.
    pub guesses: u64,
    /// What came of guessing ports with it.
    pub birthday: BirthdaySnapshot,
    /// What we do about it.
    pub phase: PeerPhase,
    /// The session in use.
    pub session: Option<SessionSnapshot>,
    /// The last ping's time.
    pub rtt: Option<Duration>,
    /// Since when nothing came from it.
    pub since_received: Option<Duration>,
    /// Packets and bytes of payload from and to it, over all sessions.
    pub rx: (u64, u64),
    /// See `rx`.
    pub tx: (u64, u64),
    /// Why the last handshake failed.
    pub last_error: Option<String>,
}

/// A change of path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeSnapshot {
    /// How long ago it was.
    pub since: Duration,
    /// Where frames went before.
    pub from: Path,
    /// Where they went then.
    pub to: Path,
    /// Why.
    pub reason: ChangeReason,
}

/// What came of guessing ports with a peer, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BirthdaySnapshot {
    /// It goes on.
    pub active: bool,
    /// How often it began.
    pub attempts: u32,
    /// How often it led to a path.
    pub found: u32,
    /// How long until it may begin again, after attempts without a result.
    pub next: Option<Duration>,
    /// How likely one attempt leads to a path, from 0 to 1; none where nothing has to be guessed.
    pub chance: Option<f64>,
}

/// An address of a peer at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteSnapshot {
    /// The address.
    pub address: SocketAddr,
    /// What the peer says of it; none where it was only seen there.
    pub kind: Option<CandidateKind>,
    /// It was found on a local network.
    pub near: bool,
    /// Agents of ICE agreed on it.
    pub ice: bool,
    /// Challenges that went there.
    pub sent: u32,
    /// How long ago the last one went there.
    pub since_sent: Option<Duration>,
    /// How long ago one was answered from there.
    pub since_answered: Option<Duration>,
    /// How long ago a long one was.
    pub since_proved: Option<Duration>,
    /// The longest packet that it was shown to carry, in bytes.
    pub mtu: Option<u16>,
    /// Frames are handed to the kernel one by one, since those that left together did not arrive.
    pub single: bool,
    /// The way's length.
    pub rtt: Option<Duration>,
}

/// A session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Its id, equal on both sides.
    pub id: [u8; 16],
    /// How long ago the handshake ended.
    pub age: Duration,
    /// How old the keys in use are.
    pub key_age: Duration,
    /// The exporter of the QUIC connection is in the keys.
    pub mixed: bool,
    /// The suite that both sides agreed on.
    pub suite: u16,
}

/// What a node does about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPhase {
    /// Nothing: no traffic wants it.
    Idle,
    /// A handshake is under way.
    Handshaking,
    /// A session stands.
    Established,
}

impl Node {
    /// Returns what status shows; `handshakes` is what the handshaker dropped.
    #[must_use]
    pub fn snapshot(&self, now: Instant, handshakes: &Counters) -> Snapshot {
        Snapshot {
            peers: self
                .peers
                .iter()
                .map(|peer| peer_snapshot(peer, self.candidates.mapping, now, self.overhead()))
                .collect(),
            drops: self.counters.plus(handshakes).iter().collect(),
            roster_version: self.roster.version(),
            direct: self.config.direct,
            birthday: self.config.birthday,
            candidates: self.candidates.clone(),
        }
    }
}

fn birthday_snapshot(birthday: &Birthday, chance: Option<f64>, now: Instant) -> BirthdaySnapshot {
    BirthdaySnapshot {
        active: birthday.is_active(),
        attempts: birthday.attempts,
        found: birthday.found,
        next: birthday.next.map(|at| at.saturating_duration_since(now)),
        chance,
    }
}

fn peer_snapshot(peer: &Peer, own: Mapping, now: Instant, overhead: u16) -> PeerSnapshot {
    let direct = matches!(peer.paths.current(), Path::Udp(_));
    let session = peer.mixed().or_else(|| peer.current()).map(|at| &peer.sessions[at]);
    PeerSnapshot {
        id: peer.id,
        name: peer.name.clone(),
        online: peer.online,
        path: peer.paths.current(),
        path_changes: peer.paths.changes(),
        last_change: peer.paths.last_change().map(|change| ChangeSnapshot {
            since: now.saturating_duration_since(change.at),
            from: change.from,
            to: change.to,
            reason: change.reason,
        }),
        path_mtu: direct.then(|| peer.paths.limit().saturating_sub(overhead)),
        remotes: peer
            .paths
            .remotes()
            .iter()
            .map(|remote| remote_snapshot(peer, remote, now, overhead))
            .collect(),
        mapping: peer.paths.mapping(),
        searching: peer.paths.searches(),
        next_search: peer.paths.next_search().map(|at| at.saturating_duration_since(now)),
        guesses: peer.paths.guessed(),
        birthday: birthday_snapshot(peer.paths.birthday(), chance(own, peer.paths.mapping()), now),
        phase: match (session, peer.dialling) {
            (Some(_), _) => PeerPhase::Established,
            (None, true) => PeerPhase::Handshaking,
            (None, false) => PeerPhase::Idle,
        },
        session: session.map(|live| SessionSnapshot {
            id: live.session.id(),
            age: now.duration_since(live.handshake),
            key_age: now.duration_since(live.established),
            mixed: live.mixed,
            suite: live.session.suite(),
        }),
        rtt: peer.rtt,
        since_received: peer.last_received.map(|at| now.duration_since(at)),
        rx: (peer.traffic.rx_packets, peer.traffic.rx_bytes),
        tx: (peer.traffic.tx_packets, peer.traffic.tx_bytes),
        last_error: peer.last_error.map(|error| error.to_string()),
    }
}

fn remote_snapshot(peer: &Peer, remote: &Remote, now: Instant, overhead: u16) -> RemoteSnapshot {
    let ago = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
    RemoteSnapshot {
        address: remote.address,
        kind: remote.kind,
        near: remote.near,
        ice: peer.agent.nominated(remote.address),
        sent: remote.sent,
        since_sent: ago(remote.last_sent),
        since_answered: ago(remote.answered),
        since_proved: ago(remote.proved),
        mtu: remote.sizing.carries().map(|bytes| bytes.saturating_sub(overhead)),
        single: !remote.segments.works(now),
        rtt: remote.rtt,
    }
}
