//! The header in front of each packet of a device with offload (virtio 1.2, 5.1.6, in its form of 10 bytes).

use crate::checksum;

/// Bytes of the header.
pub const OFFLOAD_HEADER: usize = 10;

/// What is left to be done for a packet by whoever has it next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum that is still to be completed.
    pub checksum: Option<PartialChecksum>,
    /// The packet is still to be cut into segments.
    pub segments: Option<Segments>,
}

/// A checksum whose field holds the sum of the pseudo header only (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the bytes begin that it covers, up to the end of the packet.
    pub start: u16,
    /// Where its field lies, counted from `start`.
    pub offset: u16,
}

/// How a packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Of what kind it is.
    pub kind: SegmentKind,
    /// Bytes of the headers that each segment repeats; a hint only.
    pub header: u16,
    /// Bytes of payload in each segment but the last, which may have fewer.
    pub size: u16,
}

/// What is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4; `cwr` where the first segment reduces the congestion window (RFC 3168).
    TcpV4 {
        /// The first segment has the flag CWR, which the others do not repeat.
        cwr: bool,
    },
    /// TCP over IPv6.
    TcpV6 {
        /// The first segment has the flag CWR, which the others do not repeat.
        cwr: bool,
    },
    /// Datagrams of UDP over either family.
    Udp,
}

/// A header asks for what does not exist, or not for this packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOffload;

impl Offload {
    /// Nothing is left to be done.
    pub const NONE: Self = Self { checksum: None, segments: None };

    /// Reads a header.
    ///
    /// # Errors
    /// [`UnknownOffload`] for a kind of segments that is not in [`SegmentKind`], segments without a size, and segments
    /// whose checksum is complete, which cannot be cut.
    pub fn decode(header: &[u8; OFFLOAD_HEADER]) -> Result<Self, UnknownOffload> {
        let [flags, kind, rest @ ..] = header;
        let word = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let checksum = (flags & NEEDS_CSUM != 0).then(|| PartialChecksum { start: word(4), offset: word(6) });
        let cwr = kind & GSO_ECN != 0;
        let kind = match kind & !GSO_ECN {
            GSO_NONE => return Ok(Self { checksum, segments: None }),
            GSO_TCPV4 => SegmentKind::TcpV4 { cwr },
            GSO_TCPV6 => SegmentKind::TcpV6 { cwr },
            GSO_UDP_L4 => SegmentKind::Udp,
            _ => return Err(UnknownOffload),
        };
        let segments = Segments { kind, header: word(0), size: word(2) };
        if segments.size == 0 || checksum.is_none() {
            return Err(UnknownOffload);
        }
        Ok(Self { checksum, segments: Some(segments) })
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; OFFLOAD_HEADER] {
        let mut out = [0; OFFLOAD_HEADER];
        if let Some(checksum) = self.checksum {
            out[0] = NEEDS_CSUM;
            out[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
            out[8..10].copy_from_slice(&checksum.offset.to_ne_bytes());
        }
        if let Some(segments) = self.segments {
            out[1] = match segments.kind {
                SegmentKind::TcpV4 { cwr } => GSO_TCPV4 | if cwr { GSO_ECN } else { 0 },
                SegmentKind::TcpV6 { cwr } => GSO_TCPV6 | if cwr { GSO_ECN } else { 0 },
                SegmentKind::Udp => GSO_UDP_L4,
            };
            out[2..4].copy_from_slice(&segments.header.to_ne_bytes());
            out[4..6].copy_from_slice(&segments.size.to_ne_bytes());
        }
        out
    }
}

impl PartialChecksum {
    /// Completes the checksum of a packet; false, and nothing changed, where its field lies outside of the packet.
    pub fn complete(self, packet: &mut [u8]) -> bool {
        let start = usize::from(self.start);
        let field = start + usize::from(self.offset);
        let Some(covered) = packet.get(start..).filter(|_| field + 2 <= packet.len()) else { return false };
        let mut checksum = checksum::finish(checksum::sum(covered));
        // Zero says that there is none (RFC 768); TCP has no such rule, and its receivers take both.
        if checksum == 0 && self.offset == UDP_CHECKSUM {
            checksum = u16::MAX;
        }
        packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        true
    }
}

/// Where the checksum lies in a header of UDP and of TCP.
pub(crate) const UDP_CHECKSUM: u16 = 6;
pub(crate) const TCP_CHECKSUM: u16 = 16;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_has_the_bytes_of_the_standard() {
        let offload = Offload {
            checksum: Some(PartialChecksum { start: 20, offset: 16 }),
            segments: Some(Segments { kind: SegmentKind::TcpV4 { cwr: true }, header: 40, size: 1380 }),
        };
        let [l, h] = 1380_u16.to_ne_bytes();
        let [start, offset] = [20_u16, 16].map(u16::to_ne_bytes);
        let [header, _] = [40_u16, 0].map(u16::to_ne_bytes);
        let bytes = [1, 0x81, header[0], header[1], l, h, start[0], start[1], offset[0], offset[1]];
        assert_eq!(offload.encode(), bytes);
        assert_eq!(Offload::decode(&bytes), Ok(offload));
        assert_eq!(Offload::NONE.encode(), [0; OFFLOAD_HEADER]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let tcp = |flags: u8, kind: u8, size: u16| {
            let [l, h] = size.to_ne_bytes();
            Offload::decode(&[flags, kind, 40, 0, l, h, 20, 0, 16, 0])
        };
        assert!(tcp(1, 1, 1000).is_ok());
        assert_eq!(tcp(1, 1, 0), Err(UnknownOffload));
        assert_eq!(tcp(0, 1, 1000), Err(UnknownOffload));
        assert_eq!(tcp(1, 3, 1000), Err(UnknownOffload));
    }

    proptest! {
        #[test]
        fn field_outside_of_the_packet_changes_nothing(len in 0_usize..40, start: u16, offset: u16) {
            let mut packet = vec![7; len];
            let inside = usize::from(start) + usize::from(offset) + 2 <= len;
            prop_assert_eq!(PartialChecksum { start, offset }.complete(&mut packet), inside);
            prop_assert!(inside || packet.iter().all(|byte| *byte == 7));
        }
    }
}
