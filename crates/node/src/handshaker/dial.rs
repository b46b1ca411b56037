//! Handshakes that we lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_session::handshake::{
    Assembly, AwaitChallenge, AwaitEstablished, COOKIE_LIFETIME, Fragments, HandshakeError, with_cookie,
};
use mesh_wire::NodeId;
use mesh_wire::handshake::{Challenge, ESTABLISHED, HOLDS_SESSION, parse_box};
use zeroize::Zeroizing;

use super::fragments::Outgoing;
use super::{Handshaker, Outcome};
use crate::counters::DropReason;
use crate::index::Number;
use crate::node::Now;
use crate::order::Establishment;
use crate::path::Path;
use crate::tx::TxQueue;

/// The first HELLO without an answer is repeated after this, each next one after twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(16);
/// A handshake that nobody renews the wish for ends after this (WireGuard's REKEY_ATTEMPT_TIME).
const GIVE_UP: Duration = Duration::from_secs(90);
/// Paths tried at once with one peer.
const PATHS: usize = 16;

/// A handshake we lead.
pub(super) struct Dial {
    number: Number,
    /// The session's number after the mix.
    mixed: Option<Number>,
    paths: Vec<Path>,
    /// Where this HELLO went: nobody else answers it.
    sent_over: Vec<Path>,
    state: State,
    /// When its last message was sent.
    sent: Instant,
    retry_at: Instant,
    tries: u32,
    give_up_at: Instant,
    /// What is repeated over UDP until it is answered.
    outgoing: Vec<Outgoing>,
    /// Cookies of the responder, each for the path that it came over, with when they came.
    cookies: BTreeMap<Path, (Instant, Zeroizing<[u8; 16]>)>,
}

/// Where a handshake we lead stands.
enum State {
    /// HELLO is sent.
    Hello { state: Box<AwaitChallenge>, hello: Vec<u8> },
    /// RESPONSE is sent.
    Response {
        state: Box<AwaitEstablished>,
        path: Path,
        crossed: bool,
        /// The QUIC connection that we said we hold.
        connection: [u8; 8],
        /// The parts of ESTABLISHED, as they come.
        inbound: Option<Assembly>,
    },
}

impl Dial {
    pub(super) fn due(&self) -> Instant {
        let resend = self.outgoing.iter().filter_map(Outgoing::due);
        resend.chain([self.retry_at, self.give_up_at]).min().unwrap_or(self.retry_at)
    }
}

impl Handshaker {
    /// Leads a handshake, or goes on with the one that is led.
    pub(super) fn dial(&mut self, now: Now, peer: NodeId, paths: Vec<Path>, tx: &mut TxQueue) {
        let paths = paths.into_iter().take(PATHS).collect();
        let Some(dial) = self.dials.get_mut(&peer) else {
            return self.begin(now, peer, paths, None, tx);
        };
        dial.paths = paths;
        if now.instant.duration_since(dial.sent) >= RETRY_FIRST {
            // Whoever asks again knows that it may help: the waits start over.
            let paths = std::mem::take(&mut dial.paths);
            self.stop_dial(peer);
            return self.begin(now, peer, paths, None, tx);
        }
        // A path that has just come need not wait for the next attempt.
        let Some(mut dial) = self.dials.remove(&peer) else { return };
        for path in dial.paths.clone() {
            if !dial.sent_over.contains(&path) {
                self.send_hello(now.instant, &mut dial, peer, path, tx);
            }
        }
        self.dials.insert(peer, dial);
    }

    /// Gives a handshake up that we lead.
    pub(super) fn stop_dial(&mut self, peer: NodeId) -> Option<Dial> {
        let dial = self.dials.remove(&peer)?;
        self.dialled.remove(&dial.number.get());
        Some(dial)
    }

    /// Repeats what was not answered and ends what took too long.
    pub(super) fn retry_dials(&mut self, now: Now, tx: &mut TxQueue) {
        let due: Vec<NodeId> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.retry_at.min(dial.give_up_at) <= now.instant)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            let Some(mut dial) = self.stop_dial(peer) else { continue };
            if dial.give_up_at <= now.instant {
                self.tell(Outcome::GaveUp { peer });
            } else {
                let paths = std::mem::take(&mut dial.paths);
                self.begin(now, peer, paths, Some(dial), tx);
            }
        }
        for dial in self.dials.values_mut() {
            for outgoing in &mut dial.outgoing {
                outgoing.resend(now.instant, tx);
            }
        }
    }

    /// Sends a HELLO with fresh keys over every path.
    fn begin(&mut self, now: Now, peer: NodeId, paths: Vec<Path>, before: Option<Dial>, tx: &mut TxQueue) {
        let Some(number) = self.numbers.allocate() else {
            self.tell(Outcome::GaveUp { peer });
            return self.counters.count(DropReason::TableFull);
        };
        let nonce = self.nonce();
        let started = AwaitChallenge::start(&self.local, &self.network, peer, number.get(), nonce);
        let Ok((state, hello)) = started else {
            self.tell(Outcome::Refused { peer, error: HandshakeError::Library });
            self.tell(Outcome::GaveUp { peer });
            return self.counters.count(DropReason::HandshakeRefused);
        };
        let tries = before.as_ref().map_or(0, |dial| dial.tries) + 1;
        let wait = RETRY_FIRST.saturating_mul(1 << (tries - 1).min(8)).min(RETRY_MOST);
        let give_up_at = before.as_ref().map_or(now.instant + GIVE_UP, |dial| dial.give_up_at);
        let mut cookies = before.map_or_else(BTreeMap::new, |dial| dial.cookies);
        cookies.retain(|_, (came, _)| now.instant.duration_since(*came) < COOKIE_LIFETIME);
        let mut dial = Dial {
            mixed: self.mixed_number(),
            paths,
            sent_over: Vec::new(),
            state: State::Hello { state: Box::new(state), hello },
            sent: now.instant,
            retry_at: now.instant + wait,
            tries,
            give_up_at,
            outgoing: Vec::new(),
            cookies,
            number,
        };
        for path in dial.paths.clone() {
            self.send_hello(now.instant, &mut dial, peer, path, tx);
        }
        self.dialled.insert(dial.number.get(), peer);
        self.dials.insert(peer, dial);
    }

    /// Sends the HELLO of a dial over one path, with the cookie that belongs there.
    fn send_hello(&mut self, now: Instant, dial: &mut Dial, peer: NodeId, path: Path, tx: &mut TxQueue) {
        let State::Hello { hello, .. } = &dial.state else { return };
        if !dial.sent_over.contains(&path) {
            dial.sent_over.push(path);
        }
        let proven = dial.cookies.get(&path).and_then(|(_, cookie)| with_cookie(hello, cookie).ok());
        let hello = proven.as_ref().unwrap_or(hello);
        match path {
            Path::Relay(_) => tx.message(path, hello),
            Path::Udp(_) => {
                let id = self.nonce();
                let Ok(parts) = self.network.split(hello, peer, id) else { return };
                dial.outgoing.retain(|outgoing| outgoing.path() != path);
                dial.outgoing.push(Outgoing::new(now, path, parts, tx));
            }
        }
    }

    /// A responder under load wants the HELLO again, with a cookie.
    pub(super) fn handle_cookie(
        &mut self,
        now: Now,
        from: Path,
        message: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let cookie = mesh_wire::cookie::Cookie::parse(message).map_err(|_| DropReason::Malformed)?;
        let peer = self.dialled.get(&cookie.receiver).copied().ok_or(DropReason::HandshakeRefused)?;
        let Some(mut dial) = self.dials.remove(&peer) else { return Err(DropReason::HandshakeRefused) };
        let result = match &dial.state {
            // One cookie answers one HELLO: a responder that sends more of them is not served.
            State::Hello { hello, .. }
                if dial.sent_over.contains(&from)
                    && dial.cookies.get(&from).is_none_or(|(came, _)| *came < dial.sent) =>
            {
                self.network.open_cookie(message, hello, peer).map_err(|_| DropReason::HandshakeRefused)
            }
            State::Hello { .. } | State::Response { .. } => Err(DropReason::HandshakeRefused),
        };
        let result = result.map(|value| {
            dial.cookies.insert(from, (now.instant, Zeroizing::new(value)));
            self.send_hello(now.instant, &mut dial, peer, from, tx);
        });
        self.dials.insert(peer, dial);
        result
    }

    pub(super) fn handle_challenge(
        &mut self,
        now: Now,
        from: Path,
        challenge: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let (parsed, _) = Challenge::parse(challenge).map_err(|_| DropReason::Malformed)?;
        let peer = self.dialled.get(&parsed.receiver).copied().ok_or(DropReason::HandshakeRefused)?;
        let crossed = self.held.contains(&peer) || self.answers(peer);
        let dial = self.dials.get(&peer).filter(|dial| dial.sent_over.contains(&from));
        let dial = dial.ok_or(DropReason::HandshakeRefused)?;
        let State::Hello { state, .. } = &dial.state else { return Err(DropReason::HandshakeRefused) };
        let flags = if crossed { HOLDS_SESSION } else { 0 };
        let claims = self.claims(peer, None, dial.mixed.as_ref(), flags);
        let taken = state.take(&self.local, &self.network, challenge, &claims);
        let (next, response) = match taken {
            Ok(taken) => taken,
            Err(error) => return Err(self.refuse(peer, error)),
        };
        let Some(dial) = self.dials.get_mut(&peer) else { return Err(DropReason::HandshakeRefused) };
        dial.outgoing.clear();
        match from {
            Path::Relay(_) => tx.message(from, &response),
            Path::Udp(_) => {
                let parts = next.fragments().split(&response).map_err(|_| DropReason::HandshakeRefused)?;
                dial.outgoing.push(Outgoing::new(now.instant, from, parts, tx));
            }
        }
        dial.state = State::Response {
            state: Box::new(next),
            path: from,
            crossed,
            connection: claims.params.connection,
            inbound: None,
        };
        dial.sent = now.instant;
        dial.retry_at = now.instant + RETRY_FIRST.saturating_mul(1 << (dial.tries - 1).min(4));
        Ok(())
    }

    pub(super) fn handle_established(
        &mut self,
        now: Now,
        from: Path,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let receiver = parse_box(ESTABLISHED, message).map_err(|_| DropReason::Malformed)?;
        let peer = self.dialled.get(&receiver).copied().ok_or(DropReason::HandshakeRefused)?;
        let dial = self.dials.get(&peer).ok_or(DropReason::HandshakeRefused)?;
        let State::Response { state, path, crossed, connection, .. } = &dial.state else {
            return Err(DropReason::HandshakeRefused);
        };
        let (path, crossed, connection) = (*path, *crossed, *connection);
        if from != path {
            return Err(DropReason::HandshakeRefused);
        }
        let established = match state.take(&self.local, message) {
            Ok(established) => established,
            Err(error) => return Err(self.refuse(peer, error)),
        };
        let leaf = self.admit(now, from, &established.peer)?;
        let Some(dial) = self.stop_dial(peer) else { return Err(DropReason::HandshakeRefused) };
        self.held.insert(peer);
        let params = established.peer.params;
        let crossed = crossed || params.capabilities & HOLDS_SESSION != 0;
        self.tell(Outcome::Established(Box::new(Establishment {
            leaf,
            session: established.session,
            number: dial.number,
            mixed: dial.mixed,
            initiator: self.own,
            crossed,
            path,
            keeps_connection: keeps_connection(connection, params.connection),
            params,
            roster_version: self.roster.version(),
        })));
        Ok(())
    }

    /// Returns where the parts of an ESTABLISHED for this number go.
    pub(super) fn awaits_established(
        &mut self,
        number: u32,
        from: Path,
    ) -> Option<(Arc<Fragments>, &mut Option<Assembly>)> {
        let peer = self.dialled.get(&number)?;
        match &mut self.dials.get_mut(peer)?.state {
            State::Response { state, path, inbound, .. } if *path == from => {
                Some((state.fragments(), inbound))
            }
            State::Response { .. } | State::Hello { .. } => None,
        }
    }

    /// Takes the acknowledgement of parts of a RESPONSE; true when it was one.
    pub(super) fn acknowledge_response(&mut self, number: u32, from: Path, datagram: &[u8]) -> bool {
        let dial = self.dialled.get(&number).and_then(|peer| self.dials.get_mut(peer));
        let Some(Dial { state: State::Response { state, path, .. }, outgoing, .. }) = dial else {
            return false;
        };
        let Ok(bitmap) = state.fragments().open_ack(datagram) else { return false };
        if *path == from {
            for outgoing in outgoing {
                outgoing.acknowledge(bitmap);
            }
        }
        true
    }

    /// Returns the peer that a number is dialled for, while HELLO is sent.
    pub(super) fn awaits_challenge(&self, number: u32, from: Path) -> Option<NodeId> {
        let peer = self.dialled.get(&number)?;
        let dial = self.dials.get(peer)?;
        let awaits = matches!(dial.state, State::Hello { .. }) && dial.sent_over.contains(&from);
        awaits.then_some(*peer)
    }

    fn refuse(&mut self, peer: NodeId, error: HandshakeError) -> DropReason {
        self.tell(Outcome::Refused { peer, error });
        DropReason::HandshakeRefused
    }
}

/// Tells whether both sides said that they hold the same QUIC connection. Only what was said counts, so that both come to
/// the same result.
pub(super) fn keeps_connection(ours: [u8; 8], theirs: [u8; 8]) -> bool {
    theirs != [0; 8] && ours == theirs
}
