//! How much the kernel holds of what came until somebody reads it, and of what is sent until it leaves. [`Growth`] decides,
//! without a socket or a clock; [`Sizes::ask`] carries it out.
//!
//! What is under way on a path, its rate times its round trip, may come at once after a pause, and a flow that was allowed
//! to send it may send it at once: with less room some of it is lost, and the flow inside halves its rate. On a short path that
//! is little, and more room would only let a queue grow; but a thread that waits for a processor is such a pause, too.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Bytes of room in each direction, the kernel's own overhead not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// For what came and waits to be read.
    pub receive: usize,
    /// For what was sent and waits to leave.
    pub send: usize,
}

/// What was asked for in one direction, and what the kernel gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes wanted.
    pub wanted: usize,
    /// Bytes given.
    pub given: usize,
}

/// The room of a socket, or the worst of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rooms {
    /// For what came.
    pub receive: Room,
    /// For what is sent.
    pub send: Room,
}

impl Sizes {
    /// Asks for so much room for a socket; without `CAP_NET_ADMIN` the kernel gives `net.core.rmem_max` and `wmem_max` at most.
    ///
    /// # Errors
    /// What the kernel says when asked what there is.
    pub fn ask(self, socket: &impl AsFd) -> io::Result<Rooms> {
        // A refusal leaves the room as it was.
        if setsockopt(socket, sockopt::RcvBufForce, &self.receive).is_err() {
            let _ = setsockopt(socket, sockopt::RcvBuf, &self.receive);
        }
        if setsockopt(socket, sockopt::SndBufForce, &self.send).is_err() {
            let _ = setsockopt(socket, sockopt::SndBuf, &self.send);
        }
        self.of(socket)
    }

    /// Returns what a socket has of this.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(self, socket: &impl AsFd) -> io::Result<Rooms> {
        // The kernel doubles what it is asked for, for its overhead, and tells that.
        let receive = Room { wanted: self.receive, given: getsockopt(socket, sockopt::RcvBuf)? / 2 };
        Ok(Rooms {
            receive,
            send: Room { wanted: self.send, given: getsockopt(socket, sockopt::SndBuf)? / 2 },
        })
    }
}

impl Room {
    /// How much is missing.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.given)
    }

    const fn worse(self, other: Self) -> Self {
        if other.missing() > self.missing() { other } else { self }
    }
}

impl Rooms {
    /// Returns what two sockets have together: in each direction that of which more is missing.
    #[must_use]
    pub const fn worse(self, other: Self) -> Self {
        Self { receive: self.receive.worse(other.receive), send: self.send.worse(other.send) }
    }
}

/// Watches how much comes and goes, and tells when the room has to grow. It never shrinks: a buffer that is not used costs
/// nothing.
#[derive(Debug)]
pub struct Growth {
    least: Sizes,
    sizes: Sizes,
    /// When the span that is measured began.
    since: Option<Instant>,
    came: u64,
    went: u64,
}

impl Growth {
    /// Starts at the least that there is to be, each size at most [`MOST`].
    #[must_use]
    pub const fn new(least: Sizes) -> Self {
        Self { least, sizes: least, since: None, came: 0, went: 0 }
    }

    /// Notes bytes that came.
    pub const fn came(&mut self, bytes: usize) {
        self.came = self.came.saturating_add(bytes as u64);
    }

    /// Notes bytes that were sent.
    pub const fn went(&mut self, bytes: usize) {
        self.went = self.went.saturating_add(bytes as u64);
    }

    /// The room that is wanted so far.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Returns the room wanted when one of the sizes has become more; `trip` is asked for the longest round trip of the paths
    /// in use. Whatever happened between two calls more than a quarter of a second apart counts as one span.
    pub fn look(&mut self, now: Instant, trip: impl FnOnce() -> Option<Duration>) -> Option<Sizes> {
        let since = *self.since.get_or_insert(now);
        let span = now.saturating_duration_since(since);
        if span < SPAN {
            return None;
        }
        let (came, went) = (std::mem::take(&mut self.came), std::mem::take(&mut self.went));
        self.since = Some(now);
        let trip = trip()?;
        let before = self.sizes;
        self.sizes = Sizes {
            receive: wanted(came, span, trip, self.least.receive).max(before.receive),
            send: wanted(went, span, trip, self.least.send).max(before.send),
        };
        (self.sizes != before).then_some(self.sizes)
    }
}

/// Twice what is under way at this rate over this round trip, so that a flow can grow, or what comes while the thread waits
/// for a processor, as a power of two between `least`, itself a power of two, and [`MOST`].
#[must_use]
pub fn wanted(bytes: u64, span: Duration, trip: Duration, least: usize) -> usize {
    let time = (2 * trip.as_micros()).max(PAUSE.as_micros());
    let wanted = usize::try_from(u128::from(bytes) * time / span.as_micros().max(1)).unwrap_or(MOST);
    wanted.clamp(least, MOST).next_power_of_two().min(MOST)
}

/// 600 Mbit/s over 100 ms, twice.
pub const MOST: usize = 16 * 1024 * 1024;

/// A time slice of other work on the same processor, and some. With room for a millisecond, TCP over a path of 0.2 ms lost 5 to 10 %
/// at full speed and sent it again.
const PAUSE: Duration = Duration::from_millis(5);

/// Longer than most round trips and shorter than a flow takes to grow far.
const SPAN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    const LEAST: Sizes = Sizes { receive: 512 * KIB, send: 2 * MIB };

    fn trip(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn short_paths_get_what_comes_in_a_pause_and_long_ones_twice_what_is_under_way() {
        let gbit = 125_000_000;
        let wanted = |bytes, trip| wanted(bytes, SECOND, trip, 512 * KIB);
        assert_eq!(wanted(gbit / 2, Duration::from_micros(200)), 512 * KIB);
        assert_eq!(wanted(6 * gbit, Duration::from_micros(200)), 4 * MIB);
        assert_eq!(wanted(gbit / 10, trip(80)), 2 * MIB);
        assert_eq!(wanted(gbit, trip(30)), 8 * MIB);
        assert_eq!(wanted(gbit, trip(300)), MOST);
    }

    #[test]
    fn room_grows_with_a_measured_rate_once_and_never_shrinks() {
        let start = Instant::now();
        let mut growth = Growth::new(LEAST);
        assert_eq!(growth.look(start, || Some(trip(100))), None);
        growth.came(10_000_000);
        assert_eq!(growth.look(start + SPAN / 2, || unreachable!("it is too early")), None);
        // 10 MB in a quarter of a second over 100 ms: 4 MB under way.
        assert_eq!(growth.look(start + SPAN, || Some(trip(100))), Some(Sizes { receive: 8 * MIB, ..LEAST }));
        growth.came(10_000_000);
        assert_eq!(growth.look(start + 2 * SPAN, || Some(trip(100))), None);
        growth.came(1000);
        assert_eq!(growth.look(start + 3 * SPAN, || Some(trip(100))), None);
        // The other direction by itself.
        growth.went(5_000_000);
        let both = Sizes { receive: 8 * MIB, send: 4 * MIB };
        assert_eq!(growth.look(start + 4 * SPAN, || Some(trip(100))), Some(both));
        assert_eq!(growth.sizes(), both);
    }

    #[test]
    fn without_a_path_nothing_grows() {
        let start = Instant::now();
        let mut growth = Growth::new(LEAST);
        growth.look(start, || None);
        growth.came(1_000_000_000);
        growth.went(1_000_000_000);
        assert_eq!(growth.look(start + SPAN, || None), None);
        // What came then says nothing of the path that came later.
        assert_eq!(growth.look(start + 2 * SPAN, || Some(trip(100))), None);
    }

    #[test]
    fn kernel_tells_what_it_gave() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let rooms = LEAST.ask(&socket).unwrap();
        let more = Sizes { receive: MOST, send: MOST }.ask(&socket).unwrap();
        for (room, more, least) in
            [(rooms.receive, more.receive, LEAST.receive), (rooms.send, more.send, LEAST.send)]
        {
            assert_eq!((room.wanted, more.wanted), (least, MOST));
            assert!(room.given > 0 && room.given <= least, "{room:?}");
            assert!(more.given >= room.given && more.given <= MOST, "{more:?}");
        }
        assert_eq!(LEAST.of(&socket).unwrap().send, Room { wanted: LEAST.send, given: more.send.given });
    }

    #[test]
    fn several_sockets_have_what_the_worst_of_them_has() {
        let room = |wanted, given| Room { wanted, given };
        let one = Rooms { receive: room(8, 8), send: room(4, 2) };
        let two = Rooms { receive: room(2, 1), send: room(1, 1) };
        let both = Rooms { receive: room(2, 1), send: room(4, 2) };
        assert_eq!((one.worse(two), two.worse(one)), (both, both));
    }

    proptest! {
        #[test]
        fn room_is_bounded_and_a_power_of_two(bytes: u64, span_us in 0u64..10_000_000, trip_us: u32, power in 12u32..24) {
            let (span, trip) = (Duration::from_micros(span_us), Duration::from_micros(trip_us.into()));
            let least = 1 << power;
            let room = wanted(bytes, span, trip, least);
            prop_assert!((least..=MOST).contains(&room) && room.is_power_of_two());
        }
    }
}
