//! One HTTP request to the gateway, on a connection of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::messages::Location;

/// A gateway's UPnP service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::portmap) enum UpnpError {
    /// No connection.
    #[error("the gateway's UPnP service cannot be reached")]
    Connect(#[source] io::Error),
    /// The connection broke or carried no HTTP.
    #[error("the gateway's UPnP service does not speak HTTP")]
    Http(#[source] hyper::Error),
    /// The request cannot be written: the gateway named a place that is none.
    #[error("the gateway named an impossible place of its UPnP service")]
    Request(#[source] hyper::http::Error),
    /// No answer in time.
    #[error("the gateway's UPnP service did not answer within {TIMEOUT:?}")]
    Timeout,
    /// A body that breaks off, is longer than its bound or is no text.
    #[error("the gateway's UPnP service gave an answer that is no text of {MAX_BODY} bytes at most")]
    Body,
    /// A document without what was asked for.
    #[error("the gateway's UPnP service left out what it was asked for")]
    Answer,
    /// A status without an error code.
    #[error("the gateway's UPnP service answered with HTTP status {0}")]
    Status(u16),
    /// An error code of UPnP.
    #[error("the gateway's UPnP service refused with error {0}")]
    Fault(u16),
}

/// Fetches a document.
pub(super) async fn get(from: &Location, local: Ipv4Addr) -> Result<String, UpnpError> {
    let request = Request::get(&from.path).body(Full::default());
    let (status, body) = exchange(from.address, local, request).await?;
    if status.is_success() { Ok(body) } else { Err(UpnpError::Status(status.as_u16())) }
}

/// Calls an action; the answer's body comes with any status.
pub(super) async fn post(
    to: &Location,
    local: Ipv4Addr,
    soap_action: &str,
    body: String,
) -> Result<(StatusCode, String), UpnpError> {
    let request = Request::post(&to.path)
        .header("SOAPAction", soap_action)
        .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
        .body(Full::new(Bytes::from(body)));
    exchange(to.address, local, request).await
}

async fn exchange(
    to: SocketAddr,
    local: Ipv4Addr,
    request: hyper::http::Result<Request<Full<Bytes>>>,
) -> Result<(StatusCode, String), UpnpError> {
    let mut request = request.map_err(UpnpError::Request)?;
    let host = to.to_string().parse().map_err(hyper::http::Error::from).map_err(UpnpError::Request)?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    timeout(TIMEOUT, transfer(to, local, request)).await.map_err(|_| UpnpError::Timeout)?
}

async fn transfer(
    to: SocketAddr,
    local: Ipv4Addr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), UpnpError> {
    let stream = connect(to, local).await.map_err(UpnpError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UpnpError::Http)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(UpnpError::Http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY);
    let body = body.collect().await.map_err(|_| UpnpError::Body)?.to_bytes();
    let text = String::from_utf8(body.into()).map_err(|_| UpnpError::Body)?;
    Ok((status, text))
}

/// From the own address, which the gateway compares with the target of the mapping.
async fn connect(to: SocketAddr, local: Ipv4Addr) -> io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((local, 0).into())?;
    socket.connect(to).await
}

/// A description of a gateway with all its services has some ten kilobytes.
const MAX_BODY: usize = 64 * 1024;
/// Longest head of an answer; the least that hyper allows.
const MAX_HEAD: usize = 8 * 1024;
/// Small gateways are slow at this.
const TIMEOUT: Duration = Duration::from_secs(3);
