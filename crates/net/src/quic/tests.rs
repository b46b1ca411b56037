//! Two endpoints, or one and a hostile QUIC stack, over a network in memory.

mod harness;
mod hostile;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_wire::{NodeId, Pin};
use quinn::VarInt;
use tokio_util::sync::CancellationToken;

use super::QuicEvent;
use harness::{Net, Node, Weather, hash, in_time, node_id, random_bytes, until};

const A: NodeId = node_id(1);
const B: NodeId = node_id(2);
const SESSION: [u8; 16] = [7; 16];

/// Introduces two nodes to each other and returns the id of their connection.
async fn connect(a: &mut Node, b: &mut Node) -> [u8; 8] {
    b.endpoint.expect(a.id, a.pin, false);
    a.endpoint.expect(b.id, b.pin, false);
    let id = a.ready().await;
    assert_eq!(b.ready().await, id);
    id
}

#[tokio::test]
async fn both_ends_derive_the_same_and_say_what_they_are() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let id = connect(&mut a, &mut b).await;
    assert_ne!(id, [0; 8]);
    assert_eq!(a.info().await.os, "test of ?", "what does not print is replaced");
    assert_eq!(b.info().await.version, "1.0");

    let secret = a.endpoint.exporter(B, id, &SESSION).unwrap();
    assert_eq!(*secret, *b.endpoint.exporter(A, id, &SESSION).unwrap());
    assert_ne!(*secret, *a.endpoint.exporter(B, id, &[8; 16]).unwrap());
    assert!(a.endpoint.exporter(B, [0; 8], &SESSION).is_none(), "another connection");
    assert!(a.endpoint.exporter(A, id, &SESSION).is_none(), "another peer");
}

#[tokio::test]
async fn the_smaller_id_connects_whoever_knows_first() {
    for first in [A, B] {
        let net = Net::new(Weather::FINE);
        let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
        if first == A {
            a.endpoint.expect(B, b.pin, false);
            // Arrives before B knows the peer, and is dropped there.
            until(|| b.endpoint.dropped() > 0).await;
            b.endpoint.expect(A, a.pin, false);
        } else {
            b.endpoint.expect(A, a.pin, false);
            a.endpoint.expect(B, b.pin, false);
        }
        assert_eq!(a.ready().await, b.ready().await);
        assert_eq!(b.connection(A).side(), quinn::Side::Server);
    }
}

#[tokio::test]
async fn connections_come_about_in_bad_weather() {
    for seed in 1..=4 {
        let net = Net::new(Weather { seed, lost: 20, twice: 10, late: 20 });
        let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
        b.endpoint.expect(A, a.pin, false);
        a.endpoint.expect(B, b.pin, false);
        let id = a.ready_at_last().await;
        b.until(|event| *event == QuicEvent::Ready { peer: A, connection: id }).await;
        let secret = a.endpoint.exporter(B, id, &SESSION).unwrap();
        assert_eq!(*secret, *b.endpoint.exporter(A, id, &SESSION).unwrap(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_lost_first_flight_is_repeated_soon() {
    // A busy machine may be late once, but not every time.
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let net = Net::new(Weather::FINE);
        let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
        net.lose_next(2);
        let begun = Instant::now();
        connect(&mut a, &mut b).await;
        shortest = shortest.min(begun.elapsed());
        assert_eq!(net.lost(), 2);
    }
    assert!(shortest < Duration::from_millis(800), "{shortest:?}");
}

#[tokio::test]
async fn ten_megabytes_arrive_intact() {
    transfer(Weather::FINE, 10_000_000, false).await;
}

#[tokio::test]
async fn a_stream_survives_bad_weather() {
    transfer(Weather { seed: 9, lost: 2, twice: 2, late: 5 }, 300_000, false).await;
}

#[tokio::test]
async fn a_stream_survives_a_sink_that_is_often_full() {
    transfer(Weather::FINE, 2_000_000, true).await;
}

async fn transfer(weather: Weather, size: usize, narrow: bool) {
    let net = Net::new(weather);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    b.endpoint.expect(A, a.pin, false);
    a.endpoint.expect(B, b.pin, false);
    let id = a.ready_at_last().await;
    b.until(|event| *event == QuicEvent::Ready { peer: A, connection: id }).await;
    // As a service will do when it begins to take streams.
    b.connection(A).set_max_concurrent_bi_streams(VarInt::from_u32(2));
    let data = random_bytes(size);
    let expected = hash(&data);
    let (sender, receiver) = (a.connection(B), b.connection(A));
    if narrow {
        a.sink.limit(3);
    }
    let send = async {
        let (mut send, _recv) = sender.open_bi().await.unwrap();
        send.write_all(&data).await.unwrap();
        send.finish().unwrap();
        send.stopped().await.unwrap();
    };
    let receive = async {
        let (_send, mut recv) = loop {
            let stream = receiver.accept_bi().await.unwrap();
            if stream.1.id().index() == 1 {
                break stream;
            }
        };
        recv.read_to_end(size).await.unwrap()
    };
    let make_room = async {
        loop {
            until(|| a.sink.is_full()).await;
            a.sink.limit(3);
            a.endpoint.room();
        }
    };
    let both = async { tokio::join!(send, receive).1 };
    let received = tokio::select! {
        received = in_time(both) => received,
        () = make_room, if narrow => unreachable!(),
    };
    assert!(received.len() == size && hash(&received) == expected);
    assert!(!narrow || a.sink.refused() > 10, "{}", a.sink.refused());
}

#[tokio::test]
async fn nothing_is_sent_into_a_full_sink_until_there_is_room() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    a.sink.limit(0);
    b.endpoint.expect(A, a.pin, false);
    a.endpoint.expect(B, b.pin, false);
    until(|| a.sink.refused() > 0).await;
    assert_eq!(net.carried(), 0);
    a.sink.unlimit();
    a.endpoint.room();
    assert_eq!(a.ready().await, b.ready().await);
}

#[tokio::test]
async fn a_wrong_pin_is_refused_by_the_client() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    b.endpoint.expect(A, a.pin, false);
    a.endpoint.expect(B, Pin([1; 32]), false);
    assert_eq!(a.lost().await, "the peer's certificate is not the one that its session names");
    assert_eq!(b.lost().await, "the peer says that our certificate is not the one that our session names");
    // The client goes on trying, and the right pin helps.
    a.lost().await;
    a.endpoint.expect(B, b.pin, false);
    assert_eq!(a.ready_at_last().await, b.ready_at_last().await);
}

#[tokio::test]
async fn a_wrong_pin_is_refused_by_the_server() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    b.endpoint.expect(A, Pin([1; 32]), false);
    a.endpoint.expect(B, b.pin, false);
    assert_eq!(b.lost().await, "the peer's certificate is not the one that its session names");
    // The client's half of the handshake succeeds, but it waits for the peer's word before it says so.
    assert_eq!(a.lost().await, "the peer says that our certificate is not the one that our session names");
    assert!(b.endpoint.shared.peers.connection(A).is_none());
}

#[tokio::test]
async fn a_node_that_is_not_expected_gets_nothing() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let mut c = Node::start(&net, node_id(0));
    let id = connect(&mut a, &mut b).await;
    a.info().await;
    b.info().await;
    c.endpoint.expect(B, b.pin, false);
    until(|| b.endpoint.dropped() > 2).await;
    assert!(c.is_calm(), "not even a refusal");
    assert!(b.endpoint.exporter(A, id, &SESSION).is_some());
    assert!(b.is_calm());
}

#[tokio::test]
async fn an_impostor_is_refused_and_disturbs_nobody() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let id = connect(&mut a, &mut b).await;
    a.info().await;
    b.info().await;
    // Has the place of A in the network, but a certificate of its own.
    let mut impostor = Node::start(&net, A);
    impostor.endpoint.expect(B, b.pin, false);
    let reason = impostor.lost().await;
    assert_eq!(reason, "the peer says that our certificate is not the one that our session names");
    assert!(b.endpoint.exporter(A, id, &SESSION).is_some(), "the connection with A stands");
    assert!(b.is_calm());
}

#[tokio::test]
async fn a_restarted_node_gets_a_new_connection() {
    for restarted in [A, B] {
        let net = Net::new(Weather::FINE);
        let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
        let old = connect(&mut a, &mut b).await;
        // `keep` means nothing where the pin changed.
        if restarted == A {
            a = Node::start(&net, A);
            b.endpoint.expect(A, a.pin, true);
            a.endpoint.expect(B, b.pin, true);
        } else {
            b = Node::start(&net, B);
            b.endpoint.expect(A, a.pin, true);
            a.endpoint.expect(B, b.pin, true);
        }
        let id = a.ready_at_last().await;
        b.until(|event| *event == QuicEvent::Ready { peer: A, connection: id }).await;
        assert_ne!(id, old);
        let secret = a.endpoint.exporter(B, id, &SESSION).unwrap();
        assert_eq!(*secret, *b.endpoint.exporter(A, id, &SESSION).unwrap());
        assert!(a.endpoint.exporter(B, old, &SESSION).is_none());
        assert!(b.endpoint.exporter(A, old, &SESSION).is_none());
    }
}

#[tokio::test]
async fn a_connection_is_kept_or_replaced_as_told() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let first = connect(&mut a, &mut b).await;
    a.info().await;
    b.info().await;
    let stable = a.connection(B).stable_id();
    a.endpoint.expect(B, b.pin, true);
    b.endpoint.expect(A, a.pin, true);
    assert!(a.is_calm() && b.is_calm());
    assert_eq!(a.connection(B).stable_id(), stable);
    assert!(b.endpoint.exporter(A, first, &SESSION).is_some());

    let second = connect(&mut a, &mut b).await;
    assert_ne!(second, first);
    assert!(b.endpoint.exporter(A, first, &SESSION).is_none());

    // Only one side drops it: the other hears of it, and they connect again.
    b.endpoint.expect(A, a.pin, false);
    assert_eq!(a.lost_after_info().await, "the peer replaced the connection");
    let third = a.ready_at_last().await;
    b.until(|event| *event == QuicEvent::Ready { peer: A, connection: third }).await;
    assert_ne!(third, second);
}

#[tokio::test]
async fn a_client_whose_connection_died_silently_replaces_it() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let old = connect(&mut a, &mut b).await;
    b.info().await;
    // The farewell is lost, so B knows nothing of it.
    net.lose_next(1);
    a.endpoint.expect(B, b.pin, false);
    let id = a.ready_at_last().await;
    assert_ne!(id, old);
    assert_eq!(b.ready().await, id);
    assert!(b.endpoint.exporter(A, old, &SESSION).is_none());
}

#[tokio::test]
async fn a_forgotten_peer_leaves_nothing_behind() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let id = connect(&mut a, &mut b).await;
    a.info().await;
    b.info().await;
    for (node, peer) in [(&a, B), (&b, A)] {
        node.endpoint.forget(peer);
        assert!(node.endpoint.exporter(peer, id, &SESSION).is_none());
        assert!(node.endpoint.shared.socket.is_empty());
        until(|| node.endpoint.shared.endpoint.open_connections() == 0).await;
        node.endpoint.datagram(peer, &[1; 100]);
        node.endpoint.forget(peer);
        assert!(node.endpoint.shared.socket.is_empty());
    }
    assert!(a.is_calm() && b.is_calm());
    connect(&mut a, &mut b).await;
}

#[tokio::test]
async fn idle_peers_are_silent() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    connect(&mut a, &mut b).await;
    net.silence().await;
    assert!(a.connection(B).close_reason().is_none());
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    connect(&mut a, &mut b).await;
    let shared = Arc::downgrade(&a.endpoint.shared);
    b.info().await;
    a.endpoint.stop().await;
    assert_eq!(b.lost().await, "the peer closed the connection");
    until(|| shared.strong_count() == 0).await;
}

#[tokio::test]
async fn a_dropped_endpoint_ends_its_tasks() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    connect(&mut a, &mut b).await;
    let shared = Arc::downgrade(&a.endpoint.shared);
    drop(a);
    until(|| shared.strong_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_outside_the_runtime_may_call_everything() {
    let net = Net::new(Weather { seed: 5, lost: 5, twice: 5, late: 5 });
    let (a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let pin = b.pin;
    b.endpoint.expect(A, a.pin, false);
    let caller = std::thread::spawn(move || {
        for _ in 0..50 {
            a.endpoint.expect(B, pin, false);
            a.endpoint.datagram(B, &[0x40; 30]);
            a.endpoint.room();
            a.endpoint.forget(B);
        }
        a.endpoint.expect(B, pin, false);
        a
    });
    in_time(async { until(|| caller.is_finished()).await }).await;
    let mut a = caller.join().unwrap();
    let id = a.ready_at_last().await;
    b.until(|event| *event == QuicEvent::Ready { peer: A, connection: id }).await;
    // The harness panics at an event that comes after the end; the tasks must not.
    let shared = Arc::downgrade(&a.endpoint.shared);
    std::thread::spawn(move || drop(a)).join().unwrap();
    until(|| shared.strong_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_the_order_of_the_changes() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    for round in 0..20 {
        b.endpoint.expect(A, a.pin, false);
        a.endpoint.expect(B, b.pin, false);
        let id = a.ready_at_last().await;
        // After the last Ready of B nothing says that the connection is lost.
        in_time(async { while b.ready_at_last().await != id {} }).await;
        assert_eq!(b.info().await.version, "1.0", "round {round}");
        assert!(b.endpoint.exporter(A, id, &SESSION).is_some(), "round {round}");
    }
}

#[tokio::test]
async fn the_own_id_is_no_peer() {
    let net = Net::new(Weather::FINE);
    let a = Node::start(&net, A);
    a.endpoint.expect(A, a.pin, false);
    assert!(a.endpoint.shared.socket.is_empty());
}

#[tokio::test]
async fn an_attempt_that_was_ended_has_no_say() {
    let net = Net::new(Weather::FINE);
    let (mut a, mut b) = (Node::start(&net, A), Node::start(&net, B));
    let id = connect(&mut a, &mut b).await;
    a.info().await;
    let ended = CancellationToken::new();
    ended.cancel();
    let (peers, connection) = (&a.endpoint.shared.peers, a.connection(B));
    peers.lose(&*a.sink, B, &ended, Some(&connection), String::new());
    assert!(!peers.establish(&*a.sink, B, &ended, (&connection, [0; 8]), None));
    assert!(a.endpoint.exporter(B, id, &SESSION).is_some());
    assert!(a.is_calm());
}
