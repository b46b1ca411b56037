//! Who gets in.

use std::sync::Arc;

use mesh_identity::Identity;
use mesh_net::RelayErrorKind;
use mesh_wire::Pin;
use mesh_wire::relay::{ErrorCode, RelayMessage, Role};

use crate::raw::{Raw, auth};
use crate::support::{Client, Network, Place, Running};

async fn refusal(client: &Client) -> RelayErrorKind {
    client.down().await.kind()
}

#[tokio::test]
async fn a_wrong_pin_ends_before_anything_is_said() {
    let running = Running::start(|_| {});
    let network = Network::new(1);
    let wrong = Place { pin: Pin([7; 32]), ..running.place.clone() };
    let client = network.member(&wrong, 0);
    let error = client.down().await;
    assert_eq!(error.kind(), RelayErrorKind::PinMismatch);
    assert!(error.to_string().contains(&running.place.pin.to_string()), "{error}");
    running.metric("meshrelay_tls_errors_total 1").await;
    running.metric("meshrelay_handshakes_total 0").await;
}

#[tokio::test]
async fn a_missing_pin_is_an_error() {
    let network = Network::new(1);
    let config = mesh_net::RelayConfig {
        door: None,
        udp: true,
        url: "wss://127.0.0.1:1".parse().unwrap(),
        pin: None,
        role: Role::Guest,
        net: network.id(),
        identity: network.nodes[0].clone(),
        admission: Vec::new(),
    };
    let client = Client::with_config(config);
    assert_eq!(refusal(&client).await, RelayErrorKind::PinMissing);
}

#[tokio::test]
async fn a_limited_relay_serves_listed_networks_only() {
    let (listed, other) = (Network::new(1), Network::new(1));
    let id = listed.id();
    let running = Running::start(|config| config.networks = Some([id].into()));
    listed.member(&running.place, 0).up().await;
    listed.guest(&running.place).up().await;
    let refused = RelayErrorKind::Auth(ErrorCode::NetworkNotServed);
    assert_eq!(refusal(&other.member(&running.place, 0)).await, refused);
    assert_eq!(refusal(&other.guest(&running.place)).await, refused);
    assert_eq!(refusal(&other.mailbox(&running.place)).await, refused);
    running.metric("meshrelay_auth_failures_total{reason=\"network_not_served\"} 3").await;
}

#[tokio::test]
async fn membership_has_to_be_proven_for_the_own_node_and_network() {
    let running = Running::start(|_| {});
    let (network, other) = (Network::new(2), Network::new(1));
    let refused = RelayErrorKind::Auth(ErrorCode::NotAdmitted);
    let place = &running.place;

    let others_proof =
        Client::start(place, Role::Member, network.id(), network.nodes[0].clone(), network.proof(1));
    assert_eq!(refusal(&others_proof).await, refused);
    let foreign = Client::start(place, Role::Member, network.id(), other.nodes[0].clone(), other.proof(0));
    assert_eq!(refusal(&foreign).await, refused);
    let mut damaged = network.proof(0);
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = Client::start(place, Role::Member, network.id(), network.nodes[0].clone(), damaged);
    assert!(matches!(refusal(&damaged).await, RelayErrorKind::Auth(_)));
    // A member is not the root.
    let usurper = Client::start(place, Role::Root, network.id(), network.nodes[0].clone(), Vec::new());
    assert_eq!(refusal(&usurper).await, refused);
}

#[tokio::test]
async fn a_later_proof_is_used_at_the_next_attempt() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let client =
        Client::start(&running.place, Role::Member, network.id(), network.nodes[0].clone(), network.proof(1));
    assert_eq!(refusal(&client).await, RelayErrorKind::Auth(ErrorCode::NotAdmitted));
    client.client.set_admission(network.proof(0));
    client.client.reconnect_now();
    client
        .wait("Up", |seen| {
            matches!(seen, crate::support::Seen::Event(mesh_net::RelayEvent::Up { .. })).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_signature_counts_for_one_connection_and_one_relay() {
    let (here, there) = (Running::start(|_| {}), Running::start(|_| {}));
    let network = Network::new(1);
    let identity = Arc::new(Identity::generate().unwrap());
    let guest =
        |hello, exporter: &[u8; 32]| auth(&identity, &hello, exporter, Role::Guest, network.id(), &[]);

    // A relay that the client trusts passes on the challenge of another one.
    let (mut client_side, mut forwarded) =
        (Raw::connect(&here.place).await, Raw::connect(&there.place).await);
    let own = client_side.hello().await;
    let foreign = forwarded.hello().await;
    assert_ne!(own.relay_id, foreign.relay_id);
    forwarded.send(guest(foreign, &client_side.exporter)).await;
    assert_eq!(forwarded.refused().await, Some(ErrorCode::BadSignature));

    // The same with the client's own relay id in the hello.
    let mut forwarded = Raw::connect(&there.place).await;
    let challenge = forwarded.hello().await.challenge;
    let exporter = forwarded.exporter;
    forwarded.send(guest(mesh_wire::relay::ServerHello { challenge, ..own }, &exporter)).await;
    assert_eq!(forwarded.refused().await, Some(ErrorCode::BadSignature));

    // A replay on a second connection to the same relay.
    let mut second = Raw::connect(&here.place).await;
    second.hello().await;
    second.send(guest(own, &client_side.exporter)).await;
    assert_eq!(second.refused().await, Some(ErrorCode::BadSignature));

    // The control: the right values are welcome.
    let message = guest(own, &client_side.exporter);
    client_side.send(message).await;
    let welcome = client_side.next().await.unwrap();
    assert!(matches!(RelayMessage::parse(&welcome), Ok(RelayMessage::Welcome(_))));
    there.metric("meshrelay_auth_failures_total{reason=\"bad_signature\"} 2").await;
}

#[tokio::test]
async fn role_and_network_are_signed() {
    let running = Running::start(|_| {});
    let (network, other) = (Network::new(1), Network::new(1));
    for (at, value) in [(2, vec![2]), (3, other.id().0.to_vec())] {
        let mut raw = Raw::connect(&running.place).await;
        let hello = raw.hello().await;
        let exporter = raw.exporter;
        let mut message = auth(&network.root, &hello, &exporter, Role::Guest, network.id(), &[]);
        message[at..at + value.len()].copy_from_slice(&value);
        raw.send(message).await;
        assert_eq!(raw.refused().await, Some(ErrorCode::BadSignature));
    }
}

#[tokio::test]
async fn guests_of_a_network_are_bounded() {
    let running = Running::start(|config| {
        config.limits.guests_per_network = 2;
        config.limits.guests_per_address = 1;
    });
    let (network, other) = (Network::new(1), Network::new(1));
    let first = network.guest(&running.place);
    first.up().await;
    assert_eq!(refusal(&network.guest(&running.place)).await, RelayErrorKind::Auth(ErrorCode::Busy));
    other.guest(&running.place).up().await;
}

#[tokio::test]
async fn a_guest_does_not_stay() {
    let running = Running::start(|config| config.limits.guest_seconds = 1);
    let network = Network::new(1);
    let member = network.member(&running.place, 0);
    member.up().await;
    let guest = network.guest(&running.place);
    guest.up().await;
    assert_eq!(refusal(&guest).await, RelayErrorKind::Auth(ErrorCode::Busy));
    running.metric("meshrelay_ended_connections_total{reason=\"relay\"} 1").await;
    running.metric("meshrelay_clients{role=\"member\"} 1").await;
}
