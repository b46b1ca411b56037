//! What a ticket says, in bytes.
//!
//! The text form (prefix, base64url, checksum) is made and checked by the identity crate, which has the hash.

use std::fmt;

use zeroize::Zeroizing;

use crate::codec::{Put, Reader};
use crate::limits::RELAY_URL;
use crate::{NetId, Pin, RelayUrl, WireError};

/// What every ticket begins with.
pub const PREFIX: &str = "meshticket_";
/// Version of the layout.
pub const VERSION: u8 = 1;
/// Bytes of the checksum that ends every version of a ticket.
pub const CHECKSUM: usize = 4;
/// Most bytes of a body with its checksum.
pub const MAX_LEN: usize = FIXED + RELAY_URL + CHECKSUM;

/// The content of a ticket: `version 1 | net 32 | pin 32 | seed 16 | expires u32 | relay`, the relay as `host[:port]`.
#[derive(Clone)]
pub struct TicketBody {
    /// The network that the ticket invites to.
    pub net: NetId,
    /// Pin of the relay's certificate.
    pub pin: Pin,
    /// Secret from which the id and the key of the invitation are derived.
    pub seed: Box<Zeroizing<[u8; 16]>>,
    /// When the ticket ends, in seconds since 1970 (until 2106).
    pub expires: u32,
    /// The relay at which the network's mailbox is reachable.
    pub relay: RelayUrl,
}

impl TicketBody {
    /// Writes the body without its checksum.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // The capacity is the final one, so that no copy of the seed is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_LEN));
        out.put_u8(VERSION);
        out.put(&self.net.0);
        out.put(&self.pin.0);
        out.put(self.seed.as_slice());
        out.put_u32(self.expires);
        out.put(self.relay.authority().as_bytes());
        out
    }

    /// Reads a body without its checksum.
    ///
    /// # Errors
    /// [`WireError`]; [`WireError::Version`] when the layout is of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(WireError::Version(version)),
        }
        let net = NetId(reader.array()?);
        let pin = Pin(reader.array()?);
        let mut seed = Box::new(Zeroizing::new([0; 16]));
        seed.copy_from_slice(reader.bytes(16)?);
        let expires = reader.u32()?;
        let relay = std::str::from_utf8(reader.rest())
            .ok()
            .and_then(|text| RelayUrl::from_authority(text).ok())
            .ok_or(WireError::Invalid("relay address"))?;
        Ok(Self { net, pin, seed, expires, relay })
    }
}

impl fmt::Debug for TicketBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketBody")
            .field("net", &self.net)
            .field("pin", &self.pin)
            .field("seed", &"[redacted]")
            .field("expires", &self.expires)
            .field("relay", &self.relay)
            .finish()
    }
}

/// Bytes before the relay address.
const FIXED: usize = 1 + 32 + 32 + 16 + 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> TicketBody {
        TicketBody {
            net: NetId([1; 32]),
            pin: Pin([2; 32]),
            seed: Box::new(Zeroizing::new([3; 16])),
            expires: 0x0403_0201,
            relay: "wss://relay.example:8443".parse().unwrap(),
        }
    }

    #[test]
    fn bytes_are_fixed() {
        let bytes = body().encode();
        let mut expected = vec![1];
        expected.extend_from_slice(&[1; 32]);
        expected.extend_from_slice(&[2; 32]);
        expected.extend_from_slice(&[3; 16]);
        expected.extend_from_slice(&[1, 2, 3, 4]);
        expected.extend_from_slice(b"relay.example:8443");
        assert_eq!(*bytes, expected);
        let back = TicketBody::parse(&bytes).unwrap();
        assert_eq!(*back.encode(), expected);
    }

    #[test]
    fn bad_bodies_are_refused() {
        let bytes = body().encode();
        for len in 0..=FIXED {
            assert!(TicketBody::parse(&bytes[..len]).is_err());
        }
        let mut other = bytes.clone();
        other[0] = 2;
        assert_eq!(TicketBody::parse(&other).unwrap_err(), WireError::Version(2));
        let mut other = bytes.clone();
        other.push(b'/');
        assert_eq!(TicketBody::parse(&other).unwrap_err(), WireError::Invalid("relay address"));
    }

    proptest! {
        #[test]
        fn bodies_are_read_back(net: [u8; 32], pin: [u8; 32], seed: [u8; 16], expires: u32, host in "[a-z]{1,20}", port in 1u16..) {
            let relay = format!("wss://{host}:{port}").parse().unwrap();
            let seed = Box::new(Zeroizing::new(seed));
            let bytes = TicketBody { net: NetId(net), pin: Pin(pin), seed, expires, relay }.encode();
            let back = TicketBody::parse(&bytes).unwrap();
            prop_assert_eq!((back.net.0, back.pin.0, back.expires), (net, pin, expires));
            prop_assert_eq!(&*back.encode(), &*bytes);
        }
    }

    #[test]
    fn seed_is_not_printed() {
        let text = format!("{:?}", body());
        assert!(text.contains("[redacted]") && !text.contains("3, 3"));
    }
}
