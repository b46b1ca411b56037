//! What can go wrong with UDP sockets, and what only looks like it.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use thiserror::Error;

/// Why no UDP socket stands.
#[derive(Debug, Error)]
#[error("cannot bind a UDP socket to {address}")]
pub struct UdpBindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Why a datagram did not leave. Each is about this datagram only.
#[derive(Debug, Error)]
pub enum UdpSendError {
    /// There is no socket of the address's family.
    #[error("no UDP socket of this address family")]
    NoSocket,
    /// The socket takes nothing for now; poll it for writing.
    #[error("the UDP socket is full")]
    Full {
        /// How many bytes of the payload, from its beginning, did leave: whole datagrams.
        sent: usize,
    },
    /// A datagram is larger than the interface's MTU or than UDP allows.
    #[error("the datagram is too large for the interface")]
    TooLarge,
    /// No route, no interface, or a firewall of this host forbids it.
    #[error("the address cannot be reached from here")]
    Unreachable(#[source] io::Error),
    /// Anything else.
    #[error("the UDP socket refused the datagram")]
    Io(#[source] io::Error),
}

impl UdpSendError {
    /// Sorts what the kernel said after `sent` bytes had left.
    pub(super) fn new(error: io::Error, sent: usize) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Self::Full { sent };
        }
        match errno(&error) {
            // The queue of the interface rather than of the socket, which nothing tells the end of.
            Some(Errno::ENOBUFS) => Self::Full { sent },
            Some(Errno::EMSGSIZE) => Self::TooLarge,
            Some(
                Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::ENETDOWN
                | Errno::EHOSTDOWN
                | Errno::EADDRNOTAVAIL
                | Errno::EACCES
                | Errno::EPERM
                | Errno::ECONNREFUSED,
            ) => Self::Unreachable(error),
            _ => Self::Io(error),
        }
    }
}

/// Whether an error is the news that an earlier datagram did not arrive (ICMP), which may have come from anybody.
pub(super) fn is_news_of_another(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(
            Errno::ECONNREFUSED
                | Errno::ECONNRESET
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::ENETDOWN
                | Errno::EPROTO
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
                | Errno::EACCES
                | Errno::EMSGSIZE
        )
    )
}

pub(super) fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}
