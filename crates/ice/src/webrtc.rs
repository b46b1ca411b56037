//! Agents of the crate `webrtc-ice`, an implementation of its own, for tests of whether agents understand each other.
//!
//! It works on tokio with tasks and a clock of its own, and wants a socket: it gets one that does not exist, whose
//! datagrams are those of [`Agent::poll_transmit`] and [`Agent::handle_datagram`]. What it does is polled after it
//! called [`Setup::wake`]. It does not settle conflicts of roles (RFC 8445, section 7.3.1.1), which the nodes avoid.
//!
//! One agent serves the family of its first base and sees nothing of the other one: the library answers requests of that
//! one as well, but its own checks there never succeed, and a peer would nominate what this end never agrees to.

mod mux;
mod task;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mesh_wire::control::{Candidate, IceCredentials};
use tokio::sync::mpsc;

use self::mux::{Arrival, Mux};
use self::task::Command;
use crate::{Agent, Event, Library, Pair, REMOTES, Setup, Transmit};

/// Makes agents of `webrtc-ice`, inside of a runtime of tokio.
#[derive(Debug, Clone, Copy, Default)]
pub struct Webrtc;

impl Library for Webrtc {
    fn agent(&self, setup: Setup) -> Box<dyn Agent> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Arc::clone(&setup.wake) });
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (mux, arrivals) = Mux::new(Arc::clone(&shared));
        tokio::spawn(task::run(setup, Arc::clone(&shared), mux, receiver));
        Box::new(WebrtcAgent { shared, commands, arrivals, base: None, remotes: BTreeSet::new() })
    }
}

/// The hold on the tasks of one agent; dropping it ends them.
#[derive(Debug)]
struct WebrtcAgent {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    arrivals: mpsc::Sender<Arrival>,
    base: Option<SocketAddr>,
    remotes: BTreeSet<SocketAddr>,
}

/// What the tasks found and want to send.
struct Shared {
    state: Mutex<State>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    pairs: Vec<Pair>,
}

impl Shared {
    fn transmit(&self, to: SocketAddr, payload: &[u8]) {
        let mut state = self.lock();
        if state.transmits.len() == QUEUE {
            state.transmits.pop_front();
        }
        state.transmits.push_back(Transmit { to, payload: payload.to_vec() });
        drop(state);
        (self.wake)();
    }

    fn event(&self, event: Event) {
        let mut state = self.lock();
        if state.events.len() == QUEUE {
            state.events.pop_front();
        }
        state.events.push_back(event);
        drop(state);
        (self.wake)();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent for WebrtcAgent {
    fn add_local(&mut self, base: SocketAddr) {
        self.base.get_or_insert(base);
        self.command(Command::Base(base));
    }

    fn add_remote(&mut self, candidate: Candidate) {
        if self.remotes.len() < REMOTES && self.remotes.insert(candidate.address) {
            self.command(Command::Remote(candidate));
        }
    }

    fn set_remote(&mut self, _now: Instant, credentials: &IceCredentials) {
        self.command(Command::Credentials(credentials.clone()));
    }

    fn handle_datagram(&mut self, _now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.base.is_none_or(|base| base.is_ipv4() != from.is_ipv4()) {
            return;
        }
        // Checks are repeated.
        let _ = self.arrivals.try_send((from, datagram.into()));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.lock().transmits.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.shared.lock().events.pop_front()
    }

    fn pairs(&self) -> Vec<Pair> {
        self.shared.lock().pairs.clone()
    }
}

impl WebrtcAgent {
    fn command(&self, command: Command) {
        // There is room for all that an agent is ever told.
        let _ = self.commands.try_send(command);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Remotes, bases and credentials.
const COMMANDS: usize = REMOTES + 40;
/// Datagrams and events that wait to be polled.
const QUEUE: usize = 256;
