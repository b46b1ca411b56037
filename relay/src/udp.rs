//! The UDP port beside the WebSockets: frames of clients that have proven an address, without TCP in between.
//!
//! `proof` decides at which address a client is reached, `port` knows the clients, `serve` moves datagrams.

mod port;
mod proof;
mod serve;

use std::num::NonZero;

use mesh_socket::{Lost, Sizes};
use tokio::net::UdpSocket;

pub(crate) use port::{Client, Clients};
pub(crate) use serve::serve;

use crate::config::{Config, UdpListen};
use crate::listen::{self, ListenError};

/// Binds the port, with a socket for every processor.
///
/// # Errors
/// [`ListenError`] when the configured address cannot be had.
pub(crate) fn open(config: &Config) -> Result<(Vec<UdpSocket>, Clients), ListenError> {
    let count = std::thread::available_parallelism().map_or(1, NonZero::get).min(SOCKETS);
    let sockets = match (config.udp_listen, config.listen.first()) {
        (UdpListen::Off, _) | (UdpListen::AsListen, None) => Vec::new(),
        (UdpListen::At(address), _) => listen::udp_group(address, "udp_listen", (count, LEAST))?,
        (UdpListen::AsListen, Some(address)) => {
            match listen::udp_group(*address, "udp_listen", (count, LEAST)) {
                Ok(sockets) => sockets,
                Err(error) => {
                    tracing::warn!(reason = %error, "clients are not offered UDP");
                    Vec::new()
                }
            }
        }
    };
    let port = sockets.first().and_then(|socket| socket.local_addr().ok()).map(|address| address.port());
    let clients = Clients::new(port, Lost::of(&sockets));
    Ok((sockets, clients))
}

/// Room of each socket to begin with: what arrives at 5 Gbit/s within 3 ms.
const LEAST: Sizes = Sizes { receive: 2 * 1024 * 1024, send: 2 * 1024 * 1024 };
/// More sockets than this would not have more work to divide.
const SOCKETS: usize = 16;
