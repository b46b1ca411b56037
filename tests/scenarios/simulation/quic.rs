//! The QUIC connections of one simulated node, as far as they make keys: who waits for what, and four messages that stand
//! for the handshake of QUIC and the greeting after it. They are lost, repeated and reordered like everything else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use zeroize::Zeroizing;

/// What the endpoint asks for.
pub(super) enum Told {
    /// Carry this datagram to the peer.
    Send(Vec<u8>),
    /// The connection at hand has this id, zero for none.
    Connection([u8; 8]),
    /// Mix this into the session.
    Mix([u8; 16], Zeroizing<[u8; 64]>),
}

/// The ends of a node's connections.
#[derive(Default)]
pub(super) struct Ends(BTreeMap<NodeId, End>);

struct End {
    pin: [u8; 32],
    client: bool,
    connection: u64,
    stage: Stage,
    ready_since: Option<Instant>,
    waiting: Vec<[u8; 16]>,
    retry_at: Option<Instant>,
    tries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A server that has heard nothing.
    Waiting,
    /// A client that sent the first message, a server that answered it.
    Begun,
    /// A client that sent its certificate.
    Finished,
    Ready,
}

const INITIAL: u8 = 1;
const FLIGHT: u8 = 2;
const FINISHED: u8 = 3;
const GREETING: u8 = 4;
const RETRY: Duration = Duration::from_millis(400);
/// A client begins anew after so many unanswered repetitions.
const TRIES: u32 = 6;
const YOUNG: Duration = Duration::from_secs(10);

impl Ends {
    /// A session was established.
    pub(super) fn session(
        &mut self,
        now: Instant,
        peer: NodeId,
        session: [u8; 16],
        (pin, keeps): ([u8; 32], bool),
        client: bool,
        connection: u64,
    ) -> Vec<Told> {
        let fresh = || End {
            pin,
            client,
            connection: if client { connection } else { 0 },
            stage: if client { Stage::Begun } else { Stage::Waiting },
            ready_since: None,
            waiting: Vec::new(),
            retry_at: client.then_some(now + RETRY),
            tries: 0,
        };
        let mut told = Vec::new();
        let young = |end: &End| end.ready_since.is_none_or(|since| now.duration_since(since) < YOUNG);
        let waiting = match self.0.get(&peer) {
            Some(end) if end.pin == pin && (keeps || young(end)) => None,
            Some(end) => Some(end.waiting.clone()),
            None => Some(Vec::new()),
        };
        if let Some(waiting) = waiting {
            self.0.insert(peer, End { waiting, ..fresh() });
            told.push(Told::Connection([0; 8]));
            if client {
                told.push(send(INITIAL, connection));
            }
        }
        if let Some(end) = self.0.get_mut(&peer) {
            end.waiting.push(session);
            told.extend(end.mix());
        }
        told
    }

    pub(super) fn forget(&mut self, peer: NodeId) -> Vec<Told> {
        self.0.remove(&peer).map(|_| Told::Connection([0; 8])).into_iter().collect()
    }

    pub(super) fn datagram(&mut self, now: Instant, peer: NodeId, datagram: &[u8]) -> Vec<Told> {
        let Some(end) = self.0.get_mut(&peer) else { return Vec::new() };
        let [kind, id @ ..] = datagram else { return Vec::new() };
        let connection = u64::from_le_bytes(id.try_into().unwrap());
        match (*kind, end.client) {
            (INITIAL, false) if end.connection != connection => {
                (end.connection, end.stage, end.ready_since) = (connection, Stage::Begun, None);
                vec![Told::Connection([0; 8]), send(FLIGHT, connection)]
            }
            (INITIAL, false) => vec![send(FLIGHT, connection)],
            (FLIGHT, true) if end.connection == connection && end.stage == Stage::Begun => {
                (end.stage, end.tries, end.retry_at) = (Stage::Finished, 0, Some(now + RETRY));
                vec![send(FINISHED, connection)]
            }
            (FINISHED, false) if end.connection == connection => {
                let mut told = vec![send(GREETING, connection)];
                told.extend(end.ready(now));
                told
            }
            (GREETING, true) if end.connection == connection => end.ready(now),
            _ => Vec::new(),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(|end| end.retry_at).min()
    }

    pub(super) fn timeout(&mut self, now: Instant, connection: u64) -> Vec<(NodeId, Vec<Told>)> {
        let due = self.0.iter_mut().filter(|(_, end)| end.retry_at.is_some_and(|at| at <= now));
        due.map(|(peer, end)| {
            end.tries += 1;
            if end.tries > TRIES {
                (end.connection, end.stage, end.tries) = (connection, Stage::Begun, 0);
            }
            end.retry_at = Some(now + RETRY * (end.tries + 1));
            let kind = if end.stage == Stage::Finished { FINISHED } else { INITIAL };
            (*peer, vec![send(kind, end.connection)])
        })
        .collect()
    }
}

impl End {
    fn ready(&mut self, now: Instant) -> Vec<Told> {
        if self.stage == Stage::Ready {
            return Vec::new();
        }
        (self.stage, self.ready_since, self.retry_at) = (Stage::Ready, Some(now), None);
        let mut told = vec![Told::Connection(self.connection.to_le_bytes())];
        told.extend(self.mix());
        told
    }

    fn mix(&mut self) -> Vec<Told> {
        if self.stage != Stage::Ready {
            return Vec::new();
        }
        let connection = self.connection;
        self.waiting.drain(..).map(|session| Told::Mix(session, exporter(connection, session))).collect()
    }
}

fn send(kind: u8, connection: u64) -> Told {
    Told::Send([&[kind][..], &connection.to_le_bytes()].concat())
}

/// Equal at both ends of a connection, another one for each session.
fn exporter(connection: u64, session: [u8; 16]) -> Zeroizing<[u8; 64]> {
    let mut out = Zeroizing::new([0; 64]);
    out[..8].copy_from_slice(&connection.to_le_bytes());
    out[8..24].copy_from_slice(&session);
    out
}
