//! The task of one gateway: it makes the mappings of one own address, keeps them and releases them.
//!
//! In: a wake-up when something may have changed. Out: the gateway's share of the list of mappings. Invariants: what is
//! published was granted by the gateway and has not expired; whatever was asked for is released at the end.

use std::io;
use std::mem::{discriminant, take};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::gateways::Gateway;
use super::judge::{self, Epoch, Worth};
use super::pcp::{self, MapRequest};
use super::port::{Held, Port, random_port};
use super::talk::{Answer, Ask, Talk};
use super::upnp::{self, Service, UpnpError};
use super::{MapProtocol, PortMapConfig, PortMapping, Transport};

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    gateway: Gateway,
    transport: Transport,
    lifetime: Duration,
    ports: Vec<Port>,
    method: Option<Method>,
    /// By which protocols the gateway may hold something of ours, granted or on its way; each at most once.
    asked: Vec<Method>,
    epoch: Option<Epoch>,
    failures: u32,
    mappings: Arc<watch::Sender<Vec<PortMapping>>>,
}

#[derive(Clone, Debug)]
enum Method {
    Pcp,
    NatPmp,
    Upnp(Service),
}

impl Worker {
    pub(super) fn new(
        gateway: Gateway,
        ports: &[u16],
        config: &PortMapConfig,
        mappings: Arc<watch::Sender<Vec<PortMapping>>>,
    ) -> Self {
        Self {
            gateway,
            transport: config.transport,
            lifetime: config.lifetime,
            ports: ports.iter().copied().map(Port::new).collect(),
            method: None,
            asked: Vec::new(),
            epoch: None,
            failures: 0,
            mappings,
        }
    }

    /// Runs until `stop`, and then for [`RELEASE_TIME`] at most.
    pub(super) async fn run(mut self, stop: CancellationToken, changed: Arc<Notify>) -> Gateway {
        let mut forced = false;
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = self.round(forced) => next,
            };
            let earliest = tokio::time::Instant::now() + LEAST_PAUSE;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = changed.notified() => forced = true,
                () = sleep_until(next.into()) => forced = false,
            }
            if forced {
                self.failures = 0;
                // Anybody on the network can wake this task.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = sleep_until(earliest) => {}
                }
            }
        }
        if timeout(RELEASE_TIME, self.release()).await.is_err() {
            tracing::debug!(gateway = %self.gateway.address.ip(), "the gateway did not confirm the release in time");
        }
        self.gateway
    }

    /// Does what is due, publishes the outcome and returns when to come back.
    async fn round(&mut self, forced: bool) -> Instant {
        let now = Instant::now();
        let due = self.ports.iter().any(|port| port.held.is_none_or(|held| held.renew <= now));
        let done = (!forced && !due && self.still_there().await) || self.establish().await;
        let now = Instant::now();
        for port in &mut self.ports {
            port.held = port.held.filter(|held| held.expires > now);
        }
        if self.ports.iter().all(|port| port.held.is_none()) {
            self.method = None;
        }
        self.publish();
        now + self.pause(done, now)
    }

    fn pause(&mut self, done: bool, now: Instant) -> Duration {
        // A share of the lifetime, so that a gateway that forgot is noticed well before the renewal.
        let check = (self.lifetime / 8).clamp(LEAST_PAUSE, CHECK);
        let held = || self.ports.iter().filter_map(|port| port.held);
        if done {
            self.failures = 0;
            let renew = held().map(|held| held.renew.saturating_duration_since(now)).min();
            return renew.map_or(check, |renew| renew.min(check)).max(LEAST_PAUSE);
        }
        if let Some(rest) = held().map(|held| held.expires.saturating_duration_since(now)).min() {
            return (rest / 2).min(check).max(LEAST_PAUSE);
        }
        let pause = (FIRST_RETRY * 2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1).min(16);
        pause
    }

    /// Whether the gateway answers and has not lost its mappings. UPnP has no such question: there a renewal serves.
    async fn still_there(&mut self) -> bool {
        let ask = match &self.method {
            Some(Method::Pcp) => Ask::PcpAnnounce(self.gateway.local),
            Some(Method::NatPmp) => Ask::PmpExternal,
            Some(Method::Upnp(_)) | None => return false,
        };
        let mut talk = Talk::new([ask]);
        self.converse(&mut talk).await;
        let Some((_, answer)) = talk.answers().next() else { return false };
        let lost = self.note_epoch(&talk);
        match answer {
            Answer::Alive => !lost,
            Answer::External(address) => {
                let same = |held: Held| held.external.ip() == IpAddr::V4(address);
                !lost && self.ports.iter().filter_map(|port| port.held).all(same)
            }
            Answer::Granted { .. } | Answer::Refused(_) | Answer::OtherVersion => false,
        }
    }

    /// Makes or renews all mappings, by the protocol in use or else by the first that works.
    async fn establish(&mut self) -> bool {
        let renewed = match self.method.clone() {
            Some(Method::Pcp) => self.by_pcp(false).await.is_ok(),
            Some(Method::NatPmp) => self.by_natpmp().await,
            Some(Method::Upnp(service)) => self.by_upnp(service).await,
            None => false,
        };
        renewed || self.search().await
    }

    /// Tries everything. The search for UPnP, which takes longest and changes nothing, runs beside the rest.
    async fn search(&mut self) -> bool {
        let pair = match (self.gateway.address, self.gateway.local) {
            (SocketAddr::V4(gateway), IpAddr::V4(local)) => Some((*gateway.ip(), local)),
            (SocketAddr::V4(_) | SocketAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => None,
        };
        let mut upnp = pin!(find_upnp(pair));
        let mut services = None;
        let done = {
            let mut direct = pin!(self.by_datagrams());
            loop {
                tokio::select! {
                    biased;
                    done = &mut direct => break done,
                    found = &mut upnp, if services.is_none() => services = Some(found),
                }
            }
        };
        if done {
            return true;
        }
        let services = match services {
            Some(services) => services,
            None => upnp.await,
        };
        for service in services {
            if self.by_upnp(service).await {
                return true;
            }
        }
        false
    }

    /// PCP, and NAT-PMP where the gateway knows only that.
    async fn by_datagrams(&mut self) -> bool {
        match self.by_pcp(self.gateway.local.is_ipv4()).await {
            Ok(()) => true,
            Err(Some(_)) => self.by_natpmp().await,
            Err(None) => false,
        }
    }

    /// Asks for all mappings by PCP, on request together with the external address by NAT-PMP. The error is the latter.
    async fn by_pcp(&mut self, natpmp_too: bool) -> Result<(), Option<Ipv4Addr>> {
        let seconds = self.seconds();
        let maps = self.pcp_maps(seconds);
        let mut talk = Talk::new(maps.into_iter().chain(natpmp_too.then_some(Ask::PmpExternal)));
        self.begin(Method::Pcp);
        self.converse(&mut talk).await;
        if self.take(&talk, None) {
            self.note_epoch(&talk);
            self.method = Some(Method::Pcp);
            return Ok(());
        }
        self.refused();
        Err(external_in(&talk))
    }

    async fn by_natpmp(&mut self) -> bool {
        let (transport, lifetime) = (self.transport, self.seconds());
        let map = |port: &Port| Ask::PmpMap {
            transport,
            internal_port: port.internal,
            external_port: port.wanted,
            lifetime,
        };
        let maps: Vec<Ask> = self.ports.iter().map(map).collect();
        let mut talk = Talk::new(maps.into_iter().chain([Ask::PmpExternal]));
        self.begin(Method::NatPmp);
        self.converse(&mut talk).await;
        if let Some(external) = external_in(&talk)
            && self.take(&talk, Some(external))
        {
            self.note_epoch(&talk);
            self.method = Some(Method::NatPmp);
            return true;
        }
        self.refused();
        false
    }

    async fn by_upnp(&mut self, service: Service) -> bool {
        self.begin(Method::Upnp(service.clone()));
        match self.map_by_upnp(&service).await {
            Ok(()) => {
                self.method = Some(Method::Upnp(service));
                true
            }
            Err(error) => {
                tracing::debug!(gateway = %self.gateway.address.ip(), %error, "no mapping by UPnP");
                self.refused();
                false
            }
        }
    }

    async fn map_by_upnp(&mut self, service: &Service) -> Result<(), UpnpError> {
        let external = IpAddr::V4(service.external_address().await?);
        if judge::worth(external) == Worth::Useless {
            return Err(UpnpError::Answer);
        }
        let mut failed = None;
        for port in &mut self.ports {
            let ports = (port.internal, port.wanted);
            match service.map(self.transport, ports, self.lifetime, random_port).await {
                Ok(lease) => {
                    let renew = (lease.lifetime / 2).min(CHECK);
                    port.hold(SocketAddr::new(external, lease.external_port), lease.lifetime, renew);
                }
                Err(UpnpError::Fault(code)) => {
                    port.held = None;
                    failed = Some(UpnpError::Fault(code));
                }
                Err(error) => return Err(error),
            }
        }
        let none = self.ports.iter().all(|port| port.held.is_none());
        failed.filter(|_| none).map_or(Ok(()), Err)
    }

    /// Notes a protocol before something is asked for by it, since its answer may come after the end.
    fn begin(&mut self, method: Method) {
        self.asked.retain(|asked| discriminant(asked) != discriminant(&method));
        self.asked.push(method);
    }

    /// Forgets the protocol of the latest [`Worker::begin`], which gave nothing, unless mappings of before may be its.
    fn refused(&mut self) {
        if self.ports.iter().all(|port| port.held.is_none()) {
            self.asked.pop();
        }
    }

    /// Takes over what was granted and gives up what was refused; tells whether anything was granted.
    fn take(&mut self, talk: &Talk, external: Option<Ipv4Addr>) -> bool {
        let mut granted = false;
        for (ask, answer) in talk.answers() {
            let asked = match ask {
                Ask::PcpMap(request) => request.internal_port,
                Ask::PmpMap { internal_port, .. } => *internal_port,
                Ask::PcpAnnounce(_) | Ask::PmpExternal => continue,
            };
            let Some(port) = self.ports.iter_mut().find(|port| port.internal == asked) else { continue };
            match answer {
                Answer::Granted { address, external_port, lifetime, .. } => {
                    let address = address.or(external.map(IpAddr::V4));
                    let usable = |address: &IpAddr| {
                        address.is_ipv4() == self.gateway.local.is_ipv4()
                            && judge::worth(*address) != Worth::Useless
                            && external_port != 0
                            && lifetime != 0
                    };
                    if let Some(address) = address.filter(usable) {
                        let lifetime = judge::lifetime(lifetime);
                        port.hold(SocketAddr::new(address, external_port), lifetime, lifetime / 2);
                        granted = true;
                    }
                }
                Answer::Refused(code) => {
                    tracing::debug!(gateway = %self.gateway.address.ip(), code, "the gateway refused a mapping");
                    port.held = None;
                }
                Answer::External(_) | Answer::Alive | Answer::OtherVersion => {}
            }
        }
        granted
    }

    /// Keeps the epoch of the latest answer and tells whether the mappings of before are lost.
    fn note_epoch(&mut self, talk: &Talk) -> bool {
        let Some(seconds) = talk.epoch() else { return false };
        let epoch = Epoch::new(seconds, Instant::now());
        self.epoch.replace(epoch).is_some_and(|before| before.lost_until(epoch))
    }

    fn publish(&self) {
        let gateway = self.gateway.address.ip();
        let protocol = match &self.method {
            Some(Method::Pcp) => MapProtocol::Pcp,
            Some(Method::NatPmp) => MapProtocol::NatPmp,
            Some(Method::Upnp(_)) | None => MapProtocol::Upnp,
        };
        let mapping = |port: &Port| {
            port.held.map(|held| PortMapping {
                protocol,
                internal: SocketAddr::new(self.gateway.local, port.internal),
                external: held.external,
                gateway,
                double_nat: judge::worth(held.external.ip()) == Worth::Private,
                expires: held.expires,
            })
        };
        let own: Vec<PortMapping> = self.ports.iter().filter_map(mapping).collect();
        let is_own = |of: &PortMapping| of.gateway == gateway && of.internal.ip() == self.gateway.local;
        self.mappings.send_if_modified(|all| {
            if all.iter().filter(|of| is_own(of)).eq(&own) {
                return false;
            }
            all.retain(|of| !is_own(of));
            all.extend(own);
            true
        });
    }

    /// Deletes what the gateway may hold. A mapping by UPnP is deleted only if it was granted: its external port may
    /// be another host's otherwise.
    async fn release(&mut self) {
        let held: Vec<u16> = self.ports.iter().filter_map(|port| Some(port.held?.external.port())).collect();
        for port in &mut self.ports {
            port.wanted = 0;
            port.held = None;
        }
        self.publish();
        let (mut asks, mut services) = (Vec::new(), Vec::new());
        for method in take(&mut self.asked) {
            match method {
                Method::Pcp => asks.extend(self.pcp_maps(0)),
                Method::NatPmp => asks.extend(self.ports.iter().map(|port| Ask::PmpMap {
                    transport: self.transport,
                    internal_port: port.internal,
                    external_port: 0,
                    lifetime: 0,
                })),
                Method::Upnp(service) => services.push(service),
            }
        }
        let mut talk = Talk::new(asks);
        tokio::join!(self.converse(&mut talk), unmap(&services, self.transport, &held));
    }

    fn pcp_maps(&self, lifetime: u32) -> Vec<Ask> {
        let map = |port: &Port| {
            Ask::PcpMap(MapRequest {
                client: self.gateway.local,
                transport: self.transport,
                nonce: port.nonce,
                internal_port: port.internal,
                external_port: port.wanted,
                lifetime,
            })
        };
        self.ports.iter().map(map).collect()
    }

    /// The wanted lifetime in seconds.
    fn seconds(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    /// Sends the requests until they are answered or the time is up. No answer and no way are the same here.
    async fn converse(&self, talk: &mut Talk) {
        if talk.done() {
            return;
        }
        if let Err(error) = self.try_converse(talk).await {
            tracing::debug!(gateway = %self.gateway.address.ip(), %error, "the gateway cannot be asked");
        }
    }

    async fn try_converse(&self, talk: &mut Talk) -> io::Result<()> {
        // A socket of its own with a random port, connected: the kernel hands over only what the gateway sent to it.
        let socket = UdpSocket::bind((self.gateway.local, 0)).await?;
        let mut server = self.gateway.address;
        server.set_port(pcp::PORT);
        socket.connect(server).await?;
        let mut buffer = [0; pcp::MAX_LEN + 1];
        for wait in ANSWER_WAITS {
            for request in talk.unanswered() {
                socket.send(&request).await?;
            }
            let until = tokio::time::Instant::now() + wait;
            while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
                talk.handle(&buffer[..received?]);
                if talk.done() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

async fn find_upnp(pair: Option<(Ipv4Addr, Ipv4Addr)>) -> Vec<Service> {
    let Some((gateway, local)) = pair else { return Vec::new() };
    match upnp::search(gateway, local).await {
        Ok(services) => services,
        Err(error) => {
            tracing::debug!(%gateway, %error, "no search for UPnP");
            Vec::new()
        }
    }
}

async fn unmap(services: &[Service], transport: Transport, ports: &[u16]) {
    for service in services {
        for port in ports {
            if let Err(error) = service.unmap(transport, *port).await {
                tracing::debug!(%error, "a mapping by UPnP was not deleted");
            }
        }
    }
}

/// The external address that the gateway told by NAT-PMP.
fn external_in(talk: &Talk) -> Option<Ipv4Addr> {
    talk.answers()
        .find_map(|(_, answer)| if let Answer::External(address) = answer { Some(address) } else { None })
}

/// How long to wait for answers after each sending: a gateway is near, and the second packet makes up for a lost one.
const ANSWER_WAITS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(250), Duration::from_millis(500)];
/// How often a gateway is asked whether it lost its mappings, and mappings by UPnP are made again: two packets.
const CHECK: Duration = Duration::from_secs(60);
/// Between two rounds, whatever a gateway grants and whoever wakes the task.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Until gateways are tried again that gave nothing; a network that changes is tried at once.
const FIRST_RETRY: Duration = Duration::from_secs(15);
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);
/// Within the second that stopping may take.
const RELEASE_TIME: Duration = Duration::from_millis(900);
