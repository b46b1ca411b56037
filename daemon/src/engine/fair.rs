//! Packets of the device that wait to be sealed: each flow in a line of its own, peers in turn.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) over flows, whose share is divided by the number of flows of the same
//! peer, so that peers and not flows count alike; a flow that just began goes first (RFC 8290, 4.2), so that a ping or a key
//! stroke does not wait behind a transfer. When too much waits, the oldest packet of the longest line goes. A line whose
//! packets may not leave yet is put aside, so that it keeps no other.
//!
//! Pure: no clock, no device. A packet's buffer is lent by [`FairQueue::buffer`] and comes back by [`FairQueue::give_back`].

use std::collections::VecDeque;

use mesh_packet::{Class, Offload};

/// A packet with what the device said about it.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its buffer, longer than the packet.
    pub(super) buffer: Vec<u8>,
    /// Bytes of the packet.
    pub(super) length: usize,
    pub(super) offload: Offload,
}

impl Waiting {
    /// What it counts for while it waits.
    const fn cost(&self) -> usize {
        self.length + COST
    }
}

/// Lines of packets.
#[derive(Debug)]
pub(super) struct FairQueue {
    lines: Vec<Line>,
    /// Lines that just began, and the others whose turn comes; some may be empty by then.
    new: VecDeque<usize>,
    old: VecDeque<usize>,
    /// Lines whose way is full, and the bytes in them.
    aside: VecDeque<usize>,
    aside_bytes: usize,
    /// How many lines each peer has that hold packets, by a part of its number.
    peers: Vec<usize>,
    bytes: usize,
    /// Packets that had to go.
    dropped: u64,
    large: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Line {
    packets: VecDeque<Waiting>,
    /// The place of its peer's count.
    peer: usize,
    bytes: usize,
    /// Its turn comes, or it is aside.
    listed: bool,
    aside: bool,
    /// Bytes that it may still send in this round.
    deficit: usize,
}

impl FairQueue {
    pub(super) fn new() -> Self {
        Self {
            lines: std::iter::repeat_with(Line::default).take(LINES).collect(),
            new: VecDeque::with_capacity(LINES),
            old: VecDeque::with_capacity(LINES),
            aside: VecDeque::new(),
            aside_bytes: 0,
            peers: vec![0; PEERS],
            bytes: 0,
            dropped: 0,
            large: Vec::new(),
            small: Vec::new(),
        }
    }

    /// Whether nothing waits but what is aside.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == self.aside_bytes
    }

    /// How many packets had to go because too much waited.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lends a buffer for a packet of any size.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.large.pop().unwrap_or_else(|| vec![0; LARGE])
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        let (pool, most) =
            if buffer.len() >= LARGE { (&mut self.large, LARGE_POOL) } else { (&mut self.small, SMALL_POOL) };
        if pool.len() < most {
            pool.push(buffer);
        }
    }

    /// Appends a packet, and drops from the longest line what is too much. An empty packet is nothing to send.
    pub(super) fn push(&mut self, class: Class, mut packet: Waiting) {
        if packet.length == 0 {
            return self.give_back(packet.buffer);
        }
        if packet.length <= SMALL {
            // A short packet does not hold a long buffer while it waits.
            let mut small = self.small.pop().unwrap_or_else(|| vec![0; SMALL]);
            small[..packet.length].copy_from_slice(&packet.buffer[..packet.length]);
            let large = std::mem::replace(&mut packet.buffer, small);
            self.give_back(large);
        }
        let at = place(class.flow ^ class.peer.rotate_left(32), LINES);
        let line = &mut self.lines[at];
        if line.packets.is_empty() {
            line.peer = place(class.peer, PEERS);
            self.peers[line.peer] += 1;
            if !line.listed {
                (line.listed, line.deficit) = (true, QUANTUM / self.peers[line.peer]);
                self.new.push_back(at);
            }
        }
        line.bytes += packet.cost();
        self.bytes += packet.cost();
        if line.aside {
            self.aside_bytes += packet.cost();
        }
        line.packets.push_back(packet);
        while self.bytes > LIMIT {
            self.drop_one();
        }
    }

    /// Takes the next packet that may go. The line of one that may not is put aside until [`Self::bring_back`].
    pub(super) fn pop(&mut self, mut may_go: impl FnMut(&[u8]) -> bool) -> Option<Waiting> {
        loop {
            let (at, is_new) = match (self.new.front(), self.old.front()) {
                (Some(at), _) => (*at, true),
                (None, Some(at)) => (*at, false),
                (None, None) => return None,
            };
            let line = &mut self.lines[at];
            if let Some(next) = line.packets.front()
                && (line.deficit >= next.length || line.deficit >= QUANTUM)
            {
                if may_go(&next.buffer[..next.length]) {
                    line.deficit = line.deficit.saturating_sub(next.length);
                    return self.take(at);
                }
                line.aside = true;
                self.aside_bytes += line.bytes;
                self.aside.push_back(at);
            }
            if is_new {
                self.new.pop_front()
            } else {
                self.old.pop_front()
            };
            let line = &mut self.lines[at];
            if line.aside {
                continue;
            }
            // One that began and is empty waits a turn, so that it cannot go first again and again (RFC 8290, 4.2).
            if line.packets.is_empty() && !is_new {
                line.listed = false;
                continue;
            }
            line.deficit += (QUANTUM / self.peers[line.peer].max(1)).max(1);
            self.old.push_back(at);
        }
    }

    /// Lets the lines that were put aside have their turns again.
    pub(super) fn bring_back(&mut self) {
        for at in self.aside.drain(..) {
            self.lines[at].aside = false;
            self.old.push_back(at);
        }
        self.aside_bytes = 0;
    }

    fn take(&mut self, at: usize) -> Option<Waiting> {
        let line = &mut self.lines[at];
        let packet = line.packets.pop_front()?;
        line.bytes -= packet.cost();
        self.bytes -= packet.cost();
        if line.aside {
            self.aside_bytes -= packet.cost();
        }
        if line.packets.is_empty() {
            self.peers[line.peer] -= 1;
        }
        Some(packet)
    }

    fn drop_one(&mut self) {
        let listed = self.new.iter().chain(&self.old).chain(&self.aside).copied();
        let longest = listed.max_by_key(|at| self.lines[*at].bytes);
        let Some(packet) = longest.and_then(|at| self.take(at)) else { return };
        self.dropped += 1;
        self.give_back(packet.buffer);
    }
}

/// The place of a number in a table.
fn place(number: u64, of: usize) -> usize {
    usize::try_from(number % u64::try_from(of).unwrap_or(1)).unwrap_or(0)
}

/// Lines; two flows share one with a probability of a thousandth.
const LINES: usize = 1024;
/// Counts of lines; two peers with one count share as if they were one.
const PEERS: usize = 1024;
/// Bytes that a peer sends before the next one: one packet of the device at its longest.
const QUANTUM: usize = 65_536;
/// Bytes that wait at most: what leaves within 2 ms at 5 Gbit/s.
const LIMIT: usize = 1_250_000;
/// What a packet takes beside its bytes, so that many short ones are bounded too: their buffers, and the time for each.
const COST: usize = 512;
/// An IP packet or Ethernet frame of any length, with its header and tags.
const LARGE: usize = 65_536 + 64;
const LARGE_POOL: usize = 24;
/// A packet of the usual MTU.
const SMALL: usize = 2048;
const SMALL_POOL: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(queue: &mut FairQueue, peer: u64, flow: u64, length: usize, mark: u8) {
        let mut buffer = queue.buffer();
        buffer[0] = mark;
        queue.push(Class { peer, flow }, Waiting { buffer, length, offload: Offload::NONE });
    }

    fn marks(queue: &mut FairQueue, count: usize) -> Vec<u8> {
        (0..count)
            .filter_map(|_| {
                let packet = queue.pop(|_| true)?;
                let mark = packet.buffer[0];
                queue.give_back(packet.buffer);
                Some(mark)
            })
            .collect()
    }

    #[test]
    fn flow_that_begins_goes_before_a_transfer_and_order_is_kept() {
        let mut queue = FairQueue::new();
        for mark in 0..10 {
            put(&mut queue, 1, 1, 60_000, mark);
        }
        assert_eq!(marks(&mut queue, 2), [0, 1]);
        put(&mut queue, 1, 2, 84, 100);
        assert_eq!(marks(&mut queue, 20), [100, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(queue.is_empty() && queue.pop(|_| true).is_none());
        assert!(queue.peers.iter().all(|lines| *lines == 0) && queue.new.is_empty() && queue.old.is_empty());
    }

    #[test]
    fn peers_share_alike_however_many_flows_they_have() {
        let mut queue = FairQueue::new();
        for number in 0..320 {
            put(&mut queue, 1, 10 + number % 4, 1400, 1);
            put(&mut queue, 2, 1, 1400, 2);
        }
        // The first round is that of lines that begin.
        marks(&mut queue, 100);
        let sent = marks(&mut queue, 380);
        let first = sent.iter().filter(|mark| **mark == 1).count();
        assert!((150..=230).contains(&first), "{first} of 380 are of the peer with four flows");
    }

    #[test]
    fn too_much_costs_the_longest_line_its_oldest() {
        let mut queue = FairQueue::new();
        put(&mut queue, 1, 7, 100, 200);
        for mark in 0..25 {
            put(&mut queue, 2, 1, 60_000, mark);
        }
        assert!(queue.bytes <= LIMIT);
        assert_eq!(queue.dropped(), 5);
        let left = marks(&mut queue, 100);
        assert_eq!(left[0], 200);
        assert_eq!(left[1..], (5..25).collect::<Vec<u8>>());
    }

    #[test]
    fn what_may_not_go_keeps_nobody_else_and_comes_back_in_order() {
        let mut queue = FairQueue::new();
        for mark in 0..4 {
            put(&mut queue, 1, 1, 1400, mark);
            put(&mut queue, 2, 2, 1400, 100 + mark);
        }
        let mut sent = Vec::new();
        let free = |packet: &[u8]| packet[0] >= 100;
        while let Some(packet) = queue.pop(free) {
            sent.push(packet.buffer[0]);
        }
        assert_eq!(sent, [100, 101, 102, 103]);
        assert!(queue.is_empty(), "nothing that may go");
        // More of the same flow waits behind it; another one goes.
        put(&mut queue, 1, 1, 1400, 4);
        assert!(queue.is_empty() && queue.pop(free).is_none());
        put(&mut queue, 2, 2, 1400, 104);
        assert!(!queue.is_empty());
        assert_eq!(queue.pop(free).unwrap().buffer[0], 104);
        queue.bring_back();
        assert!(!queue.is_empty());
        assert_eq!(marks(&mut queue, 10), [0, 1, 2, 3, 4]);
        assert!(queue.is_empty() && queue.bytes == 0);
        assert!(queue.pop(free).is_none() && queue.lines.iter().all(|line| !line.listed && !line.aside));
    }

    #[test]
    fn what_is_aside_is_bounded_and_makes_room_for_others() {
        let mut queue = FairQueue::new();
        for mark in 0..10 {
            put(&mut queue, 1, 1, 60_000, mark);
        }
        assert!(queue.pop(|_| false).is_none());
        for _ in 0..1000 {
            put(&mut queue, 1, 1, 60_000, 9);
        }
        assert!(queue.bytes <= LIMIT);
        assert_eq!(queue.aside_bytes, queue.bytes);
        put(&mut queue, 2, 2, 84, 100);
        assert_eq!(queue.pop(|packet| packet[0] == 100).unwrap().buffer[0], 100);
        queue.bring_back();
        assert_eq!(marks(&mut queue, 1000).len(), 20);
        assert_eq!((queue.bytes, queue.aside_bytes), (0, 0));
    }

    #[test]
    fn buffers_come_back() {
        let mut queue = FairQueue::new();
        for round in 0..100 {
            for _ in 0..10 {
                put(&mut queue, 1, round, 100, 0);
                put(&mut queue, 1, round, 5000, 0);
            }
            marks(&mut queue, 20);
        }
        assert!(queue.large.len() <= LARGE_POOL && queue.small.len() <= SMALL_POOL);
        assert!(queue.large.len() <= 11 && queue.small.len() <= 10, "no more than waited at once");
        put(&mut queue, 1, 1, 0, 0);
        assert!(queue.is_empty());
    }
}
