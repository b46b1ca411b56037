//! What packets have in common: whether one UDP datagram continues the one before, so that both can be joined at the other
//! end, and which packets share a line while they wait.

use crate::layout::{Layout, TCP, UDP};

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

/// What a packet belongs to, as numbers that are equal for equal things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The receiver's address.
    pub peer: u64,
    /// The flow: both addresses, protocol and ports, as far as the packet has them.
    pub flow: u64,
}

impl Class {
    /// Reads an IP packet that lies behind `network` bytes of other headers; what is no IP packet is judged by its first
    /// bytes, which in an Ethernet frame are the stations. `seed` makes the numbers unpredictable for whoever sends.
    #[must_use]
    pub fn of(packet: &[u8], network: Option<usize>, seed: u64) -> Self {
        let ip = network.and_then(|network| packet.get(network..)).unwrap_or_default();
        let (addresses, receiver, protocol, upper) = match ip.first().map(|first| first >> 4) {
            Some(4) => (ip.get(12..20), ip.get(16..20), ip.get(9), usize::from(ip[0] & 0x0f) * 4),
            Some(6) => (ip.get(8..40), ip.get(24..40), ip.get(6), 40),
            _ => (packet.get(..12), packet.get(..6), None, usize::MAX),
        };
        let peer = mix(seed, receiver.unwrap_or_default());
        let mut flow = mix(seed, addresses.unwrap_or_default());
        if let Some(protocol) = protocol {
            flow = mix(flow, &[*protocol]);
            if matches!(*protocol, TCP | UDP) {
                flow = mix(flow, ip.get(upper..upper + PORTS).unwrap_or_default());
            }
        }
        Self { peer, flow }
    }
}

/// Mixes bytes into a number (the step of MurmurHash3's finalizer per word).
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(seed, |state, word| {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        let state = (state ^ u64::from_le_bytes(padded)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^ (state >> 33)
    })
}

const PORTS: usize = 4;
/// An IPv6 header with the ports behind it; an IPv4 header with up to 24 bytes of options.
const HEADER: usize = 44;
const DONT_FRAGMENT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{v4, v6};

    #[test]
    fn classes_tell_flows_and_peers_apart() {
        let class = |packet: &[u8]| Class::of(packet, Some(0), 7);
        let one = class(&v4(0x4000, &[], 6, &[0, 1, 0, 2, 9, 9]));
        assert_eq!(one, class(&v4(0x4000, &[], 6, &[0, 1, 0, 2, 8, 8])));
        let other = class(&v4(0x4000, &[], 6, &[0, 1, 0, 3, 9, 9]));
        assert_eq!(one.peer, other.peer);
        assert_ne!(one.flow, other.flow);
        assert_ne!(one.flow, class(&v4(0x4000, &[], 17, &[0, 1, 0, 2, 9, 9])).flow);
        let mut elsewhere = v4(0x4000, &[], 6, &[0, 1, 0, 2, 9, 9]);
        elsewhere[19] = 77;
        assert_ne!(one.peer, class(&elsewhere).peer);
        assert_eq!(class(&v6(17, &[0, 1, 0, 2])), class(&v6(17, &[0, 1, 0, 2, 3])));
        assert_ne!(Class::of(&v6(17, &[0, 1, 0, 2]), Some(0), 8), class(&v6(17, &[0, 1, 0, 2])));
        for length in 0..60 {
            // No packet is too short.
            let packet = &v6(6, &[1; 30])[..length];
            let _ = Class::of(packet, Some(0), 7);
            let _ = Class::of(packet, Some(100), 7);
            let _ = Class::of(packet, None, 7);
        }
    }
}
