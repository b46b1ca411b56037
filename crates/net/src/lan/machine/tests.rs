use super::*;

const UNIX: u64 = 1_700_000_000;

fn link() -> LanLink {
    let addresses = vec![("192.168.1.7".parse().unwrap(), 24), ("fe80::7".parse().unwrap(), 64)];
    LanLink { index: 3, name: "eth0".into(), addresses }
}

fn machine() -> LanMachine {
    let ports = LanPorts { v4: Some("0.0.0.0:47".parse().unwrap()), v6: Some("[::]:48".parse().unwrap()) };
    let mut state = 1_u64;
    let random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    LanMachine::new(NodeId([7; 32]), ports, Box::new(random))
}

/// A machine past its beginning, and the moment.
fn settled() -> (LanMachine, Instant) {
    let mut machine = machine();
    let mut now = Instant::now();
    machine.set_links(now, vec![link()]);
    for _ in 0..EARLY {
        now = machine.poll_timeout().unwrap();
        machine.handle_timeout(now, UNIX);
    }
    while machine.poll_transmit().is_some() {}
    (machine, now)
}

fn says(machine: &mut LanMachine) -> Vec<LanSay> {
    std::iter::from_fn(|| machine.poll_transmit()).map(|transmit| transmit.say).collect()
}

fn found(machine: &mut LanMachine) -> Vec<LanFound> {
    std::iter::from_fn(|| machine.poll_found()).collect()
}

fn content(made: u64, addresses: &[&str]) -> Content {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Content { made, node: NodeId([9; 32]), port_v4: 1, port_v6: 2, addresses }
}

fn hear(machine: &mut LanMachine, now: Instant, from: &str, opened: Option<&Content>) {
    let message = Message::Announcement { name: [b'x'; NAME], sealed: &[0; SEALED] }.encode();
    let from = SocketAddr::new(from.parse().unwrap(), 5353);
    machine.handle_datagram(now, (3, from), &message, |_, _| opened.map(Content::encode));
}

#[test]
fn it_asks_and_announces_at_once_and_seldom_later() {
    let mut machine = machine();
    let start = Instant::now();
    assert_eq!(machine.poll_timeout(), None);
    machine.set_links(start, vec![link()]);
    let mut moments = Vec::new();
    for _ in 0..5 {
        let now = machine.poll_timeout().unwrap();
        moments.push(now.duration_since(start));
        machine.handle_timeout(now, UNIX);
        let said = says(&mut machine);
        let questions = said.iter().filter(|say| **say == LanSay::Question).count();
        assert_eq!(questions, usize::from(moments.len() <= 3), "{moments:?}");
        let Some(LanSay::Announcement { content, .. }) = said.last() else { panic!("{said:?}") };
        assert_eq!((content.made, content.port_v4, content.port_v6), (UNIX, 47, 48));
        assert_eq!(content.addresses.len(), 2);
    }
    assert!(moments[0] <= SOON_MOST && moments[2] <= SOON_MOST + APART * 2, "{moments:?}");
    assert!(moments[4] - moments[3] >= INTERVAL - JITTER, "{moments:?}");
}

#[test]
fn questions_are_answered_soon_but_once_a_second() {
    let (mut machine, now) = settled();
    let question = Message::Question.encode();
    let later = now + Duration::from_secs(5);
    machine.handle_datagram(later, (3, "192.168.1.9:5353".parse().unwrap()), &question, |_, _| None);
    let at = machine.poll_timeout().unwrap();
    assert!(at > later && at <= later + SOON_MOST);
    machine.handle_timeout(at, UNIX);
    assert_eq!(says(&mut machine).len(), 1);
    for _ in 0..100 {
        machine.handle_datagram(at, (3, "192.168.1.9:5353".parse().unwrap()), &question, |_, _| None);
    }
    assert!(machine.poll_timeout().unwrap() >= at + APART);
}

#[test]
fn a_neighbour_is_told_once_and_forgotten_when_it_is_silent() {
    let (mut machine, now) = settled();
    hear(&mut machine, now, "192.168.1.9", Some(&content(UNIX, &["192.168.1.9", "fe80::9"])));
    let scoped: SocketAddr = SocketAddrV6::new("fe80::9".parse().unwrap(), 2, 0, 3).into();
    let told = found(&mut machine);
    assert_eq!(
        told,
        [LanFound { node: NodeId([9; 32]), addresses: vec!["192.168.1.9:1".parse().unwrap(), scoped] }]
    );
    let later = now + Duration::from_secs(100);
    hear(&mut machine, later, "192.168.1.9", Some(&content(UNIX + 100, &["192.168.1.9", "fe80::9"])));
    assert!(found(&mut machine).is_empty());
    let mut moment = later;
    while moment < later + LIFETIME + SWEEP {
        moment = machine.poll_timeout().unwrap();
        machine.handle_timeout(moment, UNIX);
        if moment < later + LIFETIME {
            assert!(found(&mut machine).is_empty());
        }
    }
    assert_eq!(found(&mut machine), [LanFound { node: NodeId([9; 32]), addresses: Vec::new() }]);
}

#[test]
fn what_strangers_send_changes_nothing_but_counters() {
    let (mut machine, now) = settled();
    let timeout = machine.poll_timeout();
    hear(&mut machine, now, "192.168.1.66", None);
    for _ in 0..1000 {
        hear(&mut machine, now, "192.168.1.66", None);
    }
    machine.handle_datagram(now, (3, "192.168.1.67:5353".parse().unwrap()), b"junk", |_, _| panic!("opened"));
    let farewell = Message::Farewell { name: [b'x'; NAME] }.encode();
    machine
        .handle_datagram(now, (3, "192.168.1.67:5353".parse().unwrap()), &farewell, |_, _| panic!("opened"));
    machine.handle_datagram(
        now,
        (4, "192.168.1.67:5353".parse().unwrap()),
        &Message::Question.encode(),
        |_, _| None,
    );
    assert_eq!(machine.poll_timeout(), timeout);
    assert!(found(&mut machine).is_empty() && says(&mut machine).is_empty());
    let counts = machine.counts();
    assert_eq!((counts.unsealed, counts.rate, counts.heard), (32, 969, 0));
    // A member is heard all the same.
    hear(&mut machine, now, "192.168.1.9", Some(&content(UNIX, &["192.168.1.9"])));
    assert_eq!(found(&mut machine).len(), 1);
}

#[test]
fn replays_are_counted_and_do_not_prolong() {
    let (mut machine, now) = settled();
    let said = content(UNIX, &["192.168.1.9"]);
    hear(&mut machine, now, "192.168.1.9", Some(&said));
    found(&mut machine);
    for seconds in 2..100 {
        hear(&mut machine, now + Duration::from_secs(seconds), "192.168.1.66", Some(&said));
    }
    assert_eq!((machine.counts().heard, machine.counts().stale), (1, 98));
    machine.handle_timeout(now + LIFETIME + SWEEP, UNIX);
    assert_eq!(found(&mut machine)[0].addresses, []);
}

#[test]
fn only_neighbours_and_other_nodes_are_believed() {
    let (mut machine, now) = settled();
    hear(&mut machine, now, "192.168.1.9", Some(&content(UNIX, &["198.51.100.1", "2001:db8::1"])));
    assert!(found(&mut machine).is_empty());
    assert_eq!(machine.counts().far, 2);
    let own = Content { node: NodeId([7; 32]), ..content(UNIX, &["192.168.1.9"]) };
    hear(&mut machine, now, "192.168.1.7", Some(&own));
    assert!(found(&mut machine).is_empty());
}

#[test]
fn an_interface_that_goes_takes_its_neighbours_with_it() {
    let (mut machine, now) = settled();
    hear(&mut machine, now, "192.168.1.9", Some(&content(UNIX, &["192.168.1.9"])));
    found(&mut machine);
    machine.set_links(now, Vec::new());
    assert_eq!(found(&mut machine), [LanFound { node: NodeId([9; 32]), addresses: Vec::new() }]);
    machine.set_links(now, vec![link()]);
    assert!(machine.poll_timeout().unwrap() <= now + SOON_MOST);
}

#[test]
fn names_change_and_are_taken_back() {
    let (mut machine, _) = settled();
    let first = machine.name;
    let mut said = Vec::new();
    while machine.name == first {
        let now = machine.poll_timeout().unwrap();
        machine.handle_timeout(now, UNIX);
        said = says(&mut machine);
    }
    assert_eq!(said[0], LanSay::Farewell { name: first });
    let name = machine.name;
    assert!(matches!(&said[1], LanSay::Announcement { name: new, .. } if *new == name));
    machine.close();
    assert_eq!(says(&mut machine), [LanSay::Farewell { name }]);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn a_socket_at_one_address_is_announced_there_only() {
    let ports = LanPorts { v4: Some("192.168.1.7:47".parse().unwrap()), v6: None };
    let said = super::content(NodeId([7; 32]), ports, &link(), UNIX).unwrap();
    assert_eq!((said.addresses, said.port_v6), (vec!["192.168.1.7".parse().unwrap()], 0));
    let elsewhere = LanPorts { v4: Some("10.0.0.1:47".parse().unwrap()), v6: None };
    assert!(super::content(NodeId([7; 32]), elsewhere, &link(), UNIX).is_none());
}
