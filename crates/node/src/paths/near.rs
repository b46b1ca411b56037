//! Addresses at which a peer was found on a local network: no more than places to try, as all others.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Paths, Remote, Setting};

/// What came of addresses on a local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Near {
    /// There is one that was not there before.
    pub(crate) news: bool,
    /// [`Paths::timeout`] should be called.
    pub(crate) timeout: bool,
}

impl Paths {
    /// The peer was found at these addresses and no others.
    pub(crate) fn set_near(
        &mut self,
        now: Instant,
        mut addresses: Vec<SocketAddr>,
        setting: Setting,
    ) -> Near {
        addresses.truncate(NEAR);
        let news = addresses.iter().any(|address| !self.near.contains(address));
        self.near = addresses;
        for remote in &mut self.remotes {
            remote.near = false;
        }
        self.add_near();
        Near { news, timeout: news && setting.searches && self.is_wanting(now) && self.search_now(now) }
    }

    /// An agent of ICE says that the peer is reached there.
    pub(crate) fn found(&mut self, address: SocketAddr) {
        if !self.remotes.iter().any(|remote| remote.address == address) {
            self.add(Remote::seen(address));
        }
    }

    /// Where the peer was found on a local network.
    pub(crate) fn near(&self) -> &[SocketAddr] {
        &self.near
    }

    pub(super) fn add_near(&mut self) {
        for address in self.near.clone() {
            match self.remotes.iter_mut().find(|remote| remote.address == address) {
                Some(remote) => remote.near = true,
                None => self.add(Remote::near(address)),
            }
        }
    }
}

/// Addresses on local networks that are tried: both families on two interfaces, and a predecessor of some.
const NEAR: usize = 6;

#[cfg(test)]
mod tests {
    use mesh_wire::NodeId;
    use mesh_wire::control::{Candidate, CandidateKind, Candidates, Mapping};

    use super::*;
    use crate::paths::Step;

    const ON: Setting =
        Setting { searches: true, relay: true, birthday: false, mapping: Mapping::None, most: 1420 };

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 168, 1, number], 1))
    }

    fn challenges(steps: &[Step]) -> usize {
        steps.iter().filter(|step| matches!(step, Step::Challenge(..))).count()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn new_neighbour_is_challenged_and_a_known_one_is_not() {
        let now = Instant::now();
        let mut paths = Paths::new(NodeId([1; 32]));
        let off = Setting { searches: false, ..ON };
        assert_eq!(paths.set_near(now, vec![address(1)], off), Near { news: true, timeout: false });
        assert_eq!(paths.set_near(now, vec![address(1)], ON), Near { news: false, timeout: false });
        assert_eq!(paths.set_near(now, vec![address(2)], ON), Near { news: true, timeout: true });
        assert!(challenges(&paths.timeout(now, ON)) > 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn neighbour_outlives_what_the_peer_says_and_a_new_start_of_it() {
        let now = Instant::now();
        let mut paths = Paths::new(NodeId([1; 32]));
        paths.set_near(now, vec![address(1)], ON);
        let named = Candidate { kind: CandidateKind::Host, address: address(1) };
        paths.candidates(now, &Candidates { list: vec![named], ..Candidates::default() }, ON);
        paths.candidates(now, &Candidates::default(), ON);
        assert!(paths.remotes().iter().any(|remote| remote.address == address(1) && remote.near));
        paths.forget(now);
        assert!(paths.remotes().iter().any(|remote| remote.address == address(1) && remote.near));
        assert_eq!(paths.near(), [address(1)]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn peer_that_moved_is_followed_without_a_relay() {
        let alone = Setting { relay: false, ..ON };
        let mut now = Instant::now();
        let mut paths = Paths::new(NodeId([1; 32]));
        paths.set_near(now, vec![address(1)], alone);
        paths.shown(now, crate::path::Path::Udp(address(1)), alone);
        paths.set_near(now, vec![address(2)], alone);
        let mut challenged = false;
        for _ in 0..100 {
            paths.sends(now, false, alone);
            let Some(due) = paths.due() else { break };
            now = due;
            let steps = paths.timeout(now, alone);
            challenged |=
                steps.iter().any(|step| matches!(step, Step::Challenge(to, _) if *to == address(2)));
        }
        assert!(challenged, "nobody asked at the new address");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn number_of_neighbours_addresses_is_bounded() {
        let now = Instant::now();
        let mut paths = Paths::new(NodeId([1; 32]));
        for round in 0..50 {
            let many = (0..200).map(|number| SocketAddr::from(([10, 0, round, number], 1))).collect();
            paths.set_near(now, many, ON);
            assert!(paths.near().len() <= NEAR && paths.remotes().len() <= crate::paths::REMOTES);
        }
    }
}
