use super::*;

fn message(tag: u8, len: usize) -> Bytes {
    vec![tag; len].into()
}

fn tags(queue: &mut Queue, now: Instant) -> Vec<u8> {
    let mut dropped = Dropped::default();
    std::iter::from_fn(|| match queue.pop(now, &mut dropped) {
        Next::Message(message) => Some(message[0]),
        Next::Nothing | Next::Close => None,
    })
    .collect()
}

#[test]
fn control_goes_first_then_the_roster_then_data() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.push_data(1, message(3, 10), now);
    queue.set_roster(message(9, 10));
    queue.set_roster(message(2, 10));
    assert!(queue.push_control(message(1, 10)));
    assert_eq!(tags(&mut queue, now), [1, 2, 3]);
}

#[test]
fn a_full_control_queue_drops_the_newest_and_says_so() {
    let now = Instant::now();
    let mut queue = Queue::default();
    assert!(queue.push_control(message(1, CONTROL_BYTES)));
    assert!(!queue.push_control(message(2, 1)));
    let mut dropped = Dropped::default();
    assert_eq!(queue.pop(now, &mut dropped), Next::Message(message(1, CONTROL_BYTES)));
    let Next::Message(error) = queue.pop(now, &mut dropped) else { panic!() };
    assert!(matches!(
        RelayMessage::parse(&error),
        Ok(RelayMessage::Error { code: ErrorCode::ControlOverflow, .. })
    ));
    assert_eq!(queue.pop(now, &mut dropped), Next::Nothing);
}

#[test]
fn a_full_data_queue_drops_the_oldest_of_the_longest_source() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.push_data(7, message(70, 1000), now);
    for tag in 0..3 {
        assert_eq!(queue.push_data(1, message(tag, 80_000), now), Dropped::default());
    }
    assert_eq!(queue.push_data(2, message(50, 60_000), now), Dropped { full: 1, aged: 0 });
    assert_eq!(tags(&mut queue, now), [70, 1, 50, 2]);
    assert_eq!(queue.data_bytes, 0);
    assert!(queue.sources.is_empty() && queue.turns.is_empty());
}

#[test]
fn a_source_may_fill_the_queue_and_drops_its_own_oldest() {
    let now = Instant::now();
    let mut queue = Queue::default();
    for tag in 0..10 {
        queue.push_data(1, message(tag, 64 * 1024), now);
    }
    assert_eq!(tags(&mut queue, now), [6, 7, 8, 9]);
    assert_eq!(queue.push_data(1, message(0, DATA_BYTES + 1), now).full, 1);
}

#[test]
fn a_transfer_drops_its_own_before_the_short_messages_beside_it() {
    let now = Instant::now();
    let mut queue = Queue::default();
    let mut full = 0;
    for tag in 0..20 {
        full += queue.push_data(1, message(100 + tag, 100), now).full;
        full += queue.push_data(1, message(tag, DATA_BYTES / 8), now).full;
    }
    let left = tags(&mut queue, now);
    assert!(full >= 12 && left.len() < 40);
    assert_eq!(left.iter().filter(|tag| **tag >= 100).count(), 20, "every short one is there: {left:?}");
    // What is short is dropped where nothing else is there.
    for tag in 0..u8::try_from(DATA_BYTES / 4000 + 10).unwrap() {
        queue.push_data(1, message(tag, 4000), now);
    }
    assert!(tags(&mut queue, now)[0] > 0);
}

#[test]
fn old_data_of_a_standing_queue_is_dropped_but_for_the_newest() {
    let start = Instant::now();
    let later = start + MAX_AGE + Duration::from_millis(1);
    let mut queue = Queue::default();
    queue.push_data(1, message(1, SMALL), start);
    queue.push_data(1, message(2, SMALL), start);
    queue.push_data(1, message(3, 10), later);
    queue.push_data(2, message(4, 10), start);
    let mut dropped = Dropped::default();
    assert_eq!(queue.pop(later, &mut dropped), Next::Message(message(3, 10)));
    assert_eq!(dropped, Dropped { full: 0, aged: 2 });
    assert_eq!(queue.pop(later, &mut dropped), Next::Message(message(4, 10)));
    assert_eq!(dropped.aged, 2);
}

#[test]
fn a_little_data_waits_out_a_pause() {
    let start = Instant::now();
    let later = start + MAX_PAUSE;
    let mut queue = Queue::default();
    for tag in [1, 2, 3] {
        queue.push_data(1, message(tag, 100), start);
    }
    let mut dropped = Dropped::default();
    assert_eq!(queue.pop(later, &mut dropped), Next::Message(message(1, 100)));
    let too_late = later + Duration::from_millis(1);
    assert_eq!(queue.pop(too_late, &mut dropped), Next::Message(message(3, 100)));
    assert_eq!(dropped, Dropped { full: 0, aged: 1 });
}

#[test]
fn sources_take_turns_by_bytes() {
    let now = Instant::now();
    let mut queue = Queue::default();
    for _ in 0..3 {
        queue.push_data(1, message(1, 64 * 1024), now);
    }
    for _ in 0..4 {
        queue.push_data(2, message(2, 100), now);
    }
    queue.push_data(3, message(3, 100), now);
    assert_eq!(tags(&mut queue, now), [1, 2, 2, 2, 2, 3, 1, 1]);
}

#[test]
fn a_closing_queue_writes_its_control_and_ends() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.push_control(message(1, 1));
    queue.push_data(1, message(3, 1), now);
    queue.close(Some(message(2, 1)));
    queue.close(Some(message(9, 1)));
    assert!(!queue.push_control(message(4, 1)));
    assert_eq!(queue.push_data(1, message(5, 1), now).full, 1);
    assert_eq!(tags(&mut queue, now), [1, 2]);
    assert_eq!(queue.pop(now, &mut Dropped::default()), Next::Close);
}
