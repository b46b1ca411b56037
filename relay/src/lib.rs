//! The ShadowMesh relay: forwards sealed frames between the nodes of a network that cannot reach each other directly.
//!
//! In: WebSockets over TLS 1.3 from members, from the holders of network roots and from guests that want to enrol; UDP
//! datagrams that ask for a mapped address. Out: the frames, to whom they are addressed; presence; the latest sealed
//! roster of each network; counters.
//!
//! `admit` takes a TCP connection to an authenticated client, `connection` moves its messages, `hub` knows who is there and
//! who may reach whom, `queue` decides what is dropped for a client that reads too slowly.
//!
//! Invariants: the relay holds no key of any network and reads no frame; a client's signature counts for this relay
//! and this TLS connection only; a reader never waits for another client's writer; everything that a stranger can
//! make grow is bounded.

mod admit;
mod auth;
mod bucket;
mod certificate;
mod config;
mod connection;
mod door;
mod doubt;
mod gate;
mod hub;
mod listen;
mod metrics;
mod outbox;
mod queue;
mod routes;
mod status;
mod stream;
mod stun;
mod sync;
mod udp;

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_identity::HeadCache;
use mesh_wire::{Pin, RelayUrl};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use certificate::Certificate;
pub use certificate::CertificateError;
pub use config::{Access, Config, ConfigError, Limits, UdpListen};
pub use door::{Door, DoorConfig, DoorCounts, DoorSender, DoorSink};
use gate::{Gate, GateLimits};
#[cfg(feature = "bench")]
pub use hub::bench::Forwarding;
#[cfg(feature = "fuzz")]
pub use hub::fuzz::drive as drive_hub;
use hub::{Hub, HubLimits, RosterLimits};
pub use listen::ListenError;
use metrics::Metrics;

/// A running relay. Dropping it ends all connections at once; [`Relay::stop`] says goodbye first.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    stun_addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Why the relay does not start. The text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no usable certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate does not serve for TLS.
    #[error("TLS cannot be set up ({0})")]
    Tls(#[from] rustls::Error),
    /// There is no place for the node behind a door, which a fresh one always has.
    #[error("the node has no place behind its door")]
    Full,
}

/// A task of the relay ended, which none does before it is told to.
#[derive(Debug, thiserror::Error)]
#[error("a part of the relay ended unexpectedly")]
pub struct TaskEnded;

impl Relay {
    /// Binds all sockets and begins to serve. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let certificate = Certificate::load_or_create(&config)?;
        let tls = TlsAcceptor::from(Arc::new(certificate.server_config()?));
        let listeners = config.listen.iter().map(|address| listen::tcp(*address, "listen"));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let stun_sockets = config.stun_listen.iter().map(|address| listen::udp(*address, "stun_listen"));
        let stun_sockets = stun_sockets.collect::<Result<Vec<_>, _>>()?;
        let status =
            config.metrics_listen.map(|address| listen::tcp(address, "metrics_listen")).transpose()?;

        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let stun = Arc::new(stun::Service::new(stun_sockets));
        let stun_addresses = stun.addresses().to_vec();
        let metrics_address = status.as_ref().and_then(|listener| listener.local_addr().ok());
        let (udp_sockets, udp) = udp::open(&config)?;
        let shared = Arc::new(Shared::new(config, tls, certificate.pin(), udp));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(admit::accept_loop(listener, shared.clone(), stop.clone()));
        }
        for own in 0..stun_addresses.len() {
            tasks.spawn(stun::answer_loop(stun.clone(), own, shared.clone(), stop.clone()));
        }
        for socket in udp_sockets {
            tasks.spawn(udp::serve(socket, shared.clone(), stop.clone()));
        }
        if let Some(listener) = status {
            tasks.spawn(status::serve(listener, shared.clone(), stop.clone()));
        }
        Ok(Self { shared, addresses, stun_addresses, metrics_address, stop, tasks })
    }

    /// Returns the TCP addresses for clients, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the UDP addresses that answer STUN.
    #[must_use]
    pub fn stun_addresses(&self) -> &[SocketAddr] {
        &self.stun_addresses
    }

    /// Returns the UDP port that members are offered for their frames.
    #[must_use]
    pub fn udp_port(&self) -> Option<u16> {
        self.shared.udp.port()
    }

    /// Returns the address of `/healthz` and `/metrics`.
    #[must_use]
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Returns SHA-256 of the certificate's public key.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.shared.pin
    }

    /// Returns `wss://host[:port]#PIN` for users.
    #[must_use]
    pub fn url(&self) -> String {
        let port = self.addresses.first().map_or(443, SocketAddr::port);
        url(&self.shared.config, port, &self.shared.pin)
    }

    /// Waits until a task ends, which is a failure.
    pub async fn failed(&mut self) -> TaskEnded {
        self.tasks.join_next().await;
        TaskEnded
    }

    /// Tells the clients when to come back, closes their connections and ends; takes two seconds at most.
    pub async fn stop(mut self) {
        let limits = &self.shared.config.limits;
        self.shared.hub().restart(limits.restart_min_ms, limits.restart_max_ms);
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }
}

/// Returns the address for users of a relay with this configuration, making its certificate if there is none.
///
/// # Errors
/// [`CertificateError`] names the file.
pub fn public_url(config: &Config) -> Result<String, CertificateError> {
    let certificate = Certificate::load_or_create(config)?;
    let port = config.listen.first().map_or(443, SocketAddr::port);
    Ok(url(config, port, &certificate.pin()))
}

/// Checks what [`Relay::start`] would read, without changing or binding anything.
///
/// # Errors
/// [`CertificateError`] names the file.
pub fn check(config: &Config) -> Result<(), CertificateError> {
    Certificate::check(config).map(drop)
}

fn url(config: &Config, port: u16, pin: &Pin) -> String {
    let specific = config.listen.iter().map(SocketAddr::ip).find(|ip| !ip.is_unspecified());
    let hostname =
        || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let host = config
        .public_host
        .clone()
        .or_else(|| specific.map(|ip| ip.to_string()))
        .or_else(hostname)
        .unwrap_or_else(|| "localhost".to_owned());
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match RelayUrl::new(host, port) {
        Ok(url) => url.with_pin(pin),
        Err(_) => format!("wss://{host}:{port}#{pin}"),
    }
}

/// What all tasks share.
struct Shared {
    config: Config,
    tls: TlsAcceptor,
    pin: Pin,
    hub: Mutex<Hub>,
    /// Of the hub, read without its lock.
    joins: Arc<AtomicU64>,
    gate: Mutex<Gate>,
    metrics: Metrics,
    /// Signatures that are checked at a time: half of the processors are left to the forwarding.
    checks: Arc<Semaphore>,
    heads: HeadCache,
    udp: udp::Clients,
    /// Of a relay that is the door of a node.
    door: Option<door::Rules>,
}

impl Shared {
    fn new(config: Config, tls: TlsAcceptor, pin: Pin, udp: udp::Clients) -> Self {
        let limits = &config.limits;
        let hub = Hub::new(HubLimits {
            handles: limits.handles.into(),
            guest_handles: limits.guest_handles.into(),
            handles_total: limits.handles_total,
            guests_per_network: limits.guests_per_network,
            guests_per_source: limits.guests_per_address,
            rosters: RosterLimits { count: limits.rosters, bytes: limits.roster_bytes },
        });
        let gate = Gate::new(GateLimits {
            clients: limits.clients,
            strangers: limits.handshakes,
            per_source: limits.clients_per_address,
            rate: limits.new_clients_per_second.into(),
            burst: limits.new_clients_burst.into(),
        });
        let joins = hub.joins();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            tls,
            pin,
            hub: Mutex::new(hub),
            joins,
            gate: Mutex::new(gate),
            metrics: Metrics::default(),
            checks: Arc::new(Semaphore::new((cores / 2).max(1))),
            heads: HeadCache::new(),
            udp,
            door: None,
            config,
        }
    }

    /// Locks the hub, for one operation.
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// For the goodbye to all clients.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
