//! How a connection comes about on either side, and what runs as long as it stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use mesh_wire::channel::{CONNECTION_LABEL, CloseCode};
use quinn::{ClientConfig, Connection, ConnectionError, Incoming, ServerConfig, TransportErrorCode};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::control::{Control, ControlError};
use super::{PeerInfo, Shared, close_code, tls};
use crate::backoff::{between, random};

/// Why a connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("{}", describe(.0))]
    Connection(#[from] ConnectionError),
    #[error("{0}")]
    Control(ControlError),
    #[error("the peer did not answer in time")]
    Timeout,
    #[error("the connection has no id, since TLS exports no key")]
    Export,
    #[error("the endpoint cannot connect ({0})")]
    Start(#[from] quinn::ConnectError),
    #[error("another connection took its place")]
    Replaced,
}

impl Shared {
    /// Keeps a connection to `peer` until `stop`.
    pub(super) async fn dial(
        self: Arc<Self>,
        peer: NodeId,
        address: SocketAddr,
        config: ClientConfig,
        stop: CancellationToken,
        hurry: Arc<Notify>,
    ) {
        let mut wait = FIRST_WAIT;
        loop {
            let begun = Instant::now();
            let mut connection = None;
            let error = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                error = self.connect(peer, address, &config, &stop, &mut connection) => error,
            };
            self.peers.lose(&*self.sink, peer, &stop, connection.as_ref(), error.to_string());
            if begun.elapsed() >= STABLE {
                wait = FIRST_WAIT;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = hurry.notified() => {}
                () = sleep(between(wait * 3 / 4, wait, random())) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Connects to `peer` and returns when that fails or the connection ends. A connection that stood is left in
    /// `established`.
    async fn connect(
        &self,
        peer: NodeId,
        address: SocketAddr,
        config: &ClientConfig,
        stop: &CancellationToken,
        established: &mut Option<Connection>,
    ) -> ConnectError {
        let deadline = tokio::time::Instant::now() + self.patience;
        let handshake = async {
            let connection = self.endpoint.connect_with(config.clone(), address, tls::NAME)?.await?;
            let id = connection_id(&connection)?;
            Ok((connection, id))
        };
        let (connection, id) = match timeout_at(deadline, handshake).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return error,
            Err(_) => return ConnectError::Timeout,
        };
        // Only the peer's answer shows that it accepted our certificate.
        let greeted = greet(Control::open(&connection, &self.info));
        let (control, info) = match timeout_at(deadline, greeted).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return refused(&connection, error),
            Err(_) => return too_slow(&connection),
        };
        *established = Some(connection.clone());
        if !self.peers.establish(&*self.sink, peer, stop, (&connection, id), Some(info)) {
            connection.close(close_code(CloseCode::Replaced), b"");
            return ConnectError::Replaced;
        }
        refused(&connection, control.run().await)
    }

    /// Accepts connections from the peers that are expected, until the endpoint closes.
    pub(super) async fn accept(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let peer = self.socket.peer(incoming.remote_address());
            match peer.and_then(|peer| Some((peer, self.peers.incoming(peer)?))) {
                Some((peer, (config, stop))) => {
                    self.tasks.spawn(self.clone().serve(peer, incoming, config, stop));
                }
                None => incoming.refuse(),
            }
        }
    }

    /// Answers one connection attempt of `peer`, and stays with the connection until it ends.
    async fn serve(
        self: Arc<Self>,
        peer: NodeId,
        incoming: Incoming,
        config: Arc<ServerConfig>,
        stop: CancellationToken,
    ) {
        let mut connection = None;
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            error = self.answer(peer, incoming, config, &stop, &mut connection) => error,
        };
        self.peers.lose(&*self.sink, peer, &stop, connection.as_ref(), error.to_string());
    }

    async fn answer(
        &self,
        peer: NodeId,
        incoming: Incoming,
        config: Arc<ServerConfig>,
        stop: &CancellationToken,
        established: &mut Option<Connection>,
    ) -> ConnectError {
        let handshake = async {
            let connection = incoming.accept_with(config)?.await?;
            let id = connection_id(&connection)?;
            Ok((connection, id))
        };
        let (connection, id) = match timeout(self.patience, handshake).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return error,
            Err(_) => return ConnectError::Timeout,
        };
        *established = Some(connection.clone());
        if !self.peers.establish(&*self.sink, peer, stop, (&connection, id), None) {
            connection.close(close_code(CloseCode::Replaced), b"");
            return ConnectError::Replaced;
        }
        let greeted = greet(Control::accept(&connection, &self.info));
        let (control, info) = match timeout(self.patience, greeted).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return refused(&connection, error),
            Err(_) => return too_slow(&connection),
        };
        self.peers.info(&*self.sink, peer, &connection, info);
        refused(&connection, control.run().await)
    }
}

/// Ends the connection of a peer that broke the rules, and returns why it ended.
fn refused(connection: &Connection, error: ControlError) -> ConnectError {
    match error {
        ControlError::Connection(error) => error.into(),
        ControlError::Wire(_) | ControlError::Preamble | ControlError::Order | ControlError::Ended => {
            connection.close(close_code(CloseCode::Protocol), b"");
            ConnectError::Control(error)
        }
    }
}

fn too_slow(connection: &Connection) -> ConnectError {
    connection.close(close_code(CloseCode::Timeout), b"");
    ConnectError::Timeout
}

/// Waits for a control channel and the peer's first message on it.
async fn greet(
    control: impl Future<Output = Result<Control, ControlError>>,
) -> Result<(Control, PeerInfo), ControlError> {
    let mut control = control.await?;
    let info = control.info().await?;
    Ok((control, info))
}

/// Returns the id that both ends of a connection derive.
fn connection_id(connection: &Connection) -> Result<[u8; 8], ConnectError> {
    let mut id = [0; 8];
    connection.export_keying_material(&mut id, CONNECTION_LABEL, b"").map_err(|_| ConnectError::Export)?;
    Ok(id)
}

/// Says why a connection ended, without the text that a peer may have put into its farewell.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            match CloseCode::from_code(close.error_code.into_inner()) {
                Some(CloseCode::Done) => "the peer closed the connection".to_owned(),
                Some(CloseCode::Replaced) => "the peer replaced the connection".to_owned(),
                Some(CloseCode::Protocol) => "the peer says that the control channel is broken".to_owned(),
                Some(CloseCode::Timeout) => "the peer says that the control channel took too long".to_owned(),
                None => format!("the peer closed the connection with code {}", close.error_code),
            }
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == refused_certificate() => {
            "the peer says that our certificate is not the one that our session names".to_owned()
        }
        ConnectionError::ConnectionClosed(close) => {
            format!("the peer ended the connection: {}", close.error_code)
        }
        ConnectionError::TransportError(error) if error.code == refused_certificate() => {
            "the peer's certificate is not the one that its session names".to_owned()
        }
        ConnectionError::TransportError(error) => error.to_string(),
        ConnectionError::VersionMismatch
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => error.to_string(),
    }
}

/// The TLS alert with which a pin is refused (RFC 8446, section 6.2: access_denied).
fn refused_certificate() -> TransportErrorCode {
    TransportErrorCode::crypto(49)
}

/// Waits between attempts double from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// A connection that stood so long was no failure; the waits begin anew.
const STABLE: Duration = Duration::from_secs(20);
