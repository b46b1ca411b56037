//! What waits for a worker thread: what the engine's first thread tells it, and frames of its lanes that came elsewhere.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;

use mesh_node::{News, Path};

use super::sync::{Mutex, MutexGuard, Signal};

/// Bytes of frames that wait, at most; beyond it the newest are dropped and counted.
const MAX_BYTES: usize = 1024 * 1024;
/// What a frame takes beside its bytes, roughly.
const FRAME_COST: usize = 64;

/// A queue with a file descriptor that becomes readable when something arrives. Its lock is taken when there is
/// something, not per packet.
#[derive(Debug)]
pub(super) struct Post {
    state: Mutex<State>,
    signal: Signal,
}

/// One thing for a worker.
#[derive(Debug)]
pub(super) enum Mail {
    /// What the node tells.
    News(News),
    /// A frame that came to another thread.
    Frame(Path, Vec<u8>),
    /// A mark comes back.
    Mark(u64),
    /// End.
    Stop,
}

#[derive(Debug, Default)]
struct State {
    mail: VecDeque<Mail>,
    bytes: usize,
    dropped: u64,
}

impl Post {
    /// Makes an empty one.
    ///
    /// # Errors
    /// When the kernel gives out no more file descriptors.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), signal: Signal::new()? })
    }

    /// Appends something. Frames are dropped and counted when too many wait; all else is little, and finds room.
    pub(super) fn put(&self, mail: Mail) {
        let mut state = self.lock();
        if state.bytes + mail.cost() > MAX_BYTES {
            state.dropped += 1;
            return;
        }
        let idle = state.mail.is_empty();
        state.bytes += mail.cost();
        state.mail.push_back(mail);
        drop(state);
        if idle {
            self.signal.raise();
        }
    }

    /// Takes everything, in the order in which it came.
    pub(super) fn take(&self) -> VecDeque<Mail> {
        self.signal.clear();
        let mut state = self.lock();
        state.bytes = 0;
        std::mem::take(&mut state.mail)
    }

    /// Returns what is readable while something waits.
    pub(super) const fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Returns how many frames were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn cost(&self) -> usize {
        match self {
            Self::Frame(_, frame) => frame.len() + FRAME_COST,
            Self::News(_) | Self::Mark(_) | Self::Stop => 0,
        }
    }
}

#[cfg(test)]
#[cfg(not(modelled))]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn readable(post: &Post) -> bool {
        let mut fds = [PollFd::new(post.signal().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    fn frame(length: usize) -> Mail {
        Mail::Frame(Path::Udp("192.0.2.1:1".parse().unwrap()), vec![0; length])
    }

    #[test]
    fn arrival_wakes_and_taking_empties() {
        let post = Post::new().unwrap();
        assert!(!readable(&post));
        post.put(frame(1));
        post.put(Mail::Mark(7));
        assert!(readable(&post));
        let mail = post.take();
        assert!(matches!(mail[0], Mail::Frame(..)) && matches!(mail[1], Mail::Mark(7)));
        assert!(!readable(&post) && post.take().is_empty());
    }

    #[test]
    fn frames_are_bounded_and_marks_find_room() {
        let post = Post::new().unwrap();
        for _ in 0..5 {
            post.put(frame(MAX_BYTES / 4 - FRAME_COST));
        }
        post.put(Mail::Mark(1));
        assert_eq!((post.dropped(), post.take().len()), (1, 5));
        post.put(frame(MAX_BYTES - FRAME_COST));
        assert_eq!(post.dropped(), 1);
    }
}
