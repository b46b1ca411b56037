//! Handshakes that others lead.

use std::time::{Duration, Instant};

use mesh_session::handshake::{Assembly, AwaitResponse};
use mesh_session::kdf::sha512;
use mesh_wire::NodeId;
use mesh_wire::handshake::{HELLO_BODY, HOLDS_SESSION};

use super::dial::keeps_connection;
use super::fragments::Outgoing;
use super::gate::Verdict;
use super::{Handshaker, Outcome};
use crate::counters::DropReason;
use crate::index::Number;
use crate::node::Now;
use crate::order::Establishment;
use crate::path::Path;
use crate::tx::TxQueue;

/// How long a responder waits for RESPONSE.
const HALF_OPEN_AGE: Duration = Duration::from_secs(5);
/// Most handshakes that others begin with us at a time.
const HALF_OPEN: usize = 1024;

/// A handshake that somebody began with us; one for each path.
pub(super) struct HalfOpen {
    number: Number,
    pub(super) state: AwaitResponse,
    expires: Instant,
    /// Hash of the HELLO, and the datagrams that answered it.
    hello: [u8; 64],
    challenge: Vec<Vec<u8>>,
    /// How often it was sent again.
    repeated: u8,
    /// The parts of RESPONSE, as they come.
    pub(super) inbound: Option<Assembly>,
}

/// A HELLO is repeated twice, and may be doubled on its way.
const REPEATED: u8 = 4;

impl HalfOpen {
    pub(super) const fn due(&self) -> Instant {
        self.expires
    }
}

impl Handshaker {
    pub(super) fn handle_hello(
        &mut self,
        now: Now,
        from: Path,
        hello: &[u8],
        backlog: usize,
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        if !self.network.knows_hello(hello, self.own) {
            return Err(DropReason::Stranger);
        }
        let hash = sha512(&[&hello[..HELLO_BODY]]);
        if let Some(half) = self.half_open.get_mut(&from).filter(|half| half.hello == hash) {
            if half.repeated == REPEATED {
                return Err(DropReason::RateLimited);
            }
            half.repeated += 1;
            // Repeated or doubled on its way: a fresh CHALLENGE would void the one that is on its way back.
            for datagram in &half.challenge {
                tx.message(from, datagram);
            }
            return Ok(());
        }
        let Self { gate, network, random, own, .. } = self;
        match gate.judge(now.instant, (network, *own), (from, hello), backlog, random) {
            Verdict::Answer => {}
            Verdict::Refuse => return Err(DropReason::RateLimited),
            Verdict::Cookie(message) => {
                tx.message(from, &message);
                return Err(DropReason::RateLimited);
            }
        }
        self.expire_half_open(now.instant);
        self.half_open.remove(&from);
        if self.half_open.len() == HALF_OPEN {
            return Err(DropReason::TableFull);
        }
        let number = self.numbers.allocate().ok_or(DropReason::TableFull)?;
        let nonce = self.nonce();
        let started = AwaitResponse::start(&self.local, &self.network, self.own, hello, number.get(), nonce);
        let (state, challenge) = started.map_err(|_| DropReason::HandshakeRefused)?;
        let challenge = match from {
            Path::Relay(_) => vec![challenge],
            Path::Udp(_) => {
                let id = self.nonce();
                self.network.split(&challenge, self.own, id).map_err(|_| DropReason::HandshakeRefused)?
            }
        };
        for datagram in &challenge {
            tx.message(from, datagram);
        }
        let expires = now.instant + HALF_OPEN_AGE;
        self.half_open.insert(
            from,
            HalfOpen { number, state, expires, hello: hash, challenge, repeated: 0, inbound: None },
        );
        Ok(())
    }

    pub(super) fn handle_response(
        &mut self,
        now: Now,
        from: Path,
        response: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        self.expire_half_open(now.instant);
        let waiting = self.half_open.get(&from).ok_or(DropReason::HandshakeRefused)?;
        // What costs little first: only who got the CHALLENGE and knows the secret takes of what all share.
        if !waiting.state.authenticates(&self.local, response) {
            return Err(DropReason::HandshakeRefused);
        }
        if !self.gate.judges_response(now.instant, from) {
            return Err(DropReason::RateLimited);
        }
        let claimed =
            waiting.state.take(&self.local, self.own, response).map_err(|_| DropReason::HandshakeRefused)?;
        let Some(HalfOpen { number, state, .. }) = self.half_open.remove(&from) else {
            return Err(DropReason::HandshakeRefused);
        };
        let leaf = self.admit(now, from, &claimed)?;
        let (peer, params) = (claimed.id, claimed.params);
        let mixed = if params.mixed_index == 0 { None } else { self.mixed_number() };
        // Each side has to know of both handshakes, or each would take its own for the newer one.
        let flags = if self.dials.contains_key(&peer) { HOLDS_SESSION } else { 0 };
        let claims = self.claims(peer, Some(params.roster_version), mixed.as_ref(), flags);
        let initiator = state.proven(claimed, response);
        let fragments = initiator.fragments();
        let (_, session, established) =
            initiator.establish(&self.local, &claims).map_err(|_| DropReason::HandshakeRefused)?;
        match from {
            Path::Relay(_) => tx.message(from, &established),
            Path::Udp(_) => {
                let parts = fragments.split(&established).map_err(|_| DropReason::HandshakeRefused)?;
                self.closing.put(fragments, Outgoing::new(now.instant, from, parts, tx));
            }
        }
        self.held.insert(peer);
        self.tell(Outcome::Established(Box::new(Establishment {
            leaf,
            session,
            number,
            mixed,
            initiator: peer,
            crossed: (params.capabilities | flags) & HOLDS_SESSION != 0,
            path: from,
            keeps_connection: keeps_connection(claims.params.connection, params.connection),
            params,
            roster_version: self.roster.version(),
        })));
        Ok(())
    }

    /// Tells whether a peer has begun a handshake with us, as far as its carrier names it.
    pub(super) fn answers(&self, peer: NodeId) -> bool {
        self.half_open.contains_key(&Path::Relay(peer))
    }

    pub(super) fn expire_half_open(&mut self, now: Instant) {
        self.half_open.retain(|_, half| half.expires > now);
    }
}
