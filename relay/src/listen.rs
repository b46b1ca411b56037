//! Sockets that listen.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use mesh_socket::Sizes;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// An address cannot be listened on. The text is one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({source}); {advice}, or change {key} in the configuration")]
pub struct ListenError {
    key: &'static str,
    address: SocketAddr,
    advice: &'static str,
    #[source]
    source: io::Error,
}

/// Listens for TCP connections. `[::]` takes IPv4 as well, and only IPv4 on a host without IPv6.
///
/// # Errors
/// [`ListenError`] names the address, and `key` as the place to change it.
pub(crate) fn tcp(address: SocketAddr, key: &'static str) -> Result<TcpListener, ListenError> {
    let open = |address: SocketAddr| {
        let socket = bind(address, Type::STREAM, Protocol::TCP, false)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    with_fallback(address, open).map_err(|source| error(address, key, source))
}

/// Binds a UDP socket, otherwise as [`tcp`].
///
/// # Errors
/// As [`tcp`].
pub(crate) fn udp(address: SocketAddr, key: &'static str) -> Result<UdpSocket, ListenError> {
    let open = |address| UdpSocket::from_std(bind(address, Type::DGRAM, Protocol::UDP, false)?.into());
    with_fallback(address, open).map_err(|source| error(address, key, source))
}

/// Binds `count` UDP sockets with so much room to one port, among which the kernel divides the senders.
///
/// # Errors
/// As [`tcp`].
pub(crate) fn udp_group(
    address: SocketAddr,
    key: &'static str,
    (count, room): (usize, Sizes),
) -> Result<Vec<UdpSocket>, ListenError> {
    let open = |address: SocketAddr| {
        let socket = bind(address, Type::DGRAM, Protocol::UDP, true)?;
        // Less is slower under load and wrong in nothing.
        let _ = room.ask(&socket);
        UdpSocket::from_std(socket.into())
    };
    let open = |address| with_fallback(address, open).map_err(|source| error(address, key, source));
    let first = open(address)?;
    let bound = first.local_addr().map_err(|source| error(address, key, source))?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(open(bound)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol, group: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        // A restarted relay takes over while connections of the old one are still in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    if group {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn with_fallback<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if no_ipv6(&error) && address.is_ipv6() && address.ip().is_unspecified() => {
            tracing::info!("this host has no IPv6, listening on IPv4 only");
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        result => result,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(nix::errno::Errno::from_raw);
    matches!(code, Some(nix::errno::Errno::EAFNOSUPPORT | nix::errno::Errno::EADDRNOTAVAIL))
}

fn error(address: SocketAddr, key: &'static str, source: io::Error) -> ListenError {
    let kind = source.kind();
    let advice = if kind == io::ErrorKind::AddrInUse {
        "stop the program that uses the port"
    } else if kind == io::ErrorKind::PermissionDenied {
        "take a port above 1023, or give the program CAP_NET_BIND_SERVICE"
    } else {
        "give this host the address"
    };
    ListenError { key, address, advice, source }
}

/// Connections that the kernel finishes ahead of us, for the moment after a restart when all clients come back.
const BACKLOG: i32 = 1024;
