//! The texts, word for word.

use mesh_control::{
    AddressKind, Counters, CryptoStatus, DirectStatus, Mode, NatMapping, NetworkStatus, NodeStatus,
    OwnAddress, PathChange, PathReason, PingAnswer, Readiness, RelaySource, RelayStatus, Relays,
    RemoteAddress, Role, SessionStatus, Slowdown,
};

use super::*;
use crate::why::judge;

#[test]
fn status_shows_the_node_and_then_its_peers() {
    assert_eq!(
        status(&sample(), at(7_384), PLAIN),
        "\
state        up, data passes
network      home (coordinator), 3 members, roster 7
node         laptop
addresses    100.64.1.1, fd00::1
interface    mesh0 (tun, mtu 1420)
relay        wss://relay.example connected for 2 h 3 min, connected within 41 ms, sees us as 203.0.113.5:4000, frames over UDP
received     1.2 MiB in 1500 packets
sent         10 KiB in 1 packet
dropped      3 no_route, 12 source
slowed       too little room
crypto       aws-lc, frames by aws-lc

NAME  ADDRESS     STATE        PATH                       RTT       RX   TX  HANDSHAKE  KEYS  PATH CHANGES
nas   100.64.1.3  offline      none                         -        -    -          -     -             -
pi    100.64.1.2  established  relay (relay.example)  12.3 ms  1.0 MiB  5 B  1 min 1 s   7 s             2
with pi: ML-KEM-1024+X25519
nas: no answer
"
    );
}

#[test]
fn narrow_status_keeps_what_matters() {
    let narrow = Style { colour: false, width: Some(60) };
    let text = peers(&sample().peers, narrow);
    assert_eq!(text.lines().next(), Some("NAME  ADDRESS     STATE        PATH                   KEYS"));
}

#[test]
fn state_says_what_to_do_or_what_it_waits_for() {
    let mut sample = sample();
    sample.ready = Readiness { data_passed: false, only_member: false, reason: "the relay to answer".into() };
    for (state, line) in [
        (NodeState::Unenrolled, "in no network; \"meshctl up --help\" shows how to create or join one"),
        (NodeState::Down, "down; \"meshctl up\" brings it up"),
        (NodeState::Starting, "starting, waiting for the relay to answer"),
        (NodeState::Connecting, "connecting, waiting for the relay to answer"),
        (NodeState::Up, "up, waiting for the relay to answer"),
    ] {
        sample.state = state;
        let text = status(&sample, at(0), PLAIN);
        assert_eq!(text.lines().next(), Some(format!("state        {line}").as_str()));
    }
}

#[test]
fn relay_that_does_not_answer_says_why_and_when_it_is_tried_again() {
    let mut sample = sample();
    sample.relay = Some(RelayStatus {
        url: "wss://relay.example:8443#PIN".into(),
        state: RelayState::Disconnected,
        error: Some("connection refused".into()),
        since: Some(at(0)),
        retry_in_ms: Some(3_200),
        ..RelayStatus::default()
    });
    let text = status(&sample, at(5), PLAIN);
    let line =
        "relay        wss://relay.example:8443 disconnected for 5 s: connection refused, next try in 4 s\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn colours_mark_states_only() {
    let style = Style { colour: true, width: None };
    let text = status(&sample(), at(0), style);
    assert!(text.starts_with("state        \x1b[32mup, data passes\x1b[0m\n"), "{text}");
    assert!(text.contains("\x1b[2moffline\x1b[0m "), "{text}");
}

#[test]
fn names_from_peers_cannot_steer_the_terminal() {
    let mut sample = sample();
    sample.peers[0].name = "n\x1b[2Jas\n".into();
    sample.peers[0].last_error = Some("bad\x1b]0;title\x07\nthings".into());
    let text = status(&sample, at(0), PLAIN) + &peer(&sample.peers[0], PLAIN) + &up(&sample, PLAIN);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.contains("n[2Jas : bad]0;title things\n"), "{text}");
}

#[test]
fn up_says_where_it_is_and_whom_it_reaches() {
    assert_eq!(
        up(&sample(), PLAIN),
        "\
laptop is up in home
  addresses  100.64.1.1, fd00::1
  interface  mesh0 (tun, mtu 1420)
  relay      wss://relay.example connected
  reaches    pi via relay (relay.example), 12.3 ms
"
    );
    let mut alone = sample();
    alone.peers.clear();
    alone.ready = Readiness { data_passed: false, only_member: true, reason: String::new() };
    let last = "  reaches    nobody yet: this is the only member; \"meshctl invite\" makes a ticket";
    assert_eq!(up(&alone, PLAIN).lines().last(), Some(last));
}

#[test]
fn peer_shows_everything() {
    assert_eq!(
        peer(&sample().peers[1], PLAIN),
        "\
name         pi
node id      bbbb
addresses    100.64.1.2
groups       servers, home
state        established
path         relay (relay.example), path changed 2 times
rtt          12.3 ms
received     1.0 MiB in 3 packets
sent         5 B in 1 packet
last heard   0 s ago
handshake    1 min 1 s ago, keys 7 s old
suite        ML-KEM-1024+X25519
tls keys     mixed into the keys
software     shadowmesh 0.1.0 (linux)
"
    );
}

#[test]
fn why_shows_what_is_known_of_each_address() {
    let mut sample = sample();
    let peer = &mut sample.peers[1];
    (peer.path, peer.direct, peer.path_mtu) = (PathKind::Direct, Some(direct()), Some(1384));
    let text = |style| why(&sample.peers[1], &judge(&sample, &sample.peers[1]), style);
    assert_eq!(
        text(PLAIN),
        "\
pi: direct (192.0.2.7:4747), 12.3 ms, path changed 2 times
because      frames go straight to pi, without the relay
changed      1 min 15 s ago, from relay to direct (192.0.2.7:4747): a direct path was proved
mtu          packets up to 1384 bytes pass in one piece
search       found this path
nat here     the same public port for every destination
nat there    not found out
this node    10.0.0.5:4747 (host), 203.0.113.5:61000 (reflexive)

ITS ADDRESS             KIND    PROBES     LAST  ANSWERED  LONG ONES   MTU      RTT
192.0.2.7:4747          mapped       7  3 s ago   3 s ago    3 s ago  1384  12.3 ms
[2001:db8::7:1]:4747    host         6  9 s ago   9 s ago      never     -   9.0 ms
[2001:db8::dead]:40000  seen         0    never     never      never     -        -
"
    );
    let narrow = text(Style { colour: false, width: Some(60) });
    let header = narrow.lines().find(|line| line.starts_with("ITS ADDRESS"));
    assert_eq!(header, Some("ITS ADDRESS             ANSWERED  LONG ONES   MTU      RTT"));
    assert!(
        text(Style { colour: true, width: None }).starts_with("pi: \x1b[32mdirect (192.0.2.7:4747)\x1b[0m, ")
    );
}

#[test]
fn why_without_a_path_says_so_first_and_has_no_table() {
    let mut sample = sample();
    (sample.peers[0].name, sample.peers[0].last_error) = ("n\x1b[2Jas".into(), None);
    let text = why(&sample.peers[0], &judge(&sample, &sample.peers[0]), PLAIN);
    assert_eq!(
        text,
        "\
n[2Jas: no path, path never changed
because      n[2Jas is not connected to the relay: it is switched off, down or without internet
to do        start n[2Jas, or run \"meshctl status\" there
"
    );
}

#[test]
fn search_says_when_it_goes_on() {
    let mut sample = sample();
    for (enabled, searching, next, line) in [
        (true, true, None, "goes on"),
        (true, false, None, "begins with the next packet"),
        (true, false, Some(0), "begins with the next packet"),
        (true, false, Some(61), "begins again with traffic in 1 min 1 s"),
        (false, false, None, "switched off"),
    ] {
        sample.peers[1].direct =
            Some(DirectStatus { enabled, searching, next_search_s: next, ..DirectStatus::default() });
        let text = why(&sample.peers[1], &judge(&sample, &sample.peers[1]), PLAIN);
        assert!(text.contains(&format!("\nsearch       {line}\n")), "{text}");
        assert!(text.ends_with("this node    (no address known)\n"), "{text}");
    }
}

#[test]
fn ping_lines_and_summary() {
    let answer = |rtt_ms| PingAnswer {
        peer: "pi".into(),
        address: Some("100.64.1.2".parse().unwrap()),
        path: PathKind::Relay,
        relay: Some("relay.example".into()),
        size: Some(1200),
        rtt_ms,
    };
    assert_eq!(
        ping_reply(&answer(12.3), 1),
        "reply from pi (100.64.1.2) via relay: seq=1 size=1200 rtt=12.3 ms"
    );
    let mut summary = PingSummary::new("100.64.1.2");
    assert_eq!(summary.text(), "100.64.1.2: 0 sent, 0 received\n");
    summary.sent = 3;
    assert_eq!(summary.text(), "100.64.1.2: 3 sent, 0 received, 100% loss\n");
    summary.replied(&answer(10.0));
    summary.replied(&answer(20.0));
    assert_eq!(
        summary.text(),
        "pi: 3 sent, 2 received, 33% loss, rtt min/avg/max 10.0 ms / 15.0 ms / 20.0 ms\n"
    );
}

#[test]
fn invite_says_for_whom_and_how_long() {
    let answer = InviteAnswer { ticket: "t".to_owned().into(), expires: at(3600), uses: 1 };
    assert_eq!(
        invite(&answer, Timestamp::from_unix_ms(200)),
        "good for 1 node within 1 h; on the other machine: meshctl up --ticket-file -"
    );
}

#[test]
fn short_answers() {
    let down_as = |state, changed| down(&DownAnswer { state, changed });
    assert_eq!(down_as(NodeState::Down, true), "down\n");
    assert_eq!(down_as(NodeState::Down, false), "already down\n");
    assert_eq!(down_as(NodeState::Unenrolled, false), "this node is in no network\n");
    let daemon = Version { version: "0.2.0".into(), protocol: "mesh/1".into(), api: "v1".into() };
    assert_eq!(versions("0.1.0", Some(&daemon)), "meshctl 0.1.0\nmeshd   0.2.0 (mesh/1)\n");
    assert_eq!(peers(&[], PLAIN), "no other members\n");
    let unenrolled = Id {
        node_id: "aaaa".into(),
        name: None,
        network: None,
        net_id: None,
        public_key_fingerprint: "aa-aa".into(),
    };
    assert_eq!(
        id(&unenrolled),
        "node         (no name yet)\nnode id      aaaa\nkeys         aa-aa\nnetwork      (none)\n"
    );
}

fn sample() -> Status {
    Status {
        state: NodeState::Up,
        version: "0.1.0".into(),
        network: Some(NetworkStatus {
            name: "home".into(),
            net_id: "cccc".into(),
            role: Role::Coordinator,
            roster_version: 7,
            members: 3,
        }),
        node: Some(NodeStatus {
            name: "laptop".into(),
            node_id: "aaaa".into(),
            addresses: vec!["100.64.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            interface: "mesh0".into(),
            mode: Mode::Tun,
            mtu: 1420,
        }),
        relays: Vec::new(),
        relay: Some(RelayStatus {
            url: "wss://relay.example#PIN".into(),
            state: RelayState::Connected,
            since: Some(at(0)),
            connect_ms: Some(41),
            observed_address: Some("203.0.113.5:4000".parse().unwrap()),
            udp: true,
            ..RelayStatus::default()
        }),
        ready: Readiness { data_passed: true, only_member: false, reason: String::new() },
        peers: vec![offline_peer(), established_peer()],
        counters: Counters {
            rx_packets: 1500,
            tx_packets: 1,
            rx_bytes: 1_300_000,
            tx_bytes: 10_240,
            drops: [("no_route".into(), 3), ("source".into(), 12), ("never".into(), 0)].into(),
            threads: Vec::new(),
        },
        crypto: CryptoStatus { provider: "aws-lc".into(), aead: "aws-lc".into() },
        slowed_by: vec![Slowdown { reason: "udp_room".into(), detail: "too little room\u{1b}".into() }],
        wss: None,
    }
}

fn offline_peer() -> PeerStatus {
    PeerStatus {
        name: "nas".into(),
        addresses: vec!["100.64.1.3".parse().unwrap()],
        online: Some(false),
        last_error: Some("no answer".into()),
        ..PeerStatus::default()
    }
}

fn established_peer() -> PeerStatus {
    PeerStatus {
        wss: None,
        name: "pi".into(),
        node_id: "bbbb".into(),
        addresses: vec!["100.64.1.2".parse().unwrap()],
        groups: vec!["servers".into(), "home".into()],
        online: Some(true),
        path: PathKind::Relay,
        relay: Some("relay.example".into()),
        home_relays: Vec::new(),
        endpoint: Some("192.0.2.7:4747".parse().unwrap()),
        path_changes: 2,
        last_path_change: Some(PathChange {
            from: PathKind::Relay,
            to: PathKind::Direct,
            to_endpoint: Some("192.0.2.7:4747".parse().unwrap()),
            reason: PathReason::Found,
            ..PathChange::default()
        }),
        last_path_change_s: Some(75),
        path_mtu: None,
        direct: None,
        software: Some("shadowmesh 0.1.0 (linux)".into()),
        state: PeerState::Established,
        session: Some(SessionStatus {
            suite: "ML-KEM-1024+X25519".into(),
            handshake_age_s: 61,
            key_age_s: 7,
            exporter_mixed: true,
            rtt_ms: Some(12.34),
            rx_bytes: 1_048_576,
            tx_bytes: 5,
            rx_packets: 3,
            tx_packets: 1,
            last_received_s: Some(0),
        }),
        last_error: None,
    }
}

fn direct() -> DirectStatus {
    let remote = |address: &str, kind| RemoteAddress {
        address: address.parse().unwrap(),
        kind,
        sent: 0,
        last_sent_s: None,
        last_answer_s: None,
        last_full_answer_s: None,
        ice: false,
        mtu: None,
        single: false,
        rtt_ms: None,
    };
    DirectStatus {
        enabled: true,
        own_mapping: NatMapping::Independent,
        own: vec![
            OwnAddress { address: "10.0.0.5:4747".parse().unwrap(), kind: AddressKind::Host },
            OwnAddress { address: "203.0.113.5:61000".parse().unwrap(), kind: AddressKind::Reflexive },
        ],
        remotes: vec![
            RemoteAddress {
                sent: 7,
                last_sent_s: Some(3),
                last_answer_s: Some(3),
                last_full_answer_s: Some(3),
                ice: false,
                mtu: Some(1384),
                single: false,
                rtt_ms: Some(12.34),
                ..remote("192.0.2.7:4747", AddressKind::Mapped)
            },
            RemoteAddress {
                sent: 6,
                last_sent_s: Some(9),
                last_answer_s: Some(9),
                ice: false,
                single: false,
                rtt_ms: Some(9.0),
                ..remote("[2001:db8::7:1]:4747", AddressKind::Host)
            },
            remote("[2001:db8::dead]:40000", AddressKind::Seen),
        ],
        ..DirectStatus::default()
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

const PLAIN: Style = Style { colour: false, width: None };

#[test]
fn relays_show_role_round_trip_and_what_is_wrong() {
    let relay = |name: &str| RelayStatus { url: format!("wss://{name}.example"), ..RelayStatus::default() };
    let connected = RelayStatus { state: RelayState::Connected, source: RelaySource::Roster, ..relay("a") };
    let list = Relays {
        announced: vec!["wss://a.example#PIN".into()],
        relays: vec![
            RelayStatus {
                home: true,
                rtt_ms: Some(12.34),
                udp: true,
                since: Some(at(60)),
                ..connected.clone()
            },
            RelayStatus { warm: true, suspect: true, url: "wss://b.example".into(), ..connected },
            RelayStatus { error: Some("refused".into()), retry_in_ms: Some(1500), ..relay("c") },
            RelayStatus { source: RelaySource::Config, ..relay("d") },
        ],
    };
    assert_eq!(
        relays(&list, at(120), PLAIN),
        "\
RELAY            STATE         ROLE      RTT  UDP  SINCE  FROM
wss://a.example  connected     home  12.3 ms  yes  1 min  roster
wss://b.example  silent        warm        -  no       -  roster
wss://c.example  disconnected  -           -  -        -  unknown
wss://d.example  not needed    -           -  -        -  config
wss://c.example: refused, next try in 2 s
"
    );
    let down = Relays { relays: Vec::new(), ..list };
    assert_eq!(
        relays(&down, at(0), PLAIN),
        "this node is down; the network announces:\nwss://a.example#PIN\n"
    );
}
