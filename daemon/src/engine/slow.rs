//! What keeps the engine from its full speed: room of sockets, what the device and the way to the relay do not take.

use std::time::{Duration, Instant};

use mesh_net::Rooms;

use super::traffic::Traffic;
use super::{Slow, Worker};

impl Traffic {
    /// Gives the UDP sockets the room that rate and length of the paths ask for; returns it when it became more, and tells once
    /// where the kernel has less.
    pub(super) fn make_room(
        &mut self,
        now: Instant,
        trip: impl FnOnce() -> Option<Duration>,
    ) -> Option<Rooms> {
        let rooms = self.ways.udp.make_room(now, trip)?;
        let Rooms { receive, send } = rooms;
        tracing::debug!(receive = receive.given, send = send.given, "the UDP sockets have more room");
        let short = receive.missing() > 0 || send.missing() > 0;
        if short && !std::mem::replace(&mut self.room_told, true) {
            tracing::warn!(
                receive = receive.given,
                receive_wanted = receive.wanted,
                send = send.given,
                send_wanted = send.wanted,
                "the kernel gives the UDP sockets less room than this rate needs; raise net.core.rmem_max and wmem_max"
            );
        }
        Some(rooms)
    }
}

impl Worker {
    pub(super) fn slow(&self) -> Slow {
        let Traffic { device, joining, ways, .. } = &self.traffic;
        let device = device.offload();
        Slow {
            rooms: ways.udp.rooms().into_iter().chain(self.crew.rooms()).reduce(Rooms::worse),
            single_packets: [device.tcp && !joining.tcp, device.udp && !joining.udp],
            relay_singly: ways.relay.udp_goes_singly(),
        }
    }
}
