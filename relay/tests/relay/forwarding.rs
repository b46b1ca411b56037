//! What members, mailbox and guests can send each other.

use bytes::BytesMut;
use mesh_net::{RelayErrorKind, SendError};

use crate::support::{Network, Running, wait_for};

#[tokio::test]
async fn two_members_exchange_frames() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let (a, b) = (network.member(&running.place, 0), network.member(&running.place, 1));
    let observed = a.up().await;
    assert!(observed.ip().is_loopback());
    b.up().await;

    // The first frames are sent before the relay has told a handle.
    a.sender.bind(b.id).unwrap();
    a.send(b.id, b"first");
    assert_eq!(b.frames().await, (a.id, BytesMut::from(&b"first"[..]), None));
    // The answer needs no binding of its own.
    b.sender.send(a.id, BytesMut::zeroed(65_536), Some(1_400)).unwrap();
    let (from, payload, segment) = a.frames().await;
    assert_eq!((from, payload.len(), segment), (b.id, 65_536, Some(1_400)));
    running.metric("meshrelay_forwarded_messages_total 2").await;
    running.metric("meshrelay_clients{role=\"member\"} 2").await;
}

#[tokio::test]
async fn a_thousand_frames_keep_their_order() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let (a, b) = (network.member(&running.place, 0), network.member(&running.place, 1));
    a.up().await;
    b.up().await;
    a.sender.bind(b.id).unwrap();
    for number in 0..1000_u32 {
        // No sealed frames: those may take the UDP port, and then overtake.
        let payload = number.to_be_bytes();
        a.send(b.id, &payload);
        if number % 100 == 0 {
            wait_for("room", async || a.sender.queued_bytes() == 0).await;
        }
    }
    let mut last = None;
    while last != Some(999) {
        let (_, payload, _) = b.frames().await;
        let number = u32::from_be_bytes(payload[..].try_into().unwrap());
        assert!(last.is_none_or(|last| last < number));
        last = Some(number);
    }
}

#[tokio::test]
async fn presence_follows_the_other_node() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let a = network.member(&running.place, 0);
    a.up().await;
    a.sender.bind(network.node(1)).unwrap();
    assert!(!a.peer(network.node(1)).await);
    let b = network.member(&running.place, 1);
    assert!(a.peer(b.id).await);
    b.client.stop().await;
    assert!(!a.peer(network.node(1)).await);
    let b = network.member(&running.place, 1);
    assert!(a.peer(b.id).await);
    a.send(b.id, b"again");
    assert_eq!(b.frames().await.1, b"again"[..]);
}

#[tokio::test]
async fn networks_are_strangers_to_each_other() {
    let running = Running::start(|_| {});
    let (one, two) = (Network::new(2), Network::new(1));
    let (a, b, stranger) =
        (one.member(&running.place, 0), one.member(&running.place, 1), two.member(&running.place, 0));
    a.up().await;
    b.up().await;
    stranger.up().await;
    for target in [a.id, one.id().as_party()] {
        stranger.sender.bind(target).unwrap();
        assert!(!stranger.peer(target).await);
        stranger.send(target, b"hello?");
    }
    running.metric("meshrelay_dropped_messages_total{reason=\"absent\"} 2").await;
    b.sender.bind(a.id).unwrap();
    b.send(a.id, b"friend");
    assert_eq!(a.frames().await.0, b.id);
    assert_eq!(a.pending_frames(), 0);
}

#[tokio::test]
async fn a_guest_talks_to_the_mailbox_only() {
    let running = Running::start(|_| {});
    let network = Network::new(1);
    let (mailbox, member) = (network.mailbox(&running.place), network.member(&running.place, 0));
    mailbox.up().await;
    member.up().await;
    let (guest, other) = (network.guest(&running.place), network.guest(&running.place));
    guest.up().await;
    other.up().await;

    guest.sender.bind(mailbox.id).unwrap();
    guest.send(mailbox.id, b"let me in");
    assert_eq!(mailbox.frames().await, (guest.id, BytesMut::from(&b"let me in"[..]), None));
    mailbox.send(guest.id, b"welcome");
    assert_eq!(guest.frames().await.1, b"welcome"[..]);

    for target in [member.id, other.id] {
        guest.sender.bind(target).unwrap();
        assert!(!guest.peer(target).await);
        assert_eq!(guest.sender.send(target, BytesMut::zeroed(1), None), Err(SendError::Unbound));
    }
    // Neither does a member get through to a guest.
    member.sender.bind(guest.id).unwrap();
    assert!(!member.peer(guest.id).await);
    member.send(guest.id, b"psst");
    running.metric("meshrelay_dropped_messages_total{reason=\"not_permitted\"} 1").await;

    // A guest that leaves is forgotten by the mailbox.
    guest.client.stop().await;
    assert!(!mailbox.peer(guest.id).await);
    assert_eq!(mailbox.sender.send(guest.id, BytesMut::zeroed(1), None), Err(SendError::Unbound));
}

#[tokio::test]
async fn the_newest_connection_of_an_id_wins() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let (old, peer) = (network.member(&running.place, 0), network.member(&running.place, 1));
    old.up().await;
    peer.up().await;
    peer.sender.bind(old.id).unwrap();
    assert!(peer.peer(old.id).await);
    let new = network.member(&running.place, 0);
    new.up().await;
    assert_eq!(old.down().await.kind(), RelayErrorKind::Replaced);
    peer.send(new.id, b"for the new one");
    assert_eq!(new.frames().await.0, peer.id);
}

#[tokio::test]
async fn rosters_reach_members_now_and_later() {
    let running = Running::start(|_| {});
    let network = Network::new(2);
    let member = network.member(&running.place, 0);
    member.up().await;
    let mailbox = network.mailbox(&running.place);
    let blob: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    mailbox.sender.put_roster(7, blob.clone().into());
    let (version, found) = member.roster().await;
    assert_eq!((version, &found[..]), (7, &blob[..]));

    let late = network.member(&running.place, 1);
    assert_eq!(late.roster().await.0, 7);
    mailbox.sender.put_roster(6, blob.into());
    assert_eq!(mailbox.notice().await, "this relay holds a newer roster of the network");
    member.sender.put_roster(9, "mine".into());
    assert!(member.notice().await.starts_with("only the holder of the root keys"));
    running.metric("meshrelay_roster_cache_entries 1").await;
}

#[tokio::test]
async fn a_guest_is_slow_and_is_told_so() {
    let running = Running::start(|config| config.limits.guest_bytes_per_second = 20_000);
    let network = Network::new(1);
    let mailbox = network.mailbox(&running.place);
    mailbox.up().await;
    let guest = network.guest(&running.place);
    guest.up().await;
    guest.sender.bind(mailbox.id).unwrap();
    for _ in 0..10 {
        guest.sender.send(mailbox.id, BytesMut::zeroed(3_000), None).unwrap();
    }
    let started = std::time::Instant::now();
    assert!(guest.notice().await.contains("20000 bytes per second"));
    for _ in 0..10 {
        mailbox.frames().await;
    }
    assert!(started.elapsed() > std::time::Duration::from_millis(800));
}

#[tokio::test]
async fn room_is_told_and_a_full_queue_refuses() {
    let running = Running::start(|config| config.limits.bytes_per_second = 2_000_000);
    let network = Network::new(2);
    let (a, b) = (network.member(&running.place, 0), network.member(&running.place, 1));
    a.up().await;
    b.up().await;
    let room = std::sync::Arc::new(tokio::sync::Notify::new());
    let hook = room.clone();
    a.sender.on_room(move || hook.notify_one());
    a.sender.bind(b.id).unwrap();
    assert!(a.peer(b.id).await);
    let full = loop {
        if let Err(error) = a.sender.send(b.id, BytesMut::zeroed(60_000), None) {
            break error;
        }
    };
    assert_eq!(full, SendError::QueueFull);
    tokio::time::timeout(crate::support::PATIENCE, room.notified()).await.unwrap();
    assert!(a.sender.send(b.id, BytesMut::zeroed(60_000), None).is_ok());
}
