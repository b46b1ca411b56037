//! Port mappings: keeps UDP or TCP ports open on the local gateways by PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP-IGD.
//!
//! In: local ports, and [`PortMapper::network_changed`]. Out: a watched list of [`PortMapping`]s. One task finds the
//! gateways ([`gateways`]) and listens to their [`announcements`]; one [`worker`] per gateway and own address asks
//! for mappings. [`pcp`], [`natpmp`] and [`talk`] are the datagrams and [`judge`] what to believe, all without a socket;
//! [`upnp`] is the rest.
//!
//! A public IPv4 address needs no mapping and is left out; for public IPv6 addresses PCP opens a firewall. Invariants:
//! answers count only from the gateway itself, are bounded in size and time, and an external address that cannot be
//! one is dropped. The list is a hint: a gateway may lie, so an address proves itself by use.

mod announcements;
mod gateways;
mod judge;
mod natpmp;
mod pcp;
mod port;
mod talk;
mod upnp;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use announcements::Announcements;
use gateways::Gateway;
use worker::Worker;

/// Which ports to map.
#[derive(Clone, Debug)]
pub struct PortMapConfig {
    /// Whether they are ports of UDP or TCP.
    pub transport: Transport,
    /// Local ports to reach by IPv4.
    pub ipv4: Vec<u16>,
    /// Local ports to reach by IPv6, through firewalls.
    pub ipv6: Vec<u16>,
    /// The one address of this machine that listens; all of them without.
    pub local: Option<IpAddr>,
    /// How long a mapping outlives a node that vanishes, as far as the gateway agrees; renewed after half of it.
    /// [`PortMapper::LIFETIME`] is a good one.
    pub lifetime: Duration,
}

impl PortMapConfig {
    /// The ports to map to one address of this machine.
    fn ports_at(&self, local: IpAddr) -> &[u16] {
        // Behind another address somebody else may listen on the same port.
        if self.local.is_some_and(|listens| listens != local) {
            return &[];
        }
        if local.is_ipv4() { &self.ipv4 } else { &self.ipv6 }
    }
}

/// What ports are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// Its number in the IP header, which PCP uses (RFC 6887, section 11.1).
    const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }

    /// Its name in UPnP.
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// An external port that a gateway says it forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// By which protocol it was made.
    pub protocol: MapProtocol,
    /// Where it leads: an own address and the local port.
    pub internal: SocketAddr,
    /// Where others send to. For IPv6 mostly the same as `internal`.
    pub external: SocketAddr,
    /// The gateway that granted it.
    pub gateway: IpAddr,
    /// Whether the external address is a private one: another NAT stands between this gateway and the internet.
    pub double_nat: bool,
    /// When it ends unless it is renewed; then it leaves the list.
    pub expires: Instant,
}

/// The protocol of a [`PortMapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapProtocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// Internet Gateway Device of UPnP, version 1 or 2.
    Upnp,
}

impl fmt::Display for MapProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// Keeps mappings for as long as it lives. Dropping it leaves them to expire; [`PortMapper::stop`] releases them.
#[derive(Debug)]
pub struct PortMapper {
    mappings: watch::Receiver<Vec<PortMapping>>,
    changed: Arc<Notify>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl PortMapper {
    /// Lifetime to ask for: a mapping that nobody released is gone soon, and a renewal every ten minutes costs nothing.
    pub const LIFETIME: Duration = Duration::from_secs(20 * 60);

    /// Starts the tasks, in the calling thread's network namespace. Has to be called within a tokio runtime.
    #[must_use]
    pub fn start(config: PortMapConfig) -> Self {
        let (sender, mappings) = watch::channel(Vec::new());
        let changed = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let actor = Actor {
            config,
            announcements: Announcements::open(),
            mappings: Arc::new(sender),
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        let task = tokio::spawn(actor.run(stop.clone(), changed.clone()));
        Self { mappings, changed, stop, task: AbortOnDropHandle::new(task) }
    }

    /// Returns the list of mappings, empty at first and while no gateway grants any.
    #[must_use]
    pub fn mappings(&self) -> watch::Receiver<Vec<PortMapping>> {
        self.mappings.clone()
    }

    /// Looks for gateways again and renews all mappings. Call it when addresses or routes changed and after a sleep of
    /// the machine; many calls in a row count as one.
    pub fn network_changed(&self) {
        self.changed.notify_one();
    }

    /// Releases all mappings, within one second.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(STOP_TIME, self.task).await.is_err() {
            tracing::debug!("port mappings were not released in time");
        }
    }
}

/// Finds gateways and owns their workers.
struct Actor {
    config: PortMapConfig,
    announcements: Announcements,
    mappings: Arc<watch::Sender<Vec<PortMapping>>>,
    workers: BTreeMap<Gateway, Slot>,
    tasks: JoinSet<Gateway>,
}

/// A worker's task.
struct Slot {
    stop: CancellationToken,
    changed: Arc<Notify>,
    /// It is stopping, but its gateway is there again.
    wanted_again: bool,
}

impl Actor {
    async fn run(mut self, stop: CancellationToken, changed: Arc<Notify>) {
        self.look().await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = changed.notified() => self.look().await,
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = self.ended(ended) {
                        tracing::error!(%error, "the task of a gateway ended; ports are not mapped any more");
                        break;
                    }
                }
                from = self.announcements.heard() => self.wake(from),
            }
        }
        for slot in self.workers.values() {
            slot.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Starts workers for new gateways, stops those of gateways that are gone and wakes the others.
    async fn look(&mut self) {
        let found = match gateways::list().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the kernel did not list its routes; ports are mapped on no new gateway");
                return;
            }
        };
        for (gateway, slot) in &mut self.workers {
            slot.wanted_again = false;
            if !found.contains(gateway) {
                slot.stop.cancel();
            }
        }
        for gateway in found {
            match self.workers.get_mut(&gateway) {
                Some(slot) if slot.stop.is_cancelled() => slot.wanted_again = true,
                Some(slot) => slot.changed.notify_one(),
                None => self.start(gateway),
            }
        }
    }

    fn start(&mut self, gateway: Gateway) {
        let ports = self.config.ports_at(gateway.local);
        if ports.is_empty() {
            return;
        }
        let (stop, changed) = (CancellationToken::new(), Arc::new(Notify::new()));
        let worker = Worker::new(gateway, ports, &self.config, self.mappings.clone());
        self.tasks.spawn(worker.run(stop.clone(), changed.clone()));
        self.workers.insert(gateway, Slot { stop, changed, wanted_again: false });
    }

    fn ended(&mut self, ended: Result<Gateway, JoinError>) -> Result<(), JoinError> {
        let gateway = ended?;
        if self.workers.remove(&gateway).is_some_and(|slot| slot.wanted_again) {
            self.start(gateway);
        }
        Ok(())
    }

    fn wake(&self, from: IpAddr) {
        for (gateway, slot) in &self.workers {
            if gateway.address.ip() == from {
                slot.changed.notify_one();
            }
        }
    }
}

/// A little more than a worker takes for its release.
const STOP_TIME: Duration = Duration::from_secs(1);
