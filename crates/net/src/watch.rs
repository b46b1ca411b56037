//! Notices that the network of this machine changed, or that the machine slept.
//!
//! In: the kernel's messages about links, addresses and routes, and two clocks. Out: one [`NetworkChange`] for everything
//! that happens within [`NETWORK_CHANGE_WINDOW`].
//!
//! Invariants: nothing waits in memory but one change; what the kernel cannot deliver because nobody read counts as a
//! change of everything. What only concerns our own interface, and what only repeats what was known, is no change.

mod filter;
mod sleep;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::time::Duration;

use bytes::BytesMut;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::netlink::Netlink;
use filter::Filter;
use sleep::SleepGauge;

/// What changed since the last look; at least one of the fields is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// An interface came, went, or began or ceased to work.
    pub links: bool,
    /// An address came, went, or became usable or deprecated.
    pub addresses: bool,
    /// A route came or went.
    pub routes: bool,
    /// The machine slept: time passed in which nothing was sent, and NATs may have forgotten it.
    pub resumed: bool,
}

/// Watches the network namespace in which it was started.
pub struct NetworkWatch {
    socket: TokioSocket,
    buffer: BytesMut,
    filter: Filter,
    gauge: SleepGauge,
    looks: Interval,
    pending: NetworkChange,
    /// When what is pending is told.
    due: Option<Instant>,
}

impl NetworkWatch {
    /// Begins to watch. What happens from here on is noticed, so list addresses afterwards.
    ///
    /// `own_interface` is the name of the interface whose changes are ignored; it need not exist yet. Needs no permission.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket or a request on it.
    pub async fn start(own_interface: &str) -> io::Result<Self> {
        let socket = listen()?;
        let mut filter = Filter::new(own_interface);
        let netlink = Netlink::connect()?;
        for message in netlink.links().await? {
            filter.note(&RouteNetlinkMessage::NewLink(message));
        }
        for message in netlink.addresses().await? {
            filter.note(&RouteNetlinkMessage::NewAddress(message));
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            socket,
            buffer: BytesMut::with_capacity(BUFFER),
            filter,
            gauge: SleepGauge::new(sleep::read_clocks()?),
            looks,
            pending: NetworkChange::default(),
            due: None,
        })
    }

    /// Waits for the next change and tells it [`NETWORK_CHANGE_WINDOW`] after it began, with all that happened meanwhile.
    ///
    /// May be cancelled without losing anything.
    ///
    /// # Errors
    /// What the kernel says about the socket or a clock; the watch is of no use then, start another one.
    pub async fn changed(&mut self) -> io::Result<NetworkChange> {
        loop {
            tokio::select! {
                biased;
                () = until(self.due) => {
                    self.due = None;
                    return Ok(mem::take(&mut self.pending));
                }
                _ = self.looks.tick() => self.look()?,
                received = receive(&self.socket, &mut self.buffer) => self.take(received)?,
            }
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let resumed = self.gauge.look(sleep::read_clocks()?);
        self.note(NetworkChange { resumed, ..NetworkChange::default() });
        Ok(())
    }

    fn take(&mut self, received: io::Result<SocketAddr>) -> io::Result<()> {
        match received {
            // Only the kernel has port 0.
            Ok(from) if from.port_number() == 0 => {
                let change = read(&self.buffer, &mut self.filter);
                self.note(change);
            }
            Ok(_) => {}
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => {
                self.filter.forget();
                self.note(EVERYTHING);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn note(&mut self, change: NetworkChange) {
        if change.is_some() {
            self.pending.add(change);
            self.due.get_or_insert_with(|| Instant::now() + NETWORK_CHANGE_WINDOW);
        }
    }
}

impl fmt::Debug for NetworkWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkWatch").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl NetworkChange {
    const fn is_some(self) -> bool {
        self.links || self.addresses || self.routes || self.resumed
    }

    const fn add(&mut self, other: Self) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.resumed |= other.resumed;
    }
}

/// Opens the socket in the network namespace of the calling thread.
fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let groups = GROUPS.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    // More room means fewer losses; each loss only makes more of a change than there was, so refusals pass.
    if setsockopt(socket.socket_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket.socket_ref(), sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
    Ok(socket)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Receives one datagram of the kernel into the buffer.
async fn receive(socket: &TokioSocket, buffer: &mut BytesMut) -> io::Result<SocketAddr> {
    buffer.clear();
    buffer.reserve(BUFFER);
    poll_fn(|context| socket.poll_recv_from(context, buffer)).await
}

/// Reads the messages of one datagram.
fn read(datagram: &[u8], filter: &mut Filter) -> NetworkChange {
    let mut change = NetworkChange::default();
    let mut rest = datagram;
    while let Some((len, kind)) = header(rest) {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
            Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => {
                change.add(filter.note(&message));
            }
            // A newer kernel's message that this reader does not understand, or one that was cut off.
            Err(_) => change.add(unread(kind)),
            Ok(_) => {}
        }
        rest = rest.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    change
}

/// Returns length and type of the first message.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let len = usize::try_from(len).ok().filter(|len| *len >= HEADER)?;
    Some((len, kind))
}

/// What a message of this type is about.
const fn unread(kind: u16) -> NetworkChange {
    NetworkChange {
        links: matches!(kind, RTM_NEWLINK | RTM_DELLINK),
        addresses: matches!(kind, RTM_NEWADDR | RTM_DELADDR),
        routes: matches!(kind, RTM_NEWROUTE | RTM_DELROUTE),
        resumed: false,
    }
}

/// How long changes are gathered before they are told: an interface that comes up brings a handful of messages within
/// some milliseconds, and a user whose network changed should not wait.
pub const NETWORK_CHANGE_WINDOW: Duration = Duration::from_millis(200);

/// How often the clocks are compared. A wake-up this seldom costs no battery, and a resumed machine needs longer to be on a
/// network again.
const LOOK: Duration = Duration::from_secs(3);

const EVERYTHING: NetworkChange =
    NetworkChange { links: true, addresses: true, routes: true, resumed: false };

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Room for some hundred messages, which is what a container or a VPN brings when it starts.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Twice what the kernel puts into one message about a link with many virtual functions.
const BUFFER: usize = 65_536;
/// Bytes of a netlink header.
const HEADER: usize = 16;
/// Messages of one datagram begin at multiples of this.
const ALIGNMENT: usize = 4;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

#[cfg(test)]
mod tests;
