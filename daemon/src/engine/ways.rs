//! What leaves: through the clients of the relays or the UDP sockets.

use std::collections::BTreeSet;

use bytes::BytesMut;
use mesh_net::{SendError, UdpSendError, UdpSockets};
use mesh_node::{BATCH, By, Path, Transmit, TxQueue};
use mesh_wire::NodeId;

use super::EngineDrops;
use crate::relays::pool::RelayPool;

/// The ways out, and what is dropped on them.
pub(super) struct Ways {
    pub(super) relay: RelayPool,
    /// Peers that the relays were asked for; each client asks again by itself after a reconnect.
    pub(super) bound: BTreeSet<NodeId>,
    pub(super) udp: UdpSockets,
    /// The bits of a packet's traffic class that its datagram repeats.
    pub(super) classes: u8,
    pub(super) drops: EngineDrops,
}

impl Ways {
    /// Sends a message on its path; what a way does not take is dropped and counted.
    pub(super) fn carry(
        &mut self,
        Transmit { to, payload, segment, class, single, by }: Transmit,
        tx: &mut TxQueue,
    ) {
        match to {
            Path::Relay(node) => match self.through_relay(node, fitted(payload, tx), (segment, class)) {
                Ok(()) => {}
                Err(SendError::QueueFull) => self.drops.relay_queue_full += 1,
                Err(SendError::Unbound | SendError::Down | SendError::Size) => self.drops.relay_down += 1,
            },
            Path::Udp(address) if by != By::Usual => {
                let sent = match by {
                    By::Usual => self.udp.send(address, &payload, None, 0),
                    By::Extra(number) => self.udp.send_extra(number, address, &payload),
                    By::Hops(hops) => self.udp.send_near(address, &payload, hops),
                };
                self.count(sent);
                tx.recycle(payload);
            }
            Path::Udp(address) => {
                let class = class & self.classes;
                let at_once = segment.filter(|_| single).map_or(payload.len(), usize::from);
                for datagrams in payload.chunks(at_once.max(1)) {
                    let sent = self.udp.send(address, datagrams, segment.filter(|_| !single), class);
                    self.count(sent);
                }
                tx.recycle(payload);
            }
        }
    }

    fn count(&mut self, sent: Result<(), UdpSendError>) {
        if let Err(error) = sent {
            self.drops.udp += 1;
            tracing::trace!(%error, "a datagram was not sent");
        }
    }

    /// Sends through the relay; a peer that the relay was not asked for yet is asked for first.
    fn through_relay(
        &mut self,
        to: NodeId,
        payload: BytesMut,
        (segment, class): (Option<u16>, u8),
    ) -> Result<(), SendError> {
        if self.bound.insert(to) && self.relay.bind(to).is_err() {
            self.bound.remove(&to);
            return Err(SendError::QueueFull);
        }
        self.relay.send(to, payload, segment, class & self.classes)
    }
}

/// A buffer that is about as large as what it holds: the relay client keeps it for a while.
fn fitted(payload: BytesMut, tx: &mut TxQueue) -> BytesMut {
    if payload.len() > BATCH / 4 || payload.capacity() < BATCH {
        return payload;
    }
    let small = BytesMut::from(&*payload);
    tx.recycle(payload);
    small
}
