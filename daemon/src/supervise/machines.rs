//! The state machines of a node that comes up.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_control::{ApiError, ErrorCode};
use mesh_net::{PeerInfo, UdpSockets};
use mesh_node::{Handshaker, HandshakerConfig, Node, NodeConfig, Numbers, Random};
use mesh_session::handshake::Local;
use mesh_wire::Pin;
use mesh_wire::roster::Link;
use tokio::sync::mpsc;

use super::Shared;
use super::relays::Relays;
use crate::config::{Config, PathFinder};
use crate::direct::{Direct, DirectConfig, StunDatagram};
use crate::engine::Inbox;
use crate::ice::{Ice, IceConfig};
use crate::lan::seal::LanSeal;
use crate::lan::{Lan, LanConfig};
use crate::state::Membership;
use crate::{interface, one_line};

/// Makes the two state machines of the node; `pin` is that of the QUIC endpoint's certificate.
pub(super) fn machines(
    shared: &Shared,
    local: &Local,
    membership: &Membership,
    pin: Pin,
) -> (Node, Handshaker) {
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
        hold_until_mixed: shared.config.hold_until_mixed,
        timings: shared.timings,
    };
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
    (node, Handshaker::new(handshaker, Arc::clone(roster), random()))
}

/// Binds the UDP sockets: those of the configuration; without any, one of each family that the machine has, on a port
/// that the kernel chooses; none where direct paths are not wanted.
pub(super) fn sockets(config: &Config) -> Result<UdpSockets, ApiError> {
    let bind = |listen: &[SocketAddr]| UdpSockets::bind_for(listen, 1);
    let any: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    let sockets = match &config.udp_listen {
        Some(listen) => bind(listen),
        None if config.direct => bind(&any).or_else(|_| bind(&any[..1])).or_else(|_| bind(&any[1..])),
        None => bind(&[]),
    };
    let mut bound = sockets.map_err(|error| {
        ApiError::new(ErrorCode::Interface, one_line(&error))
            .with_hint("udp_listen in the configuration names the addresses")
    })?;
    if let Some(error) = &bound.refused {
        tracing::warn!(
            %error,
            "the kernel does not keep frames and other datagrams apart; a flood of the others slows the frames"
        );
    }
    Ok(bound.threads.swap_remove(0))
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
