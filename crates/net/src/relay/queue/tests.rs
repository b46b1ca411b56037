use super::*;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);

fn up() -> Queue {
    let mut queue = Queue::new();
    queue.connected();
    queue
}

fn bound(queue: &mut Queue, node: NodeId, handle: u32) {
    queue.bound(&Bound { node, handle, present: true }).unwrap();
}

fn frames(len: usize) -> BytesMut {
    BytesMut::zeroed(len)
}

#[test]
fn frames_wait_for_their_handle_and_pass_nobody() {
    let mut queue = up();
    queue.bind(A).unwrap();
    queue.bind(B).unwrap();
    queue.send(A, frames(10), None).unwrap();
    queue.send(B, frames(20), Some(7)).unwrap();
    assert_eq!(queue.pop().unwrap(), ClientMessage::Bind(A).encode());
    assert_eq!(queue.pop().unwrap(), ClientMessage::Bind(B).encode());
    assert_eq!(queue.pop(), None);
    assert_eq!(queue.queued_bytes(), 30);

    bound(&mut queue, B, 5);
    let data = Data { handle: 5, segment: Some(7), payload: &[0; 20] };
    assert_eq!(queue.pop().unwrap(), ClientMessage::Send(data).encode());
    bound(&mut queue, A, 6);
    let data = Data { handle: 6, segment: None, payload: &[0; 10] };
    assert_eq!(queue.pop().unwrap(), ClientMessage::Send(data).encode());
    assert_eq!(queue.queued_bytes(), 0);
}

#[test]
fn frames_for_another_way_keep_their_place() {
    let mut queue = up();
    bound(&mut queue, A, 1);
    for len in [10, 2000, 20] {
        queue.send(A, frames(len), None).unwrap();
    }
    let short = |payload: &[u8], _: Option<u16>| payload.len() < 1000;
    assert_eq!(queue.pop_message(short), None, "the first is kept");
    let first = queue.pop_frames(short).unwrap();
    assert_eq!((first.handle, first.payload.len(), first.segment, first.class), (1, 10, None, 0));
    assert_eq!(queue.pop_frames(short), None, "a long one is in front");
    assert!(queue.pop_message(short).is_some_and(|message| message.len() > 2000));
    assert_eq!(queue.pop_frames(short).unwrap().payload.len(), 20);
    assert_eq!(queue.queued_bytes(), 0);
}

#[test]
fn frames_keep_their_traffic_class_while_they_wait_for_a_handle() {
    let mut queue = up();
    queue.bind(A).unwrap();
    queue.send_as(A, frames(10), None, 0xb9).unwrap();
    bound(&mut queue, A, 1);
    queue.send_as(A, frames(20), Some(7), 3).unwrap();
    let classes: Vec<u8> =
        std::iter::from_fn(|| queue.pop_frames(|_, _| true)).map(|frames| frames.class).collect();
    assert_eq!(classes, [0xb9, 3]);
}

#[test]
fn control_and_bindings_go_before_frames() {
    let mut queue = up();
    bound(&mut queue, A, 1);
    queue.send(A, frames(1), None).unwrap();
    queue.put_roster(3, Bytes::from_static(b"sealed"));
    queue.bind(B).unwrap();
    queue.push_control(ClientMessage::Pong([0; 8]).encode());
    let kinds: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|message| message[0]).collect();
    assert_eq!(kinds, [0x0a, 0x04, 0x0e, 0x10]);
}

#[test]
fn a_full_queue_refuses_and_tells_when_half_is_free() {
    let mut queue = up();
    bound(&mut queue, A, 1);
    for _ in 0..8 {
        queue.send(A, frames(RELAY_PAYLOAD), None).unwrap();
    }
    assert_eq!(queue.send(A, frames(1), None), Err(SendError::QueueFull));
    for _ in 0..4 {
        queue.pop().unwrap();
        assert!(!queue.take_room());
    }
    queue.pop().unwrap();
    assert!(queue.take_room());
    assert!(!queue.take_room());
}

#[test]
fn unknown_nodes_odd_sizes_and_no_connection_are_told_apart() {
    let mut queue = Queue::new();
    queue.bind(A).unwrap();
    assert_eq!(queue.send(A, frames(1), None), Err(SendError::Down));
    queue.connected();
    assert_eq!(queue.send(B, frames(1), None), Err(SendError::Unbound));
    assert_eq!(queue.send(A, frames(0), None), Err(SendError::Size));
    assert_eq!(queue.send(A, frames(RELAY_PAYLOAD + 1), None), Err(SendError::Size));
    assert_eq!(queue.send(A, frames(1), Some(0)), Err(SendError::Size));
}

#[test]
fn a_new_connection_binds_again_and_drops_old_frames() {
    let mut queue = up();
    queue.bind(A).unwrap();
    queue.pop().unwrap();
    bound(&mut queue, A, 1);
    bound(&mut queue, B, 2);
    queue.send(A, frames(300_000), None).unwrap_err();
    for _ in 0..5 {
        queue.send(A, frames(RELAY_PAYLOAD), None).unwrap();
    }
    assert!(queue.disconnected());
    assert_eq!(queue.queued_bytes(), 0);
    queue.connected();
    assert_eq!(queue.pop().unwrap(), ClientMessage::Bind(A).encode());
    assert_eq!(queue.pop(), None);
    assert_eq!(queue.send(B, frames(1), None), Err(SendError::Unbound));
    assert_eq!(queue.node(1), None);
}

#[test]
fn a_roster_is_given_on_every_connection_and_only_the_latest() {
    let mut queue = Queue::new();
    queue.put_roster(1, Bytes::from_static(b"one"));
    queue.put_roster(2, Bytes::from_static(b"two"));
    for _ in 0..2 {
        queue.connected();
        let roster = RosterBlob { version: 2, blob: b"two" };
        assert_eq!(queue.pop().unwrap(), ClientMessage::RosterPut(roster).encode());
        assert_eq!(queue.pop(), None);
        queue.disconnected();
    }
}

#[test]
fn who_came_unasked_is_forgotten_when_gone() {
    let mut queue = up();
    queue.bind(A).unwrap();
    bound(&mut queue, A, 1);
    bound(&mut queue, B, 2);
    queue.send(B, frames(1), None).unwrap();
    assert_eq!(queue.peer_gone(1), Some(Presence { node: A, present: false }));
    assert_eq!(queue.peer_gone(2), Some(Presence { node: B, present: false }));
    assert_eq!(queue.peer_gone(2), None);
    // Its last frames may come behind the news.
    assert_eq!(queue.node(2), Some(B));
    assert!(queue.send(A, frames(1), None).is_ok());
    assert_eq!(queue.send(B, frames(1), None), Err(SendError::Unbound));
    assert_eq!(queue.peer_present(1), Some(Presence { node: A, present: true }));
}

#[test]
fn unbinding_tells_the_relay_and_frees_what_waits() {
    let mut queue = up();
    queue.bind(A).unwrap();
    queue.send(A, frames(9), None).unwrap();
    queue.unbind(A);
    assert_eq!(queue.queued_bytes(), 0);
    assert_eq!(queue.pop(), None);
    bound(&mut queue, B, 4);
    queue.unbind(B);
    assert_eq!(queue.pop().unwrap(), ClientMessage::Unbind(4).encode());
    assert_eq!(queue.node(4), None);
}

#[test]
fn handles_are_bounded() {
    let mut queue = up();
    for handle in 0..u32::try_from(2 * MAX_PEERS).unwrap() {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&handle.to_le_bytes());
        bound(&mut queue, NodeId(id), handle);
    }
    assert_eq!(queue.bound(&Bound { node: B, handle: 999_999, present: true }), None);
    assert_eq!(queue.bind(A), Err(QueueFull));
}

#[test]
fn a_refused_binding_drops_what_waits_for_it() {
    let mut queue = up();
    queue.bind(A).unwrap();
    queue.send(A, frames(9), None).unwrap();
    let refused = Bound { node: A, handle: NO_HANDLE, present: false };
    assert_eq!(queue.bound(&refused), Some(Presence { node: A, present: false }));
    assert_eq!(queue.queued_bytes(), 0);
    assert_eq!(queue.send(A, frames(1), None), Err(SendError::Unbound));
    bound(&mut queue, A, 3);
    assert!(queue.send(A, frames(1), None).is_ok());
}

#[test]
fn frames_without_a_handle_do_not_fill_the_queue() {
    let mut queue = up();
    queue.bind(A).unwrap();
    for _ in 0..100 {
        queue.send(A, frames(30_000), None).unwrap();
    }
    assert_eq!(queue.queued_bytes(), 60_000);
    queue.send(A, frames(RELAY_PAYLOAD), None).unwrap();
    assert_eq!(queue.queued_bytes(), RELAY_PAYLOAD);
    assert_eq!(queue.pop().unwrap(), ClientMessage::Bind(A).encode());
    bound(&mut queue, A, 1);
    assert!(queue.pop().is_some());
    assert_eq!((queue.pop(), queue.queued_bytes()), (None, 0));
}

#[test]
fn a_handle_that_comes_after_its_node_was_given_up_is_given_back() {
    let mut queue = up();
    queue.bind(A).unwrap();
    assert_eq!(queue.pop().unwrap(), ClientMessage::Bind(A).encode());
    queue.unbind(A);
    assert_eq!(queue.pop(), None);
    bound(&mut queue, A, 7);
    assert_eq!(queue.pop().unwrap(), ClientMessage::Unbind(7).encode());
    assert_eq!(queue.node(7), None);
    assert_eq!(queue.send(A, frames(1), None), Err(SendError::Unbound));

    // Wanted again in time.
    queue.bind(B).unwrap();
    queue.pop().unwrap();
    queue.unbind(B);
    queue.bind(B).unwrap();
    bound(&mut queue, B, 8);
    assert_eq!(queue.pop().unwrap(), ClientMessage::Bind(B).encode());
    assert_eq!((queue.pop(), queue.node(8)), (None, Some(B)));

    // Given up before it was asked for.
    queue.bind(A).unwrap();
    queue.unbind(A);
    bound(&mut queue, A, 9);
    assert_eq!((queue.pop(), queue.node(9)), (None, Some(A)));
}
