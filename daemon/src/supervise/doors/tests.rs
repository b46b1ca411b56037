use std::net::SocketAddr;

use bytes::BytesMut;
use futures_util::FutureExt;
use mesh_identity::{Identity, NewMember, ProofKind, RosterDraft, UnixSeconds, default_pool};
use mesh_net::SendError;
use mesh_wire::roster::{Link, RosterSettings};
use meshrelay::{Door, DoorConfig, DoorSink};
use tokio::time::timeout;

use super::*;

fn doors(relays: &[Pin]) -> Doors {
    let credentials = Credentials {
        net: mesh_wire::NetId([1; 32]),
        identity: Arc::new(Identity::generate().unwrap()),
        admission: vec![1],
        udp: false,
    };
    let mut doors = start(credentials);
    doors.set_relays(relays.iter().copied().collect());
    doors
}

fn start(credentials: Credentials) -> Doors {
    Doors::start(credentials, RelayPool::default(), Arc::new(Inbox::new().unwrap()))
}

/// Who lives behind a door and takes nothing in.
struct Deaf;

impl DoorSink for Deaf {
    fn permits(&self, _: &NodeId) -> bool {
        true
    }
    fn frames(&self, _: NodeId, _: BytesMut, _: Option<u16>) {}
    fn guest(&self, _: NodeId, _: Option<SocketAddr>) {}
    fn doubt(&self, _: NodeId, _: bool) {}
}

/// A network of two, and the credentials of the second.
fn network() -> (NodeId, Credentials) {
    let now = UnixSeconds(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let (root, host, own) =
        (Identity::generate().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap());
    let member = |name: &str| NewMember {
        name: name.parse().unwrap(),
        groups: Default::default(),
        prefixes: Default::default(),
        not_before: now,
        not_after: UnixSeconds(now.0 + 3600),
    };
    let net = root.net_id();
    let settings = RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: default_pool(net, 0),
        link: Link::Tun,
        mtu: 1420,
        relays: Vec::new(),
    };
    let mut draft = RosterDraft::new(root.public(), settings, host.node_id(), member("host")).unwrap();
    draft.admit(own.node_id(), member("own")).unwrap();
    let roster = draft.sign(&root, now, 3600).unwrap();
    let admission = roster.proof(&own.node_id(), ProofKind::WithRoot).unwrap().encode();
    (host.node_id(), Credentials { net, identity: Arc::new(own), admission, udp: false })
}

#[tokio::test]
async fn full_door_holds_up_its_own_peer_only() {
    let (host, credentials) = network();
    let dir = tempfile::tempdir().unwrap();
    let config = DoorConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        certificate: dir.path().join("wss.pem"),
        net: credentials.net,
        own: host,
    };
    let door = Door::start(config, Arc::new(Deaf)).unwrap();
    let mut doors = start(credentials);
    doors.no_direct(host);
    doors.told(host, Some(DoorTold { pin: door.pin(), addresses: door.addresses().to_vec() }));
    assert!(frames(&mut doors, host));
    let stands = async {
        while doors.pool.beside(&host).is_none() {
            if let DoorsEvent::Told(node, event) = doors.next().await {
                doors.heard(node, event);
            }
        }
    };
    timeout(Duration::from_secs(20), stands).await.expect("the door is not reached");
    // The client's task does not run meanwhile, as if the door took nothing.
    let send = || doors.pool.send(host, BytesMut::zeroed(32 * 1024), Some(1024), 0);
    let last = (0..1000).map(|_| send()).find(Result::is_err);
    assert_eq!(last, Some(Err(SendError::QueueFull)));
    assert_eq!(doors.pool.queued_bytes(), 0, "what waits for a door holds up nobody else");
    doors.stop().await;
    door.stop().await;
}

/// Says that there are frames for a peer. Returns whether its door is to be dialled for them.
fn frames(doors: &mut Doors, peer: NodeId) -> bool {
    let _ = doors.pool.send(peer, BytesMut::from(&b"frame"[..]), None, 0);
    let Some(wanted) = doors.pool.doors_wanted().now_or_never() else { return false };
    doors.open_wanted(&wanted);
    doors.peers[&peer].client.is_some()
}

#[tokio::test]
async fn door_that_is_a_relay_is_left_alone() {
    let (peer, relay, own) = (NodeId([2; 32]), Pin([3; 32]), Pin([4; 32]));
    let told = |pin| Some(DoorTold { pin, addresses: vec!["127.0.0.1:9".parse().unwrap()] });
    let mut doors = doors(&[relay]);
    doors.no_direct(peer);
    doors.told(peer, told(relay));
    assert!(!frames(&mut doors, peer));
    assert!(doors.known()[&peer].1.as_ref().unwrap().contains("of a relay"));
    // Another key is its own, until a relay turns out to have it.
    doors.told(peer, told(own));
    assert!(frames(&mut doors, peer));
    doors.set_relays([relay, own].into());
    assert!(doors.peers[&peer].client.is_none() && !frames(&mut doors, peer));
}
