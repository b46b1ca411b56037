//! The control API: HTTP on the daemon's socket, and the documents that go over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_control::{
    ApiError, Document, DownAnswer, ErrorCode, Event, Id, InviteAnswer, InviteRequest, Netcheck, NodeState,
    PeerStatus, Peers, PingAnswer, PingRequest, RelayRequest, Relays, Status, UpAnswer, UpRequest, Version,
};
use meshd::api::{Backend, serve_connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::input::Input;

/// Reads the bytes as a document of each kind, and sends them to the daemon's socket as they are, and as the body of a
/// well-formed request.
pub fn control_api(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.u8();
    let rest = input.rest();
    match choice % 4 {
        0 => documents(rest),
        1 => talk(rest, choice >= 128),
        _ => {
            let route = Input::new(&[choice / 4]).pick(&ROUTES).to_owned();
            let head = format!(
                "{route} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                rest.len()
            );
            talk(&[head.as_bytes(), rest].concat(), choice >= 128);
        }
    }
}

const ROUTES: [&str; 6] =
    ["POST /v1/up", "POST /v1/ping", "POST /v1/invites", "POST /v1/down", "GET /v1/peers/x", "PUT /v1/up"];

fn documents(data: &[u8]) {
    request::<UpRequest>(data);
    request::<PingRequest>(data);
    request::<InviteRequest>(data);
    request::<RelayRequest>(data);
    answer::<Status>(data);
    answer::<Peers>(data);
    answer::<Id>(data);
    answer::<Version>(data);
    answer::<UpAnswer>(data);
    answer::<DownAnswer>(data);
    answer::<PingAnswer>(data);
    answer::<Netcheck>(data);
    answer::<InviteAnswer>(data);
    answer::<Relays>(data);
    answer::<Event>(data);
    answer::<ApiError>(data);
}

fn request<T: Document + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let Ok(value) = T::from_request(data) else { return };
    let text = value.to_json().expect("a request has a JSON form");
    assert_eq!(T::from_request(text.as_bytes()).ok(), Some(value), "a request is not read back");
}

fn answer<T: Document>(data: &[u8]) {
    let Ok(value) = T::from_json(data) else { return };
    let text = value.to_json().expect("an answer has a JSON form");
    let back = T::from_json(text.as_bytes()).expect("an answer is read back");
    assert_eq!(back.to_json().ok(), Some(text), "an answer has one JSON form");
}

/// Whatever is said, the answer is HTTP with a document, and who may only read changes nothing.
fn talk(data: &[u8], may_write: bool) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system lets a runtime be made");
    }
    let backend = Arc::new(Memory::default());
    let reply = RUNTIME.with(|runtime| runtime.block_on(exchange(data, backend.clone(), may_write)));
    assert!(may_write || backend.changes.load(Ordering::Relaxed) == 0, "a reader changed something");
    if reply.is_empty() {
        return;
    }
    assert!(reply.starts_with(b"HTTP/1."), "the answer is no HTTP");
    assert!(reply.len() <= 64 * 1024 + 512 * data.len(), "{} bytes for {}", reply.len(), data.len());
    let text = String::from_utf8_lossy(&reply);
    if let Some((head, body)) = text.split_once("\r\n\r\n")
        && head.contains("content-type: application/json")
        && let Some(length) = content_length(head)
        && let Some(document) = body.get(..length)
        // Behind the head that answers HEAD comes the next answer, if anything.
        && !document.starts_with("HTTP/")
    {
        let value: serde_json::Value = serde_json::from_str(document).expect("a body is JSON");
        assert!(value.is_object(), "a body is an object");
    }
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
}

async fn exchange(data: &[u8], backend: Arc<Memory>, may_write: bool) -> Vec<u8> {
    let (mut client, server) = duplex(1024 * 1024);
    let stop = CancellationToken::new();
    let served = serve_connection(server, backend, may_write, stop.clone());
    let asked = async {
        client.write_all(data).await.ok();
        client.shutdown().await.ok();
        // Streams of events end with the daemon only.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).await.ok();
        reply
    };
    let both = async { tokio::join!(served, asked).1 };
    tokio::time::timeout(DEADLINE, both).await.expect("a connection ends with its caller")
}

/// A backend that answers what it can without a node.
struct Memory {
    changes: AtomicUsize,
    events: broadcast::Sender<Event>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { changes: AtomicUsize::new(0), events: broadcast::Sender::new(1) }
    }
}

impl Memory {
    fn refuse<T>(&self) -> Result<T, ApiError> {
        Err(ApiError::new(ErrorCode::Down, "the node is down"))
    }

    fn change<T>(&self, answer: Result<T, ApiError>) -> Result<T, ApiError> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

impl Backend for Memory {
    async fn id(&self) -> Result<Id, ApiError> {
        let text = |text: &str| text.to_owned();
        Ok(Id {
            node_id: text("a"),
            name: None,
            network: None,
            net_id: None,
            public_key_fingerprint: text("b"),
        })
    }
    async fn status(&self) -> Result<Status, ApiError> {
        self.refuse()
    }
    async fn peers(&self) -> Result<Vec<PeerStatus>, ApiError> {
        Ok(Vec::new())
    }
    async fn up(&self, _: UpRequest) -> Result<UpAnswer, ApiError> {
        self.change(self.refuse())
    }
    async fn down(&self) -> Result<DownAnswer, ApiError> {
        self.change(Ok(DownAnswer { state: NodeState::Down, changed: false }))
    }
    async fn ping(&self, request: PingRequest) -> Result<PingAnswer, ApiError> {
        assert!((1..=PingRequest::MAX_TIMEOUT_MS).contains(&request.timeout_ms), "a ping without bounds");
        let sizes = PingRequest::MIN_SIZE..=PingRequest::MAX_SIZE;
        assert!(request.size.is_none_or(|size| sizes.contains(&size)), "a ping of any length");
        self.change(self.refuse())
    }
    async fn netcheck(&self) -> Result<Netcheck, ApiError> {
        self.change(self.refuse())
    }
    async fn invite(&self, request: InviteRequest) -> Result<InviteAnswer, ApiError> {
        assert!(request.uses > 0 && request.ttl_s > 0, "an invitation for nobody");
        self.change(self.refuse())
    }
    async fn relays(&self) -> Result<Relays, ApiError> {
        Ok(Relays::default())
    }
    async fn change_relays(&self, _: RelayRequest) -> Result<Relays, ApiError> {
        self.change(self.refuse())
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

/// Enough for every request of one input to be under way.
const TURNS: usize = 16;
/// Far more than answering takes.
const DEADLINE: Duration = Duration::from_secs(20);
