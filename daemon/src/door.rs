//! This node's door: the TCP port at which members whose UDP is blocked reach it without a relay (direct WSS).
//!
//! In: the configuration, changes of the machine's network and of the roster, ports that gateways keep open. Out: the open
//! door in the pool, frames of who comes in for the engine, and for the peers where the door is.
//!
//! Invariants: a port that cannot be had does not stop the node, it is told and tried again; what is told to peers is
//! addresses, names are looked up here.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::BytesMut;
use mesh_identity::Roster;
use mesh_net::{HostScope, NetworkWatch, PortMapConfig, PortMapper, PortMapping, Transport, host_addresses};
use mesh_wire::control::{Candidate, CandidateKind, DOOR_ADDRESSES, DoorTold, may_be_a_door};
use mesh_wire::{NetId, NodeId, Pin};
use meshrelay::{Door, DoorConfig, DoorSink};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Wss;
use crate::direct::mapping_changed;
use crate::engine::{Command, Frames, Inbox};
use crate::one_line;
use crate::relays::pool::RelayPool;

/// After a port that could not be had, it is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// The names of the configuration are looked up anew so often: dynamic names change without a word.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(300);
/// A name is looked up within this, or left out.
const LOOKUP: Duration = Duration::from_secs(2);
/// Addresses of one name that are told.
const OF_A_NAME: usize = 2;

/// What people may know of the door.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorState {
    /// It is open.
    pub open: bool,
    /// Why it is not.
    pub error: Option<String>,
    /// The key of its certificate, once it was open.
    pub pin: Option<Pin>,
    /// Where peers are told that it is, the most promising first.
    pub addresses: Vec<Candidate>,
}

/// What the keeper works with.
#[derive(Debug)]
pub struct DoorKeeperConfig {
    /// What the configuration says.
    pub wss: Wss,
    /// The file of the certificate and its key.
    pub certificate: PathBuf,
    /// The network.
    pub net: NetId,
    /// This node.
    pub own: NodeId,
    /// The interface whose addresses do not count.
    pub interface: String,
    /// The roster in force.
    pub roster: Arc<Roster>,
    /// Where frames leave.
    pub pool: RelayPool,
    /// Where frames and news go.
    pub engine: Arc<Inbox>,
    /// Whether gateways are asked to keep the port open.
    pub maps_port: bool,
    /// Who came and went.
    pub news: Arc<GuestNews>,
}

/// The members of whom something is news at the own door, until somebody takes them.
#[derive(Debug)]
pub struct GuestNews {
    nodes: Mutex<BTreeSet<NodeId>>,
    arrived: Arc<Notify>,
}

impl GuestNews {
    /// Makes one that wakes whoever waits for `arrived`.
    #[must_use]
    pub fn new(arrived: Arc<Notify>) -> Self {
        Self { nodes: Mutex::default(), arrived }
    }

    /// Takes the next one.
    pub fn take(&self) -> Option<NodeId> {
        self.lock().pop_first()
    }

    fn put(&self, node: NodeId) {
        self.lock().insert(node);
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hold on the running keeper; dropping it closes the door at once.
#[derive(Debug)]
pub struct DoorKeeper {
    guests: Arc<Guests>,
    review: Arc<Notify>,
    state: watch::Receiver<DoorState>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl DoorKeeper {
    /// Starts to open the door and to keep it open. Has to be called within a tokio runtime.
    #[must_use]
    pub fn start(config: DoorKeeperConfig) -> Self {
        let (sender, state) = watch::channel(DoorState::default());
        let (stop, review) = (CancellationToken::new(), Arc::new(Notify::new()));
        let guests = Arc::new(Guests {
            roster: RwLock::new(Arc::clone(&config.roster)),
            pool: config.pool.clone(),
            engine: Arc::clone(&config.engine),
            news: Arc::clone(&config.news),
        });
        let keeper =
            Keeper { config, guests: Arc::clone(&guests), review: Arc::clone(&review), state: sender };
        let task = tokio::spawn(keeper.run(stop.clone()));
        Self { guests, review, state, stop, task: AbortOnDropHandle::new(task) }
    }

    /// Takes a newer roster: who was taken out of the network has to go.
    pub fn set_roster(&self, roster: Arc<Roster>) {
        *self.guests.roster.write().unwrap_or_else(PoisonError::into_inner) = roster;
        self.review.notify_one();
    }

    /// What people may know, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<DoorState> {
        self.state.clone()
    }

    /// Says goodbye to who came in, and closes; takes about two seconds at most.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::debug!("what keeps this node's door ended by a panic");
        }
    }
}

/// Takes what comes in.
#[derive(Debug)]
struct Guests {
    roster: RwLock<Arc<Roster>>,
    pool: RelayPool,
    engine: Arc<Inbox>,
    news: Arc<GuestNews>,
}

impl DoorSink for Guests {
    fn permits(&self, node: &NodeId) -> bool {
        !self.roster.read().unwrap_or_else(PoisonError::into_inner).is_revoked(node)
    }

    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        self.engine.frames(Frames { from, payload, segment, marked: false });
    }

    fn guest(&self, node: NodeId, at: Option<SocketAddr>) {
        self.pool.set_guest(node, at);
        self.news.put(node);
    }

    fn doubt(&self, node: NodeId, _: bool) {
        // The pool asks the door itself.
        self.news.put(node);
    }
}

struct Keeper {
    config: DoorKeeperConfig,
    guests: Arc<Guests>,
    review: Arc<Notify>,
    state: watch::Sender<DoorState>,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) {
        loop {
            let config = DoorConfig {
                listen: vec![self.config.wss.listen],
                certificate: self.config.certificate.clone(),
                net: self.config.net,
                own: self.config.own,
            };
            let sink: Arc<dyn DoorSink> = Arc::clone(&self.guests) as _;
            match Door::start(config, sink) {
                Ok(mut door) => {
                    tracing::info!(addresses = ?door.addresses(), "members can connect by WSS");
                    self.config.pool.set_own_door(Some(door.sender()));
                    let mapper = self.config.maps_port.then(|| PortMapper::start(ports(door.addresses())));
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = self.keep(&mut door, mapper.as_ref()) => {
                            tracing::error!("a part of this node's door ended");
                        }
                    }
                    let error = (!stop.is_cancelled()).then(|| "a part of it ended unexpectedly".to_owned());
                    self.state.send_replace(DoorState { error, ..DoorState::default() });
                    for guest in self.config.pool.set_own_door(None) {
                        self.config.news.put(guest);
                    }
                    self.config.engine.command(Command::Door(None));
                    tokio::join!(door.stop(), async {
                        if let Some(mapper) = mapper {
                            mapper.stop().await;
                        }
                    });
                }
                Err(error) => {
                    let error = one_line(&error);
                    tracing::warn!(reason = %error, "members cannot connect by WSS");
                    self.state.send_replace(DoorState { error: Some(error), ..DoorState::default() });
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(RETRY) => {}
            }
        }
    }

    /// Tells the peers where the open door is, until it ends.
    async fn keep(&self, door: &mut Door, mapper: Option<&PortMapper>) {
        let mut watch = self.watch().await;
        let mut mapped = mapper.map(PortMapper::mappings);
        loop {
            let mappings =
                mapped.as_mut().map(|mapped| mapped.borrow_and_update().clone()).unwrap_or_default();
            self.tell(door, &mappings).await;
            tokio::select! {
                () = door.failed() => return,
                () = self.review.notified() => door.review(),
                () = sleep(LOOK_UP_AGAIN) => watch = self.watch().await,
                () = mapping_changed(mapped.as_mut()) => {}
                () = changed(&mut watch) => {
                    if let Some(mapper) = mapper {
                        mapper.network_changed();
                    }
                }
            }
        }
    }

    async fn watch(&self) -> Option<NetworkWatch> {
        NetworkWatch::start(&self.config.interface)
            .await
            .inspect_err(|error| tracing::debug!(%error, "changes of the network cannot be noticed"))
            .ok()
    }

    async fn tell(&self, door: &Door, mapped: &[PortMapping]) {
        let found = self.addresses(door, mapped).await;
        let addresses: Vec<SocketAddr> = found.iter().map(|known| known.address).collect();
        let told = (!addresses.is_empty()).then(|| DoorTold { pin: door.pin(), addresses });
        self.config.engine.command(Command::Door(told));
        let state = DoorState { open: true, error: None, pin: Some(door.pin()), addresses: found };
        self.state.send_if_modified(|known| std::mem::replace(known, state.clone()) != state);
    }

    /// Puts together where the door is.
    async fn addresses(&self, door: &Door, mapped: &[PortMapping]) -> Vec<Candidate> {
        let mut list = Vec::new();
        let mut put = |kind, address: SocketAddr| {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if list.len() < DOOR_ADDRESSES && may_be_a_door(&address) {
                let candidate = Candidate { kind, address };
                if list.iter().all(|known: &Candidate| known.address != address) {
                    list.push(candidate);
                }
            }
        };
        for (host, port) in &self.config.wss.public {
            let looked_up = timeout(LOOKUP, tokio::net::lookup_host((host.as_str(), *port))).await;
            let Ok(Ok(found)) = looked_up else {
                tracing::debug!(host, "the name of this node's door cannot be looked up");
                continue;
            };
            found.take(OF_A_NAME).for_each(|address| put(CandidateKind::Configured, address));
        }
        mapped.iter().for_each(|mapping| put(CandidateKind::Mapped, mapping.external));
        let mut hosts = match host_addresses(&self.config.interface).await {
            Ok(hosts) => hosts,
            Err(error) => {
                tracing::debug!(%error, "the machine's addresses cannot be listed");
                Vec::new()
            }
        };
        hosts.sort_by_key(|host| host.scope != HostScope::Public);
        for bound in door.addresses() {
            let is_bound = |ip: IpAddr| match bound.ip() {
                IpAddr::V6(any) if any.is_unspecified() => true,
                IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
                IpAddr::V4(_) | IpAddr::V6(_) => bound.ip() == ip,
            };
            for host in hosts.iter().filter(|host| is_bound(host.address)) {
                put(CandidateKind::Host, SocketAddr::new(host.address, bound.port()));
            }
        }
        list
    }
}

/// The ports that gateways are to keep open.
fn ports(listens: &[SocketAddr]) -> PortMapConfig {
    let of = |v4: bool| {
        let fits = move |bound: &&SocketAddr| match bound.ip() {
            IpAddr::V4(_) => v4,
            // Without an address of its own it takes connections of both families.
            IpAddr::V6(ip) => !v4 || ip.is_unspecified(),
        };
        listens.iter().filter(fits).map(SocketAddr::port).collect()
    };
    let lifetime = PortMapper::LIFETIME;
    let local = listens.first().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    PortMapConfig { transport: Transport::Tcp, ipv4: of(true), ipv6: of(false), local, lifetime }
}

async fn changed(watch: &mut Option<NetworkWatch>) {
    let ended = match watch {
        Some(watch) => watch.changed().await.is_err(),
        None => true,
    };
    if ended {
        *watch = None;
        // Another one is started with the next look-up.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_mapped_to_the_address_that_listens() {
        for (listens, ipv4, ipv6, local) in [
            ("[::]:443", 1, 1, None),
            ("0.0.0.0:443", 1, 0, None),
            ("10.8.0.2:443", 1, 0, Some("10.8.0.2")),
            ("[2001:db8::1]:443", 0, 1, Some("2001:db8::1")),
        ] {
            let config = ports(&[listens.parse().unwrap()]);
            let local = local.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(
                (config.ipv4.len(), config.ipv6.len(), config.local),
                (ipv4, ipv6, local),
                "{listens}"
            );
        }
    }
}
