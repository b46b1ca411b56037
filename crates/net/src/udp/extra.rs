//! Extra IPv4 sockets: where a NAT gives each socket another public port, one of many may be the one that the peer finds.
//!
//! In: datagrams for the socket of a number, and word that something from an address proved its sender. Out: what arrives,
//! and the socket over which an address is reached.
//!
//! Invariants: at most [`EXTRA_SOCKETS`] and [`KEPT`] more are open; all but those that were kept end with
//! [`Extra::finish`]; nothing that a stranger sends changes over which socket an address is reached.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use mesh_socket::{Lost, Sizes};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{UdpSocket, enlarge_buffers};

/// The extra sockets of a node.
#[derive(Debug)]
pub(super) struct Extra {
    /// The address that they are bound to.
    ip: Ipv4Addr,
    epoll: Option<Epoll>,
    sockets: BTreeMap<u64, One>,
    /// The sockets of the numbers that were used since [`Extra::finish`].
    numbered: Vec<u64>,
    next: u64,
    /// Over which socket an address is reached that is not reached over the usual one.
    routes: BTreeMap<SocketAddr, u64>,
    /// Datagrams that found no room at sockets that carried a path and are closed.
    lost: u64,
}

#[derive(Debug)]
struct One {
    socket: UdpSocket,
    kept: bool,
}

impl Extra {
    pub(super) const fn new(ip: Ipv4Addr) -> Self {
        Self {
            ip,
            epoll: None,
            sockets: BTreeMap::new(),
            numbered: Vec::new(),
            next: 0,
            routes: BTreeMap::new(),
            lost: 0,
        }
    }

    /// What to poll while there are any.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let any = !self.sockets.is_empty();
        self.epoll.as_ref().filter(|_| any).map(|epoll| epoll.0.as_fd())
    }

    /// The socket over which an address is reached; none for the usual one.
    pub(super) fn reaches(&self, to: &SocketAddr) -> Option<&UdpSocket> {
        if self.routes.is_empty() {
            return None;
        }
        self.routes.get(to).and_then(|id| self.sockets.get(id)).map(|one| &one.socket)
    }

    /// The socket of a number, opened where the number is the next one.
    pub(super) fn numbered(&mut self, number: u16) -> io::Result<&UdpSocket> {
        let number = usize::from(number);
        if number >= EXTRA_SOCKETS.into() || number > self.numbered.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if number == self.numbered.len() {
            let id = self.open()?;
            self.numbered.push(id);
        }
        let one = self.sockets.get(&self.numbered[number]);
        one.map(|one| &one.socket).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&mut self) -> io::Result<u64> {
        let epoll = match &mut self.epoll {
            Some(epoll) => epoll,
            none => none.insert(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?),
        };
        let socket = UdpSocket::bind_small((self.ip, 0).into(), false)?;
        epoll.add(&socket.socket, EpollEvent::new(EpollFlags::EPOLLIN, self.next))?;
        let id = self.next;
        self.sockets.insert(id, One { socket, kept: false });
        self.next += 1;
        Ok(id)
    }

    /// The numbers of sockets that have something, a few at a time.
    pub(super) fn readable(&self) -> io::Result<Vec<u64>> {
        let Some(epoll) = self.epoll.as_ref().filter(|_| !self.sockets.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut events = [EpollEvent::empty(); AT_ONCE];
        let count = match epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(events[..count].iter().map(EpollEvent::data).collect())
    }

    pub(super) fn socket(&self, id: u64) -> Option<&UdpSocket> {
        self.sockets.get(&id).map(|one| &one.socket)
    }

    /// Something from an address that came over this socket proved its sender: what goes there leaves over it.
    pub(super) fn proved(&mut self, from: SocketAddr, id: u64) {
        // What was found before is given up only for what an attempt found.
        let free = match self.routes.get(&from) {
            Some(_) => self.numbered.contains(&id),
            None => self.routes.len() < ROUTES,
        };
        if free {
            self.routes.insert(from, id);
        }
    }

    /// The sockets that carry paths.
    pub(super) fn kept(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.values().filter(|one| one.kept).map(|one| &one.socket)
    }

    /// How many datagrams found no room at those that did and are closed.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Frames go to this address from here on: its socket, if it has one of these, outlives [`Extra::finish`].
    pub(super) fn keep(&mut self, to: &SocketAddr, sizes: Sizes) -> bool {
        let Some(one) = self.routes.get(to).and_then(|id| self.sockets.get_mut(id)) else { return false };
        if !std::mem::replace(&mut one.kept, true) {
            enlarge_buffers(&one.socket.socket, sizes);
        }
        let mut kept = self.sockets.iter().filter(|(_, one)| one.kept).map(|(id, _)| *id);
        if let (Some(oldest), true) = (kept.next(), kept.count() >= KEPT) {
            if let Some(one) = self.sockets.remove(&oldest) {
                self.lost += Lost::of([&one.socket.socket]).datagrams();
            }
            self.routes.retain(|_, id| *id != oldest);
        }
        true
    }

    /// Closes all that were not kept.
    pub(super) fn finish(&mut self) {
        self.numbered.clear();
        let routes = &mut self.routes;
        let ended =
            self.sockets.extract_if(.., |id, one| !one.kept || !routes.values().any(|used| used == id));
        let kept: Vec<_> = ended.filter(|(_, one)| one.kept).collect();
        if !kept.is_empty() {
            self.lost += Lost::of(kept.iter().map(|(_, one)| &one.socket.socket)).datagrams();
        }
        let sockets = &self.sockets;
        routes.retain(|_, id| sockets.contains_key(id));
    }
}

/// Extra sockets that are tried at a time. With so many of the 64,512 ports, every 252nd guess of the other side hits one.
const EXTRA_SOCKETS: u16 = 256;
/// Sockets that carry paths at a time; beyond it the oldest is closed, and its peer goes over the relay until it is found anew.
const KEPT: usize = 32;
/// Addresses that are reached over extra sockets.
const ROUTES: usize = 64;
/// Sockets that are read in one turn.
const AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::LEAST as SIZES;

    fn extra() -> Extra {
        Extra::new(Ipv4Addr::LOCALHOST)
    }

    fn address(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn numbers_are_opened_in_turn_and_no_further_than_the_limit() {
        let mut extra = extra();
        assert!(extra.fd().is_none());
        extra.numbered(1).unwrap_err();
        for number in 0..EXTRA_SOCKETS {
            let port = extra.numbered(number).unwrap().local.port();
            assert_eq!(extra.numbered(number).unwrap().local.port(), port, "the same socket again");
        }
        extra.numbered(EXTRA_SOCKETS).unwrap_err();
        assert!(extra.fd().is_some() && extra.sockets.len() == usize::from(EXTRA_SOCKETS));
        extra.finish();
        assert!(extra.fd().is_none() && extra.sockets.is_empty(), "none was kept");
    }

    #[test]
    fn socket_that_works_is_kept_and_the_others_are_closed() {
        let mut extra = extra();
        let ports: Vec<u16> = (0..4).map(|number| extra.numbered(number).unwrap().local.port()).collect();
        assert!(extra.reaches(&address(9)).is_none(), "nothing proved itself");
        let id = extra.numbered[2];
        extra.proved(address(9), id);
        extra.proved(address(8), extra.numbered[1]);
        assert_eq!(extra.reaches(&address(9)).unwrap().local.port(), ports[2]);
        extra.keep(&address(9), SIZES);
        extra.finish();
        assert_eq!(extra.sockets.len(), 1);
        assert_eq!(extra.reaches(&address(9)).unwrap().local.port(), ports[2]);
        assert!(extra.reaches(&address(8)).is_none());
        // Another attempt that finds another socket for the same address.
        extra.numbered(0).unwrap();
        extra.proved(address(9), extra.numbered[0]);
        extra.keep(&address(9), SIZES);
        extra.finish();
        assert_eq!(extra.sockets.len(), 1);
        assert_ne!(extra.reaches(&address(9)).unwrap().local.port(), ports[2]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut extra = extra();
        for port in 1..100 {
            extra.numbered(0).unwrap();
            extra.proved(address(port), extra.numbered[0]);
            extra.keep(&address(port), SIZES);
            extra.finish();
            assert!(extra.sockets.len() <= KEPT && extra.routes.len() <= KEPT);
        }
        assert!(extra.reaches(&address(99)).is_some() && extra.reaches(&address(1)).is_none());
        extra.numbered(0).unwrap();
        for port in 1..1000 {
            extra.proved(address(port), extra.numbered[0]);
        }
        assert!(extra.routes.len() <= ROUTES);
    }
}
