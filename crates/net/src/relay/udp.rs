//! Frames to and from the relay's UDP port. What is to be done when is [`Way`]'s decision; this moves the datagrams.

use std::array;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use mesh_packet::ECN;
use mesh_socket::{Growth, Sizes};
use mesh_wire::frame::SEALED;
use mesh_wire::relay_udp::{Control, DATA_HEADER, LONGEST, Offer, TAG, data_header, parse_data, run_len};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::queue::Datagrams;
use super::way::{Step, Way};
use crate::udp::with_class;

/// The UDP way of one connection.
pub(super) struct Udp {
    way: Way,
    /// Masks of the handles.
    up: u32,
    down: u32,
    key: hmac::Key,
    relay: SocketAddr,
    /// Made anew for every proof: the machine's addresses may have changed.
    socket: Option<(UdpSocket, UdpSocketState)>,
    /// Datagrams of `stride` bytes, of which `sent` bytes have left.
    out: Vec<u8>,
    stride: usize,
    /// Their traffic class.
    class: u8,
    sent: usize,
    growth: Growth,
    /// Datagrams that the kernel did not take, since somebody asked.
    unsent: u64,
    buffers: Box<[u8]>,
}

/// What [`Udp::keep_time`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The way is over; the relay has to hear of it by UDP_END.
    Ended {
        /// It stood, and the relay stopped answering.
        silent: bool,
    },
    /// Nothing.
    None,
}

impl Udp {
    pub(super) fn new(offer: &Offer, mut relay: SocketAddr) -> Self {
        relay.set_port(offer.port);
        let longest = if relay.ip().to_canonical().is_ipv4() { LONGEST } else { LONGEST_V6 };
        Self {
            way: Way::new(offer.connection, [longest, SAFE]),
            key: hmac::Key::new(hmac::HMAC_SHA256, &offer.key),
            relay,
            up: offer.up,
            down: offer.down,
            socket: None,
            out: Vec::new(),
            stride: 1,
            class: 0,
            sent: 0,
            growth: Growth::new(LEAST),
            unsent: 0,
            buffers: Box::default(),
        }
    }

    /// Notes that frames went or came, by whichever way.
    pub(super) const fn used(&mut self, now: Instant) {
        self.way.used(now);
    }

    pub(super) const fn is_up(&self) -> bool {
        self.way.is_up()
    }

    /// Returns how many datagrams the kernel did not take since the last call.
    pub(super) const fn take_unsent(&mut self) -> u64 {
        std::mem::replace(&mut self.unsent, 0)
    }

    /// Tells whether datagrams leave one by one because those that left together did not arrive.
    pub(super) const fn goes_singly(&self) -> bool {
        self.way.together().is_broken()
    }

    /// Returns when [`Udp::keep_time`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.way.due()
    }

    /// Tells whether these frames go over UDP now: sealed ones, which have sessions already, that are not too long.
    pub(super) fn takes(&self, payload: &[u8], segment: Option<u16>) -> bool {
        let longest = segment.map_or(payload.len(), usize::from).min(payload.len());
        self.is_up() && payload.first() == Some(&SEALED) && longest + DATA_HEADER <= self.way.limit()
    }

    /// Sends frames; to be called after [`Udp::flush`] said that nothing waits.
    pub(super) fn put(&mut self, Datagrams { handle, payload, segment, class }: &Datagrams) {
        let segment = segment.map_or(payload.len(), usize::from).clamp(1, payload.len().max(1));
        let header = data_header(handle ^ self.up);
        self.out.clear();
        (self.sent, self.stride, self.class) = (0, segment + DATA_HEADER, *class);
        for frame in payload.chunks(segment) {
            self.out.extend_from_slice(&header);
            self.out.extend_from_slice(frame);
        }
    }

    /// Sends what waits; returns whether the socket is full.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((socket, state)) = &self.socket else {
            self.sent = self.out.len();
            return false;
        };
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match socket.poll_send_ready(cx) {
                Poll::Pending => return true,
                // What the socket says about earlier datagrams is not about this one.
                Poll::Ready(_) => {}
            }
            let most = if self.way.together().works() { state.max_gso_segments() } else { 1 };
            let together = most.clamp(1, SEGMENTS).min((LONGEST_SEND / self.stride).max(1));
            let part = rest.get(..together * self.stride).unwrap_or(rest);
            let segment_size = (part.len() > self.stride).then_some(self.stride);
            match send((socket, state), (self.relay, self.class), part, segment_size) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => {
                    self.growth.went(part.len());
                    self.sent += part.len();
                }
                // Lost, as datagrams are.
                Err(_) => {
                    self.sent += part.len();
                    self.unsent += u64::try_from(part.len().div_ceil(self.stride)).unwrap_or(0);
                }
            }
        }
        false
    }

    /// Receives one batch: `each` gets handle, run and stride of data, and whether the network marked it as having met
    /// congestion. Returns whether there may be more.
    pub(super) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut each: impl FnMut(u32, &[u8], usize, bool),
    ) -> bool {
        let Some((socket, state)) = &self.socket else { return false };
        if socket.poll_recv_ready(cx).is_pending() {
            return false;
        }
        if self.buffers.is_empty() {
            self.buffers = vec![0; BATCH * BUFFER].into();
        }
        let mut meta = [RecvMeta::default(); BATCH];
        let mut rest = self.buffers.chunks_exact_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        let received =
            socket.try_io(Interest::READABLE, || state.recv(socket.into(), &mut slices, &mut meta));
        // An error is the news of a datagram that did not arrive.
        let Ok(count) = received else { return true };
        let mut answers = Vec::new();
        for (meta, buffer) in meta.iter().zip(self.buffers.chunks_exact(BUFFER)).take(count) {
            self.growth.came(meta.len);
            let mut bytes = buffer.get(..meta.len).unwrap_or_default();
            while !bytes.is_empty() && meta.stride > 0 {
                let (run, rest) = bytes.split_at(run_len(bytes, meta.stride));
                bytes = rest;
                if let Some((masked, _)) = parse_data(run) {
                    self.way.used(now);
                    each(masked ^ self.down, run, meta.stride, meta.ecn == Some(EcnCodepoint::Ce));
                } else if let Ok((control, covered, tag)) = Control::parse(run)
                    && tag_of(&self.key, covered) == tag
                {
                    answers.extend(self.way.handle(&control, now));
                }
            }
        }
        for answer in answers {
            self.control(&answer);
        }
        true
    }

    /// Does what is due; `trip` is the round trip to the relay.
    pub(super) fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant, trip: Option<Duration>) -> Change {
        let was_up = self.way.is_up();
        if let (Some(sizes), Some((socket, _))) = (self.growth.look(now, || trip), &self.socket) {
            // Less is slower under load and wrong in nothing.
            let _ = sizes.ask(socket);
        }
        loop {
            match self.way.step(now) {
                Step::Wait => return Change::None,
                Step::Send(control) => {
                    if !was_up {
                        self.socket = open(self.relay, self.growth.sizes()).ok();
                        if let Some((socket, _)) = &self.socket {
                            // From now on an answer wakes the task.
                            let _ = socket.poll_recv_ready(cx);
                        }
                    }
                    self.control(&control);
                }
                Step::Pair(pair) => self.pair(&pair),
                Step::End => {
                    (self.socket, self.sent) = (None, self.out.len());
                    return Change::Ended { silent: was_up && self.way.has_failed() };
                }
            }
        }
    }

    fn control(&self, control: &Control) {
        self.transmit(&self.encode(control), None);
    }

    /// Hands two messages to the kernel at once.
    fn pair(&self, pair: &[Control; 2]) {
        let both = pair.each_ref().map(|control| self.encode(control));
        let cuts = self.socket.as_ref().is_some_and(|(_, state)| state.max_gso_segments() > 1);
        if cuts {
            self.transmit(&both.concat(), Some(both[0].len()));
        } else {
            // Nothing leaves together anyway.
            both.iter().for_each(|bytes| self.transmit(bytes, None));
        }
    }

    fn encode(&self, control: &Control) -> Vec<u8> {
        control.encode(self.way.limit(), |covered| tag_of(&self.key, covered))
    }

    /// Not by `try_io`, which knows nothing of a new socket yet. What does not leave counts as lost.
    fn transmit(&self, contents: &[u8], segment_size: Option<usize>) {
        let Some((socket, state)) = &self.socket else { return };
        let transmit = Transmit { destination: self.relay, ecn: None, contents, segment_size, src_ip: None };
        let _ = state.try_send(socket.into(), &transmit);
    }
}

fn open(relay: SocketAddr, room: Sizes) -> io::Result<(UdpSocket, UdpSocketState)> {
    let any = if relay.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Socket::new(Domain::for_address(relay), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Less is slower under load and wrong in nothing.
    let _ = room.ask(&socket);
    socket.bind(&SocketAddr::new(any, 0).into())?;
    // From now on the kernel takes datagrams of the relay only.
    socket.connect(&relay.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let state = UdpSocketState::new((&socket).into())?;
    Ok((socket, state))
}

fn send(
    (socket, state): (&UdpSocket, &UdpSocketState),
    (destination, class): (SocketAddr, u8),
    contents: &[u8],
    segment_size: Option<usize>,
) -> io::Result<()> {
    let ecn = EcnCodepoint::from_bits(class & ECN);
    let transmit = Transmit { destination, ecn, contents, segment_size, src_ip: None };
    socket.try_io(Interest::WRITABLE, || {
        if class & !ECN == 0 {
            state.try_send(socket.into(), &transmit)
        } else {
            with_class(socket.as_raw_fd(), &transmit, class)
        }
    })
}

fn tag_of(key: &hmac::Key, covered: &[u8]) -> [u8; TAG] {
    hmac::sign(key, covered).as_ref().first_chunk().copied().unwrap_or([0; TAG])
}

/// Longest datagram over IPv6 in packets of 1500 bytes.
const LONGEST_V6: usize = 1452;
/// In packets of 1280 bytes, which every IPv6 path takes.
const SAFE: usize = 1232;
/// Buffers per call.
const BATCH: usize = 8;
/// The longest run that the kernel puts together, and the longest datagram.
const BUFFER: usize = 65_535;
/// What the kernel cuts apart at once.
const SEGMENTS: usize = 64;
const LONGEST_SEND: usize = 65_535 - 60 - 8;
/// Bytes: what a relay's queue of 512 KiB becomes while the kernel counts its overhead.
const LEAST: Sizes = Sizes { receive: 1024 * 1024, send: 1024 * 1024 };
