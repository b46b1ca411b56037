//! Peers that have a session and the certificate they named, but do not keep to the protocol.

use std::time::Duration;

use mesh_wire::channel::{CloseCode, Info, Preamble};
use quinn::{Connection, ConnectionError, SendStream};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls_pki_types::CertificateDer;

use super::super::QuicEvent;
use super::super::tls::{Identity, crypto_provider};
use super::harness::{Bare, Net, Node, Weather, in_time, node_id};
use super::{A, B, SESSION};

fn preamble() -> Vec<u8> {
    Preamble { protocol: "control", version: 1 }.encode()
}

fn info() -> Vec<u8> {
    Info { version: "1", os: "x" }.encode()
}

fn block(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

fn close_code(error: &ConnectionError) -> Option<CloseCode> {
    let ConnectionError::ApplicationClosed(close) = error else { return None };
    CloseCode::from_code(close.error_code.into_inner())
}

/// Starts a node B and connects a bare stack in the place of A, which passes as far as TLS is concerned.
async fn connected(patience: Duration) -> (Node, Bare, Connection) {
    let net = Net::new(Weather::FINE);
    let mut b = Node::start_with(&net, B, patience);
    let bare = Bare::start(&net, A, Identity::generate().unwrap());
    b.endpoint.expect(A, bare.identity.pin(), false);
    let connection = bare.connect(B, b.pin).await.unwrap();
    b.ready().await;
    (b, bare, connection)
}

async fn opened(connection: &Connection, bytes: &[u8]) -> (SendStream, quinn::RecvStream) {
    let (mut send, recv) = in_time(connection.open_bi()).await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, recv)
}

#[tokio::test]
async fn a_broken_control_channel_costs_the_connection() {
    let long = block(&[7; 1025]);
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("other protocol", Preamble { protocol: "cache", version: 1 }.encode(), "not the control channel"),
        ("other version", Preamble { protocol: "control", version: 2 }.encode(), "not the control channel"),
        ("empty block", vec![0, 0], "cut short"),
        ("long preamble", block(&[40; 60]), "protocol name is too long"),
        ("no info first", [preamble(), block(&[9])].concat(), "not once and first"),
        ("info twice", [preamble(), info(), info()].concat(), "not once and first"),
        ("info of two lengths", [preamble(), block(&[1, 0, 0, 0])].concat(), "trailing"),
        ("escape", [preamble(), block(b"\x01\x01\x1b\0")].concat(), "software version has an invalid"),
        ("long block", [preamble(), info(), long].concat(), "block is too long"),
        ("no preamble", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "block is too long"),
    ];
    for (name, bytes, reason) in cases {
        let (mut b, _bare, connection) = connected(Duration::from_secs(10)).await;
        let _stream = opened(&connection, bytes).await;
        let error = in_time(connection.closed()).await;
        assert_eq!(close_code(&error), Some(CloseCode::Protocol), "{name}: {error}");
        let lost = b.until(|event| matches!(event, QuicEvent::Lost { .. })).await;
        assert!(
            matches!(&lost, QuicEvent::Lost { reason: why, .. } if why.contains(reason)),
            "{name}: {lost:?}"
        );
        assert!(b.endpoint.shared.peers.connection(A).is_none());
    }
}

#[tokio::test]
async fn an_ended_control_channel_costs_the_connection() {
    for reset in [false, true] {
        let (_b, _bare, connection) = connected(Duration::from_secs(10)).await;
        let (mut send, _recv) = opened(&connection, &[preamble(), info()].concat()).await;
        if reset {
            send.reset(5_u32.into()).unwrap();
        } else {
            send.finish().unwrap();
        }
        let error = in_time(connection.closed()).await;
        assert_eq!(close_code(&error), Some(CloseCode::Protocol), "{error}");
    }
}

#[tokio::test]
async fn messages_of_later_versions_are_skipped() {
    let (mut b, _bare, connection) = connected(Duration::from_secs(10)).await;
    let later: Vec<u8> = (2..=255).flat_map(|kind| block(&[&[kind; 1][..], &[0; 1000]].concat())).collect();
    let (mut send, mut recv) = opened(&connection, &[preamble(), info(), later].concat()).await;
    assert_eq!(b.info().await.os, "x");
    let mut theirs = [0; 3];
    in_time(recv.read_exact(&mut theirs)).await.unwrap();
    assert_eq!(theirs[2], 1);
    assert!(connection.close_reason().is_none());
    // A second INFO is judged, so everything before it was read.
    send.write_all(&info()).await.unwrap();
    let error = in_time(connection.closed()).await;
    assert_eq!(close_code(&error), Some(CloseCode::Protocol), "{error}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_dropped() {
    let (mut b, _bare, connection) = connected(Duration::from_millis(500)).await;
    let error = in_time(connection.closed()).await;
    assert_eq!(close_code(&error), Some(CloseCode::Timeout), "{error}");
    assert_eq!(b.lost().await, "the peer did not answer in time");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_never_ready() {
    let net = Net::new(Weather::FINE);
    let mut a = Node::start_with(&net, A, Duration::from_millis(500));
    let bare = Bare::start(&net, B, Identity::generate().unwrap());
    bare.serve(A, a.pin);
    a.endpoint.expect(B, bare.identity.pin(), false);
    let connection = in_time(bare.endpoint.accept()).await.unwrap().await.unwrap();
    assert_eq!(a.lost().await, "the peer did not answer in time");
    assert_eq!(close_code(&in_time(connection.closed()).await), Some(CloseCode::Timeout));
    // It tries again.
    in_time(bare.endpoint.accept()).await.unwrap().refuse();
    assert!(!a.lost().await.is_empty());
}

#[tokio::test]
async fn no_stream_but_the_control_channel_can_be_opened() {
    let (_b, _bare, connection) = connected(Duration::from_secs(10)).await;
    let _control = opened(&connection, &[preamble(), info()].concat()).await;
    let pending = Duration::from_millis(200);
    assert!(tokio::time::timeout(pending, connection.open_bi()).await.is_err());
    assert!(tokio::time::timeout(pending, connection.open_uni()).await.is_err());
    assert_eq!(connection.max_datagram_size(), None);
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let (b, _bare, connection) = connected(Duration::from_secs(10)).await;
    let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();

    // As a server towards a client that expects the certificate of B.
    let net = Net::new(Weather::FINE);
    let mut a = Node::start(&net, A);
    let forger = Bare::start(&net, B, Identity::forged(chain[0].clone()));
    assert_eq!(forger.identity.pin(), b.pin);
    forger.serve(A, a.pin);
    a.endpoint.expect(B, b.pin, false);
    let accepted = in_time(forger.endpoint.accept()).await.unwrap();
    assert!(in_time(async { accepted.await }).await.is_err());
    assert!(a.lost().await.contains("the cryptographic handshake failed"));

    // As a client towards a server that expects it.
    let net = Net::new(Weather::FINE);
    let mut c = Node::start(&net, node_id(3));
    let forger = Bare::start(&net, B, Identity::forged(chain[0].clone()));
    c.endpoint.expect(B, b.pin, false);
    let connection = forger.connect(node_id(3), c.pin).await;
    assert!(c.lost().await.contains("the cryptographic handshake failed"));
    if let Ok(connection) = connection {
        in_time(connection.closed()).await;
    }
    assert!(c.endpoint.shared.peers.connection(B).is_none());
}

#[tokio::test]
async fn a_peer_that_should_be_the_server_cannot_connect() {
    let net = Net::new(Weather::FINE);
    let a = Node::start(&net, A);
    let bare = Bare::start(&net, B, Identity::generate().unwrap());
    a.endpoint.expect(B, bare.identity.pin(), false);
    let error = bare.connect(A, a.pin).await.unwrap_err();
    assert!(
        matches!(&error, ConnectionError::ConnectionClosed(close)
        if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_cannot_make_us_begin_handshakes_without_end() {
    let net = Net::new(Weather::FINE);
    let b = Node::start(&net, B);
    let bare = Bare::start(&net, A, Identity::generate().unwrap());
    b.endpoint.expect(A, bare.identity.pin(), false);
    let mut refused = 0;
    for _ in 0..30 {
        if let Err(ConnectionError::ConnectionClosed(close)) = bare.connect(B, b.pin).await {
            assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert!(b.endpoint.shared.endpoint.stats().accepted_handshakes < 30);
}

#[tokio::test]
async fn a_key_exchange_without_ml_kem_is_refused_both_ways() {
    let classic = || CryptoProvider { kx_groups: vec![provider::kx_group::X25519], ..crypto_provider() };
    let net = Net::new(Weather::FINE);
    let mut b = Node::start(&net, B);
    let bare = Bare::start(&net, A, Identity::with_provider(classic()).unwrap());
    b.endpoint.expect(A, bare.identity.pin(), false);
    let error = bare.connect(B, b.pin).await.unwrap_err();
    // TLS alert 40, handshake_failure.
    assert!(
        matches!(&error, ConnectionError::ConnectionClosed(close)
        if close.error_code == quinn::TransportErrorCode::crypto(40)),
        "{error}"
    );
    assert!(!b.lost().await.is_empty());

    let mut a = Node::start(&net, A);
    let bare = Bare::start(&net, B, Identity::with_provider(classic()).unwrap());
    bare.serve(A, a.pin);
    a.endpoint.expect(B, bare.identity.pin(), false);
    assert!(in_time(async { bare.endpoint.accept().await.unwrap().await }).await.is_err());
    assert!(a.lost().await.contains("error 40"));
}

#[tokio::test]
async fn a_peer_that_prefers_another_key_exchange_ends_up_with_the_hybrid_one() {
    let groups = vec![provider::kx_group::X25519, provider::kx_group::X25519MLKEM768];
    let both = CryptoProvider { kx_groups: groups, ..crypto_provider() };
    let net = Net::new(Weather::FINE);
    let mut b = Node::start(&net, B);
    let bare = Bare::start(&net, A, Identity::with_provider(both).unwrap());
    b.endpoint.expect(A, bare.identity.pin(), false);
    let connection = bare.connect(B, b.pin).await.unwrap();
    let id = b.ready().await;
    let mut theirs = [0; 64];
    connection.export_keying_material(&mut theirs, b"EXPORTER-ShadowMesh-Mix", &SESSION).unwrap();
    assert_eq!(theirs, **b.endpoint.exporter(A, id, &SESSION).unwrap());
}
