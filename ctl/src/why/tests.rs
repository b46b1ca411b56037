//! Every reason from what leads to it, in words that a stranger understands.

use mesh_control::{
    BirthdayStatus, Counters, CryptoStatus, Mode, NodeState, NodeStatus, OwnAddress, Readiness, RelayStatus,
    SessionStatus,
};

use super::*;

#[test]
fn every_cause_has_its_reason() {
    let cases: [(Reason, Change); 24] = [
        (Reason::Direct, |status| status.peers[0].path = PathKind::Direct),
        (Reason::DirectWss, |status| status.peers[0].path = PathKind::DirectWss),
        (Reason::RelayDown, |status| {
            status.relay.as_mut().unwrap().state = RelayState::Connecting;
            (status.peers[0].path, status.peers[0].online) = (PathKind::None, None);
        }),
        (Reason::PeerOffline, |status| {
            let peer = &mut status.peers[0];
            (peer.path, peer.online, peer.state) = (PathKind::None, Some(false), PeerState::Offline);
        }),
        (Reason::Handshaking, |status| status.peers[0].state = PeerState::Handshaking),
        (Reason::Idle, |status| {
            (status.peers[0].state, status.peers[0].direct) = (PeerState::Idle, None);
        }),
        (Reason::OldDaemon, |status| status.peers[0].direct = None),
        (Reason::OffHere, |status| direct(status).enabled = false),
        (Reason::NoSocket, |status| direct(status).sockets.clear()),
        (Reason::Searching, |status| {
            (direct(status).searching, direct(status).next_search_s) = (true, None);
        }),
        (Reason::Unanswered, |status| direct(status).searching = true),
        (Reason::NotSearched, |status| {
            direct(status).next_search_s = None;
            direct(status).remotes.clear();
        }),
        (Reason::LeftDirect, |status| {
            let remote = &mut direct(status).remotes[0];
            (remote.last_answer_s, remote.last_full_answer_s) = (Some(3), Some(4));
        }),
        (Reason::NoOwnAddress, |status| direct(status).own.clear()),
        (Reason::NoPeerAddress, |status| direct(status).remotes.clear()),
        (Reason::ShortOnly, |status| direct(status).remotes[1].last_answer_s = Some(3)),
        (Reason::Guessing, |status| {
            let birthday = BirthdayStatus { active: true, chance: 0.98, ..BirthdayStatus::default() };
            direct(status).birthday = Some(birthday);
        }),
        (Reason::BothDependent, |status| {
            let direct = direct(status);
            (direct.own_mapping, direct.peer_mapping) = (NatMapping::Dependent, NatMapping::Dependent);
        }),
        (Reason::DependentHere, |status| direct(status).own_mapping = NatMapping::Dependent),
        (Reason::DependentThere, |status| direct(status).peer_mapping = NatMapping::Dependent),
        (Reason::Unanswered, |status| {
            let direct = direct(status);
            direct.own_mapping = NatMapping::Dependent;
            direct.own[0].kind = AddressKind::Mapped;
        }),
        (Reason::BlockedHere, |status| {
            let direct = direct(status);
            direct.own_mapping = NatMapping::Unknown;
            direct.own.retain(|own| own.kind == AddressKind::Host);
        }),
        (Reason::BlockedThere, |status| {
            let direct = direct(status);
            direct.peer_mapping = NatMapping::Unknown;
            direct.remotes.retain(|remote| remote.kind == AddressKind::Host);
        }),
        (Reason::Unanswered, |_| {}),
    ];
    for (expected, change) in cases {
        let mut status = sample();
        change(&mut status);
        let verdict = judge(&status, &status.peers[0]);
        assert_eq!(verdict.reason, expected);
        assert!(!verdict.sentence.contains(". ") && !verdict.sentence.ends_with('.'), "{verdict:?}");
        assert_eq!(verdict.fix.is_none(), expected == Reason::Direct, "{verdict:?}");
        assert!(verdict.fix.is_none_or(|fix| !fix.is_empty()));
    }
}

#[test]
fn peer_that_was_only_seen_has_told_nothing() {
    let mut status = sample();
    for remote in &mut direct(&mut status).remotes {
        remote.kind = AddressKind::Seen;
    }
    assert_eq!(judge(&status, &status.peers[0]).reason, Reason::NoPeerAddress);
}

#[test]
fn sentence_names_what_is_known() {
    let words = |change: Change| {
        let mut status = sample();
        change(&mut status);
        let verdict = judge(&status, &status.peers[0]);
        (verdict.sentence, verdict.fix.unwrap_or_default())
    };
    assert_eq!(
        words(|_| {}),
        (
            "none of 12 probes to 2 addresses of pi was answered, though UDP works on both sides: a firewall at one \
             end lets nothing in"
                .to_owned(),
            "let UDP port 40000 in through the firewall of this machine, or forward UDP port 40000 to this machine on \
             its router, set udp_listen = [\"0.0.0.0:40000\", \"[::]:40000\"] there, and endpoints.laptop = \
             [\"203.0.113.5:40000\"] on pi"
                .to_owned()
        )
    );
    let (_, fix) = words(|status| direct(status).peer_mapping = NatMapping::Dependent);
    assert_eq!(
        fix,
        "turn on UPnP or PCP in the router of pi; or forward UDP port 4000 to pi on its router, set udp_listen = [\"0.0.0.0:4000\", \"[::]:4000\"] there, and \
         endpoints.pi = [\"198.51.100.7:4000\"] on this node"
    );
    let (sentence, _) = words(|status| {
        let relay = status.relay.as_mut().unwrap();
        (relay.state, relay.error) = (RelayState::Disconnected, Some("connection refused".into()));
        status.peers[0].path = PathKind::None;
    });
    assert_eq!(
        sentence,
        "this node does not reach its relay (connection refused), and knows no direct path to pi"
    );
    let (sentence, _) = words(|status| direct(status).remotes[0].last_full_answer_s = Some(4));
    assert_eq!(
        sentence,
        "the direct path 192.168.1.7:4000 last worked 4 s ago, and frames have taken the relay since"
    );
}

#[test]
fn what_came_of_guessing_is_told_with_its_chance() {
    let ends = |birthday: BirthdayStatus| {
        let mut status = sample();
        direct(&mut status).own_mapping = NatMapping::Dependent;
        direct(&mut status).birthday = Some(birthday);
        let sentence = judge(&status, &status.peers[0]).sentence;
        sentence.split_once("; ").unwrap().1.to_owned()
    };
    let some =
        BirthdayStatus { enabled: true, attempts: 3, found: 1, chance: 0.983, ..BirthdayStatus::default() };
    assert_eq!(ends(some), "2 attempts to guess a port failed, each of which succeeds in 98 of 100 cases");
    assert_eq!(
        ends(BirthdayStatus { attempts: 1, found: 0, chance: 0.000_252, ..some }),
        "one attempt to guess a port failed, which succeeds in 3 of 10000 cases"
    );
    assert_eq!(
        ends(BirthdayStatus { enabled: false, chance: 0.999_9, ..some }),
        "guessing ports, which succeeds in 99 of 100 cases, is switched off (birthday = false)"
    );
    assert_eq!(
        ends(BirthdayStatus { attempts: 1, chance: 0.0157, ..some }),
        "guessing ports, which succeeds in 2 of 100 cases, was not tried yet"
    );
}

#[test]
fn port_that_is_not_known_is_the_usual_one() {
    let mut status = sample();
    let direct = direct(&mut status);
    (direct.own_mapping, direct.peer_mapping) = (NatMapping::Dependent, NatMapping::Dependent);
    direct.sockets = vec!["0.0.0.0:0".parse().unwrap()];
    direct.own.retain(|own| own.kind == AddressKind::Host);
    let fix = judge(&status, &status.peers[0]).fix.unwrap();
    assert!(fix.contains("UDP port 4747 ") && fix.contains("[\"PUBLIC-ADDRESS:4747\"]"), "{fix}");
}

/// What makes one case of a sample.
type Change = fn(&mut Status);

/// A peer that was searched in vain from behind easy NATs.
fn sample() -> Status {
    let remote = |address: &str, kind| RemoteAddress {
        address: address.parse().unwrap(),
        kind,
        sent: 6,
        last_sent_s: Some(2),
        last_answer_s: None,
        last_full_answer_s: None,
        ice: false,
        mtu: None,
        single: false,
        rtt_ms: None,
    };
    let own = |address: &str, kind| OwnAddress { address: address.parse().unwrap(), kind };
    Status {
        state: NodeState::Up,
        version: "0.1.0".into(),
        network: None,
        node: Some(NodeStatus {
            name: "laptop".into(),
            node_id: "aaaa".into(),
            addresses: Vec::new(),
            interface: "mesh0".into(),
            mode: Mode::Tun,
            mtu: 1420,
        }),
        relays: Vec::new(),
        relay: Some(RelayStatus { state: RelayState::Connected, ..RelayStatus::default() }),
        ready: Readiness::default(),
        peers: vec![PeerStatus {
            name: "pi".into(),
            online: Some(true),
            path: PathKind::Relay,
            state: PeerState::Established,
            session: Some(SessionStatus::default()),
            direct: Some(DirectStatus {
                enabled: true,
                searching: false,
                next_search_s: Some(5),
                sockets: vec!["0.0.0.0:40000".parse().unwrap()],
                own_mapping: NatMapping::Independent,
                peer_mapping: NatMapping::Independent,
                own: vec![
                    own("10.0.0.5:40000", AddressKind::Host),
                    own("203.0.113.5:61000", AddressKind::Reflexive),
                ],
                remotes: vec![
                    remote("192.168.1.7:4000", AddressKind::Host),
                    remote("198.51.100.7:52000", AddressKind::Reflexive),
                ],
                guesses: 0,
                birthday: None,
            }),
            ..PeerStatus::default()
        }],
        counters: Counters::default(),
        crypto: CryptoStatus::default(),
        slowed_by: Vec::new(),
        wss: None,
    }
}

fn direct(status: &mut Status) -> &mut DirectStatus {
    status.peers[0].direct.as_mut().unwrap()
}
