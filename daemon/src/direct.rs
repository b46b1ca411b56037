//! Finds out at which addresses this node may be reached without the relay, as long as somebody wants to know.
//!
//! In: the node's wish to know ([`Direct::gather`]), STUN answers from the engine, ports that gateways keep open, changes
//! of the machine's network. Out: STUN questions, candidates and news of changes, all through the engine's inbox: the
//! questions have to leave by the socket that carries everything else, or the answers would be worth nothing.
//!
//! Invariants: before the first wish nothing is sent (announcements on local networks are [`Lan`]'s); a STUN server is believed in nothing but where it saw this node, and only
//! peers that answer a sealed challenge from there make an address count.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_net::{
    Family, HostAddress, LanCounts, Mapping as Seen, NetworkWatch, PortMapConfig, PortMapper, PortMapping,
    StunClient, Transport, host_addresses,
};
use mesh_node::{By, Path, Transmit};
use mesh_wire::control::{CANDIDATES, Candidate, CandidateKind, Candidates, Mapping, Step};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{Command, Inbox};
use crate::ice::Ice;
use crate::lan::Lan;
use crate::relays::pool::RelayPool;

/// STUN answers that wait; further ones are dropped, and the question is repeated.
const ANSWERS: usize = 64;
/// The ports at which relays answer STUN: two, so that a mapping that depends on the port shows.
pub(crate) const STUN_PORTS: [u16; 2] = [3478, 3479];
/// Addresses of one family of a relay that are asked.
const SERVERS: usize = 2;
/// Addresses of the machine that are told of each family, and ports that gateways keep open: room is left for what
/// servers see.
const HOSTS: usize = CANDIDATES / 2 - 1 - MAPPED;
const MAPPED: usize = 2;
/// A list of addresses that was made so short a time ago still holds.
const FRESH: Duration = Duration::from_secs(1);
/// The name of a relay is looked up within this, or it is not asked.
const LOOKUP: Duration = Duration::from_secs(2);
/// After an error of the watch, another one is started.
const WATCH_AGAIN: Duration = Duration::from_secs(10);

/// A datagram that looks like STUN, and where it came from.
pub type StunDatagram = (SocketAddr, Box<[u8]>);

/// The hold on the running actor; dropping it ends the actor without giving mapped ports back.
#[derive(Debug)]
pub struct Direct {
    wish: Arc<Notify>,
    stop: CancellationToken,
    lan: Option<watch::Receiver<LanCounts>>,
    ice: Option<Ice>,
    task: AbortOnDropHandle<()>,
}

/// What the actor works with.
#[derive(Debug)]
pub struct DirectConfig {
    /// The interface whose addresses do not count.
    pub interface: String,
    /// Where the UDP sockets are bound.
    pub sockets: Vec<SocketAddr>,
    /// Host and port for WebSocket of the relay that is home, which answers STUN.
    pub relay: watch::Receiver<(String, u16)>,
    /// Hears of changes of the network, too.
    pub relays: RelayPool,
    /// Whether gateways are asked to keep a port open.
    pub maps_ports: bool,
    /// What finds members on local networks; hears of changes of the network, too.
    pub lan: Option<Lan>,
    /// What finds paths by ICE; takes the STUN that is no answer to a question of this actor.
    pub ice: Option<Ice>,
    /// Where questions and findings go.
    pub engine: Arc<Inbox>,
}

impl Direct {
    /// Makes the queue of STUN answers, which the engine fills.
    #[must_use]
    pub fn answers() -> (mpsc::Sender<StunDatagram>, mpsc::Receiver<StunDatagram>) {
        mpsc::channel(ANSWERS)
    }

    /// Starts the actor.
    #[must_use]
    pub fn start(config: DirectConfig, answers: mpsc::Receiver<StunDatagram>) -> Self {
        let (wish, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let ended = stop.clone();
        let (lan, ice) = (config.lan.as_ref().map(Lan::counts), config.ice.clone());
        let mut actor = Actor {
            config,
            answers,
            wish: Arc::clone(&wish),
            stun: StunClient::new(),
            hosts: Vec::new(),
            gathered: None,
            lookup: None,
            mapper: None,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = actor.run() => {}
            }
            if let Some(lan) = actor.config.lan {
                lan.stop().await;
            }
            if let Some((mapper, _)) = actor.mapper {
                mapper.stop().await;
            }
        });
        Self { wish, stop, lan, ice, task: AbortOnDropHandle::new(task) }
    }

    /// Ends the actor and gives mapped ports back, within about a second.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::debug!("what finds this node's addresses ended by a panic");
        }
    }

    /// Returns what came over local networks; none where members are not looked for there.
    #[must_use]
    pub fn lan(&self) -> Option<watch::Receiver<LanCounts>> {
        self.lan.clone()
    }

    /// Returns what finds paths by ICE, where the configuration wants it.
    #[must_use]
    pub fn ice(&self) -> Option<&Ice> {
        self.ice.as_ref()
    }

    /// Finds the addresses anew.
    pub fn gather(&self) {
        self.wish.notify_one();
    }
}

struct Actor {
    config: DirectConfig,
    answers: mpsc::Receiver<StunDatagram>,
    wish: Arc<Notify>,
    stun: StunClient,
    hosts: Vec<HostAddress>,
    gathered: Option<Instant>,
    /// The servers to be asked, whose names are being looked up: checks of ICE do not wait for that.
    lookup: Option<AbortOnDropHandle<Vec<SocketAddr>>>,
    mapper: Option<(PortMapper, watch::Receiver<Vec<PortMapping>>)>,
}

impl Actor {
    async fn run(&mut self) {
        let mut watch = self.watch().await;
        let mut watch_again = Instant::now() + WATCH_AGAIN;
        loop {
            let due = self.stun.poll_timeout().map(Instant::from_std);
            let mapped = self.mapper.as_mut().map(|(_, mapped)| mapped);
            tokio::select! {
                biased;
                Some((from, datagram)) = self.answers.recv() => {
                    if self.stun.handle_datagram(from, &datagram) {
                        self.tell();
                    } else if let Some(ice) = &self.config.ice {
                        ice.datagram(from, datagram);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.stun.handle_timeout(Instant::now().into_std());
                    self.ask();
                    if self.stun.poll_timeout().is_none() {
                        self.tell();
                    }
                }
                () = self.wish.notified() => {
                    if self.gathered.is_none_or(|at| at.elapsed() >= FRESH) {
                        // What servers saw a while ago most likely holds; it is not taken back while they are asked.
                        let first = self.gathered.is_none();
                        self.gather(first).await;
                    }
                }
                servers = looked_up(self.lookup.as_mut()) => {
                    self.lookup = None;
                    self.stun.start(Instant::now().into_std(), &servers, transaction);
                    if servers.is_empty() {
                        self.tell();
                    }
                    self.ask();
                }
                () = mapping_changed(mapped) => self.tell(),
                changed = changed(watch.as_mut()) => match changed {
                    Ok(()) => {
                        if let Some((mapper, _)) = &self.mapper {
                            mapper.network_changed();
                        }
                        if let Some(lan) = &self.config.lan {
                            lan.network_changed();
                        }
                        self.config.relays.network_changed();
                        self.config.engine.command(Command::NetworkChanged);
                        self.gather(true).await;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "changes of the network are not noticed for a while");
                        watch = None;
                        watch_again = Instant::now() + WATCH_AGAIN;
                    }
                },
                () = sleep_until(watch_again), if watch.is_none() => {
                    watch = self.watch().await;
                    watch_again = Instant::now() + WATCH_AGAIN;
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

    /// Lists the machine's addresses and has servers asked where they see the sockets; tells the former at once, or all
    /// of it when the answers come.
    async fn gather(&mut self, at_once: bool) {
        self.gathered = Some(Instant::now());
        if self.config.maps_ports && self.mapper.is_none() {
            let ports = |v4: bool| {
                let of = self.config.sockets.iter().filter(|socket| socket.is_ipv4() == v4);
                of.map(SocketAddr::port).collect()
            };
            let lifetime = PortMapper::LIFETIME;
            let mapper = PortMapper::start(PortMapConfig {
                transport: Transport::Udp,
                ipv4: ports(true),
                ipv6: ports(false),
                local: None,
                lifetime,
            });
            let mapped = mapper.mappings();
            self.mapper = Some((mapper, mapped));
        }
        match host_addresses(&self.config.interface).await {
            Ok(hosts) => self.hosts = hosts,
            Err(error) => tracing::debug!(%error, "the machine's addresses cannot be listed"),
        }
        if at_once {
            // What servers saw before the change does not count.
            self.stun.start(Instant::now().into_std(), &[], transaction);
            self.tell();
        }
        if at_once || self.lookup.is_none() {
            let (relay, sockets) = (self.config.relay.borrow().clone(), self.config.sockets.clone());
            self.lookup = Some(AbortOnDropHandle::new(tokio::spawn(servers(relay, sockets))));
        }
    }

    /// Sends the questions that are due.
    fn ask(&mut self) {
        while let Some((to, request)) = self.stun.poll_transmit() {
            let payload = BytesMut::from(&request[..]);
            self.config.engine.transmit(Transmit {
                to: Path::Udp(to),
                payload,
                segment: None,
                class: 0,
                single: false,
                by: By::Usual,
            });
        }
        while self.stun.poll_event().is_some() {}
    }

    fn tell(&mut self) {
        while self.stun.poll_event().is_some() {}
        let mapped = self.mapper.as_ref().map(|(_, mapped)| mapped.borrow().clone()).unwrap_or_default();
        let candidates = candidates(&self.config.sockets, &self.hosts, &mapped, &self.stun);
        tracing::debug!(?candidates, "addresses of this node");
        if let Some(ice) = &self.config.ice {
            ice.own_candidates(&candidates.list);
        }
        self.config.engine.command(Command::Candidates(candidates));
    }
}

/// Puts together what is known: hosts first, then ports that gateways keep open, then where servers saw the sockets.
fn candidates(
    sockets: &[SocketAddr],
    hosts: &[HostAddress],
    mapped: &[PortMapping],
    stun: &StunClient,
) -> Candidates {
    let mut list: Vec<Candidate> = Vec::new();
    let mut put = |kind, address: SocketAddr| {
        if list.len() < CANDIDATES && list.iter().all(|known| known.address != address) {
            list.push(Candidate { kind, address });
        }
    };
    let mut mappings = Vec::new();
    for socket in sockets {
        let local = |host: &&HostAddress| {
            host.address.is_ipv4() == socket.is_ipv4()
                && (socket.ip().is_unspecified() || socket.ip() == host.address)
        };
        let own: Vec<SocketAddr> =
            hosts.iter().filter(local).map(|host| SocketAddr::new(host.address, socket.port())).collect();
        for address in own.iter().take(HOSTS) {
            put(CandidateKind::Host, *address);
        }
        let of_family = mapped.iter().filter(|mapping| mapping.external.is_ipv4() == socket.is_ipv4());
        for mapping in of_family.take(MAPPED) {
            put(CandidateKind::Mapped, mapping.external);
        }
        let family = Family::of(socket);
        let seen: Vec<SocketAddr> = stun.reports(family).filter_map(|report| report.mapped).collect();
        for address in &seen {
            put(CandidateKind::Reflexive, *address);
        }
        if !seen.is_empty() {
            let open = seen.iter().all(|address| own.contains(address));
            mappings.push(if open { Mapping::None } else { mapping(stun.mapping(family)) });
        }
    }
    // The harder of the two families is what a peer should know; IPv6 rarely has a NAT at all.
    Candidates { mapping: mappings.into_iter().max().unwrap_or_default(), list }
}

fn mapping(seen: Seen) -> Mapping {
    match seen {
        Seen::EndpointIndependent | Seen::PortIndependent => Mapping::Independent,
        Seen::Dependent { step } => step.and_then(Step::new).map_or(Mapping::Dependent, Mapping::Sequential),
        Seen::Unknown => Mapping::Unknown,
    }
}

/// The STUN servers of a relay, of the families that there are sockets for.
async fn servers((host, port): (String, u16), sockets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let looked_up = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host.as_str(), port))).await;
    let Ok(Ok(found)) = looked_up else { return Vec::new() };
    let found: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
    let of = |v4: bool| found.iter().filter(move |ip| ip.is_ipv4() == v4).take(SERVERS);
    let served = |ip: &&IpAddr| sockets.iter().any(|socket| socket.is_ipv4() == ip.is_ipv4());
    of(true)
        .chain(of(false))
        .filter(served)
        .flat_map(|ip| STUN_PORTS.map(|port| SocketAddr::new(*ip, port)))
        .collect()
}

async fn looked_up(lookup: Option<&mut AbortOnDropHandle<Vec<SocketAddr>>>) -> Vec<SocketAddr> {
    match lookup {
        // None are known after a panic over there.
        Some(lookup) => lookup.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

fn transaction() -> [u8; 12] {
    let mut id = [0; 12];
    aws_lc_rs::rand::fill(&mut id).expect("the system's generator, once seeded, does not fail");
    id
}

/// Waits until the ports that gateways keep open change.
pub(crate) async fn mapping_changed(mapped: Option<&mut watch::Receiver<Vec<PortMapping>>>) {
    let changed = match mapped {
        Some(mapped) => mapped.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        // There is no mapper, or it ended, which it does not by itself.
        std::future::pending().await
    }
}

async fn changed(watch: Option<&mut NetworkWatch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await.map(drop),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use mesh_net::{HostLifetime, HostLink, HostScope};

    use super::*;

    fn host(address: &str) -> HostAddress {
        HostAddress {
            address: address.parse().unwrap(),
            interface: "eth0".into(),
            scope: HostScope::Private,
            lifetime: HostLifetime::Stable,
            link: HostLink::Uplink,
        }
    }

    #[test]
    fn sockets_and_addresses_make_candidates() {
        let hosts = [host("10.0.0.1"), host("2001:db8::1")];
        let any: [SocketAddr; 2] = ["0.0.0.0:7".parse().unwrap(), "[::]:8".parse().unwrap()];
        let found = candidates(&any, &hosts, &[], &StunClient::new());
        let addresses: Vec<String> = found.list.iter().map(|known| known.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1:7", "[2001:db8::1]:8"]);
        assert_eq!(found.mapping, Mapping::Unknown);
        let one: [SocketAddr; 1] = ["10.0.0.2:7".parse().unwrap()];
        assert!(candidates(&one, &hosts, &[], &StunClient::new()).list.is_empty());
        let many: Vec<_> = (1..40).map(|number| host(&format!("10.0.0.{number}"))).collect();
        assert!(candidates(&any, &many, &[], &StunClient::new()).list.len() < CANDIDATES);
    }
}
