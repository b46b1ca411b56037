//! The UDP sockets of a node, for a thread that polls them and never waits inside of a call.
//!
//! In: datagrams of anybody, unread, in the batches that the kernel hands out. Out: datagrams, several at once where the
//! kernel cuts them apart itself (UDP GSO). What the bytes mean is decided elsewhere.
//!
//! Each thread has a socket per address family for sealed frames. What is not a frame comes to another one, so that a
//! flood of it fills neither the queue of the frames nor the time for them; see [`steer`]. Where a NAT gives each socket
//! another public port, extra sockets can be opened, and one of them kept for an address; see [`extra`].
//!
//! Invariants: one address per family beside extra sockets; no allocation per datagram; the work of one call is bounded; no
//! ICMP message and no refusal by a firewall ends a socket. No datagram is fragmented by IP, so one that is larger than
//! the interface's MTU is refused.

mod error;
mod extra;
mod send;
mod steer;
#[cfg(test)]
mod tests;

use std::array;
use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use mesh_packet::{ECN, Ecn};
use mesh_socket::{Growth, Lost, Rooms, Sizes};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

pub use error::{UdpBindError, UdpSendError};
use extra::Extra;
pub(crate) use send::with_class;

/// The UDP sockets of one thread: at most one for IPv4 and one for IPv6 that sealed frames come to, as many for whatever
/// else comes, and extra ones.
#[derive(Debug)]
pub struct UdpSockets {
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
    others: Vec<UdpSocket>,
    extra: Option<Extra>,
    buffers: Buffers,
    growth: Growth,
    /// Bytes sent that `growth` has not heard of.
    sent: Cell<usize>,
}

/// The sockets of all threads.
#[derive(Debug)]
pub struct UdpBound {
    /// Those of each thread; a frame comes to the thread of its lane. Those of the first take whatever is not a frame.
    pub threads: Vec<UdpSockets>,
    /// Why there is only one thread, and one socket for everything: the kernel does not distribute datagrams.
    pub refused: Option<io::Error>,
}

impl UdpSockets {
    /// Binds the sockets of one thread to each address; none at all for an empty list. A port of zero lets the kernel
    /// choose.
    ///
    /// # Errors
    /// As for [`UdpSockets::bind_for`].
    pub fn bind(listen: &[SocketAddr]) -> Result<Self, UdpBindError> {
        let mut threads = Self::bind_for(listen, 1)?.threads;
        Ok(threads.swap_remove(0))
    }

    /// Binds the sockets of several threads, 1 to 16, to each address; none at all for an empty list. A port of zero lets
    /// the kernel choose.
    ///
    /// An IPv6 socket takes IPv6 only, so that both families can share a port. Where the process has `CAP_NET_ADMIN` its
    /// buffers may exceed `net.core.rmem_max` and `wmem_max`. Where the kernel does not distribute datagrams among
    /// sockets, there is one thread, and the reason.
    ///
    /// # Errors
    /// A second address of one family, or what the kernel says about the address.
    pub fn bind_for(listen: &[SocketAddr], threads: usize) -> Result<UdpBound, UdpBindError> {
        let mut groups = Vec::new();
        for &address in listen {
            if groups.iter().any(|(known, _): &(SocketAddr, _)| known.is_ipv4() == address.is_ipv4()) {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "one address per family is enough");
                return Err(UdpBindError { address, source });
            }
            let socket =
                UdpSocket::bind(address, false).map_err(|source| UdpBindError { address, source })?;
            groups.push((address, vec![socket]));
        }
        let steered = groups.iter_mut().try_for_each(|(_, group)| steer::spread(group, threads));
        let threads = if steered.is_ok() { threads } else { 1 };
        let mut bound = UdpBound {
            threads: std::iter::repeat_with(Self::none).take(threads).collect(),
            refused: steered.err(),
        };
        for (address, group) in groups {
            let mut group = group.into_iter();
            for (thread, socket) in bound.threads.iter_mut().zip(group.by_ref()) {
                let slot = if address.is_ipv4() { &mut thread.ipv4 } else { &mut thread.ipv6 };
                *slot = Some(socket);
            }
            if bound.refused.is_none() {
                bound.threads[0].others.extend(group);
            }
            if let IpAddr::V4(ip) = address.ip() {
                bound.threads[0].extra = Some(Extra::new(ip));
            }
        }
        Ok(bound)
    }

    fn none() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            others: Vec::new(),
            extra: None,
            buffers: Buffers::new(),
            growth: Growth::new(LEAST),
            sent: Cell::new(0),
        }
    }

    /// What to poll, three at most: readable means [`recv_batch`](Self::recv_batch) or [`recv_extra`](Self::recv_extra) has
    /// work.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let extra = self.extra.as_ref().and_then(Extra::fd);
        self.sockets().map(|socket| socket.socket.as_fd()).chain(extra)
    }

    /// Like [`recv_batch`](Self::recv_batch), for the extra sockets; `each` also says whether something in the bytes proved
    /// its sender, to whom datagrams leave from the same socket from then on.
    ///
    /// # Errors
    /// See [`recv_batch`](Self::recv_batch).
    pub fn recv_extra(
        &mut self,
        mut each: impl FnMut(SocketAddr, &mut [u8], usize, Ecn) -> bool,
    ) -> io::Result<()> {
        let Self { extra: Some(extra), buffers, growth, .. } = self else { return Ok(()) };
        for id in extra.readable()? {
            let Some(socket) = extra.socket(id) else { continue };
            let mut proved = None;
            buffers.fill(socket, growth, &mut |from, bytes: &mut [u8], segment, mark| {
                if each(from, bytes, segment, mark) {
                    proved = Some(from);
                }
            })?;
            if let Some(from) = proved {
                extra.proved(from, id);
            }
        }
        Ok(())
    }

    /// Sends one datagram from the extra socket of a number below 256, which is opened if it is the next one.
    ///
    /// # Errors
    /// See [`UdpSockets::send`]; the limits of the process and of this module count among what the socket refuses.
    pub fn send_extra(&mut self, number: u16, to: SocketAddr, payload: &[u8]) -> Result<(), UdpSendError> {
        let extra = self.extra.as_mut().filter(|_| to.is_ipv4()).ok_or(UdpSendError::NoSocket)?;
        let socket = extra.numbered(number).map_err(UdpSendError::Io)?;
        send_from(socket, canonical(to), payload, None, 0)
    }

    /// Keeps the extra socket over which an address proved itself, until many others were kept after it; false where none did.
    pub fn keep_extra(&mut self, to: SocketAddr) -> bool {
        let sizes = self.growth.sizes();
        self.extra.as_mut().is_some_and(|extra| extra.keep(&canonical(to), sizes))
    }

    /// Closes all extra sockets that were not kept.
    pub fn finish_extra(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.finish();
        }
    }

    /// What to poll for [`recv_others`](Self::recv_others); nothing where everything comes to the sockets of the frames.
    pub fn other_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.others.iter().map(|socket| socket.socket.as_fd())
    }

    /// The addresses the sockets are bound to, IPv4 first.
    pub fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets().map(|socket| socket.local)
    }

    /// Whether a datagram to this address has a socket to leave from.
    pub fn serves(&self, to: SocketAddr) -> bool {
        self.socket_for(canonical(to)).is_some()
    }

    /// Hands over what has arrived, at most [`MAX_BATCH`] buffers per socket, and returns how many buffers that were.
    ///
    /// `each` gets the sender, in the form in which equal addresses compare equal (no IPv4 mapped into IPv6, no flow
    /// label), the bytes, and the segment: the bytes hold one datagram, or several of one sender that the kernel put
    /// together (UDP GRO), each as long as the segment and only the last one possibly shorter. Neither is ever zero. The
    /// bytes may be changed in place. The mark is that of all datagrams in it. Fewer than [`MAX_BATCH`] buffers of each socket mean that they are empty for now.
    ///
    /// # Errors
    /// What a socket says that is neither "nothing there" nor the news of an earlier datagram that did not arrive, and
    /// nothing was received by either. Calling again is right; the socket stays as it is.
    pub fn recv_batch(
        &mut self,
        mut each: impl FnMut(SocketAddr, &mut [u8], usize, Ecn),
    ) -> io::Result<usize> {
        let Self { ipv4, ipv6, buffers, growth, .. } = self;
        let sockets = [&*ipv4, &*ipv6].into_iter().flatten();
        receive(sockets, |socket| buffers.fill(socket, growth, &mut each))
    }

    /// The same for what is not a sealed frame, at most `most` buffers from each socket: whoever is flooded reads few, and
    /// the kernel drops the rest.
    ///
    /// # Errors
    /// As for [`recv_batch`](Self::recv_batch).
    pub fn recv_others(
        &mut self,
        most: usize,
        mut each: impl FnMut(SocketAddr, &mut [u8], usize, Ecn),
    ) -> io::Result<usize> {
        let Self { others, buffers, .. } = self;
        receive(others.iter(), |socket| buffers.fill_some(socket, most, &mut each))
    }

    /// Gives the sockets that carry frames the room that their measured rate asks for, and returns it when that was more than
    /// before: the worst of what they got. `trip` is asked for the longest round trip of the direct paths in use. To be called
    /// in every turn; it does something four times a second at most.
    pub fn make_room(&mut self, now: Instant, trip: impl FnOnce() -> Option<Duration>) -> Option<Rooms> {
        self.growth.went(self.sent.take());
        let wanted = self.growth.look(now, trip)?;
        self.carrying().filter_map(|socket| wanted.ask(&socket.socket).ok()).reduce(Rooms::worse)
    }

    /// Returns the room that the sockets of the frames have: that of the worst of them.
    pub fn rooms(&self) -> Option<Rooms> {
        let wanted = self.growth.sizes();
        self.carrying().filter_map(|socket| wanted.of(&socket.socket).ok()).reduce(Rooms::worse)
    }

    /// Names these sockets, for a count of the datagrams that the kernel dropped because one of them had no room.
    pub fn lost(&self) -> Lost {
        let before = self.extra.as_ref().map_or(0, Extra::lost);
        Lost::of(self.carrying().chain(&self.others).map(|socket| socket.socket.as_fd())).after(before)
    }

    /// Sends one datagram, or several of `segment` bytes each of which only the last may be shorter.
    ///
    /// The kernel cuts them apart where it and the way out can (UDP GSO); where they refuse, each datagram is sent by
    /// itself and the socket remembers. `class` is the traffic class of all of them. The caller counts what did not leave; a datagram that left may still be lost.
    ///
    /// # Errors
    /// [`UdpSendError`]; none of them says anything about the next datagram, and none ends the socket.
    pub fn send(
        &self,
        to: SocketAddr,
        payload: &[u8],
        segment: Option<u16>,
        class: u8,
    ) -> Result<(), UdpSendError> {
        let to = canonical(to);
        let socket = self.socket_for(to).ok_or(UdpSendError::NoSocket)?;
        self.sent.set(self.sent.get().saturating_add(payload.len()));
        send_from(socket, to, payload, segment, class)
    }

    /// Sends one datagram that may pass only `hops` routers, 1 at least.
    ///
    /// # Errors
    /// See [`UdpSockets::send`].
    pub fn send_near(&self, to: SocketAddr, payload: &[u8], hops: u8) -> Result<(), UdpSendError> {
        let to = canonical(to);
        let socket = self.socket_for(to).ok_or(UdpSendError::NoSocket)?;
        send::with_hops(socket.socket.as_raw_fd(), to, payload, hops)
            .map_err(|error| UdpSendError::new(error, 0))
    }

    fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        [&self.ipv4, &self.ipv6].into_iter().flatten()
    }

    /// The sockets of the frames, and the extra ones that carry paths.
    fn carrying(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets().chain(self.extra.iter().flat_map(Extra::kept))
    }

    fn socket_for(&self, to: SocketAddr) -> Option<&UdpSocket> {
        let extra = self.extra.as_ref().and_then(|extra| extra.reaches(&to));
        extra.or(if to.is_ipv4() { self.ipv4.as_ref() } else { self.ipv6.as_ref() })
    }
}

fn send_from(
    socket: &UdpSocket,
    to: SocketAddr,
    payload: &[u8],
    segment: Option<u16>,
    class: u8,
) -> Result<(), UdpSendError> {
    send::send(&socket.gso, (to, class), payload, segment, |transmit| {
        if class & !ECN == 0 {
            socket.state.try_send((&socket.socket).into(), transmit)
        } else {
            with_class(socket.socket.as_raw_fd(), transmit, class)
        }
    })
}

/// One bound socket.
#[derive(Debug)]
struct UdpSocket {
    socket: Socket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Whether several datagrams may be given to the kernel at once; ends with the first refusal.
    gso: AtomicBool,
}

impl UdpSocket {
    /// Binds one; a further one to the address of the others where it is shared.
    fn bind(address: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = Self::bind_small(address, shared)?;
        enlarge_buffers(&socket.socket, LEAST);
        Ok(socket)
    }

    /// With the buffers that the kernel gives by itself.
    fn bind_small(address: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(shared)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let gso = AtomicBool::new(state.max_gso_segments() > 1);
        Ok(Self { socket, state, local, gso })
    }
}

/// Receives from each socket; an error counts only where nothing came from any.
fn receive<'s>(
    sockets: impl Iterator<Item = &'s UdpSocket>,
    mut fill: impl FnMut(&UdpSocket) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut received = 0;
    let mut failure = None;
    for socket in sockets {
        match fill(socket) {
            Ok(count) => received += count,
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if received == 0 => Err(error),
        Some(_) | None => Ok(received),
    }
}

/// Asks for what there is to be. Less is slower under load and wrong in nothing, so refusals pass.
fn enlarge_buffers(socket: &Socket, sizes: Sizes) {
    let _ = sizes.ask(socket);
}

/// Room for one batch, made once.
#[derive(Debug)]
struct Buffers {
    bytes: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
    /// How many buffers the next call fills at most.
    limit: usize,
}

impl Buffers {
    fn new() -> Self {
        // Zeroed pages cost memory only once something was received into them.
        Self {
            bytes: vec![0; BATCH_SIZE * BUFFER_LEN].into(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            limit: BATCH_SIZE,
        }
    }

    fn fill(
        &mut self,
        socket: &UdpSocket,
        growth: &mut Growth,
        each: &mut impl FnMut(SocketAddr, &mut [u8], usize, Ecn),
    ) -> io::Result<usize> {
        let count = self.fill_some(socket, self.limit, each)?;
        let bytes: usize = self.meta.iter().take(count).map(|meta| meta.len).sum();
        growth.came(bytes);
        self.limit = if bytes > count * LARGE { LARGE_BATCH } else { BATCH_SIZE };
        Ok(count)
    }

    fn fill_some(
        &mut self,
        socket: &UdpSocket,
        most: usize,
        each: &mut impl FnMut(SocketAddr, &mut [u8], usize, Ecn),
    ) -> io::Result<usize> {
        let count = self.receive(socket, most.min(BATCH_SIZE))?;
        for (meta, buffer) in self.meta.iter().zip(self.bytes.chunks_exact_mut(BUFFER_LEN)).take(count) {
            let Some(bytes) = buffer.get_mut(..meta.len) else { continue };
            // An empty datagram says nothing, and a segment of zero bytes would divide nothing.
            if !bytes.is_empty() && meta.stride > 0 {
                each(canonical(meta.addr), bytes, meta.stride.min(meta.len), mark(meta.ecn));
            }
        }
        Ok(count)
    }

    fn receive(&mut self, socket: &UdpSocket, most: usize) -> io::Result<usize> {
        let mut rest = self.bytes.chunks_exact_mut(BUFFER_LEN);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        // Each pending error is told once; a second one after the first is left to the next call.
        for _ in 0..2 {
            match socket.state.recv((&socket.socket).into(), &mut slices[..most], &mut self.meta) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error::is_news_of_another(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }
}

fn mark(ecn: Option<EcnCodepoint>) -> Ecn {
    match ecn {
        Some(EcnCodepoint::Ect0) => Ecn::Capable0,
        Some(EcnCodepoint::Ect1) => Ecn::Capable1,
        Some(EcnCodepoint::Ce) => Ecn::Experienced,
        None => Ecn::NotCapable,
    }
}

/// The form of an address in which two that mean the same compare equal. A link-local address keeps its interface,
/// without which it names nobody.
fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(ip), SocketAddr::V6(v6)) => {
            let scope = if ip.is_unicast_link_local() { v6.scope_id() } else { 0 };
            SocketAddrV6::new(ip, v6.port(), 0, scope).into()
        }
        (ip, address) => SocketAddr::new(ip, address.port()),
    }
}

/// The most buffers that one call of [`UdpSockets::recv_batch`] takes from one socket: one system call's worth.
pub const MAX_BATCH: usize = BATCH_SIZE;

/// Where buffers hold this much on average, a call fills only [`LARGE_BATCH`] of them: more takes so long to open that what is
/// to be sent meanwhile would wait for it.
const LARGE: usize = 8192;
const LARGE_BATCH: usize = 4;

/// The most that the kernel puts together with UDP GRO, and the longest datagram.
const BUFFER_LEN: usize = 65_535;

/// To receive, what arrives at 5 Gbit/s within 1.6 ms, the kernel's overhead counted, or a thousand small datagrams: more would
/// not carry more on a short path (TCP over the tunnel was as fast with eight times as much), but delay whatever waits behind.
/// To send, thirty batches of 64 KiB, so that a burst of the tunnel does not find the socket full, and too little to delay by
/// itself what comes after it.
const LEAST: Sizes = Sizes { receive: 512 * 1024, send: 2 * 1024 * 1024 };
