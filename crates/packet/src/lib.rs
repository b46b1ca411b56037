//! Views of the packets that pass a TUN or TAP device, and what is done to those that the way ahead has no room for.
//!
//! In: the bytes of one IP packet or one Ethernet frame, as a device or a peer gave them. Out: the few fields
//! that routing needs, copied out, and slices of the same bytes. Nothing is allocated, and no input
//! panics: every length that a header claims is checked against the slice before it is believed.
//!
//! Three functions keep packets below an MTU: [`clamp_mss`] has TCP make smaller segments from the start, [`too_big()`]
//! tells the sender of a packet, and [`fragment()`] cuts an IPv4 packet whose sender allows it.
//!
//! With a device that has offload, packets of up to 64 KiB stand for many: [`Split`] cuts them as a network card would,
//! [`Merge`] joins their segments again, and [`Offload`] is what device and program tell each other about each.
//!
//! Deliberately absent: checking the checksums of whole packets (the receiving kernel does), limits on how often
//! a sender is told, sockets, keys.

mod checksum;
mod class;
mod ethernet;
mod flow;
mod fragment;
mod ip;
mod layout;
mod mac;
mod merge;
mod mss;
mod offload;
mod options;
mod split;
#[cfg(test)]
mod testing;
mod too_big;
mod upper;

pub use class::{ECN, mark_congestion, traffic_class};
pub use ethernet::{EtherType, Ethernet, ParseEthernetError, VlanId};
pub use flow::{Class, Flow};
pub use fragment::{Fragment, FragmentError, Fragments, fragment};
pub use ip::{Ecn, IpPacket, IpVersion, ParseError};
pub use layout::{Layout, network_offset};
pub use mac::{MacAddr, ParseMacAddrError};
pub use merge::Merge;
pub use mss::{clamp_mss, clamp_mss_partial};
pub use offload::{OFFLOAD_HEADER, Offload, PartialChecksum, SegmentKind, Segments, UnknownOffload};
pub use split::{Split, SplitError};
pub use too_big::{TOO_BIG_LEN, too_big};
