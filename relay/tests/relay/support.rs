//! Networks, relays and clients for the tests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mesh_identity::{Identity, NewMember, ProofKind, Roster, RosterDraft, UnixSeconds, default_pool};
use mesh_net::{DoorAt, RelayClient, RelayConfig, RelayEvent, RelaySender, RelaySink};
use mesh_wire::relay::Role;
use mesh_wire::roster::{Link, RosterSettings};
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};
use meshrelay::{Config, Relay};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A network with two members.
pub(crate) struct Network {
    pub(crate) root: Arc<Identity>,
    pub(crate) nodes: Vec<Arc<Identity>>,
    pub(crate) roster: Roster,
}

impl Network {
    pub(crate) fn new(members: usize) -> Self {
        let now = now();
        let root = Identity::generate().unwrap();
        let nodes: Vec<_> = (0..members).map(|_| Arc::new(Identity::generate().unwrap())).collect();
        let mut draft =
            RosterDraft::new(root.public(), settings(root.net_id()), nodes[0].node_id(), member(0, now))
                .unwrap();
        for (number, node) in nodes.iter().enumerate().skip(1) {
            draft.admit(node.node_id(), member(number, now)).unwrap();
        }
        let roster = draft.sign(&root, now, 3600).unwrap();
        Self { root: Arc::new(root), nodes, roster }
    }

    pub(crate) fn id(&self) -> NetId {
        self.root.net_id()
    }

    pub(crate) fn node(&self, number: usize) -> NodeId {
        self.nodes[number].node_id()
    }

    pub(crate) fn proof(&self, number: usize) -> Vec<u8> {
        self.roster.proof(&self.node(number), ProofKind::WithRoot).unwrap().encode()
    }

    /// Connects a member.
    pub(crate) fn member(&self, relay: &Place, number: usize) -> Client {
        Client::start(relay, Role::Member, self.id(), self.nodes[number].clone(), self.proof(number))
    }

    /// As which a node connects as a member.
    pub(crate) fn config(&self, relay: &Place, number: usize) -> RelayConfig {
        relay.config(Role::Member, self.id(), self.nodes[number].clone(), self.proof(number))
    }

    /// Connects the mailbox.
    pub(crate) fn mailbox(&self, relay: &Place) -> Client {
        Client::start(relay, Role::Root, self.id(), self.root.clone(), Vec::new())
    }

    /// Connects a stranger who claims the network.
    pub(crate) fn guest(&self, relay: &Place) -> Client {
        let fresh = Arc::new(Identity::generate().unwrap());
        Client::start(relay, Role::Guest, self.id(), fresh, Vec::new())
    }
}

fn settings(net: NetId) -> RosterSettings {
    RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: default_pool(net, 0),
        link: Link::Tun,
        mtu: 1420,
        relays: Vec::new(),
    }
}

fn member(number: usize, now: UnixSeconds) -> NewMember {
    NewMember {
        name: format!("node{number}").parse().unwrap(),
        groups: Default::default(),
        prefixes: Default::default(),
        not_before: now,
        not_after: UnixSeconds(now.0 + 3600),
    }
}

pub(crate) fn now() -> UnixSeconds {
    UnixSeconds(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// A configuration for loopback with all ports chosen by the kernel.
pub(crate) fn config(state_dir: &Path) -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        listen: vec![any],
        stun_listen: vec![any, any],
        metrics_listen: Some(any),
        state_dir: state_dir.to_owned(),
        ..Config::default()
    }
}

/// Where a relay listens.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) pin: Pin,
    /// Whose door it is, of a door.
    pub(crate) host: Option<NodeId>,
}

impl Place {
    fn config(&self, role: Role, net: NetId, identity: Arc<Identity>, admission: Vec<u8>) -> RelayConfig {
        let (pin, address) = (Some(self.pin), self.address);
        let url = RelayUrl::new(&address.ip().to_string(), address.port()).unwrap();
        let door = self.host.map(|host| DoorAt { host, addresses: vec![address] });
        RelayConfig { door, udp: true, url, pin, role, net, identity, admission }
    }
}

/// A relay with its state directory.
pub(crate) struct Running {
    pub(crate) relay: Relay,
    pub(crate) place: Place,
    pub(crate) dir: TempDir,
}

impl Running {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let relay = Relay::start(config).unwrap();
        let place = Place { address: relay.addresses()[0], pin: relay.pin(), host: None };
        Self { relay, place, dir }
    }

    /// Waits until the metrics hold a line.
    pub(crate) async fn metric(&self, line: &str) {
        let address = self.relay.metrics_address().unwrap();
        wait_for(line, async || http_get(address, "/metrics").await.lines().any(|found| found == line)).await;
    }
}

/// What a client's sink has received.
#[derive(Debug)]
pub(crate) enum Seen {
    Frames(NodeId, BytesMut, Option<u16>),
    Event(RelayEvent),
}

#[derive(Default)]
struct Sink {
    seen: Mutex<VecDeque<Seen>>,
    news: Notify,
}

impl Sink {
    fn push(&self, seen: Seen) {
        self.seen.lock().unwrap().push_back(seen);
        self.news.notify_one();
    }
}

impl RelaySink for Sink {
    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        self.push(Seen::Frames(from, payload, segment));
    }

    fn event(&self, event: RelayEvent) {
        self.push(Seen::Event(event));
    }
}

/// A client of `mesh-net` whose events are taken one by one.
pub(crate) struct Client {
    pub(crate) client: RelayClient,
    pub(crate) sender: RelaySender,
    pub(crate) id: NodeId,
    sink: Arc<Sink>,
}

impl Client {
    pub(crate) fn start(
        relay: &Place,
        role: Role,
        net: NetId,
        identity: Arc<Identity>,
        admission: Vec<u8>,
    ) -> Self {
        let id = if role == Role::Root { net.as_party() } else { identity.node_id() };
        Self { id, ..Self::with_config(relay.config(role, net, identity, admission)) }
    }

    pub(crate) fn with_config(config: RelayConfig) -> Self {
        let id = config.identity.node_id();
        let sink = Arc::new(Sink::default());
        let client = RelayClient::start(config, sink.clone());
        Self { sender: client.sender(), client, id, sink }
    }

    /// Takes everything until something is wanted, and returns that.
    pub(crate) async fn wait<T>(&self, what: &str, mut wanted: impl FnMut(Seen) -> Option<T>) -> T {
        let search = async {
            loop {
                loop {
                    let Some(seen) = self.sink.seen.lock().unwrap().pop_front() else { break };
                    if let Some(found) = wanted(seen) {
                        return found;
                    }
                }
                self.sink.news.notified().await;
            }
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    pub(crate) async fn up(&self) -> SocketAddr {
        self.wait("Up", |seen| match seen {
            Seen::Event(RelayEvent::Up { observed, .. }) => Some(observed),
            Seen::Event(RelayEvent::Down { reason, .. }) => panic!("{reason}"),
            _ => None,
        })
        .await
    }

    pub(crate) async fn down(&self) -> mesh_net::RelayError {
        self.wait("Down", |seen| match seen {
            Seen::Event(RelayEvent::Down { reason, .. }) => Some(reason),
            _ => None,
        })
        .await
    }

    pub(crate) async fn peer(&self, wanted: NodeId) -> bool {
        self.wait("Peer", |seen| match seen {
            Seen::Event(RelayEvent::Peer { node, present }) if node == wanted => Some(present),
            _ => None,
        })
        .await
    }

    pub(crate) async fn frames(&self) -> (NodeId, BytesMut, Option<u16>) {
        self.wait("frames", |seen| match seen {
            Seen::Frames(from, payload, segment) => Some((from, payload, segment)),
            Seen::Event(_) => None,
        })
        .await
    }

    pub(crate) async fn roster(&self) -> (u64, Bytes) {
        self.wait("Roster", |seen| match seen {
            Seen::Event(RelayEvent::Roster { version, blob }) => Some((version, blob)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn notice(&self) -> String {
        self.wait("Notice", |seen| match seen {
            Seen::Event(RelayEvent::Notice(text)) => Some(text),
            _ => None,
        })
        .await
    }

    /// Frames that were received and not taken yet.
    pub(crate) fn pending_frames(&self) -> usize {
        self.sink.seen.lock().unwrap().iter().filter(|seen| matches!(seen, Seen::Frames(..))).count()
    }

    pub(crate) fn send(&self, to: NodeId, payload: &[u8]) {
        self.sender.send(to, BytesMut::from(payload), None).unwrap();
    }
}

/// Asks again and again until it holds.
pub(crate) async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let search = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Returns the whole answer of a plain HTTP request.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
