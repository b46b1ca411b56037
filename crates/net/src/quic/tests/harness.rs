//! A network in memory with weather, nodes on it, and a bare QUIC stack that follows no rules of ours.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mesh_wire::{NodeId, Pin};
use quinn::{Connection, EndpointConfig, TokioRuntime};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::socket::VirtualSocket;
use super::super::tls::Identity;
use super::super::{PeerInfo, QuicEndpoint, QuicEvent, QuicSink};

pub(super) const fn node_id(first: u8) -> NodeId {
    let mut id = [9; 32];
    id[0] = first;
    NodeId(id)
}

pub(super) fn random_bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

pub(super) fn hash(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    in_time(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// What happens to datagrams, in percent.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) seed: u64,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
}

impl Weather {
    pub(super) const FINE: Self = Self { seed: 1, lost: 0, twice: 0, late: 0 };
}

type Datagram = (NodeId, NodeId, Bytes);

pub(super) struct Net {
    sockets: Mutex<HashMap<NodeId, Weak<VirtualSocket>>>,
    queue: mpsc::Sender<Datagram>,
    carried: AtomicU64,
    lost: AtomicU64,
    to_lose: AtomicI64,
}

impl Net {
    pub(super) fn new(weather: Weather) -> Arc<Self> {
        let (queue, receiver) = mpsc::channel(4096);
        let net = Arc::new(Self {
            sockets: Mutex::default(),
            queue,
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            to_lose: AtomicI64::new(0),
        });
        tokio::spawn(carry(Arc::downgrade(&net), receiver, weather));
        net
    }

    pub(super) fn lose_next(&self, count: i64) {
        self.to_lose.store(count, Ordering::SeqCst);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }

    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }

    /// Waits until nobody has sent anything for a while.
    pub(super) async fn silence(&self) {
        let quiet = Duration::from_millis(800);
        let (mut since, mut seen) = (Instant::now(), self.carried());
        in_time(async {
            while since.elapsed() < quiet {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if self.carried() != seen {
                    (since, seen) = (Instant::now(), self.carried());
                }
            }
        })
        .await;
    }

    fn deliver(&self, (from, to, payload): &Datagram) {
        let socket = self.sockets.lock().unwrap().get(to).and_then(Weak::upgrade);
        if let Some(socket) = socket {
            socket.deliver(*from, payload);
        }
    }
}

/// Carries datagrams; a late one waits until five others have passed it or nothing comes.
async fn carry(net: Weak<Net>, mut queue: mpsc::Receiver<Datagram>, weather: Weather) {
    let mut state = weather.seed;
    let mut chance = |percent: u64| {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % 100 < percent
    };
    let mut late: Vec<(u8, Datagram)> = Vec::new();
    loop {
        let next = timeout(Duration::from_millis(20), queue.recv()).await;
        let Some(net) = net.upgrade() else { return };
        for (passed, datagram) in &mut late {
            *passed += 1;
            if *passed > 5 || next.is_err() {
                net.deliver(datagram);
            }
        }
        late.retain(|(passed, _)| *passed <= 5 && next.is_ok());
        let datagram = match next {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return,
            Err(_) => continue,
        };
        net.carried.fetch_add(1, Ordering::SeqCst);
        if net.to_lose.fetch_sub(1, Ordering::SeqCst) > 0 || chance(weather.lost) {
            net.lost.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        if chance(weather.twice) {
            net.deliver(&datagram);
        }
        if chance(weather.late) {
            late.push((0, datagram));
        } else {
            net.deliver(&datagram);
        }
    }
}

pub(super) struct TestSink {
    own: NodeId,
    net: Arc<Net>,
    events: mpsc::Sender<QuicEvent>,
    /// How many more calls are taken.
    credit: AtomicI64,
    refused: AtomicU64,
}

impl TestSink {
    fn new(net: &Arc<Net>, own: NodeId) -> (Arc<Self>, mpsc::Receiver<QuicEvent>) {
        let (events, receiver) = mpsc::channel(256);
        let (credit, refused) = (AtomicI64::new(i64::MAX), AtomicU64::new(0));
        (Arc::new(Self { own, net: net.clone(), events, credit, refused }), receiver)
    }

    pub(super) fn limit(&self, credit: i64) {
        self.credit.store(credit, Ordering::SeqCst);
    }

    pub(super) fn unlimit(&self) {
        self.limit(i64::MAX);
    }

    pub(super) fn is_full(&self) -> bool {
        self.credit.load(Ordering::SeqCst) <= 0
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

impl QuicSink for TestSink {
    fn transmit(&self, peer: NodeId, payload: BytesMut, segment: Option<u16>) -> bool {
        if self.credit.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        let segment = segment.map_or(payload.len(), usize::from);
        assert!(segment <= 1200 && payload.len() <= 10 * segment);
        let mut payload = payload.freeze();
        while !payload.is_empty() {
            let datagram = payload.split_to(segment.min(payload.len()));
            // A full network loses datagrams, as networks do.
            let _ = self.net.queue.try_send((self.own, peer, datagram));
        }
        true
    }

    fn event(&self, event: QuicEvent) {
        self.events.try_send(event).expect("the test reads its events");
    }
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) pin: Pin,
    pub(super) endpoint: QuicEndpoint,
    pub(super) sink: Arc<TestSink>,
    pub(super) events: mpsc::Receiver<QuicEvent>,
}

impl Node {
    pub(super) fn start(net: &Arc<Net>, id: NodeId) -> Self {
        Self::start_with(net, id, super::super::PATIENCE)
    }

    pub(super) fn start_with(net: &Arc<Net>, id: NodeId, patience: Duration) -> Self {
        let (sink, events) = TestSink::new(net, id);
        let info = PeerInfo { version: "1.0".to_owned(), os: "test of \u{7}".to_owned() };
        let (endpoint, pin) = QuicEndpoint::start_with(id, sink.clone(), &info, patience).unwrap();
        net.sockets.lock().unwrap().insert(id, Arc::downgrade(&endpoint.shared.socket));
        Self { id, pin, endpoint, sink, events }
    }

    /// Tells that no event waits.
    pub(super) fn is_calm(&mut self) -> bool {
        self.events.try_recv().is_err()
    }

    pub(super) fn connection(&self, peer: NodeId) -> Connection {
        self.endpoint.shared.peers.connection(peer).expect("the connection is ready")
    }

    pub(super) async fn next(&mut self) -> QuicEvent {
        in_time(self.events.recv()).await.unwrap()
    }

    /// Skips events until one is as wanted.
    pub(super) async fn until(&mut self, wanted: impl Fn(&QuicEvent) -> bool) -> QuicEvent {
        in_time(async {
            loop {
                let event = self.next().await;
                if wanted(&event) {
                    return event;
                }
            }
        })
        .await
    }

    /// Expects Ready; INFO of an earlier connection may come before.
    pub(super) async fn ready(&mut self) -> [u8; 8] {
        let event = self.until(|event| !matches!(event, QuicEvent::Info { .. })).await;
        let QuicEvent::Ready { connection, .. } = event else { panic!("{event:?}") };
        connection
    }

    /// Expects Ready, whatever came before.
    pub(super) async fn ready_at_last(&mut self) -> [u8; 8] {
        let event = self.until(|event| matches!(event, QuicEvent::Ready { .. })).await;
        let QuicEvent::Ready { connection, .. } = event else { panic!("{event:?}") };
        connection
    }

    pub(super) async fn lost(&mut self) -> String {
        let event = self.next().await;
        let QuicEvent::Lost { reason, .. } = event else { panic!("{event:?}") };
        reason
    }

    pub(super) async fn lost_after_info(&mut self) -> String {
        self.info().await;
        self.lost().await
    }

    pub(super) async fn info(&mut self) -> PeerInfo {
        let event = self.next().await;
        let QuicEvent::Info { info, .. } = event else { panic!("{event:?}") };
        info
    }
}

/// A QUIC stack on the network without any of our rules.
pub(super) struct Bare {
    pub(super) identity: Identity,
    pub(super) endpoint: quinn::Endpoint,
    socket: Arc<VirtualSocket>,
}

impl Bare {
    pub(super) fn start(net: &Arc<Net>, id: NodeId, identity: Identity) -> Self {
        let (sink, _) = TestSink::new(net, id);
        let socket = Arc::new(VirtualSocket::new(sink));
        net.sockets.lock().unwrap().insert(id, Arc::downgrade(&socket));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            socket.clone(),
            Arc::new(TokioRuntime),
        )
        .unwrap();
        Self { identity, endpoint, socket }
    }

    pub(super) fn serve(&self, peer: NodeId, pin: Pin) {
        self.endpoint.set_server_config(Some(self.identity.server(Some(pin)).unwrap()));
        self.socket.add(peer).unwrap();
    }

    pub(super) async fn connect(&self, peer: NodeId, pin: Pin) -> Result<Connection, quinn::ConnectionError> {
        let config = self.identity.client(pin).unwrap();
        let address = self.socket.add(peer).unwrap();
        in_time(self.endpoint.connect_with(config, address, "any").unwrap()).await
    }
}

const DEADLINE: Duration = Duration::from_secs(30);
