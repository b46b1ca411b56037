//! What keeps the engine from its full speed: room of sockets, what the device and the way to the relay do not take.

use mesh_net::Room;
use mesh_node::Now;

use super::traffic::Traffic;
use super::{Slow, Worker};

impl Worker {
    /// Gives the UDP sockets the room that rate and length of the paths ask for, and tells once where the kernel has less.
    pub(super) fn make_room(&mut self, now: Now) {
        let Self { node, traffic, .. } = self;
        let Some(room) = traffic.ways.udp.make_room(now.instant, || node.longest_trip()) else { return };
        tracing::debug!(wanted = room.wanted, given = room.given, "the UDP sockets have more room");
        if is_short(&room) && !std::mem::replace(&mut self.room_told, true) {
            tracing::warn!(
                wanted = room.wanted,
                given = room.given,
                "the kernel gives the UDP sockets less room than this rate needs; raise net.core.rmem_max"
            );
        }
    }

    pub(super) fn slow(&self) -> Slow {
        let Traffic { device, joining, ways, .. } = &self.traffic;
        let device = device.offload();
        Slow {
            room: ways.udp.room().filter(is_short),
            single_packets: [device.tcp && !joining.tcp, device.udp && !joining.udp],
            relay_singly: ways.relay.udp_goes_singly(),
        }
    }
}

const fn is_short(room: &Room) -> bool {
    room.given < room.wanted
}
