//! Handshake messages in sealed parts, for carriers that deliver small datagrams only.
//!
//! HELLO and CHALLENGE are in clear, with a tag by the network's secret on each part ([`Network`]); RESPONSE and
//! ESTABLISHED are sealed part by part under keys of the handshake ([`Fragments`]). So nobody outside makes a receiver
//! keep a byte. Timers and tables are the caller's.

use std::fmt;
use std::sync::{Arc, OnceLock};

use mesh_wire::fragment::{
    ACK_LEN, Ack, COUNT, DATAGRAM, Fragment, FragmentHeader, HEADER, MESSAGE_ID, MessageKind, PAYLOAD, TAG,
    split,
};
use mesh_wire::{NodeId, WireError, limits};

use super::Network;
use crate::aead::{Aead, AeadProvider};
use crate::kdf::{self, Prk};
use crate::secret::Secret;
use crate::session::Role;

/// Why a datagram was not taken or a message not split. Nothing changes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// It is no part of a message and no acknowledgement.
    #[error("fragment is malformed")]
    Malformed(#[source] WireError),
    /// It is of a message that does not belong here.
    #[error("fragment is of another message")]
    Foreign,
    /// Its tag is wrong.
    #[error("fragment does not authenticate")]
    Forged,
    /// Another message was split under the same keys before.
    #[error("another message was split with these keys")]
    Spent,
}

impl Network {
    /// Splits a HELLO or CHALLENGE between an initiator and `responder` into datagrams; `id` is random.
    ///
    /// # Errors
    /// [`FragmentError::Malformed`] or [`FragmentError::Foreign`] when `message` is neither.
    pub fn split(
        &self,
        message: &[u8],
        responder: NodeId,
        id: [u8; MESSAGE_ID],
    ) -> Result<Vec<Vec<u8>>, FragmentError> {
        let kind = kind_of(message)?;
        let key = self.fragment_key(kind, responder)?;
        let parts =
            split(kind, receiver_in(kind, message)?, id, message).map_err(FragmentError::Malformed)?;
        Ok(parts
            .map(|(header, payload)| {
                let header = header.encode();
                let tag = kdf::hmac_sha512_16(&key[..], &[&header, payload]);
                [&header[..], payload, &tag].concat()
            })
            .collect())
    }

    /// Checks a part of a HELLO or CHALLENGE between an initiator and `responder` and returns its payload.
    ///
    /// # Errors
    /// [`FragmentError`].
    pub fn open_part<'a>(
        &self,
        datagram: &'a [u8],
        responder: NodeId,
    ) -> Result<(FragmentHeader, &'a [u8]), FragmentError> {
        match Fragment::parse(datagram).map_err(FragmentError::Malformed)? {
            Fragment::Part(header, payload, tag) => {
                let bytes = header.encode();
                let tag_by = |key: &Secret<64>| kdf::hmac_sha512_16(&key[..], &[&bytes, payload]);
                let expected = match header.kind {
                    MessageKind::Hello => self.with_hello_keys(responder, |keys| tag_by(&keys.part)),
                    kind @ (MessageKind::Challenge | MessageKind::Response | MessageKind::Established) => {
                        tag_by(&self.fragment_key(kind, responder)?)
                    }
                };
                if !kdf::constant_time_eq(&expected, tag) {
                    return Err(FragmentError::Forged);
                }
                Ok((header, payload))
            }
            Fragment::Ack(..) => Err(FragmentError::Foreign),
        }
    }

    fn fragment_key(&self, kind: MessageKind, responder: NodeId) -> Result<Secret<64>, FragmentError> {
        match kind {
            MessageKind::Hello => Ok(self.key(responder, "mesh/1 fragment i")),
            MessageKind::Challenge => Ok(self.key(responder, "mesh/1 fragment r")),
            MessageKind::Response | MessageKind::Established => Err(FragmentError::Foreign),
        }
    }
}

/// Seals the parts of this side's RESPONSE or ESTABLISHED, opens those of the other side, and acknowledges them.
///
/// Everything but the payloads follows from the handshake, and one message only is ever split, so that a nonce never
/// stands for two contents.
pub struct Fragments {
    role: Role,
    sealer: Arc<dyn Aead>,
    opener: Arc<dyn Aead>,
    /// The other side's number, and ours.
    remote: u32,
    local: u32,
    sent: [u8; MESSAGE_ID],
    received: [u8; MESSAGE_ID],
    /// Hash of the message that was split.
    message: OnceLock<[u8; 64]>,
}

impl Fragments {
    pub(super) fn derive(
        secret: &Prk,
        aead: &'static dyn AeadProvider,
        role: Role,
        local: u32,
        remote: u32,
    ) -> Self {
        let key = |label| aead.key(&secret.expand(label));
        let (forward, backward) = (key("i fragment"), key("r fragment"));
        let id = |label| secret.expand_public::<MESSAGE_ID>(label);
        let (forward_id, backward_id) = (id("i fragment id"), id("r fragment id"));
        let (sealer, opener, sent, received) = match role {
            Role::Initiator => (forward, backward, forward_id, backward_id),
            Role::Responder => (backward, forward, backward_id, forward_id),
        };
        Self { role, sealer, opener, remote, local, sent, received, message: OnceLock::new() }
    }

    /// Splits this side's RESPONSE or ESTABLISHED into sealed datagrams; the same message gives the same datagrams.
    ///
    /// # Errors
    /// [`FragmentError::Spent`] for a second message, [`FragmentError::Foreign`] for one of another kind, and
    /// [`FragmentError::Malformed`].
    pub fn split(&self, message: &[u8]) -> Result<Vec<Vec<u8>>, FragmentError> {
        let kind = kind_of(message)?;
        if kind != sent_by(self.role) || receiver_in(kind, message)? != self.remote {
            return Err(FragmentError::Foreign);
        }
        let parts = split(kind, self.remote, self.sent, message).map_err(FragmentError::Malformed)?;
        let hash = kdf::sha512(&[message]);
        if *self.message.get_or_init(|| hash) != hash {
            return Err(FragmentError::Spent);
        }
        Ok(parts
            .map(|(header, payload)| {
                let mut datagram = Vec::with_capacity(DATAGRAM);
                datagram.extend_from_slice(&header.encode());
                datagram.extend_from_slice(payload);
                let (head, body) = datagram.split_at_mut(HEADER);
                let tag = self.sealer.seal_in_place(&part_nonce(header.index), head, body);
                datagram.extend_from_slice(&tag);
                datagram
            })
            .collect())
    }

    /// Opens a part of the other side's message and returns its payload.
    ///
    /// # Errors
    /// [`FragmentError`].
    pub fn open_part(&self, datagram: &[u8]) -> Result<(FragmentHeader, Vec<u8>), FragmentError> {
        let header = match Fragment::parse(datagram).map_err(FragmentError::Malformed)? {
            Fragment::Part(header, ..) => header,
            Fragment::Ack(..) => return Err(FragmentError::Foreign),
        };
        let kind = sent_by(self.role.other());
        if (header.kind, header.receiver, header.message) != (kind, self.local, self.received) {
            return Err(FragmentError::Foreign);
        }
        let mut payload = datagram[HEADER..].to_vec();
        self.opener
            .open_in_place(&part_nonce(header.index), &datagram[..HEADER], &mut payload)
            .map_err(|_| FragmentError::Forged)?;
        payload.truncate(datagram.len() - HEADER - TAG);
        Ok((header, payload))
    }

    /// Acknowledges the parts of the other side's message that `bitmap` names, part 0 the lowest bit.
    #[must_use]
    pub fn acknowledge(&self, bitmap: u64) -> Vec<u8> {
        let ack = Ack { receiver: self.remote, message: self.received, bitmap };
        let mut datagram = Vec::with_capacity(ACK_LEN);
        datagram.extend_from_slice(&ack.encode_body());
        let tag = self.sealer.seal_in_place(&ack_nonce(bitmap), &datagram, &mut []);
        datagram.extend_from_slice(&tag);
        datagram
    }

    /// Opens an acknowledgement of parts of this side's message and returns the parts it names, part 0 the lowest bit.
    ///
    /// # Errors
    /// [`FragmentError`].
    pub fn open_ack(&self, datagram: &[u8]) -> Result<u64, FragmentError> {
        let (ack, tag) = match Fragment::parse(datagram).map_err(FragmentError::Malformed)? {
            Fragment::Ack(ack, tag) => (ack, tag),
            Fragment::Part(..) => return Err(FragmentError::Foreign),
        };
        if (ack.receiver, ack.message) != (self.local, self.sent) {
            return Err(FragmentError::Foreign);
        }
        self.opener
            .open_in_place(&ack_nonce(ack.bitmap), &ack.encode_body(), &mut tag.to_owned())
            .map_err(|_| FragmentError::Forged)?;
        Ok(ack.bitmap)
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragments").field("local", &self.local).finish_non_exhaustive()
    }
}

/// One message on its way to being whole. Give it checked parts only; it takes at most 17 kB.
#[derive(Debug)]
pub struct Assembly {
    kind: MessageKind,
    receiver: u32,
    message: [u8; MESSAGE_ID],
    count: u8,
    bitmap: u64,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Makes room for the message that a part is of; the part itself is still to be added.
    #[must_use]
    pub fn new(header: &FragmentHeader) -> Self {
        Self {
            kind: header.kind,
            receiver: header.receiver,
            message: header.message,
            count: header.count,
            bitmap: 0,
            bytes: Vec::with_capacity(usize::from(header.count).min(COUNT) * PAYLOAD),
        }
    }

    /// Adds a part and tells whether the message is whole. A part that is there already is left as it was.
    ///
    /// # Errors
    /// [`FragmentError::Foreign`] when the part is of another message.
    pub fn add(&mut self, header: &FragmentHeader, payload: &[u8]) -> Result<bool, FragmentError> {
        let own = (self.kind, self.receiver, self.message, self.count);
        let offset = header.offset();
        if own != (header.kind, header.receiver, header.message, header.count)
            || header.index >= self.count
            || usize::from(self.count) > COUNT
            || payload.len() > PAYLOAD
        {
            return Err(FragmentError::Foreign);
        }
        let bit = 1 << header.index;
        if self.bitmap & bit == 0 {
            let end = offset + payload.len();
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            self.bytes[offset..end].copy_from_slice(payload);
            self.bitmap |= bit;
        }
        Ok(self.is_whole())
    }

    /// Returns the parts that are there, one bit each, part 0 the lowest.
    #[must_use]
    pub const fn bitmap(&self) -> u64 {
        self.bitmap
    }

    /// Tells whether every part is there.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.bitmap.count_ones() == self.count as u32
    }

    /// Returns the message's kind.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Returns the bytes; they are the message once [`Assembly::is_whole`].
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn kind_of(message: &[u8]) -> Result<MessageKind, FragmentError> {
    let first = message.first().ok_or(FragmentError::Malformed(WireError::Truncated))?;
    MessageKind::from_byte(*first).map_err(FragmentError::Malformed)
}

/// Returns the receiver index of a message, or of a HELLO, which has none, the sender's.
fn receiver_in(kind: MessageKind, message: &[u8]) -> Result<u32, FragmentError> {
    let at = match kind {
        MessageKind::Hello | MessageKind::Response | MessageKind::Established => 4,
        MessageKind::Challenge => 8,
    };
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(FragmentError::Malformed(WireError::Truncated))
}

const fn sent_by(role: Role) -> MessageKind {
    match role {
        Role::Initiator => MessageKind::Response,
        Role::Responder => MessageKind::Established,
    }
}

fn part_nonce(index: u8) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[11] = index;
    nonce
}

fn ack_nonce(bitmap: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[0] = 1;
    nonce[4..].copy_from_slice(&bitmap.to_le_bytes());
    nonce
}

const _: () = assert!(limits::HANDSHAKE_MESSAGE <= COUNT * PAYLOAD, "every message fits its parts");

#[cfg(test)]
mod tests;
