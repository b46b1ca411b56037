//! Hardware addresses of Ethernet.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address; prints and parses as `02:00:5e:10:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address that every station listens to.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Wraps six bytes in the order in which they travel.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six bytes in the order in which they travel.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether a group of stations is meant; broadcast is such a group.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & GROUP_BIT != 0
    }

    /// Whether every station is meant.
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether the address can belong to one station: no group, and not all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }

    /// Whether the address was made up locally and not bought from the IEEE.
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0[0] & LOCAL_BIT != 0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseMacAddrError)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseMacAddrError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacAddrError)?;
        }
        if parts.next().is_some() {
            return Err(ParseMacAddrError);
        }
        Ok(Self(bytes))
    }
}

/// A text is not six pairs of hexadecimal digits with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacAddrError;

impl fmt::Display for ParseMacAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a hardware address; write six pairs of hexadecimal digits such as 02:00:5e:10:00:01")
    }
}

impl std::error::Error for ParseMacAddrError {}

/// I/G bit of the first octet (IEEE 802, section 8.2.2).
const GROUP_BIT: u8 = 0b01;
/// U/L bit of the first octet (IEEE 802, section 8.2.2).
const LOCAL_BIT: u8 = 0b10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_are_told_apart() {
        let station = MacAddr::new([0x02, 0, 0x5e, 0x10, 0, 1]);
        assert!(station.is_unicast() && station.is_local());
        assert!(!station.is_multicast() && !station.is_broadcast());
        let neighbours = MacAddr::new([0x33, 0x33, 0, 0, 0, 1]);
        assert!(neighbours.is_multicast() && !neighbours.is_broadcast() && !neighbours.is_unicast());
        assert!(MacAddr::BROADCAST.is_multicast() && MacAddr::BROADCAST.is_broadcast());
        assert!(!MacAddr::new([0; 6]).is_unicast());
        assert!(!MacAddr::new([0x00, 0x1b, 0x21, 0, 0, 1]).is_local());
    }

    #[test]
    fn malformed_texts_are_refused() {
        let bad =
            ["", "02", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02:00:5e:10:00:1", "+2:00:5e:10:00:01"];
        for text in bad {
            assert_eq!(text.parse::<MacAddr>(), Err(ParseMacAddrError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes: [u8; 6]) {
            let mac = MacAddr::new(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }
}
