//! Asking the daemon: one connection per request, one method per route.

mod error;
mod events;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use error::ClientError;
pub use events::EventStream;

use crate::HTTP_HOST;
use crate::document::Document;
use crate::error::ApiError;
use crate::types::{
    DownAnswer, Id, InviteAnswer, InviteRequest, Netcheck, PeerStatus, Peers, PingAnswer, PingRequest,
    RelayRequest, Relays, Status, UpAnswer, UpRequest, Version,
};

/// The daemon behind a socket path. Making one connects nothing yet.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Names the daemon's socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for the version of the daemon.
    ///
    /// # Errors
    /// As every method: [`ClientError::Api`] for the daemon's refusal, the others when no good answer came.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version").await
    }

    /// Asks who this node is.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn id(&self) -> Result<Id, ClientError> {
        self.get("/v1/id").await
    }

    /// Asks for everything about this node and its peers.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Asks for every other member.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn peers(&self) -> Result<Peers, ClientError> {
        self.get("/v1/peers").await
    }

    /// Asks for one other member by name or node id.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn peer(&self, name: &str) -> Result<PeerStatus, ClientError> {
        self.get(&format!("/v1/peers/{}", percent_encode(name))).await
    }

    /// Creates, joins or resumes; returns when the interface stands or that has failed.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn up(&self, request: &UpRequest) -> Result<UpAnswer, ClientError> {
        self.post("/v1/up", Some(request), UP_TIMEOUT).await
    }

    /// Takes the node down.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn down(&self) -> Result<DownAnswer, ClientError> {
        self.post::<UpRequest, _>("/v1/down", None, CHANGE_TIMEOUT).await
    }

    /// Sends one sealed echo to a peer.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn ping(&self, request: &PingRequest) -> Result<PingAnswer, ClientError> {
        let wait = Duration::from_millis(request.timeout_ms.min(PingRequest::MAX_TIMEOUT_MS)) + READ_TIMEOUT;
        self.post("/v1/ping", Some(request), wait).await
    }

    /// Has the daemon look at the network around it, which takes some seconds.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn netcheck(&self) -> Result<Netcheck, ClientError> {
        self.post::<PingRequest, _>("/v1/netcheck", None, CHANGE_TIMEOUT).await
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn invite(&self, request: &InviteRequest) -> Result<InviteAnswer, ClientError> {
        self.post("/v1/invites", Some(request), CHANGE_TIMEOUT).await
    }

    /// Returns the relays that the network announces, and this node's connections.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn relays(&self) -> Result<Relays, ClientError> {
        self.get("/v1/relays").await
    }

    /// Changes the relays that the network announces.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn change_relays(&self, request: &RelayRequest) -> Result<Relays, ClientError> {
        self.post("/v1/relays", Some(request), CHANGE_TIMEOUT).await
    }

    /// Listens to events; nothing that happens after this returns is missed silently.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        let (response, connection) = self.send(Method::GET, "/v1/events", Bytes::new(), READ_TIMEOUT).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        Ok(EventStream::new(self.socket.clone(), response.into_body(), connection))
    }

    async fn get<T: Document>(&self, route: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, route, Bytes::new(), READ_TIMEOUT).await
    }

    async fn post<Q: Document, T: Document>(
        &self,
        route: &str,
        request: Option<&Q>,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let body = request.map(Document::to_json).transpose().map_err(|error| self.strange(error))?;
        self.ask(Method::POST, route, Bytes::from(body.unwrap_or_default()), wait).await
    }

    async fn ask<T: Document>(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<T, ClientError> {
        // The connection's task must outlive the reading of the body.
        let (response, _connection) = self.send(method, route, body, wait).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let bytes = self.collect(response).await?;
        T::from_json(&bytes).map_err(|error| self.strange(error))
    }

    /// Connects and sends; `wait` is how long the answer's headers may take.
    async fn send(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<(Response<Incoming>, JoinSet<()>), ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(route)
            .header(HOST, HTTP_HOST)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.strange(error))?;
        let exchange = async {
            let (mut sender, connection) = self.connect().await?;
            let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            Ok((response, connection))
        };
        timeout(wait, exchange).await.unwrap_or_else(|_| Err(self.late(wait)))
    }

    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, JoinSet<()>), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::from_connect(self.socket.clone(), source))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // What goes wrong here reaches whoever waits for the response or its body.
            let _ = connection.await;
        });
        Ok((sender, task))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect();
        match timeout(READ_TIMEOUT, body).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(ClientError::TooLarge { socket: self.socket.clone() })
            }
            Ok(Err(error)) => Err(ClientError::Broken { socket: self.socket.clone(), source: error }),
            Err(_) => Err(self.late(READ_TIMEOUT)),
        }
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.collect(response).await.map(|bytes| ApiError::from_json(&bytes)) {
            Ok(Ok(error)) => ClientError::Api(error),
            Ok(Err(_)) => {
                self.strange(format_args!("status {status} without an error that meshd would send"))
            }
            Err(error) => error,
        }
    }

    fn strange(&self, what: impl ToString) -> ClientError {
        ClientError::NotMeshd { socket: self.socket.clone(), what: what.to_string() }
    }

    fn late(&self, waited: Duration) -> ClientError {
        ClientError::Timeout { socket: self.socket.clone(), waited }
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        if error.is_parse() {
            return self.strange("it does not speak HTTP");
        }
        ClientError::Broken { socket: self.socket.clone(), source: error.into() }
    }
}

/// Keeps what RFC 3986 section 2.3 calls unreserved and escapes the rest.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The largest answer: the status of a network as large as a roster allows is well below.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// The daemon answers questions from memory.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Storing a ticket or taking the interface down touches the disk and the kernel.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Joining reaches the relay and the coordinator; the daemon gives up earlier and says why.
const UP_TIMEOUT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests;
