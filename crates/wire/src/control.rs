//! Control messages inside sealed frames.

mod door;
mod ice;
mod path;
mod relays;

use zeroize::Zeroizing;

pub use self::door::{DOOR_ADDRESSES, DoorTold, may_be_a_door};
pub use self::ice::{FRAGMENT, IceCredentials, IceOffer, PASSWORD};
pub use self::path::{
    CANDIDATES, CHALLENGE as PATH_CHALLENGE, Candidate, CandidateKind, Candidates, Mapping, PROBE,
    PathChallenge, PathResponse, STEP, Step,
};
pub use self::relays::{RELAYS_TOLD, RelaysTold};
use crate::codec::{Put, Reader, WireError};
use crate::limits;

/// Longest part of an enrolment answer in one frame: with its header it stays below a relay payload.
pub const ENROL_PART: usize = 32 * 1024;
/// Longest enrolment answer: a roster and the secrets before it.
pub const ENROL_ANSWER: usize = limits::ROSTER + 1024;
/// Longest text of a refusal.
pub const REFUSAL_TEXT: usize = 200;

/// A message between the two ends of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control<'a> {
    /// Says that the sender is alive, in answer to data that needed no answer; in an enrolment, that it has the last
    /// [`Control::EnrolPart`].
    Keepalive,
    /// Asks for a [`Control::Pong`] with the same id.
    Ping(u64),
    /// Answers a [`Control::Ping`].
    Pong(u64),
    /// Says that the sender forgets this session.
    Close,
    /// A part of an offer of fresh keys; see [`RekeyOffer`].
    RekeyOffer(RekeyPart<'a>),
    /// A part of the answer to an offer of fresh keys; see [`RekeyAnswer`].
    RekeyAnswer(RekeyPart<'a>),
    /// Tells the addresses at which the sender may be reached.
    Candidates(Candidates),
    /// Asks for a [`Control::PathResponse`] over the same path.
    PathChallenge(PathChallenge),
    /// Answers a [`Control::PathChallenge`].
    PathResponse(PathResponse),
    /// Tells the credentials of an ICE agent that checks addresses of the receiver.
    Ice(IceOffer),
    /// Tells the relays at which the sender is.
    Relays(RelaysTold),
    /// Tells where the sender takes connections of its peers by itself, if it does.
    Door(Option<DoorTold>),
    /// A joining node asks for membership; its keys are those of the handshake.
    EnrolRequest {
        /// The name it wants, which an invitation with a name overrides; behind a `~` it is a proposal that the
        /// coordinator may change where another member has it.
        name: &'a str,
    },
    /// A part of the answer that admits the node; parts come in order.
    EnrolPart {
        /// Bytes of the whole answer.
        total: u32,
        /// Where this part begins.
        offset: u32,
        /// The part.
        bytes: &'a [u8],
    },
    /// The coordinator refuses to admit.
    EnrolRefused {
        /// Why.
        refusal: Refusal,
        /// The same for people.
        text: &'a str,
    },
}

/// What a node is admitted with; the [`Control::EnrolPart`]s put together.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolAnswer<'a> {
    /// The number of the network secret; it grows when the secret is replaced.
    pub secret_epoch: u32,
    /// The secret that all members share.
    pub network_secret: Zeroizing<[u8; 32]>,
    /// The signed roster in which the node stands.
    pub roster: &'a [u8],
}

impl<'a> EnrolAnswer<'a> {
    /// Returns the answer's bytes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(36 + self.roster.len()));
        out.put_u32(self.secret_epoch);
        out.put(&self.network_secret[..]);
        out.put(self.roster);
        out
    }

    /// Reads a whole answer; the roster is the caller's to verify.
    ///
    /// # Errors
    /// [`WireError`] when it is too short or too long.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() > ENROL_ANSWER {
            return Err(WireError::TooLong("enrolment answer"));
        }
        let mut reader = Reader::new(bytes);
        let (secret_epoch, network_secret) = (reader.u32()?, Zeroizing::new(reader.array()?));
        Ok(Self { secret_epoch, network_secret, roster: reader.rest() })
    }
}

impl std::fmt::Debug for EnrolAnswer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolAnswer").field("secret_epoch", &self.secret_epoch).finish_non_exhaustive()
    }
}

/// Bytes of an encoded [`RekeyOffer`] and of an encoded [`RekeyAnswer`].
pub const REKEY_LEN: usize = 4 + 32 + limits::KEM_PUBLIC;
/// Bytes of one part: two of them fit where one would not fit the smallest MTU.
pub const REKEY_PART: usize = REKEY_LEN / 2;

/// Half of an offer or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyPart<'a> {
    /// The leader's number for the coming keys; it ties the parts and the answer to the offer.
    pub id: u32,
    /// Which half.
    pub half: Half,
    /// [`REKEY_PART`] bytes.
    pub bytes: &'a [u8; REKEY_PART],
}

/// Which half of a message in two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The first half.
    First,
    /// The second half.
    Second,
}

impl<'a> RekeyPart<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.id);
        out.put_u8(match self.half {
            Half::First => 0,
            Half::Second => 1,
        });
        out.put(self.bytes);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let id = reader.u32()?;
        let half = match reader.u8()? {
            0 => Half::First,
            1 => Half::Second,
            _ => return Err(WireError::Invalid("half")),
        };
        let bytes = reader.bytes(REKEY_PART)?.try_into().map_err(|_| WireError::Truncated)?;
        Ok(Self { id, half, bytes })
    }
}

/// The leader's fresh keys: `index u32 | X25519 32 | ML-KEM-1024 encapsulation key 1568`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyOffer {
    /// The leader's number for the coming keys.
    pub index: u32,
    /// X25519 public key (RFC 7748).
    pub x25519: [u8; 32],
    /// ML-KEM-1024 encapsulation key (FIPS 203).
    pub kem_public: Box<[u8; limits::KEM_PUBLIC]>,
}

/// The follower's answer: `index u32 | X25519 32 | ML-KEM-1024 ciphertext 1568`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyAnswer {
    /// The follower's number for the coming keys.
    pub index: u32,
    /// X25519 public key (RFC 7748).
    pub x25519: [u8; 32],
    /// ML-KEM-1024 ciphertext (FIPS 203).
    pub ciphertext: Box<[u8; limits::KEM_CIPHERTEXT]>,
}

impl RekeyOffer {
    /// Returns the layout.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_rekey(self.index, &self.x25519, &self.kem_public[..])
    }

    /// Reads both halves put together.
    ///
    /// # Errors
    /// [`WireError`] for any other length.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let offer =
            Self { index: reader.u32()?, x25519: reader.array()?, kem_public: Box::new(reader.array()?) };
        reader.finish()?;
        Ok(offer)
    }
}

impl RekeyAnswer {
    /// Returns the layout.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_rekey(self.index, &self.x25519, &self.ciphertext[..])
    }

    /// Reads both halves put together.
    ///
    /// # Errors
    /// [`WireError`] for any other length.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let answer =
            Self { index: reader.u32()?, x25519: reader.array()?, ciphertext: Box::new(reader.array()?) };
        reader.finish()?;
        Ok(answer)
    }
}

fn encode_rekey(index: u32, x25519: &[u8; 32], kem: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(REKEY_LEN);
    out.put_u32(index);
    out.put(x25519);
    out.put(kem);
    out
}

/// Why a coordinator refuses to admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The invitation's time is over.
    Expired,
    /// The invitation has admitted as many nodes as it may.
    Used,
    /// Another member has the name.
    NameTaken,
    /// The network has no free address or place.
    Full,
    /// The coordinator could not store the admission.
    Storage,
    /// The request is malformed.
    Malformed,
}

impl Refusal {
    const ALL: [(Self, u8); 6] = [
        (Self::Expired, 1),
        (Self::Used, 2),
        (Self::NameTaken, 3),
        (Self::Full, 4),
        (Self::Storage, 5),
        (Self::Malformed, 6),
    ];

    fn to_byte(self) -> u8 {
        Self::ALL.iter().find(|(refusal, _)| *refusal == self).map_or(0, |(_, byte)| *byte)
    }

    fn from_byte(byte: u8) -> Result<Self, WireError> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == byte)
            .map(|(refusal, _)| *refusal)
            .ok_or(WireError::Invalid("refusal"))
    }
}

impl<'a> Control<'a> {
    /// Returns the message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Keepalive => out.put_u8(0x00),
            Self::Ping(id) => {
                out.put_u8(0x01);
                out.put_u64(*id);
            }
            Self::Pong(id) => {
                out.put_u8(0x02);
                out.put_u64(*id);
            }
            Self::Close => out.put_u8(0x03),
            Self::Candidates(candidates) => {
                out.put_u8(0x04);
                candidates.put(&mut out);
            }
            Self::PathChallenge(challenge) => {
                out.put_u8(0x05);
                challenge.put(&mut out);
            }
            Self::PathResponse(response) => {
                out.put_u8(0x06);
                response.put(&mut out);
            }
            Self::Relays(told) => {
                out.put_u8(0x0b);
                told.put(&mut out);
            }
            Self::Door(told) => {
                out.put_u8(0x0c);
                door::put(told.as_ref(), &mut out);
            }
            Self::RekeyOffer(part) => {
                out.put_u8(0x08);
                part.encode(&mut out);
            }
            Self::RekeyAnswer(part) => {
                out.put_u8(0x09);
                part.encode(&mut out);
            }
            Self::Ice(offer) => {
                out.put_u8(0x0e);
                offer.put(&mut out);
            }
            Self::EnrolRequest { name } => {
                out.put_u8(0x10);
                out.put_bytes8(name.as_bytes());
            }
            Self::EnrolPart { total, offset, bytes } => {
                out.put_u8(0x11);
                out.put_u32(*total);
                out.put_u32(*offset);
                out.put_bytes16(bytes);
            }
            Self::EnrolRefused { refusal, text } => {
                out.put_u8(0x12);
                out.put_u8(refusal.to_byte());
                out.put_bytes8(text.as_bytes());
            }
        }
        out
    }

    /// Reads one message.
    ///
    /// # Errors
    /// [`WireError`] for any other layout.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            0x00 => Self::Keepalive,
            0x01 => Self::Ping(reader.u64()?),
            0x02 => Self::Pong(reader.u64()?),
            0x03 => Self::Close,
            0x04 => Self::Candidates(Candidates::read(&mut reader)?),
            0x05 => Self::PathChallenge(PathChallenge::read(&mut reader)?),
            0x06 => Self::PathResponse(PathResponse::read(&mut reader)?),
            0x08 => Self::RekeyOffer(RekeyPart::read(&mut reader)?),
            0x09 => Self::RekeyAnswer(RekeyPart::read(&mut reader)?),
            0x0b => Self::Relays(RelaysTold::read(&mut reader)?),
            0x0c => Self::Door(door::read(&mut reader)?),
            0x0e => Self::Ice(IceOffer::read(&mut reader)?),
            0x10 => Self::EnrolRequest { name: reader.text8(limits::NAME + 1, "name")? },
            0x11 => Self::EnrolPart {
                total: reader.u32()?,
                offset: reader.u32()?,
                bytes: reader.bytes16(ENROL_PART, "enrolment part")?,
            },
            0x12 => Self::EnrolRefused {
                refusal: Refusal::from_byte(reader.u8()?)?,
                text: reader.text8(REFUSAL_TEXT, "refusal text")?,
            },
            _ => return Err(WireError::Invalid("control type")),
        };
        reader.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
