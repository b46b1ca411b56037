use futures_util::FutureExt;

use super::*;

fn doors(relays: &[Pin]) -> Doors {
    let credentials = Credentials {
        net: mesh_wire::NetId([1; 32]),
        identity: Arc::new(mesh_identity::Identity::generate().unwrap()),
        admission: vec![1],
        udp: false,
    };
    let mut doors = Doors::start(credentials, RelayPool::default(), Arc::new(Inbox::new().unwrap()));
    doors.set_relays(relays.iter().copied().collect());
    doors
}

/// Says that there are frames for a peer. Returns whether its door is to be dialled for them.
fn frames(doors: &mut Doors, peer: NodeId) -> bool {
    let _ = doors.pool.send(peer, bytes::BytesMut::from(&b"frame"[..]), None, 0);
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
