//! What whoever moves the packets asks of the paths in use: which packets the relay would carry, so that others may go before
//! them, and how long the direct ones are.

use std::time::Duration;

use mesh_packet::{Ethernet, IpPacket};

use crate::node::{Link, Node, Now, Slot};
use crate::path::Path;
use crate::segment::receiver;

impl Node {
    /// Whether a packet of the device is for one peer alone that only the relay leads to. A packet that has no session to go
    /// by is for none: it waits here for the handshake, which it begins.
    #[must_use]
    pub fn goes_by_relay(&self, now: Now, packet: &[u8]) -> bool {
        let slot = match self.config.link {
            Link::Ip => IpPacket::parse(packet).ok().and_then(|header| self.routes.lookup(header.dst)),
            Link::Ethernet => Ethernet::parse(packet).ok().and_then(|frame| {
                let named = receiver(&frame).and_then(|address| self.routes.lookup(address));
                named.or_else(|| self.segment.only(now.instant, &frame))
            }),
        };
        slot.is_some_and(|slot| self.reached_by_relay(slot))
    }

    /// Whether a session stands with a peer, and only the relay leads to it.
    pub(crate) fn reached_by_relay(&self, slot: Slot) -> bool {
        let peer = &self.peers[slot.0];
        peer.settled().is_some() && matches!(peer.paths.current(), Path::Relay(_))
    }

    /// The longest round trip of the direct paths in use.
    #[must_use]
    pub fn longest_trip(&self) -> Option<Duration> {
        self.peers.iter().filter_map(|peer| peer.paths.rtt()).max()
    }
}
