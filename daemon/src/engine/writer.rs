//! What goes to the device: one packet by itself, or segments of one flow joined to one.

use mesh_net::QuicEndpoint;
use mesh_node::Delivery;
use mesh_packet::{Ecn, Layout, Merge, Offload, mark_congestion, network_offset};
use mesh_tun::{DeviceIo, MAX_PARTS};

use super::EngineDrops;

/// Writes to the device, and joins what came one behind the other. Bytes are borrowed from where they were opened, so
/// that nothing is copied but by the kernel.
pub(super) struct Writer<'w, 'a> {
    device: &'w DeviceIo,
    quic: &'w QuicEndpoint,
    drops: &'w mut EngineDrops,
    joining: Joining,
    /// The network around the tunnel met congestion.
    congested: bool,
    open: Option<Open<'a>>,
    /// The payloads behind the first packet.
    tails: [&'a [u8]; MAX_PARTS - 1],
    count: usize,
}

/// Which packets may be joined: what the device takes, until it refuses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Joining {
    pub(super) tcp: bool,
    pub(super) udp: bool,
}

struct Open<'a> {
    head: &'a mut [u8],
    merge: Merge,
}

impl<'w, 'a> Writer<'w, 'a> {
    pub(super) fn new(
        device: &'w DeviceIo,
        quic: &'w QuicEndpoint,
        drops: &'w mut EngineDrops,
        joining: Joining,
    ) -> Self {
        Self {
            device,
            quic,
            drops,
            joining,
            congested: false,
            open: None,
            tails: [&[]; MAX_PARTS - 1],
            count: 0,
        }
    }

    /// Says how the datagrams that follow were marked.
    pub(super) fn outer(&mut self, mark: Ecn) {
        self.congested = mark == Ecn::Experienced;
    }

    /// Takes what a frame brought.
    pub(super) fn deliver(&mut self, delivery: Delivery<'a>) {
        match delivery {
            Delivery::Packet(packet) => {
                self.flush();
                let network = if self.device.is_ethernet() { network_offset(packet) } else { Some(0) };
                if self.passes(packet, network) {
                    self.write(&Offload::NONE, &[packet]);
                }
            }
            Delivery::Partial { network, packet, continued } => {
                if self.passes(packet, Some(network)) {
                    self.partial(network, packet, continued);
                }
            }
            Delivery::Quic(peer, datagram) => self.quic.datagram(peer, datagram),
        }
    }

    /// Takes a packet that waited and is for the device.
    pub(super) fn packet(&mut self, packet: &[u8]) {
        self.write(&Offload::NONE, &[packet]);
    }

    /// Writes what is open, and says what may be joined from here on.
    pub(super) fn finish(mut self) -> Joining {
        self.flush();
        self.joining
    }

    fn partial(&mut self, network: usize, packet: &'a mut [u8], continued: bool) {
        if let Some(Open { head, merge }) = self.open.as_mut().filter(|_| continued)
            && self.count < self.tails.len()
            && let Some(range) = merge.join(head, packet)
        {
            self.tails[self.count] = &packet[range];
            self.count += 1;
            return;
        }
        self.flush();
        if !self.device.offload().tcp {
            return self.complete(network, packet);
        }
        match Merge::begin(packet, network) {
            Some((merge, length)) if self.joins(&merge) => {
                self.open = Some(Open { head: &mut packet[..length], merge });
            }
            Some((merge, length)) => {
                let head = &mut packet[..length];
                let offload = merge.finish(head);
                self.write(&offload, &[head]);
            }
            None => self.drops.device += 1,
        }
    }

    /// Carries the mark of congestion from the datagram to the packet in it, or drops the packet where its sender would not
    /// understand (RFC 6040, 4.2).
    fn passes(&mut self, packet: &mut [u8], network: Option<usize>) -> bool {
        if !self.congested || network.is_none() || mark_congestion(packet, network) {
            return true;
        }
        self.drops.congested += 1;
        false
    }

    fn joins(&self, merge: &Merge) -> bool {
        if merge.is_udp() { self.joining.udp } else { self.joining.tcp }
    }

    /// Writes a packet to a device that takes complete ones only.
    fn complete(&mut self, network: usize, packet: &mut [u8]) {
        let checksum = Layout::find(packet, network).and_then(|layout| layout.partial());
        if checksum.is_some_and(|checksum| checksum.complete(packet)) {
            self.write(&Offload::NONE, &[packet]);
        } else {
            self.drops.device += 1;
        }
    }

    fn flush(&mut self) {
        let Some(Open { head, merge }) = self.open.take() else { return };
        let udp = merge.is_udp();
        let offload = merge.finish(head);
        let mut parts: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
        parts[0] = head;
        parts[1..=self.count].copy_from_slice(&self.tails[..self.count]);
        let written = self.write(&offload, &parts[..=self.count]);
        if !written && self.count > 0 {
            // Whatever the reason was, single packets are what every device takes; those of this run are lost.
            let joins = if udp { &mut self.joining.udp } else { &mut self.joining.tcp };
            if std::mem::take(joins) {
                tracing::warn!(
                    udp,
                    "the interface refused joined packets; they are written one by one from here on"
                );
            }
        }
        self.count = 0;
    }

    /// Writes one packet; false when the device refuses it for what it is.
    fn write(&mut self, offload: &Offload, parts: &[&[u8]]) -> bool {
        match self.device.write(offload, parts) {
            Ok(()) => true,
            Err(error) => {
                self.drops.device += 1;
                !matches!(error.kind(), std::io::ErrorKind::InvalidInput)
            }
        }
    }
}
