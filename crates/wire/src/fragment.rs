//! Handshake messages in datagrams of at most 1200 bytes, for carriers that deliver no larger ones (UDP).
//!
//! ```text
//! part  0x96 | index u8 | count u8 | type u8 | receiver index u32 | message id 8 || payload || tag 16
//! ack   0x96 | 0xff | 0 | 0x9f | receiver index u32 | message id 8 || bitmap u64 || tag 16
//! ```
//! Every part but the last is full, so that index and count alone say where its payload belongs. Tags are the
//! caller's to check before it keeps anything.

use crate::codec::{Reader, WireError};
use crate::handshake::{CHALLENGE, CHALLENGE_LEN, ESTABLISHED, HELLO, HELLO_LEN, RESPONSE};
use crate::limits;

/// First byte of a part of a handshake message, and of the acknowledgement of parts.
pub const FRAGMENT: u8 = 0x96;
/// Type of an acknowledgement, where a part has the first byte of its message.
pub const ACK: u8 = 0x9f;
/// Most bytes of a datagram: below the smallest MTU of IPv6 with room for a tunnel under it.
pub const DATAGRAM: usize = 1200;
/// Bytes of the header of a part or an acknowledgement.
pub const HEADER: usize = 16;
/// Bytes of the tag at the end.
pub const TAG: usize = 16;
/// Bytes of a full payload.
pub const PAYLOAD: usize = DATAGRAM - HEADER - TAG;
/// Most parts of a message: the longest handshake message in full payloads.
pub const COUNT: usize = limits::HANDSHAKE_MESSAGE.div_ceil(PAYLOAD);
/// Bytes of an acknowledgement.
pub const ACK_LEN: usize = HEADER + 8 + TAG;
/// Bytes of an acknowledgement before its tag.
pub const ACK_BODY: usize = HEADER + 8;
/// Bytes of the id that the parts of one message share.
pub const MESSAGE_ID: usize = 8;

/// Which handshake message a part is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// HELLO, initiator to responder.
    Hello,
    /// CHALLENGE, responder to initiator.
    Challenge,
    /// RESPONSE, initiator to responder.
    Response,
    /// ESTABLISHED, responder to initiator.
    Established,
}

impl MessageKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Hello, Self::Challenge, Self::Response, Self::Established];

    /// Returns the first byte of the message.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Hello => HELLO,
            Self::Challenge => CHALLENGE,
            Self::Response => RESPONSE,
            Self::Established => ESTABLISHED,
        }
    }

    /// Returns the kind that a first byte stands for.
    ///
    /// # Errors
    /// [`WireError::Invalid`] for any other byte.
    pub const fn from_byte(byte: u8) -> Result<Self, WireError> {
        match byte {
            HELLO => Ok(Self::Hello),
            CHALLENGE => Ok(Self::Challenge),
            RESPONSE => Ok(Self::Response),
            ESTABLISHED => Ok(Self::Established),
            _ => Err(WireError::Invalid("message type")),
        }
    }

    /// Returns the length of the whole message where it is fixed.
    #[must_use]
    pub const fn fixed_len(self) -> Option<usize> {
        match self {
            Self::Hello => Some(HELLO_LEN),
            Self::Challenge => Some(CHALLENGE_LEN),
            Self::Response | Self::Established => None,
        }
    }
}

/// The header of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// The message that the part is of.
    pub kind: MessageKind,
    /// The part's place, from 0.
    pub index: u8,
    /// How many parts the message has, 1 to [`COUNT`].
    pub count: u8,
    /// The receiver's number for the session; in a HELLO, which has no receiver's number, the sender's.
    pub receiver: u32,
    /// The same in all parts of one message, and in no other message to the receiver.
    pub message: [u8; MESSAGE_ID],
}

impl FragmentHeader {
    /// Returns the header bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        header(self.index, self.count, self.kind.to_byte(), self.receiver, &self.message)
    }

    /// Returns where the part's payload begins in the message.
    #[must_use]
    pub fn offset(&self) -> usize {
        usize::from(self.index) * PAYLOAD
    }

    /// Tells whether this is the message's last part.
    #[must_use]
    pub fn is_last(&self) -> bool {
        u16::from(self.index) + 1 == u16::from(self.count)
    }

    /// Checks that the part belongs into a message and that its payload has the length of its place.
    fn check(&self, payload: usize) -> Result<(), WireError> {
        if self.index >= self.count || usize::from(self.count) > COUNT {
            return Err(WireError::Invalid("fragment number"));
        }
        if payload == 0 || payload > PAYLOAD || (!self.is_last() && payload != PAYLOAD) {
            return Err(WireError::Invalid("fragment length"));
        }
        let end = self.offset() + payload;
        let fits = match self.kind.fixed_len() {
            Some(length) => {
                usize::from(self.count) == length.div_ceil(PAYLOAD) && (!self.is_last() || end == length)
            }
            None => end <= limits::HANDSHAKE_MESSAGE,
        };
        if fits { Ok(()) } else { Err(WireError::Invalid("fragment length")) }
    }
}

/// The content of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The receiver's number for the session.
    pub receiver: u32,
    /// The message whose parts arrived.
    pub message: [u8; MESSAGE_ID],
    /// The parts that arrived, one bit each, part 0 the lowest.
    pub bitmap: u64,
}

impl Ack {
    /// Returns the bytes before the tag.
    #[must_use]
    pub fn encode_body(&self) -> [u8; ACK_BODY] {
        let mut out = [0; ACK_BODY];
        out[..HEADER].copy_from_slice(&header(0xff, 0, ACK, self.receiver, &self.message));
        out[HEADER..].copy_from_slice(&self.bitmap.to_le_bytes());
        out
    }
}

/// A datagram of this format that is right in form; nothing in it is authenticated yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment<'a> {
    /// A part of a message: its header, its payload, its tag.
    Part(FragmentHeader, &'a [u8], &'a [u8; TAG]),
    /// An acknowledgement and its tag.
    Ack(Ack, &'a [u8; TAG]),
}

impl<'a> Fragment<'a> {
    /// Reads a whole datagram.
    ///
    /// # Errors
    /// [`WireError`] when it is no part or acknowledgement, or a part that fits into no message.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        if datagram.len() > DATAGRAM {
            return Err(WireError::TooLong("fragment"));
        }
        let mut reader = Reader::new(datagram);
        if reader.u8()? != FRAGMENT {
            return Err(WireError::Invalid("message type"));
        }
        let (index, count, kind, receiver) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u32()?);
        let message = reader.array()?;
        let (rest, tag) = reader.rest().split_last_chunk::<TAG>().ok_or(WireError::Truncated)?;
        if kind == ACK {
            if (index, count) != (0xff, 0) {
                return Err(WireError::Invalid("fragment number"));
            }
            let mut reader = Reader::new(rest);
            let bitmap = reader.u64()?;
            reader.finish()?;
            return Ok(Self::Ack(Ack { receiver, message, bitmap }, tag));
        }
        let header = FragmentHeader { kind: MessageKind::from_byte(kind)?, index, count, receiver, message };
        header.check(rest.len())?;
        Ok(Self::Part(header, rest, tag))
    }
}

/// Returns the header and payload of each part of `message`, in order.
///
/// # Errors
/// [`WireError`] when `message` is empty, longer than a handshake message, or not of the length its kind has.
pub fn split(
    kind: MessageKind,
    receiver: u32,
    id: [u8; MESSAGE_ID],
    message: &[u8],
) -> Result<impl Iterator<Item = (FragmentHeader, &[u8])>, WireError> {
    let fits = match kind.fixed_len() {
        Some(length) => message.len() == length,
        None => !message.is_empty() && message.len() <= limits::HANDSHAKE_MESSAGE,
    };
    if !fits {
        return Err(WireError::Invalid("message length"));
    }
    let count = u8::try_from(message.len().div_ceil(PAYLOAD)).expect("at most COUNT parts");
    let header = move |index| FragmentHeader { kind, index, count, receiver, message: id };
    Ok((0..count).zip(message.chunks(PAYLOAD)).map(move |(index, payload)| (header(index), payload)))
}

fn header(index: u8, count: u8, kind: u8, receiver: u32, message: &[u8; MESSAGE_ID]) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..4].copy_from_slice(&[FRAGMENT, index, count, kind]);
    out[4..8].copy_from_slice(&receiver.to_le_bytes());
    out[8..].copy_from_slice(message);
    out
}

const _: () = assert!(COUNT <= 64, "a bitmap of 64 bits names every part");

#[cfg(test)]
mod tests;
