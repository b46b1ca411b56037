//! From an accepted TCP connection to an authenticated client: TLS, WebSocket, SERVER_HELLO, CLIENT_AUTH, WELCOME.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use mesh_identity::UnixSeconds;
use mesh_wire::limits::RELAY_PAYLOAD;
use mesh_wire::relay::{
    self, AUTH_MESSAGE, Binding, ClientMessage, DATA_MESSAGE, ErrorCode, ROSTER_BLOB, ROSTER_MESSAGE,
    RelayMessage, Role, ServerHello, Welcome,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::{self, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::auth::{self, Refused};
use crate::connection::{Connection, Seat};
use crate::door;
use crate::gate::{Refusal, source_key};
use crate::hub::Party;
use crate::outbox::Outbox;
use crate::stream::CountedStream;

/// The WebSocket of a client.
pub(crate) type Socket = WebSocketStream<TlsStream<CountedStream>>;

/// Accepts clients until told to stop, then waits for their connections to end.
pub(crate) async fn accept_loop(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = clients.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => {
                if let Some(visit) = Visit::enter(address, &shared) {
                    clients.spawn(serve(tcp, visit, stop.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(reason = %error, "a connection could not be accepted");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
}

/// One connection as the gate counts it; dropping it makes room.
#[derive(Debug)]
struct Visit {
    ip: IpAddr,
    address: SocketAddr,
    authenticated: bool,
    shared: Arc<Shared>,
}

impl Visit {
    /// Returns `None`, and counts, when the gate refuses the address.
    fn enter(address: SocketAddr, shared: &Arc<Shared>) -> Option<Self> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let metrics = &shared.metrics;
        let refused = match shared.gate().enter(address.ip(), Instant::now()) {
            Ok(()) => {
                return Some(Self {
                    ip: address.ip(),
                    address,
                    authenticated: false,
                    shared: shared.clone(),
                });
            }
            Err(Refusal::Full) => &metrics.refused_full,
            Err(Refusal::TooMany) => &metrics.refused_too_many,
            Err(Refusal::TooFast) => &metrics.refused_too_fast,
        };
        refused.add(1);
        None
    }

    fn authenticated(&mut self) {
        self.shared.gate().authenticated(self.ip);
        self.authenticated = true;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.shared.gate().leave(self.ip, self.authenticated);
    }
}

async fn serve(tcp: TcpStream, mut visit: Visit, stop: CancellationToken) {
    let shared = visit.shared.clone();
    let limit = Duration::from_secs(shared.config.limits.handshake_seconds.into());
    // The handshake's state is boxed, so that a long-lived connection does not keep its room.
    let admitted = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        admitted = timeout(limit, Box::pin(admit(tcp, visit.address, &shared))) => admitted,
    };
    match admitted {
        Ok(Ok(connection)) => {
            visit.authenticated();
            shared.metrics.handshakes.add(1);
            connection.run().await;
        }
        Ok(Err(error)) => {
            error.count(&shared);
            tracing::debug!(address = %visit.address, reason = %error, "a client was not admitted");
        }
        Err(_) => {
            shared.metrics.handshake_timeouts.add(1);
            tracing::debug!(address = %visit.address, "a client did not authenticate in time");
        }
    }
}

/// Why a connection did not become a client.
#[derive(Debug, thiserror::Error)]
enum AdmitError {
    #[error("TLS failed ({0})")]
    Tls(#[source] io::Error),
    #[error("WebSocket failed ({0})")]
    WebSocket(#[from] tungstenite::Error),
    #[error("the client sent something else than CLIENT_AUTH")]
    Message(ErrorCode),
    #[error("the client was refused ({0:?})")]
    Refused(Refused),
    #[error("the network has too many guests from this address")]
    Busy,
    #[error("the check of the client did not run to its end")]
    Failed,
}

impl AdmitError {
    fn count(&self, shared: &Shared) {
        let metrics = &shared.metrics;
        let counter = match self {
            Self::Tls(_) => &metrics.tls_errors,
            Self::WebSocket(_) => &metrics.websocket_errors,
            Self::Message(_) | Self::Refused(Refused::Malformed) => &metrics.auth_bad_message,
            Self::Refused(Refused::BadSignature) => &metrics.auth_bad_signature,
            Self::Refused(Refused::NotServed) => &metrics.auth_not_served,
            Self::Refused(Refused::NotRoot | Refused::NotAdmitted(_) | Refused::Unwelcome) => {
                &metrics.auth_not_admitted
            }
            Self::Busy | Self::Failed => &metrics.auth_busy,
        };
        counter.add(1);
    }

    /// Returns what the client is told; nothing when it does not even speak WebSocket.
    fn answer(&self) -> Option<(ErrorCode, String)> {
        match self {
            Self::Tls(_) | Self::WebSocket(_) | Self::Failed => None,
            Self::Message(code) => Some((*code, "expected CLIENT_AUTH of this version".to_owned())),
            Self::Refused(refused) => Some(refused.answer()),
            Self::Busy => {
                Some((ErrorCode::Busy, "too many nodes enrol from this address, try again".to_owned()))
            }
        }
    }
}

async fn admit(tcp: TcpStream, address: SocketAddr, shared: &Arc<Shared>) -> Result<Connection, AdmitError> {
    let stream = CountedStream::new(tcp).map_err(AdmitError::Tls)?;
    let tls = shared.tls.accept(stream).await.map_err(AdmitError::Tls)?;
    let tls_error = |error| AdmitError::Tls(io::Error::other(error));
    let mut exporter = [0; 32];
    tls.get_ref().1.export_keying_material(&mut exporter, relay::EXPORTER_LABEL, None).map_err(tls_error)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(HANDSHAKE_BUFFER)
        .write_buffer_size(HANDSHAKE_BUFFER)
        .max_write_buffer_size(2 * AUTH_MESSAGE)
        .max_message_size(Some(AUTH_MESSAGE))
        .max_frame_size(Some(AUTH_MESSAGE));
    let mut udp = false;
    #[expect(clippy::result_large_err, reason = "the type is that of the library's callback")]
    let callback = |request: &Request, response: Response| {
        udp = request.headers().contains_key(relay::UDP_HEADER);
        check_path(request, response)
    };
    let mut socket = accept_hdr_async_with_config(tls, callback, Some(config)).await?;

    let hello = ServerHello {
        relay_id: shared.pin.0,
        challenge: random().map_err(AdmitError::Tls)?,
        binding: Binding::Exporter,
        max_payload: u32::try_from(RELAY_PAYLOAD).expect("64 KiB"),
        max_roster: u32::try_from(ROSTER_BLOB).expect("about 1 MiB"),
    };
    socket.send(Message::Binary(RelayMessage::Hello(hello).encode().into())).await?;
    let message = next_message(&mut socket).await?;
    let (role, party, seat) = match take_seat(message, address, hello, exporter, shared).await {
        Ok(taken) => taken,
        Err(error) => {
            if let Some((code, text)) = error.answer() {
                let answer = RelayMessage::Error { code, text: &text }.encode();
                socket.send(Message::Binary(answer.into())).await?;
                socket.close(None).await?;
            }
            return Err(error);
        }
    };
    // A client sends nothing before WELCOME, hence nothing is lost with the buffers of the small handshake socket.
    let config = running_config(role);
    let mut socket =
        WebSocketStream::from_raw_socket(socket.into_inner(), protocol::Role::Server, Some(config)).await;
    let welcome = welcome(role, address, shared).map_err(AdmitError::Tls)?;
    socket.send(Message::Binary(RelayMessage::Welcome(welcome).encode().into())).await?;
    tracing::debug!(%address, network = %party.0, peer = %party.1, ?role, "client connected");
    Ok(Connection::new(socket, seat, role, udp))
}

async fn take_seat(
    message: Bytes,
    address: SocketAddr,
    hello: ServerHello,
    exporter: [u8; 32],
    shared: &Arc<Shared>,
) -> Result<(Role, Party, Seat), AdmitError> {
    // The permit goes along: a check whose client has left still takes its processor.
    let permit = Arc::clone(&shared.checks).acquire_owned().await.map_err(|_| AdmitError::Failed)?;
    let checking = Arc::clone(shared);
    let check = move || {
        let _permit = permit;
        check(&message, &hello, &exporter, &checking)
    };
    let (role, party) = tokio::task::spawn_blocking(check).await.map_err(|_| AdmitError::Failed)??;
    let outbox = Arc::new(Outbox::default());
    let source = source_key(address.ip());
    let joined = shared.hub().join(party, role, source, outbox.clone());
    let member = joined.map_err(|_| AdmitError::Busy)?;
    let seat = Seat { member, outbox, shared: shared.clone(), udp: None };
    if let Some(door) = &shared.door {
        // A member that was taken out of the network during the check was not among those who had to go.
        if !door.permits(role, party) {
            return Err(AdmitError::Refused(Refused::Unwelcome));
        }
        if !door.came(party.1, address, shared) {
            return Err(AdmitError::Busy);
        }
    }
    Ok((role, party, seat))
}

/// Takes a millisecond or more of a processor, which no forwarding may wait for.
fn check(
    message: &[u8],
    hello: &ServerHello,
    exporter: &[u8; 32],
    shared: &Shared,
) -> Result<(Role, Party), AdmitError> {
    let auth = match ClientMessage::parse(message) {
        Ok(ClientMessage::Auth(auth)) => auth,
        Err(mesh_wire::WireError::Version(_)) => return Err(AdmitError::Message(ErrorCode::Version)),
        Ok(_) | Err(_) => return Err(AdmitError::Message(ErrorCode::BadMessage)),
    };
    if shared.door.is_some() && auth.role != Role::Member {
        return Err(AdmitError::Refused(Refused::Unwelcome));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let host = shared.door.as_ref().map(door::Rules::host);
    let challenge = auth::Challenge { hello, exporter, host };
    let party = auth::check(&auth, &challenge, &shared.config, &shared.heads, UnixSeconds(now))
        .map_err(AdmitError::Refused)?;
    if shared.door.as_ref().is_some_and(|door| !door.permits(auth.role, party)) {
        return Err(AdmitError::Refused(Refused::Unwelcome));
    }
    Ok((auth.role, party))
}

fn welcome(role: Role, observed: SocketAddr, shared: &Shared) -> io::Result<Welcome> {
    let limits = &shared.config.limits;
    let (handles, rate) = match role {
        Role::Guest => (limits.guest_handles, limits.guest_bytes_per_second),
        Role::Member | Role::Root => (limits.handles, limits.bytes_per_second),
    };
    Ok(Welcome {
        connection: random()?,
        observed,
        heartbeat: limits.heartbeat_seconds,
        handles: handles.into(),
        rate: rate.into(),
    })
}

fn running_config(role: Role) -> WebSocketConfig {
    let longest = if role == Role::Root { ROSTER_MESSAGE } else { DATA_MESSAGE };
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 2 * DATA_MESSAGE)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest))
}

#[expect(clippy::result_large_err, reason = "the type is that of the library's callback")]
fn check_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if matches!(request.uri().path(), "/" | relay::PATH) {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(None);
    *refusal.status_mut() = StatusCode::NOT_FOUND;
    Err(refusal)
}

async fn next_message(socket: &mut Socket) -> Result<Bytes, AdmitError> {
    loop {
        match socket.next().await.transpose()? {
            Some(Message::Binary(message)) => return Ok(message),
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            Some(Message::Text(_) | Message::Frame(_)) => {
                return Err(AdmitError::Message(ErrorCode::BadMessage));
            }
            Some(Message::Close(_)) | None => return Err(tungstenite::Error::ConnectionClosed.into()),
        }
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system's random generator failed"))?;
    Ok(bytes)
}

/// A want of file descriptors must not take a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// A stranger gets little memory.
const HANDSHAKE_BUFFER: usize = 4 * 1024;
/// One full record of TLS; it is what an idle client costs.
const READ_BUFFER: usize = 16 * 1024;
/// Small messages gather to this many bytes before TLS seals them.
const WRITE_BUFFER: usize = 16 * 1024;
