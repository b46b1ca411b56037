//! Messages between a relay and its clients: one per WebSocket binary message.
//!
//! ```text
//! relay  -> 01 SERVER_HELLO  version 1 | relay id 32 | challenge 32 | binding 1 | max payload u32 | max roster u32
//! client -> 02 CLIENT_AUTH   version 1 | role 1 | net id 32 | keys 2624 | admission u16+n | signature 4691
//! relay  -> 03 WELCOME       connection id 16 | observed ip 16 (IPv4 mapped), port u16 | heartbeat s u16
//!                            | handles u32 | bytes per second u64
//! client -> 04 BIND          node id 32
//! relay  -> 05 BOUND         node id 32 | handle u32 (ffffffff: refused) | present 1
//! client -> 06 UNBIND        handle u32
//! relay  -> 07 PEER_GONE     handle u32
//! relay  -> 08 PEER_PRESENT  handle u32
//! both   -> 09 PING          8 bytes                          0a PONG  the same 8 bytes
//! relay  -> 0b HEALTH        text u8+n (empty: healthy again)
//! relay  -> 0c RESTARTING    min ms u32 | max ms u32
//! relay  -> 0d ERROR         code u16 | text u8+n
//! client -> 0e ROSTER_PUT    version u64 | blob               0f ROSTER  the same, from the relay
//! client -> 10 SEND          handle u32 | payload             12 RECV        the same, from the relay
//! client -> 11 SEND_BATCH    handle u32 | segment u16 | payload   13 RECV_BATCH  the same, from the relay
//! relay  -> 14 UDP_OFFER     port u16 | connection u64 | key 32 | mask up u32 | mask down u32
//! client -> 15 UDP_END       (empty: the relay sends nothing more over UDP until the address is proven anew)
//! ```
//! A batch is a payload of frames that are `segment` bytes long each; the last one may be shorter. A handle is valid
//! within one connection only. A relay never sends RECV for a handle that it has not announced by BOUND before.
//! Between CLIENT_AUTH and WELCOME the client sends nothing.

mod layout;

use std::net::SocketAddr;

use crate::codec::{Put, Reader, WireError};
use crate::limits::{PUBLIC_IDENTITY, RELAY_PAYLOAD, ROSTER, SIGNATURE};
use crate::relay_udp::Offer;
use crate::{NetId, NodeId};
use layout::{put_handle, put_text, put_token, read_bool};

/// The protocol version in SERVER_HELLO and CLIENT_AUTH.
pub const VERSION: u8 = 1;
/// Header of the upgrade request by which a client says that it understands UDP_OFFER.
pub const UDP_HEADER: &str = "shadowmesh-relay-udp";
/// Path of the WebSocket.
pub const PATH: &str = "/relay";
/// Label of the TLS exporter (RFC 8446, section 7.5) that binds an authentication to its connection; no context, 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-ShadowMesh-Relay-Auth";
/// Bytes before the payload of SEND and RECV.
pub const DATA_HEADER: usize = 5;
/// Bytes before the payload of SEND_BATCH and RECV_BATCH.
pub const BATCH_HEADER: usize = 7;
/// Longest SEND_BATCH, and with it the longest message of a Member or Guest once it is welcome.
pub const DATA_MESSAGE: usize = BATCH_HEADER + RELAY_PAYLOAD;
/// Longest sealed roster.
pub const ROSTER_BLOB: usize = ROSTER + 4096;
/// Longest ROSTER_PUT and ROSTER.
pub const ROSTER_MESSAGE: usize = 9 + ROSTER_BLOB;
/// Longest proof of membership.
pub const ADMISSION: usize = 16 * 1024;
/// Longest CLIENT_AUTH, and with it the longest message of a client that is not welcome yet.
pub const AUTH_MESSAGE: usize = 3 + 32 + PUBLIC_IDENTITY + 2 + ADMISSION + SIGNATURE;
/// Longest text of HEALTH and ERROR in bytes.
pub const TEXT: usize = 200;
/// The handle in a BOUND that refuses the binding.
pub const NO_HANDLE: u32 = u32::MAX;
/// Bytes of what a client hashes and signs, see [`auth_input`].
pub const AUTH_INPUT: usize = 32 + 32 + 32 + 1 + 32 + 64;

/// As what a client speaks for a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A node with a proof that the network's roster lists it.
    Member,
    /// The holder of the network's root keys: its mailbox.
    Root,
    /// A node that wants to enrol: it may talk to the mailbox only.
    Guest,
}

/// What binds the client's signature to this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The TLS exporter with [`EXPORTER_LABEL`].
    Exporter,
}

/// The relay's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello {
    /// SHA-256 of the relay's SubjectPublicKeyInfo.
    pub relay_id: [u8; 32],
    /// Fresh random bytes that the client signs.
    pub challenge: [u8; 32],
    /// What else the client signs.
    pub binding: Binding,
    /// Longest payload of SEND in bytes.
    pub max_payload: u32,
    /// Longest blob of ROSTER_PUT in bytes.
    pub max_roster: u32,
}

/// The client's proof of who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAuth<'a> {
    /// As what it speaks.
    pub role: Role,
    /// For which network.
    pub net: NetId,
    /// Its composite public keys; the root's for [`Role::Root`].
    pub keys: &'a [u8; PUBLIC_IDENTITY],
    /// Proof of membership; empty for [`Role::Root`] and [`Role::Guest`].
    pub admission: &'a [u8],
    /// Composite signature over SHA-512 of [`auth_input`].
    pub signature: &'a [u8; SIGNATURE],
}

/// The relay's answer to a good CLIENT_AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Names the connection in the relay's log.
    pub connection: [u8; 16],
    /// The client's address as the relay sees it.
    pub observed: SocketAddr,
    /// Seconds of silence after which either side sends a PING; after three PINGs without an answer the connection is dead.
    pub heartbeat: u16,
    /// Most handles at a time.
    pub handles: u32,
    /// Bytes per second that the relay takes from this client; 0 means no limit.
    pub rate: u64,
}

/// A handle for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The node, or the network's mailbox.
    pub node: NodeId,
    /// Its number in SEND and RECV.
    pub handle: u32,
    /// Whether it is connected to this relay.
    pub present: bool,
}

/// A sealed roster that the relay keeps for the members of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RosterBlob<'a> {
    /// Grows with every edition.
    pub version: u64,
    /// Opaque to the relay.
    pub blob: &'a [u8],
}

/// Frames to or from one node: the content of SEND, SEND_BATCH, RECV and RECV_BATCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// The other node.
    pub handle: u32,
    /// Length of every frame but the last; `None` when the payload is a single frame.
    pub segment: Option<u16>,
    /// One to 65,536 bytes.
    pub payload: &'a [u8],
}

/// Which way a data message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// SEND: from a client.
    Send,
    /// RECV: from the relay.
    Recv,
}

/// What an ERROR is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// The client speaks a version that the relay does not. Ends the connection.
    Version,
    /// A message could not be read. Ends the connection.
    BadMessage,
    /// The signature does not verify. Ends the connection.
    BadSignature,
    /// The proof of membership does not hold. Ends the connection.
    NotAdmitted,
    /// This relay serves other networks only. Ends the connection.
    NetworkNotServed,
    /// A newer connection took over the same id. Ends the connection.
    Replaced,
    /// Control messages were dropped because the client reads too slowly.
    ControlOverflow,
    /// The client has as many handles as it may have.
    TooManyHandles,
    /// The client may not reach that node.
    NotPermitted,
    /// A message or blob is above its limit. Ends the connection.
    TooLarge,
    /// The relay, or this network on it, has too many clients. Ends the connection.
    Busy,
    /// The relay holds a newer roster.
    StaleRoster,
    /// The relay has no room for another roster.
    RosterNotKept,
    /// A code of a later version.
    Other(u16),
}

/// A message from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// CLIENT_AUTH.
    Auth(ClientAuth<'a>),
    /// BIND.
    Bind(NodeId),
    /// UNBIND.
    Unbind(u32),
    /// PING.
    Ping([u8; 8]),
    /// PONG.
    Pong([u8; 8]),
    /// ROSTER_PUT.
    RosterPut(RosterBlob<'a>),
    /// SEND or SEND_BATCH.
    Send(Data<'a>),
    /// UDP_END.
    UdpEnd,
}

/// A message from a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayMessage<'a> {
    /// SERVER_HELLO.
    Hello(ServerHello),
    /// WELCOME.
    Welcome(Welcome),
    /// BOUND.
    Bound(Bound),
    /// PEER_GONE.
    PeerGone(u32),
    /// PEER_PRESENT.
    PeerPresent(u32),
    /// PING.
    Ping([u8; 8]),
    /// PONG.
    Pong([u8; 8]),
    /// HEALTH.
    Health(&'a str),
    /// RESTARTING: reconnect after a random time between the two, in milliseconds.
    Restarting {
        /// Shortest wait.
        min_ms: u32,
        /// Longest wait, at least the shortest.
        max_ms: u32,
    },
    /// ERROR.
    Error {
        /// Stable meaning.
        code: ErrorCode,
        /// For people.
        text: &'a str,
    },
    /// ROSTER.
    Roster(RosterBlob<'a>),
    /// RECV or RECV_BATCH.
    Recv(Data<'a>),
    /// UDP_OFFER.
    UdpOffer(Offer),
}

/// Returns the bytes whose SHA-512 a client signs: relay id, challenge, exporter, role, network, hash of the admission.
///
/// `admission_hash` is the SHA-512 of the admission bytes, also when these are empty.
#[must_use]
pub fn auth_input(
    hello: &ServerHello,
    exporter: &[u8; 32],
    role: Role,
    net: NetId,
    admission_hash: &[u8; 64],
) -> [u8; AUTH_INPUT] {
    let mut out = Vec::with_capacity(AUTH_INPUT);
    out.put(&hello.relay_id);
    out.put(&hello.challenge);
    out.put(exporter);
    out.put_u8(role.to_byte());
    out.put(&net.0);
    out.put(admission_hash);
    out.try_into().expect("the fields above add up to AUTH_INPUT")
}

impl<'a> ClientMessage<'a> {
    /// Reads one message; views borrow from `bytes`, nothing is allocated.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no message that a client may send.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            CLIENT_AUTH => Self::Auth(ClientAuth::read(&mut reader)?),
            BIND => Self::Bind(NodeId(reader.array()?)),
            UNBIND => Self::Unbind(reader.u32()?),
            PING => Self::Ping(reader.array()?),
            PONG => Self::Pong(reader.array()?),
            ROSTER_PUT => Self::RosterPut(RosterBlob::read(&mut reader)?),
            SEND => Self::Send(Data::read(&mut reader, false)?),
            SEND_BATCH => Self::Send(Data::read(&mut reader, true)?),
            UDP_END => Self::UdpEnd,
            _ => return Err(WireError::Invalid("relay message type")),
        };
        reader.finish()?;
        Ok(message)
    }

    /// Returns the bytes of the message. Fields above their limits are a bug of the caller and panic.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Auth(auth) => auth.write(&mut out),
            Self::Bind(node) => {
                out.put_u8(BIND);
                out.put(&node.0);
            }
            Self::Unbind(handle) => put_handle(&mut out, UNBIND, *handle),
            Self::Ping(token) => put_token(&mut out, PING, *token),
            Self::Pong(token) => put_token(&mut out, PONG, *token),
            Self::RosterPut(roster) => roster.write(&mut out, ROSTER_PUT),
            Self::Send(data) => data.write(&mut out, Direction::Send),
            Self::UdpEnd => out.put_u8(UDP_END),
        }
        out
    }
}

impl<'a> RelayMessage<'a> {
    /// Reads one message; views borrow from `bytes`, nothing is allocated.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no message that a relay may send.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            SERVER_HELLO => Self::Hello(ServerHello::read(&mut reader)?),
            WELCOME => Self::Welcome(Welcome::read(&mut reader)?),
            BOUND => Self::Bound(Bound {
                node: NodeId(reader.array()?),
                handle: reader.u32()?,
                present: read_bool(&mut reader, "presence")?,
            }),
            PEER_GONE => Self::PeerGone(reader.u32()?),
            PEER_PRESENT => Self::PeerPresent(reader.u32()?),
            PING => Self::Ping(reader.array()?),
            PONG => Self::Pong(reader.array()?),
            HEALTH => Self::Health(reader.text8(TEXT, "health text")?),
            RESTARTING => {
                let (min_ms, max_ms) = (reader.u32()?, reader.u32()?);
                if min_ms > max_ms {
                    return Err(WireError::Invalid("restart delay"));
                }
                Self::Restarting { min_ms, max_ms }
            }
            ERROR => Self::Error {
                code: ErrorCode::from_u16(reader.u16()?),
                text: reader.text8(TEXT, "error text")?,
            },
            ROSTER_PUSH => Self::Roster(RosterBlob::read(&mut reader)?),
            RECV => Self::Recv(Data::read(&mut reader, false)?),
            RECV_BATCH => Self::Recv(Data::read(&mut reader, true)?),
            UDP_OFFER => Self::UdpOffer(Offer::read(&mut reader)?),
            _ => return Err(WireError::Invalid("relay message type")),
        };
        reader.finish()?;
        Ok(message)
    }

    /// Returns the bytes of the message. Fields above their limits are a bug of the caller and panic.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => hello.write(&mut out),
            Self::Welcome(welcome) => welcome.write(&mut out),
            Self::Bound(bound) => {
                out.put_u8(BOUND);
                out.put(&bound.node.0);
                out.put_u32(bound.handle);
                out.put_u8(u8::from(bound.present));
            }
            Self::PeerGone(handle) => put_handle(&mut out, PEER_GONE, *handle),
            Self::PeerPresent(handle) => put_handle(&mut out, PEER_PRESENT, *handle),
            Self::Ping(token) => put_token(&mut out, PING, *token),
            Self::Pong(token) => put_token(&mut out, PONG, *token),
            Self::Health(text) => {
                out.put_u8(HEALTH);
                put_text(&mut out, text);
            }
            Self::Restarting { min_ms, max_ms } => {
                out.put_u8(RESTARTING);
                out.put_u32(*min_ms);
                out.put_u32(*max_ms);
            }
            Self::Error { code, text } => {
                out.put_u8(ERROR);
                out.put_u16(code.to_u16());
                put_text(&mut out, text);
            }
            Self::Roster(roster) => roster.write(&mut out, ROSTER_PUSH),
            Self::Recv(data) => data.write(&mut out, Direction::Recv),
            Self::UdpOffer(offer) => {
                out.put_u8(UDP_OFFER);
                offer.write(&mut out);
            }
        }
        out
    }
}

const SERVER_HELLO: u8 = 0x01;
const CLIENT_AUTH: u8 = 0x02;
const WELCOME: u8 = 0x03;
const BIND: u8 = 0x04;
const BOUND: u8 = 0x05;
const UNBIND: u8 = 0x06;
const PEER_GONE: u8 = 0x07;
const PEER_PRESENT: u8 = 0x08;
const PING: u8 = 0x09;
const PONG: u8 = 0x0a;
const HEALTH: u8 = 0x0b;
const RESTARTING: u8 = 0x0c;
const ERROR: u8 = 0x0d;
const ROSTER_PUT: u8 = 0x0e;
const ROSTER_PUSH: u8 = 0x0f;
const SEND: u8 = 0x10;
const SEND_BATCH: u8 = 0x11;
const RECV: u8 = 0x12;
const RECV_BATCH: u8 = 0x13;
const UDP_OFFER: u8 = 0x14;
const UDP_END: u8 = 0x15;

#[cfg(test)]
mod tests;
