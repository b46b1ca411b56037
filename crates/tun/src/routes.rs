//! The routes that the machine already has, to see whether a pool of addresses would collide with one.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use crate::netlink::Netlink;

/// A prefix that the machine reaches, or an address that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    /// The destinations.
    pub prefix: IpNet,
    /// The interface, `lo` for some addresses of the machine; empty where the kernel names none.
    pub device: String,
    /// The routing table: 254 is the main one, 255 holds the machine's own addresses.
    pub table: u32,
}

/// The kernel did not list its routes.
#[derive(Debug, thiserror::Error)]
#[error("failed to list the routes of this machine")]
pub struct RouteListError {
    #[source]
    source: io::Error,
}

/// Lists unicast routes and own addresses of both families in every table, as seen from the calling thread's
/// network namespace. Needs no permission.
///
/// # Errors
/// When the kernel refuses the netlink socket or a request on it.
pub async fn local_routes() -> Result<Vec<LocalRoute>, RouteListError> {
    list().await.map_err(|source| RouteListError { source })
}

/// The first of `routes` that shares an address with `pool`.
///
/// Default routes do not count, nor do the halves of the address space by which VPN clients cover them; neither do
/// routes of `except_device`, which is meant for the caller's own interface.
#[must_use]
pub fn overlapping<'a>(
    pool: &IpNet,
    routes: &'a [LocalRoute],
    except_device: Option<&str>,
) -> Option<&'a LocalRoute> {
    routes.iter().find(|route| {
        route.prefix.prefix_len() > DEFAULT_HALF
            && except_device != Some(route.device.as_str())
            && (route.prefix.contains(pool) || pool.contains(&route.prefix))
    })
}

async fn list() -> io::Result<Vec<LocalRoute>> {
    let netlink = Netlink::connect()?;
    let names: HashMap<u32, String> =
        netlink.links().await?.into_iter().map(|link| (link.index, link.name)).collect();
    let mut messages = netlink.routes(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
    messages.extend(netlink.routes(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
    Ok(messages.iter().filter_map(|message| read(message, &names)).collect())
}

fn read(message: &RouteMessage, names: &HashMap<u32, String>) -> Option<LocalRoute> {
    if !matches!(message.header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    // A default route has no destination attribute.
    let mut address = if message.header.address_family == AddressFamily::Inet {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    let mut table = u32::from(message.header.table);
    let mut index = None;
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(v4)) = attribute {
            address = (*v4).into();
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(v6)) = attribute {
            address = (*v6).into();
        } else if let RouteAttribute::Table(id) = attribute {
            table = *id;
        } else if let RouteAttribute::Oif(oif) = attribute {
            index = Some(*oif);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            index = index.or_else(|| hops.first().map(|hop| hop.interface_index));
        }
    }
    let prefix = IpNet::new(address, message.header.destination_prefix_length).ok()?;
    let device = index.and_then(|index| names.get(&index)).cloned().unwrap_or_default();
    Some(LocalRoute { prefix, device, table })
}

/// Prefixes of this length or shorter stand in for a default route, as 0.0.0.0/1 with 128.0.0.0/1 does.
const DEFAULT_HALF: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, device: &str) -> LocalRoute {
        LocalRoute { prefix: prefix.parse().unwrap(), device: device.to_owned(), table: 254 }
    }

    fn pool(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn wider_equal_and_narrower_routes_overlap() {
        for prefix in ["100.64.0.0/10", "100.64.16.0/20", "100.64.17.5/32"] {
            let routes = [route("192.168.0.0/16", "eth0"), route(prefix, "wwan0")];
            assert_eq!(overlapping(&pool("100.64.16.0/20"), &routes, None), Some(&routes[1]), "{prefix}");
        }
    }

    #[test]
    fn neighbours_defaults_and_the_own_device_do_not_count() {
        let routes = [
            route("0.0.0.0/0", "eth0"),
            route("0.0.0.0/1", "tun9"),
            route("::/0", "eth0"),
            route("100.64.32.0/20", "eth0"),
            route("100.64.16.0/20", "mesh0"),
        ];
        assert_eq!(overlapping(&pool("100.64.16.0/20"), &routes, Some("mesh0")), None);
        assert_eq!(overlapping(&pool("100.64.16.0/20"), &routes, None), Some(&routes[4]));
        assert_eq!(overlapping(&pool("fd00:1::/48"), &routes, None), None);
    }
}
