//! One node of a roster.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::codec::{Put, Reader};
use crate::limits::{GROUP, GROUPS, NAME, PREFIXES};
use crate::roster::{Group, Name, Prefix, UnixSeconds};
use crate::{NodeId, WireError};

/// Most bytes of an encoded leaf.
pub const LEAF_MAX: usize =
    8 + 32 + (1 + NAME) + 4 + 16 + (1 + PREFIXES * 18) + (1 + GROUPS * (1 + GROUP)) + 4 + 8 + 8;

/// What the root says about one node:
/// `serial u64 | id 32 | name | ipv4 4 | ipv6 16 | prefixes | groups | roles u32 | not before u64 | not after u64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Version of the roster for which this leaf was last written; grows with every change of the leaf.
    pub serial: u64,
    /// The node.
    pub node_id: NodeId,
    /// Its name, unique in the network.
    pub name: Name,
    /// Its inner IPv4 address, from the pool.
    pub ipv4: Ipv4Addr,
    /// Its inner IPv6 address, [`overlay_ipv6`](super::overlay_ipv6).
    pub ipv6: Ipv6Addr,
    /// Inner prefixes that the node may use beside its own addresses, at most [`PREFIXES`].
    pub prefixes: BTreeSet<Prefix>,
    /// Its groups, at most [`GROUPS`].
    pub groups: BTreeSet<Group>,
    /// What it may do beside being a node.
    pub roles: Roles,
    /// First second of the membership.
    pub not_before: UnixSeconds,
    /// Last second of the membership.
    pub not_after: UnixSeconds,
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles(u32);

impl Roles {
    /// No role: an ordinary node.
    pub const NONE: Self = Self(0);
    /// Holds the root keys, admits and expels nodes.
    pub const COORDINATOR: Self = Self(1);

    /// Tells whether all roles of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Takes bits from a message.
    ///
    /// # Errors
    /// [`WireError::Invalid`] when a bit has no meaning.
    pub const fn from_bits(bits: u32) -> Result<Self, WireError> {
        if bits & !Self::COORDINATOR.0 == 0 { Ok(Self(bits)) } else { Err(WireError::Invalid("roles")) }
    }
}

impl Leaf {
    /// Tells whether the node may use `address` as an inner source.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.ipv4)
            || address == IpAddr::V6(self.ipv6)
            || self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// Writes the leaf.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEAF_MAX);
        out.put_u64(self.serial);
        out.put(&self.node_id.0);
        out.put_bytes8(self.name.as_str().as_bytes());
        out.put(&self.ipv4.octets());
        out.put(&self.ipv6.octets());
        out.put_u8(u8::try_from(self.prefixes.len()).expect("callers bound the prefixes to 16"));
        for prefix in &self.prefixes {
            prefix.write(&mut out);
        }
        out.put_u8(u8::try_from(self.groups.len()).expect("callers bound the groups to 16"));
        for group in &self.groups {
            out.put_bytes8(group.as_str().as_bytes());
        }
        out.put_u32(self.roles.bits());
        out.put_u64(self.not_before.0);
        out.put_u64(self.not_after.0);
        out
    }

    /// Reads a leaf.
    ///
    /// # Errors
    /// [`WireError`] names the field that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let serial = reader.u64()?;
        let node_id = NodeId(reader.array()?);
        let name = Name::read(&mut reader, "node name")?;
        let ipv4 = reader.array::<4>()?.into();
        let ipv6 = reader.array::<16>()?.into();
        let prefixes = read_set(&mut reader, PREFIXES, "list of prefixes", Prefix::read)?;
        let groups = read_set(&mut reader, GROUPS, "list of groups", |r| Group::read(r, "group"))?;
        let roles = Roles::from_bits(reader.u32()?)?;
        let not_before = UnixSeconds(reader.u64()?);
        let not_after = UnixSeconds(reader.u64()?);
        reader.finish()?;
        if not_after < not_before {
            return Err(WireError::Invalid("dates"));
        }
        Ok(Self { serial, node_id, name, ipv4, ipv6, prefixes, groups, roles, not_before, not_after })
    }
}

/// Reads a counted list that must rise strictly, so that a set has one encoding.
fn read_set<T: Ord>(
    reader: &mut Reader<'_>,
    max: usize,
    what: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<BTreeSet<T>, WireError> {
    let count = usize::from(reader.u8()?);
    if count > max {
        return Err(WireError::TooLong(what));
    }
    let mut set = BTreeSet::new();
    for _ in 0..count {
        let item = read(reader)?;
        if set.last().is_some_and(|last| *last >= item) {
            return Err(WireError::Invalid(what));
        }
        set.insert(item);
    }
    Ok(set)
}
