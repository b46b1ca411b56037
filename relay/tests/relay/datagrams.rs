//! Frames over the UDP port, by the real client.

use bytes::BytesMut;
use mesh_net::{RelayConfig, RelayEvent};
use mesh_wire::RelayUrl;
use mesh_wire::frame::SEALED;
use mesh_wire::relay::Role;
use meshrelay::UdpListen;

use crate::support::{Client, Network, Running, Seen};

fn frame(len: usize, mark: u8) -> Vec<u8> {
    let mut frame = vec![mark; len];
    frame[0] = SEALED;
    frame
}

async fn both_up(relay: &Running, network: &Network) -> [Client; 2] {
    let [one, two] = [0, 1].map(|number| network.member(&relay.place, number));
    for (client, peer) in [(&one, two.id), (&two, one.id)] {
        client.up().await;
        client.sender.bind(peer).unwrap();
    }
    present(&one, &two).await;
    [one, two]
}

/// Marks the frames that begin the proof.
const FIRST: u8 = 1;

async fn present(one: &Client, two: &Client) {
    // Whoever came first heard of an absent peer before.
    while !one.peer(two.id).await {}
    while !two.peer(one.id).await {}
}

/// Frames make the clients prove their addresses.
async fn both_over_udp(clients: [&Client; 2]) {
    for (from, to) in [(clients[0], clients[1]), (clients[1], clients[0])] {
        from.send(to.id, &frame(100, FIRST));
    }
    for client in clients {
        client
            .wait("Udp", |seen| match seen {
                Seen::Event(RelayEvent::Udp(udp)) => udp.then_some(()),
                Seen::Event(_) | Seen::Frames(..) => None,
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_every_length_arrive_whole_by_both_ways() {
    let network = Network::new(2);
    let relay = Running::start(|_| {});
    let [one, two] = both_up(&relay, &network).await;
    both_over_udp([&one, &two]).await;
    // Of these only the longest does not fit a datagram, and the others wait for nothing behind it.
    let batch = [frame(300, 2), frame(300, 3), frame(300, 4), frame(40, 5)].concat();
    let long = frame(3000, 6);
    let rounds = 200;
    for _ in 0..rounds {
        one.sender.send(two.id, BytesMut::from(&batch[..]), Some(300)).unwrap();
        one.send(two.id, &long);
        one.send(two.id, &frame(64, 7));
        let mut got = Vec::new();
        while got.iter().map(Vec::len).sum::<usize>() < batch.len() + long.len() + 64 {
            let (from, payload, segment) = two.frames().await;
            assert_eq!(from, one.id);
            if payload[1] == FIRST {
                continue;
            }
            let segment = segment.map_or(payload.len(), usize::from);
            got.extend(payload.chunks(segment).map(<[u8]>::to_vec));
        }
        got.sort();
        let mut wanted: Vec<_> =
            batch.chunks(300).map(<[u8]>::to_vec).chain([long.clone(), frame(64, 7)]).collect();
        wanted.sort();
        assert_eq!(got, wanted);
    }
    relay.metric("meshrelay_udp_dropped_datagrams_total{reason=\"rate\"} 0").await;
    relay.metric("meshrelay_udp_dropped_datagrams_total{reason=\"socket_full\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_can_do_without() {
    let network = Network::new(2);
    let relay = Running::start(|config| config.udp_listen = UdpListen::Off);
    assert_eq!(relay.relay.udp_port(), None);
    let [one, two] = both_up(&relay, &network).await;
    one.send(two.id, &frame(100, 1));
    assert_eq!(two.frames().await.1, frame(100, 1));

    // A client that does not want it reaches one that does.
    let relay = Running::start(|_| {});
    assert!(relay.relay.udp_port().is_some());
    let url = RelayUrl::new(&relay.place.address.ip().to_string(), relay.place.address.port()).unwrap();
    let plain = Client::with_config(RelayConfig {
        door: None,
        udp: false,
        url,
        pin: Some(relay.place.pin),
        role: Role::Member,
        net: network.id(),
        identity: network.nodes[0].clone(),
        admission: network.proof(0),
    });
    let other = network.member(&relay.place, 1);
    plain.up().await;
    other.up().await;
    plain.sender.bind(other.id).unwrap();
    other.sender.bind(plain.id).unwrap();
    present(&plain, &other).await;
    for mark in 0..50 {
        plain.send(other.id, &frame(100, mark));
        assert_eq!(other.frames().await.1, frame(100, mark));
        other.send(plain.id, &frame(100, mark));
        assert_eq!(plain.frames().await.1, frame(100, mark));
    }
    relay.metric("meshrelay_udp_forwarded_bytes_total 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_answer_and_are_counted() {
    let relay = Running::start(|_| {});
    let port = relay.relay.udp_port().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in [&[0xa8; 100][..], &[0xa0; 1472], &[0; 1], &[0xa2; 49], &[7; 9000]] {
        socket.send_to(datagram, ("127.0.0.1", port)).unwrap();
    }
    relay.metric("meshrelay_udp_ignored_total{reason=\"stranger\"} 5").await;
    relay.metric("meshrelay_udp_answers_total 0").await;
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
