//! Datagrams between a relay's UDP port and a client that holds a connection to the relay.
//!
//! ```text
//! control  kind u8 | connection u64 | counter u64 | cookie 16 | zeros | tag 16      49 to 1472 bytes
//!          a0 ASK  a1 CHALLENGE  a2 PROOF  a3 PROVEN  a4 PING  a5 PONG
//! data     a8 | handle u32 xor mask u32 | one sealed frame
//! ```
//! The tag is HMAC-SHA-256 over everything before it, cut to 16 bytes, under the key that UDP_OFFER hands out. Zeros bring
//! a control message to the length of the longest datagram that the two then send: what does not come through at that
//! length is not used at that length.

use crate::codec::{Put, Reader, WireError};

/// Bytes before the frame.
pub const DATA_HEADER: usize = 5;
/// Shortest control message.
pub const CONTROL: usize = 49;
/// Longest datagram: a packet of 1500 bytes with the headers of IPv4 and UDP.
pub const LONGEST: usize = 1472;
/// Bytes of the tag that ends a control message.
pub const TAG: usize = 16;
/// First byte of data.
pub const DATA: u8 = 0xa8;

/// What a client needs for the UDP port: the content of UDP_OFFER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// UDP port at the address of the connection.
    pub port: u16,
    /// Names the connection there.
    pub connection: u64,
    /// Of the tags, fresh for this connection.
    pub key: [u8; 32],
    /// Mixed into the handles that the client sends, so that somebody who does not see them cannot guess one.
    pub up: u32,
    /// The same for handles from the relay.
    pub down: u32,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("port", &self.port).field("connection", &self.connection).finish()
    }
}

/// Bytes of an [`Offer`].
pub const OFFER: usize = 2 + 8 + 32 + 4 + 4;

impl Offer {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (port, connection) = (reader.u16()?, reader.u64()?);
        if port == 0 {
            return Err(WireError::Invalid("relay UDP port"));
        }
        Ok(Self { port, connection, key: reader.array()?, up: reader.u32()?, down: reader.u32()? })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.port);
        out.put_u64(self.connection);
        out.put(&self.key);
        out.put_u32(self.up);
        out.put_u32(self.down);
    }
}

/// What a control message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The client wants to be reached at the address that this comes from.
    Ask,
    /// The relay's cookie for that address.
    Challenge,
    /// The client read the cookie there.
    Proof,
    /// The relay uses the address from now on.
    Proven,
    /// The client asks whether the way still stands.
    Ping,
    /// It does.
    Pong,
}

impl Kind {
    const ALL: [(Self, u8); 6] = [
        (Self::Ask, 0xa0),
        (Self::Challenge, 0xa1),
        (Self::Proof, 0xa2),
        (Self::Proven, 0xa3),
        (Self::Ping, 0xa4),
        (Self::Pong, 0xa5),
    ];

    const fn to_byte(self) -> u8 {
        match self {
            Self::Ask => 0xa0,
            Self::Challenge => 0xa1,
            Self::Proof => 0xa2,
            Self::Proven => 0xa3,
            Self::Ping => 0xa4,
            Self::Pong => 0xa5,
        }
    }
}

/// A control message without its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// What it is for.
    pub kind: Kind,
    /// As in [`Offer`].
    pub connection: u64,
    /// Grows with every ASK and PING of a connection; the other kinds repeat that of the message they answer.
    pub counter: u64,
    /// The relay's random bytes; zeros in ASK, PING and PONG.
    pub cookie: [u8; 16],
}

impl Control {
    /// Reads a control message. Returns it with the bytes that the tag covers, and the tag, which is yet to be judged.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no control message.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8], [u8; TAG]), WireError> {
        if bytes.len() > LONGEST {
            return Err(WireError::TooLong("relay datagram"));
        }
        let (covered, tag) = bytes.split_last_chunk::<TAG>().ok_or(WireError::Truncated)?;
        let mut reader = Reader::new(covered);
        let byte = reader.u8()?;
        let kind = Kind::ALL.iter().find(|(_, of)| *of == byte);
        let (kind, _) = *kind.ok_or(WireError::Invalid("relay datagram type"))?;
        let (connection, counter, cookie) = (reader.u64()?, reader.u64()?, reader.array()?);
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(WireError::Invalid("padding"));
        }
        Ok((Self { kind, connection, counter, cookie }, covered, *tag))
    }

    /// Returns the bytes, `len` of them within what is permitted; `tag` makes the tag of what it is given.
    #[must_use]
    pub fn encode(&self, len: usize, tag: impl FnOnce(&[u8]) -> [u8; TAG]) -> Vec<u8> {
        let len = len.clamp(CONTROL, LONGEST);
        let mut out = Vec::with_capacity(len);
        out.put_u8(self.kind.to_byte());
        out.put_u64(self.connection);
        out.put_u64(self.counter);
        out.put(&self.cookie);
        out.resize(len - TAG, 0);
        let tag = tag(&out);
        out.put(&tag);
        out
    }
}

/// Returns the masked handle and the frame of a data datagram.
#[must_use]
pub fn parse_data(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (handle, frame) = rest.split_first_chunk::<4>()?;
    (kind == DATA && !frame.is_empty()).then(|| (u32::from_le_bytes(*handle), frame))
}

/// Returns what stands before a frame.
#[must_use]
pub const fn data_header(masked: u32) -> [u8; DATA_HEADER] {
    let [a, b, c, d] = masked.to_le_bytes();
    [DATA, a, b, c, d]
}

/// Returns how many bytes at the start are data datagrams under one handle, each `stride` bytes long and only the last
/// possibly shorter; or the length of the first datagram if it is something else.
#[must_use]
pub fn run_len(bytes: &[u8], stride: usize) -> usize {
    let first = bytes.get(..stride).unwrap_or(bytes);
    let Some(header) = first.first_chunk::<DATA_HEADER>().filter(|header| header[0] == DATA) else {
        return first.len();
    };
    let same = |datagram: &&[u8]| datagram.starts_with(header) && datagram.len() > DATA_HEADER;
    bytes.chunks(stride.max(1)).take_while(same).map(<[u8]>::len).sum::<usize>().max(first.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROOF: Control = Control { kind: Kind::Proof, connection: 3, counter: 4, cookie: [5; 16] };

    #[test]
    fn control_has_these_bytes() {
        let bytes = PROOF.encode(50, |covered| {
            assert_eq!(covered.len(), 34);
            [7; 16]
        });
        let wanted =
            [&[0xa2, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0][..], &[5; 16], &[0], &[7; 16]].concat();
        assert_eq!(bytes, wanted);
        assert_eq!(Control::parse(&bytes), Ok((PROOF, &wanted[..34], [7; 16])));
        for (kind, byte) in Kind::ALL {
            assert_eq!(kind.to_byte(), byte);
        }
    }

    #[test]
    fn lengths_are_bounded_and_padding_is_zero() {
        assert_eq!(PROOF.encode(0, |_| [0; 16]).len(), CONTROL);
        assert_eq!(PROOF.encode(9999, |_| [0; 16]).len(), LONGEST);
        let mut long = PROOF.encode(LONGEST, |_| [0; 16]);
        assert!(Control::parse(&long).is_ok());
        long[100] = 1;
        assert_eq!(Control::parse(&long), Err(WireError::Invalid("padding")));
        assert_eq!(Control::parse(&[0; LONGEST + 1]), Err(WireError::TooLong("relay datagram")));
        let short = PROOF.encode(0, |_| [0; 16]);
        for len in 0..CONTROL {
            assert!(Control::parse(&short[..len]).is_err(), "{len}");
        }
        assert!(Control::parse(&[0xa6; CONTROL]).is_err());
    }

    #[test]
    fn a_run_is_of_one_handle() {
        let datagram = |handle: u32, len: usize| [&data_header(handle)[..], &vec![7; len]].concat();
        let bytes = [datagram(1, 9), datagram(1, 9), datagram(2, 9), datagram(2, 3)].concat();
        assert_eq!(run_len(&bytes, 14), 28);
        assert_eq!(run_len(&bytes[28..], 14), 22);
        let control = [0xa4; 14];
        assert_eq!(run_len(&[&control[..], &bytes].concat(), 14), 14);
        assert_eq!(run_len(&[&bytes[..14], &control].concat(), 14), 14);
        assert_eq!(run_len(&data_header(1), 5), 5, "no frame in it");
        assert_eq!(run_len(&bytes[..3], 14), 3);
    }

    #[test]
    fn data_is_a_handle_and_a_frame() {
        let bytes = [&data_header(0x0403_0201)[..], b"f"].concat();
        assert_eq!(bytes, [0xa8, 1, 2, 3, 4, b'f']);
        assert_eq!(parse_data(&bytes), Some((0x0403_0201, &b"f"[..])));
        assert_eq!(parse_data(&bytes[..5]), None);
        assert_eq!(parse_data(&[0xa7, 1, 2, 3, 4, 5]), None);
    }
}
