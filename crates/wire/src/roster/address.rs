//! Inner addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::codec::{Put, Reader};
use crate::{NetId, NodeId, WireError};

/// Bits of the IPv6 prefix of a network ([`ula`]).
pub const ULA_LEN: u8 = 48;

/// Returns the IPv6 prefix of a network: `fd` and the first 40 bits of its id (RFC 4193, section 3.1).
#[must_use]
pub fn ula(net: NetId) -> Prefix {
    let [a, b, c, d, e, ..] = net.0;
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&[0xfd, a, b, c, d, e]);
    Prefix { address: IpAddr::V6(octets.into()), len: ULA_LEN }
}

/// Returns the IPv6 address of a node: the prefix of the network, subnet 0, and the first 64 bits of the node's id.
#[must_use]
pub fn overlay_ipv6(net: NetId, node: NodeId) -> Ipv6Addr {
    let [a, b, c, d, e, ..] = net.0;
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&[0xfd, a, b, c, d, e]);
    octets[8..].copy_from_slice(&node.0[..8]);
    octets.into()
}

/// An address prefix without host bits, such as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Makes a prefix of `len` bits.
    ///
    /// # Errors
    /// [`AddressError`] when `len` is too long for the family or bits behind the prefix are set.
    pub fn new(address: IpAddr, len: u8) -> Result<Self, AddressError> {
        if len > width(address) {
            return Err(AddressError::Length);
        }
        if masked(address, len) != address {
            return Err(AddressError::HostBits);
        }
        Ok(Self { address, len })
    }

    /// Returns the first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the number of bits.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Tells whether the address lies within.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        width(address) == width(self.address) && masked(address, self.len) == self.address
    }

    /// Tells whether every address of `other` lies within.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(other.address)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let address = match reader.u8()? {
            4 => IpAddr::from(reader.array::<4>()?),
            6 => IpAddr::from(reader.array::<16>()?),
            _ => return Err(WireError::Invalid("address family")),
        };
        Self::new(address, reader.u8()?).map_err(|_| WireError::Invalid("prefix"))
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.address {
            IpAddr::V4(address) => {
                out.put_u8(4);
                out.put(&address.octets());
            }
            IpAddr::V6(address) => {
                out.put_u8(6);
                out.put(&address.octets());
            }
        }
        out.put_u8(self.len);
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl FromStr for Prefix {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, len) = text.split_once('/').ok_or(AddressError::Form)?;
        let address = address.parse().map_err(|_| AddressError::Form)?;
        if !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AddressError::Form);
        }
        Self::new(address, len.parse().map_err(|_| AddressError::Form)?)
    }
}

/// The IPv4 addresses that a network gives to its nodes: a prefix of 8 to 30 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Pool {
    network: Ipv4Addr,
    len: u8,
}

impl Ipv4Pool {
    /// Makes a pool.
    ///
    /// # Errors
    /// [`AddressError`] when the length is not from 8 to 30, host bits are set, or the addresses are not for hosts.
    pub fn new(network: Ipv4Addr, len: u8) -> Result<Self, AddressError> {
        if !(8..=30).contains(&len) {
            return Err(AddressError::PoolLength);
        }
        if masked(network.into(), len) != IpAddr::V4(network) {
            return Err(AddressError::HostBits);
        }
        let first = network.octets()[0];
        // "This network", loopback, multicast and the reserved rest (RFC 6890), and link-local addresses (RFC 3927).
        if first == 0 || first == 127 || first >= 224 || network.is_link_local() {
            return Err(AddressError::NotForHosts);
        }
        Ok(Self { network, len })
    }

    /// Returns the network address.
    #[must_use]
    pub const fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Returns the number of bits of the prefix.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Returns the addresses for hosts in rising order: all but the network and the broadcast address.
    pub fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = u32::from(self.network);
        let last = first | u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
        (first + 1..last).map(Ipv4Addr::from)
    }

    /// Tells whether a node may have the address: it lies within and is neither network nor broadcast address.
    #[must_use]
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        let host_mask = u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
        let host = u32::from(address) & host_mask;
        u32::from(address) & !host_mask == u32::from(self.network) && host != 0 && host != host_mask
    }

    /// Returns the pool as a prefix.
    #[must_use]
    pub const fn prefix(&self) -> Prefix {
        Prefix { address: IpAddr::V4(self.network), len: self.len }
    }
}

impl fmt::Display for Ipv4Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix().fmt(f)
    }
}

impl FromStr for Ipv4Pool {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let prefix: Prefix = text.parse()?;
        match prefix.address {
            IpAddr::V4(network) => Self::new(network, prefix.len),
            IpAddr::V6(_) => Err(AddressError::Form),
        }
    }
}

/// The text or the numbers are not a prefix, or not one for this purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not address, slash and length.
    #[error("not an address prefix; write it as in 100.64.16.0/20")]
    Form,
    /// The length is more than the address has bits.
    #[error("the prefix is longer than the address")]
    Length,
    /// Bits behind the prefix are set.
    #[error("the address has bits set behind its prefix; give the first address of the range")]
    HostBits,
    /// The length does not suit a pool.
    #[error("an address pool has a prefix of 8 to 30 bits")]
    PoolLength,
    /// The range is loopback, link-local, multicast or reserved.
    #[error("these addresses are not for hosts; choose a private range such as 100.64.16.0/20")]
    NotForHosts,
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Clears the bits behind the first `len`.
fn masked(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & !host))
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & !host))
        }
    }
}
