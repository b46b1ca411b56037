//! Everything that runs while the node is up. What the relay's connection tells is taken in [`relay`].

mod door;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_control::{ApiError, ErrorCode, NodeState, NoticeLevel, PathReason, Readiness, RelayStatus};
use mesh_ice::IceCounts;
use mesh_identity::{Identity, Roster};
use mesh_net::{LanCounts, QuicEndpoint, QuicEvent};
use mesh_node::NodeEvent;
use mesh_session::handshake::Local;
use mesh_tun::Device;
use mesh_wire::control::DoorTold;
use mesh_wire::{NodeId, Pin};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::connections::Connections;
use super::doors::{Doors, DoorsEvent};
use super::machines::{Machines, Threads, addresses, machines, this_node, threads};
use super::proof::{Passed, Proof};
use super::relays::{Relays, RelaysEvent};
use super::sinks::Sealed;
use crate::coordinator::{self, Coordinator, CoordinatorConfig, Ledger};
use crate::direct::Direct;
use crate::door::DoorState;
use crate::engine::{Command, Engine, EngineEvent, Inbox, Parts, ThreadParts};
use crate::handshakes::Handshakes;
use crate::ice::Ice;
use crate::one_line;
use crate::relays::list;
use crate::relays::pool::RelayPool;
use crate::state::{Membership, StateDir};
use crate::status::wss::BesideChanges;

/// Events of the QUIC endpoint that wait for the supervisor; one for each peer that a network may have.
const QUIC_EVENTS: usize = 4096;
/// The engine says goodbye within this.
const GOODBYE: Duration = Duration::from_millis(500);

/// What happened while the node is up.
pub(super) enum RunEvent {
    Relays(RelaysEvent),
    Doors(DoorsEvent),
    Engine(EngineEvent),
    Quic(QuicEvent),
    /// Time to forget connections without a session.
    Forget,
    Roster(Arc<Roster>),
    /// Time to ask other peers whether data passes.
    Proof,
    /// A part that never ends by itself has ended.
    Ended(&'static str),
}

/// What the supervisor is to do after an event.
pub(super) enum After {
    Nothing,
    Show,
    Adopt(Arc<Roster>),
    Failed(ApiError),
}

/// The parts of a node that is up.
pub(super) struct Running {
    device: Device,
    engine: Engine,
    engine_events: mpsc::Receiver<EngineEvent>,
    quic: Arc<QuicEndpoint>,
    quic_events: mpsc::Receiver<QuicEvent>,
    connections: Connections,
    relays: Relays,
    doors: Doors,
    /// Peers whose frames go over UDP.
    on_udp: BTreeSet<NodeId>,
    beside: BTreeMap<NodeId, BesideChanges>,
    inbox: Arc<Inbox>,
    direct: Option<Direct>,
    coordinator: Option<(Coordinator, watch::Receiver<Arc<Roster>>, CancellationToken)>,
    membership: Membership,
    own: NodeId,
    present: BTreeMap<NodeId, bool>,
    proof: Proof,
    passed: Passed,
    since: Instant,
}

impl Running {
    /// Starts interface, relay client, engine and, with the root's keys, the coordinator.
    pub(super) async fn start(
        shared: &Shared,
        state: &Arc<StateDir>,
        local: &Local,
        membership: Membership,
        root: Option<(Arc<Identity>, Ledger)>,
    ) -> Result<Self, ApiError> {
        let internal = |error: &dyn std::error::Error| ApiError::new(ErrorCode::Internal, one_line(error));
        let Threads { device, mut sockets } = threads(&shared.config, shared.own, &membership.roster).await?;
        let further_sockets = sockets.split_off(1);
        let udp = sockets.remove(0);
        let (stun, answers) = Direct::answers();
        let listens: Vec<SocketAddr> = udp.local_addrs().collect();
        let inbox = Arc::new(Inbox::new().map_err(|error| internal(&error))?);
        let list = list::of(&membership, &shared.config.relays);
        let pins = list.iter().map(|known| known.pin).collect();
        let relays = Relays::start(relay::credentials(shared, local, &membership), list, Arc::clone(&inbox));
        let credentials = relay::credentials(shared, local, &membership);
        let mut doors = Doors::start(credentials, relays.pool(), Arc::clone(&inbox));
        doors.set_relays(pins);
        let (events, quic_events) = mpsc::channel(QUIC_EVENTS);
        let sealed = Arc::new(Sealed { inbox: Arc::clone(&inbox), events });
        let (quic, pin) =
            QuicEndpoint::start(shared.own, sealed, &this_node()).map_err(|error| internal(&error))?;
        let quic = Arc::new(quic);
        let count = u16::try_from(further_sockets.len() + 1).unwrap_or(1);
        let Machines { node, handshaker, workers } = machines(shared, local, &membership, pin, count);
        let further = device.further_queues().into_iter().zip(further_sockets).zip(workers);
        let further = further.map(|((device, udp), worker)| ThreadParts { device, udp, worker }).collect();
        let handshakes =
            Handshakes::start(handshaker, Arc::clone(&inbox)).map_err(|error| internal(&error))?;
        let handshakes = Arc::new(handshakes);
        let connections = Connections::new(Arc::clone(&quic), Arc::clone(&handshakes), Arc::clone(&inbox));
        let (engine, engine_events) = Engine::start(Parts {
            node,
            device: device.io(),
            relay: relays.pool(),
            udp,
            copy_dscp: shared.config.copy_dscp,
            handshakes,
            quic: Arc::clone(&quic),
            stun,
            inbox: Arc::clone(&inbox),
            further,
        })
        .map_err(|error| internal(&error))?;
        // A port that a gateway opens for a node that does not come up would stay open for a while.
        doors.open(shared, state, &membership.roster);
        let known = (&inbox, &relays);
        let direct = addresses(shared, (device.name(), &membership), listens, answers, known);
        let coordinator = root.map(|(root, ledger)| {
            let stop = CancellationToken::new();
            let config = CoordinatorConfig {
                state: Arc::clone(state),
                root: coordinator::root_local(root, local),
                membership: membership.clone(),
                ledger,
                relays: shared.config.relays.clone(),
            };
            let (coordinator, rosters) = Coordinator::start(config, stop.clone());
            (coordinator, rosters, stop)
        });
        tracing::info!(interface = device.name(), "the node is up");
        Ok(Self {
            device,
            engine,
            engine_events,
            quic,
            quic_events,
            connections,
            relays,
            doors,
            on_udp: BTreeSet::new(),
            beside: BTreeMap::new(),
            inbox,
            direct,
            coordinator,
            own: shared.own,
            membership,
            present: BTreeMap::new(),
            proof: Proof::new(Instant::now()),
            passed: Passed::default(),
            since: Instant::now(),
        })
    }

    /// Waits for the next event.
    pub(super) async fn next(&mut self) -> RunEvent {
        let rosters = self.coordinator.as_mut().map(|(_, rosters, _)| rosters);
        let proof_due = self.proof.round_ends();
        let connections_due = self.connections.due();
        tokio::select! {
            event = self.engine_events.recv() => event.map_or(RunEvent::Ended("the engine"), RunEvent::Engine),
            event = self.relays.next() => RunEvent::Relays(event),
            event = self.doors.next() => RunEvent::Doors(event),
            Some(event) = self.quic_events.recv() => RunEvent::Quic(event),
            roster = next_roster(rosters) => roster.map_or(RunEvent::Ended("the coordinator"), RunEvent::Roster),
            () = sleep_until(connections_due.unwrap_or_else(Instant::now)), if connections_due.is_some() => {
                RunEvent::Forget
            }
            () = sleep_until(proof_due), if !self.passed.ever() => RunEvent::Proof,
        }
    }

    /// Takes an event in.
    pub(super) fn handle(&mut self, shared: &Shared, event: RunEvent) -> After {
        match event {
            RunEvent::Roster(roster) => After::Adopt(roster),
            RunEvent::Engine(EngineEvent::Failed(error)) => {
                After::Failed(ApiError::new(ErrorCode::Interface, format!("the interface failed: {error}")))
            }
            RunEvent::Engine(EngineEvent::Node(event)) => self.node_event(shared, &event),
            RunEvent::Relays(event) => self.relays_event(shared, event),
            RunEvent::Doors(event) => self.doors_event(shared, event),
            RunEvent::Quic(QuicEvent::Info { peer, info }) => {
                shared.set_software(peer, format!("shadowmesh {} ({})", info.version, info.os));
                After::Nothing
            }
            RunEvent::Quic(event) => {
                self.connections.event(event);
                After::Nothing
            }
            RunEvent::Forget => {
                self.connections.expire();
                After::Nothing
            }
            RunEvent::Proof => self.ask_others(),
            RunEvent::Ended(part) => {
                After::Failed(ApiError::new(ErrorCode::Internal, format!("{part} ended unexpectedly")))
            }
        }
    }

    /// Asks the next peers to show that data passes.
    fn ask_others(&mut self) -> After {
        let present: Vec<NodeId> =
            self.present.iter().filter(|(_, online)| **online).map(|(peer, _)| *peer).collect();
        for peer in self.proof.next_round(Instant::now(), &present) {
            self.prove(peer);
        }
        After::Nothing
    }

    /// Pings a peer, dialling it first where needed. Nobody waits for the answer; that it comes shows that data passes.
    fn prove(&self, peer: NodeId) {
        let (reply, _) = oneshot::channel();
        self.engine.send(Command::Ping(peer, mesh_node::Echo::default(), reply));
    }

    /// Without the relay, has neighbours show that data passes all the same.
    fn prove_near(&self) {
        if !self.relays.is_connected() {
            self.passed.to_ask().for_each(|peer| self.prove(peer));
        }
    }

    /// Stands on a newer roster.
    pub(super) fn adopt(&mut self, shared: &Shared, roster: &Arc<Roster>) {
        self.membership.roster = Arc::clone(roster);
        let admission = relay::admission(roster, self.own);
        self.doors.set_roster(roster, admission.clone());
        self.relays.set_admission(admission);
        let list = list::of(&self.membership, &shared.config.relays);
        let doors = self.doors.set_relays(list.iter().map(|known| known.pin).collect());
        self.relays.set_list(list);
        self.engine.send(Command::Roster(Arc::clone(roster)));
        self.present.retain(|peer, _| roster.leaf(peer).is_some());
        doors.into_iter().for_each(|node| self.moved_beside(shared, node, PathReason::Closed));
        if self.relays.is_connected() {
            self.ask();
        }
    }

    /// The coordinator, where this node is it.
    pub(super) fn coordinator(&self) -> Option<&Coordinator> {
        self.coordinator.as_ref().map(|(coordinator, _, _)| coordinator)
    }

    /// Stops everything in order.
    pub(super) async fn stop(self) {
        if let Some((coordinator, _, stop)) = self.coordinator {
            stop.cancel();
            coordinator.ended().await;
        }
        let (reply, done) = oneshot::channel();
        self.engine.send(Command::Close(reply));
        if timeout(GOODBYE, done).await.is_err() {
            tracing::debug!("the engine did not say goodbye in time");
        }
        let mapped = async {
            if let Some(direct) = self.direct {
                direct.stop().await;
            }
        };
        tokio::join!(self.relays.stop(), self.doors.stop(), mapped);
        drop((self.engine, self.connections));
        if let Some(quic) = Arc::into_inner(self.quic) {
            quic.stop().await;
        }
        if let Err(error) = self.device.close().await {
            tracing::warn!(error = %one_line(&error), "the interface could not be removed in order");
        }
        tracing::info!("the node is down");
    }

    /// Tries the relay at once where it is not connected, and often from then on: somebody waits for it.
    pub(super) fn hurry(&self) {
        if !self.relays.is_connected() {
            self.relays.hurry();
            self.prove_near();
        }
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// What came over local networks.
    pub(super) fn lan(&self) -> Option<watch::Receiver<LanCounts>> {
        self.direct.as_ref().and_then(Direct::lan)
    }

    /// What came of ICE.
    pub(super) fn ice(&self) -> Option<watch::Receiver<IceCounts>> {
        self.direct.as_ref().and_then(Direct::ice).map(Ice::counts)
    }

    /// What people may know of the own door.
    pub(super) fn door(&self) -> Option<watch::Receiver<DoorState>> {
        self.doors.own()
    }

    /// What is known of peers' doors.
    pub(super) fn doors(&self) -> BTreeMap<NodeId, (DoorTold, Option<String>)> {
        self.doors.known()
    }

    /// Changes of paths to and from direct WSS.
    pub(super) fn beside(&self) -> BTreeMap<NodeId, BesideChanges> {
        self.beside.clone()
    }

    /// The connection to the relay that is home.
    pub(super) fn home_relay(&self) -> Option<&RelayStatus> {
        self.relays.home()
    }

    /// The connections to all relays.
    pub(super) fn relays(&self) -> Vec<RelayStatus> {
        self.relays.statuses()
    }

    /// Who is at which relay.
    pub(super) fn pool(&self) -> RelayPool {
        self.relays.pool()
    }

    /// Returns when it started.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn state(&self) -> NodeState {
        if self.relays.is_connected() { NodeState::Up } else { NodeState::Connecting }
    }

    /// Tells whether data passes, or what is waited for.
    pub(super) fn readiness(&self) -> Readiness {
        let others = self.membership.roster.leaves().len().saturating_sub(1);
        let connected = self.relays.is_connected();
        let only_member = connected && others == 0;
        let reason = if !connected {
            let relay = self.relays.home();
            let cause = relay.and_then(|relay| relay.error.as_ref());
            let cause = cause.map_or_else(String::new, |error| format!(" ({error})"));
            format!("the relay {} to answer{cause}", relay.map_or("", |relay| &relay.url))
        } else if only_member {
            "another member to join".to_owned()
        } else if self.passed.ever() {
            String::new()
        } else if self.present.len() >= others.min(relay::ASK_AT_START)
            && !self.present.values().any(|online| *online)
        {
            "another member to come online".to_owned()
        } else {
            "another member to answer".to_owned()
        };
        Readiness { data_passed: self.passed.holds(connected), only_member, reason }
    }

    fn node_event(&mut self, shared: &Shared, event: &NodeEvent) -> After {
        match event {
            NodeEvent::Pong { .. } => {
                if !self.passed.note(self.relays.is_connected()) {
                    return After::Nothing;
                }
            }
            NodeEvent::Guessed { peer } => {
                tracing::debug!(peer = %self.name(*peer), "ports are not guessed any more");
                return After::Nothing;
            }
            NodeEvent::Near { peer } => {
                tracing::debug!(peer = %self.name(*peer), "found on a local network");
                self.passed.found(*peer);
                self.prove_near();
                return After::Nothing;
            }
            NodeEvent::Established { peer } => {
                shared.changed.put(*peer);
                tracing::info!(peer = %self.name(*peer), "session established");
                if !self.passed.ever() {
                    self.prove(*peer);
                }
                let text = format!("session with {} established", self.name(*peer));
                shared.notice(NoticeLevel::Info, None, text);
            }
            NodeEvent::Session { peer, session, tls_pin, keeps_connection, mixes } => {
                self.doors.session(*peer, Pin(*tls_pin));
                if *mixes {
                    self.connections.session(*peer, *session, Pin(*tls_pin), *keeps_connection);
                }
                return After::Nothing;
            }
            NodeEvent::Path { peer, from, path, reason } => {
                self.path_event(shared, *peer, (*from, *path), *reason);
            }
            NodeEvent::PathSize { peer } => {
                tracing::debug!(peer = %self.name(*peer), "the path carries packets of another length");
                return After::Nothing;
            }
            // The engine takes it.
            NodeEvent::Relays { .. } => return After::Nothing,
            NodeEvent::Door { peer, door } => {
                self.doors.told(*peer, door.clone());
                self.moved_beside(shared, *peer, PathReason::Closed);
            }
            NodeEvent::NoDirect { peer } => {
                self.doors.no_direct(*peer);
                return After::Nothing;
            }
            NodeEvent::Absent { peer } => {
                tracing::debug!(peer = %self.name(*peer), "looked for at every relay");
                self.relays.search();
                return After::Nothing;
            }
            NodeEvent::Gather => {
                if let Some(direct) = &self.direct {
                    direct.gather();
                }
                return After::Nothing;
            }
            NodeEvent::Ice { peer, offer, remotes } => {
                if let Some(ice) = self.direct.as_ref().and_then(Direct::ice) {
                    ice.wanted(*peer, offer.clone(), remotes.clone());
                }
                return After::Nothing;
            }
            NodeEvent::Idle { peer } => {
                self.connections.idle(*peer);
                shared.changed.put(*peer);
                tracing::debug!(peer = %self.name(*peer), "session ended for want of traffic");
            }
            NodeEvent::Lost { peer } => {
                self.connections.lost(*peer);
                shared.changed.put(*peer);
                tracing::info!(peer = %self.name(*peer), "session lost");
                shared.notice(NoticeLevel::Info, None, format!("session with {} lost", self.name(*peer)));
            }
        }
        After::Show
    }

    fn name(&self, peer: NodeId) -> String {
        self.membership.roster.leaf(&peer).map_or_else(|| peer.short(), |leaf| leaf.name.to_string())
    }
}

/// Waits for the coordinator's next roster; none when the coordinator ended.
async fn next_roster(rosters: Option<&mut watch::Receiver<Arc<Roster>>>) -> Option<Arc<Roster>> {
    let Some(rosters) = rosters else { return std::future::pending().await };
    rosters.changed().await.ok()?;
    Some(Arc::clone(&rosters.borrow_and_update()))
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("device", &self.device.name()).finish_non_exhaustive()
    }
}
