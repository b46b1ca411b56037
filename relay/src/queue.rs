//! What waits to be written to one client. Pure: the time is an argument.
//!
//! Control messages first (64 KiB, the newest is dropped), then the roster (a slot for the latest), then data (256 KiB
//! and 50 ms of a standing queue, the oldest is dropped, long ones first) in turns over the sources, so that no sender crowds
//! out another, and a transfer costs few of the short messages beside it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_wire::relay::{ErrorCode, RelayMessage};

/// The two queues and the roster slot of one client.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    control: VecDeque<Bytes>,
    control_bytes: usize,
    overflowed: bool,
    roster: Option<Bytes>,
    sources: HashMap<u32, Source>,
    /// Sources that have something to send, the next one in front.
    turns: VecDeque<u32>,
    data_bytes: usize,
    closing: bool,
}

#[derive(Debug, Default)]
struct Source {
    messages: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// Bytes that the source may still send in this turn.
    credit: usize,
}

/// What to write next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A message.
    Message(Bytes),
    /// Nothing for the moment.
    Nothing,
    /// Nothing any more: close.
    Close,
}

/// How many messages were dropped, and why.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// The data queue was full.
    pub(crate) full: u64,
    /// They had waited too long.
    pub(crate) aged: u64,
}

impl Queue {
    /// Queues a control message. Returns whether there was room.
    pub(crate) fn push_control(&mut self, message: Bytes) -> bool {
        if self.closing {
            return false;
        }
        if self.control_bytes + message.len() > CONTROL_BYTES {
            self.overflowed = true;
            return false;
        }
        self.control_bytes += message.len();
        self.control.push_back(message);
        true
    }

    /// Tells whether half of the room for control messages is taken.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.control_bytes > CONTROL_BYTES / 2
    }

    /// Puts the roster message to send; it replaces one that waits.
    pub(crate) fn set_roster(&mut self, message: Bytes) {
        self.roster = Some(message);
    }

    /// Queues a data message of a source; older ones of the source with most bytes make room.
    pub(crate) fn push_data(&mut self, source: u32, message: Bytes, now: Instant) -> Dropped {
        let mut dropped = Dropped::default();
        if self.closing || message.len() > DATA_BYTES {
            dropped.full = 1;
            return dropped;
        }
        while self.data_bytes + message.len() > DATA_BYTES {
            self.drop_oldest_of_longest();
            dropped.full += 1;
        }
        let entry = self.sources.entry(source).or_default();
        if entry.messages.is_empty() {
            entry.credit = TURN;
            self.turns.push_back(source);
        }
        entry.bytes += message.len();
        self.data_bytes += message.len();
        entry.messages.push_back((now, message));
        dropped
    }

    /// Lets no more in; what is queued as control is still written, data is dropped.
    pub(crate) fn close(&mut self, farewell: Option<Bytes>) {
        if !self.closing {
            self.closing = true;
            self.sources.clear();
            self.turns.clear();
            self.data_bytes = 0;
            self.roster = None;
            self.control.extend(farewell);
        }
    }

    /// Takes what to write next; drops data that is too old on the way.
    pub(crate) fn pop(&mut self, now: Instant, dropped: &mut Dropped) -> Next {
        if let Some(message) = self.control.pop_front() {
            self.control_bytes = self.control_bytes.saturating_sub(message.len());
            return Next::Message(message);
        }
        if self.closing {
            return Next::Close;
        }
        if std::mem::take(&mut self.overflowed) {
            let text = "control messages were dropped because this client reads too slowly";
            let error = RelayMessage::Error { code: ErrorCode::ControlOverflow, text };
            return Next::Message(error.encode().into());
        }
        if let Some(roster) = self.roster.take() {
            return Next::Message(roster);
        }
        self.pop_data(now, dropped).map_or(Next::Nothing, Next::Message)
    }

    fn pop_data(&mut self, now: Instant, dropped: &mut Dropped) -> Option<Bytes> {
        loop {
            let id = *self.turns.front()?;
            let source = self.sources.get_mut(&id)?;
            // The newest message of a source always goes out: a reader that stalls now and then still gets something.
            while source.messages.len() > 1
                && source
                    .messages
                    .front()
                    .is_some_and(|(at, _)| now.saturating_duration_since(*at) > source.patience())
            {
                self.data_bytes -= source.pop().map_or(0, |message| message.len());
                dropped.aged += 1;
            }
            if source.credit == 0 {
                source.credit = TURN;
                self.turns.rotate_left(1);
                continue;
            }
            let message = source.pop()?;
            source.credit = source.credit.saturating_sub(message.len());
            self.data_bytes -= message.len();
            if source.messages.is_empty() {
                self.turns.pop_front();
                self.sources.remove(&id);
            }
            return Some(message);
        }
    }

    fn drop_oldest_of_longest(&mut self) {
        let Some((&id, source)) = self.sources.iter_mut().max_by_key(|(id, source)| (source.bytes, **id))
        else {
            return;
        };
        self.data_bytes -= source.drop_one().map_or(0, |message| message.len());
        if source.messages.is_empty() {
            self.sources.remove(&id);
            self.turns.retain(|turn| *turn != id);
        }
    }
}

impl Source {
    /// How long its data may wait.
    fn patience(&self) -> Duration {
        if self.bytes > SMALL { MAX_AGE } else { MAX_PAUSE }
    }

    /// Takes the oldest long message out, or the oldest one where none of the first is long.
    fn drop_one(&mut self) -> Option<Bytes> {
        let long = self.messages.iter().take(LOOK).position(|(_, message)| message.len() >= LONG);
        let (_, message) = self.messages.remove(long.unwrap_or(0))?;
        self.bytes -= message.len();
        Some(message)
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (_, message) = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

/// Control messages that wait at most; beyond it the newest is dropped and the client told.
const CONTROL_BYTES: usize = 64 * 1024;
/// Data that waits at most; beyond it the oldest is dropped.
const DATA_BYTES: usize = 256 * 1024;
/// A message of a transfer: to drop it makes room for many short ones.
const LONG: usize = 4096;
/// Messages that are looked at for a long one.
const LOOK: usize = 32;
/// How long data waits in a standing queue: more delay than this harms the flows inside more than a loss does.
const MAX_AGE: Duration = Duration::from_millis(50);
/// A source with no more than this waiting has no standing queue: its data waits out a pause of the client or of a busy
/// machine, and then goes out at once.
const SMALL: usize = 32 * 1024;
/// Longer than this no data waits.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Bytes that a source sends before the next one gets its turn: one full batch.
const TURN: usize = 64 * 1024;

#[cfg(test)]
#[cfg(not(modelled))]
mod tests;
