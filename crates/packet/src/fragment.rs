//! Cuts an IPv4 packet into fragments (RFC 791, 3.2).

use std::fmt;

use crate::checksum;
use crate::options::Options;
use crate::{IpPacket, IpVersion, ParseError};

/// Cuts an IPv4 packet without DF, which may be a fragment already, into fragments of at most `mtu` bytes.
///
/// A packet that fits is its own only fragment, unchanged and with DF as well. Otherwise every piece but the
/// last has a payload that is a multiple of 8 bytes and as long as fits. The first one has all options, the others those
/// with the copied flag (RFC 791, 3.1). A checksum of the payload is not touched: a partial one that a device with
/// offload hands out has to be completed first, for it covers what then lies in several packets.
///
/// # Errors
/// See [`FragmentError`].
pub fn fragment(packet: &[u8], mtu: u16) -> Result<Fragments<'_>, FragmentError> {
    if mtu < LEAST_MTU {
        return Err(FragmentError::Mtu(mtu));
    }
    let ip = IpPacket::parse(packet).map_err(FragmentError::Parse)?;
    let packet = ip.trim(packet).ok_or(FragmentError::Parse(ParseError::Truncated))?;
    if ip.version == IpVersion::V6 {
        return Err(FragmentError::Ipv6);
    }
    let (header, payload) = packet.split_at(ip.header_len);
    if !checksum::is_right(checksum::sum(header)) {
        return Err(FragmentError::HeaderChecksum);
    }
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let fits = packet.len() <= usize::from(mtu);
    if !fits && flags_and_offset & DONT_FRAGMENT != 0 {
        return Err(FragmentError::DontFragment);
    }
    let offset = flags_and_offset & OFFSET;
    let odd = flags_and_offset & MORE_FRAGMENTS != 0 && !payload.len().is_multiple_of(UNIT);
    if !fits && (odd || usize::from(offset) * UNIT + packet.len() > usize::from(u16::MAX)) {
        return Err(FragmentError::Offset);
    }
    let first = Header::from(header);
    let later = if fits { first } else { Header::of_later_fragments(header)? };
    let more = flags_and_offset & MORE_FRAGMENTS;
    let flags = flags_and_offset & !(MORE_FRAGMENTS | OFFSET);
    Ok(Fragments { header: first, later, rest: Some(payload), mtu: mtu.into(), flags, offset, more, fits })
}

/// The fragments of one packet, in order; see [`fragment()`].
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    /// Of the next fragment; its lengths, offset and checksum are still to be written.
    header: Header,
    /// Of all that follow the next one.
    later: Header,
    /// The payload that is not yet in a fragment, `None` behind the last one.
    rest: Option<&'a [u8]>,
    mtu: usize,
    /// What all fragments have: the reserved bit.
    flags: u16,
    /// Of the next fragment, in units of 8 bytes.
    offset: u16,
    /// [`MORE_FRAGMENTS`] where the packet is a fragment that is not the last, which its last piece inherits.
    more: u16,
    /// The packet is the only fragment.
    fits: bool,
}

impl<'a> Iterator for Fragments<'a> {
    type Item = Fragment<'a>;

    fn next(&mut self) -> Option<Fragment<'a>> {
        let rest = self.rest.take()?;
        let mut header = self.header;
        if self.fits {
            return Some(Fragment { header, payload: rest });
        }
        let room = self.mtu - header.len;
        let (payload, more) = if rest.len() <= room {
            (rest, self.more)
        } else {
            let (payload, behind) = rest.split_at(room - room % UNIT);
            self.rest = Some(behind);
            (payload, MORE_FRAGMENTS)
        };
        header.complete(payload.len(), self.flags | more | self.offset);
        self.header = self.later;
        self.offset += u16::try_from(payload.len() / UNIT).expect("a packet has at most 65535 bytes");
        Some(Fragment { header, payload })
    }
}

/// One fragment, whose payload lies in the packet that it is of.
#[derive(Clone, Debug)]
pub struct Fragment<'a> {
    header: Header,
    payload: &'a [u8],
}

impl Fragment<'_> {
    /// Bytes of the whole fragment, its header included: at least 20, at most the MTU that it was made for.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.header.len + self.payload.len()
    }

    /// Writes the fragment, an IPv4 packet, to the start of `out`, and returns its length.
    ///
    /// Returns `None` where `out` has less than [`Self::total_len`] bytes.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let (header, payload) = out.get_mut(..self.total_len())?.split_at_mut(self.header.len);
        header.copy_from_slice(self.header.as_slice());
        payload.copy_from_slice(self.payload);
        Some(self.total_len())
    }
}

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentError {
    /// The MTU is below 68 bytes, which every link takes (RFC 791, 3.2).
    Mtu(u16),
    /// The bytes are not a packet.
    Parse(ParseError),
    /// An IPv6 packet, which only its sender may cut (RFC 8200, 4.5).
    Ipv6,
    /// The checksum of the header is wrong; the fragments would have a right one.
    HeaderChecksum,
    /// The packet does not fit and has DF set; [`crate::too_big()`] tells its sender.
    DontFragment,
    /// The options claim impossible lengths.
    Options,
    /// The packet is a fragment that ends behind 65535 bytes, or one of an odd length with others behind it.
    Offset,
}

impl fmt::Display for FragmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mtu(mtu) => write!(f, "fragments of at most {mtu} bytes are too small; allow 68 at least"),
            Self::Parse(_) => f.write_str("the bytes are no IPv4 packet"),
            Self::Ipv6 => f.write_str("an IPv6 packet may be fragmented by its sender only"),
            Self::HeaderChecksum => f.write_str("the checksum of the IPv4 header is wrong"),
            Self::DontFragment => f.write_str("the packet is too big and must not be fragmented"),
            Self::Options => f.write_str("the options of the IPv4 header are malformed"),
            Self::Offset => f.write_str("the packet is a fragment of an impossible length"),
        }
    }
}

impl std::error::Error for FragmentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Parse(error) => Some(error),
            Self::Mtu(_)
            | Self::Ipv6
            | Self::HeaderChecksum
            | Self::DontFragment
            | Self::Options
            | Self::Offset => None,
        }
    }
}

/// An IPv4 header with its options.
#[derive(Clone, Copy, Debug)]
struct Header {
    bytes: [u8; MOST_HEADER],
    len: usize,
}

impl Header {
    /// The header without the options that only the first fragment has.
    fn of_later_fragments(header: &[u8]) -> Result<Self, FragmentError> {
        let (fixed, options) = header.split_at(FIXED);
        let mut later = Self::from(fixed);
        for option in Options::new(options) {
            let option = option.map_err(|_| FragmentError::Options)?;
            if option.kind & COPIED != 0 {
                let end = later.len + option.range.len();
                later.bytes[later.len..end].copy_from_slice(&options[option.range]);
                later.len = end;
            }
        }
        // What fills the last word is zero, the end of the list.
        later.len = later.len.next_multiple_of(4);
        let words = u8::try_from(later.len / 4).expect("a header has at most 15 words");
        later.bytes[0] = (later.bytes[0] & 0xf0) | words;
        Ok(later)
    }

    /// Writes what is different in every fragment.
    fn complete(&mut self, payload_len: usize, flags_and_offset: u16) {
        let total_len =
            u16::try_from(self.len + payload_len).expect("a fragment fits the MTU, which is a u16");
        self.bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
        self.bytes[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        self.bytes[10..12].fill(0);
        let checksum = checksum::finish(checksum::sum(self.as_slice()));
        self.bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<&[u8]> for Header {
    /// Takes at most [`MOST_HEADER`] bytes, which is as many as the length field of a header can say.
    fn from(header: &[u8]) -> Self {
        let mut bytes = [0; MOST_HEADER];
        bytes[..header.len()].copy_from_slice(header);
        Self { bytes, len: header.len() }
    }
}

/// Room for the longest header and one unit of payload.
const LEAST_MTU: u16 = 68;
/// Bytes of a header without options, and with the most.
const FIXED: usize = 20;
const MOST_HEADER: usize = 60;
/// Fragments begin at multiples of this many bytes.
const UNIT: usize = 8;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// The flag of an option's kind that puts it into every fragment.
const COPIED: u8 = 0x80;

#[cfg(test)]
mod tests;
