//! The door of a node: who gets in, and that nobody gets any further.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use mesh_net::{DoorAt, RelayErrorKind};
use mesh_wire::relay::ErrorCode;
use mesh_wire::{NodeId, Pin};
use meshrelay::{Door, DoorConfig, DoorSink};
use tempfile::TempDir;

use crate::support::{Client, Network, Place, Running, wait_for};

/// What the node behind the door hears.
#[derive(Default)]
struct Host {
    removed: Mutex<BTreeSet<NodeId>>,
    frames: Mutex<Vec<(NodeId, BytesMut, Option<u16>)>>,
    guests: Mutex<BTreeMap<NodeId, SocketAddr>>,
}

impl DoorSink for Host {
    fn permits(&self, node: &NodeId) -> bool {
        !self.removed.lock().unwrap().contains(node)
    }

    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        self.frames.lock().unwrap().push((from, payload, segment));
    }

    fn guest(&self, node: NodeId, at: Option<SocketAddr>) {
        let mut guests = self.guests.lock().unwrap();
        match at {
            Some(at) => guests.insert(node, at),
            None => guests.remove(&node),
        };
    }

    fn doubt(&self, _: NodeId, _: bool) {}
}

struct House {
    door: Door,
    host: Arc<Host>,
    place: Place,
    dir: TempDir,
}

impl House {
    /// The door of the first node.
    fn open(network: &Network) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = DoorConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            certificate: dir.path().join("wss.pem"),
            net: network.id(),
            own: network.node(0),
        };
        let host = Arc::new(Host::default());
        let door = Door::start(config, host.clone()).unwrap();
        let place = Place { address: door.addresses()[0], pin: door.pin(), host: Some(network.node(0)) };
        Self { door, host, place, dir }
    }

    async fn frames(&self, count: usize) -> Vec<(NodeId, BytesMut, Option<u16>)> {
        wait_for("frames", async || self.host.frames.lock().unwrap().len() >= count).await;
        self.host.frames.lock().unwrap().clone()
    }

    async fn guest(&self, node: NodeId, present: bool) {
        wait_for("a guest", async || self.host.guests.lock().unwrap().contains_key(&node) == present).await;
        wait_for("the way to it", async || self.door.sender().reaches(&node) == present).await;
    }
}

#[tokio::test]
async fn member_and_the_node_behind_the_door_exchange_frames() {
    let network = Network::new(2);
    let house = House::open(&network);
    let member = network.member(&house.place, 1);
    let observed = member.up().await;
    // The node knows of it before it says anything.
    house.guest(member.id, true).await;
    assert_eq!(house.host.guests.lock().unwrap()[&member.id], observed);
    let sender = house.door.sender();
    sender.send(&member.id, &vec![7; 65_536], Some(1400));
    let (from, payload, segment) = member.frames().await;
    assert_eq!((from, payload.len(), segment), (network.node(0), 65_536, Some(1400)));

    member.sender.bind(network.node(0)).unwrap();
    assert!(member.peer(network.node(0)).await);
    member.send(network.node(0), b"answer");
    assert_eq!(house.frames(1).await, [(member.id, BytesMut::from(&b"answer"[..]), None)]);

    let id = member.id;
    member.client.stop().await;
    house.guest(id, false).await;
    let before = sender.counts();
    sender.send(&id, b"nobody there", None);
    sender.send(&NodeId([9; 32]), b"never there", None);
    assert_eq!(sender.counts().dropped, before.dropped + 2);
    assert_eq!((before.admitted, before.refused), (1, 0));
}

#[tokio::test]
async fn members_do_not_reach_or_see_each_other() {
    let network = Network::new(3);
    let house = House::open(&network);
    let (a, b) = (network.member(&house.place, 1), network.member(&house.place, 2));
    a.up().await;
    b.up().await;
    house.guest(a.id, true).await;
    house.guest(b.id, true).await;
    // Asking is refused, and does not tell whether the other is there.
    a.sender.bind(b.id).unwrap();
    assert!(!a.peer(b.id).await);
    assert!(a.notice().await.contains("may not reach"));
    a.sender.bind(network.node(0)).unwrap();
    a.send(network.node(0), b"to the node");
    assert_eq!(house.frames(1).await[0].1, BytesMut::from(&b"to the node"[..]));
    house.door.sender().send(&b.id, b"from the node", None);
    assert_eq!(b.frames().await.0, network.node(0));
    assert_eq!(b.pending_frames(), 0);
}

#[tokio::test]
async fn strangers_get_nothing() {
    let (network, other) = (Network::new(2), Network::new(2));
    let house = House::open(&network);
    for client in [
        network.guest(&house.place),
        network.mailbox(&house.place),
        // The node itself is inside; somebody else has its keys.
        network.member(&house.place, 0),
    ] {
        assert_eq!(client.down().await.kind(), RelayErrorKind::Auth(ErrorCode::NotAdmitted));
    }
    let foreign = other.member(&house.place, 1).down().await;
    assert_eq!(foreign.kind(), RelayErrorKind::Auth(ErrorCode::NetworkNotServed));
    let wrong = network.member(&Place { pin: Pin([7; 32]), ..house.place.clone() }, 1).down().await;
    assert_eq!(wrong.kind(), RelayErrorKind::PinMismatch);
    assert!(house.host.guests.lock().unwrap().is_empty());
    // The last is counted a moment after its client has left.
    let counts = || house.door.sender().counts();
    wait_for("all counted", async || counts().refused >= 5).await;
    assert_eq!(counts().admitted, 0);
    // The keys of the node did not take its place.
    let member = network.member(&house.place, 1);
    member.up().await;
    house.guest(member.id, true).await;
    house.door.sender().send(&member.id, b"still here", None);
    assert_eq!(member.frames().await.0, network.node(0));
}

#[tokio::test]
async fn who_takes_a_relay_or_another_door_for_the_door_changes_nothing_there() {
    let network = Network::new(3);
    let (house, running) = (House::open(&network), Running::start(|_| {}));
    let at_relay = network.member(&running.place, 1);
    at_relay.up().await;
    let at_door = network.member(&house.place, 1);
    at_door.up().await;
    house.guest(at_door.id, true).await;
    // As a lie of the third node has it.
    for place in [&running.place, &house.place] {
        let lie = Place { host: Some(network.node(2)), ..place.clone() };
        let client = network.member(&lie, 1);
        assert_eq!(client.down().await.kind(), RelayErrorKind::Auth(ErrorCode::BadSignature));
    }
    // Nor does a node take a door for a relay.
    let client = network.member(&Place { host: None, ..house.place.clone() }, 1);
    assert_eq!(client.down().await.kind(), RelayErrorKind::Auth(ErrorCode::BadSignature));
    house.door.sender().send(&at_door.id, b"still here", None);
    assert_eq!(at_door.frames().await.0, network.node(0));
    let other = network.member(&running.place, 2);
    other.up().await;
    other.sender.bind(at_relay.id).unwrap();
    assert!(other.peer(at_relay.id).await);
    other.send(at_relay.id, b"still here");
    assert_eq!(at_relay.frames().await.0, other.id);
}

#[tokio::test]
async fn right_address_is_found_among_wrong_ends() {
    let network = Network::new(2);
    let (house, running) = (House::open(&network), Running::start(|_| {}));
    // Something that hangs up, as a proxy that answers for everybody may, and something with another key.
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs_up = proxy.local_addr().unwrap();
    let proxy = tokio::spawn(async move { while proxy.accept().await.is_ok() {} });
    let mut config = network.config(&house.place, 1);
    config.door = Some(DoorAt {
        host: network.node(0),
        addresses: vec![hangs_up, running.place.address, house.place.address],
    });
    let client = Client::with_config(config);
    client.up().await;
    house.guest(client.id, true).await;
    let mut config = network.config(&house.place, 1);
    config.door = Some(DoorAt { host: network.node(0), addresses: vec![hangs_up, running.place.address] });
    assert_eq!(Client::with_config(config).down().await.kind(), RelayErrorKind::PinMismatch);
    proxy.abort();
}

#[tokio::test]
async fn removed_member_has_to_go_and_is_not_let_in_again() {
    let network = Network::new(3);
    let house = House::open(&network);
    let (removed, stays) = (network.member(&house.place, 1), network.member(&house.place, 2));
    removed.up().await;
    stays.up().await;
    house.guest(removed.id, true).await;
    house.guest(stays.id, true).await;
    house.host.removed.lock().unwrap().insert(removed.id);
    house.door.review();
    assert_eq!(removed.down().await.kind(), RelayErrorKind::Auth(ErrorCode::NotAdmitted));
    house.guest(removed.id, false).await;
    let again = network.member(&house.place, 1).down().await;
    assert_eq!(again.kind(), RelayErrorKind::Auth(ErrorCode::NotAdmitted));
    assert!(house.door.sender().reaches(&stays.id));
}

#[tokio::test]
async fn certificate_stays_and_a_taken_port_is_named() {
    let network = Network::new(1);
    let house = House::open(&network);
    let config = DoorConfig {
        listen: vec![house.place.address],
        certificate: house.dir.path().join("wss.pem"),
        net: network.id(),
        own: network.node(0),
    };
    let error = Door::start(config.clone(), house.host.clone()).unwrap_err().to_string();
    assert!(error.contains(&house.place.address.to_string()) && error.contains("wss.listen"), "{error}");
    house.door.stop().await;
    let door = Door::start(config, house.host.clone()).unwrap();
    assert_eq!(door.pin(), house.place.pin);
}
