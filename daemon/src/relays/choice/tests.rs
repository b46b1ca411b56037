use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A choice between relays with numbers for pins, and its clock.
struct World {
    choice: Choice,
    now: Instant,
}

fn pin(number: u8) -> Pin {
    Pin([number; 32])
}

impl World {
    fn new(relays: u8) -> Self {
        let mut world = Self { choice: Choice::default(), now: Instant::now() };
        let list: Vec<_> = (1..=relays).map(pin).collect();
        world.choice.set_list(world.now, &list);
        world
    }

    fn up(&mut self, relay: u8, rtt: Duration) {
        self.choice.set_up(self.now, &pin(relay), true);
        self.choice.measured(self.now, &pin(relay), rtt);
    }

    fn down(&mut self, relay: u8) {
        self.choice.set_up(self.now, &pin(relay), false);
    }

    /// Measures these for a while, every second.
    fn pass(&mut self, time: Duration, trips: &[(u8, Duration)]) {
        let end = self.now + time;
        while self.now < end {
            self.now += SECOND;
            for (relay, rtt) in trips {
                self.choice.measured(self.now, &pin(*relay), *rtt);
            }
            self.choice.timeout(self.now);
        }
    }

    fn is_at(&self) -> (Option<u8>, Option<u8>) {
        let number = |pin: Option<Pin>| pin.map(|pin| pin.0[0]);
        (number(self.choice.home()), number(self.choice.warm()))
    }
}

#[test]
fn nearest_relay_is_home_and_the_next_one_warm_at_once_after_the_start() {
    let mut world = World::new(3);
    assert_eq!(world.is_at(), (None, None));
    world.up(1, MS * 90);
    assert_eq!(world.is_at(), (Some(1), None), "the first that answers serves");
    world.up(2, MS * 20);
    world.up(3, MS * 50);
    assert_eq!(world.is_at(), (Some(2), Some(3)));
}

#[test]
fn of_equal_relays_the_first_of_the_list_is_home() {
    let mut world = World::new(2);
    world.up(2, MS * 15);
    assert_eq!(world.is_at(), (Some(2), None));
    world.up(1, MS * 22);
    assert_eq!(world.is_at(), (Some(1), Some(2)), "whichever answered first");
}

#[test]
fn relay_has_to_be_clearly_nearer_for_a_while() {
    let mut world = World::new(2);
    world.up(1, MS * 50);
    world.up(2, MS * 48);
    world.pass(SETTLE, &[(1, MS * 50), (2, MS * 48)]);
    // 41 of 50 ms is less than a fifth nearer, and 5 of 12 ms not by 10 ms.
    for (home, other) in [(50, 41), (12, 5)] {
        world.pass(HOLD * 3, &[(1, MS * home), (2, MS * other)]);
        assert_eq!(world.is_at(), (Some(1), Some(2)), "{other} ms instead of {home}");
    }
    world.pass(HOLD - SECOND * 2, &[(1, MS * 50), (2, MS * 20)]);
    assert_eq!(world.is_at(), (Some(1), Some(2)), "not yet");
    world.pass(SECOND * 10, &[(1, MS * 50), (2, MS * 20)]);
    assert_eq!(world.is_at(), (Some(2), Some(1)));
}

#[test]
fn single_slow_answers_move_nothing() {
    let mut world = World::new(2);
    world.up(1, MS * 20);
    world.up(2, MS * 60);
    world.pass(SETTLE, &[(1, MS * 20), (2, MS * 60)]);
    for _ in 0..100 {
        world.pass(SECOND * 3, &[(1, MS * 900), (2, MS * 60)]);
        world.pass(SECOND, &[(1, MS * 20), (2, MS * 60)]);
        assert_eq!(world.is_at(), (Some(1), Some(2)));
    }
}

#[test]
fn warm_relay_becomes_home_at_once_and_stays_when_the_lost_one_is_back() {
    let mut world = World::new(3);
    world.up(1, MS * 20);
    world.up(2, MS * 25);
    world.up(3, MS * 90);
    world.pass(SETTLE, &[]);
    world.down(1);
    assert_eq!(world.is_at(), (Some(2), Some(3)));
    world.now += SECOND;
    world.up(1, MS * 20);
    world.pass(SECOND * 600, &[(1, MS * 20), (2, MS * 25), (3, MS * 90)]);
    assert_eq!(
        world.is_at(),
        (Some(2), Some(1)),
        "as near, so there is no reason to go back; nearer than the warm one"
    );
}

#[test]
fn relay_that_comes_and_goes_is_trusted_later_and_later() {
    let mut world = World::new(2);
    world.up(1, MS * 20);
    world.up(2, MS * 80);
    world.pass(SETTLE, &[]);
    let near = [(1, MS * 20), (2, MS * 80)];
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.down(1);
        assert_eq!(world.is_at().0, Some(2));
        world.up(1, MS * 20);
        let back = world.now;
        while world.is_at().0 != Some(1) {
            world.pass(SECOND, &near);
            assert!(world.now < back + SECOND * 1000);
        }
        waits.push(world.now - back);
    }
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[0] >= HOLD && waits[3] >= TRUST * 8, "{waits:?}");
}

#[test]
fn without_a_relay_home_is_where_it_was_and_everything_is_wanted() {
    let mut world = World::new(3);
    world.up(1, MS * 20);
    world.up(2, MS * 20);
    world.up(3, MS * 20);
    world.pass(SETTLE, &[]);
    assert_eq!(world.is_at(), (Some(1), Some(2)));
    assert!(!world.choice.wants(world.now, &pin(3)), "two are enough");
    world.down(2);
    world.down(3);
    assert_eq!(world.is_at(), (Some(1), None));
    assert!((1..=3).all(|relay| world.choice.wants(world.now, &pin(relay))));
    world.down(1);
    assert_eq!(world.is_at(), (Some(1), None));
}

#[test]
fn relays_that_are_not_in_use_are_measured_now_and_then() {
    let mut world = World::new(3);
    for relay in 1..=3 {
        world.up(relay, MS * 30);
    }
    world.pass(SETTLE, &[]);
    world.choice.closed(world.now, &pin(3));
    assert!(!world.choice.wants(world.now, &pin(3)));
    world.pass(PROBE - SETTLE, &[]);
    assert!(world.choice.wants(world.now, &pin(3)));
    world.up(3, MS * 5);
    assert_eq!(world.is_at().0, Some(3), "it was closed, not lost");
}

#[test]
fn relay_that_left_the_list_is_left() {
    let mut world = World::new(2);
    world.up(1, MS * 20);
    world.up(2, MS * 20);
    world.choice.set_list(world.now, &[pin(2)]);
    assert_eq!(world.is_at(), (Some(2), None));
    world.choice.set_list(world.now, &[pin(9)]);
    assert_eq!(world.is_at(), (None, None));
}

#[derive(Debug, Clone)]
enum Event {
    Up(u8),
    Down(u8),
    Rtt(u8, u32),
    List(Vec<u8>),
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_u8..5).prop_map(Event::Up),
        (1_u8..5).prop_map(Event::Down),
        (1_u8..5, 1_u32..400).prop_map(|(relay, rtt)| Event::Rtt(relay, rtt)),
        proptest::collection::vec(1_u8..5, 0..5).prop_map(Event::List),
        (1_u32..100).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Home is up whenever any relay is, the warm one is up and another one, and neither is outside of the list.
    #[test]
    fn home_and_warm_are_up_and_two(events in proptest::collection::vec(event(), 1..200)) {
        let mut world = World::new(4);
        let (mut list, mut up) = (vec![1, 2, 3, 4], std::collections::BTreeSet::new());
        for event in events {
            match event {
                Event::Up(relay) => {
                    world.choice.set_up(world.now, &pin(relay), true);
                    if list.contains(&relay) {
                        up.insert(relay);
                    }
                }
                Event::Down(relay) => {
                    world.down(relay);
                    up.remove(&relay);
                }
                Event::Rtt(relay, rtt) => world.choice.measured(world.now, &pin(relay), MS * rtt),
                Event::List(mut next) => {
                    next.dedup();
                    next.sort_unstable();
                    next.dedup();
                    let pins: Vec<_> = next.iter().copied().map(pin).collect();
                    world.choice.set_list(world.now, &pins);
                    up.retain(|relay| next.contains(relay));
                    list = next;
                }
                Event::Wait(seconds) => world.pass(SECOND * seconds, &[]),
            }
            let (home, warm) = world.is_at();
            prop_assert_eq!(home.is_some_and(|home| up.contains(&home)), !up.is_empty());
            prop_assert!(home.is_none_or(|home| list.contains(&home)));
            prop_assert_eq!(warm.is_some(), up.len() > 1, "{:?} of {:?}", warm, up);
            prop_assert!(warm.is_none_or(|warm| up.contains(&warm) && Some(warm) != home));
            prop_assert!(world.choice.due(world.now).is_none_or(|due| due > world.now));
        }
    }
}
