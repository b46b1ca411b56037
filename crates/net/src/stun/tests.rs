use proptest::prelude::*;

use super::*;

const V4: [&str; 2] = ["192.0.2.1:3478", "192.0.2.1:3479"];
const V6: [&str; 2] = ["[2001:db8::1]:3478", "[2001:db8::1]:3479"];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| address(text)).collect()
}

/// A client in its first round, with ids that count up from 1.
fn started(now: Instant, servers: &[&str]) -> StunClient {
    let mut client = StunClient::new();
    client.start(now, &addresses(servers), counting());
    client
}

fn counting() -> impl FnMut() -> TransactionId {
    let mut count = 0;
    move || {
        count += 1;
        [count; 12]
    }
}

/// All requests that are due, by server.
fn sent(client: &mut StunClient) -> Vec<(SocketAddr, TransactionId)> {
    std::iter::from_fn(|| client.poll_transmit())
        .map(|(to, bytes)| (to, BindingRequest::parse(&bytes).unwrap().transaction))
        .collect()
}

fn events(client: &mut StunClient) -> Vec<StunEvent> {
    std::iter::from_fn(|| client.poll_event()).collect()
}

fn answer(transaction: TransactionId, mapped: &str) -> Vec<u8> {
    BindingSuccess { transaction, mapped: address(mapped), fingerprint: false, origin: None, other: None }
        .encode()
}

/// Lets both servers answer, each with its mapped address.
fn mapping_of(servers: &[&str], mapped: &[&str]) -> Mapping {
    let now = Instant::now();
    let mut client = started(now, servers);
    for ((server, transaction), mapped) in sent(&mut client).into_iter().zip(mapped) {
        assert!(client.handle_datagram(server, &answer(transaction, mapped)));
    }
    client.mapping(Family::of(&address(servers[0])))
}

#[test]
fn both_families_are_asked_at_once_and_told_apart() {
    let now = Instant::now();
    let mut client = started(now, &[V4[0], V6[0], V4[1], V6[1]]);
    let requests = sent(&mut client);
    let servers: Vec<SocketAddr> = requests.iter().map(|(server, _)| *server).collect();
    assert_eq!(servers, addresses(&[V4[0], V6[0], V4[1], V6[1]]));
    for (server, transaction) in requests {
        let mapped = if server.is_ipv4() { "198.51.100.7:4500" } else { "[2001:db8:9::2]:4500" };
        assert!(client.handle_datagram(server, &answer(transaction, mapped)));
    }
    let mapped = |family| client.reports(family).map(|report| report.mapped).collect::<Vec<_>>();
    assert_eq!(mapped(Family::V4), [Some(address("198.51.100.7:4500")); 2]);
    assert_eq!(mapped(Family::V6), [Some(address("[2001:db8:9::2]:4500")); 2]);
    assert_eq!(client.poll_timeout(), None);
    let finished: Vec<StunEvent> =
        events(&mut client).into_iter().filter(|event| matches!(event, StunEvent::Finished(_))).collect();
    assert_eq!(finished, [StunEvent::Finished(Family::V4), StunEvent::Finished(Family::V6)]);
}

#[test]
fn one_family_finishes_while_the_other_waits() {
    let now = Instant::now();
    let mut client = started(now, &[V4[0], V6[0]]);
    let requests = sent(&mut client);
    assert!(client.handle_datagram(requests[0].0, &answer(requests[0].1, "198.51.100.7:4500")));
    let report = ServerReport { server: requests[0].0, mapped: Some(address("198.51.100.7:4500")) };
    assert_eq!(events(&mut client), [StunEvent::Mapped(report), StunEvent::Finished(Family::V4)]);
    assert_eq!(client.poll_timeout(), Some(now + FIRST_WAIT));
}

#[test]
fn lost_requests_are_repeated_with_the_same_id_and_then_given_up() {
    let start = Instant::now();
    let mut client = started(start, &V4[..1]);
    let first = sent(&mut client);
    let mut times = Vec::new();
    while let Some(due) = client.poll_timeout() {
        client.handle_timeout(due - Duration::from_millis(1));
        assert!(sent(&mut client).is_empty());
        client.handle_timeout(due);
        times.push((due - start).as_millis());
        if client.poll_timeout().is_some() {
            assert_eq!(sent(&mut client), first);
        }
    }
    assert_eq!(times, [100, 300, 700]);
    assert!(sent(&mut client).is_empty());
    assert_eq!(events(&mut client), [StunEvent::Finished(Family::V4)]);
    assert_eq!(client.mapping(Family::V4), Mapping::Unknown);
    assert_eq!(client.reports(Family::V4).next().unwrap().mapped, None);
    // What comes after that is too late.
    assert!(!client.handle_datagram(first[0].0, &answer(first[0].1, "198.51.100.7:4500")));
}

#[test]
fn answer_to_a_repetition_counts_once() {
    let now = Instant::now();
    let mut client = started(now, &V4[..1]);
    let first = sent(&mut client);
    client.handle_timeout(now + FIRST_WAIT);
    let bytes = answer(first[0].1, "198.51.100.7:4500");
    assert!(client.handle_datagram(first[0].0, &bytes));
    assert!(!client.handle_datagram(first[0].0, &bytes));
    assert_eq!(events(&mut client).len(), 2);
    assert!(sent(&mut client).is_empty(), "a repetition that is due is not sent after the answer");
}

#[test]
fn forged_answers_change_nothing() {
    let now = Instant::now();
    let mut client = started(now, &V4);
    let requests = sent(&mut client);
    let (server, transaction) = requests[0];
    let wrong_id = [0xee; 12];
    let forged = "203.0.113.66:6666";
    for (from, bytes) in [
        (server, answer(wrong_id, forged)),
        // The other server's question is another one, and a stranger's address is nobody's.
        (requests[1].0, answer(transaction, forged)),
        (address("192.0.2.1:3480"), answer(transaction, forged)),
        (address("203.0.113.66:3478"), answer(transaction, forged)),
        (address("[2001:db8::1]:3478"), answer(transaction, forged)),
        (server, BindingRequest { transaction, fingerprint: false, change: None }.encode()),
        (server, answer(transaction, forged)[..20].to_vec()),
        (server, Vec::new()),
    ] {
        assert!(!client.handle_datagram(from, &bytes), "{from}");
    }
    assert!(events(&mut client).is_empty());
    assert!(client.handle_datagram(server, &answer(transaction, "198.51.100.7:4500")));
    assert_eq!(client.reports(Family::V4).next().unwrap().mapped, Some(address("198.51.100.7:4500")));
}

#[test]
fn addresses_that_nobody_could_be_reached_at_are_refused() {
    let now = Instant::now();
    let mut client = started(now, &V4[..1]);
    let (server, transaction) = sent(&mut client)[0];
    for mapped in [
        "198.51.100.7:0",
        "0.0.0.0:9",
        "0.1.2.3:9",
        "127.0.0.1:22",
        "224.0.0.1:9",
        "255.255.255.255:9",
        "169.254.1.1:9",
        "[::1]:22",
        "[::]:9",
        "[ff02::1]:9",
        "[fe80::1]:9",
    ] {
        assert!(!client.handle_datagram(server, &answer(transaction, mapped)), "{mapped}");
    }
    // A server on this machine sees loopback.
    client.start(now, &[address("127.0.0.1:3478")], || [9; 12]);
    let server = sent(&mut client)[0].0;
    assert!(client.handle_datagram(server, &answer([9; 12], "127.0.0.1:4500")));
}

#[test]
fn answers_of_an_earlier_round_do_not_count() {
    let now = Instant::now();
    let mut client = started(now, &V4[..1]);
    let old = sent(&mut client)[0];
    client.start(now, &addresses(&V4[..1]), || [0x77; 12]);
    assert!(!client.handle_datagram(old.0, &answer(old.1, "198.51.100.7:4500")));
    assert!(events(&mut client).is_empty());
    let fresh = sent(&mut client)[0];
    assert!(client.handle_datagram(fresh.0, &answer(fresh.1, "198.51.100.7:4501")));
}

#[test]
fn equal_addresses_show_an_independent_mapping() {
    let same = ["198.51.100.7:4500"; 2];
    assert_eq!(mapping_of(&V4, &same), Mapping::PortIndependent);
    assert_eq!(mapping_of(&["192.0.2.1:3478", "192.0.2.2:3478"], &same), Mapping::EndpointIndependent);
    assert_eq!(mapping_of(&V6, &["[2001:db8:9::2]:1"; 2]), Mapping::PortIndependent);
    assert_eq!(mapping_of(&V4, &same[..1]), Mapping::Unknown);
    assert_eq!(mapping_of(&V4, &[]), Mapping::Unknown);
}

#[test]
fn different_addresses_show_a_dependent_mapping_and_its_step() {
    let dependent = |mapped: &[&str]| mapping_of(&["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"], mapped);
    assert_eq!(dependent(&["198.51.100.7:4500", "198.51.100.7:4501"]), Mapping::Dependent { step: Some(1) });
    assert_eq!(
        dependent(&["198.51.100.7:60000", "198.51.100.7:9"]),
        Mapping::Dependent { step: Some(-59991) }
    );
    assert_eq!(dependent(&["198.51.100.7:1", "198.51.100.8:1"]), Mapping::Dependent { step: None });
    let three = ["198.51.100.7:4500", "198.51.100.7:4502", "198.51.100.7:4506"];
    assert_eq!(dependent(&three), Mapping::Dependent { step: Some(4) });
}

#[test]
fn step_is_unknown_when_the_server_between_was_silent() {
    let now = Instant::now();
    let mut client = started(now, &["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"]);
    let requests = sent(&mut client);
    for (index, mapped) in [(0, "198.51.100.7:4500"), (2, "198.51.100.7:4502")] {
        assert!(client.handle_datagram(requests[index].0, &answer(requests[index].1, mapped)));
    }
    assert_eq!(client.mapping(Family::V4), Mapping::Dependent { step: None });
}

#[test]
fn duplicates_and_too_many_servers_are_left_out() {
    let now = Instant::now();
    let many: Vec<SocketAddr> =
        (1..=9_u16).map(|port| SocketAddr::new([192, 0, 2, 1].into(), port)).collect();
    let mut client = StunClient::new();
    let mapped_form = address("[::ffff:192.0.2.1]:1");
    client.start(now, &[&[many[0], mapped_form], &many[..]].concat(), counting());
    let servers: Vec<SocketAddr> = sent(&mut client).iter().map(|(server, _)| *server).collect();
    assert_eq!(servers, many[..MAX_STUN_SERVERS]);
    client.start(now, &[], counting());
    assert_eq!((client.poll_timeout(), client.poll_transmit(), client.poll_event()), (None, None, None));
}

#[test]
fn server_in_the_form_of_a_dual_stack_socket_is_recognised() {
    let now = Instant::now();
    let mut client = started(now, &["[::ffff:192.0.2.1]:3478"]);
    let (server, transaction) = sent(&mut client)[0];
    assert_eq!(server, address("192.0.2.1:3478"));
    let from = address("[::ffff:192.0.2.1]:3478");
    assert!(client.handle_datagram(from, &answer(transaction, "198.51.100.7:4500")));
}

/// What the network does to the next thing.
#[derive(Debug, Clone)]
enum Step {
    /// The server with this index answers the last request that it got.
    Answer(usize, u16),
    /// Somebody sends bytes from a server's address.
    Noise(usize, Vec<u8>),
    /// Somebody knows the id, but not how to send from the server's address.
    Elsewhere(usize, u16),
    /// Somebody sends from the server's address, but does not know the id.
    Guess(usize, TransactionId),
    /// Time passes, in milliseconds.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let server = 0..4_usize;
    let step = prop_oneof![
        2 => (server.clone(), 1..u16::MAX).prop_map(|(server, port)| Step::Answer(server, port)),
        1 => (server.clone(), prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(server, bytes)| Step::Noise(server, bytes)),
        1 => (server.clone(), 1..u16::MAX).prop_map(|(server, port)| Step::Elsewhere(server, port)),
        1 => (server, any::<TransactionId>()).prop_map(|(server, id)| Step::Guess(server, id)),
        3 => (0..300_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn only_true_answers_count_and_every_round_ends(steps in steps()) {
        let start = Instant::now();
        let servers = addresses(&[V4[0], V4[1], V6[0], V6[1]]);
        let mut client = StunClient::new();
        client.start(start, &servers, counting());
        let id = |server: usize| [u8::try_from(server + 1).unwrap(); 12];
        let mut now = start;
        let mut told: [Option<u16>; 4] = [None; 4];
        let mut requests = [0_usize; 4];
        let mut finished = Vec::new();
        let count = |client: &mut StunClient, requests: &mut [usize; 4], finished: &mut Vec<Family>| {
            for (to, transaction) in sent(client) {
                let server = servers.iter().position(|server| *server == to).unwrap();
                assert_eq!(transaction, id(server));
                requests[server] += 1;
            }
            for event in events(client) {
                if let StunEvent::Finished(family) = event {
                    finished.push(family);
                }
            }
        };
        count(&mut client, &mut requests, &mut finished);
        for step in steps {
            match step {
                Step::Answer(server, port) => {
                    let bytes = answer(id(server), &format!("198.51.100.7:{port}"));
                    let open = told[server].is_none() && now < start + Duration::from_millis(700);
                    let counted = client.handle_datagram(servers[server], &bytes);
                    // A round whose timers came late stays open for longer; it never ends early.
                    prop_assert!(counted || !open);
                    prop_assert!(!counted || told[server].is_none());
                    if counted {
                        told[server] = Some(port);
                    }
                }
                Step::Noise(server, bytes) => {
                    prop_assert!(!client.handle_datagram(servers[server], &bytes));
                }
                Step::Elsewhere(server, port) => {
                    let bytes = answer(id(server), &format!("203.0.113.66:{port}"));
                    let mut from = servers[server];
                    from.set_port(from.port() ^ 0x100);
                    prop_assert!(!client.handle_datagram(from, &bytes));
                }
                Step::Guess(server, guess) => {
                    prop_assume!(guess != id(server));
                    prop_assert!(!client.handle_datagram(servers[server], &answer(guess, "203.0.113.66:6")));
                }
                Step::Wait(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    client.handle_timeout(now);
                }
            }
            count(&mut client, &mut requests, &mut finished);
        }
        while let Some(due) = client.poll_timeout() {
            client.handle_timeout(due);
            count(&mut client, &mut requests, &mut finished);
        }
        for (server, port) in told.iter().enumerate() {
            let family = Family::of(&servers[server]);
            let report = client.reports(family).find(|report| report.server == servers[server]).unwrap();
            prop_assert_eq!(report.mapped.map(|mapped| mapped.port()), *port);
            prop_assert!((1..=3).contains(&requests[server]));
        }
        finished.sort_unstable();
        prop_assert_eq!(finished, [Family::V4, Family::V6]);
    }
}
