//! COOKIE: what a responder under load answers to a HELLO instead of a CHALLENGE.
//!
//! ```text
//! 0x95 | version 1 | flags u16 0 | receiver index u32 | nonce 24 | XChaCha20-Poly1305(cookie 16) || tag 16
//! ```
//! The cookie proves to the responder, in the mac2 of the next HELLO, that the initiator receives at the place that it
//! sends from. It is sealed, so that only somebody who knows the network's secret and saw the HELLO can use it.

use std::net::{IpAddr, SocketAddr};

use crate::NodeId;
use crate::codec::{Put, Reader, WireError};
use crate::handshake::VERSION;

/// First byte of a COOKIE, responder to initiator.
pub const COOKIE: u8 = 0x95;
/// Bytes of a COOKIE message.
pub const COOKIE_LEN: usize = 64;
/// Bytes of the cookie inside.
pub const VALUE: usize = 16;
/// Bytes of the nonce.
pub const NONCE: usize = 24;
/// Bytes of the sealed cookie with its tag.
pub const SEALED: usize = VALUE + 16;

/// A COOKIE message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookie {
    /// The initiator's number, from its HELLO.
    pub receiver: u32,
    /// Random.
    pub nonce: [u8; NONCE],
    /// The sealed cookie and its tag.
    pub sealed: [u8; SEALED],
}

impl Cookie {
    /// Returns the layout.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(COOKIE_LEN);
        out.put(&[COOKIE, VERSION, 0, 0]);
        out.put_u32(self.receiver);
        out.put(&self.nonce);
        out.put(&self.sealed);
        out
    }

    /// Reads a whole COOKIE.
    ///
    /// # Errors
    /// [`WireError`] for any other length, version or flag.
    pub fn parse(message: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(message);
        if reader.u8()? != COOKIE {
            return Err(WireError::Invalid("message type"));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        if reader.u16()? != 0 {
            return Err(WireError::Invalid("flags"));
        }
        let cookie = Self { receiver: reader.u32()?, nonce: reader.array()?, sealed: reader.array()? };
        reader.finish()?;
        Ok(cookie)
    }
}

/// Where a HELLO came from: what a cookie is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A node, as the relay names it.
    Relay(NodeId),
    /// An address and port of UDP.
    Udp(SocketAddr),
}

impl Source {
    /// Returns the bytes under the cookie's MAC: `01 | node id 32` or `02 | IP 16 (IPv4 mapped) | port u16`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33);
        match self {
            Self::Relay(node) => {
                out.put_u8(1);
                out.put(&node.0);
            }
            Self::Udp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.put_u8(2);
                out.put(&ip.octets());
                out.put_u16(address.port());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookie_has_the_documented_bytes() {
        let cookie = Cookie { receiver: 0x0102_0304, nonce: [5; NONCE], sealed: [6; SEALED] };
        let expected = [&[0x95, 1, 0, 0, 4, 3, 2, 1][..], &[5; 24], &[6; 32]].concat();
        assert_eq!(cookie.encode(), expected);
        assert_eq!(expected.len(), COOKIE_LEN);
        assert_eq!(Cookie::parse(&expected), Ok(cookie));
    }

    #[test]
    fn every_other_length_type_version_and_flag_is_refused() {
        let bytes = Cookie { receiver: 1, nonce: [5; NONCE], sealed: [6; SEALED] }.encode();
        for length in 0..bytes.len() {
            assert_eq!(Cookie::parse(&bytes[..length]), Err(WireError::Truncated));
        }
        assert_eq!(Cookie::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing));
        for (at, value, error) in [
            (0, 0x94, WireError::Invalid("message type")),
            (1, 2, WireError::Version(2)),
            (2, 1, WireError::Invalid("flags")),
            (3, 1, WireError::Invalid("flags")),
        ] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(Cookie::parse(&bad), Err(error));
        }
    }

    #[test]
    fn sources_have_the_documented_bytes() {
        assert_eq!(Source::Relay(NodeId([7; 32])).encode(), [&[1][..], &[7; 32]].concat());
        let mapped = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0xd2, 0x04];
        assert_eq!(Source::Udp("192.0.2.1:1234".parse().unwrap()).encode(), mapped);
        assert_eq!(Source::Udp("[::ffff:192.0.2.1]:1234".parse().unwrap()).encode(), mapped);
        let six = Source::Udp("[2001:db8::1]:65535".parse().unwrap()).encode();
        assert_eq!(six, [2, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(receiver: u32, nonce: [u8; NONCE], sealed: [u8; SEALED]) {
            let cookie = Cookie { receiver, nonce, sealed };
            prop_assert_eq!(Cookie::parse(&cookie.encode()), Ok(cookie));
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(cookie) = Cookie::parse(&noise) {
                prop_assert_eq!(cookie.encode(), noise);
            }
        }
    }
}
