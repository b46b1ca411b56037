//! One authenticated connection: TCP, TLS with the pinned key, WebSocket, SERVER_HELLO to WELCOME.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use mesh_identity::{Identity, Label};
use mesh_wire::relay::{
    self, ClientAuth, ClientMessage, ROSTER_MESSAGE, RelayMessage, Role, ServerHello, Welcome,
};
use mesh_wire::{Pin, RelayUrl};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{CONNECT_TIMEOUT, RelayConfig, RelayError};
use crate::dial::{Race, dial};
use crate::stream::CountedStream;
use crate::tls::PinVerifier;

/// The WebSocket to a relay.
pub(super) type Socket = WebSocketStream<Tls>;
type Tls = TlsStream<CountedStream>;

/// An authenticated connection.
pub(super) struct Connected {
    pub(super) socket: Socket,
    pub(super) welcome: Welcome,
    /// The relay's address.
    pub(super) remote: SocketAddr,
    /// Its UDP port may be used.
    pub(super) udp: bool,
}

/// Connects and authenticates; the caller bounds the time.
///
/// # Errors
/// [`RelayError`], whichever step failed.
pub(super) async fn connect(config: &RelayConfig, admission: &[u8]) -> Result<Connected, RelayError> {
    let pin = config.pin.ok_or(RelayError::PinMissing)?;
    let host = config.url.host();
    let (tls, remote) = match config.door.as_ref().and_then(|door| door.addresses.split_first()) {
        None => begin(dial(host, config.url.port()).await?, host, pin).await?,
        Some((first, others)) => find(Race::to(*first, others), host, pin).await?,
    };
    let mut exporter = [0; 32];
    tls.get_ref()
        .1
        .export_keying_material(&mut exporter, relay::EXPORTER_LABEL, None)
        .map_err(|error| RelayError::Tls(io::Error::other(error)))?;
    let udp = config.udp && config.role != Role::Guest;
    let mut socket = upgrade(tls, &config.url, udp).await?;

    let message = next_message(&mut socket).await?;
    let message = RelayMessage::parse(&message)?;
    let RelayMessage::Hello(hello) = message else { return Err(unexpected(&message)) };
    if hello.relay_id != pin.0 {
        return Err(RelayError::PinMismatch { expected: pin, found: Pin(hello.relay_id) });
    }
    let auth = authenticate(&config.identity, config, &hello, &exporter, admission)?;
    socket.send(Message::Binary(auth.into())).await?;
    let message = next_message(&mut socket).await?;
    let message = RelayMessage::parse(&message)?;
    let RelayMessage::Welcome(welcome) = message else { return Err(unexpected(&message)) };
    Ok(Connected { socket, welcome, remote, udp })
}

/// Takes the first of several ends that has the right key: something else may have one of the addresses in this network.
async fn find(mut race: Race, host: &str, pin: Pin) -> Result<(Tls, SocketAddr), RelayError> {
    let mut wrong = None;
    loop {
        // What is known of one end is not held back for others that may never answer.
        let patience = if wrong.is_some() { END_TIMEOUT } else { CONNECT_TIMEOUT };
        let Ok(Some(tcp)) = timeout(patience, race.next()).await else { break };
        match timeout(END_TIMEOUT, begin(tcp, host, pin)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => wrong = Some(error),
            Err(_) => wrong = Some(RelayError::Timeout),
        }
    }
    Err(wrong.unwrap_or_else(|| race.into_error().into()))
}

async fn begin(tcp: TcpStream, host: &str, pin: Pin) -> Result<(Tls, SocketAddr), RelayError> {
    let remote = tcp.peer_addr().map_err(RelayError::Broken)?;
    Ok((start_tls(tcp, host, pin).await?, remote))
}

async fn start_tls(tcp: TcpStream, host: &str, pin: Pin) -> Result<Tls, RelayError> {
    let tls_error = |error: rustls::Error| RelayError::Tls(io::Error::other(error));
    let (verifier, client) = PinVerifier::client(pin).map_err(tls_error)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| RelayError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream = CountedStream::new(tcp).map_err(RelayError::Broken)?;
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.map_err(|error| {
        match verifier.refused() {
            Some(found) => RelayError::PinMismatch { expected: pin, found },
            None => RelayError::Tls(error),
        }
    })
}

async fn upgrade(tls: Tls, url: &RelayUrl, udp: bool) -> Result<Socket, RelayError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 2 * ROSTER_MESSAGE)
        .max_message_size(Some(ROSTER_MESSAGE))
        .max_frame_size(Some(ROSTER_MESSAGE));
    let mut request = format!("{url}{}", relay::PATH).into_client_request()?;
    if udp {
        request.headers_mut().insert(relay::UDP_HEADER, HeaderValue::from_static("1"));
    }
    let (socket, _response) = client_async_with_config(request, tls, Some(config)).await?;
    Ok(socket)
}

fn authenticate(
    identity: &Identity,
    config: &RelayConfig,
    hello: &ServerHello,
    exporter: &[u8; 32],
    admission: &[u8],
) -> Result<Vec<u8>, RelayError> {
    let admission = if config.role == Role::Member { admission } else { &[] };
    if admission.len() > relay::ADMISSION || (config.role == Role::Member && admission.is_empty()) {
        return Err(RelayError::Identity("there is no usable proof of membership".to_owned()));
    }
    let admission_hash =
        digest::digest(&digest::SHA512, admission).as_ref().try_into().expect("SHA-512 has 64 bytes");
    let input = relay::auth_input(hello, exporter, config.role, config.net, &admission_hash);
    let (label, signed) = match &config.door {
        None => (Label::RelayAuth, input.to_vec()),
        Some(door) => (Label::DoorAuth, [&input[..], &door.host.0].concat()),
    };
    let signature = identity
        .sign(label, digest::digest(&digest::SHA512, &signed).as_ref())
        .map_err(|error| RelayError::Identity(error.to_string()))?;
    let auth = ClientAuth {
        role: config.role,
        net: config.net,
        keys: identity.public().as_bytes(),
        admission,
        signature: signature.as_bytes(),
    };
    Ok(ClientMessage::Auth(auth).encode())
}

/// Waits for a binary message; PING frames of WebSocket are answered by the library.
async fn next_message(socket: &mut Socket) -> Result<Bytes, RelayError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(message))) => return Ok(message),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                return Err(RelayError::WebSocket("it sent text".to_owned()));
            }
            Some(Ok(Message::Close(_))) | None => return Err(RelayError::Closed),
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

fn unexpected(message: &RelayMessage<'_>) -> RelayError {
    if let RelayMessage::Error { code, text } = message {
        RelayError::from_relay(*code, text)
    } else if let RelayMessage::Restarting { min_ms, max_ms } = message {
        RelayError::restarting(*min_ms, *max_ms)
    } else {
        RelayError::WebSocket("it sent a message out of turn".to_owned())
    }
}

/// How long one of several ends has to show its key; all of a door together have less than an attempt.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Several full records of TLS per read.
const READ_BUFFER: usize = 64 * 1024;
/// Small frames gather to this many bytes before TLS seals them; a flush follows when nothing more waits.
const WRITE_BUFFER: usize = 16 * 1024;
