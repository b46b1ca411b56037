//! Direct WSS: the clients of peers' doors, and the own door.
//!
//! In: where peers say that their doors are, which searches over UDP failed, frames that want a door, what clients and guests
//! do. Out: the clients in the pool, and which peers are connected past the relays. [`Dialling`] decides, this file does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use mesh_identity::Roster;
use mesh_net::{DoorAt, RelayClient, RelayConfig, RelayEvent};
use mesh_wire::control::DoorTold;
use mesh_wire::relay::Role;
use mesh_wire::{NodeId, Pin, RelayUrl};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::pending::{Pending, Taken};
use super::relays::Credentials;
use super::sinks::DoorClientSink;
use crate::door::{DoorKeeper, DoorKeeperConfig, DoorState, GuestNews};
use crate::engine::{Command, Inbox};
use crate::relays::dialling::Dialling;
use crate::relays::doors::Beside;
use crate::relays::pins::Owned;
use crate::relays::pool::RelayPool;
use crate::state::StateDir;

/// A connection that carried nothing for so long is left.
const IDLE: Duration = Duration::from_secs(30);
/// Where there are too many, one that carried nothing for so long gives way to another.
const GIVES_WAY: Duration = Duration::from_secs(2);
/// Peers' doors at which this node is at a time: more blocked paths than that of one node are rare.
const DOORS: usize = 8;
/// The file of the certificate in the state directory.
const CERTIFICATE: &str = "wss.pem";

/// What happened at doors.
pub(super) enum DoorsEvent {
    /// The client of this peer's door told something.
    Told(NodeId, RelayEvent),
    /// There are frames for peers whose door should be dialled.
    Wanted(BTreeSet<NodeId>),
    /// Something is news of a peer at the own door.
    Guest(NodeId),
    /// The machine's network changed.
    NetworkChanged,
    /// Something is due.
    Due,
    /// The client of this peer's door ended by itself, which none does.
    Ended(NodeId),
}

/// What a change of the connections with a peer means for its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) before: Option<Beside>,
    pub(super) after: Option<Beside>,
}

/// All of them.
pub(super) struct Doors {
    credentials: Credentials,
    pool: RelayPool,
    inbox: Arc<Inbox>,
    arrived: Arc<Notify>,
    peers: BTreeMap<NodeId, Peer>,
    /// The keys of the relays that this node knows.
    relays: BTreeSet<Pin>,
    news: Arc<GuestNews>,
    own: Option<DoorKeeper>,
}

#[derive(Default)]
struct Peer {
    told: Option<DoorTold>,
    /// The certificate of its start that said so.
    start: Option<Pin>,
    dialling: Dialling,
    client: Option<(RelayClient, Arc<Pending>)>,
    /// Why the last attempt failed.
    error: Option<String>,
    /// What was last told of it.
    shown: Option<Beside>,
}

impl Doors {
    /// Starts without a door of a peer.
    pub(super) fn start(credentials: Credentials, pool: RelayPool, inbox: Arc<Inbox>) -> Self {
        let arrived = Arc::new(Notify::new());
        let news = Arc::new(GuestNews::new(Arc::clone(&arrived)));
        let (peers, relays) = (BTreeMap::new(), BTreeSet::new());
        Self { credentials, pool, inbox, arrived, peers, relays, news, own: None }
    }

    /// Opens the own door where the configuration wants it.
    pub(super) fn open(&mut self, shared: &super::Shared, state: &StateDir, roster: &Arc<Roster>) {
        let Some(wss) = shared.config.wss.clone() else { return };
        self.own = Some(DoorKeeper::start(DoorKeeperConfig {
            maps_port: wss.map && shared.config.port_mapping,
            wss,
            certificate: state.path(CERTIFICATE),
            net: self.credentials.net,
            own: shared.own,
            interface: shared.config.interface.clone(),
            roster: Arc::clone(roster),
            pool: self.pool.clone(),
            engine: Arc::clone(&self.inbox),
            news: Arc::clone(&self.news),
        }));
    }

    /// What people may know of the own door.
    pub(super) fn own(&self) -> Option<watch::Receiver<DoorState>> {
        self.own.as_ref().map(DoorKeeper::state)
    }

    /// Takes a newer roster, and the proof of membership of it.
    pub(super) fn set_roster(&mut self, roster: &Arc<Roster>, admission: Vec<u8>) {
        if let Some(own) = &self.own {
            own.set_roster(Arc::clone(roster));
        }
        self.credentials.admission = admission;
        let gone: Vec<NodeId> = self.peers.keys().copied().filter(|peer| roster.is_revoked(peer)).collect();
        for peer in gone {
            self.leave(peer);
            self.peers.remove(&peer);
            self.pool.set_door_wished(peer, false);
        }
    }

    /// Takes the keys of all relays: a door with one of them is none. Returns the peers to whose doors it may matter.
    pub(super) fn set_relays(&mut self, relays: BTreeSet<Pin>) -> Vec<NodeId> {
        self.relays = relays;
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in &nodes {
            if self.refuses(*node).is_some() {
                self.leave(*node);
            }
            self.wish(*node);
        }
        nodes
    }

    /// Waits for the next event. Nothing is lost when the future is dropped.
    pub(super) async fn next(&self) -> DoorsEvent {
        let due = self.due();
        tokio::select! {
            event = self.next_told() => event,
            wanted = self.pool.doors_wanted() => DoorsEvent::Wanted(wanted),
            () = self.pool.network_changes() => DoorsEvent::NetworkChanged,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => DoorsEvent::Due,
        }
    }

    async fn next_told(&self) -> DoorsEvent {
        loop {
            if let Some(node) = self.news.take() {
                return DoorsEvent::Guest(node);
            }
            for (node, peer) in &self.peers {
                let Some((_, events)) = &peer.client else { continue };
                match events.take() {
                    Taken::Event(event) => return DoorsEvent::Told(*node, event),
                    Taken::Ended => return DoorsEvent::Ended(*node),
                    Taken::Nothing => {}
                }
            }
            self.arrived.notified().await;
        }
    }

    fn due(&self) -> Option<Instant> {
        let now = Moment::now();
        let idle = |node: &NodeId| {
            let idle = self.pool.door_idle_for(node, now)?;
            Some(now + IDLE.saturating_sub(idle).max(Duration::from_millis(100)))
        };
        let of = |(node, peer): (&NodeId, &Peer)| idle(node).into_iter().chain(peer.dialling.due(now)).min();
        self.peers.iter().filter_map(of).min().map(Instant::from_std)
    }

    /// A session with a start of a peer stands: what an earlier start said of its door is past.
    pub(super) fn session(&mut self, node: NodeId, start: Pin) {
        let peer = self.peers.entry(node).or_default();
        if peer.start.replace(start).is_some_and(|before| before != start) {
            self.told(node, None);
        }
    }

    /// Takes where a peer says that its door is.
    pub(super) fn told(&mut self, node: NodeId, told: Option<DoorTold>) {
        let now = Moment::now();
        let peer = self.peers.entry(node).or_default();
        if peer.told == told {
            return;
        }
        // A connection that stands goes on; it shows that the door of before is still there.
        let other = peer.told.as_ref().map(|told| told.pin) != told.as_ref().map(|told| told.pin);
        let stands = peer.shown.is_some_and(|shown| shown.theirs);
        peer.told = told;
        if peer.client.is_some() && (other || !stands) {
            peer.dialling.ended(now, random());
            self.close(node);
        } else {
            peer.dialling.hope(now);
        }
        self.wish(node);
    }

    /// The machine's network changed: doors that could not be reached may be.
    pub(super) fn network_changed(&mut self) {
        let now = Moment::now();
        self.peers.values_mut().for_each(|peer| peer.dialling.hope(now));
        self.peers.keys().for_each(|node| self.wish(*node));
    }

    /// A search for a path over UDP found nothing.
    pub(super) fn no_direct(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().dialling.no_direct();
        self.wish(node);
    }

    /// There is a path over UDP: the connection is left once it is idle.
    pub(super) fn direct(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dialling.direct();
            self.wish(node);
        }
    }

    /// Connects to the doors for which there are frames. Returns whose doors were left for them.
    pub(super) fn open_wanted(&mut self, wanted: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut left = Vec::new();
        for node in wanted {
            let refused = self.refuses(*node).is_some();
            let Some(peer) = self.peers.get(node).filter(|_| !refused) else { continue };
            let Some(told) = peer.told.clone().filter(|_| peer.dialling.wishes(Moment::now())) else {
                continue;
            };
            let now = Moment::now();
            if self.peers.values().filter(|peer| peer.client.is_some()).count() >= DOORS {
                let Some(idle) = self.longest_idle(now) else {
                    if let Some(peer) = self.peers.get_mut(node) {
                        peer.dialling.postponed(now);
                        peer.error = Some(format!("this node is at {DOORS} doors of peers already"));
                    }
                    continue;
                };
                self.leave(idle);
                left.push(idle);
            }
            self.dial(*node, &told);
        }
        left
    }

    /// The door that nobody uses for the longest time, and that another one may take the place of.
    fn longest_idle(&self, now: Moment) -> Option<NodeId> {
        let idle = |node: &NodeId| Some((self.pool.door_idle_for(node, now)?, *node));
        let (idle, node) = self.peers.keys().filter_map(idle).max()?;
        (idle >= GIVES_WAY).then_some(node)
    }

    fn dial(&mut self, node: NodeId, told: &DoorTold) {
        let Some(url) = told
            .addresses
            .first()
            .and_then(|address| RelayUrl::new(&address.ip().to_string(), address.port()).ok())
        else {
            return;
        };
        let config = RelayConfig {
            url,
            pin: Some(told.pin),
            role: Role::Member,
            net: self.credentials.net,
            identity: Arc::clone(&self.credentials.identity),
            admission: self.credentials.admission.clone(),
            udp: false,
            door: Some(DoorAt { host: node, addresses: told.addresses.clone() }),
        };
        let events = Arc::new(Pending::new(Arc::clone(&self.arrived)));
        let sink = DoorClientSink {
            peer: node,
            inbox: Arc::clone(&self.inbox),
            events: Arc::clone(&events),
            pool: self.pool.clone(),
        };
        tracing::debug!(peer = %node.short(), addresses = ?told.addresses, "connecting to the peer by WSS");
        let client = RelayClient::start(config, Arc::new(sink));
        self.pool.set_door(node, Some(client.sender()));
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dialling.begins();
            peer.client = Some((client, events));
        }
    }

    /// Takes what the client of a peer's door told.
    pub(super) fn heard(&mut self, node: NodeId, event: RelayEvent) {
        let now = Moment::now();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match event {
            RelayEvent::Up { .. } => {
                peer.error = None;
                peer.dialling.up(now);
            }
            RelayEvent::Down { reason, .. } => {
                tracing::debug!(peer = %node.short(), %reason, "no connection to the peer by WSS");
                peer.error = Some(reason.to_string());
                // The client would try again by rules for relays, which are few and known.
                peer.dialling.ended(now, random());
                self.close(node);
                self.wish(node);
            }
            RelayEvent::Connecting
            | RelayEvent::Peer { .. }
            | RelayEvent::Udp(_)
            | RelayEvent::Suspect(_)
            | RelayEvent::Rtt(_)
            | RelayEvent::Roster { .. }
            | RelayEvent::Notice(_) => {}
        }
    }

    /// Leaves connections that nobody uses, and lets frames lead to those that may be made again.
    pub(super) fn timeout(&mut self) -> Vec<NodeId> {
        let now = Moment::now();
        let idle = |node: &&NodeId| self.pool.door_idle_for(node, now).is_some_and(|idle| idle >= IDLE);
        let idle: Vec<NodeId> = self.peers.keys().filter(idle).copied().collect();
        for node in &idle {
            self.leave(*node);
        }
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.wish(node));
        idle
    }

    /// Returns what changed of the connections with a peer since the last call, if anything did, and tells the engine.
    pub(super) fn moved(&mut self, node: NodeId) -> Option<Moved> {
        let after = self.pool.beside(&node);
        let peer = match self.peers.get_mut(&node) {
            Some(peer) => peer,
            None if after.is_some() => self.peers.entry(node).or_default(),
            None => return None,
        };
        let before = std::mem::replace(&mut peer.shown, after);
        if before.is_some() != after.is_some() {
            self.inbox.command(Command::Beside(node, after.is_some()));
        }
        (before != after).then_some(Moved { before, after })
    }

    /// Where a peer says that its door is, and why the last attempt there failed.
    pub(super) fn known(&self) -> BTreeMap<NodeId, (DoorTold, Option<String>)> {
        let error = |node, peer: &Peer| self.refuses(node).map(str::to_owned).or_else(|| peer.error.clone());
        let of = |(node, peer): (&NodeId, &Peer)| Some((*node, (peer.told.clone()?, error(*node, peer))));
        self.peers.iter().filter_map(of).collect()
    }

    /// Ends all connections, and closes the own door.
    pub(super) async fn stop(self) {
        let clients = self.peers.into_values().filter_map(|peer| peer.client);
        let clients = futures_util::future::join_all(clients.map(|(client, _)| client.stop()));
        let own = async {
            if let Some(own) = self.own {
                own.stop().await;
            }
        };
        tokio::join!(clients, own);
    }

    /// Says why what a peer says cannot be its door, if so. A peer that was seen behind a door has its key.
    fn refuses(&self, node: NodeId) -> Option<&'static str> {
        let told = self.peers.get(&node)?.told.as_ref()?;
        let others = self.peers.iter().filter(|(other, peer)| {
            **other != node && peer.client.is_some() && peer.shown.is_some_and(|shown| shown.theirs)
        });
        let doors = others.filter_map(|(_, peer)| Some(&peer.told.as_ref()?.pin));
        let own = self.own.as_ref().and_then(|own| own.state().borrow().pin);
        Owned { relays: &self.relays, own, doors }.refuses(&told.pin)
    }

    /// Has frames for a peer lead to a connection to its door, where that is worth trying.
    fn wish(&self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else { return };
        let may = peer.told.is_some() && self.refuses(node).is_none();
        let wished = may && peer.dialling.wishes(Moment::now());
        self.pool.set_door_wished(node, wished);
    }

    fn leave(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.client.is_some()) {
            peer.dialling.left();
            tracing::debug!(peer = %node.short(), "a connection by WSS that nobody uses is left");
            self.close(node);
        }
    }

    fn close(&mut self, node: NodeId) {
        self.pool.set_door(node, None);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.client = None;
        }
    }
}

/// A failing generator costs only the jitter.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
