//! A packet's two ways through the engine: from the device to a path, and from a path to the device.

use std::io;

use bytes::BytesMut;
use mesh_net::MAX_BATCH;
use mesh_node::{Handshaker, LateDelivery, Now, Path};
use mesh_packet::Class;
use mesh_wire::frame::SEALED;
use mesh_wire::stun::is_stun;

use super::Worker;
use super::fair::Waiting;
use super::ways::Ways;
use super::writer::Writer;

/// Packets read from the device at a time.
const BATCH: usize = 64;
/// Bytes of packets sent between two looks at the inbox and the sockets, so that neither direction starves the other.
const SEND: usize = 128 * 1024;
/// Buffers of what is no frame that are taken in a turn with other work: in a flood of them, the kernel drops the rest for
/// less than taking them costs.
const FEW_OTHERS: usize = 8;
/// A packet that takes so long to seal that others may have come meanwhile.
const LONG: usize = 4096;

impl Worker {
    /// Takes what the sockets of the frames have; where there is one socket for everything, also what is no frame.
    pub(super) fn read_udp(&mut self, now: Now) {
        self.read_sockets(now, None);
    }

    /// Takes what the sockets for anything but frames have, a little where frames or packets wait.
    pub(super) fn read_others(&mut self, now: Now, busy: bool) {
        self.read_sockets(now, Some(if busy { FEW_OTHERS } else { MAX_BATCH }));
    }

    /// `others` is how much is taken at most of what is no frame.
    fn read_sockets(&mut self, now: Now, others: Option<usize>) {
        let Self { node, device, ways, messages, quic, stun, tx, joining, .. } = self;
        let Ways { udp, drops, .. } = ways;
        let mut each = |from, payload: &mut [u8], segment, mark| {
            let mut writer = Writer::new(device, quic, drops, *joining);
            writer.outer(mark);
            let mut unknown = 0;
            // What came over the relay proved nothing here.
            node.take_proof();
            for datagram in payload.chunks_mut(segment) {
                match datagram.first() {
                    Some(&SEALED) => {
                        if let Some(delivery) = node.handle_frame(now, Path::Udp(from), datagram, tx) {
                            writer.deliver(delivery);
                        }
                    }
                    _ if Handshaker::takes_over_udp(datagram) => {
                        messages.push((Path::Udp(from), Box::from(&*datagram)));
                    }
                    // Who asked repeats what is lost here.
                    _ if is_stun(datagram) => drop(stun.try_send((from, Box::from(&*datagram)))),
                    _ => unknown += 1,
                }
            }
            *joining = writer.finish();
            drops.unknown_datagram += unknown;
            node.take_proof()
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
    pub(super) fn send_waiting(&mut self, now: Now) -> io::Result<()> {
        let mut sent = 0;
        self.read_device()?;
        while sent < SEND
            && let Some(Waiting { buffer, length, offload }) = self.next_packet(now)
        {
            self.node.handle_offloaded(now, &buffer[..length], &offload, &mut self.tx);
            self.waiting.give_back(buffer);
            // What is full leaves at once, while it is in the processor's cache.
            while let Some(transmit) = self.tx.pop_closed() {
                self.ways.carry(transmit, &mut self.tx);
            }
            sent += length;
            if length > LONG {
                self.read_device()?;
            }
        }
        Ok(())
    }

    /// The next packet whose way has room.
    fn next_packet(&mut self, now: Now) -> Option<Waiting> {
        if !self.backlog.is_full() {
            return self.waiting.pop(|_| true);
        }
        let next = self.waiting.pop(|packet| !self.node.goes_by_relay(now, packet))?;
        self.backlog.passed(now.instant);
        Some(next)
    }

    /// Takes what the device has.
    fn read_device(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let mut buffer = self.waiting.buffer();
            let error = match self.device.read(&mut buffer) {
                Ok((length, offload)) => {
                    let network = self.node.network_offset(&buffer[..length]);
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

    pub(super) fn receive(&mut self, now: Now, from: Path, mut payload: BytesMut, segment: Option<u16>) {
        let segment = segment.map_or(payload.len(), usize::from).max(1);
        let mut writer = Writer::new(&self.device, &self.quic, &mut self.ways.drops, self.joining);
        for datagram in payload.chunks_mut(segment) {
            if Handshaker::takes(datagram) {
                self.messages.push((from, Box::from(&*datagram)));
            } else if let Some(delivery) = self.node.handle_frame(now, from, datagram, &mut self.tx) {
                writer.deliver(delivery);
            }
        }
        self.joining = writer.finish();
    }

    /// Hands out what had to wait for its keys.
    pub(super) fn deliver_late(&mut self) {
        while let Some(late) = self.node.poll_late() {
            match late {
                LateDelivery::Packet(packet) => {
                    Writer::new(&self.device, &self.quic, &mut self.ways.drops, self.joining).packet(&packet);
                }
                LateDelivery::Quic(peer, datagram) => self.quic.datagram(peer, &datagram),
            }
        }
    }
}
