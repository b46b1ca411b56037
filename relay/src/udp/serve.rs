//! Moves datagrams: takes them in the runs that the kernel puts together, rewrites the handles in place, hands the runs on.

use std::array;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_socket::{Growth, Rooms};
use mesh_wire::relay::Data;
use mesh_wire::relay_udp::{DATA_HEADER, data_header, parse_data, run_len};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::LEAST;
use super::port::{Answer, Client, random};
use super::proof::Bound;
use crate::Shared;

/// Runs until told to stop.
pub(crate) async fn serve(socket: UdpSocket, shared: Arc<Shared>, stop: CancellationToken) {
    let state = match UdpSocketState::new((&socket).into()) {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(reason = %error, "the UDP port cannot be used");
            return stop.cancelled().await;
        }
    };
    let mut desk = Desk {
        out: Out { socket, state, shared, went: Cell::new(0) },
        known: HashMap::new(),
        changes: 0,
        growth: Growth::new(LEAST),
    };
    let mut buffers = vec![0; BATCH_SIZE * BUFFER].into_boxed_slice();
    loop {
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ready = desk.out.socket.readable() => ready,
        };
        match ready.and_then(|()| desk.turn(&mut buffers)) {
            Ok(()) => tokio::task::coop::consume_budget().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(reason = %error, "receiving on the UDP port failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// One socket of the port, and whose addresses it knows.
struct Desk {
    out: Out,
    /// Good while [`super::Clients::changes`] is what it was.
    known: HashMap<SocketAddr, Arc<Client>>,
    changes: u64,
    growth: Growth,
}

struct Out {
    socket: UdpSocket,
    state: UdpSocketState,
    shared: Arc<Shared>,
    /// Bytes that left since the growth heard of it.
    went: Cell<usize>,
}

impl Desk {
    /// Takes one batch.
    fn turn(&mut self, buffers: &mut [u8]) -> io::Result<()> {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let Out { socket, state, .. } = &self.out;
        let mut rest = buffers.chunks_exact_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        let count =
            socket.try_io(Interest::READABLE, || state.recv(socket.into(), &mut slices, &mut meta))?;
        let now = Instant::now();
        for (meta, buffer) in meta.iter().zip(buffers.chunks_exact_mut(BUFFER)).take(count) {
            if let Some(bytes) =
                buffer.get_mut(..meta.len).filter(|bytes| !bytes.is_empty() && meta.stride > 0)
            {
                self.growth.came(bytes.len());
                self.take(bytes, meta, now);
            }
        }
        self.make_room(now);
        Ok(())
    }

    /// Gives the socket the room that its rate and the length of the paths ask for.
    fn make_room(&mut self, now: Instant) {
        let Self { out: Out { socket, shared, went, .. }, growth, .. } = self;
        growth.went(went.take());
        let Some(sizes) = growth.look(now, || shared.udp.longest_trip()) else { return };
        let Ok(Rooms { receive, send }) = sizes.ask(socket) else { return };
        tracing::debug!(receive = receive.given, send = send.given, "a socket of the UDP port has more room");
        if receive.missing() + send.missing() > 0 && shared.udp.tells_of_room() {
            tracing::warn!(
                receive = receive.given,
                receive_wanted = receive.wanted,
                send = send.given,
                send_wanted = send.wanted,
                "the kernel gives the UDP port less room than this rate needs; raise net.core.rmem_max and wmem_max"
            );
        }
    }

    fn take(&mut self, mut bytes: &mut [u8], meta: &RecvMeta, now: Instant) {
        let client = self.at(meta.addr);
        while !bytes.is_empty() {
            let len = run_len(bytes, meta.stride);
            let (run, rest) = std::mem::take(&mut bytes).split_at_mut(len);
            bytes = rest;
            match (parse_data(run), &client) {
                (Some((masked, _)), Some(client)) => {
                    self.out.forward(client, masked, run, (meta.stride, meta.ecn), now);
                }
                (Some(_), None) => self.out.shared.metrics.udp_strangers.add(1),
                (None, _) => self.out.control(run, (meta.addr, meta.dst_ip), now),
            }
        }
    }

    /// Returns whose address this is.
    fn at(&mut self, address: SocketAddr) -> Option<Arc<Client>> {
        let clients = &self.out.shared.udp;
        let changes = clients.changes();
        if self.changes != changes {
            self.known.clear();
            self.changes = changes;
        }
        if let Some(client) = self.known.get(&address) {
            return Some(client.clone());
        }
        let client = clients.at(address)?;
        self.known.insert(address, client.clone());
        Some(client)
    }
}

impl Out {
    fn control(&self, datagram: &[u8], (from, local): (SocketAddr, Option<IpAddr>), now: Instant) {
        let metrics = &self.shared.metrics;
        let Some(cookie) = random() else { return };
        match self.shared.udp.control(datagram, (from, local), cookie, now) {
            Answer::Send(answer) => {
                let transmit = Transmit {
                    destination: from,
                    ecn: None,
                    contents: &answer,
                    segment_size: None,
                    src_ip: local,
                };
                if self.transmit(&transmit).is_ok() {
                    metrics.udp_answers.add(1);
                }
            }
            Answer::Stranger => metrics.udp_strangers.add(1),
            Answer::Stale => metrics.udp_stale.add(1),
        }
    }

    /// Passes a run of frames under one handle on.
    fn forward(
        &self,
        client: &Client,
        masked: u32,
        run: &mut [u8],
        (stride, ecn): (usize, Option<EcnCodepoint>),
        now: Instant,
    ) {
        let metrics = &self.shared.metrics;
        let datagrams = run.len().div_ceil(stride);
        let cost = run.len().max(datagrams * LEAST_COST);
        if !client.permits(cost, now) {
            metrics.udp_dropped_rate.add(count(datagrams));
            return;
        }
        let mut routes = client.routes();
        let (route, since) = match routes.get(&self.shared, client.member, masked ^ client.offer.up, now) {
            Ok(found) => found,
            Err(reason) => return metrics.no_route(reason).add(1),
        };
        let longest = stride.min(run.len());
        let settled = now.saturating_duration_since(since) >= SETTLED;
        let target = route
            .udp
            .as_deref()
            .filter(|_| settled)
            .and_then(|udp| Some((udp, udp.target(now).filter(|bound| longest <= bound.limit)?)));
        if target.is_none() && ecn == Some(EcnCodepoint::Ce) {
            // A WebSocket carries no mark; what has one and cannot keep it is lost (RFC 6040, 4.2).
            return metrics.udp_dropped_congested.add(count(datagrams));
        }
        metrics.forwarded_messages.add(1);
        if let Some((udp, bound)) = target {
            let header = data_header(route.handle ^ udp.offer.down);
            for datagram in run.chunks_mut(stride) {
                if let Some(place) = datagram.first_chunk_mut() {
                    *place = header;
                }
            }
            metrics.udp_forwarded_bytes.add(count(run.len()));
            let dropped = self.send(&bound, run, (stride, ecn));
            metrics.udp_dropped_full.add(count(dropped));
            return;
        }
        let len = without_headers(run, stride);
        let segment = u16::try_from(longest.saturating_sub(DATA_HEADER)).ok().filter(|_| datagrams > 1);
        let Some(payload) = run.get(..len) else { return };
        let data = Data { handle: masked ^ client.offer.up, segment, payload };
        metrics.forwarded_bytes.add(count(len));
        let dropped = route.deliver(&data, now);
        metrics.dropped_full.add(dropped.full);
        metrics.dropped_aged.add(dropped.aged);
    }

    /// Sends datagrams; returns how many did not leave.
    fn send(&self, to: &Bound, bytes: &[u8], (stride, ecn): (usize, Option<EcnCodepoint>)) -> usize {
        let together = self.state.max_gso_segments().clamp(1, SEGMENTS).min((LONGEST_SEND / stride).max(1));
        let mut dropped = 0;
        for part in bytes.chunks(stride * together) {
            let transmit = Transmit {
                destination: to.address,
                ecn,
                contents: part,
                segment_size: (part.len() > stride).then_some(stride),
                src_ip: to.local,
            };
            match self.transmit(&transmit) {
                Ok(()) => self.went.set(self.went.get().saturating_add(part.len())),
                Err(_) => dropped += part.len().div_ceil(stride),
            }
        }
        dropped
    }

    fn transmit(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Self { socket, state, .. } = self;
        socket.try_io(Interest::WRITABLE, || state.try_send(socket.into(), transmit))
    }
}

/// Moves the frames of a run together; returns their length.
fn without_headers(run: &mut [u8], stride: usize) -> usize {
    let mut len = 0;
    for start in (0..run.len()).step_by(stride) {
        let end = (start + stride).min(run.len());
        let from = (start + DATA_HEADER).min(end);
        run.copy_within(from..end, len);
        len += end - from;
    }
    len
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The longest run that the kernel puts together, and the longest datagram.
const BUFFER: usize = 65_535;
/// What the kernel cuts apart at once.
const SEGMENTS: usize = 64;
const LONGEST_SEND: usize = 65_535 - 60 - 8;
/// As a message of the WebSocket costs at least.
const LEAST_COST: usize = 64;
/// For so long after a route was looked up the BOUND that it caused may still be under way.
const SETTLED: Duration = Duration::from_millis(250);
/// An error of the socket that persists must not take a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_moved_together() {
        let mut bytes =
            [&data_header(1)[..], b"abc", &data_header(1), b"def", &data_header(1), b"g"].concat();
        let len = without_headers(&mut bytes, 8);
        assert_eq!(&bytes[..len], b"abcdefg");
    }
}
