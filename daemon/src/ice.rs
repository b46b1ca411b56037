//! Paths found by ICE: carries what [`Finder`] says.
//!
//! In: what the node wants of a peer and what the peer's agent said, own addresses, STUN that came to the node's
//! sockets. Out: checks through the engine's inbox, so that they leave by the socket that carries everything else, and
//! what the agents say and find for the node.
//!
//! Invariants: nothing is sent before the node wants a path; what an agent finds is a place to try, no more.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use mesh_ice::{Finder, IceCounts, Library, Output, Setting};
use mesh_node::{By, Finding, Path, Transmit};
use mesh_wire::NodeId;
use mesh_wire::control::{Candidate, CandidateKind, IceOffer};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{Command, Inbox};

/// Wishes and datagrams that wait; further ones are dropped, and both are repeated by who sent them.
const INPUTS: usize = 256;

/// The hold on the running actor; dropping the last one ends it.
#[derive(Debug, Clone)]
pub struct Ice {
    inputs: mpsc::Sender<Input>,
    counts: watch::Receiver<IceCounts>,
    _task: Arc<AbortOnDropHandle<()>>,
}

/// What the actor works with.
#[derive(Debug)]
pub struct IceConfig {
    /// This node: of two, the one with the greater id is the controlling agent.
    pub own: NodeId,
    /// What makes agents.
    pub library: &'static dyn Library,
    /// Where checks and findings go.
    pub engine: Arc<Inbox>,
}

#[derive(Debug)]
enum Input {
    Wanted(NodeId, Option<IceOffer>, Vec<Candidate>),
    Datagram(SocketAddr, Box<[u8]>),
    Bases(Vec<SocketAddr>),
}

impl Ice {
    /// Starts the actor.
    #[must_use]
    pub fn start(config: IceConfig) -> Self {
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let (sender, counts) = watch::channel(IceCounts::default());
        let woken = Arc::new(Notify::new());
        let waker = Arc::clone(&woken);
        let random = Box::new(|bytes: &mut [u8]| {
            aws_lc_rs::rand::fill(bytes).expect("the system's generator, once seeded, does not fail");
        });
        let finder = Finder::new(config.library, random, Arc::new(move || waker.notify_one()));
        let actor = Actor { config, finder, inputs: receiver, woken, counts: sender };
        Self { inputs, counts, _task: Arc::new(AbortOnDropHandle::new(tokio::spawn(actor.run()))) }
    }

    /// A path to a peer is wanted, or its agent said something.
    pub fn wanted(&self, peer: NodeId, offer: Option<IceOffer>, remotes: Vec<Candidate>) {
        let _ = self.inputs.try_send(Input::Wanted(peer, offer, remotes));
    }

    /// STUN came that may be a check.
    pub fn datagram(&self, from: SocketAddr, datagram: Box<[u8]>) {
        let _ = self.inputs.try_send(Input::Datagram(from, datagram));
    }

    /// The addresses at which this node may be reached.
    pub fn own_candidates(&self, list: &[Candidate]) {
        let _ = self.inputs.try_send(Input::Bases(bases(list)));
    }

    /// Returns what was sent, taken and refused.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<IceCounts> {
        self.counts.clone()
    }
}

struct Actor {
    config: IceConfig,
    finder: Finder<NodeId>,
    inputs: mpsc::Receiver<Input>,
    woken: Arc<Notify>,
    counts: watch::Sender<IceCounts>,
}

impl Actor {
    async fn run(mut self) {
        loop {
            let due = self.finder.poll_timeout().map(Instant::from_std);
            tokio::select! {
                biased;
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                () = self.woken.notified() => self.finder.handle_timeout(Instant::now().into_std()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.finder.handle_timeout(Instant::now().into_std());
                }
            }
            while let Some(output) = self.finder.poll_output() {
                self.give(output);
            }
            let counts = self.finder.counts();
            self.counts.send_if_modified(|known| std::mem::replace(known, counts) != counts);
        }
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now().into_std();
        match input {
            Input::Wanted(peer, offer, remotes) => {
                let setting = Setting { controlling: self.config.own > peer, remotes };
                match offer {
                    Some(offer) => self.finder.handle_offer(now, peer, &offer, &setting),
                    None => self.finder.search(now, peer, &setting),
                }
            }
            Input::Datagram(from, datagram) => self.finder.handle_datagram(now, from, &datagram),
            Input::Bases(bases) => self.finder.set_bases(bases),
        }
    }

    fn give(&self, output: Output<NodeId>) {
        let (peer, finding) = match output {
            Output::Transmit(transmit) => {
                let (to, payload) = (Path::Udp(transmit.to), BytesMut::from(&transmit.payload[..]));
                let transmit =
                    Transmit { to, payload, segment: None, class: 0, single: false, by: By::Usual };
                self.config.engine.transmit(transmit);
                return;
            }
            Output::Say(peer, offer) => (peer, Finding::Offer(offer)),
            Output::Nominated(peer, address) => {
                tracing::debug!(peer = %peer.short(), %address, "the agents agreed on an address");
                (peer, Finding::Nominated(address))
            }
            Output::Failed(peer) => {
                tracing::debug!(
                    peer = %peer.short(), pairs = ?self.finder.pairs(peer),
                    "the agent found no address"
                );
                (peer, Finding::Failed)
            }
        };
        self.config.engine.command(Command::Finding(peer, finding));
    }
}

/// The first address of an interface of each family: all of a family share a socket, which is what a base is.
fn bases(list: &[Candidate]) -> Vec<SocketAddr> {
    let hosts = || list.iter().filter(|own| own.kind == CandidateKind::Host).map(|own| own.address);
    hosts().find(SocketAddr::is_ipv4).into_iter().chain(hosts().find(SocketAddr::is_ipv6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_base_of_each_family_is_taken() {
        let own = |kind, address: &str| Candidate { kind, address: address.parse().unwrap() };
        let list = [
            own(CandidateKind::Reflexive, "203.0.113.1:9"),
            own(CandidateKind::Host, "[2001:db8::1]:8"),
            own(CandidateKind::Host, "10.0.0.1:7"),
            own(CandidateKind::Host, "10.0.0.2:7"),
        ];
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:7".parse().unwrap(), "[2001:db8::1]:8".parse().unwrap()];
        assert_eq!(bases(&list), expected);
        assert!(bases(&list[..1]).is_empty());
    }
}
