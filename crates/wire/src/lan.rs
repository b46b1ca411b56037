//! What nodes of one network tell each other on a local network: where they listen, sealed, in messages of multicast DNS
//! (RFC 6762) that anybody may see.
//!
//! A message has one of three forms, each of one length, in which only what is sealed, its name and its lifetime vary.
//! Everything else on the port is refused by a comparison. Integers of DNS are big-endian, those inside little-endian.
//!
//! ```text
//! question      header 12 | _mesh-pq._udp.local | PTR IN
//! announcement  header 12 | _mesh-pq._udp.local PTR IN ttl u32: NAME._mesh-pq._udp.local
//!                         | NAME._mesh-pq._udp.local TXT IN ttl u32: "d=" nonce 24, ciphertext 181, tag 16
//! farewell      header 12 | _mesh-pq._udp.local PTR IN 0: NAME._mesh-pq._udp.local
//! inside        version 1 | made u64, seconds since 1970 | node id 32 | port u16 for IPv4, u16 for IPv6
//!                         | 8 times: family u8 (0 none, 4, 6), address 16, IPv4 first and zeros
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::NodeId;
use crate::codec::{Put as _, Reader, WireError};

/// The port of multicast DNS.
pub const PORT: u16 = 5353;
/// Its group for IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// Its group for IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// How long others may remember an announcement, in seconds.
pub const TTL: u32 = 120;
/// Addresses in one announcement.
pub const ADDRESSES: usize = 8;
/// Bytes of an announcement's content.
pub const CONTENT: usize = 1 + 8 + 32 + 2 + 2 + ADDRESSES * ADDRESS;
/// Bytes of the nonce in front of what is sealed.
pub const NONCE: usize = 24;
/// Bytes of a sealed content: nonce, ciphertext, tag.
pub const SEALED: usize = NONCE + CONTENT + 16;
/// Bytes of an announcement's name: of a random one, as hexadecimal digits.
pub const NAME: usize = 32;
/// Bytes of the longest of the messages.
pub const MESSAGE: usize =
    HEADER + SERVICE.len() + RECORD + INSTANCE + INSTANCE + RECORD + 1 + KEY.len() + SEALED;

/// The name of an announcement: random, the same for some announcements in a row, and no other meaning.
pub type InstanceName = [u8; NAME];

/// One of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Somebody wants to know who is there.
    Question,
    /// Somebody is there.
    Announcement {
        /// Under which name.
        name: InstanceName,
        /// What only members can read.
        sealed: &'a [u8; SEALED],
    },
    /// What was announced under this name is to be forgotten by others; says nothing to members, as everybody can say it.
    Farewell {
        /// Under which name.
        name: InstanceName,
    },
}

/// What is sealed: where a node can be reached on this local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// Whose addresses these are.
    pub node: NodeId,
    /// The port at all addresses of IPv4; zero for none.
    pub port_v4: u16,
    /// The port at all addresses of IPv6; zero for none.
    pub port_v6: u16,
    /// At most [`ADDRESSES`], link-local ones among them.
    pub addresses: Vec<IpAddr>,
}

impl<'a> Message<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// It is none of the messages, as most on that port are.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(datagram);
        match reader.array::<HEADER>()? {
            HEADER_QUESTION => {
                expect(&mut reader, SERVICE)?;
                expect(&mut reader, &PTR_IN)?;
                reader.finish()?;
                Ok(Self::Question)
            }
            HEADER_FAREWELL => {
                let (ttl, name) = read_pointer(&mut reader)?;
                reader.finish()?;
                if ttl == 0 { Ok(Self::Farewell { name }) } else { Err(OTHER) }
            }
            HEADER_ANNOUNCEMENT => {
                let (_, name) = read_pointer(&mut reader)?;
                if read_instance(&mut reader)? != name {
                    return Err(OTHER);
                }
                expect(&mut reader, &TXT_IN)?;
                let _ttl: [u8; 4] = reader.array()?;
                expect(&mut reader, &TXT_HEAD)?;
                expect(&mut reader, KEY)?;
                let sealed = reader.bytes(SEALED)?.first_chunk().ok_or(WireError::Truncated)?;
                reader.finish()?;
                Ok(Self::Announcement { name, sealed })
            }
            _ => Err(OTHER),
        }
    }

    /// Returns the datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MESSAGE);
        match self {
            Self::Question => {
                out.put(&HEADER_QUESTION);
                out.put(SERVICE);
                out.put(&PTR_IN);
            }
            Self::Farewell { name } => {
                out.put(&HEADER_FAREWELL);
                put_pointer(&mut out, name, 0);
            }
            Self::Announcement { name, sealed } => {
                out.put(&HEADER_ANNOUNCEMENT);
                put_pointer(&mut out, name, TTL);
                put_instance(&mut out, name);
                out.put(&TXT_IN);
                out.put(&TTL.to_be_bytes());
                out.put(&TXT_HEAD);
                out.put(KEY);
                out.put(&sealed[..]);
            }
        }
        out
    }
}

impl Content {
    /// Returns the bytes to seal, always as many; addresses beyond [`ADDRESSES`] are left out.
    #[must_use]
    pub fn encode(&self) -> [u8; CONTENT] {
        let mut out = Vec::with_capacity(CONTENT);
        out.put_u8(VERSION);
        out.put_u64(self.made);
        out.put(&self.node.0);
        out.put_u16(self.port_v4);
        out.put_u16(self.port_v6);
        for address in self.addresses.iter().take(ADDRESSES) {
            match address {
                IpAddr::V4(ip) => {
                    out.put_u8(4);
                    out.put(&ip.octets());
                    out.put(&[0; 12]);
                }
                IpAddr::V6(ip) => {
                    out.put_u8(6);
                    out.put(&ip.octets());
                }
            }
        }
        out.resize(CONTENT, 0);
        out.try_into().expect("it was just given this length")
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// It is not of this version, or holds an address that no host on a local network can have.
    pub fn parse(bytes: &[u8; CONTENT]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let (made, node) = (reader.u64()?, NodeId(reader.array()?));
        let (port_v4, port_v6) = (reader.u16()?, reader.u16()?);
        let mut addresses = Vec::new();
        let mut ended = false;
        for _ in 0..ADDRESSES {
            match read_address(&mut reader)? {
                None => ended = true,
                Some(_) if ended => return Err(WireError::Invalid("address")),
                Some(ip) => {
                    let port = if ip.is_ipv4() { port_v4 } else { port_v6 };
                    if port == 0 {
                        return Err(WireError::Invalid("port"));
                    }
                    addresses.push(ip);
                }
            }
        }
        reader.finish()?;
        Ok(Self { made, node, port_v4, port_v6, addresses })
    }
}

fn read_address(reader: &mut Reader<'_>) -> Result<Option<IpAddr>, WireError> {
    let (family, bytes) = (reader.u8()?, reader.array::<16>()?);
    let ip: IpAddr = match family {
        0 if bytes == [0; 16] => return Ok(None),
        4 if bytes[4..] == [0; 12] => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        6 => Ipv6Addr::from(bytes).into(),
        _ => return Err(WireError::Invalid("address family")),
    };
    let usable = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
    };
    if !usable || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err(WireError::Invalid("address"));
    }
    Ok(Some(ip))
}

fn put_pointer(out: &mut Vec<u8>, name: &InstanceName, ttl: u32) {
    out.put(SERVICE);
    out.put(&PTR_IN);
    out.put(&ttl.to_be_bytes());
    out.put(&INSTANCE_LEN);
    put_instance(out, name);
}

fn read_pointer(reader: &mut Reader<'_>) -> Result<(u32, InstanceName), WireError> {
    expect(reader, SERVICE)?;
    expect(reader, &PTR_IN)?;
    let ttl = u32::from_be_bytes(reader.array()?);
    expect(reader, &INSTANCE_LEN)?;
    Ok((ttl, read_instance(reader)?))
}

fn put_instance(out: &mut Vec<u8>, name: &InstanceName) {
    out.put(&[NAME_LEN]);
    out.put(name);
    out.put(SERVICE);
}

fn read_instance(reader: &mut Reader<'_>) -> Result<InstanceName, WireError> {
    expect(reader, &[NAME_LEN])?;
    let name = reader.array()?;
    expect(reader, SERVICE)?;
    Ok(name)
}

fn expect(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<(), WireError> {
    if reader.bytes(bytes.len())? == bytes { Ok(()) } else { Err(OTHER) }
}

/// `_mesh-pq._udp.local`.
const SERVICE: &[u8] = b"\x08_mesh-pq\x04_udp\x05local\x00";
const KEY: &[u8] = b"d=";
const VERSION: u8 = 1;
const ADDRESS: usize = 1 + 16;

const HEADER: usize = 12;
/// Type, class, lifetime and length of a record.
const RECORD: usize = 2 + 2 + 4 + 2;
const INSTANCE: usize = 1 + NAME + SERVICE.len();
/// A standard query with one question; a response with authority, of one answer and of two.
const HEADER_QUESTION: [u8; HEADER] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const HEADER_FAREWELL: [u8; HEADER] = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
const HEADER_ANNOUNCEMENT: [u8; HEADER] = [0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0];
/// Types PTR and TXT of class IN.
const PTR_IN: [u8; 4] = [0, 12, 0, 1];
const TXT_IN: [u8; 4] = [0, 16, 0, 1];

#[expect(clippy::cast_possible_truncation, reason = "all are below 256, as the compiler checks")]
const fn short(len: usize) -> u8 {
    assert!(len < 256, "a length of one byte");
    len as u8
}

const NAME_LEN: u8 = short(NAME);
const INSTANCE_LEN: [u8; 2] = [0, short(INSTANCE)];
/// Length of the record's data, and of the one string in it.
const TXT_HEAD: [u8; 3] = [0, short(1 + KEY.len() + SEALED), short(KEY.len() + SEALED)];

const OTHER: WireError = WireError::Invalid("message of multicast DNS");

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        Content {
            made: 1_700_000_000,
            node: NodeId([7; 32]),
            port_v4: 4747,
            port_v6: 4748,
            addresses: vec!["192.168.1.2".parse().unwrap(), "fe80::1".parse().unwrap()],
        }
    }

    #[test]
    fn messages_have_these_bytes() {
        let question = Message::Question.encode();
        assert_eq!(question, b"\0\0\0\0\0\x01\0\0\0\0\0\0\x08_mesh-pq\x04_udp\x05local\0\0\x0c\0\x01");
        let name = [b'a'; NAME];
        let farewell = Message::Farewell { name }.encode();
        let tail = [b" ", &name[..], b"\x08_mesh-pq\x04_udp\x05local\0"].concat();
        let pointer = b"\x08_mesh-pq\x04_udp\x05local\0\0\x0c\0\x01";
        let header = b"\0\0\x84\0\0\0\0\x01\0\0\0\0";
        assert_eq!(farewell, [&header[..], pointer, &[0, 0, 0, 0, 0, 54], &tail].concat());
        let sealed = [0xee; SEALED];
        let announcement = Message::Announcement { name, sealed: &sealed }.encode();
        let header = b"\0\0\x84\0\0\0\0\x02\0\0\0\0";
        let text = [&tail[..], &[0, 16, 0, 1, 0, 0, 0, 120, 0, 224, 223], b"d=", &sealed].concat();
        assert_eq!(announcement, [&header[..], pointer, &[0, 0, 0, 120, 0, 54], &tail, &text].concat());
        assert_eq!(announcement.len(), MESSAGE);
    }

    #[test]
    fn content_has_these_bytes() {
        let mut bytes = vec![1];
        bytes.extend(1_700_000_000_u64.to_le_bytes());
        bytes.extend([7; 32]);
        bytes.extend([0x8b, 0x12, 0x8c, 0x12]);
        bytes.extend([4, 192, 168, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([6, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.resize(181, 0);
        assert_eq!(content().encode()[..], bytes);
        assert_eq!(Content::parse(&content().encode()), Ok(content()));
    }

    #[test]
    fn every_message_is_read_back_and_no_part_of_it_is_one() {
        let (name, sealed) = ([b'0'; NAME], [3; SEALED]);
        for message in
            [Message::Question, Message::Farewell { name }, Message::Announcement { name, sealed: &sealed }]
        {
            let bytes = message.encode();
            assert_eq!(Message::parse(&bytes), Ok(message));
            for cut in 0..bytes.len() {
                assert!(Message::parse(&bytes[..cut]).is_err(), "{cut}");
            }
            assert!(Message::parse(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn other_messages_of_multicast_dns_are_refused() {
        let mut other = Message::Question.encode();
        other[13] = b'-';
        assert!(Message::parse(&other).is_err());
        let sealed = [3; SEALED];
        let genuine = Message::Announcement { name: [b'0'; NAME], sealed: &sealed }.encode();
        for at in (0..12).chain([20, 36, 42, 60, 100, 154, 160, 163]) {
            let mut other = genuine.clone();
            other[at] ^= 0x40;
            assert!(Message::parse(&other).is_err(), "byte {at}");
        }
    }

    #[test]
    fn addresses_that_no_neighbour_has_are_refused() {
        for text in ["0.0.0.0", "127.0.0.1", "224.0.0.251", "255.255.255.255", "::", "::1", "ff02::fb"] {
            let wrong = Content { addresses: vec![text.parse().unwrap()], ..content() };
            assert!(Content::parse(&wrong.encode()).is_err(), "{text}");
        }
        let portless = Content { port_v6: 0, ..content() };
        assert!(Content::parse(&portless.encode()).is_err());
        let mut gap = Content { addresses: vec![content().addresses[0]; 2], ..content() }.encode();
        gap[45..62].fill(0);
        assert!(Content::parse(&gap).is_err());
        let mut version = content().encode();
        version[0] = 2;
        assert_eq!(Content::parse(&version), Err(WireError::Version(2)));
    }
}
