//! One connection while it is up: moves messages both ways, keeps the heartbeat, notices a dead relay.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use mesh_wire::relay::{ClientMessage, ErrorCode, RelayMessage, Welcome};
use mesh_wire::relay_udp::DATA_HEADER;
use tokio::time::{Sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::answers::{Answers, Verdict};
use super::connect::Socket;
use super::queue::Presence;
use super::rtt::RoundTrips;
use super::udp::{Change, Udp};
use super::{RelayError, RelayEvent, RelaySink, Shared};

/// A welcome client's connection. Reading and writing share one task, so neither waits for the other.
pub(super) struct Link {
    socket: Socket,
    shared: Arc<Shared>,
    sink: Arc<dyn RelaySink>,
    heartbeat: Duration,
    heard: Instant,
    pings: u32,
    answers: Answers,
    trips: RoundTrips,
    /// Whether others were told that the relay does not answer.
    suspect: bool,
    /// Address of the relay, where its UDP port is too; none where UDP is not to be used.
    relay: Option<SocketAddr>,
    udp: Option<Udp>,
    unflushed: bool,
    /// Since when, and at which count of written bytes, the kernel has taken nothing.
    blocked: Option<(Instant, u64)>,
    timer: Pin<Box<Sleep>>,
    /// What the relay said last about the end of the connection.
    farewell: Option<RelayError>,
}

impl Link {
    pub(super) fn new(
        (socket, relay): (Socket, Option<SocketAddr>),
        welcome: &Welcome,
        shared: Arc<Shared>,
        sink: Arc<dyn RelaySink>,
    ) -> Self {
        let heartbeat = Duration::from_secs(u64::from(welcome.heartbeat));
        Self {
            socket,
            shared,
            sink,
            heartbeat,
            heard: Instant::now(),
            pings: 0,
            answers: Answers::default(),
            trips: RoundTrips::new(Instant::now()),
            suspect: false,
            relay,
            udp: None,
            unflushed: false,
            blocked: None,
            timer: Box::pin(tokio::time::sleep(heartbeat)),
            farewell: None,
        }
    }

    /// Runs until the connection ends, and returns why; `None` when it was told to stop.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Option<RelayError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            error = poll_fn(|cx| self.poll(cx)) => return Some(self.farewell.take().unwrap_or(error)),
        }
        let flush = async {
            // Ends early on an error: there is nobody left to flush to.
            poll_fn(|cx| self.poll_drained(cx)).await?;
            self.socket.close(None).await
        };
        if !matches!(timeout(FLUSH_TIMEOUT, flush).await, Ok(Ok(()))) {
            tracing::debug!("relay connection closed with messages unsent");
        }
        None
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayError> {
        self.shared.outgoing.register(cx.waker());
        let now = Instant::now();
        let result =
            self.write(cx, now).and_then(|()| self.read(cx, now)).and_then(|()| self.keep_time(cx, now));
        match result {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn poll_drained(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), tokio_tungstenite::tungstenite::Error>> {
        loop {
            std::task::ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            let Some(message) = self.shared.outgoing.queue().pop() else {
                return Pin::new(&mut self.socket).poll_flush(cx);
            };
            Pin::new(&mut self.socket).start_send(Message::Binary(message))?;
        }
    }

    /// Hands frames to the UDP socket until one has to go by the other way, the socket blocks or the turn is over. Returns
    /// whether the queue has room again.
    fn write_datagrams(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(udp) = &mut self.udp else { return false };
        let mut room = false;
        for _ in 0..TURN {
            let full = udp.flush(cx);
            self.shared.udp_unsent.fetch_add(udp.take_unsent(), Ordering::Relaxed);
            if full {
                return room;
            }
            let frames = {
                let mut queue = self.shared.outgoing.queue();
                let frames = queue.pop_frames(|payload, segment| udp.takes(payload, segment));
                room |= queue.take_room();
                frames
            };
            let Some(frames) = frames else { return room };
            udp.put(&frames);
            udp.used(now);
        }
        cx.waker().wake_by_ref();
        room
    }

    /// Hands queued messages to the socket until the queue is empty, the socket blocks or the turn is over.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), RelayError> {
        let mut room = self.write_datagrams(cx, now);
        let mut turn = 0;
        let blocked = loop {
            if Pin::new(&mut self.socket).poll_ready(cx)?.is_pending() {
                break true;
            }
            if turn == TURN {
                cx.waker().wake_by_ref();
                break false;
            }
            let message = {
                let mut queue = self.shared.outgoing.queue();
                let waiting = queue.queued_bytes();
                let udp = self.udp.as_mut();
                let message = queue.pop_message(|payload, segment| {
                    udp.as_ref().is_some_and(|udp| udp.takes(payload, segment))
                });
                if queue.queued_bytes() < waiting {
                    self.answers.sent(now);
                    if let Some(udp) = udp {
                        udp.used(now);
                    }
                }
                room |= queue.take_room();
                message
            };
            let Some(message) = message else {
                break self.unflushed && Pin::new(&mut self.socket).poll_flush(cx)?.is_pending();
            };
            Pin::new(&mut self.socket).start_send(Message::Binary(message))?;
            self.unflushed = true;
            turn += 1;
        };
        if room {
            self.shared.outgoing.call_room_hook();
        }
        if turn > 0 && self.udp.as_ref().is_some_and(Udp::is_up) {
            // Frames for UDP may stand behind what was just written.
            cx.waker().wake_by_ref();
        }
        if blocked {
            let written = self.socket.get_ref().get_ref().0.written();
            match self.blocked {
                Some((_, before)) if before == written => {}
                Some(_) => {
                    self.answers.progressed(now);
                    self.blocked = Some((now, written));
                }
                None => self.blocked = Some((now, written)),
            }
        } else {
            if self.blocked.take().is_some() {
                self.answers.progressed(now);
            }
            self.unflushed &= turn == TURN;
        }
        Ok(())
    }

    fn read_datagrams(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Some(udp) = &mut self.udp else { return };
        let was_up = udp.is_up();
        let mut more = true;
        let (shared, sink) = (&self.shared, &self.sink);
        for _ in 0..BATCHES {
            more = udp.receive(cx, now, |handle, run, stride, marked| {
                let Some(from) = shared.outgoing.queue().node(handle) else {
                    tracing::trace!(handle, "datagrams for an unknown handle dropped");
                    return;
                };
                let mut payload = BytesMut::with_capacity(run.len());
                for frame in run.chunks(stride).filter_map(|datagram| datagram.get(DATA_HEADER..)) {
                    payload.extend_from_slice(frame);
                }
                let segment = u16::try_from(stride - DATA_HEADER).ok().filter(|_| run.len() > stride);
                shared.demand.used(now);
                if marked {
                    sink.marked_frames(from, payload, segment);
                } else {
                    sink.frames(from, payload, segment);
                }
            });
            if !more {
                break;
            }
        }
        if udp.is_up() != was_up {
            sink.event(RelayEvent::Udp(udp.is_up()));
            more = true;
        }
        if more {
            cx.waker().wake_by_ref();
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), RelayError> {
        self.read_datagrams(cx, now);
        for _ in 0..TURN {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => return Err(RelayError::Closed),
                Poll::Ready(Some(message)) => message?,
            };
            self.heard = now;
            self.pings = 0;
            self.answers.heard();
            match message {
                Message::Binary(bytes) => self.handle(bytes, now)?,
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Err(RelayError::Closed),
                Message::Text(_) | Message::Frame(_) => {
                    return Err(RelayError::WebSocket("it sent text".to_owned()));
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn handle(&mut self, bytes: Bytes, now: Instant) -> Result<(), RelayError> {
        match RelayMessage::parse(&bytes)? {
            RelayMessage::Recv(data) => {
                let (handle, segment, header) = (data.handle, data.segment, data.header_len());
                self.deliver(handle, segment, header, bytes);
                if let Some(udp) = &mut self.udp {
                    udp.used(now);
                }
            }
            RelayMessage::Bound(bound) => {
                let presence = self.shared.outgoing.queue().bound(&bound);
                let presence =
                    presence.ok_or_else(|| RelayError::WebSocket("too many handles".to_owned()))?;
                self.tell(Some(presence));
                // Frames that waited for the handle can go.
                self.shared.outgoing.wake();
            }
            RelayMessage::PeerGone(handle) => {
                let presence = self.shared.outgoing.queue().peer_gone(handle);
                self.tell(presence);
            }
            RelayMessage::PeerPresent(handle) => {
                let presence = self.shared.outgoing.queue().peer_present(handle);
                self.tell(presence);
            }
            RelayMessage::Ping(token) => self.answer(token),
            RelayMessage::Pong(token) => {
                if let Some(rtt) = self.trips.answered(now, token) {
                    self.sink.event(RelayEvent::Rtt(rtt));
                }
            }
            RelayMessage::UdpOffer(offer) => {
                // The first one counts, and none that this side did not ask for.
                if let Some(relay) = self.relay.take() {
                    self.udp = Some(Udp::new(&offer, relay));
                }
            }
            RelayMessage::Health(text) => self.sink.event(RelayEvent::Notice(text.to_owned())),
            RelayMessage::Restarting { min_ms, max_ms } => {
                self.farewell = Some(RelayError::restarting(min_ms, max_ms));
            }
            RelayMessage::Error { code, text } => {
                self.sink.event(RelayEvent::Notice(text.to_owned()));
                if RelayError::ends_connection(code) {
                    self.farewell = Some(RelayError::from_relay(code, text));
                } else if code == ErrorCode::ControlOverflow {
                    // Handles or presence are lost: only a new connection learns them all.
                    return Err(RelayError::Overflow);
                }
            }
            RelayMessage::Roster(roster) => {
                let (version, blob) = (roster.version, bytes.slice_ref(roster.blob));
                self.sink.event(RelayEvent::Roster { version, blob });
            }
            RelayMessage::Hello(_) | RelayMessage::Welcome(_) => {
                return Err(RelayError::WebSocket("it sent a message out of turn".to_owned()));
            }
        }
        Ok(())
    }

    fn deliver(&self, handle: u32, segment: Option<u16>, header: usize, bytes: Bytes) {
        let Some(from) = self.shared.outgoing.queue().node(handle) else {
            tracing::trace!(handle, "frames for an unknown handle dropped");
            return;
        };
        let payload = match bytes.try_into_mut() {
            Ok(mut own) => {
                own.advance(header);
                own
            }
            Err(shared) => BytesMut::from(&shared[header..]),
        };
        self.shared.demand.used(Instant::now());
        self.sink.frames(from, payload, segment);
    }

    fn tell(&self, presence: Option<Presence>) {
        if let Some(Presence { node, present }) = presence {
            self.sink.event(RelayEvent::Peer { node, present });
        }
    }

    fn answer(&self, token: [u8; 8]) {
        self.shared.outgoing.queue().push_control(ClientMessage::Pong(token).encode());
        self.shared.outgoing.wake();
    }

    /// Sends heartbeats and ends the connection when the relay is silent or takes nothing.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), RelayError> {
        if self.shared.doubted.swap(false, Ordering::Relaxed) {
            self.answers.doubt(now);
        }
        let several = self.shared.several.load(Ordering::Relaxed);
        self.trips.set_several(now, several);
        self.answers.be_hasty(several, self.trips.last());
        if self.shared.measure.swap(false, Ordering::Relaxed) {
            self.trips.want(now);
        }
        if self.trips.due().is_some_and(|due| due <= now) {
            self.ask(cx, now);
        }
        if self.blocked.is_some_and(|(since, _)| now.duration_since(since) >= STALL) {
            return Err(RelayError::Stalled);
        }
        while now >= self.next_ping() {
            if self.pings == MISSED {
                return Err(RelayError::Silent);
            }
            self.pings += 1;
            self.ask(cx, now);
        }
        if let Some(udp) = &self.udp {
            self.shared.udp_singly.store(udp.goes_singly(), Ordering::Relaxed);
        }
        if let Some(udp) = &mut self.udp
            && let Change::Ended { silent } = udp.keep_time(cx, now, self.trips.last())
        {
            self.sink.event(RelayEvent::Udp(false));
            self.shared.outgoing.queue().push_control(ClientMessage::UdpEnd.encode());
            if silent {
                self.answers.doubt(now);
                self.answers.suspect();
            }
            cx.waker().wake_by_ref();
        }
        match self.answers.check(now) {
            Verdict::Fine | Verdict::Suspect => {}
            Verdict::Ask => self.ask(cx, now),
            Verdict::Silent => return Err(RelayError::Silent),
        }
        self.tell_suspect();
        let stalled = self.blocked.map(|(since, _)| since + STALL);
        let udp_due = self.udp.as_ref().and_then(Udp::due);
        let deadline = [stalled, self.answers.due(), udp_due, self.trips.due()]
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

    fn ask(&mut self, cx: &Context<'_>, now: Instant) {
        let mut queue = self.shared.outgoing.queue();
        let clear = queue.queued_bytes() == 0 && self.blocked.is_none();
        queue.push_control(ClientMessage::Ping(self.trips.ask(now, clear)).encode());
        cx.waker().wake_by_ref();
    }

    /// Says that the relay became suspect, or is not any more. What waits for room need not wait for this relay then.
    fn tell_suspect(&mut self) {
        let suspect = self.answers.is_suspect();
        if std::mem::replace(&mut self.suspect, suspect) != suspect {
            self.shared.ready.store(!suspect, Ordering::Relaxed);
            self.sink.event(RelayEvent::Suspect(suspect));
            self.shared.outgoing.call_room_hook();
        }
    }

    fn next_ping(&self) -> Instant {
        self.heard + self.heartbeat * (self.pings + 1)
    }
}

/// Messages per direction before other tasks of the runtime get their turn.
const TURN: usize = 64;
/// Batches of datagrams per turn.
const BATCHES: usize = 8;
/// Heartbeats that may stay unanswered.
const MISSED: u32 = 3;
/// How long the kernel may take no byte at all: shorter than a heartbeat, longer than a bad radio link's pause.
const STALL: Duration = Duration::from_secs(10);
/// For sending what is queued when the client is told to stop.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
