//! What waits for the engine: frames from the relay client, commands from the daemon.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use mesh_wire::NodeId;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Command;

/// Bytes of frames that wait, at most; beyond it the newest are dropped and counted: about as much as the engine handles
/// in 10 ms.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a batch takes beside its payload, roughly, so that many small ones are bounded too.
const BATCH_COST: usize = 128;

/// Commands that wait, at most; beyond it new ones are dropped, and with them the sender of their answer.
const MAX_COMMANDS: usize = 8192;

/// A bounded queue with a file descriptor that becomes readable when something arrives. Its lock is taken once per
/// batch, not per packet.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    event: EventFd,
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
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frames>,
    bytes: usize,
    commands: VecDeque<Command>,
    dropped: u64,
}

impl Inbox {
    /// Makes an empty inbox.
    ///
    /// # Errors
    /// When the kernel gives out no more file descriptors.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { state: Mutex::default(), event })
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

    /// Makes the file descriptor readable.
    pub fn wake(&self) {
        // Failing means that it is readable already.
        let _ = self.event.write(1);
    }

    /// Makes the file descriptor unreadable; call before [`Inbox::take`].
    pub(super) fn clear(&self) {
        let _ = self.event.read();
    }

    /// Takes all commands, and frames until they have `limit` bytes or more. What is left keeps the file descriptor
    /// readable.
    pub(super) fn take(&self, limit: usize) -> (Vec<Frames>, VecDeque<Command>) {
        let mut state = self.lock();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < limit
            && let Some(next) = state.frames.pop_front()
        {
            bytes += next.cost();
            frames.push(next);
        }
        state.bytes -= bytes;
        let commands = std::mem::take(&mut state.commands);
        let rest = !state.frames.is_empty();
        drop(state);
        if rest {
            self.wake();
        }
        (frames, commands)
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

impl State {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.commands.is_empty()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn readable(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    fn frames(length: usize) -> Frames {
        Frames { from: NodeId([1; 32]), payload: BytesMut::zeroed(length), segment: None }
    }

    #[test]
    fn arrival_wakes_and_taking_empties() {
        let inbox = Inbox::new().unwrap();
        assert!(!readable(&inbox));
        inbox.frames(frames(10));
        inbox.command(Command::Stop);
        assert!(readable(&inbox));
        inbox.clear();
        let (taken, commands) = inbox.take(usize::MAX);
        assert_eq!((taken.len(), commands.len()), (1, 1));
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
        let (taken, commands) = inbox.take(15 + BATCH_COST);
        assert_eq!((lengths(taken), commands.len()), (vec![10, 20], 1));
        assert!(readable(&inbox));
        inbox.clear();
        inbox.frames(frames(40));
        assert_eq!(lengths(inbox.take(15 + BATCH_COST).0), [30]);
        assert!(readable(&inbox));
        inbox.clear();
        assert_eq!(lengths(inbox.take(15 + BATCH_COST).0), [40]);
        assert!(!readable(&inbox));
        inbox.frames(frames(MAX_BYTES - BATCH_COST));
        assert_eq!(inbox.dropped(), 0);
    }

    #[test]
    fn full_inbox_drops_and_counts() {
        let inbox = Inbox::new().unwrap();
        for _ in 0..5 {
            inbox.frames(frames(MAX_BYTES / 4 - BATCH_COST));
        }
        assert_eq!(inbox.dropped(), 1);
        assert_eq!(inbox.take(usize::MAX).0.len(), 4);
        inbox.frames(frames(MAX_BYTES - BATCH_COST));
        assert_eq!(inbox.take(usize::MAX).0.len(), 1);
    }
}
