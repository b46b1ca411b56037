//! Views of the packets that pass a TUN or TAP device.
//!
//! In: the bytes of one IP packet or one Ethernet frame, as a device or a peer gave them. Out: the few fields
//! that routing needs, copied out, and slices of the same bytes. Nothing is allocated or changed, and no input
//! panics: every length that a header claims is checked against the slice before it is believed.
//!
//! Deliberately absent: checksums (the receiving kernel checks them), transport headers, sockets, keys.

mod ethernet;
mod ip;
mod mac;

pub use ethernet::{EtherType, Ethernet, ParseEthernetError, VlanId};
pub use ip::{Ecn, IpPacket, IpVersion, ParseError};
pub use mac::{MacAddr, ParseMacAddrError};
