//! A view of one Ethernet frame without its checksum, as a TAP device hands it out.

use std::fmt;

use crate::MacAddr;

/// The header fields of a frame and the bytes after its header and VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// The station or group that the frame is for.
    pub dst: MacAddr,
    /// The station that sent the frame.
    pub src: MacAddr,
    /// The outermost VLAN of a tagged frame (IEEE 802.1Q); the reserved id 0 of a priority tag counts as none.
    pub vlan: Option<VlanId>,
    /// What the payload is, read behind any VLAN tags.
    pub ethertype: EtherType,
    /// Everything behind the header and tags, padding of short frames included.
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Bytes of the header of an untagged frame.
    pub const HEADER_LEN: usize = 14;

    /// Reads the header of `frame` and steps over at most two VLAN tags.
    ///
    /// # Errors
    /// `TooShort` where the header or a tag does not fit the slice, `TooManyTags` for a third tag.
    pub fn parse(frame: &'a [u8]) -> Result<Self, ParseEthernetError> {
        let (dst, rest) = frame.split_first_chunk::<6>().ok_or(ParseEthernetError::TooShort)?;
        let (src, rest) = rest.split_first_chunk::<6>().ok_or(ParseEthernetError::TooShort)?;
        let (mut ethertype, mut rest) = take_u16(rest)?;
        let mut vlan = None;
        let mut tags = 0;
        while is_tag(ethertype) {
            if tags == MAX_TAGS {
                return Err(ParseEthernetError::TooManyTags);
            }
            tags += 1;
            let (control, behind) = take_u16(rest)?;
            vlan = vlan.or(VlanId::from_tag(control));
            (ethertype, rest) = take_u16(behind)?;
        }
        let ethertype = EtherType(ethertype);
        Ok(Self { dst: MacAddr::new(*dst), src: MacAddr::new(*src), vlan, ethertype, payload: rest })
    }
}

/// The number that says what an Ethernet payload is; values below 0x0600 are lengths of IEEE 802.3 frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Self = Self(0x0800);
    /// Address resolution (RFC 826).
    pub const ARP: Self = Self(0x0806);
    /// IPv6 (RFC 2464).
    pub const IPV6: Self = Self(0x86dd);
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// The id of a VLAN, 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    fn from_tag(control: u16) -> Option<Self> {
        let id = control & VLAN_ID_MASK;
        (id != 0).then_some(Self(id))
    }
}

/// Why bytes are not an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseEthernetError {
    /// The header or a VLAN tag ends behind the end of the slice.
    TooShort,
    /// More than two VLAN tags are stacked, which no IEEE 802.1 standard describes.
    TooManyTags,
}

impl fmt::Display for ParseEthernetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the Ethernet header is cut short",
            Self::TooManyTags => "the Ethernet frame has more than two VLAN tags",
        })
    }
}

impl std::error::Error for ParseEthernetError {}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), ParseEthernetError> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(ParseEthernetError::TooShort)?;
    Ok((u16::from_be_bytes(*head), rest))
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, CUSTOMER_TAG | SERVICE_TAG)
}

/// Tag protocol id of IEEE 802.1Q.
const CUSTOMER_TAG: u16 = 0x8100;
/// Tag protocol id of IEEE 802.1ad, the outer one of two tags.
const SERVICE_TAG: u16 = 0x88a8;
const VLAN_ID_MASK: u16 = 0x0fff;
/// One service tag and one customer tag.
const MAX_TAGS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DST: [u8; 6] = [0xff; 6];
    const SRC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

    fn frame(words: &[u16], payload: &[u8]) -> Vec<u8> {
        let mut frame = [DST, SRC].concat();
        for word in words {
            frame.extend(word.to_be_bytes());
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn untagged_frame_is_read() {
        let bytes = frame(&[0x0806], b"who has");
        let view = Ethernet::parse(&bytes).unwrap();
        assert_eq!(view.dst, MacAddr::BROADCAST);
        assert_eq!(view.src, MacAddr::new(SRC));
        assert_eq!(view.vlan, None);
        assert_eq!(view.ethertype, EtherType::ARP);
        assert_eq!(view.payload, b"who has");
    }

    #[test]
    fn tags_are_stepped_over_and_the_outer_vlan_is_kept() {
        let one = frame(&[0x8100, 0xe00a, 0x86dd], b"six");
        let view = Ethernet::parse(&one).unwrap();
        assert_eq!(
            (view.vlan.map(VlanId::get), view.ethertype, view.payload),
            (Some(10), EtherType::IPV6, &b"six"[..])
        );
        let two = frame(&[0x88a8, 7, 0x8100, 9, 0x0800], b"");
        let view = Ethernet::parse(&two).unwrap();
        assert_eq!((view.vlan.map(VlanId::get), view.ethertype), (Some(7), EtherType::IPV4));
    }

    #[test]
    fn priority_tag_names_no_vlan() {
        let bytes = frame(&[0x8100, 0xe000, 0x0800], b"");
        assert_eq!(Ethernet::parse(&bytes).unwrap().vlan, None);
    }

    #[test]
    fn third_tag_is_refused() {
        let bytes = frame(&[0x88a8, 1, 0x8100, 2, 0x8100, 3, 0x0800], b"");
        assert_eq!(Ethernet::parse(&bytes), Err(ParseEthernetError::TooManyTags));
    }

    #[test]
    fn every_cut_of_a_tagged_header_is_too_short() {
        let bytes = frame(&[0x8100, 5, 0x0800], b"");
        for len in 0..bytes.len() {
            assert_eq!(Ethernet::parse(&bytes[..len]), Err(ParseEthernetError::TooShort), "{len} bytes");
        }
    }

    fn word() -> impl Strategy<Value = u16> {
        prop_oneof![Just(CUSTOMER_TAG), Just(SERVICE_TAG), any::<u16>()]
    }

    proptest! {
        #[test]
        fn payload_of_random_bytes_is_a_suffix(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(view) = Ethernet::parse(&bytes) {
                prop_assert!(bytes.ends_with(view.payload));
                prop_assert!(view.payload.len() + Ethernet::HEADER_LEN <= bytes.len());
                prop_assert_eq!(&view.src.octets(), &bytes[6..12]);
            }
        }

        #[test]
        fn random_tags_leave_no_tag_as_ethertype(words in proptest::collection::vec(word(), 1..9)) {
            if let Ok(view) = Ethernet::parse(&frame(&words, b"")) {
                prop_assert!(!is_tag(view.ethertype.0));
            }
        }
    }
}
