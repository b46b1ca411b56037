//! Where a node takes connections of its peers by itself: direct WSS.

use std::net::SocketAddr;

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
