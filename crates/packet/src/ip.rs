//! A strict reading of the IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The header fields of one IP packet.
///
/// The fields are copies, so the packet's bytes stay free to be sealed or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Where the packet says that it comes from.
    pub src: IpAddr,
    /// Where the packet wants to go.
    pub dst: IpAddr,
    /// IPv4 or IPv6.
    pub version: IpVersion,
    /// Bytes of the IPv4 header with its options, or of the fixed IPv6 header.
    pub header_len: usize,
    /// Bytes of the whole packet; what the slice holds beyond them is padding. At least `header_len`, at most
    /// the length of the slice.
    pub total_len: usize,
    /// The protocol behind the header; in IPv6 the first Next Header, which may be an extension header.
    pub protocol: u8,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: u8,
    /// Congestion mark.
    pub ecn: Ecn,
}

impl IpPacket {
    /// Reads the header at the start of `bytes`; bytes behind the packet's own length are allowed.
    ///
    /// # Errors
    /// See [`ParseError`]: every length that the header claims has to fit the slice.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let first = bytes.first().ok_or(ParseError::Empty)?;
        match first >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            version => Err(ParseError::Version(version)),
        }
    }

    /// The packet without the padding behind it, where `bytes` is the slice that was parsed.
    ///
    /// Returns `None` for a slice shorter than the packet, that is, for another one.
    #[must_use]
    pub fn trim<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(..self.total_len)
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, ParseError> {
        let (fixed, _) = bytes.split_first_chunk::<V4_HEADER>().ok_or(ParseError::Truncated)?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if header_len < V4_HEADER {
            return Err(ParseError::HeaderLength);
        }
        check_length(header_len, total_len, bytes.len())?;
        let (dscp, ecn) = split_class(fixed[1]);
        Ok(Self {
            src: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
            dst: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
            version: IpVersion::V4,
            header_len,
            total_len,
            protocol: fixed[9],
            dscp,
            ecn,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, ParseError> {
        let (fixed, _) = bytes.split_first_chunk::<V6_HEADER>().ok_or(ParseError::Truncated)?;
        let payload_len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let protocol = fixed[6];
        if payload_len == 0 && protocol == HOP_BY_HOP {
            return Err(ParseError::Jumbogram);
        }
        let total_len = V6_HEADER + payload_len;
        check_length(V6_HEADER, total_len, bytes.len())?;
        let (dscp, ecn) = split_class((fixed[0] << 4) | (fixed[1] >> 4));
        Ok(Self {
            src: v6_address(fixed, 8).into(),
            dst: v6_address(fixed, 24).into(),
            version: IpVersion::V6,
            header_len: V6_HEADER,
            total_len,
            protocol,
            dscp,
            ecn,
        })
    }
}

/// The version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// The two congestion bits of an IP header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender does not understand congestion marks.
    NotCapable,
    /// The sender understands them; codepoint ECT(1), which L4S uses.
    Capable1,
    /// The sender understands them; codepoint ECT(0).
    Capable0,
    /// A router on the way met congestion.
    Experienced,
}

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// There is no byte at all.
    Empty,
    /// The version field is neither 4 nor 6.
    Version(u8),
    /// The slice ends before the fixed header, the options or the claimed total length do.
    Truncated,
    /// The IPv4 header claims less than 20 bytes, or more than the whole packet.
    HeaderLength,
    /// An IPv6 jumbogram (RFC 2675), which no link of ours can carry.
    Jumbogram,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the packet is empty"),
            Self::Version(version) => write!(f, "IP version {version} does not exist"),
            Self::Truncated => f.write_str("the packet is shorter than its header says"),
            Self::HeaderLength => f.write_str("the IPv4 header length is impossible"),
            Self::Jumbogram => f.write_str("IPv6 jumbograms are not supported"),
        }
    }
}

impl std::error::Error for ParseError {}

fn check_length(header_len: usize, total_len: usize, available: usize) -> Result<(), ParseError> {
    if total_len < header_len {
        return Err(ParseError::HeaderLength);
    }
    if total_len > available {
        return Err(ParseError::Truncated);
    }
    Ok(())
}

const fn split_class(class: u8) -> (u8, Ecn) {
    let ecn = match class & 0b11 {
        0 => Ecn::NotCapable,
        1 => Ecn::Capable1,
        2 => Ecn::Capable0,
        _ => Ecn::Experienced,
    };
    (class >> 2, ecn)
}

fn v6_address(header: &[u8; V6_HEADER], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    octets.into()
}

/// Bytes of an IPv4 header without options.
const V4_HEADER: usize = 20;
/// Bytes of the fixed IPv6 header.
const V6_HEADER: usize = 40;
/// Next Header of the hop-by-hop options, where a jumbogram has its length.
const HOP_BY_HOP: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(class: u8, total_len: u16) -> Vec<u8> {
        let mut packet = vec![0x45, class, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2];
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet
    }

    fn v6(payload_len: u16, next_header: u8) -> Vec<u8> {
        let mut packet = vec![0x6b, 0x90, 0, 0, 0, 0, next_header, 64];
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet
    }

    #[test]
    fn ipv4_fields_are_read_and_padding_is_trimmed() {
        let mut bytes = v4(0xb9, 24);
        bytes.extend(*b"DATApadding");
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.src, IpAddr::from([100, 64, 0, 1]));
        assert_eq!(packet.dst, IpAddr::from([100, 64, 0, 2]));
        assert_eq!((packet.version, packet.protocol), (IpVersion::V4, 17));
        assert_eq!((packet.dscp, packet.ecn), (46, Ecn::Capable1));
        assert_eq!((packet.header_len, packet.total_len), (20, 24));
        assert!(packet.trim(&bytes).unwrap().ends_with(b"DATA"));
        assert_eq!(packet.trim(&bytes[..23]), None);
    }

    #[test]
    fn ipv6_fields_are_read() {
        let mut bytes = v6(4, 58);
        bytes.extend(*b"DATA++");
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.src, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(packet.dst, "fd00::2".parse::<IpAddr>().unwrap());
        assert_eq!((packet.version, packet.protocol), (IpVersion::V6, 58));
        assert_eq!((packet.dscp, packet.ecn), (46, Ecn::Capable1));
        assert_eq!((packet.header_len, packet.total_len), (40, 44));
    }

    #[test]
    fn ipv4_lengths_have_to_fit() {
        let cases = [
            (v4(0, 19), ParseError::HeaderLength),
            (v4(0, 21), ParseError::Truncated),
            (v4(0, 20)[..19].to_vec(), ParseError::Truncated),
            ([&[0x44], &v4(0, 20)[1..]].concat(), ParseError::HeaderLength),
            ([&[0x46], &v4(0, 20)[1..]].concat(), ParseError::HeaderLength),
            ([&[0x46], &v4(0, 24)[1..]].concat(), ParseError::Truncated),
        ];
        for (bytes, error) in cases {
            assert_eq!(IpPacket::parse(&bytes), Err(error), "{bytes:02x?}");
        }
    }

    #[test]
    fn ipv6_lengths_have_to_fit() {
        assert_eq!(IpPacket::parse(&v6(1, 58)), Err(ParseError::Truncated));
        assert_eq!(IpPacket::parse(&v6(0, 58)[..39]), Err(ParseError::Truncated));
        assert_eq!(IpPacket::parse(&v6(0, 0)), Err(ParseError::Jumbogram));
        assert_eq!(IpPacket::parse(&v6(0, 59)).unwrap().total_len, 40);
    }

    #[test]
    fn other_versions_and_nothing_are_refused() {
        assert_eq!(IpPacket::parse(&[]), Err(ParseError::Empty));
        assert_eq!(IpPacket::parse(&[0x05; 60]), Err(ParseError::Version(0)));
        assert_eq!(IpPacket::parse(&[0x5f; 60]), Err(ParseError::Version(5)));
    }

    /// Random bytes behind a first byte that makes IPv4 and IPv6 likely.
    fn packet_like() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![0x40_u8..0x50, 0x60_u8..0x70, any::<u8>()];
        let rest = proptest::collection::vec(any::<u8>(), 0..80);
        // The high byte of either length field is zero half of the time, so that packets that fit turn up.
        (first, rest, any::<bool>()).prop_map(|(first, mut rest, small)| {
            for at in [1, 3] {
                if let Some(high) = rest.get_mut(at).filter(|_| small) {
                    *high = 0;
                }
            }
            [vec![first], rest].concat()
        })
    }

    proptest! {
        #[test]
        fn accepted_lengths_lie_inside_the_slice(bytes in packet_like()) {
            if let Ok(packet) = IpPacket::parse(&bytes) {
                prop_assert!(packet.header_len <= packet.total_len);
                prop_assert!(packet.total_len <= bytes.len());
                prop_assert!(packet.dscp < 64);
                prop_assert_eq!(packet.src.is_ipv4(), packet.version == IpVersion::V4);
                prop_assert_eq!(packet.dst.is_ipv4(), packet.version == IpVersion::V4);
                prop_assert_eq!(IpPacket::parse(packet.trim(&bytes).unwrap()), Ok(packet));
            }
        }

        #[test]
        fn cutting_an_accepted_packet_short_is_noticed(bytes in packet_like(), cut in any::<proptest::sample::Index>()) {
            if let Ok(packet) = IpPacket::parse(&bytes) {
                let shorter = &bytes[..cut.index(packet.total_len)];
                prop_assert!(matches!(IpPacket::parse(shorter), Err(ParseError::Truncated | ParseError::Empty)));
            }
        }
    }
}
