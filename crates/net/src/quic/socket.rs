//! The socket under the QUIC endpoint: its datagrams go to a [`QuicSink`] and come from [`VirtualSocket::deliver`].
//!
//! Every peer has an address that means something in here only. It is not used again after the peer was removed, so
//! that what is late for one peer never reaches another.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use mesh_wire::{NodeId, limits};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::QuicSink;
use super::sync::{AtomicWaker, Mutex, MutexGuard};

pub(super) struct VirtualSocket {
    sink: Arc<dyn QuicSink>,
    table: Mutex<Table>,
    arrived: AtomicWaker,
    room: Mutex<Room>,
    dropped: AtomicU64,
}

/// There are as many peers as there may be.
#[derive(Debug)]
pub(super) struct TableFull;

impl VirtualSocket {
    pub(super) fn new(sink: Arc<dyn QuicSink>) -> Self {
        Self {
            sink,
            table: Mutex::default(),
            arrived: AtomicWaker::new(),
            room: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Gives the peer an address, or returns the one it has.
    pub(super) fn add(&self, peer: NodeId) -> Result<SocketAddr, TableFull> {
        let mut table = self.table();
        if let Some(slot) = table.slots.get(&peer) {
            return Ok(slot.address);
        }
        if table.slots.len() >= MAX_PEERS {
            return Err(TableFull);
        }
        table.given += 1;
        let address = virtual_address(table.given);
        table.slots.insert(peer, Slot { address, queued: 0 });
        table.peers.insert(address, peer);
        let arrived = table.take_early(peer);
        drop(table);
        if arrived {
            self.arrived.wake();
        }
        Ok(address)
    }

    pub(super) fn remove(&self, peer: NodeId) {
        let mut table = self.table();
        table.early.retain(|(of, _)| *of != peer);
        if let Some(slot) = table.slots.remove(&peer) {
            table.peers.remove(&slot.address);
        }
    }

    pub(super) fn peer(&self, address: SocketAddr) -> Option<NodeId> {
        self.table().peers.get(&address).copied()
    }

    /// Queues one datagram for the endpoint; drops and counts it when the queue is full. A few of a peer without an
    /// address are kept: its session stands already, and only the word of it is on its way here.
    pub(super) fn deliver(&self, peer: NodeId, payload: &[u8]) {
        let fits = !payload.is_empty() && payload.len() <= DATAGRAM;
        match if fits { self.table().push(peer, payload) } else { Pushed::Dropped } {
            Pushed::Queued => self.arrived.wake(),
            Pushed::Kept => {}
            Pushed::Dropped => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lets everybody who met a full sink try again.
    pub(super) fn has_room(&self) {
        let wakers = {
            let mut room = self.room();
            room.turn += 1;
            room.full = false;
            std::mem::take(&mut room.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let id = {
            let mut room = self.room();
            room.pollers += 1;
            room.pollers
        };
        Box::pin(RoomPoller { socket: self, id })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(peer) = self.peer(transmit.destination) else {
            return Ok(());
        };
        let segment = transmit.segment_size.and_then(|size| u16::try_from(size).ok());
        let turn = self.room().turn;
        if self.sink.transmit(peer, BytesMut::from(transmit.contents), segment) {
            return Ok(());
        }
        let mut room = self.room();
        // Room that was made since the sink refused must not be waited for.
        room.full |= room.turn == turn;
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut table = self.table();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((address, payload)) = table.pop() else { break };
            let len = payload.len().min(buf.len());
            buf[..len].copy_from_slice(&payload[..len]);
            *meta = RecvMeta { addr: address, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        // Under the lock of the queue, so that no datagram comes in between.
        self.arrived.register(cx.waker());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(virtual_address(0))
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for VirtualSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualSocket").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Table {
    slots: HashMap<NodeId, Slot>,
    peers: HashMap<SocketAddr, NodeId>,
    /// How many addresses were ever given out.
    given: u64,
    queue: VecDeque<(SocketAddr, Box<[u8]>)>,
    /// Datagrams of peers without an address; the newest.
    early: VecDeque<(NodeId, Box<[u8]>)>,
}

enum Pushed {
    Queued,
    /// Until the peer has an address.
    Kept,
    Dropped,
}

struct Slot {
    address: SocketAddr,
    queued: usize,
}

impl Table {
    fn push(&mut self, peer: NodeId, payload: &[u8]) -> Pushed {
        let Some(slot) = self.slots.get_mut(&peer) else {
            if self.early.iter().filter(|(of, _)| *of == peer).count() == PEER_EARLY {
                return Pushed::Dropped;
            }
            // The oldest is the likeliest to be of a peer that is never expected.
            let full = self.early.len() == EARLY && self.early.pop_front().is_some();
            self.early.push_back((peer, payload.into()));
            return if full { Pushed::Dropped } else { Pushed::Kept };
        };
        if slot.queued >= PEER_QUEUE || self.queue.len() >= QUEUE {
            return Pushed::Dropped;
        }
        slot.queued += 1;
        self.queue.push_back((slot.address, payload.into()));
        Pushed::Queued
    }

    /// Queues what came before the peer had an address; tells whether anything did.
    fn take_early(&mut self, peer: NodeId) -> bool {
        let mut any = false;
        for (of, payload) in std::mem::take(&mut self.early) {
            if of == peer {
                any |= matches!(self.push(peer, &payload), Pushed::Queued);
            } else {
                self.early.push_back((of, payload));
            }
        }
        any
    }

    fn pop(&mut self) -> Option<(SocketAddr, Box<[u8]>)> {
        loop {
            let (address, payload) = self.queue.pop_front()?;
            // Datagrams of a peer that was removed are still in the queue.
            let slot = self.peers.get(&address).and_then(|peer| self.slots.get_mut(peer));
            if let Some(slot) = slot {
                slot.queued -= 1;
                return Some((address, payload));
            }
        }
    }
}

/// Whether the sink takes more, and who waits for it.
#[derive(Default)]
struct Room {
    full: bool,
    /// Counts the calls of [`VirtualSocket::has_room`].
    turn: u64,
    pollers: u64,
    wakers: HashMap<u64, Waker>,
}

struct RoomPoller {
    socket: Arc<VirtualSocket>,
    id: u64,
}

impl UdpPoller for RoomPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = self.socket.room();
        if !room.full {
            return Poll::Ready(Ok(()));
        }
        room.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for RoomPoller {
    fn drop(&mut self) {
        self.socket.room().wakers.remove(&self.id);
    }
}

impl fmt::Debug for RoomPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomPoller").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns an address of the discard prefix (RFC 6666), which no host has.
fn virtual_address(number: u64) -> SocketAddr {
    let address = (u128::from(0x0100_u16) << 112) | u128::from(number);
    SocketAddr::from((Ipv6Addr::from_bits(address), PORT))
}

/// Longest QUIC datagram in bytes, and the size of those we send: sealed (32), over UDP (8) and IPv6 (40) it is a packet
/// of 1280 bytes, which every IPv6 network carries. QUIC does not allow less (RFC 9000, section 14).
pub(super) const DATAGRAM: usize = 1200;
/// Datagrams that are handed to the sink at once: 12 kB, a fifth of a batch to the relay.
const SEGMENTS: usize = 10;
/// Datagrams that wait for the endpoint, 5 MB; further ones are dropped, as a full socket buffer would.
const QUEUE: usize = 4096;
/// The part of it that one peer can fill: a receive window.
const PEER_QUEUE: usize = 1024;
/// Datagrams kept of peers that are not expected yet, 80 kB.
const EARLY: usize = 64;
/// The part of them that one peer can have: what a client says first, sent twice.
const PEER_EARLY: usize = 4;
/// A roster has no more nodes.
const MAX_PEERS: usize = limits::ROSTER_NODES;
/// QUIC wants a port; no meaning.
const PORT: u16 = 1;

#[cfg(test)]
#[cfg(not(modelled))]
impl VirtualSocket {
    pub(super) fn is_empty(&self) -> bool {
        let table = self.table();
        table.slots.is_empty() && table.peers.is_empty() && table.early.is_empty()
    }
}

#[cfg(test)]
#[cfg(not(modelled))]
mod tests {
    use std::task::Wake;

    use super::*;
    use crate::QuicEvent;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Full;

    impl QuicSink for Full {
        fn transmit(&self, _peer: NodeId, _payload: BytesMut, _segment: Option<u16>) -> bool {
            false
        }

        fn event(&self, _event: QuicEvent) {}
    }

    fn socket() -> Arc<VirtualSocket> {
        Arc::new(VirtualSocket::new(Arc::new(Full)))
    }

    fn received(socket: &VirtualSocket) -> Vec<(SocketAddr, usize)> {
        let mut buffers = [[0; DATAGRAM]; 8];
        let mut out = Vec::new();
        loop {
            let mut meta = [RecvMeta::default(); 8];
            let mut slices = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            match socket.poll_recv(&mut Context::from_waker(Waker::noop()), &mut slices, &mut meta) {
                Poll::Ready(count) => {
                    out.extend(meta[..count.unwrap()].iter().map(|meta| (meta.addr, meta.len)));
                }
                Poll::Pending => return out,
            }
        }
    }

    #[test]
    fn one_peer_cannot_fill_the_queue() {
        let (socket, loud, quiet) = (socket(), NodeId([1; 32]), NodeId([2; 32]));
        let (_, address) = (socket.add(loud).unwrap(), socket.add(quiet).unwrap());
        for _ in 0..PEER_QUEUE + 3 {
            socket.deliver(loud, &[0; 50]);
        }
        socket.deliver(quiet, &[0; 60]);
        assert_eq!(socket.dropped(), 3);
        let received = received(&socket);
        assert_eq!(received.len(), PEER_QUEUE + 1);
        assert_eq!(received.last(), Some(&(address, 60)));
        socket.deliver(loud, &[0; 50]);
        assert_eq!(socket.dropped(), 3);
    }

    #[test]
    fn datagrams_of_no_size_or_no_peer_reach_nobody() {
        let (socket, peer) = (socket(), NodeId([1; 32]));
        socket.add(peer).unwrap();
        socket.deliver(peer, &[]);
        socket.deliver(peer, &[0; DATAGRAM + 1]);
        socket.deliver(NodeId([2; 32]), &[0; 50]);
        assert_eq!(socket.dropped(), 2);
        assert!(received(&socket).is_empty());
    }

    #[test]
    fn datagrams_that_come_before_the_address_are_kept_for_it() {
        let peer = |number: usize| NodeId([u8::try_from(number).unwrap(); 32]);
        let (socket, peers) = (socket(), EARLY / PEER_EARLY);
        for number in 0..=peers {
            for length in 50..=50 + PEER_EARLY {
                socket.deliver(peer(number), &vec![0; length]);
            }
        }
        let refused = peers + 1;
        assert_eq!(socket.dropped(), u64::try_from(refused + PEER_EARLY).unwrap());
        socket.add(peer(0)).unwrap();
        assert!(received(&socket).is_empty(), "the oldest had to go");
        let address = socket.add(peer(peers)).unwrap();
        let lengths: Vec<_> = (50..50 + PEER_EARLY).map(|length| (address, length)).collect();
        assert_eq!(received(&socket), lengths);
        socket.remove(peer(1));
        socket.add(peer(1)).unwrap();
        assert!(received(&socket).is_empty(), "what came before the goodbye is gone");
    }

    #[test]
    fn an_address_is_never_given_to_another_peer() {
        let (socket, peer) = (socket(), NodeId([1; 32]));
        let first = socket.add(peer).unwrap();
        assert_eq!(socket.add(peer).unwrap(), first);
        socket.deliver(peer, &[0; 50]);
        socket.remove(peer);
        let second = socket.add(peer).unwrap();
        assert_ne!(second, first);
        assert_eq!(socket.peer(first), None);
        assert!(received(&socket).is_empty(), "what was queued before is gone");
    }

    #[test]
    fn the_table_is_bounded() {
        let socket = socket();
        let peer = |number: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            NodeId(id)
        };
        for number in 0..MAX_PEERS {
            socket.add(peer(number)).unwrap();
        }
        assert!(socket.add(peer(MAX_PEERS)).is_err());
        socket.remove(peer(0));
        socket.add(peer(MAX_PEERS)).unwrap();
    }

    #[test]
    fn room_wakes_everybody_who_waits() {
        let (socket, peer) = (socket(), NodeId([1; 32]));
        let destination = socket.add(peer).unwrap();
        let mut pollers = [(); 2].map(|()| socket.clone().create_io_poller());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(pollers[0].as_mut().poll_writable(&mut cx).is_ready());
        let transmit = Transmit { destination, ecn: None, contents: &[1], segment_size: None, src_ip: None };
        assert_eq!(socket.try_send(&transmit).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(pollers.iter_mut().all(|poller| poller.as_mut().poll_writable(&mut cx).is_pending()));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        socket.has_room();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert!(pollers.iter_mut().all(|poller| poller.as_mut().poll_writable(&mut cx).is_ready()));
        assert!(socket.room().wakers.is_empty());
    }

    #[test]
    fn a_datagram_wakes_the_endpoint() {
        let (socket, peer) = (socket(), NodeId([1; 32]));
        socket.add(peer).unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut buffer = [0; DATAGRAM];
        let (mut slices, mut meta) = ([IoSliceMut::new(&mut buffer)], [RecvMeta::default()]);
        let mut cx = Context::from_waker(&waker);
        assert!(socket.poll_recv(&mut cx, &mut slices, &mut meta).is_pending());
        socket.deliver(peer, &[5; 50]);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(matches!(socket.poll_recv(&mut cx, &mut slices, &mut meta), Poll::Ready(Ok(1))));
        assert_eq!(slices[0][..50], [5; 50]);
    }

    #[test]
    fn room_that_came_while_the_sink_refused_is_not_waited_for() {
        struct RoomAtOnce(std::sync::OnceLock<std::sync::Weak<VirtualSocket>>);

        impl QuicSink for RoomAtOnce {
            fn transmit(&self, _peer: NodeId, _payload: BytesMut, _segment: Option<u16>) -> bool {
                self.0.get().and_then(std::sync::Weak::upgrade).unwrap().has_room();
                false
            }

            fn event(&self, _event: QuicEvent) {}
        }

        let sink = Arc::new(RoomAtOnce(std::sync::OnceLock::new()));
        let socket = Arc::new(VirtualSocket::new(sink.clone()));
        sink.0.set(Arc::downgrade(&socket)).unwrap();
        let destination = socket.add(NodeId([1; 32])).unwrap();
        let transmit = Transmit { destination, ecn: None, contents: &[1], segment_size: None, src_ip: None };
        assert!(socket.try_send(&transmit).is_err());
        let mut poller = socket.create_io_poller();
        assert!(poller.as_mut().poll_writable(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
