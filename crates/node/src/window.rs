//! What a worker passed on to the node: whether something may still be on its way there ([`Passing`]), and how much it passes on
//! before it waits until that has left ([`Window`]): one window for what the relay carries from there, and one for all else, so that
//! a relay that takes nothing holds nobody else's.

/// Bytes of packets that are passed on before the worker waits.
pub(crate) const WINDOW: usize = 128 * 1024;

/// What may be on its way from a worker to the node, and from there over one kind of path.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Bytes passed on since the last mark.
    passed: usize,
    /// Full until this mark is back.
    until: Option<u64>,
}

impl Window {
    /// Counts a packet of so many bytes; true when a mark is to follow it.
    pub(crate) fn pass(&mut self, bytes: usize) -> bool {
        self.passed += bytes.max(1);
        self.passed >= WINDOW
    }

    /// Notes the mark that followed; with it the window opens again.
    pub(crate) const fn close(&mut self, mark: u64) {
        (self.passed, self.until) = (0, Some(mark));
    }

    /// Takes a mark that came back. Marks of the two windows come back in any order, so that no other one opens this.
    pub(crate) fn back(&mut self, mark: u64) {
        self.until = self.until.filter(|until| *until != mark);
    }

    /// Whether no more is to be passed on.
    pub(crate) const fn is_full(&self) -> bool {
        self.until.is_some()
    }
}

/// What was passed to the node and may still be on its way there.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// Bytes since the last mark.
    pub(crate) since: usize,
    /// The mark behind all before that.
    behind: Option<u64>,
    /// Nothing more is taken until this mark is back.
    pub(crate) held: Option<u64>,
}

impl Passing {
    /// Tells whether something may still be on its way.
    pub(crate) const fn is_open(&self) -> bool {
        self.since > 0 || self.behind.is_some()
    }

    pub(crate) const fn marked(&mut self, mark: u64) {
        if self.is_open() {
            (self.since, self.behind) = (0, Some(mark));
        }
    }

    pub(crate) fn back(&mut self, mark: u64) {
        self.behind = self.behind.filter(|behind| *behind > mark);
        self.held = self.held.filter(|held| *held > mark);
    }
}
