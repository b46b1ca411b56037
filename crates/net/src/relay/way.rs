//! Whether a client's frames go to the relay over UDP. Pure: no socket, no clock.
//!
//! While frames flow the client proves its address, then pings. Frames go over UDP from the relay's PROVEN until no ping was
//! answered for [`PATIENCE`]; else, and when nothing flows, over the WebSocket, so that an idle client
//! costs nothing and a mapping of a NAT that ended is never used.

use std::time::{Duration, Instant};

use mesh_wire::relay_udp::{Control, Kind};

use super::together::Together;

/// The UDP way of one connection to a relay.
#[derive(Debug)]
pub(super) struct Way {
    connection: u64,
    counter: u64,
    state: State,
    /// When frames went or came last, by whichever way.
    used: Option<Instant>,
    /// Lengths of datagrams to try, the longest first, and which of them is next.
    lengths: [usize; 2],
    next: usize,
    /// How long to wait after the next failure.
    pause: Duration,
    /// Whether datagrams that leave together arrive.
    together: Together,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing before this moment, and nothing without frames.
    Resting(Option<Instant>),
    /// Asked, or answered the challenge; given up at this moment.
    Proving { until: Instant },
    Up {
        since: Instant,
        next_ping: Instant,
        /// Counter of the latest message that the relay answered.
        answered: u64,
        /// Since when a ping waits for an answer: when it went out, or the answer to an earlier one came.
        unanswered: Option<Instant>,
    },
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Send this, as long as [`Way::limit`] says.
    Send(Control),
    /// Hand these to the kernel at once, each as long as [`Way::limit`] says.
    Pair([Control; 2]),
    /// Tell the relay over the WebSocket that the way is over.
    End,
}

impl Way {
    /// `lengths` are those of the longest datagram and of one that nearly every path takes.
    pub(super) fn new(connection: u64, lengths: [usize; 2]) -> Self {
        let (state, together) = (State::Resting(None), Together::default());
        Self { connection, counter: 0, state, used: None, lengths, next: 0, pause: FIRST_PAUSE, together }
    }

    /// Returns what is known of datagrams that leave together.
    pub(super) const fn together(&self) -> &Together {
        &self.together
    }

    /// Notes that frames went or came.
    pub(super) const fn used(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// Tells whether frames go over UDP.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Tells whether the last end was a failure.
    pub(super) const fn has_failed(&self) -> bool {
        matches!(self.state, State::Resting(Some(_)))
    }

    /// The longest datagram; longer ones go over the WebSocket.
    pub(super) const fn limit(&self) -> usize {
        self.lengths[self.next]
    }

    /// Takes a message of the relay whose tag was found right, and returns the answer.
    pub(super) fn handle(&mut self, control: &Control, now: Instant) -> Option<Control> {
        if control.connection != self.connection {
            return None;
        }
        let latest = self.counter;
        match (control.kind, &mut self.state) {
            (Kind::Challenge, State::Proving { .. }) if control.counter == latest => {
                Some(Control { kind: Kind::Proof, ..*control })
            }
            (Kind::Proven, State::Proving { .. }) if control.counter == latest => {
                self.together.begin();
                self.state = State::Up { since: now, next_ping: now, answered: latest, unanswered: None };
                None
            }
            // Over a long path further pings are under way when the answer to one comes.
            (Kind::Pong, State::Up { unanswered, since, answered, .. })
                if control.counter > *answered && control.counter <= latest =>
            {
                *answered = control.counter;
                *unanswered = (control.counter < latest).then_some(now);
                if now.saturating_duration_since(*since) >= STOOD {
                    self.pause = FIRST_PAUSE;
                }
                self.together.answered(control.counter);
                None
            }
            _ => None,
        }
    }

    /// Says what is due; to be called until it says [`Step::Wait`].
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let flows = self.used.is_some_and(|used| now.saturating_duration_since(used) < IDLE);
        match self.state {
            State::Resting(until) if flows && until.is_none_or(|until| now >= until) => {
                self.state = State::Proving { until: now + PROVING };
                Step::Send(self.message(Kind::Ask))
            }
            State::Proving { until } if now >= until => {
                self.fail(now);
                Step::End
            }
            State::Up { .. } if !flows => {
                self.state = State::Resting(None);
                Step::End
            }
            State::Up { unanswered: Some(since), .. } if now.saturating_duration_since(since) >= PATIENCE => {
                self.fail(now);
                Step::End
            }
            State::Up { since, next_ping, answered, unanswered } if now >= next_ping => {
                let unanswered = Some(unanswered.unwrap_or(now));
                if self.together.is_due() {
                    self.state = State::Up { since, next_ping, answered, unanswered };
                    let pair = [self.message(Kind::Ping), self.message(Kind::Ping)];
                    self.together.sent(self.counter);
                    return Step::Pair(pair);
                }
                self.state = State::Up { since, next_ping: now + PING, answered, unanswered };
                Step::Send(self.message(Kind::Ping))
            }
            State::Resting(_) | State::Proving { .. } | State::Up { .. } => Step::Wait,
        }
    }

    /// Returns when [`Way::step`] may say something else, if nothing happens until then.
    pub(super) fn due(&self) -> Option<Instant> {
        let idle = self.used.map(|used| used + IDLE)?;
        match self.state {
            State::Resting(until) => until.filter(|until| *until < idle),
            State::Proving { until } => Some(until),
            State::Up { next_ping, unanswered, .. } => {
                let silent = unanswered.map_or(next_ping, |since| since + PATIENCE);
                Some(next_ping.min(silent).min(idle))
            }
        }
    }

    fn message(&mut self, kind: Kind) -> Control {
        self.counter += 1;
        Control { kind, connection: self.connection, counter: self.counter, cookie: [0; 16] }
    }

    fn fail(&mut self, now: Instant) {
        self.state = State::Resting(Some(now + self.pause));
        self.next = (self.next + 1) % self.lengths.len();
        // Both lengths have their turn before the pause grows.
        if self.next == 0 {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Between two pings while frames flow.
const PING: Duration = Duration::from_millis(250);
/// How long an answer may take; with [`PING`] it makes less than a second.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long the two answers of a proof may take together. Nothing waits for them.
const PROVING: Duration = Duration::from_millis(1400);
/// Without frames for so long the way is given up, which costs the next frames nothing.
const IDLE: Duration = Duration::from_secs(5);
/// From one failure to the next try, and when it has failed again and again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A way that stood so long is tried again soon.
const STOOD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn answer(way: &mut Way, kind: Kind, now: Instant) -> Option<Control> {
        let control = Control { kind, connection: 7, counter: way.counter, cookie: [3; 16] };
        way.handle(&control, now)
    }

    fn sent(step: Step) -> Kind {
        let Step::Send(control) = step else { panic!("{step:?}") };
        control.kind
    }

    fn up(now: Instant) -> Way {
        let mut way = Way::new(7, [1472, 1232]);
        way.used(now);
        assert_eq!(sent(way.step(now)), Kind::Ask);
        let proof = answer(&mut way, Kind::Challenge, now).unwrap();
        assert_eq!((proof.kind, proof.cookie), (Kind::Proof, [3; 16]));
        assert!(!way.is_up());
        assert_eq!(answer(&mut way, Kind::Proven, now), None);
        assert!(way.is_up() && !way.together().works());
        assert!(matches!(way.step(now), Step::Pair(_)));
        assert_eq!(answer(&mut way, Kind::Pong, now), None);
        assert_eq!(sent(way.step(now)), Kind::Ping);
        assert_eq!(answer(&mut way, Kind::Pong, now), None);
        assert!(way.together().works());
        assert_eq!(way.step(now), Step::Wait);
        way
    }

    #[test]
    fn idle_client_does_nothing() {
        let now = Instant::now();
        let mut way = Way::new(7, [1472, 1232]);
        assert_eq!((way.step(now), way.due()), (Step::Wait, None));
        let mut way = up(now);
        let mut at = now;
        while let Some(due) = way.due() {
            at = due;
            if let Step::Send(_) = way.step(at) {
                answer(&mut way, Kind::Pong, at);
            }
        }
        assert_eq!(at, now + IDLE);
        assert!(!way.is_up());
        way.used(at + MOMENT);
        assert_eq!(sent(way.step(at + MOMENT)), Kind::Ask, "no pause after an end without a failure");
    }

    #[test]
    fn silence_ends_the_way_within_a_second_of_the_last_answer() {
        let now = Instant::now();
        let mut way = up(now);
        let mut at = now;
        loop {
            at += MOMENT;
            way.used(at);
            if way.step(at) == Step::End {
                break;
            }
        }
        assert!(!way.is_up());
        assert!(at - now <= PING + PATIENCE + MOMENT, "{:?}", at - now);
    }

    #[test]
    fn long_path_stays_up_and_its_end_is_noticed() {
        for trip in [300, 650] {
            let trip = Duration::from_millis(trip);
            let mut at = Instant::now();
            let mut way = Way::new(7, [1472, 1232]);
            let mut under_way = std::collections::VecDeque::new();
            let end = at + Duration::from_secs(20);
            let mut last = None;
            while at < end + Duration::from_secs(1) {
                way.used(at);
                match way.step(at) {
                    Step::Send(control) => under_way.push_back((at + trip, control)),
                    Step::Pair(pair) => under_way.extend(pair.map(|control| (at + trip, control))),
                    Step::End => {
                        assert!(at >= end, "ended while every message is answered");
                        let last: Instant = last.unwrap();
                        assert!(at - last <= PING + PATIENCE + MOMENT, "{:?}", at - last);
                        break;
                    }
                    Step::Wait => {}
                }
                while let Some((due, control)) = under_way.front().copied().filter(|(due, _)| *due <= at) {
                    under_way.pop_front();
                    let kind = match control.kind {
                        Kind::Ask => Kind::Challenge,
                        Kind::Proof => Kind::Proven,
                        Kind::Ping => Kind::Pong,
                        Kind::Challenge | Kind::Proven | Kind::Pong => unreachable!("of a relay"),
                    };
                    if due < end {
                        last = Some(at);
                        let answer = way.handle(&Control { kind, ..control }, at);
                        under_way.extend(answer.map(|answer| (at + trip, answer)));
                    }
                }
                at += MOMENT;
            }
            assert!(at > end && !way.is_up(), "{trip:?}");
        }
    }

    #[test]
    fn pauses_grow_and_both_lengths_are_tried() {
        let mut at = Instant::now();
        let mut way = Way::new(7, [1472, 1232]);
        let mut asks = Vec::new();
        let start = at;
        while asks.len() < 8 {
            way.used(at);
            if let Step::Send(control) = way.step(at) {
                assert_eq!(control.kind, Kind::Ask);
                asks.push((way.limit(), at - start));
            }
            at += MOMENT;
        }
        let lengths: Vec<_> = asks.iter().map(|(len, _)| *len).collect();
        assert_eq!(lengths, [1472, 1232, 1472, 1232, 1472, 1232, 1472, 1232]);
        let gap = |n: usize| asks[n + 1].1 - asks[n].1;
        assert!(gap(0) < gap(2) && gap(2) < gap(4), "{asks:?}");
    }

    #[test]
    fn pairs_that_are_lost_end_nothing_but_leaving_together() {
        let now = Instant::now();
        let mut way = up(now);
        let (mut at, mut broken) = (now, None);
        while at < now + Duration::from_secs(10) {
            way.used(at);
            match way.step(at) {
                Step::Send(_) => assert_eq!(answer(&mut way, Kind::Pong, at), None),
                Step::Pair(_) | Step::Wait => {}
                Step::End => panic!("ended while single pings are answered"),
            }
            broken = broken.or(way.together().is_broken().then_some(at));
            at += MOMENT;
        }
        assert!(way.is_up() && !way.together().works());
        let after = broken.unwrap() - now;
        assert!(after < Duration::from_secs(8), "known after {after:?}");
    }

    #[test]
    fn old_and_foreign_answers_count_nothing() {
        let now = Instant::now();
        let mut way = up(now);
        way.used(now + PING);
        assert_eq!(sent(way.step(now + PING)), Kind::Ping);
        let old = Control { kind: Kind::Pong, connection: 7, counter: 1, cookie: [0; 16] };
        let foreign = Control { counter: way.counter, connection: 8, ..old };
        assert_eq!((way.handle(&old, now), way.handle(&foreign, now)), (None, None));
        way.used(now + PING + PATIENCE);
        assert_eq!(way.step(now + PING + PATIENCE), Step::End);
        assert_eq!(answer(&mut way, Kind::Proven, now), None);
        assert!(!way.is_up(), "PROVEN after the end");
    }
}
