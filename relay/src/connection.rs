//! One client's connection: reads its messages, forwards its data, writes what its outbox holds.
//!
//! Reading and writing share one task and neither waits for the other. The routes of the client's handles are cached,
//! so that a message is forwarded with one short lock: that of the destination's outbox.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Sink, Stream, StreamExt};
use mesh_wire::WireError;
use mesh_wire::relay::{ClientMessage, DATA_MESSAGE, Data, ErrorCode, RelayMessage, Role, RosterBlob};
use tokio::time::{Sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data as OpData, OpCode};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::Shared;
use crate::admit::Socket;
use crate::bucket::Bucket;
use crate::doubt::{Doubt, Verdict};
use crate::hub::Member;
use crate::outbox::Outbox;
use crate::queue::{Dropped, Next};
use crate::routes::Routes;
use crate::udp;

/// A client's place in the hub; dropping it makes the place free.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) member: Member,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) shared: Arc<Shared>,
    /// The client's place at the UDP port.
    pub(crate) udp: Option<Arc<udp::Client>>,
}

impl Seat {
    fn offer_udp(&mut self, bucket: &Arc<Mutex<Bucket>>) {
        let Some(offer) = self.shared.udp.offer() else { return };
        let client = self.shared.udp.join(offer, self.member, bucket.clone());
        self.shared.hub().set_udp(self.member, client.clone());
        self.udp = Some(client);
        self.outbox.control(&RelayMessage::UdpOffer(offer));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.hub().leave(self.member);
        if let Some(client) = &self.udp {
            self.shared.udp.leave(client);
        }
    }
}

/// An authenticated client.
pub(crate) struct Connection {
    socket: Socket,
    seat: Seat,
    role: Role,
    routes: Routes,
    /// Shared with the UDP port: one rate for both ways.
    bucket: Arc<Mutex<Bucket>>,
    /// For rosters: each goes to all members of the network.
    puts: Bucket,
    throttle_told: Option<Instant>,
    /// When a guest has to go.
    expires: Option<Instant>,
    heartbeat: Duration,
    heard: Instant,
    pings: u32,
    /// What is left of a long message that is written in fragments.
    rest: Option<Bytes>,
    unflushed: bool,
    /// Since when, and at which count of written bytes, the kernel has taken nothing.
    blocked: Option<(Instant, u64)>,
    /// Behind the door of a node: whether the client gives signs of life.
    doubt: Option<Doubt>,
    /// Nothing more is read; what is queued is still written.
    ending: bool,
    timer: Pin<Box<Sleep>>,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left or the network broke.
    Closed,
    /// The client takes nothing.
    Stalled,
    /// The client does not answer.
    Silent,
    /// The relay closed it; the outbox said why.
    ByRelay,
}

impl Connection {
    /// `udp`: the client understands UDP_OFFER.
    pub(crate) fn new(socket: Socket, mut seat: Seat, role: Role, udp: bool) -> Self {
        let limits = &seat.shared.config.limits;
        let rate = f64::from(match role {
            Role::Guest => limits.guest_bytes_per_second,
            Role::Member | Role::Root => limits.bytes_per_second,
        });
        let now = Instant::now();
        let heartbeat = Duration::from_secs(limits.heartbeat_seconds.into());
        let expires = (role == Role::Guest).then(|| now + Duration::from_secs(limits.guest_seconds.into()));
        let bucket = Arc::new(Mutex::new(Bucket::new(rate, rate / 4.0, now)));
        if udp && role != Role::Guest {
            seat.offer_udp(&bucket);
        }
        Self {
            socket,
            role,
            routes: Routes::default(),
            bucket,
            puts: Bucket::new(PUT_RATE, PUT_BURST, now),
            throttle_told: None,
            expires,
            heartbeat,
            heard: now,
            pings: 0,
            rest: None,
            unflushed: false,
            blocked: None,
            doubt: seat.shared.door.is_some().then(Doubt::default),
            ending: false,
            timer: Box::pin(tokio::time::sleep(heartbeat)),
            seat,
        }
    }

    /// Runs until the connection ends.
    pub(crate) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        let metrics = &self.seat.shared.metrics;
        match end {
            End::Closed => metrics.ended_closed.add(1),
            End::Stalled => metrics.ended_stalled.add(1),
            End::Silent => metrics.ended_silent.add(1),
            End::ByRelay if self.ending => metrics.ended_protocol.add(1),
            End::ByRelay => metrics.ended_by_relay.add(1),
        }
        tracing::debug!(peer = %self.seat.member.party.1, reason = ?end, "client disconnected");
        let Self { mut socket, seat, .. } = self;
        // Peers learn at once, not after the courtesies.
        drop(seat);
        if end == End::ByRelay {
            // Reading on lets the last words arrive: a socket closed with unread data is reset.
            let linger = async {
                let _ = socket.close(None).await;
                while matches!(socket.next().await, Some(Ok(_))) {}
            };
            let _ = timeout(LINGER, Box::pin(linger)).await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.seat.outbox.register(cx.waker());
        let now = Instant::now();
        let result =
            self.write(cx, now).and_then(|()| self.read(cx, now)).and_then(|()| self.keep_time(cx, now));
        match result {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Hands queued messages to the socket until the outbox is empty, the socket blocks or the turn is over.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        let mut dropped = Dropped::default();
        let result = self.write_turn(cx, now, &mut dropped);
        self.count_dropped(dropped);
        if result? {
            let written = self.socket.get_ref().get_ref().0.written();
            if self.blocked.is_none_or(|(_, before)| before != written) {
                if let Some(doubt) = self.doubt.as_mut().filter(|_| self.blocked.is_some()) {
                    doubt.progressed(now);
                }
                self.blocked = Some((now, written));
            }
        } else {
            self.blocked = None;
        }
        Ok(())
    }

    /// Returns whether the socket blocks.
    fn write_turn(&mut self, cx: &mut Context<'_>, now: Instant, dropped: &mut Dropped) -> Result<bool, End> {
        for _ in 0..TURN {
            if Pin::new(&mut self.socket).poll_ready(cx).map_err(|_| End::Closed)?.is_pending() {
                return Ok(true);
            }
            let rest = self.rest.take();
            let first = rest.is_none();
            let next = rest.map_or_else(|| self.seat.outbox.pop(now, dropped), Next::Message);
            if let Next::Message(message) = next {
                if let Some(doubt) = self.doubt.as_mut().filter(|_| first && is_data(&message)) {
                    doubt.sent(now);
                }
                let message = if first && message.len() <= DATA_MESSAGE {
                    Message::Binary(message)
                } else {
                    let (fragment, rest) = fragment(message, first);
                    self.rest = rest;
                    Message::Frame(fragment)
                };
                Pin::new(&mut self.socket).start_send(message).map_err(|_| End::Closed)?;
                self.unflushed = true;
                continue;
            }
            if self.unflushed {
                if Pin::new(&mut self.socket).poll_flush(cx).map_err(|_| End::Closed)?.is_pending() {
                    return Ok(true);
                }
                self.unflushed = false;
            }
            return if next == Next::Close { Err(End::ByRelay) } else { Ok(false) };
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        // Whoever asks faster than it reads the answers waits: dropped answers would cost it the connection.
        if self.seat.outbox.is_crowded() {
            return Ok(());
        }
        for _ in 0..TURN {
            if self.ending || self.pause().is_some_and(|until| until > now) {
                return Ok(());
            }
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => return Err(End::Closed),
                Poll::Ready(Some(Err(tungstenite::Error::Capacity(_)))) => {
                    self.refuse(ErrorCode::TooLarge, "the message is longer than this client may send");
                    return Ok(());
                }
                Poll::Ready(Some(Err(_))) => return Err(End::Closed),
                Poll::Ready(Some(Ok(message))) => message,
            };
            self.heard = now;
            self.pings = 0;
            if self.doubt.as_mut().is_some_and(|doubt| doubt.heard(now)) {
                self.set_doubtful(false);
            }
            match message {
                Message::Binary(bytes) => self.handle(&bytes, now),
                // The library answers; this only makes a flood of them count.
                Message::Ping(_) | Message::Pong(_) => self.bucket().take(CONTROL_COST, now),
                Message::Close(_) => return Err(End::Closed),
                Message::Text(_) | Message::Frame(_) => {
                    self.refuse(ErrorCode::BadMessage, "expected binary messages");
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn handle(&mut self, bytes: &[u8], now: Instant) {
        let member = self.seat.member;
        let message = ClientMessage::parse(bytes);
        self.bucket().take(cost(message.as_ref().ok(), bytes.len()), now);
        match message {
            Ok(ClientMessage::Send(data)) => self.forward(&data, now),
            Ok(ClientMessage::Bind(node)) => self.seat.shared.hub().bind(member, node),
            Ok(ClientMessage::Unbind(handle)) => self.seat.shared.hub().unbind(member, handle),
            Ok(ClientMessage::Ping(token)) => {
                self.seat.outbox.control(&RelayMessage::Pong(token));
            }
            Ok(ClientMessage::Pong(_)) => {}
            Ok(ClientMessage::UdpEnd) => {
                if let Some(client) = &self.seat.udp {
                    self.seat.shared.udp.end(client);
                }
            }
            Ok(ClientMessage::RosterPut(roster)) => {
                self.puts.take(1.0, now);
                self.put_roster(&roster);
            }
            Ok(ClientMessage::Auth(_)) => self.refuse(ErrorCode::BadMessage, "CLIENT_AUTH came twice"),
            Err(WireError::TooLong(_)) => self.refuse(ErrorCode::TooLarge, "the payload is too long"),
            Err(error) => self.refuse(ErrorCode::BadMessage, &error.to_string()),
        }
        self.tell_throttle(now);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns until when nothing more is read.
    fn pause(&self) -> Option<Instant> {
        self.bucket().wait().max(self.puts.wait())
    }

    fn forward(&mut self, data: &Data<'_>, now: Instant) {
        let shared = self.seat.shared.clone();
        let metrics = &shared.metrics;
        match self.routes.get(&shared, self.seat.member, data.handle, now) {
            Ok((route, _)) => {
                metrics.forwarded_messages.add(1);
                metrics.forwarded_bytes.add(u64::try_from(data.payload.len()).unwrap_or(0));
                let dropped = route.deliver(data, now);
                self.count_dropped(dropped);
            }
            Err(reason) => metrics.no_route(reason).add(1),
        }
    }

    fn put_roster(&self, roster: &RosterBlob<'_>) {
        let Seat { member, outbox, shared, udp: _ } = &self.seat;
        if self.role != Role::Root {
            let text = "only the holder of the root keys may put a roster";
            outbox.control(&RelayMessage::Error { code: ErrorCode::NotPermitted, text });
            return;
        }
        let message = RelayMessage::Roster(*roster).encode();
        let result = shared.hub().put_roster(*member, roster.version, message.into());
        match result {
            Ok(()) => shared.metrics.rosters_taken.add(1),
            Err(error) => {
                let (code, text) = error.answer();
                outbox.control(&RelayMessage::Error { code, text });
            }
        }
    }

    /// Ends the connection for something that the client did.
    fn refuse(&mut self, code: ErrorCode, text: &str) {
        self.ending = true;
        self.seat.outbox.close_with(code, text);
    }

    /// Tells the client, once a minute at most, that its rate is limited.
    fn tell_throttle(&mut self, now: Instant) {
        let Some(until) = self.bucket().wait() else { return };
        let recent = self.throttle_told.is_some_and(|told| now.duration_since(told) < THROTTLE_NOTICE);
        if until <= now || recent {
            return;
        }
        self.throttle_told = Some(now);
        let limits = &self.seat.shared.config.limits;
        let rate =
            if self.role == Role::Guest { limits.guest_bytes_per_second } else { limits.bytes_per_second };
        let text = format!("this relay takes {rate} bytes per second from this client, which is reached");
        self.seat.outbox.control(&RelayMessage::Health(&text));
    }

    fn count_dropped(&self, dropped: Dropped) {
        let metrics = &self.seat.shared.metrics;
        metrics.dropped_full.add(dropped.full);
        metrics.dropped_aged.add(dropped.aged);
    }

    /// Sends heartbeats and ends a connection that is silent or takes nothing.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        if self.blocked.is_some_and(|(since, _)| now.duration_since(since) >= STALL) {
            return Err(End::Stalled);
        }
        if self.expires.is_some_and(|at| now >= at) {
            self.expires = None;
            self.seat.outbox.close_with(ErrorCode::Busy, "enrolling took too long, try again");
            cx.waker().wake_by_ref();
        }
        while now >= self.next_ping() {
            if self.pings == MISSED {
                return Err(End::Silent);
            }
            self.pings += 1;
            self.seat.outbox.control(&RelayMessage::Ping(*b"heartbt?"));
            cx.waker().wake_by_ref();
        }
        self.look_for_life(cx, now)?;
        let stalls = self.blocked.map(|(since, _)| since + STALL);
        let judges = self.doubt.as_ref().and_then(Doubt::due);
        let resumes = self.pause().filter(|until| *until > now);
        let deadline = [stalls, resumes, judges, self.expires]
            .into_iter()
            .flatten()
            .fold(self.next_ping(), Instant::min);
        // A timer that fires early is cheaper than one that is set anew for every message.
        if self.timer.is_elapsed() || self.timer.deadline() > deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Asks a client for a sign of life that is sent frames and is silent, and tells the node behind the door.
    fn look_for_life(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        let Some(doubt) = &mut self.doubt else { return Ok(()) };
        match doubt.check(now) {
            Verdict::Fine => {}
            Verdict::Ask => {
                self.seat.outbox.control(&RelayMessage::Ping(*b"answer?!"));
                cx.waker().wake_by_ref();
            }
            Verdict::Doubtful => self.set_doubtful(true),
            Verdict::Silent => return Err(End::Silent),
        }
        Ok(())
    }

    fn set_doubtful(&self, doubtful: bool) {
        self.seat.outbox.set_doubtful(doubtful);
        if let Some(door) = &self.seat.shared.door {
            door.doubt(self.seat.member.party.1, doubtful);
        }
    }

    fn next_ping(&self) -> Instant {
        self.heard + self.heartbeat * (self.pings + 1)
    }
}

/// Returns the next frame of a long message (RFC 6455, section 5.4), and what is left: a socket keeps room for the
/// longest frame that it ever wrote, which must not be a whole roster.
fn fragment(mut message: Bytes, first: bool) -> (Frame, Option<Bytes>) {
    let rest = (message.len() > FRAGMENT).then(|| message.split_off(FRAGMENT));
    let opcode = OpCode::Data(if first { OpData::Binary } else { OpData::Continue });
    (Frame::message(message, opcode, rest.is_none()), rest)
}

/// Tells whether a message to a client holds frames.
fn is_data(message: &[u8]) -> bool {
    matches!(RelayMessage::parse(message), Ok(RelayMessage::Recv(_)))
}

/// What a message takes from the client's bucket: its bytes, but at least what handling it costs us.
fn cost(message: Option<&ClientMessage<'_>>, len: usize) -> f64 {
    let least = match message {
        Some(ClientMessage::Bind(_) | ClientMessage::Unbind(_)) => HANDLE_COST,
        Some(_) | None => CONTROL_COST,
    };
    f64::from(u32::try_from(len).unwrap_or(u32::MAX)).max(least)
}

/// Makes a flood of tiny messages cost what packets of a usual size cost.
const CONTROL_COST: f64 = 64.0;
/// BIND and UNBIND change what all connections share.
const HANDLE_COST: f64 = 4096.0;
/// Rosters that are taken of a network per second, and at once; beyond it the client is read later.
const PUT_RATE: f64 = 5.0;
const PUT_BURST: f64 = 20.0;
/// Bytes of a fragment.
const FRAGMENT: usize = 16 * 1024;
/// Messages per direction before other tasks of the runtime get their turn.
const TURN: usize = 64;
/// Heartbeats that may stay unanswered.
const MISSED: u32 = 3;
/// How long the kernel may take no byte at all for a client.
const STALL: Duration = Duration::from_secs(2);
/// How long a client that is sent away may take to read why.
const LINGER: Duration = Duration::from_millis(500);
const THROTTLE_NOTICE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_wire::NodeId;

    #[test]
    fn messages_cost_what_they_make_the_relay_do() {
        let same = |found: f64, wanted: f64| assert!((found - wanted).abs() < 0.5, "{found}");
        same(cost(Some(&ClientMessage::Pong([0; 8])), 9), CONTROL_COST);
        same(cost(Some(&ClientMessage::Bind(NodeId([0; 32]))), 33), HANDLE_COST);
        same(cost(Some(&ClientMessage::Unbind(7)), 5), HANDLE_COST);
        same(cost(None, 1500), 1500.0);
    }

    #[test]
    fn a_long_message_is_cut_into_fragments() {
        let message = Bytes::from((0..=255).cycle().take(5 * FRAGMENT / 2).collect::<Vec<u8>>());
        let (mut whole, mut frames, mut rest) = (Vec::new(), Vec::new(), Some(message.clone()));
        while let Some(left) = rest {
            let (frame, next) = fragment(left, frames.is_empty());
            whole.extend_from_slice(frame.payload());
            frames.push((frame.header().opcode, frame.header().is_final));
            rest = next;
        }
        assert_eq!(whole, message);
        let (binary, more) = (OpCode::Data(OpData::Binary), OpCode::Data(OpData::Continue));
        assert_eq!(frames, [(binary, false), (more, false), (more, true)]);
        assert_eq!(fragment(message.slice(..FRAGMENT), false).1, None);
    }
}
