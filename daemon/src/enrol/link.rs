//! A relay connection as a stream of what it brings, and sealed control messages over it.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use mesh_control::{ApiError, ErrorCode};
use mesh_net::{RelayEvent, RelaySink};
use mesh_session::Session;
use mesh_wire::NodeId;
use mesh_wire::control::Control;
use mesh_wire::frame::{PAYLOAD_OFFSET, PayloadKind};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// Messages that wait; enrolments are a handful of messages, so what is beyond is a flood and dropped.
const QUEUE: usize = 256;

/// What a relay connection brings.
#[derive(Debug)]
pub enum Heard {
    /// Its state changed, or the relay says something.
    Event(RelayEvent),
    /// A node sent a message.
    Frames {
        /// The number of the connection, 0 where there is one only.
        relay: usize,
        /// Who, says the relay.
        from: NodeId,
        /// The message.
        payload: BytesMut,
    },
}

/// The receiving end.
pub type Receiver = mpsc::Receiver<Heard>;

/// A sink that queues.
#[derive(Debug)]
pub struct Link {
    relay: usize,
    queue: mpsc::Sender<Heard>,
    dropped: AtomicU64,
}

impl Link {
    /// Makes a sink and its receiving end.
    #[must_use]
    pub fn new() -> (Self, Receiver) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { relay: 0, queue, dropped: AtomicU64::new(0) }, receiver)
    }

    /// Makes a sink for another connection, with the same receiving end.
    #[must_use]
    pub fn of(&self, relay: usize) -> Self {
        Self { relay, queue: self.queue.clone(), dropped: AtomicU64::new(0) }
    }

    fn push(&self, heard: Heard) {
        if self.queue.try_send(heard).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(dropped, "enrolment queue is full");
        }
    }
}

impl RelaySink for Link {
    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        if segment.is_none() {
            self.push(Heard::Frames { relay: self.relay, from, payload });
        }
    }

    fn event(&self, event: RelayEvent) {
        self.push(Heard::Event(event));
    }
}

/// Seals a control message into a frame of its own.
///
/// # Errors
/// When the session's key is used up.
pub fn seal_control(session: &mut Session, message: &Control<'_>) -> Result<Vec<u8>, ApiError> {
    let bytes = Zeroizing::new(message.encode());
    let mut frame = vec![0; Session::frame_len(bytes.len())];
    frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + bytes.len()].copy_from_slice(&bytes);
    session
        .seal(0, PayloadKind::Control, &mut frame)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(frame)
}

/// Opens a frame that carries a control message; anything else is none.
pub fn open_control<'a>(session: &mut Session, frame: &'a mut [u8]) -> Option<Control<'a>> {
    let opened = session.open(frame).ok()?;
    if opened.kind != PayloadKind::Control {
        return None;
    }
    Control::parse(opened.payload).ok()
}

/// Returns random bytes.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the system gives no randomness"))?;
    Ok(bytes)
}
