//! What is remembered of a change of path.

use std::time::Instant;

use crate::path::Path;

/// Frames took another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) from: Path,
    pub(crate) to: Path,
    pub(crate) reason: ChangeReason,
}

/// Why frames took another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeReason {
    /// A direct path was proved.
    Found,
    /// A better direct path was proved.
    Better,
    /// Nothing was answered over the path before.
    Silent,
    /// The path before carries short frames only.
    ShortOnly,
    /// The relay does not reach the peer any more.
    RelayLost,
    /// A handshake came through over this path.
    Handshake,
    /// The sessions over the path before ended, or the peer was started anew.
    Ended,
}
