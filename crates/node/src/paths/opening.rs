//! Opens the own NAT towards a peer before the peer sends.
//!
//! A packet that comes to a router for a port that nothing behind it has opened may take that port: a Linux router that
//! accepts it makes an entry, and what the node behind it then sends to the same address leaves from another port, where
//! the peer does not look for it. So the first packet of a search to an address passes only a few routers: it opens the
//! own NAT and does not get as far as the peer's. Those that go all the way follow when the peer had time to do the same.

use std::time::{Duration, Instant};

use super::{Paths, Remote, Search, Step};
use crate::path::Path;

impl Paths {
    /// Opens the way to addresses where this search did not yet. Frames between neighbours pass no NAT.
    pub(super) fn open(&mut self, now: Instant, steps: &mut Vec<Step>) {
        let current = self.current;
        for remote in self.remotes.iter_mut().filter(|remote| remote.is_waiting() && remote.opened.is_none())
        {
            if Path::Udp(remote.address) != current {
                remote.opened = Some(now);
                steps.push(Step::Open(remote.address));
            }
        }
    }

    /// Every address is opened anew by the next search: NATs forget.
    pub(super) fn unopened(&mut self) {
        for remote in &mut self.remotes {
            (remote.opened, remote.heard) = (None, false);
        }
    }

    /// When the peer has had time to open its own NAT for this one: it was told our addresses, and we know its. None where
    /// nothing is to be waited for.
    pub(super) fn ready_at(&self, search: &Search, remote: &Remote) -> Option<Instant> {
        // Without an address of its own a node tells nothing; the peer may be open all the same.
        let told = search.told.unwrap_or(search.began + UNTOLD);
        let opened = remote.opened.filter(|_| remote.is_waiting())?;
        Some(opened.max(told) + LEAD)
    }
}

impl Remote {
    /// Only what the peer names is worth waiting for: where it was heard, its NAT is open.
    fn is_waiting(&self) -> bool {
        self.kind.is_some() && !self.near && !self.heard
    }
}

/// Longer than the relay needs to tell the peer of this node's addresses, on most ways; and short enough not to be felt.
const LEAD: Duration = Duration::from_millis(120);
/// A peer that could not be told of any address by then is challenged without.
const UNTOLD: Duration = Duration::from_secs(1);
/// Enough for a router at home and one or two of the provider, which are the NATs of this side; those of the peer are further
/// away, or in the same network, where no NAT is between.
pub(crate) const OPENING_HOPS: u8 = 5;
