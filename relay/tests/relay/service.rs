//! Start, stop, restart, heartbeats, STUN and the status pages.

use std::time::Duration;

use mesh_net::{RelayErrorKind, RelayEvent};
use mesh_wire::relay::{ClientMessage, RelayMessage};
use mesh_wire::stun::{BindingRequest, BindingSuccess, Change};
use meshrelay::Relay;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::raw::Raw;
use crate::support::{Network, PATIENCE, Running, Seen, http_get};

#[tokio::test]
async fn clients_come_back_after_a_restart_and_bind_again() {
    let mut running = Running::start(|config| {
        config.limits.restart_min_ms = 250;
        config.limits.restart_max_ms = 300;
    });
    let network = Network::new(2);
    let (a, b) = (network.member(&running.place, 0), network.member(&running.place, 1));
    a.up().await;
    b.up().await;
    a.sender.bind(b.id).unwrap();
    assert!(a.peer(b.id).await);

    running.relay.stop().await;
    let (min, max) = (Duration::from_millis(250), Duration::from_millis(300));
    let retry_in = a
        .wait("Down", |seen| match seen {
            Seen::Event(RelayEvent::Down { reason, retry_in }) => {
                assert_eq!(reason.kind(), RelayErrorKind::Restarting { min, max });
                Some(retry_in)
            }
            _ => None,
        })
        .await;
    assert!((min..=max).contains(&retry_in), "{retry_in:?}");
    assert!(a.sender.send(b.id, (&b"lost"[..]).into(), None).is_err());

    let mut config = crate::support::config(running.dir.path());
    config.listen = vec![running.place.address];
    running.relay = Relay::start(config).unwrap();
    assert_eq!(running.relay.pin(), running.place.pin);
    while !a.peer(b.id).await {}
    a.send(b.id, b"back");
    assert_eq!(b.frames().await.1, b"back"[..]);
}

#[tokio::test]
async fn a_relay_that_is_not_there_yet_is_found_later() {
    let mut running = Running::start(|_| {});
    let network = Network::new(1);
    running.relay.stop().await;
    let a = network.member(&running.place, 0);
    assert_eq!(a.down().await.kind(), RelayErrorKind::Refused);
    let mut config = crate::support::config(running.dir.path());
    config.listen = vec![running.place.address];
    running.relay = Relay::start(config).unwrap();
    a.wait("Up", |seen| matches!(seen, Seen::Event(RelayEvent::Up { .. })).then_some(())).await;
}

#[tokio::test]
async fn silent_clients_are_asked_and_dropped() {
    let running = Running::start(|config| config.limits.heartbeat_seconds = 1);
    let network = Network::new(1);
    let answering = network.member(&running.place, 0);
    answering.up().await;
    let mut silent = Raw::guest(&running.place, network.id()).await;
    let mut pings = 0;
    while let Some(message) = silent.next().await {
        pings += usize::from(matches!(RelayMessage::parse(&message), Ok(RelayMessage::Ping(_))));
    }
    assert_eq!(pings, 3);
    running.metric("meshrelay_ended_connections_total{reason=\"silent\"} 1").await;
    running.metric("meshrelay_clients{role=\"member\"} 1").await;
}

/// Passes one connection on to a relay until it is told to freeze; then both sockets stay open and nothing passes.
async fn pass_on(
    listener: tokio::net::TcpListener,
    target: std::net::SocketAddr,
    frozen: tokio::sync::oneshot::Receiver<()>,
) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut relay = tokio::net::TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut relay) => {}
        _ = frozen => {}
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_silent_relay_is_noticed() {
    // A relay that stops reading is played by a proxy that stops forwarding; see `mesh-net` for the timers themselves.
    let running = Running::start(|config| config.limits.heartbeat_seconds = 1);
    let network = Network::new(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut place = running.place.clone();
    place.address = listener.local_addr().unwrap();
    let (freeze, frozen) = tokio::sync::oneshot::channel::<()>();
    let a = network.member(&place, 0);
    let test = async {
        a.up().await;
        freeze.send(()).unwrap();
        assert_eq!(a.down().await.kind(), RelayErrorKind::Closed);
    };
    tokio::select! {
        () = pass_on(listener, running.place.address, frozen) => {}
        () = test => {}
    }
}

#[tokio::test]
async fn a_silent_relay_is_noticed_before_its_heartbeat_under_traffic() {
    let running = Running::start(|config| config.limits.heartbeat_seconds = 30);
    let network = Network::new(2);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut place = running.place.clone();
    place.address = listener.local_addr().unwrap();
    let (freeze, frozen) = tokio::sync::oneshot::channel::<()>();
    let (a, b) = (network.member(&place, 0), network.member(&running.place, 1));
    let test = async {
        a.up().await;
        b.up().await;
        a.sender.bind(b.id).unwrap();
        assert!(a.peer(b.id).await);
        b.sender.bind(a.id).unwrap();
        assert!(b.peer(a.id).await);
        freeze.send(()).unwrap();
        a.send(b.id, b"lost");
        b.send(a.id, b"lost");
        let ended = timeout(Duration::from_secs(9), a.down());
        // No peer answers this one either, but its relay answers the question that follows.
        let kept = timeout(Duration::from_secs(6), b.down());
        let (ended, kept) = tokio::join!(ended, kept);
        let reason = ended.expect("still waiting for an answer");
        assert!(matches!(reason, mesh_net::RelayError::Silent), "{reason}");
        assert!(kept.is_err(), "a relay that answers was given up");
    };
    tokio::select! {
        () = pass_on(listener, running.place.address, frozen) => {}
        () = test => {}
    }
}

#[tokio::test]
async fn stopping_a_client_flushes_what_it_has_queued() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let (a, b) = (network.member(&running.place, 0), network.member(&running.place, 1));
    a.up().await;
    b.up().await;
    a.sender.bind(b.id).unwrap();
    assert!(a.peer(b.id).await);
    a.send(b.id, b"goodbye");
    a.client.stop().await;
    assert_eq!(b.frames().await.1, b"goodbye"[..]);
}

#[tokio::test]
async fn stun_tells_the_mapped_address_and_ignores_the_rest() {
    let running = Running::start(|_| {});
    let server = running.relay.stun_addresses()[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&b"hello"[..], &[0; 20], &[0; 1200]] {
        socket.send_to(junk, server).await.unwrap();
    }
    let request = BindingRequest { transaction: [7; 12], fingerprint: true, change: None };
    socket.send_to(&request.encode(), server).await.unwrap();
    let mut answer = [0; 600];
    let (len, from) = timeout(PATIENCE, socket.recv_from(&mut answer)).await.unwrap().unwrap();
    assert_eq!((len, from), (40, server));
    let answer = BindingSuccess::parse(&answer[..len]).unwrap();
    assert_eq!(answer.transaction, [7; 12]);
    assert_eq!(answer.mapped, socket.local_addr().unwrap());
    running.metric("meshrelay_stun_answers_total 1").await;
    running.metric("meshrelay_stun_ignored_total 3").await;
}

#[tokio::test]
async fn both_stun_ports_tell_the_same_address_without_a_nat() {
    let running = Running::start(|_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let request = BindingRequest { transaction: [8; 12], fingerprint: false, change: None };
    let servers = running.relay.stun_addresses();
    assert!(servers.len() == 2 && servers[0] != servers[1]);
    for server in servers {
        socket.send_to(&request.encode(), server).await.unwrap();
        let mut answer = [0; 600];
        let (len, from) = timeout(PATIENCE, socket.recv_from(&mut answer)).await.unwrap().unwrap();
        assert_eq!(from, *server);
        assert_eq!(BindingSuccess::parse(&answer[..len]).unwrap().mapped, socket.local_addr().unwrap());
    }
}

#[tokio::test]
async fn the_other_stun_port_answers_when_asked_to() {
    let running = Running::start(|_| {});
    let [first, second] = *running.relay.stun_addresses() else { panic!("two ports") };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ask = |address, port| {
        let change = Some(Change { address, port });
        BindingRequest { transaction: [9; 12], fingerprint: false, change }.encode()
    };
    // There is no second address, so this one stays without an answer.
    socket.send_to(&ask(true, false), first).await.unwrap();
    for (port, expected) in [(true, second), (false, first)] {
        socket.send_to(&ask(false, port), first).await.unwrap();
        let mut answer = [0; 600];
        let (len, from) = timeout(PATIENCE, socket.recv_from(&mut answer)).await.unwrap().unwrap();
        assert_eq!(from, expected);
        let answer = BindingSuccess::parse(&answer[..len]).unwrap();
        assert_eq!((answer.origin, answer.other), (Some(expected), Some(second)));
        assert_eq!(answer.mapped, socket.local_addr().unwrap());
    }
    running.metric("meshrelay_stun_ignored_total 1").await;
}

#[tokio::test]
async fn health_and_metrics_answer() {
    let running = Running::start(|_| {});
    let address = running.relay.metrics_address().unwrap();
    assert!(http_get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let metrics = http_get(address, "/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("\nmeshrelay_networks 0\n"));
    assert!(http_get(address, "/").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_port_in_use_says_what_to_do() {
    let running = Running::start(|_| {});
    let mut config = crate::support::config(running.dir.path());
    config.listen = vec![running.place.address];
    // The kernel shares a TCP port between listeners only with SO_REUSEPORT, which is not set.
    let error = Relay::start(config).unwrap_err().to_string();
    let start = format!("cannot listen on {} (", running.place.address);
    assert!(error.starts_with(&start) && error.contains("change listen in the configuration"), "{error}");
}

#[tokio::test]
async fn several_hundred_clients_fit_on_one_relay() {
    let running = Running::start(|config| {
        config.limits.clients_per_address = 1000;
        config.limits.new_clients_burst = 1000;
        config.limits.guests_per_network = 1000;
        config.limits.guests_per_address = 1000;
    });
    let network = Network::new(1);
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Raw::guest(&running.place, network.id()).await);
    }
    running.metric("meshrelay_clients{role=\"guest\"} 200").await;
    for client in &mut clients {
        client.send(ClientMessage::Ping(*b"01234567").encode()).await;
        assert_eq!(client.next().await.unwrap(), RelayMessage::Pong(*b"01234567").encode());
    }
}
