//! What people see: the engine's and the daemon's state as the API's types.

pub(crate) mod wss;

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_control::{
    AddressKind, BirthdayStatus, Counters, CryptoStatus, DirectStatus, Mode, NatMapping, NetworkStatus,
    NodeState, NodeStatus, OwnAddress, PathChange, PathKind, PathReason, PeerState, PeerStatus, Readiness,
    RelayState, RelayStatus, RemoteAddress, Role, SessionStatus, Slowdown, Status, ThreadCounters,
};
use mesh_ice::IceCounts;
use mesh_identity::Roster;
use mesh_net::{LanCounts, Room};
use mesh_node::{ChangeReason, Path, PeerPhase, PeerSnapshot, RemoteSnapshot};
use mesh_wire::NodeId;
use mesh_wire::control::{CandidateKind, DoorTold, Mapping};
use mesh_wire::handshake::suite_name;
use mesh_wire::roster::{Leaf, Link, Roles};
use tokio::sync::watch;

use self::wss::BesideChanges;
use crate::config::Config;
use crate::door::DoorState;
use crate::engine::{EngineSnapshot, Slow, ThreadSnapshot};
use crate::interface;
use crate::relays::pool::RelayPool;
use crate::state::Membership;

/// What the daemon itself knows beside the engine.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Where the daemon stands.
    pub state: NodeState,
    /// The membership in force.
    pub membership: Option<Membership>,
    /// The connection to the relay that is home.
    pub relay: Option<RelayStatus>,
    /// All relays.
    pub relays: Vec<RelayStatus>,
    /// Who is at which relay.
    pub pool: Option<RelayPool>,
    /// The own door.
    pub door: Option<watch::Receiver<DoorState>>,
    /// Where peers say that their doors are, and why the last attempt there failed.
    pub doors: BTreeMap<NodeId, (DoorTold, Option<String>)>,
    /// Changes of paths to and from direct WSS.
    pub beside: BTreeMap<NodeId, BesideChanges>,
    /// Whether data passes, or what is waited for.
    pub ready: Readiness,
    /// What came over local networks.
    pub lan: Option<watch::Receiver<LanCounts>>,
    /// What came of ICE.
    pub ice: Option<watch::Receiver<IceCounts>>,
}

/// Puts everything together.
#[must_use]
pub fn status(config: &Config, own: NodeId, view: &View, engine: Option<&EngineSnapshot>) -> Status {
    let peers = view.membership.as_ref().map(|membership| peers(own, &membership.roster, view, engine));
    let peers = peers.unwrap_or_default();
    Status {
        state: view.state,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: view.membership.as_ref().map(|membership| network(own, membership)),
        node: view.membership.as_ref().and_then(|membership| node(config, own, membership)),
        relay: view.relay.clone(),
        relays: view.relays.clone(),
        ready: view.ready.clone(),
        counters: counters(
            engine,
            view.lan.as_ref().map(|lan| *lan.borrow()),
            view.ice.as_ref().map(|ice| *ice.borrow()),
        ),
        peers,
        crypto: CryptoStatus { provider: config.provider.to_string(), aead: config.aead.to_string() },
        slowed_by: engine.map(|engine| slowdowns(&engine.slow)).unwrap_or_default(),
        wss: wss::own(config, view),
    }
}

/// Returns what keeps the node from its full speed.
fn slowdowns(slow: &Slow) -> Vec<Slowdown> {
    let mut found = Vec::new();
    let mut add = |reason: &str, detail: String| found.push(Slowdown { reason: reason.to_owned(), detail });
    let rooms = slow.rooms.into_iter();
    let rooms = rooms.flat_map(|rooms| [(rooms.receive, "receive", "rmem"), (rooms.send, "send", "wmem")]);
    for (room, what, key) in rooms.filter(|(room, ..)| room.missing() > 0) {
        let Room { wanted, given } = room;
        add(
            "udp_room",
            format!(
                "the UDP sockets have {} KiB of room to {what} instead of {} KiB; raise net.core.{key}_max to {wanted}",
                given / 1024,
                wanted / 1024
            ),
        );
    }
    for (single, protocol) in slow.single_packets.into_iter().zip(["TCP", "UDP"]) {
        if single {
            add(
                "single_packets",
                format!(
                    "the interface refused joined packets of {protocol}; it gets them one by one until meshd is restarted"
                ),
            );
        }
    }
    if slow.relay_singly {
        add(
            "relay_singly",
            "datagrams to the relay leave one by one: those that the kernel or the network card was to cut did not arrive"
                .to_owned(),
        );
    }
    found
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
pub fn peers(own: NodeId, roster: &Roster, view: &View, engine: Option<&EngineSnapshot>) -> Vec<PeerStatus> {
    let live: BTreeMap<NodeId, &PeerSnapshot> =
        engine.into_iter().flat_map(|engine| &engine.node.peers).map(|peer| (peer.id, peer)).collect();
    let mut peers: Vec<PeerStatus> = roster
        .leaves()
        .iter()
        .filter(|leaf| leaf.node_id != own)
        .map(|leaf| peer(leaf, view, engine, live.get(&leaf.node_id).copied()))
        .collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    peers
}

/// Returns the addresses of a member, IPv4 first.
#[must_use]
pub fn addresses(leaf: &Leaf) -> Vec<IpAddr> {
    vec![leaf.ipv4.into(), leaf.ipv6.into()]
}

fn peer(
    leaf: &Leaf,
    view: &View,
    engine: Option<&EngineSnapshot>,
    live: Option<&PeerSnapshot>,
) -> PeerStatus {
    let online = live.and_then(|peer| peer.online);
    let connected = view.relays.iter().any(|relay| relay.state == RelayState::Connected);
    let pool = view.pool.as_ref();
    let online = online.filter(|_| connected);
    let session = live.and_then(|peer| {
        peer.session.map(|session| SessionStatus {
            suite: suite_name(session.suite).to_owned(),
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
    let beside = pool.filter(|_| !on_udp).and_then(|pool| pool.beside(&leaf.node_id));
    let state = match live.map(|peer| peer.phase) {
        Some(PeerPhase::Established) if on_udp || beside.is_some() => PeerState::Established,
        _ if online == Some(false) => PeerState::Offline,
        Some(PeerPhase::Established) => PeerState::Established,
        Some(PeerPhase::Handshaking) => PeerState::Handshaking,
        Some(PeerPhase::Idle) | None => PeerState::Idle,
    };
    let established = state == PeerState::Established;
    let direct = established && on_udp;
    let beside = beside.filter(|_| established);
    let on_relay = established && !direct && beside.is_none() && connected;
    let changes = view.beside.get(&leaf.node_id).cloned().unwrap_or_default();
    let last_change = match changes.last {
        Some((change, at)) => Some((change, at.elapsed())),
        None => live
            .and_then(|peer| peer.last_change)
            .map(|change| (path_change((change.from, change.to), change.reason), change.since)),
    };
    PeerStatus {
        name: leaf.name.to_string(),
        node_id: leaf.node_id.to_string(),
        addresses: addresses(leaf),
        groups: leaf.groups.iter().map(ToString::to_string).collect(),
        online,
        path: match (direct, beside.is_some(), on_relay) {
            (true, _, _) => PathKind::Direct,
            (false, true, _) => PathKind::DirectWss,
            (false, false, true) => PathKind::Relay,
            (false, false, false) => PathKind::None,
        },
        endpoint: match live.map(|peer| peer.path) {
            Some(Path::Udp(address)) if direct => Some(address),
            Some(Path::Udp(_) | Path::Relay(_)) | None => beside.map(|beside| beside.address),
        },
        path_changes: live.map_or(0, |peer| peer.path_changes) + changes.count,
        last_path_change_s: last_change.as_ref().map(|(_, since)| since.as_secs()),
        last_path_change: last_change.map(|(change, _)| change),
        path_mtu: live.filter(|_| direct).and_then(|peer| peer.path_mtu),
        // Only where there is something to say, so that an answer about a thousand idle peers stays small.
        direct: engine
            .zip(live)
            .filter(|(_, peer)| peer.session.is_some())
            .map(|(engine, peer)| direct_status(engine, peer)),
        wss: wss::peer(view, &leaf.node_id),
        software: None,
        relay: pool.filter(|_| on_relay).and_then(|pool| pool.carries(&leaf.node_id)),
        home_relays: pool.map(|pool| pool.homes(&leaf.node_id)).unwrap_or_default(),
        session,
        state,
        last_error: live.and_then(|peer| peer.last_error.clone()),
    }
}

/// Returns what people see of a change of path.
#[must_use]
pub fn path_change((from, to): (Path, Path), reason: ChangeReason) -> PathChange {
    let kind = |path| match path {
        Path::Relay(_) => PathKind::Relay,
        Path::Udp(_) => PathKind::Direct,
    };
    let endpoint = |path| match path {
        Path::Relay(_) => None,
        Path::Udp(address) => Some(address),
    };
    PathChange {
        from: kind(from),
        from_endpoint: endpoint(from),
        to: kind(to),
        to_endpoint: endpoint(to),
        reason: match reason {
            ChangeReason::Found => PathReason::Found,
            ChangeReason::Better => PathReason::Better,
            ChangeReason::Silent => PathReason::Silent,
            ChangeReason::ShortOnly => PathReason::ShortOnly,
            ChangeReason::RelayLost => PathReason::RelayLost,
            ChangeReason::Handshake => PathReason::Handshake,
            ChangeReason::Ended => PathReason::Ended,
        },
    }
}

fn direct_status(engine: &EngineSnapshot, peer: &PeerSnapshot) -> DirectStatus {
    let own = &engine.node.candidates;
    DirectStatus {
        enabled: engine.node.direct,
        searching: peer.searching,
        next_search_s: peer.next_search.map(|wait| wait.as_secs()),
        sockets: engine.sockets.clone(),
        own_mapping: nat_mapping(own.mapping),
        peer_mapping: nat_mapping(peer.mapping),
        own: own
            .list
            .iter()
            .map(|known| OwnAddress { address: known.address, kind: address_kind(known.kind) })
            .collect(),
        remotes: peer.remotes.iter().map(remote_address).collect(),
        guesses: peer.guesses,
        birthday: peer.birthday.chance.map(|chance| BirthdayStatus {
            enabled: engine.node.birthday,
            active: peer.birthday.active,
            attempts: peer.birthday.attempts,
            found: peer.birthday.found,
            next_s: peer.birthday.next.map(|wait| wait.as_secs()),
            chance,
        }),
    }
}

fn remote_address(remote: &RemoteSnapshot) -> RemoteAddress {
    RemoteAddress {
        address: remote.address,
        kind: match remote.kind {
            _ if remote.near => AddressKind::Lan,
            kind => kind.map_or(AddressKind::Seen, address_kind),
        },
        ice: remote.ice,
        sent: remote.sent,
        last_sent_s: remote.since_sent.map(|since| since.as_secs()),
        last_answer_s: remote.since_answered.map(|since| since.as_secs()),
        last_full_answer_s: remote.since_proved.map(|since| since.as_secs()),
        mtu: remote.mtu,
        single: remote.single,
        rtt_ms: remote.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
    }
}

fn nat_mapping(mapping: Mapping) -> NatMapping {
    match mapping {
        Mapping::Unknown => NatMapping::Unknown,
        Mapping::None => NatMapping::None,
        Mapping::Independent => NatMapping::Independent,
        Mapping::Sequential(_) => NatMapping::Sequential,
        Mapping::Dependent => NatMapping::Dependent,
    }
}

fn address_kind(kind: CandidateKind) -> AddressKind {
    match kind {
        CandidateKind::Host => AddressKind::Host,
        CandidateKind::Mapped => AddressKind::Mapped,
        CandidateKind::Reflexive => AddressKind::Reflexive,
        CandidateKind::Configured => AddressKind::Configured,
    }
}

fn counters(engine: Option<&EngineSnapshot>, lan: Option<LanCounts>, ice: Option<IceCounts>) -> Counters {
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
        ("waiting_full", engine.drops.waiting_full),
        ("congested", engine.drops.congested),
        ("inbox_full", engine.drops.inbox_full),
        ("udp", engine.drops.udp),
        ("udp_room", engine.drops.udp_room),
        ("relay_udp", engine.drops.relay_udp),
        ("unknown_datagram", engine.drops.unknown_datagram),
        ("handshakes_full", engine.drops.handshakes_full),
    ];
    let lan = lan.unwrap_or_default();
    let near = [
        ("lan_unsealed", lan.unsealed),
        ("lan_malformed", lan.malformed),
        ("lan_stale", lan.stale),
        ("lan_far", lan.far),
        ("lan_rate", lan.rate),
        ("lan_unsent", lan.unsent),
    ];
    let ice = ice.unwrap_or_default();
    let checks = [
        ("ice_malformed", ice.malformed),
        ("ice_stranger", ice.strangers),
        ("ice_unauthenticated", ice.unauthenticated),
        ("ice_unasked", ice.unasked),
        ("ice_crowded", ice.crowded),
        ("ice_hasty", ice.hasty),
        ("ice_full", ice.agents_full),
    ];
    let node = engine.node.drops.iter().map(|(reason, count)| (reason.as_str(), *count));
    counters.drops = own
        .into_iter()
        .chain(near)
        .chain(checks)
        .filter(|(_, count)| *count > 0)
        .chain(node)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect();
    counters.threads = engine.threads.iter().map(thread).collect();
    counters
}

fn thread(thread: &ThreadSnapshot) -> ThreadCounters {
    ThreadCounters {
        cpu: thread.cpu.and_then(|cpu| u32::try_from(cpu).ok()),
        packets: thread.packets,
        frames: thread.frames,
        passed: thread.passed,
        locks: thread.locks,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_net::Rooms;
    use mesh_node::{BirthdaySnapshot, SessionSnapshot, Snapshot};
    use mesh_wire::control::{Candidate, Candidates};

    use super::*;
    use crate::engine::EngineDrops;

    #[test]
    fn direct_status_tells_what_the_search_found_out() {
        let (host, seen) = ("192.168.1.5:4747".parse().unwrap(), "203.0.113.7:9".parse().unwrap());
        let mut peer = peer_snapshot();
        peer.remotes = vec![
            RemoteSnapshot {
                address: host,
                kind: Some(CandidateKind::Host),
                near: true,
                sent: 9,
                since_sent: Some(Duration::from_millis(1900)),
                since_answered: Some(Duration::from_secs(2)),
                since_proved: None,
                ice: false,
                mtu: Some(1400),
                single: false,
                rtt: Some(Duration::from_micros(1500)),
            },
            RemoteSnapshot {
                address: seen,
                kind: None,
                near: false,
                sent: 0,
                since_sent: None,
                since_answered: None,
                since_proved: None,
                ice: false,
                mtu: None,
                single: false,
                rtt: None,
            },
        ];
        let own = Candidate { kind: CandidateKind::Reflexive, address: seen };
        let engine = EngineSnapshot {
            node: Snapshot {
                peers: Vec::new(),
                drops: Vec::new(),
                roster_version: 1,
                direct: true,
                birthday: true,
                candidates: Candidates { mapping: Mapping::Dependent, list: vec![own] },
            },
            drops: EngineDrops::default(),
            sockets: vec![host],
            slow: Slow::default(),
            threads: Vec::new(),
        };
        let status = direct_status(&engine, &peer);
        assert!(status.enabled && status.searching);
        assert_eq!((status.next_search_s, status.sockets), (Some(7), vec![host]));
        assert_eq!((status.own_mapping, status.peer_mapping), (NatMapping::Dependent, NatMapping::None));
        let birthday = status.birthday.expect("there is a chance");
        assert_eq!((status.guesses, birthday.attempts, birthday.found), (1024, 3, 1));
        assert_eq!((birthday.enabled, birthday.next_s, birthday.chance), (true, Some(60), 0.5));
        assert_eq!(status.own, [OwnAddress { address: seen, kind: AddressKind::Reflexive }]);
        let first = &status.remotes[0];
        assert_eq!((first.address, first.kind, first.sent), (host, AddressKind::Lan, 9));
        assert_eq!(
            (first.last_sent_s, first.last_answer_s, first.last_full_answer_s, first.rtt_ms),
            (Some(1), Some(2), None, Some(1.5))
        );
        assert_eq!((status.remotes[1].kind, status.remotes[1].last_sent_s), (AddressKind::Seen, None));
    }

    #[test]
    fn what_slows_the_node_down_is_named_with_the_remedy() {
        assert_eq!(slowdowns(&Slow::default()), []);
        let slow = Slow {
            rooms: Some(Rooms {
                receive: Room { wanted: 4 << 20, given: 208 << 10 },
                send: Room { wanted: 2 << 20, given: 1 << 20 },
            }),
            single_packets: [true, false],
            relay_singly: true,
        };
        let found = slowdowns(&slow);
        let reasons: Vec<_> = found.iter().map(|slowdown| slowdown.reason.as_str()).collect();
        assert_eq!(reasons, ["udp_room", "udp_room", "single_packets", "relay_singly"]);
        assert!(
            found[0].detail.contains("208 KiB") && found[0].detail.ends_with("rmem_max to 4194304"),
            "{found:?}"
        );
        assert!(
            found[1].detail.contains("1024 KiB") && found[1].detail.ends_with("wmem_max to 2097152"),
            "{found:?}"
        );
        assert!(found[2].detail.contains("TCP"), "{found:?}");
        let enough = |bytes| Room { wanted: bytes, given: bytes };
        let rooms = Some(Rooms { receive: enough(9), send: enough(9) });
        assert_eq!(slowdowns(&Slow { rooms, ..Slow::default() }), []);
    }

    fn peer_snapshot() -> PeerSnapshot {
        PeerSnapshot {
            id: NodeId([1; 32]),
            name: "pi".into(),
            online: Some(true),
            path: Path::Relay(NodeId([1; 32])),
            path_changes: 2,
            last_change: None,
            path_mtu: None,
            remotes: Vec::new(),
            mapping: Mapping::None,
            searching: true,
            next_search: Some(Duration::from_millis(7500)),
            guesses: 1024,
            birthday: BirthdaySnapshot {
                active: false,
                attempts: 3,
                found: 1,
                next: Some(Duration::from_millis(60_500)),
                chance: Some(0.5),
            },
            phase: PeerPhase::Established,
            session: Some(SessionSnapshot {
                id: [0; 16],
                age: Duration::ZERO,
                key_age: Duration::ZERO,
                mixed: true,
                suite: mesh_wire::handshake::SUITE,
            }),
            rtt: None,
            since_received: None,
            rx: (0, 0),
            tx: (0, 0),
            last_error: None,
        }
    }
}
