//! What workers did, as the node hears of it: many packets at a time.

use std::net::SocketAddr;

use mesh_wire::NodeId;

use crate::counters::Counters;
use crate::node::{Node, Now, Slot};
use crate::path::Path;
use crate::peer::Traffic;
use crate::tx::TxQueue;

/// What a worker did since its last report.
#[derive(Debug)]
pub struct Report {
    pub(crate) entries: Vec<Entry>,
    pub(crate) drops: Counters,
}

/// The same under one session.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) peer: NodeId,
    pub(crate) number: u32,
    pub(crate) activity: Activity,
}

/// What went under a session through one thread.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    traffic: Traffic,
    /// It is to be reported.
    dirty: bool,
    sent: bool,
    /// Long frames were among those sent.
    long: bool,
    /// The last thing was a frame that was sent.
    sent_last: bool,
    /// Frames came over the path in use.
    heard: Option<Path>,
    /// A frame came over another one.
    elsewhere: Option<Path>,
    /// Frames with data came.
    received: bool,
    /// Frames that the lane has sealed.
    sealed: u64,
}

impl Activity {
    /// Notes a packet that was sealed; true where nothing was noted before.
    pub(crate) fn sent(&mut self, frames: u64, bytes: usize, long: bool, sealed: u64) -> bool {
        self.traffic.tx_packets += frames;
        self.traffic.tx_bytes += u64::try_from(bytes).unwrap_or(0);
        (self.sent, self.sent_last, self.sealed) = (true, true, sealed);
        self.long |= long;
        !std::mem::replace(&mut self.dirty, true)
    }

    /// Notes a frame that opened, and whether it came over the path in use; true where nothing was noted before.
    pub(crate) fn heard(&mut self, path: Path, current: Option<Path>) -> bool {
        self.sent_last = false;
        if Some(path) == current {
            self.heard = Some(path);
        } else {
            self.elsewhere = Some(path);
        }
        !std::mem::replace(&mut self.dirty, true)
    }

    /// Notes a packet in a frame that opened.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.traffic.rx_packets += 1;
        self.traffic.rx_bytes += u64::try_from(bytes).unwrap_or(0);
        self.received = true;
    }
}

impl Node {
    /// Takes what a worker did. Poll for transmits, orders, events and the timeout afterwards.
    pub fn handle_report(&mut self, now: Now, report: Report, tx: &mut TxQueue) {
        self.counters = self.counters.plus(&report.drops);
        for Entry { peer, number, activity } in report.entries {
            let Some(slot) = self.by_id.get(&peer).copied() else { continue };
            self.peers[slot.0].traffic.add(activity.traffic);
            // First, since keys that the peer was heard under are in no doubt when something is sent under them.
            self.note_heard(now, slot, number, &activity, tx);
            if activity.sent {
                self.note_sent(now, slot, number, &activity, tx);
                if !activity.sent_last {
                    // What was sent has been answered.
                    self.note_heard(now, slot, number, &activity, tx);
                }
            }
        }
    }

    fn note_heard(&mut self, now: Now, slot: Slot, number: u32, activity: &Activity, tx: &mut TxQueue) {
        for path in [activity.elsewhere, activity.heard].into_iter().flatten() {
            self.lives(now, (slot, number), path, tx);
        }
        if activity.received {
            self.peers[slot.0].packets_under = Some(number);
            self.received_data(now, slot);
        }
    }

    fn note_sent(&mut self, now: Now, slot: Slot, number: u32, activity: &Activity, tx: &mut TxQueue) {
        let peer = &mut self.peers[slot.0];
        let Some(at) = peer.position(number) else { return };
        peer.silent_since = None;
        let live = &mut peer.sessions[at];
        live.last_used = now.instant;
        live.lanes_sealed = live.lanes_sealed.max(activity.sealed);
        self.sent_data(now, slot, at, activity.long, tx);
    }
}

/// The address of a direct path.
pub(crate) const fn direct(path: Path) -> Option<SocketAddr> {
    match path {
        Path::Udp(address) => Some(address),
        Path::Relay(_) => None,
    }
}
