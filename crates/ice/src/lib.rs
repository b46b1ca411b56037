//! Finds addresses at which a peer answers, as ICE does (RFC 8445): connectivity checks of STUN under passwords that
//! both ends told each other inside the session.
//!
//! In: own and remote candidates, the peer's credentials, datagrams, the passing of time. Out: datagrams, and what
//! became of pairs of addresses. [`Agent`] is one end of one pair of peers; [`SansIo`] makes agents of the crate `is`,
//! and `Webrtc`, behind the feature `webrtc-ice`, those of `webrtc-ice`. [`Finder`] holds the agents of all peers,
//! exchanges credentials, and has a [`Gate`] before each agent.
//!
//! Invariants: no socket and no clock here. An agent sees only what its peer authenticated, from a bounded number of
//! addresses, and answers that it asked for; everything else is counted and gets no answer. A nominated pair is a place
//! to try, and moves no frames: that takes a sealed challenge (`docs/decisions/0025-ice-agent.md`).

mod finder;
mod gate;
mod sans_io;
#[cfg(test)]
mod tests;
#[cfg(feature = "webrtc-ice")]
mod webrtc;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_wire::control::{Candidate, IceCredentials};

pub use self::finder::{AGENTS, Finder, Output, Random, Setting};
pub use self::gate::{Gate, IceCounts};
pub use self::sans_io::SansIo;
#[cfg(feature = "webrtc-ice")]
pub use self::webrtc::Webrtc;

/// Remote candidates that an agent takes, those included that it finds itself; further ones are not tried.
pub const REMOTES: usize = 24;

/// One end of the search for a path to one peer. Poll for transmits, events and the timeout after each call that
/// changes something.
pub trait Agent: fmt::Debug + Send {
    /// Takes an address that checks leave from and come to, the base of all candidates of its socket (RFC 8445, section
    /// 5.1.1.1). One for each family is enough, as one socket serves it.
    fn add_local(&mut self, base: SocketAddr);

    /// Takes an address at which the peer may be reached; those beyond [`REMOTES`] and those known already change
    /// nothing.
    fn add_remote(&mut self, candidate: Candidate);

    /// Takes the peer's credentials, without which nothing is checked.
    fn set_remote(&mut self, now: Instant, credentials: &IceCredentials);

    /// Takes a datagram that the [`Gate`] let pass.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// Returns when [`Agent::handle_timeout`] is due.
    fn poll_timeout(&mut self) -> Option<Instant>;

    /// Takes the next datagram to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// Takes the next event.
    fn poll_event(&mut self) -> Option<Event>;

    /// Returns the table of pairs, [`REMOTES`] at most.
    fn pairs(&self) -> Vec<Pair>;
}

/// A datagram to be sent by the socket of its family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where.
    pub to: SocketAddr,
    /// What.
    pub payload: Vec<u8>,
}

/// What became of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A check of this remote address was answered.
    Checked(SocketAddr),
    /// Both ends agreed on the pair with this remote address; a better one may follow.
    Nominated(SocketAddr),
    /// No pair is left.
    Failed,
}

/// An own base and a remote address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The peer's.
    pub remote: SocketAddr,
    /// What is known of it.
    pub state: PairState,
}

/// What is known of a pair (RFC 8445, section 6.1.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairState {
    /// A check waits to leave or to be answered.
    Checking,
    /// A check was answered.
    Succeeded,
    /// It succeeded, and both ends agreed on it.
    Nominated,
    /// No check was answered in time.
    Failed,
}

/// What an agent begins with.
#[derive(Clone)]
pub struct Setup {
    /// What its peer has to know.
    pub credentials: IceCredentials,
    /// Whether it is the controlling one.
    pub controlling: bool,
    /// Decides where both ends want the same role (RFC 8445, section 7.3.1.1).
    pub tie_breaker: u64,
    /// Called by an agent that works beside its caller when there is something to poll.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// Makes agents.
pub trait Library: fmt::Debug + Send + Sync {
    /// Makes one, which checks nothing yet.
    fn agent(&self, setup: Setup) -> Box<dyn Agent>;
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}
