//! Views of the packets that pass a TUN or TAP device, and what is done to those that the way ahead has no room for.
//!
//! In: the bytes of one IP packet or one Ethernet frame, as a device or a peer gave them. Out: the few fields
//! that routing needs, copied out, and slices of the same bytes. Nothing is allocated, and no input
//! panics: every length that a header claims is checked against the slice before it is believed.
//!
//! Three functions keep packets below an MTU: [`clamp_mss`] has TCP make smaller segments from the start, [`too_big()`]
//! tells the sender of a packet, and [`fragment()`] cuts an IPv4 packet whose sender allows it.
//!
//! Deliberately absent: checking the checksums of whole packets (the receiving kernel does), limits on how often
//! a sender is told, sockets, keys.

mod checksum;
mod ethernet;
mod fragment;
mod ip;
mod mac;
mod mss;
mod options;
#[cfg(test)]
mod testing;
mod too_big;
mod upper;

pub use ethernet::{EtherType, Ethernet, ParseEthernetError, VlanId};
pub use fragment::{Fragment, FragmentError, Fragments, fragment};
pub use ip::{Ecn, IpPacket, IpVersion, ParseError};
pub use mac::{MacAddr, ParseMacAddrError};
pub use mss::{clamp_mss, clamp_mss_partial};
pub use too_big::{TOO_BIG_LEN, too_big};
