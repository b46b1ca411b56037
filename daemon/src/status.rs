//! What people see: the engine's and the daemon's state as the API's types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_control::{
    Counters, CryptoStatus, Mode, NetworkStatus, NodeState, NodeStatus, PathKind, PeerState, PeerStatus,
    Readiness, RelayState, RelayStatus, Role, SessionStatus, Status,
};
use mesh_identity::Roster;
use mesh_node::{Path, PeerPhase, PeerSnapshot};
use mesh_wire::NodeId;
use mesh_wire::handshake::SUITE_NAME;
use mesh_wire::roster::{Leaf, Link, Roles};

use crate::config::Config;
use crate::engine::EngineSnapshot;
use crate::interface;
use crate::state::Membership;

/// What the daemon itself knows beside the engine.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Where the daemon stands.
    pub state: NodeState,
    /// The membership in force.
    pub membership: Option<Membership>,
    /// The relay connection.
    pub relay: Option<RelayStatus>,
    /// Whether data passes, or what is waited for.
    pub ready: Readiness,
}

/// Puts everything together.
#[must_use]
pub fn status(config: &Config, own: NodeId, view: &View, engine: Option<&EngineSnapshot>) -> Status {
    let peers = view
        .membership
        .as_ref()
        .map(|membership| peers(own, &membership.roster, view.relay.as_ref(), engine));
    let peers = peers.unwrap_or_default();
    Status {
        state: view.state,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: view.membership.as_ref().map(|membership| network(own, membership)),
        node: view.membership.as_ref().and_then(|membership| node(config, own, membership)),
        relay: view.relay.clone(),
        ready: view.ready.clone(),
        counters: counters(engine),
        peers,
        crypto: CryptoStatus { provider: config.provider.to_string(), aead: config.aead.to_string() },
    }
}

/// Returns the network's part.
#[must_use]
pub fn network(own: NodeId, membership: &Membership) -> NetworkStatus {
    let roster = &membership.roster;
    let coordinator = roster.leaf(&own).is_some_and(|leaf| leaf.roles.contains(Roles::COORDINATOR));
    NetworkStatus {
        name: roster.settings().name.to_string(),
        net_id: membership.net.to_string(),
        role: if coordinator { Role::Coordinator } else { Role::Member },
        roster_version: roster.version(),
        members: u32::try_from(roster.leaves().len()).unwrap_or(u32::MAX),
    }
}

/// Returns this node's part; none when the roster lacks it.
#[must_use]
pub fn node(config: &Config, own: NodeId, membership: &Membership) -> Option<NodeStatus> {
    let settings = membership.roster.settings();
    membership.roster.leaf(&own).map(|leaf| NodeStatus {
        name: leaf.name.to_string(),
        node_id: own.to_string(),
        addresses: addresses(leaf),
        interface: config.interface.clone(),
        mode: match settings.link {
            Link::Tun => Mode::Tun,
            Link::Tap => Mode::Tap,
        },
        mtu: interface::mtu(config, settings),
    })
}

/// Returns every other member, by name.
#[must_use]
pub fn peers(
    own: NodeId,
    roster: &Roster,
    relay: Option<&RelayStatus>,
    engine: Option<&EngineSnapshot>,
) -> Vec<PeerStatus> {
    let live: BTreeMap<NodeId, &PeerSnapshot> =
        engine.into_iter().flat_map(|engine| &engine.node.peers).map(|peer| (peer.id, peer)).collect();
    let mut peers: Vec<PeerStatus> = roster
        .leaves()
        .iter()
        .filter(|leaf| leaf.node_id != own)
        .map(|leaf| peer(leaf, relay, live.get(&leaf.node_id).copied()))
        .collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    peers
}

/// Returns the addresses of a member, IPv4 first.
#[must_use]
pub fn addresses(leaf: &Leaf) -> Vec<IpAddr> {
    vec![leaf.ipv4.into(), leaf.ipv6.into()]
}

fn peer(leaf: &Leaf, relay: Option<&RelayStatus>, live: Option<&PeerSnapshot>) -> PeerStatus {
    let online = live.and_then(|peer| peer.online);
    let connected = relay.is_some_and(|relay| relay.state == RelayState::Connected);
    let online = online.filter(|_| connected);
    let session = live.and_then(|peer| {
        peer.session.map(|session| SessionStatus {
            suite: SUITE_NAME.to_owned(),
            handshake_age_s: session.age.as_secs(),
            key_age_s: session.key_age.as_secs(),
            exporter_mixed: session.mixed,
            rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            rx_bytes: peer.rx.1,
            tx_bytes: peer.tx.1,
            rx_packets: peer.rx.0,
            tx_packets: peer.tx.0,
            last_received_s: peer.since_received.map(|since| since.as_secs()),
        })
    });
    let on_udp = live.is_some_and(|peer| matches!(peer.path, Path::Udp(_)));
    let state = match live.map(|peer| peer.phase) {
        Some(PeerPhase::Established) if on_udp => PeerState::Established,
        _ if online == Some(false) => PeerState::Offline,
        Some(PeerPhase::Established) => PeerState::Established,
        Some(PeerPhase::Handshaking) => PeerState::Handshaking,
        Some(PeerPhase::Idle) | None => PeerState::Idle,
    };
    let established = state == PeerState::Established;
    let direct = established && on_udp;
    let on_relay = established && !direct && connected;
    PeerStatus {
        name: leaf.name.to_string(),
        node_id: leaf.node_id.to_string(),
        addresses: addresses(leaf),
        groups: leaf.groups.iter().map(ToString::to_string).collect(),
        online,
        path: match (direct, on_relay) {
            (true, _) => PathKind::Direct,
            (false, true) => PathKind::Relay,
            (false, false) => PathKind::None,
        },
        endpoint: match live.map(|peer| peer.path) {
            Some(Path::Udp(address)) if direct => Some(address),
            Some(Path::Udp(_) | Path::Relay(_)) | None => None,
        },
        software: None,
        relay: relay.filter(|_| on_relay).map(|relay| relay.url.clone()),
        session,
        state,
        last_error: live.and_then(|peer| peer.last_error.clone()),
    }
}

fn counters(engine: Option<&EngineSnapshot>) -> Counters {
    let Some(engine) = engine else { return Counters::default() };
    let mut counters = Counters::default();
    for peer in &engine.node.peers {
        counters.rx_packets += peer.rx.0;
        counters.rx_bytes += peer.rx.1;
        counters.tx_packets += peer.tx.0;
        counters.tx_bytes += peer.tx.1;
    }
    let own = [
        ("relay_down", engine.drops.relay_down),
        ("relay_queue_full", engine.drops.relay_queue_full),
        ("device", engine.drops.device),
        ("inbox_full", engine.drops.inbox_full),
        ("udp", engine.drops.udp),
        ("unknown_datagram", engine.drops.unknown_datagram),
        ("handshakes_full", engine.drops.handshakes_full),
    ];
    let node = engine.node.drops.iter().map(|(reason, count)| (reason.as_str(), *count));
    counters.drops = own
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .chain(node)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect();
    counters
}
