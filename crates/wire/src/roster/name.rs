//! Names of networks, nodes and groups.

use std::fmt;
use std::str::FromStr;

use crate::WireError;
use crate::codec::Reader;
use crate::limits::{GROUP, NAME};

/// Name of a node or a network.
pub type Name = DnsLabel<NAME>;
/// Name of a group of nodes.
pub type Group = DnsLabel<GROUP>;

/// One DNS label of at most `MAX` bytes: lower-case letters, digits and, between them, hyphens (RFC 1035).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsLabel<const MAX: usize>(String);

impl<const MAX: usize> DnsLabel<MAX> {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, WireError> {
        reader.text8(MAX, what)?.parse().map_err(|_| WireError::Invalid(what))
    }
}

impl<const MAX: usize> FromStr for DnsLabel<MAX> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = (1..=MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good { Ok(Self(text.to_owned())) } else { Err(NameError { max: MAX }) }
    }
}

impl<const MAX: usize> fmt::Display for DnsLabel<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> AsRef<str> for DnsLabel<MAX> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The text cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {max} lower-case letters, digits and hyphens, and no hyphen at its ends")]
pub struct NameError {
    max: usize,
}
