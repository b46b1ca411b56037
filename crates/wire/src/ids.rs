//! The 32-byte names of nodes, networks and certificates.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

/// Names a node: the first 32 bytes of a SHA-512 over its public keys (`docs/protocol.md`, "Identities").
///
/// Shown as 52 characters of lower-case base32 (RFC 4648, no padding).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// Names a network: the first 32 bytes of a SHA-512 over the public keys of its root.
///
/// The holder of the root keys is reachable at the relay under these same 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetId(pub [u8; 32]);

/// Pins a TLS certificate: SHA-256 of its DER SubjectPublicKeyInfo (as in RFC 7469).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

/// The text is not a 32-byte id in base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 52 characters of base32")]
pub struct IdParseError;

impl NetId {
    /// Returns the address under which the holder of the root keys is reachable at a relay and in an enrolment.
    #[must_use]
    pub const fn as_party(self) -> NodeId {
        NodeId(self.0)
    }
}

impl NodeId {
    /// Returns the first eight characters, for people who tell a few nodes apart.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

macro_rules! base32_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, IdParseError> {
                if text.len() != 52 {
                    return Err(IdParseError);
                }
                let bytes =
                    BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| IdParseError)?;
                bytes.try_into().map($name).map_err(|_| IdParseError)
            }
        }
    };
}

base32_text!(NodeId);
base32_text!(NetId);
base32_text!(Pin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_read_back() {
        let id = NodeId(std::array::from_fn(|i| u8::try_from(i).unwrap() * 7));
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(id.to_string().to_ascii_uppercase().parse::<NodeId>(), Ok(id));
    }

    #[test]
    fn short_or_foreign_text_is_refused() {
        assert_eq!("".parse::<NodeId>(), Err(IdParseError));
        assert_eq!("a".repeat(51).parse::<NodeId>(), Err(IdParseError));
        assert_eq!("1".repeat(52).parse::<NodeId>(), Err(IdParseError));
        assert_eq!("ä".repeat(26).parse::<NodeId>(), Err(IdParseError));
    }
}
