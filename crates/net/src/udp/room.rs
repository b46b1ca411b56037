//! How much the kernel holds of what came until a thread reads it. [`Growth`] decides, without a socket or a clock;
//! [`ask`] carries it out.
//!
//! What is under way on a path, its rate times its round trip, may arrive at once after a pause: with less room some of it is
//! lost, and the flow inside halves its rate. On a short path that is little, and more room would only let a queue grow.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// The room that was asked for, and what the kernel gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes wanted.
    pub wanted: usize,
    /// Bytes given, the kernel's own overhead not counted.
    pub given: usize,
}

/// Watches how much comes, and tells when the room has to grow. It never shrinks: a buffer that is not used costs nothing.
#[derive(Debug)]
pub(super) struct Growth {
    size: usize,
    /// When the span that is measured began.
    since: Option<Instant>,
    bytes: u64,
}

impl Growth {
    pub(super) const fn new() -> Self {
        Self { size: LEAST, since: None, bytes: 0 }
    }

    /// Notes bytes that came.
    pub(super) const fn came(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// The room that is wanted so far.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Returns the room wanted when that has become more; `trip` is asked for the longest round trip of the paths in use.
    /// Whatever happened between two calls more than [`SPAN`] apart counts as one span.
    pub(super) fn look(&mut self, now: Instant, trip: impl FnOnce() -> Option<Duration>) -> Option<usize> {
        let since = *self.since.get_or_insert(now);
        let span = now.saturating_duration_since(since);
        if span < SPAN {
            return None;
        }
        let bytes = std::mem::replace(&mut self.bytes, 0);
        self.since = Some(now);
        let wanted = wanted(bytes, span, trip()?);
        (wanted > self.size).then(|| {
            self.size = wanted;
            wanted
        })
    }
}

/// Twice what is under way at this rate over this round trip, so that a flow can grow, as a power of two between [`LEAST`]
/// and [`MOST`].
pub(super) fn wanted(bytes: u64, span: Duration, trip: Duration) -> usize {
    let under_way = u128::from(bytes) * trip.as_micros() / span.as_micros().max(1);
    let wanted = usize::try_from(under_way.saturating_mul(2)).unwrap_or(MOST);
    wanted.clamp(LEAST, MOST).next_power_of_two().min(MOST)
}

/// Asks for so much room to receive; without `CAP_NET_ADMIN` the kernel gives `net.core.rmem_max` at most.
///
/// # Errors
/// What the kernel says; the room is as it was.
pub(super) fn ask(socket: &impl AsFd, wanted: usize) -> io::Result<Room> {
    if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &wanted)?;
    }
    // The kernel doubles what it is asked for, for its overhead, and tells that.
    Ok(Room { wanted, given: getsockopt(socket, sockopt::RcvBuf)? / 2 })
}

/// What arrives at 5 Gbit/s within 1.6 ms, the kernel's overhead counted, or a thousand small datagrams. More would not carry
/// more on a short path (TCP over the tunnel was as fast with eight times as much), but delay whatever waits behind.
pub(super) const LEAST: usize = 512 * 1024;

/// 600 Mbit/s over 100 ms, twice.
pub(super) const MOST: usize = 16 * 1024 * 1024;

/// Longer than most round trips and shorter than a flow takes to grow far.
const SPAN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn trip(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn short_paths_keep_the_least_and_long_ones_get_twice_what_is_under_way() {
        let gbit = 125_000_000;
        assert_eq!(wanted(5 * gbit, SECOND, Duration::from_micros(200)), LEAST);
        assert_eq!(wanted(gbit / 10, SECOND, trip(80)), 2 * 1024 * 1024);
        assert_eq!(wanted(gbit, SECOND, trip(30)), 8 * 1024 * 1024);
        assert_eq!(wanted(gbit, SECOND, trip(300)), MOST);
    }

    #[test]
    fn room_grows_with_a_measured_rate_once_and_never_shrinks() {
        let start = Instant::now();
        let mut growth = Growth::new();
        assert_eq!(growth.look(start, || Some(trip(100))), None);
        growth.came(10_000_000);
        assert_eq!(growth.look(start + SPAN / 2, || unreachable!("it is too early")), None);
        // 10 MB in a quarter of a second over 100 ms: 4 MB under way.
        assert_eq!(growth.look(start + SPAN, || Some(trip(100))), Some(8 * 1024 * 1024));
        growth.came(10_000_000);
        assert_eq!(growth.look(start + 2 * SPAN, || Some(trip(100))), None);
        growth.came(1000);
        assert_eq!(growth.look(start + 3 * SPAN, || Some(trip(100))), None);
        assert_eq!(growth.size(), 8 * 1024 * 1024);
    }

    #[test]
    fn without_a_direct_path_nothing_grows() {
        let start = Instant::now();
        let mut growth = Growth::new();
        growth.look(start, || None);
        growth.came(1_000_000_000);
        assert_eq!(growth.look(start + SPAN, || None), None);
        // What came then says nothing of the path that came later.
        assert_eq!(growth.look(start + 2 * SPAN, || Some(trip(100))), None);
    }

    #[test]
    fn kernel_tells_what_it_gave() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let room = ask(&socket, LEAST).unwrap();
        assert_eq!(room.wanted, LEAST);
        assert!(room.given > 0 && room.given <= LEAST, "{room:?}");
        let more = ask(&socket, MOST).unwrap();
        assert!(more.given >= room.given && more.given <= MOST, "{more:?}");
    }

    proptest! {
        #[test]
        fn room_is_bounded_and_a_power_of_two(bytes: u64, span_us in 0u64..10_000_000, trip_us: u32) {
            let (span, trip) = (Duration::from_micros(span_us), Duration::from_micros(trip_us.into()));
            let room = wanted(bytes, span, trip);
            prop_assert!((LEAST..=MOST).contains(&room) && room.is_power_of_two());
        }
    }
}
