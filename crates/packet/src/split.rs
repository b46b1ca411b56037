//! Cuts a packet of a device with offload into segments, as a network card does.

use crate::checksum;
use crate::layout::{Layout, TCP, UDP};
use crate::offload::{Offload, PartialChecksum, SegmentKind};

/// A packet that is to be cut into segments of TCP or datagrams of UDP.
///
/// Each segment is a whole packet whose transport checksum still covers the pseudo header only; see
/// [`Split::checksum`].
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    layout: Layout,
    size: usize,
    /// The pseudo header without its length, and the IPv4 header without length, id and checksum.
    pseudo: u32,
    header: u32,
}

/// The device asks for what does not fit the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitError;

impl<'a> Split<'a> {
    /// Reads a packet whose IP header begins at `network`, and what the device said about it.
    ///
    /// # Errors
    /// [`SplitError`] where the headers are not those of the kind that is to be cut, or do not fit the packet.
    pub fn new(packet: &'a [u8], network: usize, offload: &Offload) -> Result<Self, SplitError> {
        let (segments, checksum) = offload.segments.zip(offload.checksum).ok_or(SplitError)?;
        let tcp = match segments.kind {
            SegmentKind::TcpV4 { .. } | SegmentKind::TcpV6 { .. } => true,
            SegmentKind::Udp => false,
        };
        let transport = usize::from(checksum.start);
        let layout = Layout::with_transport(packet, network, transport, tcp).ok_or(SplitError)?;
        if layout.partial() != Some(checksum) {
            return Err(SplitError);
        }
        let (ip, protocol) = (&packet[network..transport], if tcp { TCP } else { UDP });
        let (addresses, header) = if layout.v4 {
            let parts = [&ip[..2], &ip[6..10], &ip[12..]];
            (&ip[12..20], parts.into_iter().map(checksum::sum).sum())
        } else {
            (&ip[8..40], 0)
        };
        let pseudo = checksum::sum(addresses) + u32::from(protocol);
        Ok(Self { packet, layout, size: usize::from(segments.size), pseudo, header })
    }

    /// How many segments there are; one at least.
    #[must_use]
    pub fn count(&self) -> usize {
        (self.packet.len() - self.layout.payload).div_ceil(self.size).max(1)
    }

    /// Bytes of a segment; of the last one for any number beyond it.
    #[must_use]
    pub fn len(&self, number: usize) -> usize {
        let from = self.from(number);
        self.layout.payload + (self.packet.len() - from).min(self.size)
    }

    /// The checksum of each segment, which still covers the pseudo header only.
    #[must_use]
    pub fn checksum(&self) -> PartialChecksum {
        self.layout.partial().expect("compared with one when this was made")
    }

    /// Whether a receiver that reads the segments finds the same headers, so that it can join them again.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        Layout::find(self.packet, self.layout.network) == Some(self.layout)
    }

    /// Writes a segment to the beginning of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than [`Split::len`] or there are fewer segments.
    pub fn write(&self, number: usize, out: &mut [u8]) {
        let Layout { network, transport, payload, v4, tcp } = self.layout;
        let (from, length, last) = (self.from(number), self.len(number), number + 1 == self.count());
        let (head, data) = out[..length].split_at_mut(payload);
        head.copy_from_slice(&self.packet[..payload]);
        data.copy_from_slice(&self.packet[from..from + (length - payload)]);

        let upper = u16::try_from(length - transport).unwrap_or(u16::MAX);
        if v4 {
            let total = u16::try_from(length - network).unwrap_or(u16::MAX);
            let id = u16::from_be_bytes([head[network + 4], head[network + 5]]);
            // Consecutive, as if each had been sent by itself.
            let id = id.wrapping_add(u16::try_from(number % 0x1_0000).expect("reduced"));
            head[network + 2..network + 4].copy_from_slice(&total.to_be_bytes());
            head[network + 4..network + 6].copy_from_slice(&id.to_be_bytes());
            let sum = checksum::finish(self.header + u32::from(total) + u32::from(id));
            head[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let total = u16::try_from(length - network - 40).unwrap_or(u16::MAX);
            head[network + 4..network + 6].copy_from_slice(&total.to_be_bytes());
        }
        let header = &mut head[transport..];
        let field = if tcp { 16 } else { 6 };
        let pseudo = checksum::fold(self.pseudo + u32::from(upper));
        header[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        if tcp {
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let passed = u32::try_from(from - payload).expect("a packet is below 4 GiB");
            header[4..8].copy_from_slice(&sequence.wrapping_add(passed).to_be_bytes());
            if number > 0 {
                header[13] &= !CWR;
            }
            if !last {
                header[13] &= !(FIN | PSH);
            }
        } else {
            header[4..6].copy_from_slice(&upper.to_be_bytes());
        }
    }

    fn from(&self, number: usize) -> usize {
        let last = self.count() - 1;
        self.layout.payload + number.min(last) * self.size
    }
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const CWR: u8 = 0x80;
