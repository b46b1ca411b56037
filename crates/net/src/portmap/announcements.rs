//! What gateways tell everybody: that they lost their mappings, or have a new external address (RFC 6886, section
//! 3.2.1; RFC 6887, section 14.1.2). It is taken as a reason to ask, never as a fact.

use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;

use super::{natpmp, pcp};

/// Listens in both families, as far as they are there.
#[derive(Debug)]
pub(super) struct Announcements {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Announcements {
    /// Opens the sockets, which other programs may have open too.
    pub(super) fn open() -> Self {
        let [v4, v6] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].map(|any| {
            bind(any.is_ipv6(), SocketAddr::new(any, PORT))
                .inspect_err(|error| tracing::debug!(%error, "no announcements of gateways are heard"))
                .ok()
        });
        Self { v4, v6 }
    }

    /// Waits for an announcement and returns its sender.
    pub(super) async fn heard(&self) -> IpAddr {
        tokio::select! {
            from = hear(self.v4.as_ref()) => from,
            from = hear(self.v6.as_ref()) => from,
        }
    }
}

async fn hear(socket: Option<&UdpSocket>) -> IpAddr {
    let Some(socket) = socket else { return pending().await };
    let mut buffer = [0; 64];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { return pending().await };
        if is_announcement(&buffer[..len]) {
            return from.ip();
        }
    }
}

fn is_announcement(bytes: &[u8]) -> bool {
    matches!(pcp::parse(bytes), Some(pcp::Response::Announce { .. }))
        || matches!(natpmp::parse(bytes), Some(natpmp::Response::External { .. }))
}

fn bind(v6: bool, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(if v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    // The groups are those of all nodes, 224.0.0.1 and ff02::1, in which every host is.
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Where clients listen (RFC 6887, section 19.4).
const PORT: u16 = 5350;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_that_tell_an_epoch_are_announcements() {
        let pcp = [&[2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 12]].concat();
        assert!(is_announcement(&pcp));
        assert!(is_announcement(&[0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 0, 7]));
        assert!(!is_announcement(&pcp[..20]));
        assert!(!is_announcement(&[0, 128, 0, 3, 0, 0, 0, 9]));
        assert!(!is_announcement(&[]));
    }
}
