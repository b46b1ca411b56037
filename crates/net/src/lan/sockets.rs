//! Sockets of multicast DNS, one for each interface and family.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll};

use mesh_wire::lan::{GROUP_V4, GROUP_V6, MESSAGE, PORT};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::LanLink;

/// The sockets of all interfaces.
#[derive(Default)]
pub struct LanSockets {
    sockets: Vec<LanSocket>,
    /// Which is asked first, so that one with much to say does not silence the others.
    first: usize,
}

/// What came over one of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanDatagram {
    /// The interface.
    pub link: u32,
    /// Who sent it.
    pub from: SocketAddr,
    /// Bytes that are in the buffer; of a longer datagram one more than any message has.
    pub len: usize,
}

struct LanSocket {
    link: u32,
    group: SocketAddr,
    socket: UdpSocket,
}

impl LanSockets {
    /// The size of a buffer for [`LanSockets::recv`].
    pub const BUFFER: usize = MESSAGE + 1;

    /// Opens sockets on new interfaces and closes those on others; one that cannot be opened is left out.
    pub fn set_links(&mut self, links: &[LanLink]) {
        let wants = |link: &LanLink, v6: bool| link.addresses.iter().any(|(ip, _)| ip.is_ipv6() == v6);
        self.sockets.retain(|socket| {
            links.iter().any(|link| link.index == socket.link && wants(link, socket.group.is_ipv6()))
        });
        for link in links {
            for v6 in [false, true] {
                let open = |socket: &LanSocket| socket.link == link.index && socket.group.is_ipv6() == v6;
                if wants(link, v6) && !self.sockets.iter().any(open) {
                    match LanSocket::open(link, v6) {
                        Ok(socket) => self.sockets.push(socket),
                        Err(error) => {
                            tracing::debug!(interface = link.name, v6, %error, "neighbours are not looked for");
                        }
                    }
                }
            }
        }
    }

    /// Waits for a datagram on any of the sockets; for ever where there is none. May be cancelled without losing anything.
    pub async fn recv(&mut self, buffer: &mut [u8]) -> LanDatagram {
        poll_fn(|context| self.poll_recv(context, buffer)).await
    }

    fn poll_recv(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<LanDatagram> {
        let mut turn = 0;
        while turn < self.sockets.len() {
            let at = (self.first + turn) % self.sockets.len();
            let socket = &self.sockets[at];
            let mut into = ReadBuf::new(buffer);
            match socket.socket.poll_recv_from(context, &mut into) {
                Poll::Ready(Ok(from)) => {
                    self.first = at + 1;
                    return Poll::Ready(LanDatagram { link: socket.link, from, len: into.filled().len() });
                }
                Poll::Ready(Err(error)) => {
                    // The interface went; a change of the network brings another socket.
                    tracing::debug!(%error, "a socket for neighbours failed");
                    self.sockets.swap_remove(at);
                    turn = 0;
                }
                Poll::Pending => turn += 1,
            }
        }
        Poll::Pending
    }

    /// Sends to everybody on an interface, over each family that it has; false where nothing left.
    pub fn send(&self, link: u32, message: &[u8]) -> bool {
        let mut sent = false;
        for socket in self.sockets.iter().filter(|socket| socket.link == link) {
            match socket.socket.try_send_to(message, socket.group) {
                Ok(_) => sent = true,
                Err(error) => tracing::debug!(%error, "neighbours were not told"),
            }
        }
        sent
    }
}

impl LanSocket {
    /// Binds to the group, not to every address: what others send to this machine alone on that port is not for us.
    fn open(link: &LanLink, v6: bool) -> io::Result<Self> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind_device(Some(link.name.as_bytes()))?;
        let group: SocketAddr = if v6 {
            socket.set_only_v6(true)?;
            socket.set_multicast_hops_v6(HOPS)?;
            socket.set_multicast_if_v6(link.index)?;
            socket.join_multicast_v6(&GROUP_V6, link.index)?;
            SocketAddrV6::new(GROUP_V6, PORT, 0, link.index).into()
        } else {
            socket.set_multicast_ttl_v4(HOPS)?;
            let own = link.addresses.iter().find_map(|(ip, _)| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            });
            socket.set_multicast_if_v4(&own.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
            socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(link.index))?;
            SocketAddr::new(GROUP_V4.into(), PORT)
        };
        socket.bind(&group.into())?;
        Ok(Self { link: link.index, group, socket: UdpSocket::from_std(socket.into())? })
    }
}

impl fmt::Debug for LanSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sockets.iter().map(|socket| (socket.link, socket.group))).finish()
    }
}

/// RFC 6762, section 11.
const HOPS: u32 = 255;
/// Room for some hundred messages: what comes within some milliseconds in a flood, and any answer to a question.
const RECEIVE_BUFFER: usize = 256 * 1024;
