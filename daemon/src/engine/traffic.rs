//! A packet's two ways through a thread of the engine: from the device to a path, and from a path to the device.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_net::{MAX_BATCH, QuicEndpoint};
use mesh_node::{Delivery, Handshaker, LateDelivery, Node, Now, Path, TxQueue};
use mesh_packet::{Class, Ecn, Offload};
use mesh_tun::DeviceIo;
use mesh_wire::frame::SEALED;
use mesh_wire::stun::is_stun;

use super::Worker;
use super::backlog::Backlog;
use super::fair::{FairQueue, Waiting};
use super::inbox::Frames;
use super::ways::Ways;
use super::writer::{Joining, Writer};

/// Packets read from the device at a time.
const BATCH: usize = 64;
/// Bytes of packets sent between two looks at the inbox and the sockets, so that neither direction starves the other.
const SEND: usize = 128 * 1024;
/// Buffers of what is no frame that are taken in a turn with other work: in a flood of them, the kernel drops the rest for
/// less than taking them costs.
const FEW_OTHERS: usize = 8;
/// A packet that takes so long to seal that others may have come meanwhile.
const LONG: usize = 4096;

/// What seals packets and opens frames on a thread.
pub(super) trait Machine {
    /// Sends a packet of the device.
    fn packet(&mut self, now: Now, packet: &[u8], offload: &Offload, tx: &mut TxQueue);
    /// Takes a frame and returns what it brings.
    fn frame<'a>(
        &mut self,
        now: Now,
        path: Path,
        frame: &'a mut [u8],
        tx: &mut TxQueue,
    ) -> Option<Delivery<'a>>;
    /// Tells once whether something came since the last call that answers, or asks for an answer, on the way that it came.
    fn take_proof(&mut self) -> bool;
    /// Bytes in front of the IP header of a packet.
    fn network(&self, packet: &[u8]) -> Option<usize>;
    /// Whether a packet is for a peer that is reached over the relay.
    fn goes_by_relay(&self, now: Now, packet: &[u8]) -> bool;
}

impl Machine for Node {
    fn packet(&mut self, now: Now, packet: &[u8], offload: &Offload, tx: &mut TxQueue) {
        self.handle_offloaded(now, packet, offload, tx);
    }

    fn frame<'a>(
        &mut self,
        now: Now,
        path: Path,
        frame: &'a mut [u8],
        tx: &mut TxQueue,
    ) -> Option<Delivery<'a>> {
        self.handle_frame(now, path, frame, tx)
    }

    fn take_proof(&mut self) -> bool {
        Node::take_proof(self)
    }

    fn network(&self, packet: &[u8]) -> Option<usize> {
        self.network_offset(packet)
    }

    fn goes_by_relay(&self, now: Now, packet: &[u8]) -> bool {
        Node::goes_by_relay(self, now, packet)
    }
}

/// What a thread moves packets with: its queue of the device, its sockets, and what waits in between.
pub(super) struct Traffic {
    pub(super) device: DeviceIo,
    pub(super) ways: Ways,
    pub(super) quic: Arc<QuicEndpoint>,
    pub(super) tx: TxQueue,
    pub(super) waiting: FairQueue,
    pub(super) backlog: Backlog,
    /// Makes the classes of packets unpredictable.
    pub(super) seed: u64,
    pub(super) joining: Joining,
    pub(super) moved: Moved,
    /// That the kernel gives less room than wanted was told.
    pub(super) room_told: bool,
}

/// How much went through a thread.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    /// Packets of the device, each of which may have become several frames.
    pub(super) packets: u64,
    /// Frames of the sockets.
    pub(super) frames: u64,
}

impl Traffic {
    /// Takes what the sockets of the frames have, or at most so much of what the other sockets have. What is no frame
    /// goes to `other`, which says whether it knows its kind.
    pub(super) fn read_sockets(
        &mut self,
        machine: &mut impl Machine,
        now: Now,
        others: Option<usize>,
        mut other: impl FnMut(SocketAddr, &mut [u8]) -> bool,
    ) {
        let Self { device, ways, quic, tx, joining, moved, .. } = self;
        let Ways { udp, drops, .. } = ways;
        let mut each = |from, payload: &mut [u8], segment, mark: Ecn| {
            let mut writer = Writer::new(device, quic, drops, *joining);
            writer.outer(mark);
            let mut unknown = 0;
            // What came over the relay proved nothing here.
            machine.take_proof();
            for datagram in payload.chunks_mut(segment) {
                if datagram.first() == Some(&SEALED) {
                    moved.frames += 1;
                    if let Some(delivery) = machine.frame(now, Path::Udp(from), datagram, tx) {
                        writer.deliver(delivery);
                    }
                } else if !other(from, datagram) {
                    unknown += 1;
                }
            }
            *joining = writer.finish();
            drops.unknown_datagram += unknown;
            machine.take_proof()
        };
        let received = match others {
            None => udp
                .recv_batch(|from, payload, segment, mark| {
                    each(from, payload, segment, mark);
                })
                .and_then(|received| udp.recv_extra(&mut each).map(|()| received)),
            Some(most) => udp.recv_others(most, |from, payload, segment, mark| {
                each(from, payload, segment, mark);
            }),
        };
        // A socket that fails now may work at the next turn; what the relay carries goes on meanwhile.
        if let Err(error) = received {
            drops.udp += 1;
            tracing::debug!(%error, "nothing could be received over UDP");
        }
    }

    /// Sends what waits, and looks between two packets for others that should go before.
    pub(super) fn send_waiting(&mut self, machine: &mut impl Machine, now: Now) -> io::Result<()> {
        let mut sent = 0;
        self.read_device(machine)?;
        while sent < SEND
            && let Some(Waiting { buffer, length, offload }) = self.next_packet(machine, now)
        {
            self.moved.packets += 1;
            machine.packet(now, &buffer[..length], &offload, &mut self.tx);
            self.waiting.give_back(buffer);
            // What is full leaves at once, while it is in the processor's cache.
            while let Some(transmit) = self.tx.pop_closed() {
                self.ways.carry(transmit, &mut self.tx);
            }
            sent += length;
            if length > LONG {
                self.read_device(machine)?;
            }
        }
        Ok(())
    }

    /// Notes whether what is for the relay has to wait. Returns until when the device is to be left alone.
    pub(super) fn look_at_relay(&mut self, full: bool, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if !full {
            self.waiting.bring_back();
        }
        self.backlog.look(full, now)
    }

    /// The next packet whose way has room.
    fn next_packet(&mut self, machine: &impl Machine, now: Now) -> Option<Waiting> {
        if !self.backlog.is_full() {
            return self.waiting.pop(|_| true);
        }
        let next = self.waiting.pop(|packet| !machine.goes_by_relay(now, packet))?;
        self.backlog.passed(now.instant);
        Some(next)
    }

    /// Sends all that is sealed.
    pub(super) fn flush(&mut self) {
        while let Some(transmit) = self.tx.pop() {
            self.ways.carry(transmit, &mut self.tx);
        }
    }

    /// Takes what the device has.
    fn read_device(&mut self, machine: &impl Machine) -> io::Result<()> {
        for _ in 0..BATCH {
            let mut buffer = self.waiting.buffer();
            let error = match self.device.read(&mut buffer) {
                Ok((length, offload)) => {
                    let network = machine.network(&buffer[..length]);
                    let class = Class::of(&buffer[..length], network, self.seed);
                    self.waiting.push(class, Waiting { buffer, length, offload });
                    continue;
                }
                Err(error) => error,
            };
            self.waiting.give_back(buffer);
            if error.kind() == io::ErrorKind::WouldBlock {
                break;
            } else if error.kind() == io::ErrorKind::InvalidData {
                self.ways.drops.device += 1;
            } else if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Hands one delivery to whom it is for.
    pub(super) fn deliver(&mut self, delivery: Delivery<'_>) {
        let Self { device, quic, ways, joining, .. } = self;
        let mut writer = Writer::new(device, quic, &mut ways.drops, *joining);
        writer.deliver(delivery);
        *joining = writer.finish();
    }
}

impl Worker {
    /// Takes what the sockets of the frames have; where there is one socket for everything, also what is no frame.
    pub(super) fn read_udp(&mut self, now: Now) {
        self.read_sockets(now, None);
    }

    /// Takes what the sockets for anything but frames have, a little where frames or packets wait.
    pub(super) fn read_others(&mut self, now: Now, busy: bool) {
        self.read_sockets(now, Some(if busy { FEW_OTHERS } else { MAX_BATCH }));
    }

    fn read_sockets(&mut self, now: Now, others: Option<usize>) {
        let Self { node, traffic, messages, stun, .. } = self;
        traffic.read_sockets(node, now, others, |from, datagram| {
            if Handshaker::takes_over_udp(datagram) {
                messages.push((Path::Udp(from), Box::from(&*datagram)));
            } else if is_stun(datagram) {
                // Who asked repeats what is lost here.
                drop(stun.try_send((from, Box::from(&*datagram))));
            } else {
                return false;
            }
            true
        });
    }

    /// Takes what came over a relay.
    pub(super) fn receive(&mut self, now: Now, frames: Frames) {
        let Frames { from, mut payload, segment, marked } = frames;
        let from = Path::Relay(from);
        let segment = segment.map_or(payload.len(), usize::from).max(1);
        let Self { node, traffic, messages, .. } = self;
        let Traffic { device, ways, quic, tx, joining, .. } = traffic;
        let mut writer = Writer::new(device, quic, &mut ways.drops, *joining);
        writer.outer(if marked { Ecn::Experienced } else { Ecn::NotCapable });
        for datagram in payload.chunks_mut(segment) {
            if Handshaker::takes(datagram) {
                messages.push((from, Box::from(&*datagram)));
            } else if let Some(delivery) = node.handle_frame(now, from, datagram, tx) {
                writer.deliver(delivery);
            }
        }
        *joining = writer.finish();
    }

    /// Hands out what had to wait for its keys.
    pub(super) fn deliver_late(&mut self) {
        let Traffic { device, ways, quic, joining, .. } = &mut self.traffic;
        while let Some(late) = self.node.poll_late() {
            match late {
                LateDelivery::Packet(packet) => {
                    Writer::new(device, quic, &mut ways.drops, *joining).packet(&packet);
                }
                LateDelivery::Quic(peer, datagram) => quic.datagram(peer, &datagram),
            }
        }
    }
}
