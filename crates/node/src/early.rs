//! Frames that came before their session: the keys may still be on their way from another thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::path::Path;

/// Frames that wait, at most; of more the oldest are dropped: what a sender's queue for a new session may hold.
const FRAMES: usize = 256;
/// Bytes that wait, at most.
const BYTES: usize = 384 * 1024;
/// Keys that take longer do not come.
const AGE: Duration = Duration::from_secs(2);

/// When it came, for which number, over which path, and its bytes.
type Frame = (Instant, u32, Path, Vec<u8>);

/// A bounded store of frames whose session number is given out and has no session yet.
#[derive(Debug, Default)]
pub(crate) struct Early {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Early {
    /// Keeps a frame and returns how many older ones had to go.
    pub(crate) fn put(&mut self, now: Instant, number: u32, from: Path, frame: &[u8]) -> usize {
        let before = self.frames.len();
        while self.frames.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= AGE)
            || self.frames.len() >= FRAMES
            || (self.bytes + frame.len() > BYTES && !self.frames.is_empty())
        {
            self.pop();
        }
        let dropped = before - self.frames.len();
        self.bytes += frame.len();
        self.frames.push_back((now, number, from, frame.to_vec()));
        dropped
    }

    /// Takes the frames of a number, in the order in which they came.
    pub(crate) fn take(&mut self, number: u32) -> Vec<(Path, Vec<u8>)> {
        let mut taken = Vec::new();
        self.frames.retain_mut(|(_, of, from, frame)| {
            let keep = *of != number;
            if !keep {
                taken.push((*from, std::mem::take(frame)));
            }
            keep
        });
        self.bytes -= taken.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        taken
    }

    fn pop(&mut self) {
        if let Some((.., frame)) = self.frames.pop_front() {
            self.bytes -= frame.len();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use mesh_wire::NodeId;

    use super::*;

    const FROM: Path = Path::Relay(NodeId([1; 32]));

    #[test]
    fn frames_come_back_in_order_and_once() {
        let (mut early, now) = (Early::default(), Instant::now());
        for (number, frame) in [(1, b"a"), (2, b"b"), (1, b"c")] {
            assert_eq!(early.put(now, number, FROM, frame), 0);
        }
        assert_eq!(early.take(1), [(FROM, b"a".to_vec()), (FROM, b"c".to_vec())]);
        assert!(early.take(1).is_empty());
        assert_eq!(early.take(2), [(FROM, b"b".to_vec())]);
        assert_eq!(early.bytes, 0);
    }

    #[test]
    fn store_is_bounded_in_count_bytes_and_time() {
        let (mut early, now) = (Early::default(), Instant::now());
        for _ in 0..FRAMES {
            assert_eq!(early.put(now, 1, FROM, b"frame"), 0);
        }
        assert_eq!(early.put(now, 1, FROM, b"frame"), 1);
        assert!(early.put(now, 2, FROM, &vec![0; BYTES]) >= FRAMES);
        assert!(early.take(1).is_empty());
        assert_eq!(early.put(now + AGE, 3, FROM, b"later"), 1);
        assert_eq!(early.take(3).len(), 1);
    }
}
