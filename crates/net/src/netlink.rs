//! What the kernel says about links, addresses and ways out, over one socket in one network namespace.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio_util::task::AbortOnDropHandle;

/// A connection to the kernel's routing service; its task ends with it.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    _task: AbortOnDropHandle<()>,
}

/// An interface as the kernel describes it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The driver's name; `None` for hardware and loopback.
    pub(crate) kind: Option<InfoKind>,
    pub(crate) flags: LinkFlags,
    /// Whether it is a port of a bridge or a bond, which then has the addresses.
    pub(crate) is_port: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkAddress {
    /// Of the interface.
    pub(crate) index: u32,
    pub(crate) ip: IpAddr,
    /// The length of its prefix.
    pub(crate) prefix: u8,
    pub(crate) flags: AddressFlags,
}

impl Netlink {
    /// Opens the socket in the network namespace of the calling thread.
    pub(crate) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, _task: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    pub(crate) async fn links(&self) -> io::Result<Vec<LinkMessage>> {
        self.handle.link().get().execute().try_collect().await.map_err(into_io)
    }

    pub(crate) async fn addresses(&self) -> io::Result<Vec<AddressMessage>> {
        self.handle.address().get().execute().try_collect().await.map_err(into_io)
    }

    /// All routes of one family, in every table.
    pub(crate) async fn routes(&self, of: RouteMessage) -> io::Result<Vec<RouteMessage>> {
        self.handle.route().get(of).execute().try_collect().await.map_err(into_io)
    }

    /// The interface that packets to `destination` leave by, and the address they carry; `None` without a way there.
    pub(crate) async fn way_to(&self, destination: IpAddr) -> Option<(u32, IpAddr)> {
        let length = if destination.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, length)
            .expect("32 and 128 are the lengths of whole addresses")
            .build();
        let answer = self.handle.route().get(question).execute().try_next().await.ok()??;
        let (mut index, mut source) = (None, None);
        for attribute in answer.attributes {
            if let RouteAttribute::Oif(oif) = attribute {
                index = Some(oif);
            } else if let RouteAttribute::PrefSource(RouteAddress::Inet(ip)) = attribute {
                source = Some(ip.into());
            } else if let RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) = attribute {
                source = Some(ip.into());
            }
        }
        index.zip(source)
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let header = &message.header;
        let mut link = Self {
            index: header.index,
            name: String::new(),
            kind: None,
            flags: header.flags,
            is_port: false,
        };
        for attribute in &message.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                link.name.clone_from(name);
            } else if let LinkAttribute::Controller(controller) = attribute {
                link.is_port = *controller != 0;
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                link.kind = infos
                    .iter()
                    .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind.clone()) } else { None });
            }
        }
        link
    }
}

impl LinkAddress {
    /// `None` for a message without an address.
    pub(crate) fn read(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut other) = (None, None);
        // The header has room for the lower eight flags only; the attribute has all.
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            if let AddressAttribute::Local(ip) = attribute {
                local = Some(*ip);
            } else if let AddressAttribute::Address(ip) = attribute {
                other = Some(*ip);
            } else if let AddressAttribute::Flags(all) = attribute {
                flags = *all;
            }
        }
        // Where there is a local address, the other one is that of the far end.
        let prefix = message.header.prefix_len;
        Some(Self { index: message.header.index, ip: local.or(other)?, prefix, flags })
    }

    /// Whether only this link knows the address.
    pub(crate) fn is_link_local(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error)
    }
}
