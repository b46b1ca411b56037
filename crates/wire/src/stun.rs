//! STUN binding requests and their success answers (RFC 8489), just enough to ask and to tell a mapped address, and of
//! RFC 5780 what shows how a NAT filters: an answer may be asked for from another address or port of the server.
//!
//! Integers are big-endian as in the RFC. Both parsers take a whole UDP datagram and refuse whatever they do not
//! understand; SOFTWARE and the other attributes that the RFC lets a reader skip are skipped.

mod check;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use self::check::{Check, CheckClass};
use crate::codec::{Reader, WireError};

/// The magic cookie (RFC 8489, section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Bytes of a header.
pub const HEADER: usize = 20;
/// Longest message that is looked at (RFC 8489, section 6.1: what fits every path).
pub const MESSAGE: usize = 548;
/// Longest answer that [`BindingSuccess::encode`] writes: three addresses and a FINGERPRINT.
pub const ANSWER: usize = HEADER + 3 * 24 + 8;

/// Pairs an answer with its request.
pub type TransactionId = [u8; 12];

/// A request for the sender's own mapped address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingRequest {
    /// Chosen at random by the client.
    pub transaction: TransactionId,
    /// Whether the request ends in a FINGERPRINT; the answer then does, too.
    pub fingerprint: bool,
    /// From where the answer is to come (CHANGE-REQUEST); `None` when the request does not say.
    pub change: Option<Change>,
}

/// What of the server's address is to be another one in the answer (RFC 5780, section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The IP address.
    pub address: bool,
    /// The port.
    pub port: bool,
}

/// The answer to a [`BindingRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingSuccess {
    /// That of the request.
    pub transaction: TransactionId,
    /// The address that the request came from.
    pub mapped: SocketAddr,
    /// Whether the answer ends in a FINGERPRINT.
    pub fingerprint: bool,
    /// Where the server sent it from, as far as it knows (RESPONSE-ORIGIN); an unspecified IP address stands for the one
    /// that the client reaches the server at.
    pub origin: Option<SocketAddr>,
    /// From where the server would answer when everything that can be changed is (OTHER-ADDRESS); as with `origin`.
    pub other: Option<SocketAddr>,
}

/// Tells whether a datagram can be STUN: two zero bits, then the magic cookie (RFC 7983).
#[must_use]
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] < 4 && datagram[4..8] == MAGIC_COOKIE.to_be_bytes()
}

impl BindingRequest {
    /// Reads a whole datagram.
    ///
    /// # Errors
    /// [`WireError`] when it is no binding request, is malformed, fails its FINGERPRINT or demands something that
    /// only a full STUN server does.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        let mut attributes = Attributes::open(datagram, BINDING_REQUEST)?;
        let mut change = None;
        while let Some((kind, value)) = attributes.next()? {
            if kind == CHANGE_REQUEST {
                let [0, 0, 0, flags] = *value else { return Err(WireError::Invalid("STUN change")) };
                let asked = Change { address: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 };
                if flags & !(CHANGE_IP | CHANGE_PORT) != 0 || change.replace(asked).is_some() {
                    return Err(WireError::Invalid("STUN change"));
                }
            } else if kind < OPTIONAL && !REQUEST_ATTRIBUTES.contains(&kind) {
                return Err(WireError::Invalid("STUN attribute"));
            }
        }
        Ok(Self { transaction: attributes.transaction, fingerprint: attributes.fingerprint, change })
    }

    /// Returns the bytes of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let value = self.change.map(|Change { address, port }| {
            let flags = if address { CHANGE_IP } else { 0 } | if port { CHANGE_PORT } else { 0 };
            [0, 3, 0, 4, 0, 0, 0, flags]
        });
        encode(
            BINDING_REQUEST,
            self.transaction,
            value.as_ref().map_or(&[], |value| &value[..]),
            self.fingerprint,
        )
    }
}

impl BindingSuccess {
    /// Reads a whole datagram. The caller compares the transaction with that of its request.
    ///
    /// # Errors
    /// [`WireError`] when it is no success answer with exactly one XOR-MAPPED-ADDRESS, is malformed or fails its
    /// FINGERPRINT.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        let mut attributes = Attributes::open(datagram, BINDING_SUCCESS)?;
        let (mut mapped, mut origin, mut other) = (None, None, None);
        while let Some((kind, value)) = attributes.next()? {
            if kind == XOR_MAPPED_ADDRESS {
                if mapped.replace(read_address(value, &attributes.transaction)?).is_some() {
                    return Err(WireError::Invalid("STUN address"));
                }
            } else if kind == RESPONSE_ORIGIN || kind == OTHER_ADDRESS {
                let plain = read_masked(value, 0, [0; 16])?;
                let place = if kind == OTHER_ADDRESS { &mut other } else { &mut origin };
                if place.replace(plain).is_some() {
                    return Err(WireError::Invalid("STUN address"));
                }
            } else if kind < OPTIONAL && !ANSWER_ATTRIBUTES.contains(&kind) {
                return Err(WireError::Invalid("STUN attribute"));
            }
        }
        let mapped = mapped.ok_or(WireError::Invalid("STUN address"))?;
        let Attributes { transaction, fingerprint, .. } = attributes;
        Ok(Self { transaction, mapped, fingerprint, origin, other })
    }

    /// Returns the bytes of the answer: 32 for IPv4, 44 for IPv6; 12 or 24 more for each of the other two addresses, 8
    /// more with FINGERPRINT.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(ANSWER);
        put_address(&mut value, XOR_MAPPED_ADDRESS, self.mapped, PORT_MASK, address_mask(&self.transaction));
        for (kind, address) in [(RESPONSE_ORIGIN, self.origin), (OTHER_ADDRESS, self.other)] {
            if let Some(address) = address {
                put_address(&mut value, kind, address, 0, [0; 16]);
            }
        }
        encode(BINDING_SUCCESS, self.transaction, &value, self.fingerprint)
    }
}

fn put_address(out: &mut Vec<u8>, kind: u16, address: SocketAddr, port_mask: u16, mask: [u8; 16]) {
    out.extend_from_slice(&kind.to_be_bytes());
    let octets = match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.extend_from_slice(&[0, 8, 0, FAMILY_V4]);
            ip.octets().to_vec()
        }
        IpAddr::V6(ip) => {
            out.extend_from_slice(&[0, 20, 0, FAMILY_V6]);
            ip.octets().to_vec()
        }
    };
    out.extend_from_slice(&(address.port() ^ port_mask).to_be_bytes());
    out.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
}

/// Walks over the attributes of one message.
struct Attributes<'a> {
    datagram: &'a [u8],
    rest: Reader<'a>,
    transaction: TransactionId,
    fingerprint: bool,
}

impl<'a> Attributes<'a> {
    fn open(datagram: &'a [u8], kind: u16) -> Result<Self, WireError> {
        if datagram.len() > MESSAGE {
            return Err(WireError::TooLong("STUN message"));
        }
        let mut rest = Reader::new(datagram);
        let found = u16::from_be_bytes(rest.array()?);
        let len = usize::from(u16::from_be_bytes(rest.array()?));
        if found != kind || rest.array()? != MAGIC_COOKIE.to_be_bytes() {
            return Err(WireError::Invalid("STUN header"));
        }
        let transaction = rest.array()?;
        if len % 4 != 0 || len > rest.remaining() {
            return Err(WireError::Truncated);
        }
        if len < rest.remaining() {
            return Err(WireError::Trailing);
        }
        Ok(Self { datagram, rest, transaction, fingerprint: false })
    }

    /// Returns type and value of the next attribute; a FINGERPRINT is checked here and has to be the last one.
    fn next(&mut self) -> Result<Option<(u16, &'a [u8])>, WireError> {
        if self.rest.remaining() == 0 {
            return Ok(None);
        }
        if self.fingerprint {
            return Err(WireError::Trailing);
        }
        let before = self.datagram.len() - self.rest.remaining();
        let kind = u16::from_be_bytes(self.rest.array()?);
        let len = usize::from(u16::from_be_bytes(self.rest.array()?));
        let value = self.rest.bytes(len)?;
        self.rest.bytes(len.next_multiple_of(4) - len)?;
        if kind == FINGERPRINT {
            if value != fingerprint(&self.datagram[..before]) {
                return Err(WireError::Invalid("STUN fingerprint"));
            }
            self.fingerprint = true;
        }
        Ok(Some((kind, value)))
    }
}

fn encode(kind: u16, transaction: TransactionId, attributes: &[u8], with_fingerprint: bool) -> Vec<u8> {
    let len = attributes.len() + if with_fingerprint { 8 } else { 0 };
    let mut out = Vec::with_capacity(HEADER + len);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(
        &u16::try_from(len).expect("at most three addresses and a FINGERPRINT").to_be_bytes(),
    );
    out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    out.extend_from_slice(&transaction);
    out.extend_from_slice(attributes);
    if with_fingerprint {
        let value = fingerprint(&out);
        out.extend_from_slice(&FINGERPRINT.to_be_bytes());
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&value);
    }
    out
}

fn read_address(value: &[u8], transaction: &TransactionId) -> Result<SocketAddr, WireError> {
    read_masked(value, PORT_MASK, address_mask(transaction))
}

fn read_masked(value: &[u8], port_mask: u16, mask: [u8; 16]) -> Result<SocketAddr, WireError> {
    let mut reader = Reader::new(value);
    reader.u8()?;
    let family = reader.u8()?;
    let port = u16::from_be_bytes(reader.array()?) ^ port_mask;
    let ip = match family {
        FAMILY_V4 => {
            let octets: [u8; 4] = reader.array()?;
            IpAddr::V4(Ipv4Addr::from(std::array::from_fn(|i| octets[i] ^ mask[i])))
        }
        FAMILY_V6 => {
            let octets: [u8; 16] = reader.array()?;
            IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| octets[i] ^ mask[i])))
        }
        _ => return Err(WireError::Invalid("STUN address")),
    };
    reader.finish()?;
    Ok(SocketAddr::new(ip, port))
}

fn address_mask(transaction: &TransactionId) -> [u8; 16] {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    std::array::from_fn(|i| if i < 4 { cookie[i] } else { transaction[i - 4] })
}

/// CRC-32 of everything before the attribute, XOR "STUN" (RFC 8489, section 14.7).
///
/// The length field counts the attribute already, which a sender has to see to.
fn fingerprint(message: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in message {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (CRC_POLYNOMIAL & 0_u32.wrapping_sub(crc & 1));
        }
    }
    (!crc ^ 0x5354_554e).to_be_bytes()
}

const CRC_POLYNOMIAL: u32 = 0xedb8_8320;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
const CHANGE_REQUEST: u16 = 0x0003;
const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;
const RESPONSE_ORIGIN: u16 = 0x802b;
const OTHER_ADDRESS: u16 = 0x802c;
/// Attributes from here on may be skipped by who does not know them.
const OPTIONAL: u16 = 0x8000;
/// USERNAME, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, USERHASH, PRIORITY, USE-CANDIDATE: said by ICE agents, of no
/// weight for a mapped address.
const REQUEST_ATTRIBUTES: [u16; 6] = [0x0006, 0x0008, 0x001c, 0x001e, 0x0024, 0x0025];
/// MAPPED-ADDRESS, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256.
const ANSWER_ATTRIBUTES: [u16; 3] = [0x0001, 0x0008, 0x001c];
const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;
/// The upper half of the magic cookie.
const PORT_MASK: u16 = 0x2112;

#[cfg(test)]
mod tests;
