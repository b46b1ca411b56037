//! Messages about the ways to a peer: its addresses, and the proof that one of them carries frames in both directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::codec::{Put, Reader, WireError};

/// Most candidates in one message.
pub const CANDIDATES: usize = 16;
/// Shortest challenge in bytes: no answer is longer than what it answers.
pub const CHALLENGE: usize = 1 + RESPONSE_BODY;
/// Longest challenge and response in bytes, of the largest frame.
pub const PROBE: usize = 9000;
const RESPONSE_BODY: usize = 8 + 1 + 16 + 2;

/// How a node came to an address of its own (RFC 8445, section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// It is on one of its interfaces.
    Host,
    /// A router keeps it open on request.
    Mapped,
    /// A server saw it.
    Reflexive,
    /// It stands in the configuration.
    Configured,
}

/// An address at which a node may be reached over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// How the node came to it.
    pub kind: CandidateKind,
    /// The address.
    pub address: SocketAddr,
}

/// How a node's NAT maps its socket (RFC 4787, section 4.1), as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mapping {
    /// It has not found out.
    #[default]
    Unknown,
    /// There is no NAT.
    None,
    /// The same for all destinations.
    Independent,
    /// Another one for each destination, at a distance of so many ports from the one made before it: [`Step`].
    Sequential(Step),
    /// Another one for each destination.
    Dependent,
}

/// The distance between two ports that a NAT gives out one after the other: up to [`STEP`] either way, and not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(i8);

/// The largest step that counts as a sequence: more is rather chance, or what many others behind the same NAT do.
pub const STEP: i8 = 16;

impl Step {
    /// Takes a distance that may be a step.
    #[must_use]
    pub fn new(distance: i32) -> Option<Self> {
        let step = i8::try_from(distance).ok()?;
        (step != 0 && (-STEP..=STEP).contains(&step)).then_some(Self(step))
    }

    /// The distance in ports.
    #[must_use]
    pub const fn get(self) -> i8 {
        self.0
    }
}

impl Mapping {
    /// Tells whether destinations see different ports.
    #[must_use]
    pub const fn is_dependent(self) -> bool {
        matches!(self, Self::Sequential(_) | Self::Dependent)
    }
}

/// What a node says of its addresses; each message replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// How its NAT maps.
    pub mapping: Mapping,
    /// At most [`CANDIDATES`].
    pub list: Vec<Candidate>,
}

/// Asks whoever gets it to answer where it came from, with as many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathChallenge {
    /// Unpredictable, so that nobody answers who did not get it.
    pub id: u64,
    /// Bytes of the whole message, [`CHALLENGE`] to [`PROBE`].
    pub size: u16,
}

/// The answer to a [`PathChallenge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathResponse {
    /// That of the challenge.
    pub id: u64,
    /// Where the challenge came from; none for one that came over the relay.
    pub seen: Option<SocketAddr>,
    /// Bytes of the whole message, as of the challenge.
    pub size: u16,
}

impl Candidates {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self.mapping {
            Mapping::Sequential(step) => {
                out.put_u8(SEQUENTIAL);
                out.put(&step.get().to_be_bytes());
            }
            other @ (Mapping::Unknown | Mapping::None | Mapping::Independent | Mapping::Dependent) => {
                out.put_u8(code(&MAPPINGS, other));
            }
        }
        let list = &self.list[..self.list.len().min(CANDIDATES)];
        out.put_u8(u8::try_from(list.len()).expect("at most 16"));
        for candidate in list {
            out.put_u8(code(&KINDS, candidate.kind));
            put_address(out, Some(candidate.address));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mapping = match reader.u8()? {
            SEQUENTIAL => {
                let step = i8::from_be_bytes(reader.array()?);
                Mapping::Sequential(Step::new(step.into()).ok_or(WireError::Invalid("step"))?)
            }
            other => value(&MAPPINGS, other, "mapping")?,
        };
        let count = usize::from(reader.u8()?);
        if count > CANDIDATES {
            return Err(WireError::TooLong("candidates"));
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = value(&KINDS, reader.u8()?, "candidate kind")?;
            let address = read_address(reader)?.ok_or(WireError::Invalid("candidate address"))?;
            list.push(Candidate { kind, address });
        }
        Ok(Self { mapping, list })
    }
}

impl PathChallenge {
    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u64(self.id);
        out.resize(usize::from(self.size).max(CHALLENGE), 0);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = reader.u64()?;
        Ok(Self { id, size: read_padding(reader, 1 + 8)? })
    }
}

impl PathResponse {
    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u64(self.id);
        put_address(out, self.seen);
        out.resize(usize::from(self.size).max(CHALLENGE), 0);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = reader.u64()?;
        let seen = read_address(reader)?;
        Ok(Self { id, seen, size: read_padding(reader, CHALLENGE)? })
    }
}

/// Reads zeros to the end; `read` bytes of the message came before them.
fn read_padding(reader: &mut Reader<'_>, read: usize) -> Result<u16, WireError> {
    let padding = reader.rest();
    let size = read + padding.len();
    if !(CHALLENGE..=PROBE).contains(&size) {
        return Err(WireError::Invalid("probe length"));
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err(WireError::Invalid("padding"));
    }
    u16::try_from(size).map_err(|_| WireError::TooLong("probe"))
}

/// `family u8 (0 none, 4, 6) | address 16, IPv4 first and zeros | port u16`.
pub(super) fn put_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let mut bytes = [0; 16];
    let (family, port) = match address {
        None => (0, 0),
        Some(address) => match address.ip() {
            IpAddr::V4(ip) => {
                bytes[..4].copy_from_slice(&ip.octets());
                (4, address.port())
            }
            IpAddr::V6(ip) => {
                bytes = ip.octets();
                (6, address.port())
            }
        },
    };
    out.put_u8(family);
    out.put(&bytes);
    out.put_u16(port);
}

/// Reads an address that one host can have; link-local ones mean nothing to another machine.
pub(super) fn read_address(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, WireError> {
    let (family, bytes, port) = (reader.u8()?, reader.array::<16>()?, reader.u16()?);
    let ip: IpAddr = match family {
        0 if bytes == [0; 16] && port == 0 => return Ok(None),
        4 if bytes[4..] == [0; 12] => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        6 => Ipv6Addr::from(bytes).into(),
        _ => return Err(WireError::Invalid("address family")),
    };
    let usable = match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
        }
        IpAddr::V6(ip) => {
            let own = ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local();
            !own && !ip.is_multicast() && ip.to_ipv4_mapped().is_none()
        }
    };
    if !usable || port == 0 {
        return Err(WireError::Invalid("address"));
    }
    Ok(Some(match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, 0).into(),
    }))
}

const KINDS: [(CandidateKind, u8); 4] = [
    (CandidateKind::Host, 1),
    (CandidateKind::Mapped, 2),
    (CandidateKind::Reflexive, 3),
    (CandidateKind::Configured, 4),
];
/// Followed by the step as a signed byte.
const SEQUENTIAL: u8 = 4;
const MAPPINGS: [(Mapping, u8); 4] =
    [(Mapping::Unknown, 0), (Mapping::None, 1), (Mapping::Independent, 2), (Mapping::Dependent, 3)];

fn code<T: PartialEq>(table: &[(T, u8)], value: T) -> u8 {
    table.iter().find(|(known, _)| *known == value).map_or(0, |(_, code)| *code)
}

fn value<T: Copy>(table: &[(T, u8)], code: u8, what: &'static str) -> Result<T, WireError> {
    table.iter().find(|(_, known)| *known == code).map(|(value, _)| *value).ok_or(WireError::Invalid(what))
}
