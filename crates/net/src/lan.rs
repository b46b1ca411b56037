//! Nodes of one network on one switch find each other by sealed announcements in multicast DNS.
//!
//! In: the interfaces of this machine ([`lan_links`]), datagrams of anybody on them. Out: our announcements and questions,
//! and where members said that they are ([`LanFound`]). [`LanMachine`] decides when to say something and what to believe;
//! [`LanSockets`] carries it. What is sealed, and under which key, is the caller's matter.
//!
//! Invariants: the machine has no clock, no randomness and no socket; its tables are bounded; what comes costs no more
//! than its rate allows; what is found is a place to try, and no more. A socket takes datagrams to the group only, so that
//! other programs on the port keep theirs.

mod links;
mod machine;
mod sockets;

pub use links::{LanLink, MAX_LINKS, lan_links};
pub use machine::{LanCounts, LanFound, LanMachine, LanPorts, LanSay, LanTransmit};
pub use sockets::{LanDatagram, LanSockets};
