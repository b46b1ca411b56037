//! The four handshake messages, and the two that frame an enrolment.
//!
//! HELLO and CHALLENGE have a fixed length, with CHALLENGE the shorter, so that an answer never amplifies.
//! RESPONSE and ESTABLISHED are an 8-byte header and one AEAD box over a [`Claims`].

use crate::codec::{Put, Reader, WireError};
use crate::limits;

/// First byte of HELLO, initiator to responder.
pub const HELLO: u8 = 0x90;
/// First byte of CHALLENGE, responder to initiator.
pub const CHALLENGE: u8 = 0x91;
/// First byte of RESPONSE, initiator to responder.
pub const RESPONSE: u8 = 0x92;
/// First byte of ESTABLISHED, responder to initiator.
pub const ESTABLISHED: u8 = 0x93;
/// First byte of ENROL: the id of an invitation, then a HELLO keyed by its secret.
pub const ENROL: u8 = 0x97;
/// First byte of the answer to an ENROL whose invitation the coordinator does not know.
pub const ENROL_UNKNOWN: u8 = 0x98;

/// Version of the protocol in HELLO and CHALLENGE.
pub const VERSION: u8 = 1;
/// X25519 + ML-KEM-1024, ML-DSA-87 + Ed25519, ChaCha20-Poly1305, SHA-512: the suite that every node has.
pub const SUITE: u16 = 0x0001;
/// The same with AES-256-GCM for the frames of the session: offered and taken only by nodes whose processors have
/// instructions for it.
pub const SUITE_AES: u16 = 0x0002;
/// The name of a suite for people.
#[must_use]
pub const fn suite_name(suite: u16) -> &'static str {
    match suite {
        SUITE => "X25519+ML-KEM-1024/ML-DSA-87+Ed25519/ChaCha20-Poly1305",
        SUITE_AES => "X25519+ML-KEM-1024/ML-DSA-87+Ed25519/AES-256-GCM",
        _ => "unknown",
    }
}
/// Most suites in a HELLO.
pub const SUITES: usize = 4;

/// Bytes of a HELLO.
pub const HELLO_LEN: usize = 1684;
/// Bytes of a HELLO that the transcript and mac1 cover.
pub const HELLO_BODY: usize = HELLO_LEN - 32;
/// Bytes of a CHALLENGE.
pub const CHALLENGE_LEN: usize = 1668;
/// Bytes of a CHALLENGE that the transcript covers: all but its tag.
pub const CHALLENGE_BODY: usize = CHALLENGE_LEN - 16;
/// Bytes before the box of a RESPONSE or ESTABLISHED.
pub const BOX_HEADER: usize = 8;
/// Bytes of an invitation's id.
pub const INVITE_ID: usize = 16;

/// HELLO without its macs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The initiator's number for the coming session.
    pub sender: u32,
    /// The suites the initiator offers, best first.
    pub suites: Vec<u16>,
    /// Freshness of the initiator.
    pub nonce: [u8; 32],
    /// X25519 public key (RFC 7748).
    pub x25519: [u8; 32],
    /// ML-KEM-1024 encapsulation key (FIPS 203).
    pub kem_public: Box<[u8; limits::KEM_PUBLIC]>,
}

impl Hello {
    /// Returns the bytes that mac1 and the transcript cover.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_LEN);
        out.put(&[HELLO, VERSION, 0, 0]);
        out.put_u32(self.sender);
        out.put_u8(u8::try_from(self.suites.len()).expect("at most SUITES are offered"));
        out.put(&[0; 3]);
        for slot in 0..SUITES {
            out.put_u16(self.suites.get(slot).copied().unwrap_or(0));
        }
        out.put(&self.nonce);
        out.put(&self.x25519);
        out.put(&self.kem_public[..]);
        debug_assert_eq!(out.len(), HELLO_BODY, "the layout adds up");
        out
    }

    /// Reads a whole HELLO; mac1 and mac2 are its last 32 bytes and the caller's to check, before anything else.
    ///
    /// # Errors
    /// [`WireError`] for any other length, version, flag or suite count.
    pub fn parse(message: &[u8]) -> Result<Self, WireError> {
        let mut reader = exact(message, HELLO_LEN)?;
        expect_start(&mut reader, HELLO)?;
        let sender = reader.u32()?;
        let count = usize::from(reader.u8()?);
        if count == 0 || count > SUITES || reader.array::<3>()? != [0; 3] {
            return Err(WireError::Invalid("suite list"));
        }
        let mut suites = Vec::with_capacity(count);
        for slot in 0..SUITES {
            let suite = reader.u16()?;
            if slot < count {
                suites.push(suite);
            } else if suite != 0 {
                return Err(WireError::Invalid("suite list"));
            }
        }
        Ok(Self {
            sender,
            suites,
            nonce: reader.array()?,
            x25519: reader.array()?,
            kem_public: Box::new(reader.array()?),
        })
    }
}

/// CHALLENGE without its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The responder's number for the coming session.
    pub sender: u32,
    /// The initiator's number, from its HELLO.
    pub receiver: u32,
    /// The suite the responder chose.
    pub suite: u16,
    /// Freshness of the responder.
    pub nonce: [u8; 32],
    /// X25519 public key (RFC 7748).
    pub x25519: [u8; 32],
    /// ML-KEM-1024 ciphertext (FIPS 203).
    pub ciphertext: Box<[u8; limits::KEM_CIPHERTEXT]>,
}

impl Challenge {
    /// Returns the bytes that the transcript covers; the tag follows them on the wire.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHALLENGE_LEN);
        out.put(&[CHALLENGE, VERSION, 0, 0]);
        out.put_u32(self.sender);
        out.put_u32(self.receiver);
        out.put_u16(self.suite);
        out.put(&[0; 6]);
        out.put(&self.nonce);
        out.put(&self.x25519);
        out.put(&self.ciphertext[..]);
        debug_assert_eq!(out.len(), CHALLENGE_BODY, "the layout adds up");
        out
    }

    /// Reads a whole CHALLENGE and its tag.
    ///
    /// # Errors
    /// [`WireError`] for any other length, version or flag.
    pub fn parse(message: &[u8]) -> Result<(Self, [u8; 16]), WireError> {
        let mut reader = exact(message, CHALLENGE_LEN)?;
        expect_start(&mut reader, CHALLENGE)?;
        let (sender, receiver, suite) = (reader.u32()?, reader.u32()?, reader.u16()?);
        if reader.array::<6>()? != [0; 6] {
            return Err(WireError::Invalid("reserved bytes"));
        }
        let challenge = Self {
            sender,
            receiver,
            suite,
            nonce: reader.array()?,
            x25519: reader.array()?,
            ciphertext: Box::new(reader.array()?),
        };
        let tag = reader.array()?;
        reader.finish()?;
        Ok((challenge, tag))
    }
}

/// Returns the header of a RESPONSE or ESTABLISHED, which is the associated data of its box.
#[must_use]
pub fn box_header(kind: u8, receiver: u32) -> [u8; BOX_HEADER] {
    let mut out = [0; BOX_HEADER];
    out[0] = kind;
    out[4..8].copy_from_slice(&receiver.to_le_bytes());
    out
}

/// Reads the header of a RESPONSE or ESTABLISHED and returns the receiver's number for the session.
///
/// # Errors
/// [`WireError`] when the message is of another kind, too short or longer than a carrier delivers.
pub fn parse_box(kind: u8, message: &[u8]) -> Result<u32, WireError> {
    if message.len() > limits::HANDSHAKE_MESSAGE {
        return Err(WireError::TooLong("handshake message"));
    }
    let mut reader = Reader::new(message);
    if reader.array::<4>()? != [kind, 0, 0, 0] {
        return Err(WireError::Invalid("handshake header"));
    }
    let receiver = reader.u32()?;
    if reader.remaining() < 16 {
        return Err(WireError::Truncated);
    }
    Ok(receiver)
}

/// What a side says of its session, under its identity signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Statements, one bit each: [`HOLDS_SESSION`]; other bits are zero and not looked at.
    pub capabilities: u32,
    /// How many lanes this side receives on, 1 to 16.
    pub lanes: u8,
    /// The largest inner packet this side takes from the tunnel, in bytes.
    pub mtu: u16,
    /// The version of the roster this side stands on.
    pub roster_version: u64,
    /// SHA-256 of the DER SubjectPublicKeyInfo that this side's TLS shows inside the session; zero for none.
    pub tls_pin: [u8; 32],
    /// This side's number for the session that follows once the exporter of QUIC is mixed in; zero for none.
    pub mixed_index: u32,
    /// Names the QUIC connection that this side holds with the peer already; zero for none.
    pub connection: [u8; CONNECTION_ID],
}

/// Bytes of the name of a QUIC connection.
pub const CONNECTION_ID: usize = 8;

/// Statement of an initiator in RESPONSE: it holds another session or handshake with the responder; of a responder in
/// ESTABLISHED: it has begun a handshake with the initiator itself. Where neither says so the coming session replaces every
/// other one, because nobody knows of another.
pub const HOLDS_SESSION: u32 = 1;

/// Bytes of encoded [`Params`].
pub const PARAMS_LEN: usize = 59;

impl Params {
    /// Returns the fixed layout.
    #[must_use]
    pub fn encode(&self) -> [u8; PARAMS_LEN] {
        let mut out = [0; PARAMS_LEN];
        out[..4].copy_from_slice(&self.capabilities.to_le_bytes());
        out[4] = self.lanes;
        out[5..7].copy_from_slice(&self.mtu.to_le_bytes());
        out[7..15].copy_from_slice(&self.roster_version.to_le_bytes());
        out[15..47].copy_from_slice(&self.tls_pin);
        out[47..51].copy_from_slice(&self.mixed_index.to_le_bytes());
        out[51..].copy_from_slice(&self.connection);
        out
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let params = Self {
            capabilities: reader.u32()?,
            lanes: reader.u8()?,
            mtu: reader.u16()?,
            roster_version: reader.u64()?,
            tls_pin: reader.array()?,
            mixed_index: reader.u32()?,
            connection: reader.array()?,
        };
        if params.lanes == 0 || usize::from(params.lanes) > limits::LANES {
            return Err(WireError::Invalid("lanes"));
        }
        Ok(params)
    }
}

/// The content of a RESPONSE or ESTABLISHED box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims<'a> {
    /// The sender's composite public key.
    pub identity: &'a [u8],
    /// Its proof of membership, empty in an enrolment.
    pub proof: &'a [u8],
    /// Its parameters.
    pub params: Params,
    /// Its composite signature over transcript, both node ids, proof and parameters.
    pub signature: &'a [u8],
}

impl<'a> Claims<'a> {
    /// Appends the fixed layout.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.identity);
        out.put_bytes16(self.proof);
        out.put(&self.params.encode());
        out.put(self.signature);
    }

    /// Reads the content of an opened box.
    ///
    /// # Errors
    /// [`WireError`] for any other layout.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let claims = Self {
            identity: reader.bytes(limits::PUBLIC_IDENTITY)?,
            proof: reader.bytes16(limits::HANDSHAKE_MESSAGE, "membership proof")?,
            params: Params::read(&mut reader)?,
            signature: reader.bytes(limits::SIGNATURE)?,
        };
        reader.finish()?;
        Ok(claims)
    }
}

/// Returns an ENROL message around a HELLO.
#[must_use]
pub fn encode_enrol(invite: &[u8; INVITE_ID], hello: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + INVITE_ID + hello.len());
    out.put_u8(ENROL);
    out.put(invite);
    out.put(hello);
    out
}

/// Reads an ENROL message into the invitation's id and the HELLO.
///
/// # Errors
/// [`WireError`] for any other kind or length.
pub fn parse_enrol(message: &[u8]) -> Result<([u8; INVITE_ID], &[u8]), WireError> {
    let mut reader = exact(message, 1 + INVITE_ID + HELLO_LEN)?;
    if reader.u8()? != ENROL {
        return Err(WireError::Invalid("message type"));
    }
    Ok((reader.array()?, reader.rest()))
}

/// Returns the answer to an ENROL with an unknown invitation.
#[must_use]
pub fn encode_enrol_unknown(invite: &[u8; INVITE_ID]) -> Vec<u8> {
    let mut out = vec![ENROL_UNKNOWN];
    out.put(invite);
    out
}

/// Reads the answer to an ENROL with an unknown invitation.
///
/// # Errors
/// [`WireError`] for any other kind or length.
pub fn parse_enrol_unknown(message: &[u8]) -> Result<[u8; INVITE_ID], WireError> {
    let mut reader = exact(message, 1 + INVITE_ID)?;
    if reader.u8()? != ENROL_UNKNOWN {
        return Err(WireError::Invalid("message type"));
    }
    reader.array()
}

fn exact(message: &[u8], length: usize) -> Result<Reader<'_>, WireError> {
    match message.len() {
        n if n < length => Err(WireError::Truncated),
        n if n > length => Err(WireError::Trailing),
        _ => Ok(Reader::new(message)),
    }
}

fn expect_start(reader: &mut Reader<'_>, kind: u8) -> Result<(), WireError> {
    if reader.u8()? != kind {
        return Err(WireError::Invalid("message type"));
    }
    let version = reader.u8()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    if reader.u16()? != 0 {
        return Err(WireError::Invalid("flags"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
