//! The bytes of the fields that [`super::ClientMessage`] and [`super::RelayMessage`] are made of.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    ADMISSION, BATCH_HEADER, Binding, CLIENT_AUTH, ClientAuth, DATA_HEADER, Data, Direction, ErrorCode, RECV,
    RECV_BATCH, ROSTER_BLOB, Role, RosterBlob, SEND, SEND_BATCH, SERVER_HELLO, ServerHello, TEXT, VERSION,
    WELCOME, Welcome,
};
use crate::NetId;
use crate::codec::{Put, Reader, WireError};
use crate::limits::{PUBLIC_IDENTITY, RELAY_PAYLOAD, SIGNATURE};

impl<'a> Data<'a> {
    /// Returns the frames in order.
    pub fn frames(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let size = self.segment.map_or(self.payload.len(), usize::from);
        self.payload.chunks(size.max(1))
    }

    /// Returns how many bytes stand before the payload.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        if self.segment.is_some() { BATCH_HEADER } else { DATA_HEADER }
    }

    /// Appends the whole message.
    pub fn write(&self, out: &mut impl Put, direction: Direction) {
        out.put_u8(match (direction, self.segment.is_some()) {
            (Direction::Send, false) => SEND,
            (Direction::Send, true) => SEND_BATCH,
            (Direction::Recv, false) => RECV,
            (Direction::Recv, true) => RECV_BATCH,
        });
        out.put_u32(self.handle);
        if let Some(segment) = self.segment {
            out.put_u16(segment);
        }
        out.put(self.payload);
    }

    pub(super) fn read(reader: &mut Reader<'a>, batch: bool) -> Result<Self, WireError> {
        let handle = reader.u32()?;
        let segment = if batch { Some(reader.u16()?) } else { None };
        if segment == Some(0) {
            return Err(WireError::Invalid("segment size"));
        }
        let payload = reader.rest();
        if payload.is_empty() {
            return Err(WireError::Truncated);
        }
        if payload.len() > RELAY_PAYLOAD {
            return Err(WireError::TooLong("relay payload"));
        }
        Ok(Self { handle, segment, payload })
    }
}

impl Role {
    /// Returns the byte that stands for the role.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Member => 1,
            Self::Root => 2,
            Self::Guest => 3,
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Result<Self, WireError> {
        match byte {
            1 => Ok(Self::Member),
            2 => Ok(Self::Root),
            3 => Ok(Self::Guest),
            _ => Err(WireError::Invalid("relay role")),
        }
    }
}

impl ErrorCode {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn to_u16(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::BadMessage => 2,
            Self::BadSignature => 3,
            Self::NotAdmitted => 4,
            Self::NetworkNotServed => 5,
            Self::Replaced => 6,
            Self::ControlOverflow => 7,
            Self::TooManyHandles => 8,
            Self::NotPermitted => 9,
            Self::TooLarge => 10,
            Self::Busy => 11,
            Self::StaleRoster => 12,
            Self::RosterNotKept => 13,
            Self::Other(code) => code,
        }
    }

    /// Returns the meaning of a number on the wire.
    #[must_use]
    pub const fn from_u16(code: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::BadMessage,
            3 => Self::BadSignature,
            4 => Self::NotAdmitted,
            5 => Self::NetworkNotServed,
            6 => Self::Replaced,
            7 => Self::ControlOverflow,
            8 => Self::TooManyHandles,
            9 => Self::NotPermitted,
            10 => Self::TooLarge,
            11 => Self::Busy,
            12 => Self::StaleRoster,
            13 => Self::RosterNotKept,
            other => Self::Other(other),
        }
    }
}

impl ServerHello {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_version(reader)?;
        let (relay_id, challenge) = (reader.array()?, reader.array()?);
        let binding = match reader.u8()? {
            1 => Binding::Exporter,
            _ => return Err(WireError::Invalid("binding")),
        };
        Ok(Self { relay_id, challenge, binding, max_payload: reader.u32()?, max_roster: reader.u32()? })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(SERVER_HELLO);
        out.put_u8(VERSION);
        out.put(&self.relay_id);
        out.put(&self.challenge);
        out.put_u8(match self.binding {
            Binding::Exporter => 1,
        });
        out.put_u32(self.max_payload);
        out.put_u32(self.max_roster);
    }
}

impl<'a> ClientAuth<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        read_version(reader)?;
        let role = Role::from_byte(reader.u8()?)?;
        let net = NetId(reader.array()?);
        let keys = reader.bytes(PUBLIC_IDENTITY)?.try_into().map_err(|_| WireError::Truncated)?;
        let admission = reader.bytes16(ADMISSION, "admission")?;
        if admission.is_empty() == (role == Role::Member) {
            return Err(WireError::Invalid("admission"));
        }
        let signature = reader.bytes(SIGNATURE)?.try_into().map_err(|_| WireError::Truncated)?;
        Ok(Self { role, net, keys, admission, signature })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(CLIENT_AUTH);
        out.put_u8(VERSION);
        out.put_u8(self.role.to_byte());
        out.put(&self.net.0);
        out.put(self.keys);
        out.put_bytes16(self.admission);
        out.put(self.signature);
    }
}

impl Welcome {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let connection = reader.array()?;
        let ip = IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?)).to_canonical();
        let observed = SocketAddr::new(ip, reader.u16()?);
        let heartbeat = reader.u16()?;
        if heartbeat == 0 {
            return Err(WireError::Invalid("heartbeat"));
        }
        Ok(Self { connection, observed, heartbeat, handles: reader.u32()?, rate: reader.u64()? })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(WELCOME);
        out.put(&self.connection);
        let ip = match self.observed.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.put(&ip.octets());
        out.put_u16(self.observed.port());
        out.put_u16(self.heartbeat);
        out.put_u32(self.handles);
        out.put_u64(self.rate);
    }
}

impl<'a> RosterBlob<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let version = reader.u64()?;
        let blob = reader.rest();
        if blob.is_empty() {
            return Err(WireError::Truncated);
        }
        if blob.len() > ROSTER_BLOB {
            return Err(WireError::TooLong("roster"));
        }
        Ok(Self { version, blob })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, kind: u8) {
        out.reserve_exact(9 + self.blob.len());
        out.put_u8(kind);
        out.put_u64(self.version);
        out.put(self.blob);
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<(), WireError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(WireError::Version(other)),
    }
}

pub(super) fn read_bool(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid(what)),
    }
}

pub(super) fn put_handle(out: &mut Vec<u8>, kind: u8, handle: u32) {
    out.put_u8(kind);
    out.put_u32(handle);
}

pub(super) fn put_token(out: &mut Vec<u8>, kind: u8, token: [u8; 8]) {
    out.put_u8(kind);
    out.put(&token);
}

/// Cuts at a character boundary, so that any text of the program itself may be passed.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_bytes8(&text.as_bytes()[..text.floor_char_boundary(TEXT)]);
}
