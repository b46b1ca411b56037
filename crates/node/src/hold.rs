//! Keeps packets in order when they leave the relay: the direct path is shorter, and what takes it would overtake what is
//! still on its way. Many packets out of order look like a loss to TCP, which sends them again and slows down.
//!
//! Behind the last packet over the relay goes a ping, over the relay as well. What is to be sent to the peer from then on waits
//! until that is answered, for [`LONGEST`] at most: all before it has arrived then. The answer takes whatever path the peer has.
//!
//! Invariants: nothing is dropped here; where more comes than may wait, what waits leaves at once, and order is not kept.

use std::time::{Duration, Instant};

use mesh_packet::Offload;
use mesh_wire::control::Control;

use crate::node::{Node, Now, Slot};
use crate::path::Path;
use crate::tx::TxQueue;

/// Packets that wait for those before them.
#[derive(Debug)]
pub(crate) struct Held {
    /// The id of the ping behind those.
    ping: u64,
    /// They wait no longer than this.
    pub(crate) until: Instant,
    /// Each with the thread that it came from and what is left to be done for it.
    packets: Vec<(u16, Offload, Vec<u8>)>,
    bytes: usize,
}

impl Node {
    /// Begins to hold packets back, if the path of a peer has just left the relay and some are likely to be on their way
    /// over it.
    pub(crate) fn begin_hold(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) {
        let peer = &self.peers[slot.0];
        let relay = Path::Relay(peer.id);
        let left = peer.paths.last_change().is_some_and(|change| change.from == relay);
        let lately = peer.relayed.is_some_and(|at| now.saturating_duration_since(at) < LONGEST);
        let others = self.peers.iter().filter(|peer| peer.held.is_some()).count();
        if !left || !lately || peer.held.is_some() || others == PEERS {
            return;
        }
        let Some(at) = peer.settled() else { return };
        let number = peer.sessions[at].number.get();
        let ping = self.random_u64();
        if self.send_control_over(now, slot, number, relay, &Control::Ping(ping), tx) {
            let until = now + LONGEST;
            self.peers[slot.0].held = Some(Held { ping, until, packets: Vec::new(), bytes: 0 });
            self.arm(slot, until);
        }
    }

    /// Takes a packet that is to wait; false when it is to be sent.
    pub(crate) fn hold_back(
        &mut self,
        now: Now,
        slot: Slot,
        (packet, offload): (&[u8], &Offload),
        tx: &mut TxQueue,
    ) -> bool {
        let origin = self.sharing.origin;
        let Some(held) = &mut self.peers[slot.0].held else { return false };
        if held.bytes + packet.len() > BYTES {
            self.let_go(now, slot, tx);
            return false;
        }
        held.bytes += packet.len();
        held.packets.push((origin, *offload, packet.to_vec()));
        true
    }

    /// A ping of this id was answered.
    pub(crate) fn hold_answered(&mut self, now: Now, slot: Slot, id: u64, tx: &mut TxQueue) {
        if self.peers[slot.0].held.as_ref().is_some_and(|held| held.ping == id) {
            self.let_go(now, slot, tx);
        }
    }

    /// Lets go what has waited for long enough.
    pub(crate) fn hold_timeout(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        if self.peers[slot.0].held.as_ref().is_some_and(|held| held.until <= now.instant) {
            self.let_go(now, slot, tx);
        }
    }

    fn let_go(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        let Some(held) = self.peers[slot.0].held.take() else { return };
        for (lane, offload, packet) in held.packets {
            let origin = std::mem::replace(&mut self.sharing.origin, lane);
            self.send_packet(now, slot, &packet, &offload, tx);
            self.sharing.origin = origin;
        }
        self.unsettle(slot);
    }
}

/// Longer than a relay takes one way, and short of what TCP waits before it sends again (200 ms and more).
const LONGEST: Duration = Duration::from_millis(100);
/// Bytes of packets that wait for one peer: 40 Mbit/s for [`LONGEST`].
const BYTES: usize = 512 * 1024;
/// Peers for which packets wait at a time.
const PEERS: usize = 16;
