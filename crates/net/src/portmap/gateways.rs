//! The gateways to ask, and the own address that each of them sees: from the kernel's default routes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio_util::task::AbortOnDropHandle;

use super::judge::{is_global, is_private};

/// A gateway, as one own address sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gateway {
    /// Port 0. A link-local address has its interface as scope.
    pub(super) address: SocketAddr,
    /// What mappings lead to.
    pub(super) local: IpAddr,
}

/// Lists the gateways of this machine, as seen from the calling thread's network namespace: at most [`MOST`], those
/// of the preferred routes first. Needs no permission.
pub(super) async fn list() -> io::Result<Vec<Gateway>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let _task = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut messages = routes(&handle, RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
    messages.extend(routes(&handle, RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
    let addresses: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.map_err(io::Error::other)?;

    let own = global_addresses(&addresses);
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for hop in next_hops(&messages) {
        let locals = match hop.address {
            SocketAddr::V4(_) => own_ipv4(hop.address).into_iter().collect(),
            SocketAddr::V6(_) => own.get(&hop.interface).cloned().unwrap_or_default(),
        };
        let gateways = locals.into_iter().map(|local| Gateway { address: hop.address, local });
        found.extend(gateways.filter(|gateway| seen.insert(*gateway)));
    }
    found.truncate(MOST);
    Ok(found)
}

async fn routes(handle: &Handle, of: RouteMessage) -> io::Result<Vec<RouteMessage>> {
    handle.route().get(of).execute().try_collect().await.map_err(io::Error::other)
}

/// The own address towards a gateway, if it is one that a NAT could stand before. Sends nothing.
fn own_ipv4(gateway: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway.ip(), super::pcp::PORT)).ok()?;
    let SocketAddr::V4(own) = socket.local_addr().ok()? else { return None };
    is_private(*own.ip()).then_some(IpAddr::V4(*own.ip()))
}

/// The public IPv6 addresses in use, by interface: only a firewall can stand before those.
fn global_addresses(messages: &[AddressMessage]) -> BTreeMap<u32, Vec<IpAddr>> {
    let unusable =
        AddressHeaderFlags::Tentative | AddressHeaderFlags::Deprecated | AddressHeaderFlags::Dadfailed;
    let mut found: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for message in messages.iter().filter(|message| !message.header.flags.intersects(unusable)) {
        for attribute in &message.attributes {
            if let AddressAttribute::Address(IpAddr::V6(address)) = attribute
                && is_global(*address)
            {
                found.entry(message.header.index).or_default().push(IpAddr::V6(*address));
            }
        }
    }
    found
}

/// The first hop of a default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    address: SocketAddr,
    interface: u32,
}

/// The first hops of the default routes in the main table, the preferred ones first.
fn next_hops(routes: &[RouteMessage]) -> Vec<Hop> {
    let mut hops: Vec<(u32, Hop)> = Vec::new();
    for route in routes {
        if route.header.kind != RouteType::Unicast || route.header.destination_prefix_length != 0 {
            continue;
        }
        let (mut table, mut metric) = (u32::from(route.header.table), 0);
        for attribute in &route.attributes {
            if let RouteAttribute::Table(id) = attribute {
                table = *id;
            } else if let RouteAttribute::Priority(priority) = attribute {
                metric = *priority;
            }
        }
        if table == MAIN_TABLE {
            hops.extend(hops_of(&route.attributes).into_iter().map(|hop| (metric, hop)));
        }
    }
    hops.sort_by_key(|(metric, hop)| (*metric, hop.address.is_ipv6()));
    hops.into_iter().map(|(_, hop)| hop).collect()
}

/// The one hop of an ordinary route, or all of a route over several paths.
fn hops_of(attributes: &[RouteAttribute]) -> Vec<Hop> {
    let (mut hops, mut gateway, mut interface) = (Vec::new(), None, None);
    for attribute in attributes {
        if let RouteAttribute::MultiPath(paths) = attribute {
            hops.extend(paths.iter().filter_map(|path| hop(via(&path.attributes)?, path.interface_index)));
        } else if let RouteAttribute::Gateway(address) = attribute {
            gateway = Some(address);
        } else if let RouteAttribute::Oif(index) = attribute {
            interface = Some(*index);
        }
    }
    if let (Some(gateway), Some(interface)) = (gateway, interface) {
        hops.extend(hop(gateway, interface));
    }
    hops
}

fn via(attributes: &[RouteAttribute]) -> Option<&RouteAddress> {
    attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Gateway(address) = attribute { Some(address) } else { None }
    })
}

fn hop(gateway: &RouteAddress, interface: u32) -> Option<Hop> {
    let address = if let RouteAddress::Inet(v4) = gateway {
        SocketAddr::new(IpAddr::V4(*v4), 0)
    } else if let RouteAddress::Inet6(v6) = gateway {
        let scope = if v6.is_unicast_link_local() { interface } else { 0 };
        SocketAddrV6::new(*v6, 0, 0, scope).into()
    } else {
        return None;
    };
    Some(Hop { address, interface })
}

/// Number of the main routing table; others serve special rules.
const MAIN_TABLE: u32 = 254;
/// Two networks with both families, and a temporary IPv6 address in each, are what a laptop has.
const MOST: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::RouteNextHopBuilder;

    fn default_v4(gateway: &str, metric: u32) -> RouteMessageBuilder<Ipv4Addr> {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway.parse().unwrap())
            .output_interface(2)
            .priority(metric)
    }

    fn addresses(routes: &[RouteMessage]) -> Vec<String> {
        next_hops(routes).iter().map(|hop| hop.address.to_string()).collect()
    }

    #[test]
    fn preferred_default_routes_come_first_and_others_do_not_count() {
        let v6: Ipv6Addr = "fe80::1".parse().unwrap();
        let routes = [
            default_v4("192.168.1.1", 600).build(),
            default_v4("192.168.2.1", 100).build(),
            default_v4("192.168.3.1", 1).destination_prefix([10, 0, 0, 0].into(), 8).build(),
            default_v4("192.168.4.1", 1).table_id(5252).build(),
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(9).build(),
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).output_interface(3).priority(100).build(),
        ];
        assert_eq!(addresses(&routes), ["192.168.2.1:0", "[fe80::1%3]:0", "192.168.1.1:0"]);
    }

    #[test]
    fn every_path_of_a_route_counts() {
        let path = |address: [u8; 4], index| {
            RouteNextHopBuilder::new_ipv4().interface(index).via(IpAddr::from(address)).unwrap().build()
        };
        let paths = vec![path([192, 168, 1, 1], 2), path([192, 168, 2, 1], 3)];
        let route = RouteMessageBuilder::<Ipv4Addr>::new().multipath(paths).build();
        assert_eq!(addresses(&[route]), ["192.168.1.1:0", "192.168.2.1:0"]);
    }
}
