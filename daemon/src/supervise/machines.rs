//! The state machines of a node that comes up.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_control::{ApiError, ErrorCode};
use mesh_identity::Roster;
use mesh_net::{PeerInfo, UdpSockets};
use mesh_node::{Handshaker, HandshakerConfig, Node, NodeConfig, Numbers, Random, Worker};
use mesh_session::handshake::Local;
use mesh_tun::Device;
use mesh_wire::roster::Link;
use mesh_wire::{NodeId, Pin};
use tokio::sync::mpsc;

use super::Shared;
use super::relays::Relays;
use crate::config::{Config, PathFinder};
use crate::direct::{Direct, DirectConfig, StunDatagram};
use crate::engine::{self, Inbox};
use crate::ice::{Ice, IceConfig};
use crate::lan::seal::LanSeal;
use crate::lan::{Lan, LanConfig};
use crate::state::Membership;
use crate::{interface, one_line};

/// The state machines of a node.
pub(super) struct Machines {
    pub(super) node: Node,
    pub(super) handshaker: Handshaker,
    /// One for each thread beside the first.
    pub(super) workers: Vec<Worker>,
}

/// Makes the state machines of the node, for so many threads; `pin` is that of the QUIC endpoint's certificate.
pub(super) fn machines(
    shared: &Shared,
    local: &Local,
    membership: &Membership,
    pin: Pin,
    threads: u16,
) -> Machines {
    let settings = membership.roster.settings();
    let numbers = Numbers::default();
    let mtu = interface::mtu(&shared.config, settings);
    let node = NodeConfig {
        own: shared.own,
        provider: local.provider,
        net: membership.net,
        link: match settings.link {
            Link::Tun => mesh_node::Link::Ip,
            Link::Tap => mesh_node::Link::Ethernet,
        },
        mtu,
        numbers: numbers.clone(),
        endpoints: shared.config.endpoints.clone(),
        direct: shared.config.direct,
        birthday: shared.config.birthday,
        hold_until_mixed: shared.config.hold_until_mixed,
        timings: shared.timings,
        threads,
    };
    let workers = (1..threads).map(|_| Worker::new(mtu, numbers.clone())).collect();
    let handshaker = HandshakerConfig {
        local: local.clone(),
        net: membership.net,
        network_secret: membership.network_secret.clone(),
        mtu,
        tls_pin: pin.0,
        numbers,
    };
    let roster = &membership.roster;
    let mut node = Node::new(node, Arc::clone(roster), random());
    if shared.config.path_finder == PathFinder::Ice {
        node.find_by_ice();
    }
    Machines { node, handshaker: Handshaker::new(handshaker, Arc::clone(roster), random()), workers }
}

/// Binds the UDP sockets of so many threads, or of one where the kernel does not distribute datagrams: those of the configuration; without any, one of each family that the machine has, on a port
/// that the kernel chooses; none where direct paths are not wanted.
pub(super) fn sockets(config: &Config, threads: u16) -> Result<Vec<UdpSockets>, ApiError> {
    let bind = |listen: &[SocketAddr]| UdpSockets::bind_for(listen, threads.into());
    let any: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    let sockets = match &config.udp_listen {
        Some(listen) => bind(listen),
        None if config.direct => bind(&any).or_else(|_| bind(&any[..1])).or_else(|_| bind(&any[1..])),
        None => bind(&[]),
    };
    let bound = sockets.map_err(|error| {
        ApiError::new(ErrorCode::Interface, one_line(&error))
            .with_hint("udp_listen in the configuration names the addresses")
    })?;
    if let Some(error) = &bound.refused {
        tracing::warn!(
            %error,
            threads,
            "the kernel does not distribute datagrams among sockets: one thread moves all packets, and a flood of what is \
             no frame slows the frames"
        );
    }
    Ok(bound.threads)
}

/// What each thread of the engine has of its own.
pub(super) struct Threads {
    pub(super) device: Device,
    /// Those of the first thread, then those of each further one.
    pub(super) sockets: Vec<UdpSockets>,
}

/// Binds the sockets and creates the interface for as many threads as are wanted and work; says why where they are fewer.
pub(super) async fn threads(config: &Config, own: NodeId, roster: &Roster) -> Result<Threads, ApiError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wanted = engine::threads(config.engine_threads, processors);
    if roster.settings().link == Link::Tap && wanted > 1 {
        tracing::info!("one thread moves all packets: the network carries Ethernet frames");
        wanted = 1;
    }
    let mut sockets = sockets(config, wanted)?;
    let queues = u16::try_from(sockets.len()).unwrap_or(1);
    let device = interface::create(config, roster, own, queues).await?;
    if let Some(error) = device.refused() {
        tracing::warn!(%error, threads = wanted, "one thread moves all packets: the interface has one queue");
        // Nobody would read the others.
        sockets.clear();
        sockets = self::sockets(config, 1)?;
    }
    Ok(Threads { device, sockets })
}

/// Starts to find out at which addresses the node may be reached; none where nobody wants to know or no socket is bound.
pub(super) fn addresses(
    shared: &Shared,
    (interface, membership): (&str, &Membership),
    sockets: Vec<SocketAddr>,
    answers: mpsc::Receiver<StunDatagram>,
    (engine, relays): (&Arc<Inbox>, &Relays),
) -> Option<Direct> {
    let (config, own) = (&shared.config, shared.own);
    if !config.direct || sockets.is_empty() {
        return None;
    }
    let lan = config.mdns.then(|| {
        Lan::start(LanConfig {
            interface: interface.to_owned(),
            sockets: sockets.clone(),
            own,
            seal: LanSeal::new(membership.net, membership.network_secret.clone()),
            engine: Arc::clone(engine),
        })
    });
    let ice = (config.path_finder == PathFinder::Ice)
        .then(|| Ice::start(IceConfig { own, library: shared.ice, engine: Arc::clone(engine) }));
    let config = DirectConfig {
        interface: interface.to_owned(),
        sockets,
        relay: relays.home_address(),
        relays: relays.pool(),
        maps_ports: config.port_mapping,
        lan,
        ice,
        engine: Arc::clone(engine),
    };
    Some(Direct::start(config, answers))
}

fn random() -> Random {
    Box::new(|bytes: &mut [u8]| {
        aws_lc_rs::rand::fill(bytes).expect("the system's generator, once seeded, does not fail");
    })
}

/// Returns what this node says of itself to its peers.
pub(super) fn this_node() -> PeerInfo {
    PeerInfo { version: env!("CARGO_PKG_VERSION").to_owned(), os: std::env::consts::OS.to_owned() }
}
