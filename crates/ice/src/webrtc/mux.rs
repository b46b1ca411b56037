//! The socket that does not exist.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use webrtc_ice::udp_mux::UDPMux;
use webrtc_util::{Conn, Error};

use super::Shared;

/// A datagram and where it came from.
pub(super) type Arrival = (SocketAddr, Box<[u8]>);

/// Datagrams that wait for the library.
const ARRIVALS: usize = 256;

/// Gives the library's agent its only connection.
pub(super) struct Mux {
    connection: Arc<Connection>,
}

struct Connection {
    shared: Arc<Shared>,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Arrival>>,
    local: Mutex<SocketAddr>,
}

impl Mux {
    pub(super) fn new(shared: Arc<Shared>) -> (Arc<Self>, mpsc::Sender<Arrival>) {
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let local = Mutex::new((Ipv4Addr::UNSPECIFIED, 0).into());
        let connection = Arc::new(Connection { shared, arrivals: tokio::sync::Mutex::new(arrivals), local });
        (Arc::new(Self { connection }), sender)
    }

    /// Says where the socket is.
    pub(super) fn bind(&self, local: SocketAddr) {
        *self.connection.local.lock().unwrap_or_else(PoisonError::into_inner) = local;
    }
}

#[async_trait]
impl UDPMux for Mux {
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn get_conn(self: Arc<Self>, _fragment: &str) -> Result<Arc<dyn Conn + Send + Sync>, Error> {
        Ok(Arc::<Connection>::clone(&self.connection))
    }

    async fn remove_conn_by_ufrag(&self, _fragment: &str) {}
}

#[async_trait]
impl Conn for Connection {
    async fn connect(&self, _to: SocketAddr) -> Result<(), Error> {
        Err(unconnected())
    }

    async fn recv(&self, _buffer: &mut [u8]) -> Result<usize, Error> {
        Err(unconnected())
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        let Some((from, datagram)) = self.arrivals.lock().await.recv().await else {
            return Err(Error::ErrUseClosedNetworkConn);
        };
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok((length, from))
    }

    async fn send(&self, _datagram: &[u8]) -> Result<usize, Error> {
        Err(unconnected())
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<usize, Error> {
        self.shared.transmit(to, datagram);
        Ok(datagram.len())
    }

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(*self.local.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

fn unconnected() -> Error {
    io::Error::from(io::ErrorKind::NotConnected).into()
}
