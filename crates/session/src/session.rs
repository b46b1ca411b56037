//! One established session: sealing with counters per lane, opening with a replay window per lane.

mod lanes;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use mesh_identity::wipe_stack;
use mesh_wire::WireError;
use mesh_wire::frame::{FrameHeader, HEADER, OVERHEAD, PAYLOAD_OFFSET, PayloadKind, TAG};
use mesh_wire::handshake::SUITE_AES;

use crate::aead::{Aead, AeadProvider};
use crate::kdf::Prk;
use crate::replay::ReplayWindow;
use crate::secret::Secret;

pub use self::lanes::{LaneOpener, LaneSealer, Lanes};

/// Frames that one key of ChaCha20-Poly1305 may seal over all its lanes.
const MAX_FRAMES: u64 = 1 << 60;
/// The same of AES-256-GCM: with frames of 9 kB, the longest there are, an attacker's advantage stays below 2^-57 (RFC 9001,
/// appendix B.1.1, which allows as much). At 10 Gbit/s and the usual size they last a minute.
const MAX_FRAMES_AES: u64 = 1 << 26;
/// Failed opens after which a key is given up: the integrity limit of ChaCha20-Poly1305 (RFC 9001 section 6.6).
const MAX_FORGERIES: u64 = 1 << 36;

/// The keys of a finished handshake or rekey, seen from one side.
pub(crate) struct SessionKeys {
    pub(crate) id: [u8; 16],
    pub(crate) send: Secret<32>,
    pub(crate) receive: Secret<32>,
    /// What the keys of the next session hang on; it is used once.
    pub(crate) chain: Secret<64>,
}

/// A side of a session: who sent the HELLO, and who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

impl Role {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

impl SessionKeys {
    /// Derives the keys that `role` uses from the head of the chain.
    pub(crate) fn derive(head: &Prk, role: Role) -> Self {
        let (forward, backward) = (head.expand("k_ir"), head.expand("k_ri"));
        let (send, receive) = match role {
            Role::Initiator => (forward, backward),
            Role::Responder => (backward, forward),
        };
        Self { id: head.expand_public("session_id"), send, receive, chain: head.expand("ck") }
    }
}

/// An established session.
pub struct Session {
    id: [u8; 16],
    pub(crate) role: Role,
    pub(crate) aead: &'static dyn AeadProvider,
    pub(crate) suite: u16,
    pub(crate) local: Side,
    pub(crate) remote: Side,
    /// None once it was used for the session that follows.
    pub(crate) chain: Option<Secret<64>>,
    sealer: Arc<dyn Aead>,
    opener: Arc<dyn Aead>,
    counters: Vec<u64>,
    windows: Vec<Option<ReplayWindow>>,
    sealed: u64,
    forgeries: u64,
    /// Among how many threads the lanes are divided.
    threads: u16,
}

/// A frame that authenticated.
#[derive(Debug)]
pub struct Opened<'a> {
    /// What it carries.
    pub kind: PayloadKind,
    /// The payload with its padding.
    pub payload: &'a mut [u8],
}

/// Why a frame could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The peer granted fewer lanes.
    #[error("lane {0} was not granted")]
    Lane(u16),
    /// The key has sealed as many frames as it may.
    #[error("session key is used up")]
    Exhausted,
}

/// Why a frame was not accepted. None of them changes the session, except that forgeries are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no sealed frame, or names an unknown payload type.
    #[error("frame is malformed")]
    Malformed(#[source] WireError),
    /// It is for another session.
    #[error("frame is for another session")]
    Index,
    /// Its lane was not granted.
    #[error("lane was not granted")]
    Lane,
    /// Its lane is of the thread with this number.
    #[error("lane is of thread {0}")]
    Elsewhere(u16),
    /// Its counter was seen before or is too old.
    #[error("frame was received before")]
    Replayed,
    /// It does not authenticate.
    #[error("frame does not authenticate")]
    Forged,
    /// The key met too many forgeries and opens nothing any more.
    #[error("session key is given up")]
    Spent,
}

impl Session {
    pub(crate) fn new(
        keys: SessionKeys,
        role: Role,
        (aead, suite): (&'static dyn AeadProvider, u16),
        local: Side,
        remote: Side,
    ) -> Self {
        Self {
            id: keys.id,
            role,
            aead,
            suite,
            local,
            remote,
            chain: Some(keys.chain),
            sealer: aead.session_key(suite, &keys.send),
            opener: aead.session_key(suite, &keys.receive),
            counters: vec![0; usize::from(remote.lanes)],
            windows: (0..local.lanes).map(|_| None).collect(),
            sealed: 0,
            forgeries: 0,
            threads: 1,
        }
    }

    /// Returns the session's id, equal on both sides and no secret.
    #[must_use]
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns this side's number for the session: what frames to us carry.
    #[must_use]
    pub const fn local_index(&self) -> u32 {
        self.local.index
    }

    /// Tells whether this side began the handshake that the session descends from.
    #[must_use]
    pub fn is_initiator(&self) -> bool {
        self.role == Role::Initiator
    }

    /// Returns how many frames the key has sealed here, of those that it may.
    #[must_use]
    pub const fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Returns how many frames the key may seal here: 2^60, or 2^26 with AES-256-GCM, divided by the number of threads
    /// that seal.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        let limit = if self.suite == SUITE_AES { MAX_FRAMES_AES } else { MAX_FRAMES };
        limit / self.threads as u64
    }

    /// Returns the suite that both sides agreed on.
    #[must_use]
    pub const fn suite(&self) -> u16 {
        self.suite
    }

    /// Returns how many bytes a frame with a payload of `payload` bytes has.
    #[must_use]
    pub const fn frame_len(payload: usize) -> usize {
        payload + OVERHEAD
    }

    /// Seals a frame in place.
    ///
    /// `frame` is the whole frame: [`PAYLOAD_OFFSET`] bytes that are overwritten, the payload, 16 bytes that become the
    /// tag. After an error it is unchanged.
    ///
    /// # Errors
    /// [`SealError`]; the session opens frames as before.
    ///
    /// # Panics
    /// When `frame` is shorter than [`OVERHEAD`].
    pub fn seal(&mut self, lane: u16, kind: PayloadKind, frame: &mut [u8]) -> Result<(), SealError> {
        let limit = self.limit();
        let mine = self.owner_elsewhere(lane).is_none();
        let counter = self.counters.get_mut(usize::from(lane)).filter(|_| mine);
        let counter = counter.ok_or(SealError::Lane(lane))?;
        if self.sealed >= limit {
            return Err(SealError::Exhausted);
        }
        let header = FrameHeader { lane, receiver: self.remote.index, counter: *counter };
        *counter += 1;
        self.sealed += 1;
        seal_frame(&*self.sealer, &header, kind, frame);
        Ok(())
    }

    /// Opens a frame in place and accepts its counter.
    ///
    /// # Errors
    /// [`OpenError`]; the session goes on. The content of `frame` is then undefined.
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let header = FrameHeader::parse(frame).map_err(OpenError::Malformed)?;
        if header.receiver != self.local.index {
            return Err(OpenError::Index);
        }
        if self.forgeries >= MAX_FORGERIES {
            return Err(OpenError::Spent);
        }
        if let Some(thread) = self.owner_elsewhere(header.lane) {
            return Err(OpenError::Elsewhere(thread));
        }
        let window = self.windows.get_mut(usize::from(header.lane)).ok_or(OpenError::Lane)?;
        open_frame(&*self.opener, &header, window, &mut self.forgeries, frame)
    }
}

/// Writes header, type and tag of a frame around its payload, which is sealed in place.
fn seal_frame(key: &dyn Aead, header: &FrameHeader, kind: PayloadKind, frame: &mut [u8]) {
    let (head, rest) = frame.split_at_mut(HEADER);
    head.copy_from_slice(&header.encode());
    let (body, tag) = rest.split_at_mut(rest.len() - TAG);
    body[0] = kind.to_byte();
    tag.copy_from_slice(&key.seal_in_place(&header.nonce(), head, body));
}

/// Opens a frame of a lane in place and accepts its counter.
fn open_frame<'a>(
    key: &dyn Aead,
    header: &FrameHeader,
    window: &mut Option<ReplayWindow>,
    forgeries: &mut u64,
    frame: &'a mut [u8],
) -> Result<Opened<'a>, OpenError> {
    if window.as_ref().is_some_and(|window| !window.is_fresh(header.counter)) {
        return Err(OpenError::Replayed);
    }
    let (head, body) = frame.split_at_mut(HEADER);
    let Ok(plain) = key.open_in_place(&header.nonce(), head, body) else {
        *forgeries += 1;
        return Err(OpenError::Forged);
    };
    window.get_or_insert_with(ReplayWindow::new).accept(header.counter);
    let (kind, payload) = plain.split_first_mut().ok_or(OpenError::Malformed(WireError::Truncated))?;
    let kind = PayloadKind::from_byte(*kind).map_err(OpenError::Malformed)?;
    Ok(Opened { kind, payload })
}

impl Drop for Session {
    fn drop(&mut self) {
        // The libraries leave copies of the keys below the calls that sealed and opened.
        wipe_stack();
        ENDED.set(true);
    }
}

thread_local! {
    /// A session ended on this thread, possibly deeper in the stack than it was used.
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Overwrites the stack below the caller if a session ended on this thread since the last call. A thread that uses
/// sessions calls it in its outermost loop, where every use of them was below.
pub fn wipe_after_sessions() {
    if ENDED.take() {
        wipe_stack();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("local", &self.local.index)
            .field("remote", &self.remote.index)
            .field("keys", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// One side of a session: its number for it and the lanes it receives on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) index: u32,
    pub(crate) lanes: u8,
}

/// Where the payload starts in a frame; see [`Session::seal`].
const _: () = assert!(PAYLOAD_OFFSET == HEADER + 1, "one byte of type follows the header");

#[cfg(test)]
mod tests;
