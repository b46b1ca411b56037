//! Finds the header behind the IP header.

use crate::{IpPacket, IpVersion};

/// The first header that belongs to IP no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upper {
    /// Its protocol number.
    pub(crate) protocol: u8,
    /// Where it begins, in bytes from the start of the packet; at most the length of the packet.
    pub(crate) at: usize,
}

impl Upper {
    /// Looks behind the IPv4 header, or behind the IPv6 header and its extension headers, of `packet`, which is what
    /// [`IpPacket::trim`] left and `ip` was read from.
    ///
    /// Returns `None` for all fragments but the first, which have no such header, and where extension headers leave the
    /// packet or are more than [`MAX_EXTENSIONS`].
    pub(crate) fn find(packet: &[u8], ip: &IpPacket) -> Option<Self> {
        match ip.version {
            IpVersion::V4 => {
                let offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & V4_OFFSET;
                (offset == 0).then_some(Self { protocol: ip.protocol, at: ip.header_len })
            }
            IpVersion::V6 => Self::find_v6(packet, ip),
        }
    }

    fn find_v6(packet: &[u8], ip: &IpPacket) -> Option<Self> {
        let (mut protocol, mut at) = (ip.protocol, ip.header_len);
        for _ in 0..=MAX_EXTENSIONS {
            let header = packet.get(at..)?;
            let length = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8 + 8 * usize::from(*header.get(1)?),
                AUTHENTICATION => 8 + 4 * usize::from(*header.get(1)?),
                FRAGMENT => {
                    let offset = u16::from_be_bytes([*header.get(2)?, *header.get(3)?]) & V6_OFFSET;
                    if offset != 0 {
                        return None;
                    }
                    8
                }
                _ => return Some(Self { protocol, at }),
            };
            protocol = *header.first()?;
            at += length;
        }
        None
    }
}

/// Twice as many as RFC 8200, section 4.1, has in one packet of sense, so that no packet costs more than a few steps.
const MAX_EXTENSIONS: usize = 12;
/// The fragment offset beside the three flags (RFC 791, 3.1).
const V4_OFFSET: u16 = 0x1fff;
/// The fragment offset above two reserved bits and the M flag (RFC 8200, 4.5).
const V6_OFFSET: u16 = 0xfff8;
// Numbers of the extension headers of RFC 8200, 4.1, and RFC 4302 whose length can be read.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{v4, v6};

    fn find(packet: &[u8]) -> Option<Upper> {
        Upper::find(packet, &IpPacket::parse(packet).unwrap())
    }

    #[test]
    fn ipv4_options_are_stepped_over_and_later_fragments_have_none() {
        assert_eq!(find(&v4(0, &[], 6, b"tcp")), Some(Upper { protocol: 6, at: 20 }));
        assert_eq!(find(&v4(0x2000, &[1; 40], 6, b"tcp")), Some(Upper { protocol: 6, at: 60 }));
        assert_eq!(find(&v4(0x0001, &[], 6, b"tcp")), None);
        assert_eq!(find(&v4(0x3fff, &[], 6, b"tcp")), None);
    }

    #[test]
    fn extension_headers_are_stepped_over() {
        let hop_by_hop = [60, 0, 0, 0, 0, 0, 0, 0];
        let options = [[43, 1, 0, 0, 0, 0, 0, 0], [0; 8]].concat();
        let routing = [51, 0, 0, 0, 0, 0, 0, 0];
        let authentication = [[44, 2, 0, 0, 0, 0, 0, 0], [0; 8]].concat();
        let fragment = [6, 0, 0, 1, 0, 0, 0, 9];
        let chain = [&hop_by_hop[..], &options, &routing, &authentication, &fragment, b"tcp"].concat();
        assert_eq!(find(&v6(0, &chain)), Some(Upper { protocol: 6, at: 40 + 56 - 8 + 8 }));
        for len in 0..chain.len() - 3 {
            let found = if len == 0 { None } else { find(&v6(0, &chain[..len])) };
            assert_eq!(found, None, "{len} bytes of extension headers");
        }
        assert_eq!(find(&v6(59, &[])), Some(Upper { protocol: 59, at: 40 }));
        assert_eq!(find(&v6(6, &[])), Some(Upper { protocol: 6, at: 40 }));
    }

    #[test]
    fn later_fragments_and_endless_chains_have_no_upper_header() {
        assert_eq!(find(&v6(44, &[6, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3, 4])), None);
        assert_eq!(find(&v6(44, &[6, 0, 0xff, 0xf9, 0, 0, 0, 9])), None);
        let chain = |count: usize| {
            let mut chain = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count);
            chain[8 * (count - 1)] = 6;
            v6(60, &chain)
        };
        assert_eq!(find(&chain(12)), Some(Upper { protocol: 6, at: 40 + 96 }));
        assert_eq!(find(&chain(13)), None);
    }
}
