//! Datagrams on their way out, batched per path.

use std::collections::VecDeque;

use crate::path::Path;
use bytes::BytesMut;

/// Largest batch, in bytes: below a relay payload, with room for its header, and below what a UDP socket takes at once.
pub const BATCH: usize = 65_000;
/// Buffers that wait to be used again.
const SPARE: usize = 8;
/// Paths with an open batch at the same time; beyond it the oldest batch is closed.
const OPEN: usize = 8;

/// How a message leaves over UDP, beside where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum By {
    /// From the node's own socket, or from the one that was kept for the address.
    #[default]
    Usual,
    /// The same, but it may pass only so many routers (TTL, hop limit).
    Hops(u8),
    /// From an extra socket of this number, which is below 256 and opened where it is not.
    Extra(u16),
}

/// One message for one path.
#[derive(Debug)]
pub struct Transmit {
    /// Where it goes.
    pub to: Path,
    /// One handshake message, or one or several sealed frames.
    pub payload: BytesMut,
    /// The length of each frame but the last, where there are several.
    pub segment: Option<u16>,
    /// The traffic class that its datagrams are to have: that of the packets in them (RFC 6040, 4.1).
    pub class: u8,
    /// Several are to be handed to the kernel one by one.
    pub single: bool,
    /// How it leaves over UDP.
    pub by: By,
}

/// Collects what [`crate::Node`] sends. Frames of equal size for one path share a message; order is kept for each
/// path.
#[derive(Debug, Default)]
pub struct TxQueue {
    closed: VecDeque<Transmit>,
    open: Vec<Open>,
    spare: Vec<BytesMut>,
}

#[derive(Debug)]
struct Open {
    to: Path,
    class: u8,
    single: bool,
    payload: BytesMut,
    /// Length of the first frame; the batch takes frames up to this length and ends with the first shorter one.
    segment: usize,
    frames: usize,
    ended: bool,
}

impl TxQueue {
    /// Starts empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for a frame of `length` bytes at the end of the path's batch and returns it, zeroed.
    pub fn frame(&mut self, to: Path, length: usize, class: u8) -> &mut [u8] {
        let at = self.batch_for(to, length, class);
        let batch = &mut self.open[at];
        batch.frames += 1;
        batch.ended = length < batch.segment;
        let start = batch.payload.len();
        batch.payload.resize(start + length, 0);
        &mut batch.payload[start..]
    }

    /// Ends the path's open batch: what follows leaves in another message.
    pub(crate) fn end(&mut self, to: Path) {
        if let Some(at) = self.open.iter().position(|batch| batch.to == to) {
            self.close(at);
        }
    }

    /// Ends the path's open batch, which leaves in another way than others. The message is small.
    pub(crate) fn end_by(&mut self, to: Path, by: By) {
        let Some(at) = self.open.iter().position(|batch| batch.to == to) else { return };
        let batch = self.open.remove(at);
        let payload = BytesMut::from(&batch.payload[..]);
        self.recycle(batch.payload);
        self.closed.push_back(Transmit { to, payload, segment: None, class: 0, single: false, by });
    }

    /// Has the frames of the path's open batch handed to the kernel one by one.
    pub(crate) fn singly(&mut self, to: Path) {
        if let Some(batch) = self.open.iter_mut().find(|batch| batch.to == to) {
            batch.single = true;
        }
    }

    /// Appends the last `length` bytes of the first path's batch to that of the second.
    pub(crate) fn repeat(&mut self, of: Path, to: Path, length: usize) {
        let Some(batch) = self.open.iter().find(|batch| batch.to == of) else { return };
        let start = batch.payload.len().saturating_sub(length);
        let frame = batch.payload[start..].to_vec();
        self.frame(to, frame.len(), 0).copy_from_slice(&frame);
    }

    /// Takes back the last `length` bytes that [`TxQueue::frame`] returned for this path.
    pub(crate) fn cancel(&mut self, to: Path, length: usize) {
        if let Some(batch) = self.open.iter_mut().find(|batch| batch.to == to) {
            batch.payload.truncate(batch.payload.len().saturating_sub(length));
            batch.frames -= 1;
            batch.ended = false;
        }
        self.open.retain(|batch| batch.frames > 0);
    }

    /// Appends a message that is not a frame.
    pub fn message(&mut self, to: Path, bytes: &[u8]) {
        if let Some(at) = self.open.iter().position(|batch| batch.to == to) {
            self.close(at);
        }
        self.closed.push_back(Transmit {
            to,
            payload: BytesMut::from(bytes),
            segment: None,
            class: 0,
            single: false,
            by: By::Usual,
        });
    }

    /// Takes the next message; closes the open batches when nothing else is left.
    pub fn pop(&mut self) -> Option<Transmit> {
        if self.closed.is_empty() {
            while !self.open.is_empty() {
                self.close(0);
            }
        }
        self.closed.pop_front()
    }

    /// Takes the next message whose batch is full or ended.
    pub fn pop_closed(&mut self) -> Option<Transmit> {
        self.closed.pop_front()
    }

    /// Takes back the buffer of a message that was sent.
    pub fn recycle(&mut self, mut payload: BytesMut) {
        if payload.capacity() >= BATCH && self.spare.len() < SPARE {
            payload.clear();
            self.spare.push(payload);
        }
    }

    fn batch_for(&mut self, to: Path, length: usize, class: u8) -> usize {
        if let Some(at) = self.open.iter().position(|batch| batch.to == to) {
            let batch = &self.open[at];
            // The relay drops whole messages: what is short shall not go with a transfer.
            let apart = matches!(to, Path::Relay(_)) && length.saturating_mul(4) < batch.segment;
            if !batch.ended
                && !apart
                && batch.class == class
                && length <= batch.segment
                && batch.payload.len() + length <= BATCH
            {
                return at;
            }
            self.close(at);
        }
        if self.open.len() == OPEN {
            self.close(0);
        }
        let payload = self.spare.pop().unwrap_or_else(|| BytesMut::with_capacity(BATCH.max(length)));
        self.open.push(Open { to, class, single: false, payload, segment: length, frames: 0, ended: false });
        self.open.len() - 1
    }

    fn close(&mut self, at: usize) {
        let batch = self.open.remove(at);
        let segment =
            (batch.frames > 1).then(|| u16::try_from(batch.segment).expect("frames are below 64 KiB"));
        self.closed.push_back(Transmit {
            to: batch.to,
            payload: batch.payload,
            segment,
            class: batch.class,
            single: batch.single,
            by: By::Usual,
        });
    }
}

#[cfg(test)]
mod tests {
    use mesh_wire::NodeId;

    use super::*;

    const A: Path = Path::Relay(NodeId([1; 32]));
    const B: Path = Path::Relay(NodeId([2; 32]));

    fn drain(queue: &mut TxQueue) -> Vec<(Path, usize, Option<u16>)> {
        std::iter::from_fn(|| queue.pop()).map(|t| (t.to, t.payload.len(), t.segment)).collect()
    }

    #[test]
    fn equal_frames_share_a_message_and_a_shorter_one_ends_it() {
        let mut queue = TxQueue::new();
        for length in [100, 100, 40, 100] {
            queue.frame(A, length, 0).fill(7);
        }
        assert_eq!(drain(&mut queue), [(A, 240, Some(100)), (A, 100, None)]);
    }

    #[test]
    fn short_frame_does_not_share_the_fate_of_a_transfer_at_the_relay() {
        let mut queue = TxQueue::new();
        for length in [1400, 1400, 100, 1400] {
            queue.frame(A, length, 0);
        }
        assert_eq!(drain(&mut queue), [(A, 2800, Some(1400)), (A, 100, None), (A, 1400, None)]);
        let udp = Path::Udp("192.0.2.1:1".parse().unwrap());
        for length in [1400, 1400, 100] {
            queue.frame(udp, length, 0);
        }
        assert_eq!(drain(&mut queue), [(udp, 2900, Some(1400))]);
    }

    #[test]
    fn longer_frame_starts_a_new_message() {
        let mut queue = TxQueue::new();
        queue.frame(A, 40, 0);
        queue.frame(A, 100, 0);
        assert_eq!(drain(&mut queue), [(A, 40, None), (A, 100, None)]);
    }

    #[test]
    fn paths_do_not_mix_and_messages_keep_their_place() {
        let mut queue = TxQueue::new();
        queue.frame(A, 50, 0);
        queue.frame(B, 50, 0);
        queue.frame(A, 50, 0);
        queue.message(A, b"handshake");
        queue.frame(A, 50, 0);
        assert_eq!(drain(&mut queue), [(A, 100, Some(50)), (A, 9, None), (B, 50, None), (A, 50, None)]);
    }

    #[test]
    fn classes_do_not_share_a_message() {
        let mut queue = TxQueue::new();
        for class in [0, 2, 2, 3] {
            queue.frame(A, 100, class);
        }
        let classes: Vec<_> =
            std::iter::from_fn(|| queue.pop()).map(|t| (t.class, t.payload.len())).collect();
        assert_eq!(classes, [(0, 100), (2, 200), (3, 100)]);
    }

    #[test]
    fn batches_stay_below_a_relay_payload() {
        let mut queue = TxQueue::new();
        for _ in 0..100 {
            queue.frame(A, 1400, 0);
        }
        let sent = drain(&mut queue);
        assert!(sent.iter().all(|(_, length, _)| *length <= BATCH));
        assert_eq!(sent.iter().map(|(_, length, _)| length).sum::<usize>(), 140_000);
    }

    #[test]
    fn cancelled_frame_leaves_no_trace() {
        let mut queue = TxQueue::new();
        queue.frame(A, 50, 0);
        queue.frame(A, 30, 0);
        queue.cancel(A, 30);
        queue.frame(A, 50, 0);
        queue.frame(B, 10, 0);
        queue.cancel(B, 10);
        assert_eq!(drain(&mut queue), [(A, 100, Some(50))]);
    }
}
