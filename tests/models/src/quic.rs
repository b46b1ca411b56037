//! The socket under the QUIC endpoint: the engine brings datagrams and tells of room, the endpoint's task takes and sends.

#[rustfmt::skip]
#[path = "../../../crates/net/src/quic/socket.rs"]
#[expect(dead_code, reason = "the models use a part of what the endpoint uses")]
mod socket;

/// What the socket is built from, under loom.
mod sync {
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) use crate::relay_client::AtomicWaker;
}

use std::future::poll_fn;
use std::io::{ErrorKind, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::BytesMut;
use loom::future::block_on;
use loom::thread;
use mesh_wire::NodeId;
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use socket::VirtualSocket;

use crate::{WakeUp, check};

/// Where the socket's datagrams go; it uses this part only.
trait QuicSink: Send + Sync + 'static {
    /// Takes datagrams for a peer, or refuses them for want of room.
    fn transmit(&self, peer: NodeId, payload: BytesMut, segment: Option<u16>) -> bool;
}

const PEER: NodeId = NodeId([1; 32]);

/// A sink that refuses until it is emptied.
#[derive(Default)]
struct Sink {
    full: AtomicBool,
    taken: AtomicUsize,
}

impl QuicSink for Sink {
    fn transmit(&self, _peer: NodeId, _payload: BytesMut, _segment: Option<u16>) -> bool {
        if self.full.load(Ordering::SeqCst) {
            return false;
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// The engine delivers two datagrams while the endpoint's task takes them: it gets both, and never sleeps while one is
/// there.
pub fn nothing_waits_unseen(wake_up: WakeUp) {
    check(move || {
        let socket = Arc::new(VirtualSocket::new(Arc::new(Sink::default())));
        socket.add(PEER).expect("there is room");
        let engine = {
            let socket = Arc::clone(&socket);
            thread::spawn(move || {
                for mark in [1, 2] {
                    socket.deliver(PEER, &[mark]);
                }
            })
        };
        let mut marks = Vec::new();
        block_on(poll_fn(|cx| {
            while let Poll::Ready(mark) = receive(&socket, cx) {
                marks.push(mark);
            }
            // A task that registered with another waker is not woken.
            if wake_up == WakeUp::IsLost && marks.len() < 2 {
                let _ = receive(&socket, &mut Context::from_waker(std::task::Waker::noop()));
            }
            if marks.len() == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        engine.join().expect("the engine does not panic");
        assert_eq!(marks, [1, 2]);
    });
}

/// The sink is full; the engine makes room and says so while the endpoint's task tries to send: it sends in the end.
pub fn room_is_told(wake_up: WakeUp) {
    check(move || {
        let sink = Arc::new(Sink { full: AtomicBool::new(true), taken: AtomicUsize::new(0) });
        let socket = Arc::new(VirtualSocket::new(sink.clone()));
        let destination = socket.add(PEER).expect("there is room");
        let engine = {
            let (socket, sink) = (Arc::clone(&socket), sink.clone());
            thread::spawn(move || {
                sink.full.store(false, Ordering::SeqCst);
                if wake_up == WakeUp::Works {
                    socket.has_room();
                }
            })
        };
        let mut poller = Arc::clone(&socket).create_io_poller();
        let transmit =
            Transmit { destination, ecn: None, contents: b"datagram", segment_size: None, src_ip: None };
        block_on(poll_fn(|cx| {
            loop {
                match socket.try_send(&transmit) {
                    Ok(()) => return Poll::Ready(()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if poller.as_mut().poll_writable(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }));
        engine.join().expect("the engine does not panic");
        assert_eq!(sink.taken.load(Ordering::SeqCst), 1);
    });
}

fn receive(socket: &VirtualSocket, cx: &mut Context<'_>) -> Poll<u8> {
    let (mut buffer, mut meta) = ([0; 16], [RecvMeta::default()]);
    let polled = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta);
    polled.map(|received| {
        assert_eq!((received.expect("the socket has no errors"), meta[0].len), (1, 1));
        buffer[0]
    })
}
