//! What waits for the engine: frames from the relay client, what handshakes led to, QUIC datagrams, commands.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;

use bytes::BytesMut;
use mesh_node::{Outcome, ToNode, Transmit};
use mesh_wire::NodeId;

use super::Command;
use super::sync::{Mutex, MutexGuard, Signal};

/// Bytes of frames that wait, at most; beyond it the newest are dropped and counted: about as much as the engine handles
/// in 10 ms.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a batch takes beside its payload, roughly, so that many small ones are bounded too.
const BATCH_COST: usize = 128;

/// Commands that wait, at most; beyond it new ones are dropped, and with them the sender of their answer.
const MAX_COMMANDS: usize = 8192;

/// Handshake messages that wait to leave, at most; beyond it new ones are dropped, as a network may lose them.
const MAX_TRANSMITS: usize = 4096;

/// Bytes of QUIC datagrams that wait, at most; beyond it the QUIC endpoint waits.
const MAX_QUIC: usize = 512 * 1024;

/// Bytes of what workers pass on that wait, at most; beyond it the newest are dropped and counted. Packets of a worker are
/// fewer: it waits for its marks.
const MAX_PASSED: usize = 4 * 1024 * 1024;

/// A bounded queue with a file descriptor that becomes readable when something arrives. Its lock is taken once per
/// batch, not per packet.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    signal: Signal,
}

/// Frames of one node, as the carrier brought them.
#[derive(Debug)]
pub struct Frames {
    /// Who sent them, says the carrier.
    pub from: NodeId,
    /// One frame, or several of `segment` bytes of which the last may be shorter.
    pub payload: BytesMut,
    /// The length of each frame, where there are several.
    pub segment: Option<u16>,
    /// The network marked their datagrams as having met congestion.
    pub marked: bool,
}

/// QUIC datagrams for one node.
#[derive(Debug)]
pub struct Datagrams {
    /// Whom they are for.
    pub to: NodeId,
    /// One datagram, or several of `segment` bytes of which the last may be shorter.
    pub payload: BytesMut,
    /// The length of each datagram, where there are several.
    pub segment: Option<u16>,
}

/// All that one look at the inbox gives.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) frames: Vec<Frames>,
    pub(super) outcomes: VecDeque<Outcome>,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) quic: VecDeque<Datagrams>,
    pub(super) commands: VecDeque<Command>,
    /// What the workers passed on, each behind the number of its thread.
    pub(super) passed: VecDeque<(u16, Vec<ToNode>)>,
    /// The QUIC endpoint was told to wait and has room again.
    pub(super) quic_has_room: bool,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frames>,
    bytes: usize,
    /// Few: each one is a handshake that both sides worked for.
    outcomes: VecDeque<Outcome>,
    transmits: VecDeque<Transmit>,
    quic: VecDeque<Datagrams>,
    quic_bytes: usize,
    quic_waits: bool,
    commands: VecDeque<Command>,
    passed: VecDeque<(u16, Vec<ToNode>)>,
    passed_bytes: usize,
    dropped: u64,
}

impl Inbox {
    /// Makes an empty inbox.
    ///
    /// # Errors
    /// When the kernel gives out no more file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), signal: Signal::new()? })
    }

    /// Appends frames; drops and counts them when too much waits.
    pub fn frames(&self, frames: Frames) {
        let mut state = self.lock();
        if state.bytes + frames.cost() > MAX_BYTES {
            state.dropped += 1;
            return;
        }
        let idle = state.is_empty();
        state.bytes += frames.cost();
        state.frames.push_back(frames);
        drop(state);
        if idle {
            self.wake();
        }
    }

    /// Appends a command; [`Command::Stop`] always finds room.
    pub fn command(&self, command: Command) {
        let mut state = self.lock();
        if state.commands.len() < MAX_COMMANDS || matches!(command, Command::Stop) {
            state.commands.push_back(command);
        }
        drop(state);
        self.wake();
    }

    /// Appends what a handshake led to.
    pub fn outcome(&self, outcome: Outcome) {
        self.put(|state| state.outcomes.push_back(outcome));
    }

    /// Appends a handshake message to be sent; drops and counts it when too many wait.
    pub fn transmit(&self, transmit: Transmit) {
        self.put(|state| {
            if state.transmits.len() < MAX_TRANSMITS {
                state.transmits.push_back(transmit);
            } else {
                state.dropped += 1;
            }
        });
    }

    /// Appends QUIC datagrams to be sealed; false when too much waits, and then the endpoint is told of room later.
    pub fn quic(&self, datagrams: Datagrams) -> bool {
        let mut state = self.lock();
        let cost = datagrams.payload.len() + BATCH_COST;
        if state.quic_bytes + cost > MAX_QUIC {
            state.quic_waits = true;
            return false;
        }
        let idle = state.is_empty();
        state.quic_bytes += cost;
        state.quic.push_back(datagrams);
        drop(state);
        if idle {
            self.wake();
        }
        true
    }

    /// Appends what a worker passes on, which it takes out; drops and counts packets and frames when too much waits.
    pub(super) fn pass(&self, thread: u16, passed: &mut Vec<ToNode>) {
        self.put(|state| {
            let (mut bytes, mut dropped) = (state.passed_bytes, 0);
            passed.retain(|passed| {
                let cost = cost_of(passed);
                let fits = cost == 0 || bytes + cost <= MAX_PASSED;
                bytes += if fits { cost } else { 0 };
                dropped += u64::from(!fits);
                fits
            });
            state.passed_bytes = bytes;
            state.dropped += dropped;
            state.passed.push_back((thread, std::mem::take(passed)));
        });
    }

    fn put(&self, put: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let idle = state.is_empty();
        put(&mut state);
        drop(state);
        if idle {
            self.wake();
        }
    }

    /// Makes the file descriptor readable.
    pub fn wake(&self) {
        self.signal.raise();
    }

    /// Makes the file descriptor unreadable; call before [`Inbox::take`].
    pub(super) fn clear(&self) {
        self.signal.clear();
    }

    /// Takes everything, but frames only until they have `limit` bytes or more. What is left keeps the file descriptor
    /// readable.
    pub(super) fn take(&self, limit: usize) -> Mail {
        let mut state = self.lock();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < limit
            && let Some(next) = state.frames.pop_front()
        {
            bytes += next.cost();
            frames.push(next);
        }
        state.bytes -= bytes;
        (state.quic_bytes, state.passed_bytes) = (0, 0);
        let mail = Mail {
            frames,
            outcomes: std::mem::take(&mut state.outcomes),
            transmits: std::mem::take(&mut state.transmits),
            quic: std::mem::take(&mut state.quic),
            commands: std::mem::take(&mut state.commands),
            passed: std::mem::take(&mut state.passed),
            quic_has_room: std::mem::take(&mut state.quic_waits),
        };
        let rest = !state.frames.is_empty();
        drop(state);
        if rest {
            self.wake();
        }
        mail
    }

    /// Returns what becomes readable when something arrives.
    pub(super) const fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Returns how many batches were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    fn cost(&self) -> usize {
        self.payload.len() + BATCH_COST
    }
}

/// What something that is passed on counts for; nothing where it has to arrive and is little.
fn cost_of(passed: &ToNode) -> usize {
    match passed {
        ToNode::Packet { packet, .. } => packet.len() + BATCH_COST,
        ToNode::Frame { frame, .. } => frame.len() + BATCH_COST,
        ToNode::Control { message, .. } => message.len() + BATCH_COST,
        ToNode::Want(_) | ToNode::Report(_) | ToNode::Mark(_) | ToNode::Window(_) => 0,
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.frames.is_empty()
            && self.outcomes.is_empty()
            && self.transmits.is_empty()
            && self.quic.is_empty()
            && self.commands.is_empty()
            && self.passed.is_empty()
    }
}

#[cfg(test)]
#[cfg(not(modelled))]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn readable(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox.signal().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    fn frames(length: usize) -> Frames {
        Frames { from: NodeId([1; 32]), payload: BytesMut::zeroed(length), segment: None, marked: false }
    }

    #[test]
    fn arrival_wakes_and_taking_empties() {
        let inbox = Inbox::new().unwrap();
        assert!(!readable(&inbox));
        inbox.frames(frames(10));
        inbox.command(Command::Stop);
        assert!(readable(&inbox));
        inbox.clear();
        let mail = inbox.take(usize::MAX);
        assert_eq!((mail.frames.len(), mail.commands.len()), (1, 1));
        assert!(!readable(&inbox));
        inbox.frames(frames(10));
        assert!(readable(&inbox));
    }

    #[test]
    fn taking_a_part_leaves_the_rest_readable_and_in_order() {
        let inbox = Inbox::new().unwrap();
        for length in [10, 20, 30] {
            inbox.frames(frames(length));
        }
        inbox.command(Command::Stop);
        let lengths = |taken: Vec<Frames>| -> Vec<usize> { taken.iter().map(|f| f.payload.len()).collect() };
        inbox.clear();
        let mail = inbox.take(15 + BATCH_COST);
        assert_eq!((lengths(mail.frames), mail.commands.len()), (vec![10, 20], 1));
        assert!(readable(&inbox));
        inbox.clear();
        inbox.frames(frames(40));
        assert_eq!(lengths(inbox.take(15 + BATCH_COST).frames), [30]);
        assert!(readable(&inbox));
        inbox.clear();
        assert_eq!(lengths(inbox.take(15 + BATCH_COST).frames), [40]);
        assert!(!readable(&inbox));
        inbox.frames(frames(MAX_BYTES - BATCH_COST));
        assert_eq!(inbox.dropped(), 0);
    }

    #[test]
    fn quic_waits_for_room_and_is_told() {
        let inbox = Inbox::new().unwrap();
        let datagrams = || Datagrams {
            to: NodeId([1; 32]),
            payload: BytesMut::zeroed(MAX_QUIC / 2 - BATCH_COST),
            segment: None,
        };
        assert!(inbox.quic(datagrams()) && inbox.quic(datagrams()));
        assert!(!inbox.quic(datagrams()));
        assert!(readable(&inbox));
        inbox.clear();
        let mail = inbox.take(0);
        assert_eq!((mail.quic.len(), mail.quic_has_room), (2, true));
        assert!(inbox.quic(datagrams()) && readable(&inbox));
        assert!(!inbox.take(0).quic_has_room);
    }

    #[test]
    fn what_is_passed_on_is_bounded_but_marks_arrive() {
        let inbox = Inbox::new().unwrap();
        let frame = || ToNode::Frame {
            thread: 0,
            path: mesh_node::Path::Relay(NodeId([1; 32])),
            frame: vec![0; MAX_PASSED / 4 - BATCH_COST],
        };
        let mut passing: Vec<_> = (0..5).map(|_| frame()).chain([ToNode::Mark(9)]).collect();
        inbox.pass(3, &mut passing);
        assert!(passing.is_empty() && readable(&inbox));
        assert_eq!(inbox.dropped(), 1);
        let (thread, passed) = inbox.take(0).passed.pop_front().unwrap();
        assert_eq!((thread, passed.len()), (3, 5));
        assert!(matches!(passed[4], ToNode::Mark(9)));
        inbox.pass(3, &mut vec![frame()]);
        assert_eq!(inbox.dropped(), 1, "room again");
    }

    #[test]
    fn full_inbox_drops_and_counts() {
        let inbox = Inbox::new().unwrap();
        for _ in 0..5 {
            inbox.frames(frames(MAX_BYTES / 4 - BATCH_COST));
        }
        assert_eq!(inbox.dropped(), 1);
        assert_eq!(inbox.take(usize::MAX).frames.len(), 4);
        inbox.frames(frames(MAX_BYTES - BATCH_COST));
        assert_eq!(inbox.take(usize::MAX).frames.len(), 1);
    }
}
