//! Sending one payload as datagrams: with the kernel's segmentation, or one by one.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_packet::ECN;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use quinn_udp::{EcnCodepoint, Transmit};

use super::error::{UdpSendError, errno};

/// Sends `payload` as datagrams of `segment` bytes through `raw`, several per call while `gso` holds.
pub(super) fn send(
    gso: &AtomicBool,
    (to, class): (SocketAddr, u8),
    payload: &[u8],
    segment: Option<u16>,
    mut raw: impl FnMut(&Transmit<'_>) -> io::Result<()>,
) -> Result<(), UdpSendError> {
    let segment = segment.map_or(payload.len(), usize::from).clamp(1, payload.len().max(1));
    let mut sent = 0;
    while let Some(rest) = payload.get(sent..).filter(|rest| !rest.is_empty()) {
        let together =
            if gso.load(Ordering::Relaxed) { segments_at_once(segment) * segment } else { segment };
        let contents = rest.get(..together).unwrap_or(rest);
        match transmit((to, class), contents, segment, &mut raw) {
            Ok(()) => sent += contents.len(),
            Err(error) if contents.len() > segment && is_refused_segmentation(&error) => {
                // The same errors come for reasons that have nothing to do with segmentation: it is at fault only if
                // the first datagram can be sent by itself.
                let first = rest.get(..segment).unwrap_or(rest);
                transmit((to, class), first, segment, &mut raw)
                    .map_err(|error| UdpSendError::new(error, sent))?;
                sent += first.len();
                gso.store(false, Ordering::Relaxed);
            }
            Err(error) => return Err(UdpSendError::new(error, sent)),
        }
    }
    Ok(())
}

fn transmit(
    (destination, class): (SocketAddr, u8),
    contents: &[u8],
    segment: usize,
    raw: &mut impl FnMut(&Transmit<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let segment_size = (contents.len() > segment).then_some(segment);
    let transmit = Transmit {
        destination,
        ecn: EcnCodepoint::from_bits(class & ECN),
        contents,
        segment_size,
        src_ip: None,
    };
    match raw(&transmit) {
        // The news of an earlier datagram, told once and in place of sending this one.
        Err(error) if errno(&error) == Some(Errno::ECONNREFUSED) => raw(&transmit),
        result => result,
    }
}

/// Sends with a whole traffic class, of which the library sets only the congestion mark.
pub(crate) fn with_class(fd: RawFd, transmit: &Transmit<'_>, class: u8) -> io::Result<()> {
    let segment = transmit.segment_size.map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    let wide = i32::from(class);
    let class = match transmit.destination {
        SocketAddr::V4(_) => ControlMessage::Ipv4Tos(&class),
        SocketAddr::V6(_) => ControlMessage::Ipv6TClass(&wide),
    };
    let segments = segment.as_ref().map(ControlMessage::UdpGsoSegments);
    let (one, both);
    let messages: &[ControlMessage<'_>] = if let Some(segments) = segments {
        both = [class, segments];
        &both
    } else {
        one = [class];
        &one
    };
    let to = SockaddrStorage::from(transmit.destination);
    sendmsg(fd, &[IoSlice::new(transmit.contents)], messages, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

/// Sends one datagram that may pass so many routers.
pub(super) fn with_hops(fd: RawFd, to: SocketAddr, payload: &[u8], hops: u8) -> io::Result<()> {
    let hops = i32::from(hops.max(1));
    let limit = match to {
        SocketAddr::V4(_) => ControlMessage::Ipv4Ttl(&hops),
        SocketAddr::V6(_) => ControlMessage::Ipv6HopLimit(&hops),
    };
    let to = SockaddrStorage::from(to);
    let send = || sendmsg(fd, &[IoSlice::new(payload)], &[limit], MsgFlags::MSG_DONTWAIT, Some(&to));
    match send() {
        // The news of an earlier datagram, told once and in place of sending this one.
        Err(Errno::ECONNREFUSED) => send()?,
        result => result?,
    };
    Ok(())
}

/// How many datagrams of this size the kernel cuts from one payload.
fn segments_at_once(segment: usize) -> usize {
    (MAX_PAYLOAD / segment).clamp(1, MAX_SEGMENTS)
}

/// What the kernel says where the way out cannot checksum or segment, or IPsec lies on it (`udp_send_skb`).
fn is_refused_segmentation(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP))
}

/// `UDP_MAX_SEGMENTS` of the kernels before 6.9; later ones take 128.
const MAX_SEGMENTS: usize = 64;

/// The length field of an IPv4 packet, less the header with all its options and that of UDP.
const MAX_PAYLOAD: usize = 65_535 - 60 - 8;
