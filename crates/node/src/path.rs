//! What carries datagrams between two nodes.

use std::net::{IpAddr, SocketAddr};

use mesh_wire::NodeId;
use mesh_wire::cookie::Source;

/// What a datagram came over or goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// The relay, which names the node at the other end.
    Relay(NodeId),
    /// UDP to or from an address; who is behind it is known only from what is sealed.
    Udp(SocketAddr),
}

impl Path {
    /// Returns whose rate the other end's messages count against: a node of the relay, an IPv4 address, or an IPv6
    /// network of 64 bits, of which one host may have every address.
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::Relay(node) => Origin::Node(*node),
            Self::Udp(address) => match address.ip() {
                IpAddr::V4(ip) => Origin::Address(ip.to_ipv6_mapped().to_bits()),
                IpAddr::V6(ip) => Origin::Address(ip.to_bits() & !u128::from(u64::MAX)),
            },
        }
    }
}

impl From<Path> for Source {
    fn from(path: Path) -> Self {
        match path {
            Path::Relay(node) => Self::Relay(node),
            Path::Udp(address) => Self::Udp(address),
        }
    }
}

/// Whose token bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Node(NodeId),
    Address(u128),
    /// One that has shown that it receives where it sends from.
    Proven(Path),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_share_an_origin() {
        let udp = |text: &str| Path::Udp(text.parse().unwrap()).origin();
        assert_eq!(udp("192.0.2.1:1"), udp("192.0.2.1:2"));
        assert_ne!(udp("192.0.2.1:1"), udp("192.0.2.2:1"));
        assert_eq!(udp("[2001:db8::1]:1"), udp("[2001:db8::ffff:1]:2"));
        assert_ne!(udp("[2001:db8::1]:1"), udp("[2001:db8:0:1::1]:1"));
        assert_ne!(Path::Relay(NodeId([1; 32])).origin(), Path::Relay(NodeId([2; 32])).origin());
    }
}
