//! Tells whether one UDP datagram continues the one before, so that both can be joined at the other end.

use crate::layout::Layout;

/// What two packets of one flow have in common.
#[derive(Clone, Debug)]
pub struct Flow {
    header: [u8; HEADER],
    length: usize,
    packet: usize,
    network: usize,
}

impl Flow {
    /// Starts with nothing to continue.
    #[must_use]
    pub const fn new() -> Self {
        Self { header: [0; HEADER], length: 0, packet: 0, network: 0 }
    }

    /// Takes the next packet, a UDP datagram whose checksum covers the pseudo header only, and tells whether it continues
    /// the one taken before: same addresses, ports and marks, and no longer than that one, which had the length of all
    /// before it.
    pub fn continues(&mut self, packet: &[u8], layout: &Layout) -> bool {
        let end = layout.transport + PORTS;
        let (Some(header), false) = (packet.get(layout.network..end), layout.tcp) else {
            self.length = 0;
            return false;
        };
        // Without "do not fragment" the id means something, and joining loses it.
        let whole = !layout.v4 || header[6] & DONT_FRAGMENT != 0;
        if header.len() > HEADER || !whole || packet.len() <= layout.payload {
            self.length = 0;
            return false;
        }
        let mut key = [0; HEADER];
        key[..header.len()].copy_from_slice(header);
        // Length, id and checksum differ from packet to packet.
        if layout.v4 {
            key[2..6].fill(0);
            key[10..12].fill(0);
        } else {
            key[4..6].fill(0);
        }
        let same = self.length == header.len() && self.network == layout.network && self.header == key;
        let continues = same && packet.len() <= self.packet;
        if continues && packet.len() < self.packet {
            // A shorter one is the last.
            self.length = 0;
        } else {
            (self.header, self.length, self.packet, self.network) =
                (key, header.len(), packet.len(), layout.network);
        }
        continues
    }

    /// Forgets the packet taken before.
    pub fn forget(&mut self) {
        self.length = 0;
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

const PORTS: usize = 4;
/// An IPv6 header with the ports behind it; an IPv4 header with up to 24 bytes of options.
const HEADER: usize = 44;
const DONT_FRAGMENT: u8 = 0x40;
