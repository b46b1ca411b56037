//! Requests to the kernel about links, addresses and routes, over one socket in one network namespace.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

/// A connection to the kernel's routing service; its task ends with it.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

/// An interface as the kernel describes it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `None` for hardware and loopback.
    pub(crate) kind: Option<InfoKind>,
}

impl Netlink {
    /// Opens the socket in the network namespace of the calling thread.
    pub(crate) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    pub(crate) async fn link(&self, name: &str) -> io::Result<Option<Link>> {
        match self.handle.link().get().match_name(name).execute().try_next().await {
            Ok(message) => Ok(message.map(Link::from)),
            Err(error) => match into_io(error) {
                error if has_errno(&error, Errno::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(crate) async fn links(&self) -> io::Result<Vec<Link>> {
        self.handle.link().get().execute().map_ok(Link::from).try_collect().await.map_err(into_io)
    }

    /// All routes of one family, in every table.
    pub(crate) async fn routes(&self, of: RouteMessage) -> io::Result<Vec<RouteMessage>> {
        self.handle.route().get(of).execute().try_collect().await.map_err(into_io)
    }

    pub(crate) async fn change_link(&self, message: LinkMessage) -> io::Result<()> {
        self.handle.link().change(message).execute().await.map_err(into_io)
    }

    pub(crate) async fn delete_link(&self, index: u32) -> io::Result<()> {
        self.handle.link().del(index).execute().await.map_err(into_io)
    }

    pub(crate) async fn add_address(&self, index: u32, address: &IpNet) -> io::Result<()> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            // Nobody else can have the address: it follows from the node id, and peers cannot claim it. Without the
            // flag it could not be bound for a second or more.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(into_io)
    }

    /// Whether the kernel delivers packets for `address` to this machine.
    pub(crate) async fn is_local(&self, address: IpAddr) -> io::Result<bool> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .expect("32 and 128 are the lengths of whole addresses")
            .build();
        let answer = self.handle.route().get(question).execute().try_next().await.map_err(into_io)?;
        Ok(answer.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    pub(crate) async fn add_route(&self, index: u32, prefix: &IpNet) -> io::Result<()> {
        self.handle.route().add(device_route(index, prefix)).execute().await.map_err(into_io)
    }

    pub(crate) async fn delete_route(&self, index: u32, prefix: &IpNet) -> io::Result<()> {
        self.handle.route().del(device_route(index, prefix)).execute().await.map_err(into_io)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, name: String::new(), kind: None };
        for attribute in message.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                link.name = name;
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                link.kind = infos
                    .into_iter()
                    .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
            }
        }
        link
    }
}

/// Removes one interface from a destructor, where nothing can be awaited.
///
/// The socket is opened beforehand, so that a drop on a thread of another namespace removes the right interface.
#[derive(Debug)]
pub(crate) struct Remover {
    socket: Socket,
    request: Vec<u8>,
}

impl Remover {
    pub(crate) fn new(index: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::DelLink(link_message(index).build()));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);
        Ok(Self { socket, request })
    }

    /// Removes the interface; the kernel does it within the call.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.socket.send(&self.request, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(error.to_io());
        }
        Ok(())
    }
}

/// A request to change the interface `index`.
pub(crate) fn link_message(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

/// The attribute that keeps the kernel from making up a link-local address, and with it from asking for routers.
pub(crate) fn no_link_local() -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])])
}

pub(crate) fn has_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(errno)
}

fn device_route(index: u32, prefix: &IpNet) -> RouteMessage {
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(prefix.network(), prefix.prefix_len())
        .expect("the length of an IpNet fits its family")
        .output_interface(index)
        .scope(if prefix.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe })
        .build()
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error)
    }
}
