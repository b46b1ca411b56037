//! The gateways to ask, and the own address that each of them sees: from the kernel's default routes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::AddressFlags;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::judge::{is_global, is_private};
use crate::netlink::{LinkAddress, Netlink};

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
    let netlink = Netlink::connect()?;
    let mut messages = netlink.routes(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
    messages.extend(netlink.routes(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
    let addresses: Vec<LinkAddress> =
        netlink.addresses().await?.iter().filter_map(LinkAddress::read).collect();

    let own = global_addresses(&addresses);
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for hop in next_hops(&messages) {
        let locals = match hop.address {
            // A NAT can only stand before a private address.
            SocketAddr::V4(to) => {
                let way = netlink.way_to(IpAddr::V4(*to.ip())).await;
                let is_private = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if is_private(*v4));
                way.map(|(_, own)| own).filter(is_private).into_iter().collect()
            }
            SocketAddr::V6(_) => own.get(&hop.interface).cloned().unwrap_or_default(),
        };
        let gateways = locals.into_iter().map(|local| Gateway { address: hop.address, local });
        found.extend(gateways.filter(|gateway| seen.insert(*gateway)));
    }
    found.truncate(MOST);
    Ok(found)
}

/// The public IPv6 addresses in use, by interface: only a firewall can stand before those.
fn global_addresses(all: &[LinkAddress]) -> BTreeMap<u32, Vec<IpAddr>> {
    let unusable = AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed;
    let mut found: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for address in all.iter().filter(|address| !address.flags.intersects(unusable)) {
        if matches!(address.ip, IpAddr::V6(v6) if is_global(v6)) {
            found.entry(address.index).or_default().push(address.ip);
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
    fn only_public_ipv6_addresses_in_use_count() {
        let address = |ip: &str, flags| LinkAddress { index: 2, ip: ip.parse().unwrap(), prefix: 64, flags };
        let none = AddressFlags::empty();
        let all = [
            address("2001:db8::1", none),
            address("2001:db8::2", AddressFlags::Deprecated),
            address("2001:db8::3", AddressFlags::Tentative),
            address("fd00::1", none),
            address("fe80::1", none),
            address("8.8.8.8", none),
        ];
        let expected = BTreeMap::from([(2, vec!["2001:db8::1".parse().unwrap()])]);
        assert_eq!(global_addresses(&all), expected);
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
