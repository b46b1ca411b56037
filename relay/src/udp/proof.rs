//! At which address a client is reached over UDP. Pure: the time and the random bytes are arguments.
//!
//! An address counts once the client, and nobody else, has read a cookie there. Whoever cannot make a tag is not
//! answered; what was recorded on the way has a counter that is spent.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_wire::relay_udp::{Control, Kind};

/// The address of one connection's client.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// The highest counter of an ASK or PING so far.
    counter: u64,
    pending: Option<Pending>,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Pending {
    counter: u64,
    from: SocketAddr,
    len: usize,
    cookie: [u8; 16],
    since: Instant,
}

/// A proven address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    /// The longest datagram that came through in both directions.
    pub(crate) limit: usize,
    /// The relay's own address that the client sends to.
    pub(crate) local: Option<IpAddr>,
    /// When the client last showed that it is there.
    heard: Instant,
    /// How long the client took to send the cookie back.
    trip: Duration,
}

impl Proof {
    /// Takes a control message whose tag was found right, in a datagram of `len` bytes, and returns the answer, which has
    /// to be of the same length. `None`: nothing is answered.
    pub(crate) fn handle(
        &mut self,
        control: &Control,
        (from, len): (SocketAddr, usize),
        cookie: [u8; 16],
        now: Instant,
    ) -> Option<Control> {
        match control.kind {
            Kind::Ask => {
                self.spend(control.counter)?;
                self.pending = Some(Pending { counter: control.counter, from, len, cookie, since: now });
                Some(Control { kind: Kind::Challenge, cookie, ..*control })
            }
            Kind::Proof => {
                let pending = self.pending.take_if(|pending| {
                    (pending.counter, pending.from, pending.len) == (control.counter, from, len)
                        && pending.cookie == control.cookie
                })?;
                let trip = now.saturating_duration_since(pending.since);
                self.bound = Some(Bound { address: from, limit: len, local: None, heard: now, trip });
                Some(Control { kind: Kind::Proven, ..*control })
            }
            Kind::Ping => {
                let bound =
                    self.bound.as_mut().filter(|bound| (bound.address, bound.limit) == (from, len))?;
                if control.counter <= self.counter {
                    return None;
                }
                self.counter = control.counter;
                bound.heard = now;
                Some(Control { kind: Kind::Pong, ..*control })
            }
            Kind::Challenge | Kind::Proven | Kind::Pong => None,
        }
    }

    /// Notes to which of the relay's addresses a message from `from` came.
    pub(crate) fn arrived_at(&mut self, from: SocketAddr, local: Option<IpAddr>) {
        if let Some(bound) = self.bound.as_mut().filter(|bound| bound.address == from) {
            bound.local = local;
        }
    }

    /// Ends the use of UDP until an address is proven anew.
    pub(crate) fn end(&mut self) {
        (self.pending, self.bound) = (None, None);
    }

    /// Returns where to send to; a client that was not heard for a while gets everything by its other way.
    pub(crate) fn target(&self, now: Instant) -> Option<Bound> {
        self.bound.filter(|bound| now.saturating_duration_since(bound.heard) < FRESH)
    }

    /// The round trip to the proven address; a client that took longer than any path does was busy.
    pub(crate) fn trip(&self) -> Option<Duration> {
        self.bound.map(|bound| bound.trip.min(LONGEST_TRIP))
    }

    /// The proven address, heard lately or not.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.bound.map(|bound| bound.address)
    }

    /// Tells whether data from this address is the client's.
    pub(crate) fn is_from(&self, address: SocketAddr) -> bool {
        self.bound.is_some_and(|bound| bound.address == address)
    }

    fn spend(&mut self, counter: u64) -> Option<()> {
        (counter > self.counter).then(|| self.counter = counter)
    }
}

/// Round a satellite in a high orbit, twice.
const LONGEST_TRIP: Duration = Duration::from_secs(1);
/// A client with traffic pings three times in this time.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: [u8; 16] = [9; 16];

    fn at(port: u16) -> (SocketAddr, usize) {
        (SocketAddr::from(([192, 0, 2, 1], port)), 1472)
    }

    fn control(kind: Kind, counter: u64) -> Control {
        let cookie = if kind == Kind::Proof { COOKIE } else { [0; 16] };
        Control { kind, connection: 1, counter, cookie }
    }

    fn bound(counter: u64, port: u16, now: Instant) -> Proof {
        let mut proof = Proof::default();
        bind(&mut proof, counter, port, now);
        proof
    }

    fn bind(proof: &mut Proof, counter: u64, port: u16, now: Instant) {
        let challenge = proof.handle(&control(Kind::Ask, counter), at(port), COOKIE, now).unwrap();
        assert_eq!((challenge.kind, challenge.counter, challenge.cookie), (Kind::Challenge, counter, COOKIE));
        let proven = proof.handle(&control(Kind::Proof, counter), at(port), [0; 16], now).unwrap();
        assert_eq!((proven.kind, proven.counter), (Kind::Proven, counter));
        assert!(proof.is_from(at(port).0));
    }

    #[test]
    fn asking_alone_binds_nothing() {
        let now = Instant::now();
        let mut proof = Proof::default();
        assert!(proof.handle(&control(Kind::Ask, 1), at(1), COOKIE, now).is_some());
        assert_eq!(proof.target(now), None);
        assert!(!proof.is_from(at(1).0));
        assert_eq!(proof.handle(&control(Kind::Ping, 2), at(1), COOKIE, now), None);
    }

    #[test]
    fn cookie_counts_at_its_address_and_length_only() {
        let now = Instant::now();
        let mut proof = Proof::default();
        assert!(proof.handle(&control(Kind::Ask, 1), at(1), COOKIE, now).is_some());
        assert_eq!(proof.handle(&control(Kind::Proof, 1), at(2), COOKIE, now), None);
        let longer = (at(1).0, 1400);
        assert_eq!(proof.handle(&control(Kind::Proof, 1), longer, COOKIE, now), None);
        let wrong = Control { cookie: [8; 16], ..control(Kind::Proof, 1) };
        assert_eq!(proof.handle(&wrong, at(1), COOKIE, now), None);
        assert!(proof.handle(&control(Kind::Proof, 1), at(1), COOKIE, now).is_some());
    }

    #[test]
    fn replayed_messages_are_not_answered_and_move_nothing() {
        let now = Instant::now();
        let mut proof = bound(1, 1, now);
        bind(&mut proof, 2, 2, now);
        for port in [1, 2, 3] {
            for counter in [1, 2] {
                for kind in [Kind::Ask, Kind::Proof, Kind::Ping] {
                    let answer = proof.handle(&control(kind, counter), at(port), COOKIE, now);
                    assert_eq!(answer, None, "{kind:?} {counter} from {port}");
                }
            }
        }
        assert_eq!(proof.target(now).map(|bound| bound.address), Some(at(2).0));
    }

    #[test]
    fn silent_client_is_not_sent_to_until_it_pings() {
        let start = Instant::now();
        let mut proof = bound(1, 1, start);
        assert!(proof.target(start + FRESH - Duration::from_millis(1)).is_some());
        let later = start + FRESH;
        assert_eq!(proof.target(later), None);
        assert_eq!(proof.handle(&control(Kind::Ping, 2), at(2), COOKIE, later), None, "it moved");
        assert!(proof.handle(&control(Kind::Ping, 2), at(1), COOKIE, later).is_some());
        assert!(proof.target(later).is_some());
        proof.end();
        assert_eq!(proof.target(later), None);
        assert!(!proof.is_from(at(1).0));
    }

    #[test]
    fn proof_tells_the_round_trip_within_reason() {
        let start = Instant::now();
        for (took, trip) in [(80, 80), (5000, 1000)] {
            let mut proof = Proof::default();
            proof.handle(&control(Kind::Ask, 1), at(1), COOKIE, start).unwrap();
            assert_eq!(proof.trip(), None);
            let later = start + Duration::from_millis(took);
            proof.handle(&control(Kind::Proof, 1), at(1), [0; 16], later).unwrap();
            assert_eq!(proof.trip(), Some(Duration::from_millis(trip)));
        }
    }

    #[test]
    fn messages_of_a_relay_are_not_answered() {
        let now = Instant::now();
        let mut proof = bound(1, 1, now);
        for kind in [Kind::Challenge, Kind::Proven, Kind::Pong] {
            assert_eq!(proof.handle(&control(kind, 7), at(1), COOKIE, now), None);
        }
    }
}
