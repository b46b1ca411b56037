//! The second leg of every key: the exporter of the QUIC connection with a peer, mixed into the session's chain.
//!
//! Both sides derive the session that follows by themselves, under the numbers that they named in the handshake; no
//! message is needed. Who is ready first may send packets at once: the other side keeps early frames. What makes the
//! exporter, and all that is not a packet, goes under the session before until the peer was heard under the new one.

use std::time::Instant;

use mesh_wire::NodeId;
use mesh_wire::control::Control;
use zeroize::Zeroizing;

use crate::node::{Node, Now, Slot};
use crate::tx::TxQueue;

impl Node {
    /// Mixes the exporter of the QUIC connection with `peer` into the session with this id; nothing happens when there
    /// is no such session or it was mixed before. Poll for transmits, packets and events afterwards.
    pub fn mix(
        &mut self,
        now: Now,
        peer: NodeId,
        session: [u8; 16],
        exporter: &Zeroizing<[u8; 64]>,
        tx: &mut TxQueue,
    ) {
        let Some(slot) = self.by_id.get(&peer).copied() else { return };
        let sessions = &mut self.peers[slot.0].sessions;
        let Some(live) = sessions.iter_mut().find(|live| live.session.id() == session) else { return };
        let Some(mixing) = live.mixing.take() else { return };
        let Ok(next) = live.session.mix(exporter, mixing.number.get(), mixing.remote) else { return };
        let number = mixing.number.get();
        let mut next = live.followed_by(next, mixing.number, now.instant, true);
        (next.mixed, next.heard) = (true, false);
        self.push_session(now, slot, next);
        let ping = self.random_u64();
        self.peers[slot.0].pinged(ping, now.instant);
        self.send_control_under(now.instant, slot, number, &Control::Ping(ping), tx);
        self.flush_queue(now, slot, tx);
        self.replay_early(now, number, tx);
    }

    /// Returns the session that user packets go under: a mixed one, where the node holds them until then, and not one
    /// whose keys the peer may drop while the packet is on its way.
    pub(crate) fn data_session(&self, now: Instant, slot: Slot) -> Option<usize> {
        let (hold, stale) = (self.config.hold_until_mixed, self.config.timings.stale());
        self.peers[slot.0]
            .best(|live| (live.mixed || !hold) && now.saturating_duration_since(live.established) < stale)
    }
}
