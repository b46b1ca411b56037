//! One of each, with every optional field present.

use mesh_control::{
    AddressKind, ApiError, BirthdayStatus, Counters, CryptoStatus, DirectStatus, DownAnswer, ErrorCode,
    Event, EventKind, FamilyCheck, Id, InviteAnswer, InviteRequest, IpFamily, Mode, NatFiltering, NatMapping,
    Netcheck, NetworkStatus, NodeState, NodeStatus, NoticeLevel, OwnAddress, PathChange, PathKind,
    PathReason, PeerState, PeerStatus, PeerWss, PingAnswer, PingRequest, PortMappingCheck, Readiness,
    RelayRequest, RelaySource, RelayState, RelayStatus, Relays, RemoteAddress, Role, SessionStatus, Slowdown,
    Status, ThreadCounters, Timestamp, UpAnswer, UpRequest, WssStatus,
};

pub(super) fn id() -> Id {
    Id {
        node_id: "aaaaaaaaaaaaaaaaaaaa".into(),
        name: Some("laptop".into()),
        network: Some("home".into()),
        net_id: Some("cccccccccccccccccccc".into()),
        public_key_fingerprint: "aaaa-aaaa".into(),
    }
}

pub(super) fn netcheck() -> Netcheck {
    Netcheck {
        relay: Some("relay.example:443".into()),
        relays: vec![relay()],
        families: vec![FamilyCheck {
            family: IpFamily::Ipv4,
            addresses: vec!["10.0.0.2".parse().unwrap()],
            relay_tcp_ms: Some(12.5),
            relay_udp_ms: Some(12.5),
            mapped: Some("192.0.2.1:4000".parse().unwrap()),
            mapping: NatMapping::Independent,
            filtering: NatFiltering::PortIndependent,
            hairpin: Some(false),
        }],
        port_mappings: vec![PortMappingCheck {
            protocol: "PCP".into(),
            gateway: "10.0.0.1".parse().unwrap(),
            external: "192.0.2.1:4000".parse().unwrap(),
            double_nat: false,
        }],
        forecast: vec!["IPv4: direct paths come about.".into()],
        advice: Some("do this".into()),
        cannot_tell: vec!["whether it rains".into()],
    }
}

pub(super) fn status() -> Status {
    Status {
        state: NodeState::Up,
        version: "0.1.0".into(),
        network: Some(network()),
        node: Some(node()),
        relay: Some(relay()),
        relays: vec![relay()],
        ready: ready(),
        peers: vec![peer()],
        counters: Counters {
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            drops: [("no_route".to_owned(), 5)].into(),
            threads: vec![ThreadCounters { cpu: Some(1), packets: 6, frames: 7, passed: 8, locks: 9 }],
        },
        crypto: CryptoStatus { provider: "aws-lc".into(), aead: "aws-lc".into() },
        slowed_by: vec![Slowdown { reason: "udp_room".into(), detail: "the kernel".into() }],
        wss: Some(wss()),
    }
}

fn wss() -> WssStatus {
    WssStatus {
        listen: "[::]:8443".into(),
        open: false,
        error: Some("the port is taken".into()),
        pin: Some("dddddddddddddddddddd".into()),
        addresses: vec![OwnAddress { address: "192.0.2.9:8443".parse().unwrap(), kind: AddressKind::Mapped }],
        admitted: 3,
        refused: 2,
        dropped: 1,
    }
}

pub(super) fn network() -> NetworkStatus {
    NetworkStatus {
        name: "home".into(),
        net_id: "cccccccccccccccccccc".into(),
        role: Role::Coordinator,
        roster_version: 7,
        members: 2,
    }
}

pub(super) fn node() -> NodeStatus {
    NodeStatus {
        name: "laptop".into(),
        node_id: "aaaaaaaaaaaaaaaaaaaa".into(),
        addresses: vec!["100.64.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        interface: "mesh0".into(),
        mode: Mode::Tun,
        mtu: 1420,
    }
}

pub(super) fn relay() -> RelayStatus {
    RelayStatus {
        url: "wss://relay.example".into(),
        state: RelayState::Connected,
        error: Some("refused".into()),
        since: Some(at()),
        connect_ms: Some(12),
        observed_address: Some("[2001:db8::1]:5000".parse().unwrap()),
        retry_in_ms: Some(100),
        udp: true,
        home: true,
        warm: true,
        suspect: true,
        rtt_ms: Some(12.5),
        source: RelaySource::Roster,
    }
}

pub(super) fn ready() -> Readiness {
    Readiness { data_passed: true, only_member: false, reason: String::new() }
}

pub(super) fn peer() -> PeerStatus {
    PeerStatus {
        name: "pi".into(),
        node_id: "bbbbbbbbbbbbbbbbbbbb".into(),
        addresses: vec!["100.64.1.2".parse().unwrap()],
        groups: vec!["servers".into()],
        online: Some(true),
        path: PathKind::Relay,
        relay: Some("relay.example".into()),
        home_relays: vec!["wss://relay.example".into()],
        endpoint: Some("192.0.2.7:4747".parse().unwrap()),
        path_changes: 2,
        last_path_change: Some(path_change()),
        last_path_change_s: Some(9),
        path_mtu: Some(1384),
        direct: Some(direct()),
        wss: Some(PeerWss {
            addresses: vec!["192.0.2.7:8443".parse().unwrap()],
            error: Some("connection refused".into()),
        }),
        software: Some("shadowmesh 0.1.0 (linux)".into()),
        state: PeerState::Established,
        session: Some(SessionStatus {
            suite: "ML-KEM-1024+X25519".into(),
            handshake_age_s: 60,
            key_age_s: 5,
            exporter_mixed: true,
            rtt_ms: Some(12.5),
            rx_bytes: 1,
            tx_bytes: 2,
            rx_packets: 3,
            tx_packets: 4,
            last_received_s: Some(1),
        }),
        last_error: Some("timed out".into()),
    }
}

pub(super) fn path_change() -> PathChange {
    let endpoint = |text: &str| Some(text.parse().unwrap());
    PathChange {
        from: PathKind::Direct,
        from_endpoint: endpoint("192.0.2.7:4747"),
        to: PathKind::Direct,
        to_endpoint: endpoint("192.0.2.8:4747"),
        reason: PathReason::Better,
    }
}

pub(super) fn direct() -> DirectStatus {
    DirectStatus {
        enabled: true,
        searching: false,
        next_search_s: Some(12),
        sockets: vec!["0.0.0.0:4747".parse().unwrap()],
        own_mapping: NatMapping::Independent,
        peer_mapping: NatMapping::Dependent,
        own: vec![OwnAddress { address: "192.168.1.5:4747".parse().unwrap(), kind: AddressKind::Host }],
        remotes: vec![RemoteAddress {
            address: "192.0.2.7:4747".parse().unwrap(),
            kind: AddressKind::Reflexive,
            sent: 9,
            last_sent_s: Some(3),
            last_answer_s: Some(4),
            last_full_answer_s: Some(5),
            ice: true,
            mtu: Some(1384),
            single: false,
            rtt_ms: Some(7.5),
        }],
        guesses: 32,
        birthday: Some(BirthdayStatus {
            enabled: true,
            active: false,
            attempts: 2,
            found: 1,
            next_s: Some(60),
            chance: 0.98,
        }),
    }
}

pub(super) fn up_requests() -> Vec<UpRequest> {
    vec![
        UpRequest::New {
            network_name: "home".into(),
            relay: "wss://relay.example#PIN".into(),
            node_name: Some("laptop".into()),
            ipv4_pool: Some("100.80.0.0/16".parse().unwrap()),
        },
        UpRequest::Join { ticket: "mesh1secret".to_owned().into(), node_name: Some("pi".into()) },
        UpRequest::Resume {},
    ]
}

pub(super) fn up() -> UpAnswer {
    UpAnswer { state: NodeState::Connecting, changed: true, network: network(), node: node(), ready: ready() }
}

pub(super) fn down() -> DownAnswer {
    DownAnswer { state: NodeState::Down, changed: true }
}

pub(super) fn ping_request() -> PingRequest {
    PingRequest {
        peer: "pi".into(),
        timeout_ms: 1000,
        via: Some(mesh_control::PingVia::Relay),
        size: Some(1200),
    }
}

pub(super) fn ping() -> PingAnswer {
    PingAnswer {
        peer: "pi".into(),
        address: Some("100.64.1.2".parse().unwrap()),
        path: PathKind::Relay,
        relay: Some("relay.example".into()),
        size: Some(1200),
        rtt_ms: 12.25,
    }
}

pub(super) fn invite_request() -> InviteRequest {
    InviteRequest { name: Some("pi".into()), groups: vec!["servers".into()], uses: 2, ttl_s: 60 }
}

pub(super) fn invite() -> InviteAnswer {
    InviteAnswer { ticket: "mesh1secret".to_owned().into(), expires: at(), uses: 2 }
}

pub(super) fn error() -> ApiError {
    ApiError::new(ErrorCode::Down, "the node is down").with_hint("meshctl up")
}

pub(super) fn events() -> Vec<Event> {
    [
        EventKind::State { state: NodeState::Up, ready: ready() },
        EventKind::Relay { relay: relay() },
        EventKind::Peer { peer: Box::new(peer()) },
        EventKind::Path { peer: "pi".into(), change: path_change() },
        EventKind::Roster { version: 8, members: 3 },
        EventKind::Notice {
            level: NoticeLevel::Warning,
            code: Some(ErrorCode::Storage),
            message: "full".into(),
        },
        EventKind::Lagged { missed: 9 },
    ]
    .map(|kind| Event { at: at(), kind })
    .into()
}

fn at() -> Timestamp {
    Timestamp::from_unix_ms(1_777_890_030_123)
}

pub(super) fn relay_requests() -> [RelayRequest; 2] {
    let relay = || "wss://relay.example#PIN".to_owned();
    [RelayRequest::Add { relay: relay() }, RelayRequest::Remove { relay: relay() }]
}

pub(super) fn relays() -> Relays {
    Relays { announced: vec!["wss://relay.example#PIN".into()], relays: vec![relay()] }
}
