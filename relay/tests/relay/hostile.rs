//! Strangers and clients that do not keep to the protocol.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use mesh_wire::NodeId;
use mesh_wire::relay::{ClientMessage, Data, ErrorCode, RelayMessage, Role, RosterBlob};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::raw::{Raw, auth, tls};
use crate::support::{Network, PATIENCE, Running};

#[tokio::test]
async fn silent_strangers_are_dropped_in_time() {
    let running = Running::start(|config| config.limits.handshake_seconds = 1);
    let started = Instant::now();
    let mut silent = TcpStream::connect(running.place.address).await.unwrap();
    let mut after_tls = tls(&running.place, true).await.unwrap();
    let mut after_hello = Raw::connect(&running.place).await;
    let mut byte = [0];
    assert_eq!(timeout(PATIENCE, silent.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
    assert_eq!(timeout(PATIENCE, after_tls.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
    assert_eq!(after_hello.refused().await, None);
    assert!(started.elapsed() < Duration::from_secs(10));
    running.metric("meshrelay_handshake_timeouts_total 3").await;
}

#[tokio::test]
async fn garbage_ends_at_every_stage() {
    let running = Running::start(|_| {});
    let mut plain = TcpStream::connect(running.place.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    running.metric("meshrelay_tls_errors_total 1").await;

    let mut no_websocket = tls(&running.place, true).await.unwrap();
    no_websocket.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let _ = timeout(PATIENCE, no_websocket.read_to_end(&mut answer)).await.unwrap();
    let elsewhere = tls(&running.place, true).await.unwrap();
    let refused = client_async("wss://localhost/admin", elsewhere).await.unwrap_err();
    assert!(matches!(refused, Error::Http(response) if response.status() == 404));
    running.metric("meshrelay_websocket_errors_total 2").await;

    for message in [vec![], vec![0xff; 100], vec![2, 1, 9], ClientMessage::Ping([0; 8]).encode()] {
        let mut raw = Raw::connect(&running.place).await;
        raw.hello().await;
        raw.send(message).await;
        assert_eq!(raw.refused().await, Some(ErrorCode::BadMessage));
    }
    let mut later = Raw::connect(&running.place).await;
    later.hello().await;
    later.send(vec![2, 9]).await;
    assert_eq!(later.refused().await, Some(ErrorCode::Version));
    running.metric("meshrelay_auth_failures_total{reason=\"bad_message\"} 5").await;
}

#[tokio::test]
async fn a_long_message_before_authentication_is_not_taken() {
    let running = Running::start(|_| {});
    let mut raw = Raw::connect(&running.place).await;
    raw.hello().await;
    raw.send(vec![2; 100_000]).await;
    assert_eq!(raw.refused().await, None);
    running.metric("meshrelay_websocket_errors_total 1").await;
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_told_and_dropped() {
    let running = Running::start(|_| {});
    let network = Network::new(1);
    for (message, code) in [
        (vec![0xee], ErrorCode::BadMessage),
        (vec![0x10, 1, 0, 0, 0], ErrorCode::BadMessage),
        (vec![0x10; 65_536 + 6], ErrorCode::TooLarge),
        (vec![0x0e; 100_000], ErrorCode::TooLarge),
        (vec![2, 1], ErrorCode::BadMessage),
    ] {
        let mut raw = Raw::guest(&running.place, network.id()).await;
        raw.send(message).await;
        assert_eq!(raw.refused().await, Some(code));
    }
    let mut raw = Raw::guest(&running.place, network.id()).await;
    raw.socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(raw.refused().await, Some(ErrorCode::BadMessage));
    running.metric("meshrelay_ended_connections_total{reason=\"protocol\"} 6").await;
    running.metric("meshrelay_clients{role=\"guest\"} 0").await;
}

#[tokio::test]
async fn unknown_handles_are_dropped_and_counted() {
    let running = Running::start(|_| {});
    let network = Network::new(1);
    let mut raw = Raw::guest(&running.place, network.id()).await;
    for handle in [0, 1, 0xffff, 0x1_0000, u32::MAX] {
        raw.send(ClientMessage::Send(Data { handle, segment: None, payload: b"?" }).encode()).await;
    }
    raw.send(ClientMessage::Unbind(77).encode()).await;
    raw.send(ClientMessage::Ping(*b"stillon?").encode()).await;
    let answer = raw.next().await.unwrap();
    assert_eq!(RelayMessage::parse(&answer), Ok(RelayMessage::Pong(*b"stillon?")));
    running.metric("meshrelay_dropped_messages_total{reason=\"unknown_handle\"} 5").await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let running = Running::start(|config| config.limits.clients_per_address = 2);
    let network = Network::new(1);
    let _one = Raw::guest(&running.place, network.id()).await;
    let two = Raw::guest(&running.place, network.id()).await;
    assert!(tls(&running.place, true).await.is_err());
    running.metric("meshrelay_refused_connections_total{reason=\"address_connections\"} 1").await;
    drop(two);
    running.metric("meshrelay_clients{role=\"guest\"} 1").await;
    Raw::guest(&running.place, network.id()).await;
}

#[tokio::test]
async fn one_address_cannot_connect_too_often() {
    let running = Running::start(|config| {
        config.limits.new_clients_per_second = 1;
        config.limits.new_clients_burst = 2;
    });
    for _ in 0..2 {
        assert!(tls(&running.place, true).await.is_ok());
    }
    assert!(tls(&running.place, true).await.is_err());
    running.metric("meshrelay_refused_connections_total{reason=\"address_rate\"} 1").await;
}

#[tokio::test]
async fn a_reader_that_stops_loses_its_own_frames_only() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let (a, b) = (network.member(&running.place, 0), network.mailbox(&running.place));
    a.up().await;
    b.up().await;
    // A guest that never reads, and to whom the mailbox sends more than any buffer holds.
    let mut stuck = Raw::guest(&running.place, network.id()).await;
    stuck.send(ClientMessage::Bind(b.id).encode()).await;
    let bound = stuck.next().await.unwrap();
    let Ok(RelayMessage::Bound(bound)) = RelayMessage::parse(&bound) else { panic!("{bound:?}") };
    stuck
        .send(ClientMessage::Send(Data { handle: bound.handle, segment: None, payload: b"hi" }).encode())
        .await;
    let (guest, ..) = b.frames().await;
    a.sender.bind(b.id).unwrap();
    b.sender.bind(a.id).unwrap();
    let flood = async {
        loop {
            let _ = b.sender.send(guest, bytes::BytesMut::zeroed(60_000), None);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let others = async {
        for number in 0..50_u8 {
            a.send(b.id, &[number]);
            assert_eq!(b.frames().await.1[..], [number]);
        }
        // The stuck one is dropped after two seconds without a byte taken.
        running.metric("meshrelay_ended_connections_total{reason=\"stalled\"} 1").await;
    };
    tokio::select! {
        () = flood => {}
        () = others => {}
    }
}

#[tokio::test]
async fn a_client_that_asks_faster_than_it_reads_gets_every_answer() {
    let running = Running::start(|_| {});
    let network = Network::new(1);
    let mut raw = Raw::connect(&running.place).await;
    let hello = raw.hello().await;
    raw.send(auth(&network.root, &hello, &raw.exporter, Role::Root, network.id(), &[])).await;
    raw.next().await.unwrap();
    for number in 0..4000_u32 {
        let mut node = [0; 32];
        node[..4].copy_from_slice(&number.to_le_bytes());
        raw.send(ClientMessage::Bind(NodeId(node)).encode()).await;
    }
    for _ in 0..4000 {
        let answer = raw.next().await.unwrap();
        assert!(matches!(RelayMessage::parse(&answer), Ok(RelayMessage::Bound(_))));
    }
}

#[tokio::test]
async fn a_flood_of_rosters_is_taken_slowly() {
    let running = Running::start(|_| {});
    let network = Network::new(1);
    let mut raw = Raw::connect(&running.place).await;
    let hello = raw.hello().await;
    raw.send(auth(&network.root, &hello, &raw.exporter, Role::Root, network.id(), &[])).await;
    raw.next().await.unwrap();
    let started = Instant::now();
    for number in 0..25_u8 {
        raw.send(ClientMessage::RosterPut(RosterBlob { version: 1, blob: &[number] }).encode()).await;
    }
    raw.send(ClientMessage::Ping(*b"stillon?").encode()).await;
    let answer = raw.next().await.unwrap();
    assert_eq!(RelayMessage::parse(&answer), Ok(RelayMessage::Pong(*b"stillon?")));
    assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
    running.metric("meshrelay_rosters_taken_total 25").await;
}

#[tokio::test]
async fn tls_without_the_hybrid_exchange_is_still_tls_13() {
    let running = Running::start(|_| {});
    let hybrid = tls(&running.place, true).await.unwrap();
    let group = hybrid.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    let classic = tls(&running.place, false).await.unwrap();
    assert_eq!(classic.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}
