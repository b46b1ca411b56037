//! Where a node takes connections of its peers by itself: direct WSS.

use std::net::{IpAddr, SocketAddr};

use super::path::{put_address, read_address};
use crate::Pin;
use crate::codec::{Put, Reader, WireError};

/// Addresses of a door that a node names at most.
pub const DOOR_ADDRESSES: usize = 4;

/// The sender's door, as [`Control::Door`](super::Control::Door) tells it; each message replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorTold {
    /// SHA-256 of the DER SubjectPublicKeyInfo of its certificate.
    pub pin: Pin,
    /// Where it is, for TCP: 1 to [`DOOR_ADDRESSES`], each once, the most promising first.
    pub addresses: Vec<SocketAddr>,
}

/// Tells whether a node may be asked to connect to this address: not where only the machine itself, its link or a translator
/// of addresses answers. No host has others for another one to use (RFC 6890, RFC 6052, RFC 8215).
#[must_use]
pub fn may_be_a_door(address: &SocketAddr) -> bool {
    let special = match address.ip() {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first == 0 || first >= 240 || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            let [first, second, third, ..] = ip.segments();
            let translated = first == 0x64 && second == 0xff9b && third <= 1;
            let own = ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local();
            translated || own || ip.is_multicast() || ip.to_ipv4_mapped().is_some()
        }
    };
    address.port() != 0 && !special
}

pub(super) fn put(door: Option<&DoorTold>, out: &mut Vec<u8>) {
    let Some(door) = door.filter(|door| !door.addresses.is_empty()) else { return out.put_u8(0) };
    let list = &door.addresses[..door.addresses.len().min(DOOR_ADDRESSES)];
    out.put_u8(u8::try_from(list.len()).expect("at most 4"));
    out.put(&door.pin.0);
    for address in list {
        put_address(out, Some(*address));
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<DoorTold>, WireError> {
    let count = usize::from(reader.u8()?);
    if count == 0 {
        return Ok(None);
    }
    if count > DOOR_ADDRESSES {
        return Err(WireError::TooLong("door addresses"));
    }
    let pin = Pin(reader.array()?);
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let address = read_address(reader)?.ok_or(WireError::Invalid("door address"))?;
        if addresses.contains(&address) {
            return Err(WireError::Invalid("door addresses"));
        }
        addresses.push(address);
    }
    Ok(Some(DoorTold { pin, addresses }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_special_addresses() {
        for (address, may) in [
            ("192.0.2.1:443", true),
            ("10.0.0.1:443", true),
            ("[2001:db8::1]:443", true),
            ("[fd00::1]:443", true),
            ("192.0.2.1:0", false),
            ("0.1.2.3:443", false),
            ("127.0.0.1:443", false),
            ("169.254.169.254:80", false),
            ("224.0.0.1:443", false),
            ("240.0.0.1:443", false),
            ("255.255.255.255:443", false),
            ("[::1]:443", false),
            ("[fe80::1]:443", false),
            ("[::ffff:192.0.2.1]:443", false),
            ("[64:ff9b::7f00:1]:443", false),
            ("[64:ff9b:1::a00:1]:443", false),
        ] {
            assert_eq!(may_be_a_door(&address.parse().unwrap()), may, "{address}");
        }
    }
}
