use super::*;
use crate::queue::{Dropped, Next};
use std::time::Instant;

const NET: NetId = NetId([9; 32]);
const OTHER: NetId = NetId([8; 32]);
const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);
const G: NodeId = NodeId([3; 32]);

fn hub() -> Hub {
    Hub::new(HubLimits {
        handles: 3,
        guest_handles: 1,
        handles_total: 1000,
        guests_per_network: 3,
        guests_per_source: 2,
        rosters: RosterLimits { count: 4, bytes: 1000 },
    })
}

struct Peer {
    member: Member,
    outbox: Arc<Outbox>,
}

fn join(hub: &mut Hub, net: NetId, node: NodeId, role: Role) -> Peer {
    let outbox = Arc::new(Outbox::default());
    let member = hub.join((net, node), role, 1, outbox.clone()).unwrap();
    Peer { member, outbox }
}

impl Peer {
    fn messages(&self) -> Vec<Bytes> {
        let mut dropped = Dropped::default();
        std::iter::from_fn(|| match self.outbox.pop(Instant::now(), &mut dropped) {
            Next::Message(message) => Some(message),
            Next::Nothing | Next::Close => None,
        })
        .collect()
    }

    fn closed(&self) -> bool {
        self.messages();
        self.outbox.pop(Instant::now(), &mut Dropped::default()) == Next::Close
    }

    /// The one BOUND that waits.
    fn bound(&self) -> Bound {
        let messages = self.messages();
        match messages.iter().map(|message| RelayMessage::parse(message).unwrap()).next() {
            Some(RelayMessage::Bound(bound)) => bound,
            other => panic!("{other:?}"),
        }
    }

    fn expect(&self, wanted: &[RelayMessage<'_>]) {
        let messages = self.messages();
        let messages: Vec<_> = messages.iter().map(|message| RelayMessage::parse(message).unwrap()).collect();
        assert_eq!(messages, wanted);
    }
}

fn bind(hub: &mut Hub, peer: &Peer, node: NodeId) -> Bound {
    hub.bind(peer.member, node);
    peer.bound()
}

#[test]
fn members_reach_each_other_and_learn_handles_first() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let b = join(&mut hub, NET, B, Role::Member);
    let to_b = bind(&mut hub, &a, B);
    assert!(to_b.present);
    b.expect(&[]);
    let route = hub.route(a.member, to_b.handle).unwrap();
    b.expect(&[RelayMessage::Bound(Bound { node: A, handle: route.handle, present: true })]);
    assert!(Arc::ptr_eq(&route.outbox, &b.outbox));
    assert_eq!(hub.route(a.member, to_b.handle).unwrap().handle, route.handle);
    b.expect(&[]);
    let back = hub.route(b.member, route.handle).unwrap();
    assert_eq!(back.handle, to_b.handle);
    a.expect(&[]);
}

#[test]
fn presence_is_told_to_who_holds_a_handle() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let to_b = bind(&mut hub, &a, B);
    assert!(!to_b.present);
    assert_eq!(hub.route(a.member, to_b.handle).unwrap_err(), NoRoute::Absent);
    let joins = hub.joins().load(Ordering::Acquire);
    let b = join(&mut hub, NET, B, Role::Member);
    assert!(hub.joins().load(Ordering::Acquire) > joins);
    a.expect(&[RelayMessage::PeerPresent(to_b.handle)]);
    let route = hub.route(a.member, to_b.handle).unwrap();
    hub.leave(b.member);
    assert!(b.closed());
    assert_ne!(route.outbox.epoch(), route.epoch);
    a.expect(&[RelayMessage::PeerGone(to_b.handle)]);
    let _b = join(&mut hub, NET, B, Role::Member);
    a.expect(&[RelayMessage::PeerPresent(to_b.handle)]);
}

#[test]
fn an_unasked_handle_ends_with_its_node() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let b = join(&mut hub, NET, B, Role::Member);
    let to_b = bind(&mut hub, &a, B);
    let unasked = hub.route(a.member, to_b.handle).unwrap().handle;
    b.messages();
    let epoch = b.outbox.epoch();
    hub.leave(a.member);
    b.expect(&[RelayMessage::PeerGone(unasked)]);
    assert_ne!(b.outbox.epoch(), epoch);
    assert_eq!(hub.route(b.member, unasked).unwrap_err(), NoRoute::UnknownHandle);
    assert!(hub.watchers.is_empty());
}

#[test]
fn networks_do_not_see_each_other() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let stranger = join(&mut hub, OTHER, B, Role::Member);
    let to_b = bind(&mut hub, &a, B);
    assert!(!to_b.present);
    assert_eq!(hub.route(a.member, to_b.handle).unwrap_err(), NoRoute::Absent);
    let mailbox = bind(&mut hub, &a, OTHER.as_party());
    assert!(!mailbox.present);
    stranger.expect(&[]);
    let b = join(&mut hub, NET, B, Role::Member);
    hub.route(a.member, to_b.handle).unwrap();
    assert_eq!(b.bound().node, A);
    stranger.expect(&[]);
}

#[test]
fn guests_reach_the_mailbox_only() {
    let mut hub = hub();
    let root = join(&mut hub, NET, NET.as_party(), Role::Root);
    let a = join(&mut hub, NET, A, Role::Member);
    let g = join(&mut hub, NET, G, Role::Guest);
    let h = join(&mut hub, NET, NodeId([4; 32]), Role::Guest);

    hub.bind(g.member, A);
    let refused = RelayMessage::Bound(Bound { node: A, handle: NO_HANDLE, present: false });
    assert_eq!(RelayMessage::parse(&g.messages()[0]), Ok(refused));
    hub.bind(g.member, h.member.party.1);
    g.messages();

    let mailbox = bind(&mut hub, &g, NET.as_party());
    assert!(mailbox.present);
    let route = hub.route(g.member, mailbox.handle).unwrap();
    assert_eq!(root.bound().node, G);
    assert!(hub.route(root.member, route.handle).is_ok());

    let to_guest = bind(&mut hub, &a, G);
    assert!(!to_guest.present);
    assert_eq!(hub.route(a.member, to_guest.handle).unwrap_err(), NoRoute::NotPermitted);
    hub.leave(g.member);
    a.expect(&[]);
    root.expect(&[RelayMessage::PeerGone(route.handle)]);
    assert_eq!(hub.route(root.member, route.handle).unwrap_err(), NoRoute::UnknownHandle);
}

#[test]
fn guests_and_handles_are_bounded() {
    let mut hub = hub();
    let _g = join(&mut hub, NET, G, Role::Guest);
    let _h = join(&mut hub, NET, NodeId([4; 32]), Role::Guest);
    let third = hub.join((NET, NodeId([5; 32])), Role::Guest, 1, Arc::default());
    assert_eq!(third, Err(TooManyGuests));
    join(&mut hub, NET, G, Role::Guest);
    join(&mut hub, OTHER, G, Role::Guest);

    let a = join(&mut hub, NET, A, Role::Member);
    for n in 10..13 {
        assert_ne!(bind(&mut hub, &a, NodeId([n; 32])).handle, NO_HANDLE);
    }
    assert_eq!(bind(&mut hub, &a, NodeId([13; 32])).handle, NO_HANDLE);
    assert_eq!(bind(&mut hub, &a, A).handle, NO_HANDLE);

    let b = join(&mut hub, NET, B, Role::Member);
    let to_a = bind(&mut hub, &b, A);
    assert_eq!(hub.route(b.member, to_a.handle).unwrap_err(), NoRoute::Unwilling);
    assert_eq!(hub.handles.count, 4);
    hub.leave(a.member);
    hub.unbind(b.member, to_a.handle);
    assert_eq!(hub.handles.count, 0);
}

#[test]
fn the_oldest_guest_makes_room() {
    let mut hub = hub();
    let root = join(&mut hub, NET, NET.as_party(), Role::Root);
    let oldest = join(&mut hub, NET, G, Role::Guest);
    let second = join(&mut hub, NET, NodeId([4; 32]), Role::Guest);
    let to_oldest = bind(&mut hub, &root, G);
    assert!(hub.join((NET, NodeId([5; 32])), Role::Guest, 2, Arc::default()).is_ok());
    assert_eq!(hub.census().guests, 3);
    assert!(hub.join((NET, NodeId([6; 32])), Role::Guest, 2, Arc::default()).is_ok());
    assert_eq!(hub.census().guests, 3);
    assert!(matches!(
        RelayMessage::parse(&oldest.messages()[0]),
        Ok(RelayMessage::Error { code: ErrorCode::Busy, .. })
    ));
    assert!(oldest.closed());
    assert!(!second.closed());
    root.expect(&[RelayMessage::PeerGone(to_oldest.handle)]);
    hub.leave(oldest.member);
    assert_eq!(hub.census().guests, 3);
}

#[test]
fn the_newest_connection_wins_and_peers_keep_their_handles() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let old = join(&mut hub, NET, B, Role::Member);
    let to_b = bind(&mut hub, &a, B);
    let route = hub.route(a.member, to_b.handle).unwrap();
    old.messages();
    let new = join(&mut hub, NET, B, Role::Member);
    let messages = old.messages();
    assert!(matches!(
        RelayMessage::parse(&messages[0]),
        Ok(RelayMessage::Error { code: ErrorCode::Replaced, .. })
    ));
    assert!(old.closed());
    assert_ne!(route.outbox.epoch(), route.epoch);
    hub.leave(old.member);
    a.expect(&[RelayMessage::PeerPresent(to_b.handle)]);
    let route = hub.route(a.member, to_b.handle).unwrap();
    assert!(Arc::ptr_eq(&route.outbox, &new.outbox));
    assert_eq!(new.bound().node, A);
    assert_eq!(hub.census().members, 2);
}

#[test]
fn unbinding_ends_the_handle_and_its_watch() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let to_b = bind(&mut hub, &a, B);
    hub.unbind(a.member, to_b.handle);
    hub.unbind(a.member, to_b.handle);
    assert!(hub.watchers.is_empty());
    join(&mut hub, NET, B, Role::Member);
    a.expect(&[]);
    assert_eq!(hub.route(a.member, to_b.handle).unwrap_err(), NoRoute::UnknownHandle);
}

#[test]
fn handle_of_who_left_is_taken_back_and_of_who_came_again_is_not() {
    let mut hub = hub();
    let host = join(&mut hub, NET, A, Role::Member);
    for _ in 0..20 {
        let member = join(&mut hub, NET, B, Role::Member);
        let bound = bind(&mut hub, &host, B);
        assert!(bound.handle != NO_HANDLE && hub.holds(host.member, B));
        assert!(!hub.unbind_absent(host.member, bound.handle), "it is there");
        hub.leave(member.member);
        host.messages();
        assert!(hub.unbind_absent(host.member, bound.handle));
        assert!(!hub.holds(host.member, B) && hub.watchers.is_empty());
    }
}

#[test]
fn behind_a_door_members_reach_the_host_alone() {
    let mut hub = hub();
    let (host, a, b) = (NodeId([7; 32]), A, B);
    let [host, a, b] = [host, a, b].map(|node| join(&mut hub, NET, node, Role::Member));
    // Handles from before the door was closed stand for what a hostile client may guess.
    let (to_b, to_host) = (bind(&mut hub, &a, B), bind(&mut hub, &a, host.member.party.1));
    assert!(hub.route(a.member, to_b.handle).is_ok());
    hub.guard(host.member.party.1);
    assert_eq!(hub.route(a.member, to_b.handle).unwrap_err(), NoRoute::NotPermitted);
    assert!(hub.route(a.member, to_host.handle).is_ok());
    b.messages();
    assert_eq!(bind(&mut hub, &b, A).handle, NO_HANDLE);
}

#[test]
fn rosters_go_to_members_of_the_network_and_to_later_ones() {
    let mut hub = hub();
    let root = join(&mut hub, NET, NET.as_party(), Role::Root);
    let a = join(&mut hub, NET, A, Role::Member);
    let g = join(&mut hub, NET, G, Role::Guest);
    let other = join(&mut hub, OTHER, A, Role::Member);
    let blob = Bytes::from_static(b"roster message");
    assert_eq!(hub.put_roster(root.member, 1, blob.clone()), Ok(()));
    assert_eq!(a.messages(), std::slice::from_ref(&blob));
    assert_eq!(hub.put_roster(root.member, 1, blob.clone()), Ok(()));
    assert!(a.messages().is_empty());
    assert!(g.messages().is_empty() && other.messages().is_empty() && root.messages().is_empty());
    let b = join(&mut hub, NET, B, Role::Member);
    assert_eq!(b.messages(), [blob]);
    assert_eq!(hub.put_roster(root.member, 0, Bytes::new()), Err(PutError::Stale));
    assert_eq!(hub.census().rosters, 1);
}

#[test]
fn a_restart_is_told_to_all() {
    let mut hub = hub();
    let a = join(&mut hub, NET, A, Role::Member);
    let b = join(&mut hub, OTHER, B, Role::Guest);
    hub.restart(1, 2);
    for peer in [&a, &b] {
        peer.expect(&[RelayMessage::Restarting { min_ms: 1, max_ms: 2 }]);
        assert!(peer.closed());
    }
    hub.leave(a.member);
    hub.leave(b.member);
    let empty = Census { members: 0, roots: 0, guests: 0, networks: 0, rosters: 0, roster_bytes: 0 };
    assert_eq!(hub.census(), empty);
    assert_eq!(hub.handles.count, 0);
    assert!(hub.watchers.is_empty());
}
