//! The API over a real socket, with answers from memory.

mod bind;
mod openapi;
mod permissions;
mod samples;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_control::{
    ApiError, Client, ClientError, Document, DownAnswer, ErrorCode, Event, EventKind, Id, InviteAnswer,
    InviteRequest, Netcheck, NoticeLevel, PeerStatus, PingAnswer, PingRequest, RelayRequest, Relays, Status,
    UpAnswer, UpRequest,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::CONNECTION_LIMIT;
use super::routes::BODY_LIMIT;
use super::{Backend, Rights, bind as bind_socket, serve};

/// A daemon that is always up, or always refuses.
struct Memory {
    events: broadcast::Sender<Event>,
    refusal: Mutex<Option<ApiError>>,
    asked: Mutex<Vec<String>>,
    /// `down` waits for this, and says here that it does.
    may_go_down: Notify,
    down_waits: AtomicBool,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            events: broadcast::Sender::new(EVENT_QUEUE),
            refusal: Mutex::default(),
            asked: Mutex::default(),
            may_go_down: Notify::new(),
            down_waits: AtomicBool::new(false),
        })
    }

    fn answer<T>(&self, asked: String, sample: T) -> Result<T, ApiError> {
        self.asked.lock().unwrap().push(asked);
        self.refusal.lock().unwrap().clone().map_or(Ok(sample), Err)
    }
}

impl Backend for Memory {
    async fn id(&self) -> Result<Id, ApiError> {
        self.answer("id".into(), samples::id())
    }
    async fn status(&self) -> Result<Status, ApiError> {
        self.answer("status".into(), samples::status())
    }
    async fn peers(&self) -> Result<Vec<PeerStatus>, ApiError> {
        self.answer("peers".into(), samples::status().peers)
    }
    async fn up(&self, request: UpRequest) -> Result<UpAnswer, ApiError> {
        self.answer(format!("{request:?}"), samples::up())
    }
    async fn down(&self) -> Result<DownAnswer, ApiError> {
        self.down_waits.store(true, Ordering::Relaxed);
        self.may_go_down.notified().await;
        self.answer("down".into(), samples::down())
    }
    async fn ping(&self, request: PingRequest) -> Result<PingAnswer, ApiError> {
        self.answer(format!("{request:?}"), samples::ping())
    }
    async fn netcheck(&self) -> Result<Netcheck, ApiError> {
        self.answer("netcheck".into(), samples::netcheck())
    }
    async fn invite(&self, request: InviteRequest) -> Result<InviteAnswer, ApiError> {
        self.answer(format!("{request:?}"), samples::invite())
    }
    async fn relays(&self) -> Result<Relays, ApiError> {
        self.answer("relays".into(), samples::relays())
    }
    async fn change_relays(&self, request: RelayRequest) -> Result<Relays, ApiError> {
        self.answer(format!("{request:?}"), samples::relays())
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

#[tokio::test]
async fn client_gets_what_the_backend_answers() {
    let server = Server::start();
    let client = server.client();
    server.backend.may_go_down.notify_one();

    let version = client.version().await.unwrap();
    assert_eq!((version.protocol.as_str(), version.api.as_str()), ("mesh/1", "v1"));
    assert_eq!(client.id().await.unwrap(), samples::id());
    assert_eq!(client.status().await.unwrap(), samples::status());
    assert_eq!(client.peers().await.unwrap().peers, samples::status().peers);
    assert_eq!(client.peer("pi").await.unwrap(), samples::peer());
    assert_eq!(client.peer(&samples::peer().node_id).await.unwrap(), samples::peer());
    assert_eq!(client.up(&UpRequest::Resume {}).await.unwrap(), samples::up());
    assert_eq!(client.down().await.unwrap(), samples::down());
    assert_eq!(client.ping(&samples::ping_request()).await.unwrap(), samples::ping());
    assert_eq!(client.netcheck().await.unwrap(), samples::netcheck());
    assert_eq!(client.invite(&samples::invite_request()).await.unwrap(), samples::invite());
    assert_eq!(client.relays().await.unwrap(), samples::relays());
    let [add, _] = samples::relay_requests();
    assert_eq!(client.change_relays(&add).await.unwrap(), samples::relays());
}

#[tokio::test]
async fn ticket_reaches_the_backend_and_no_log_line() {
    let server = Server::start();
    let join = UpRequest::Join { ticket: "mesh1secret".to_owned().into(), node_name: None };
    server.client().up(&join).await.unwrap();
    assert_eq!(*server.backend.asked.lock().unwrap(), ["Join { ticket: [redacted], node_name: None }"]);
}

#[tokio::test]
async fn refusal_carries_its_code_and_http_status() {
    let server = Server::start();
    for code in ErrorCode::ALL {
        let refusal = ApiError::new(code, "because").with_hint("do this");
        *server.backend.refusal.lock().unwrap() = Some(refusal.clone());
        let error = server.client().status().await.unwrap_err();
        assert!(matches!(&error, ClientError::Api(found) if *found == refusal), "{error:?}");
        let (status, body) = server.raw("GET /v1/status HTTP/1.1\r\nhost: mesh\r\n").await;
        assert_eq!(status, code.http_status());
        assert_eq!(ApiError::from_json(body.as_bytes()).unwrap(), refusal);
    }
}

#[tokio::test]
async fn unknown_peer_is_refused() {
    let server = Server::start();
    let error = server.client().peer("../pi 2").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPeer));
    assert_eq!(error.to_string(), "no peer is called \"../pi 2\"");
}

#[tokio::test]
async fn every_refusal_of_http_is_json() {
    let server = Server::start();
    let json = "content-type: application/json\r\n";
    let too_long = BODY_LIMIT + 1;
    for (expected, request) in [
        (404, "GET / HTTP/1.1\r\n".to_owned()),
        (404, "GET /v2/status HTTP/1.1\r\n".to_owned()),
        (404, "POST /v1/upp HTTP/1.1\r\n".to_owned()),
        (405, "POST /v1/status HTTP/1.1\r\n".to_owned()),
        (405, "DELETE /v1/peers HTTP/1.1\r\n".to_owned()),
        (405, "GET /v1/up HTTP/1.1\r\n".to_owned()),
        (400, "GET /v1/peers/%ff HTTP/1.1\r\n".to_owned()),
        (413, format!("POST /v1/up HTTP/1.1\r\n{json}content-length: {too_long}\r\n")),
        (415, "POST /v1/up HTTP/1.1\r\n".to_owned()),
        (415, "POST /v1/up HTTP/1.1\r\ncontent-type: text/plain\r\n".to_owned()),
        (400, format!("POST /v1/up HTTP/1.1\r\n{json}")),
        (403, "GET /v1/status HTTP/1.1\r\norigin: https://example.com\r\n".to_owned()),
        (403, "POST /v1/down HTTP/1.1\r\nreferer: https://example.com/x\r\n".to_owned()),
    ] {
        let (status, body) = server.raw(&format!("{request}host: mesh\r\n")).await;
        assert_eq!(status, expected, "{request}");
        ApiError::from_json(body.as_bytes()).unwrap_or_else(|error| panic!("{request} {body}: {error}"));
    }
    assert!(server.backend.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bad_bodies_are_refused_by_name_of_the_field() {
    let server = Server::start();
    for (route, body, part) in [
        ("up", "{", "EOF"),
        ("up", "[]", "no JSON object"),
        ("up", "{}", "action"),
        ("up", r#"{"action":"dance"}"#, "dance"),
        ("up", r#"{"action":"resume","force":true}"#, "force"),
        ("up", r#"{"schema":"shadowmesh.up_request/2","action":"resume"}"#, "up_request/2"),
        ("up", r#"{"action":"new","network_name":"n","relay":"r","ipv4_pool":"100.64.0.0/33"}"#, "invalid"),
        ("ping", r#"{"peer":"pi","timeout_ms":0}"#, "timeout_ms"),
        ("ping", r#"{"peer":"pi","timeout_ms":60001}"#, "timeout_ms"),
        ("ping", r#"{"peer":"pi","size":27}"#, "from 28 to 9000"),
        ("ping", r#"{"peer":"pi","size":9001}"#, "from 28 to 9000"),
        ("ping", r#"{"peer":"pi","via":"moon"}"#, "moon"),
        ("relays", r#"{"action":"swap","relay":"wss://r"}"#, "swap"),
        ("invites", r#"{"uses":0}"#, "uses"),
        ("invites", r#"{"ttl_s":0}"#, "ttl_s"),
        ("invites", r#"{"ttl_s":-1}"#, "-1"),
    ] {
        let (status, answer) = server.post(route, body).await;
        let error = ApiError::from_json(answer.as_bytes()).unwrap();
        assert_eq!((status, error.code), (400, ErrorCode::BadRequest), "{body}");
        assert!(error.message.contains(part), "{body}: {error}");
    }
    let (status, _) = server.post("up", &format!("\"{}\"", "x".repeat(BODY_LIMIT))).await;
    assert_eq!(status, 413);
    assert!(server.backend.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn chunked_body_has_the_same_limit() {
    let server = Server::start();
    let mut request = "POST /v1/up HTTP/1.1\r\nhost: mesh\r\ncontent-type: application/json\r\n\
                       transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        .to_owned();
    for _ in 0..17 {
        request.push_str(&format!("{:x}\r\n{}\r\n", 65536, " ".repeat(65536)));
    }
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let (status, _) = read_answer(&mut stream).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn events_arrive_in_order() {
    let server = Server::start();
    let mut events = server.client().events().await.unwrap();
    for event in samples::events() {
        server.backend.events.send(event.clone()).unwrap();
        assert_eq!(events.next().await.unwrap(), Some(event));
    }
}

#[tokio::test]
async fn slow_listener_loses_events_and_is_told() {
    let server = Server::start();
    let mut events = server.client().events().await.unwrap();
    let notice =
        |number: u64| EventKind::Notice { level: NoticeLevel::Info, code: None, message: number.to_string() };
    let sent = 100;
    for number in 0..sent {
        server.backend.events.send(Event::now(notice(number))).unwrap();
    }
    let kept = u64::try_from(EVENT_QUEUE).unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first.kind, EventKind::Lagged { missed: sent - kept });
    for number in sent - kept..sent {
        assert_eq!(events.next().await.unwrap().unwrap().kind, notice(number));
    }
}

#[tokio::test]
async fn listener_who_never_reads_holds_nobody_up() {
    let server = Server::start();
    let _events = server.client().events().await.unwrap();
    let message = "x".repeat(10_000);
    for _ in 0..1000 {
        let kind = EventKind::Notice { level: NoticeLevel::Info, code: None, message: message.clone() };
        server.backend.events.send(Event::now(kind)).unwrap();
        tokio::task::yield_now().await;
    }
    server.client().status().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn stop_ends_streams_and_removes_the_socket() {
    let server = Server::start();
    let mut events = server.client().events().await.unwrap();
    let path = server.path.clone();
    server.stop.cancel();
    assert_eq!(events.next().await.unwrap(), None);
    let _directory = server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn request_under_way_is_answered_after_stop() {
    let server = Server::start();
    let client = server.client();
    let down = tokio::spawn(async move { client.down().await });
    until(|| server.backend.down_waits.load(Ordering::Relaxed)).await;
    server.stop.cancel();
    until(|| !server.path.exists()).await;
    server.backend.may_go_down.notify_one();
    assert_eq!(down.await.unwrap().unwrap(), samples::down());
    server.stop().await;
}

#[tokio::test]
async fn stop_leaves_the_socket_of_another_program() {
    let server = Server::start();
    server.client().version().await.unwrap();
    std::fs::remove_file(&server.path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&server.path).unwrap();
    let path = server.path.clone();
    let _directory = server.stop().await;
    assert!(path.exists());
}

#[tokio::test]
async fn too_many_connections_are_told_so_and_room_returns() {
    let server = Server::start();
    let mut idle = Vec::new();
    for _ in 0..CONNECTION_LIMIT {
        idle.push(UnixStream::connect(&server.path).await.unwrap());
    }
    let error = server.client().status().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Busy));
    drop(idle);
    let deadline = Instant::now() + DEADLINE;
    while server.client().status().await.is_err() {
        assert!(Instant::now() < deadline, "no room after the others left");
    }
}

struct Server {
    backend: Arc<Memory>,
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
    directory: TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("meshd.sock");
        let listener = bind_socket(&path, None).unwrap();
        let (backend, stop) = (Memory::new(), CancellationToken::new());
        let rights = Rights::new(None).unwrap();
        let task = tokio::spawn(serve(listener, backend.clone(), rights, stop.clone()));
        Self { backend, path, stop, task, directory }
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    /// Stops the server and returns its directory, to be looked into.
    async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("the server did not stop").unwrap();
        self.directory
    }

    /// Sends these header lines and reads the status and body of the answer.
    async fn raw(&self, head: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        read_answer(&mut stream).await
    }

    async fn post(&self, route: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let head = format!(
            "POST /v1/{route} HTTP/1.1\r\nhost: mesh\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        // A body that is too large need not be read to be refused.
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        read_answer(&mut stream).await
    }
}

async fn read_answer(stream: &mut UnixStream) -> (u16, String) {
    let mut bytes = Vec::new();
    match tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("no answer in time") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Waits for a condition that another task brings about.
async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "the condition did not come about");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Small, so that a test overruns it.
const EVENT_QUEUE: usize = 4;

const DEADLINE: Duration = Duration::from_secs(10);
