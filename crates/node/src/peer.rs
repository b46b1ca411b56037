//! One peer: its sessions, the way to it, the packets that wait for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_session::handshake::HandshakeError;
use mesh_session::{LaneSealer, Session};
use mesh_wire::NodeId;

use crate::agent::Agent;
use crate::bucket::Bucket;
use crate::contact::MIX_PATIENCE;
use crate::hold::Held;
use crate::index::Number;
use crate::lanes::Told;
use crate::path::Path;
use crate::paths::Paths;
use crate::rekey::{Follow, Lead};

/// Packets that wait for a session, at most.
const QUEUE_PACKETS: usize = 256;
/// Bytes that wait for a session, at most.
const QUEUE_BYTES: usize = 256 * 1024;
/// Pings of one peer that wait for their answer; of more, the oldest are forgotten.
const PINGS: usize = 16;
/// A packet that waited longer is of no use to its sender.
pub(crate) const QUEUE_AGE: Duration = Duration::from_secs(10);
/// Within this time of each other, two sessions count as opened at once.
const SIMULTANEOUS: Duration = Duration::from_secs(10);
/// Sessions of one peer: the one in use, one before it, one on its way in, and what that one becomes once it is mixed.
const SESSIONS: usize = 4;
/// A session that is not the one in use stays receivable this long.
pub(crate) const LINGER: Duration = Duration::from_secs(15);

/// A peer of this node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// What the relay says; none while it said nothing.
    pub(crate) online: Option<bool>,
    /// The ways to it.
    pub(crate) paths: Paths,
    /// What looks for them beside the challenges.
    pub(crate) agent: Agent,
    pub(crate) sessions: Vec<Live>,
    /// Our number of the session that the peer last sent under; it need not be the one that we send under.
    pub(crate) heard_under: Option<u32>,
    /// The same of packets alone: what answers us comes under the session that we asked under.
    pub(crate) packets_under: Option<u32>,
    /// A handshake was asked for and has not ended.
    pub(crate) dialling: bool,
    pub(crate) lead: Option<Lead>,
    pub(crate) follow: Option<Follow>,
    pub(crate) queue: Queue,
    /// Packets that wait for those which are on their way over the relay.
    pub(crate) held: Option<Held>,
    /// When the last packet took the relay.
    pub(crate) relayed: Option<Instant>,
    /// The deadline this peer stands under in the node's table.
    pub(crate) armed: Option<Instant>,
    /// Since when we have sent and heard nothing.
    pub(crate) unanswered_since: Option<Instant>,
    /// Since when we have heard data and sent nothing.
    pub(crate) silent_since: Option<Instant>,
    /// The peer seems to know none of our sessions; the next frame from it proves otherwise.
    pub(crate) doubted: bool,
    /// Pings ask whether the session still stands.
    pub(crate) probe: Option<Probe>,
    /// Ids of the newest pings and when they were sent.
    pub(crate) pings: VecDeque<(u64, Instant)>,
    /// The same of those that took a path or had a length that somebody asked for, and the path.
    echoes: VecDeque<(u64, Instant, Path)>,
    /// How often senders of packets for it were told that they are too big.
    pub(crate) told: Bucket,
    pub(crate) rtt: Option<Duration>,
    pub(crate) last_received: Option<Instant>,
    pub(crate) traffic: Traffic,
    pub(crate) last_error: Option<HandshakeError>,
    /// An address that only the first thread has the socket for.
    pub(crate) alone: Option<SocketAddr>,
    /// What workers were told.
    pub(crate) shared: Told,
    /// How often it may say at which relays it is.
    pub(crate) told_relays: Bucket,
    /// How often it may say where its door is.
    pub(crate) told_door: Bucket,
    /// What goes by the relay reaches it past the relays, whether these are connected or not.
    pub(crate) beside: bool,
}

/// A question whether a session still stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    /// Pings sent so far.
    pub(crate) sent: u32,
    /// When the next one is due, or the answer counts as no.
    pub(crate) next: Instant,
}

/// Payload that went through the tunnel.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
}

/// An established session and what its choice depends on.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) session: Session,
    /// Our number for it.
    pub(crate) number: Number,
    /// Who sent the HELLO.
    pub(crate) initiator: NodeId,
    /// When the handshake ended that its keys descend from.
    pub(crate) handshake: Instant,
    pub(crate) established: Instant,
    pub(crate) last_used: Instant,
    /// It may carry data: a frame of the peer arrived under it, its answer was verified, or it was mixed.
    pub(crate) confirmed: bool,
    /// The peer holds it for certain: as above, except for one that was mixed, which takes a frame of the peer.
    pub(crate) heard: bool,
    /// Its initiator held another session or handshake with the responder when it was begun, or its responder had begun a
    /// handshake of its own; both sides know of either.
    pub(crate) crossed: bool,
    /// The version of our roster when the handshake ended.
    pub(crate) roster_version: u64,
    /// The exporter of the QUIC connection is in its keys.
    pub(crate) mixed: bool,
    /// The exporter is awaited.
    pub(crate) mixing: Option<Mixing>,
    /// The hash of the peer's TLS public key, another one after each start of it.
    pub(crate) tls_pin: [u8; 32],
    /// The lanes of workers that may not send yet, one for each worker; nothing where the lanes are not divided.
    pub(crate) lanes: Vec<Option<LaneSealer>>,
    /// Frames that the lane of a worker has sealed, the most of all.
    pub(crate) lanes_sealed: u64,
}

/// The numbers of the session that follows once the exporter is there.
#[derive(Debug)]
pub(crate) struct Mixing {
    pub(crate) number: Number,
    pub(crate) remote: u32,
}

/// Packets that wait for a session, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// When each came, and from which thread.
    packets: VecDeque<(Instant, u16, Vec<u8>)>,
    bytes: usize,
}

impl Peer {
    pub(crate) fn new(id: NodeId, name: String) -> Self {
        Self {
            id,
            name,
            online: None,
            paths: Paths::new(id),
            agent: Agent::default(),
            sessions: Vec::new(),
            heard_under: None,
            packets_under: None,
            dialling: false,
            lead: None,
            follow: None,
            queue: Queue::default(),
            held: None,
            relayed: None,
            armed: None,
            unanswered_since: None,
            silent_since: None,
            doubted: false,
            probe: None,
            pings: VecDeque::new(),
            echoes: VecDeque::new(),
            told: Bucket::default(),
            rtt: None,
            last_received: None,
            traffic: Traffic::default(),
            last_error: None,
            alone: None,
            shared: Told::default(),
            told_relays: Bucket::default(),
            told_door: Bucket::default(),
            beside: false,
        }
    }

    /// Returns the session to send under: a confirmed one before one that is not; of two that crossed each other the
    /// one begun by the smaller node id, otherwise the newer.
    pub(crate) fn current(&self) -> Option<usize> {
        self.best(|_| true)
    }

    /// Returns the best of the sessions that have the exporter in their keys.
    pub(crate) fn mixed(&self) -> Option<usize> {
        self.best(|live| live.mixed)
    }

    /// Returns the best of the sessions that the peer holds for certain; any other where there is none.
    pub(crate) fn settled(&self) -> Option<usize> {
        self.best(|live| live.heard).or_else(|| self.current())
    }

    /// Returns the places of the sessions that are needed; all others only receive what is late.
    pub(crate) fn in_use(&self) -> [Option<usize>; 5] {
        let place = |number: Option<u32>| number.and_then(|number| self.position(number));
        let (theirs, packets) = (place(self.heard_under), place(self.packets_under));
        [self.current(), self.mixed(), self.settled(), theirs, packets]
    }

    /// Tells whether it may be there: the relay does not say otherwise, or a session stands beside the relay.
    pub(crate) fn is_reachable(&self) -> bool {
        self.beside
            || self.online != Some(false)
            || (matches!(self.paths.current(), Path::Udp(_)) && !self.sessions.is_empty())
    }

    /// Tells whether a session that was just made waits for the exporter.
    pub(crate) fn mixes_soon(&self, now: Instant) -> bool {
        let young = |live: &Live| now.duration_since(live.established) < MIX_PATIENCE;
        self.sessions.iter().any(|live| live.mixing.is_some() && young(live))
    }

    /// Tells whether a session stands that is not in doubt.
    pub(crate) fn holds_session(&self) -> bool {
        !self.sessions.is_empty() && !self.doubted
    }

    /// Adds a session and returns the number of one that had to go.
    #[must_use]
    pub(crate) fn add_session(&mut self, live: Live) -> Option<u32> {
        let mut evicted = None;
        if self.sessions.len() == SESSIONS {
            // What the peer sends under gives way where room is needed: it moves on to a newer one, too.
            let in_use = [self.current(), self.mixed(), self.settled()];
            let oldest = (0..self.sessions.len())
                .filter(|at| !in_use.contains(&Some(*at)))
                .min_by_key(|at| self.sessions[*at].established);
            evicted = oldest.map(|at| self.sessions.remove(at).number.get());
        }
        self.sessions.push(live);
        evicted
    }

    /// Remembers a ping that was sent.
    pub(crate) fn pinged(&mut self, id: u64, now: Instant) {
        if self.pings.len() == PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((id, now));
    }

    /// Takes a ping that was answered and returns when it was sent.
    pub(crate) fn ponged(&mut self, id: u64) -> Option<Instant> {
        let at = self.pings.iter().position(|(waiting, _)| *waiting == id)?;
        self.pings.remove(at).map(|(_, sent)| sent)
    }

    /// Remembers a ping that was sent over a path.
    pub(crate) fn echoed(&mut self, id: u64, now: Instant, path: Path) {
        if self.echoes.len() == PINGS {
            self.echoes.pop_front();
        }
        self.echoes.push_back((id, now, path));
    }

    /// Takes such a ping that was answered over the same path and returns when it was sent.
    pub(crate) fn echo_answered(&mut self, id: u64, from: Path) -> Option<Instant> {
        let at = self.echoes.iter().position(|(waiting, _, path)| (*waiting, *path) == (id, from))?;
        self.echoes.remove(at).map(|(_, sent, _)| sent)
    }

    /// Returns the place of the session with this number.
    pub(crate) fn position(&self, index: u32) -> Option<usize> {
        self.sessions.iter().position(|live| live.number.get() == index)
    }

    /// Returns the best of the sessions that are eligible.
    pub(crate) fn best(&self, eligible: impl Fn(&Live) -> bool) -> Option<usize> {
        (0..self.sessions.len())
            .filter(|at| eligible(&self.sessions[*at]))
            .reduce(|best, at| if self.better(at, best) { at } else { best })
    }

    fn better(&self, at: usize, than: usize) -> bool {
        let (new, old) = (&self.sessions[at], &self.sessions[than]);
        if new.confirmed != old.confirmed {
            return new.confirmed;
        }
        if new.handshake == old.handshake && new.initiator == old.initiator {
            return new.established >= old.established;
        }
        // Of two chains of keys the later handshake counts, however late one of them was rekeyed: both sides see the
        // same order of handshakes, but not of the rekeys between them.
        let apart = new.handshake.max(old.handshake) - new.handshake.min(old.handshake);
        let newer_is_new = new.handshake >= old.handshake;
        let crossed = if newer_is_new { new.crossed } else { old.crossed };
        if crossed && apart <= SIMULTANEOUS && new.initiator != old.initiator {
            return new.initiator < old.initiator;
        }
        newer_is_new
    }
}

impl Live {
    /// Returns the session that follows this one with other keys.
    pub(crate) fn followed_by(
        &self,
        session: Session,
        number: Number,
        now: Instant,
        confirmed: bool,
    ) -> Self {
        Self {
            session,
            number,
            initiator: self.initiator,
            handshake: self.handshake,
            established: now,
            last_used: now,
            confirmed,
            heard: confirmed,
            crossed: self.crossed,
            roster_version: self.roster_version,
            mixed: self.mixed,
            mixing: None,
            tls_pin: self.tls_pin,
            lanes: Vec::new(),
            lanes_sealed: 0,
        }
    }

    /// Returns the lane of a thread that is still kept here for it.
    pub(crate) fn lane(&mut self, thread: u16) -> Option<&mut LaneSealer> {
        self.lanes.get_mut(usize::from(thread).checked_sub(1)?)?.as_mut()
    }

    /// Returns how many frames were sealed on the lanes of the thread that sealed most.
    pub(crate) fn sealed(&self) -> u64 {
        let kept = self.lanes.iter().flatten().map(LaneSealer::sealed).max().unwrap_or(0);
        self.session.sealed().max(self.lanes_sealed).max(kept)
    }
}

impl Traffic {
    /// Adds what went elsewhere.
    pub(crate) const fn add(&mut self, more: Self) {
        self.rx_packets += more.rx_packets;
        self.rx_bytes += more.rx_bytes;
        self.tx_packets += more.tx_packets;
        self.tx_bytes += more.tx_bytes;
    }
}

impl Queue {
    /// Appends a packet and returns how many older ones had to go.
    pub(crate) fn push(&mut self, now: Instant, lane: u16, packet: &[u8]) -> usize {
        self.bytes += packet.len();
        self.packets.push_back((now, lane, packet.to_vec()));
        let mut dropped = 0;
        while self.packets.len() > QUEUE_PACKETS || self.bytes > QUEUE_BYTES {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest packet, with the thread that it came from.
    pub(crate) fn pop(&mut self) -> Option<(u16, Vec<u8>)> {
        let (_, lane, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some((lane, packet))
    }

    /// Drops what waited too long and returns how many that were.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        while self.packets.front().is_some_and(|(at, ..)| now.duration_since(*at) >= QUEUE_AGE) {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.packets.front().map(|(at, ..)| *at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use super::*;

    #[test]
    fn full_queue_drops_its_oldest() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for number in 0..QUEUE_PACKETS {
            assert_eq!(queue.push(now, 0, &number.to_le_bytes()), 0);
        }
        assert_eq!(queue.push(now, 0, b"next"), 1);
        assert_eq!(queue.pop().unwrap().1, 1usize.to_le_bytes());
        assert!(queue.push(now, 0, &vec![0; QUEUE_BYTES]) > 0);
        assert_eq!(queue.pop().map(|(_, p)| p.len()), Some(QUEUE_BYTES));
        assert!(queue.is_empty());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn queue_forgets_what_waited_too_long() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(now, 0, b"old");
        queue.push(now + Duration::from_secs(1), 3, b"new");
        assert_eq!(queue.expire(now + QUEUE_AGE), 1);
        assert_eq!(queue.pop().unwrap(), (3, b"new".to_vec()));
    }
}
