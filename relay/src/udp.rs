//! The UDP port beside the WebSockets: frames of clients that have proven an address, without TCP in between.
//!
//! `proof` decides at which address a client is reached, `port` knows the clients, `serve` moves datagrams, `lost` tells what the
//! kernel dropped.

mod lost;
mod port;
mod proof;
mod serve;

use std::num::NonZero;

use tokio::net::UdpSocket;

use self::lost::Lost;
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
        (UdpListen::At(address), _) => listen::udp_group(address, "udp_listen", count)?,
        (UdpListen::AsListen, Some(address)) => match listen::udp_group(*address, "udp_listen", count) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::warn!(reason = %error, "clients are not offered UDP");
                Vec::new()
            }
        },
    };
    let port = sockets.first().and_then(|socket| socket.local_addr().ok()).map(|address| address.port());
    let clients = Clients::new(port, Lost::of(&sockets));
    Ok((sockets, clients))
}

/// More sockets than this would not have more work to divide.
const SOCKETS: usize = 16;
