//! Channels: streams of a QUIC connection between two nodes, and what the control channel carries.
//!
//! A channel is a sequence of blocks, each `length u16 | body`. The first block of the side that opens it is the
//! [`Preamble`]. On the control channel a block after that is a [`Message`].

use crate::codec::{Put, Reader, WireError};

/// Application protocol of the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"shadowmesh/1";
/// Label of the TLS exporter for the id of a connection: 8 bytes, without context.
pub const CONNECTION_LABEL: &[u8] = b"EXPORTER-ShadowMesh-Connection";
/// Label of the TLS exporter that is mixed into session keys: 64 bytes, the context is the session id.
pub const MIX_LABEL: &[u8] = b"EXPORTER-ShadowMesh-Mix";
/// Name of the control channel.
pub const CONTROL: &str = "control";
/// Version of the control channel.
pub const CONTROL_VERSION: u8 = 1;
/// Longest body of a block, in bytes.
pub const BLOCK: usize = 1024;
/// Longest name of a protocol, in bytes.
pub const PROTOCOL_NAME: usize = 32;
/// Longest text of an [`Info`], in bytes.
pub const INFO_TEXT: usize = 64;

/// Why a node ends a QUIC connection: the code of its CONNECTION_CLOSE (RFC 9000, section 19.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The node stops, or does not need the peer any more.
    Done,
    /// Another connection takes the place of this one.
    Replaced,
    /// The peer broke the rules of the control channel.
    Protocol,
    /// The peer did not open or answer the control channel in time.
    Timeout,
}

impl CloseCode {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Replaced => 1,
            Self::Protocol => 2,
            Self::Timeout => 3,
        }
    }

    /// Returns the meaning of a number, or `None` for one that later versions may have.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Done),
            1 => Some(Self::Replaced),
            2 => Some(Self::Protocol),
            3 => Some(Self::Timeout),
            _ => None,
        }
    }
}

/// Reads the length before a block's body.
///
/// # Errors
/// [`WireError`] for a length of zero or more than [`BLOCK`].
pub fn block_len(header: [u8; 2]) -> Result<usize, WireError> {
    match usize::from(u16::from_le_bytes(header)) {
        0 => Err(WireError::Truncated),
        len if len > BLOCK => Err(WireError::TooLong("block")),
        len => Ok(len),
    }
}

/// Says what a channel is for: `protocol text8 | version u8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble<'a> {
    /// Name of the protocol, for example [`CONTROL`].
    pub protocol: &'a str,
    /// Its version.
    pub version: u8,
}

impl<'a> Preamble<'a> {
    /// Returns the block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        block(|out| {
            out.put_bytes8(self.protocol.as_bytes());
            out.put_u8(self.version);
        })
    }

    /// Reads a block's body.
    ///
    /// # Errors
    /// [`WireError`] for any other layout.
    pub fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let preamble =
            Self { protocol: reader.text8(PROTOCOL_NAME, "protocol name")?, version: reader.u8()? };
        reader.finish()?;
        Ok(preamble)
    }
}

/// A message of the control channel: `type u8 | content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first message of either side.
    Info(Info<'a>),
    /// A type of a later version; it is skipped.
    Unknown(u8),
}

impl<'a> Message<'a> {
    /// Reads a block's body.
    ///
    /// # Errors
    /// [`WireError`] for a message that its type does not allow.
    pub fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        match reader.u8()? {
            INFO => Info::read(reader).map(Self::Info),
            other => Ok(Self::Unknown(other)),
        }
    }
}

/// What a node says about itself: `software version text8 | operating system text8`, both printable ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info<'a> {
    /// Version of the program, at most [`INFO_TEXT`] bytes.
    pub version: &'a str,
    /// Name of the operating system, at most [`INFO_TEXT`] bytes.
    pub os: &'a str,
}

impl<'a> Info<'a> {
    /// Returns the message as a block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        block(|out| {
            out.put_u8(INFO);
            out.put_bytes8(self.version.as_bytes());
            out.put_bytes8(self.os.as_bytes());
        })
    }

    fn read(mut reader: Reader<'a>) -> Result<Self, WireError> {
        let mut text = |what| {
            let text = reader.text8(INFO_TEXT, what)?;
            let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if printable { Ok(text) } else { Err(WireError::Invalid(what)) }
        };
        let info = Self { version: text("software version")?, os: text("operating system")? };
        reader.finish()?;
        Ok(info)
    }
}

fn block(body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0, 0];
    body(&mut out);
    let len = u16::try_from(out.len() - 2).expect("two texts with one-byte lengths are below 65,535 bytes");
    out[..2].copy_from_slice(&len.to_le_bytes());
    out
}

const INFO: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(block: &[u8]) -> &[u8] {
        let (header, body) = block.split_first_chunk().unwrap();
        assert_eq!(block_len(*header), Ok(body.len()));
        body
    }

    #[test]
    fn preamble_and_info_have_fixed_bytes() {
        let preamble = Preamble { protocol: CONTROL, version: 1 };
        assert_eq!(preamble.encode(), b"\x09\0\x07control\x01");
        assert_eq!(Preamble::parse(body(&preamble.encode())), Ok(preamble));

        let info = Info { version: "1.0", os: "Debian 12" };
        assert_eq!(info.encode(), b"\x0f\0\x01\x031.0\x09Debian 12");
        assert_eq!(Message::parse(body(&info.encode())), Ok(Message::Info(info)));
    }

    #[test]
    fn every_truncation_is_refused() {
        let preamble = Preamble { protocol: CONTROL, version: 1 }.encode();
        let info = Info { version: "1.0", os: "Debian 12" }.encode();
        let (preamble, info) = (body(&preamble), body(&info));
        for length in 0..preamble.len() {
            assert_eq!(Preamble::parse(&preamble[..length]), Err(WireError::Truncated));
        }
        for length in 0..info.len() {
            assert_eq!(Message::parse(&info[..length]), Err(WireError::Truncated));
        }
        assert_eq!(Preamble::parse(&[preamble, &[0]].concat()), Err(WireError::Trailing));
        assert_eq!(Message::parse(&[info, &[0]].concat()), Err(WireError::Trailing));
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(block_len([0, 0]), Err(WireError::Truncated));
        assert_eq!(block_len([0, 4]), Ok(1024));
        assert_eq!(block_len([1, 4]), Err(WireError::TooLong("block")));
        let long = "a".repeat(INFO_TEXT + 1);
        let info = Info { version: &long, os: "" }.encode();
        assert_eq!(Message::parse(body(&info)), Err(WireError::TooLong("software version")));
        let preamble = Preamble { protocol: &long[..PROTOCOL_NAME + 1], version: 1 }.encode();
        assert_eq!(Preamble::parse(body(&preamble)), Err(WireError::TooLong("protocol name")));
    }

    #[test]
    fn text_for_people_cannot_steer_a_terminal() {
        for text in ["\u{1b}[2J", "a\nb", "\u{7f}", "ä"] {
            let info = Info { version: "1", os: text }.encode();
            assert_eq!(Message::parse(body(&info)), Err(WireError::Invalid("operating system")), "{text:?}");
        }
    }

    #[test]
    fn types_of_later_versions_are_told_apart() {
        assert_eq!(Message::parse(&[9, 1, 2, 3]), Ok(Message::Unknown(9)));
        assert_eq!(Message::parse(&[]), Err(WireError::Truncated));
        assert_eq!(Message::parse(&[1, 0, 0, 0]), Err(WireError::Trailing));
        for code in 0..4 {
            assert_eq!(CloseCode::from_code(code).map(|close| u64::from(close.code())), Some(code));
        }
        assert_eq!(CloseCode::from_code(4), None);
    }

    proptest! {
        #[test]
        fn printable_text_is_read_back(version in "[ -~]{0,64}", os in "[ -~]{0,64}") {
            let info = Info { version: &version, os: &os };
            let block = info.encode();
            prop_assert_eq!(Message::parse(body(&block)), Ok(Message::Info(info)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&bytes);
            let _ = Preamble::parse(&bytes);
        }
    }
}
