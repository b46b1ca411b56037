//! Sealed data frames.
//!
//! ```text
//! 0x94 | lane u16 | receiver index u32 | counter u64 || AEAD{ type u8 | payload | zero pad } || tag 16
//! ```
//! The 15 header bytes are the associated data. The type stands inside the ciphertext, so that an observer sees only
//! sizes; with it the payload starts at offset 16.

use crate::codec::{Reader, WireError};

/// First byte of a sealed frame.
pub const SEALED: u8 = 0x94;
/// Bytes before the ciphertext.
pub const HEADER: usize = 15;
/// Bytes from the start of a frame to its payload: header and type.
pub const PAYLOAD_OFFSET: usize = HEADER + 1;
/// Bytes of the AEAD tag (RFC 8439).
pub const TAG: usize = 16;
/// Bytes that sealing adds to a payload, without padding: header, type and tag.
pub const OVERHEAD: usize = PAYLOAD_OFFSET + TAG;

/// What the clear header of a sealed frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The counter space of the sending worker and path.
    pub lane: u16,
    /// The receiver's own number for the session.
    pub receiver: u32,
    /// The frame's number within its lane; with the lane it makes the nonce.
    pub counter: u64,
}

impl FrameHeader {
    /// Returns the header bytes, which are also the associated data.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0] = SEALED;
        out[1..3].copy_from_slice(&self.lane.to_le_bytes());
        out[3..7].copy_from_slice(&self.receiver.to_le_bytes());
        out[7..15].copy_from_slice(&self.counter.to_le_bytes());
        out
    }

    /// Reads the header of a whole frame.
    ///
    /// # Errors
    /// [`WireError`] when the frame is shorter than [`OVERHEAD`] or is no sealed frame.
    pub fn parse(frame: &[u8]) -> Result<Self, WireError> {
        if frame.len() < OVERHEAD {
            return Err(WireError::Truncated);
        }
        let mut reader = Reader::new(frame);
        if reader.u8()? != SEALED {
            return Err(WireError::Invalid("frame type"));
        }
        Ok(Self { lane: reader.u16()?, receiver: reader.u32()?, counter: reader.u64()? })
    }

    /// Returns the AEAD nonce: two zero bytes, the lane, the counter.
    #[must_use]
    pub fn nonce(&self) -> [u8; 12] {
        let mut out = [0; 12];
        out[2..4].copy_from_slice(&self.lane.to_le_bytes());
        out[4..12].copy_from_slice(&self.counter.to_le_bytes());
        out
    }
}

/// What a sealed frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PayloadKind {
    /// An IPv4 or IPv6 packet, followed by zero padding that the IP length trims off.
    Ip,
    /// An Ethernet frame without preamble and check sequence.
    Ethernet,
    /// The same as [`PayloadKind::Ip`], of TCP or UDP, where the checksum field covers the pseudo header only (RFC 9293,
    /// 3.1): that the bytes are right is proved by the tag of the frame.
    IpPartial,
    /// The same as [`PayloadKind::IpPartial`], of the flow of the packet in the frame before it and no longer than that, so
    /// that the receiver may join both.
    IpContinued,
    /// The same as [`PayloadKind::IpPartial`] in an Ethernet frame.
    EthernetPartial,
    /// The same as [`PayloadKind::IpContinued`] in an Ethernet frame.
    EthernetContinued,
    /// A datagram of the QUIC connection between the two nodes.
    Quic,
    /// A [`crate::control::Control`] message.
    Control,
}

impl PayloadKind {
    /// Returns the byte that stands for this kind.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Ip => 1,
            Self::Ethernet => 2,
            Self::Quic => 3,
            Self::Control => 4,
            Self::IpPartial => 5,
            Self::IpContinued => 6,
            Self::EthernetPartial => 7,
            Self::EthernetContinued => 8,
        }
    }

    /// Returns the kind that a byte stands for.
    ///
    /// # Errors
    /// [`WireError::Invalid`] for any other byte.
    pub const fn from_byte(byte: u8) -> Result<Self, WireError> {
        match byte {
            1 => Ok(Self::Ip),
            2 => Ok(Self::Ethernet),
            3 => Ok(Self::Quic),
            4 => Ok(Self::Control),
            5 => Ok(Self::IpPartial),
            6 => Ok(Self::IpContinued),
            7 => Ok(Self::EthernetPartial),
            8 => Ok(Self::EthernetContinued),
            _ => Err(WireError::Invalid("payload type")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_has_the_documented_bytes() {
        let header = FrameHeader { lane: 0x0102, receiver: 0x0304_0506, counter: 0x0708_090a_0b0c_0d0e };
        let bytes = header.encode();
        assert_eq!(bytes, [0x94, 2, 1, 6, 5, 4, 3, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8, 7]);
        assert_eq!(header.nonce(), [0, 0, 2, 1, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8, 7]);

        let mut frame = bytes.to_vec();
        frame.resize(OVERHEAD, 0);
        assert_eq!(FrameHeader::parse(&frame), Ok(header));
    }

    #[test]
    fn short_and_foreign_frames_are_refused() {
        let header = FrameHeader { lane: 0, receiver: 1, counter: 2 };
        let mut frame = header.encode().to_vec();
        frame.resize(OVERHEAD, 0);
        for length in 0..OVERHEAD {
            assert_eq!(FrameHeader::parse(&frame[..length]), Err(WireError::Truncated));
        }
        frame[0] = 0x93;
        assert_eq!(FrameHeader::parse(&frame), Err(WireError::Invalid("frame type")));
    }

    #[test]
    fn payload_kinds_have_the_documented_bytes() {
        use PayloadKind as Kind;
        let known = [
            (1, Kind::Ip),
            (2, Kind::Ethernet),
            (3, Kind::Quic),
            (4, Kind::Control),
            (5, Kind::IpPartial),
            (6, Kind::IpContinued),
            (7, Kind::EthernetPartial),
            (8, Kind::EthernetContinued),
        ];
        for byte in 0..=u8::MAX {
            let kind = known.into_iter().find(|known| known.0 == byte);
            let expected = kind.map(|known| known.1).ok_or(WireError::Invalid("payload type"));
            assert_eq!(PayloadKind::from_byte(byte), expected);
            assert!(expected.is_err() || expected.unwrap().to_byte() == byte);
        }
    }

    proptest! {
        #[test]
        fn headers_are_read_back(lane: u16, receiver: u32, counter: u64, length in OVERHEAD..100) {
            let header = FrameHeader { lane, receiver, counter };
            let mut frame = header.encode().to_vec();
            frame.resize(length, 0xa5);
            prop_assert_eq!(FrameHeader::parse(&frame), Ok(header));
        }
    }
}
