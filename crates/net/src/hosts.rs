//! The addresses of this machine that peers may be able to reach.
//!
//! In: what the kernel says about links, addresses and the ways out. Out: a short list, the best first. Left out are
//! loopback, link-local addresses, those that are still being checked for duplicates, our own interface, and tunnels:
//! an address inside another VPN would lead our packets through it.
//!
//! A tunnel is known by its driver, as netlink names it: `tun` covers TUN and TAP, thus OpenVPN, Tailscale, ZeroTier and
//! Nebula, and `wireguard`, `vxlan`, `gretap` and the like name themselves. Drivers unknown here count as tunnels when
//! their interface is point-to-point or knows no neighbours. Links of hardware have no such driver name and are kept,
//! also modems, which look like tunnels otherwise; so is PPP, which is how many homes reach their provider.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::address::AddressFlags;
use rtnetlink::packet_route::link::{InfoKind, LinkFlags};

use crate::netlink::{Link, LinkAddress, Netlink};

/// An address of this machine that a peer may be able to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    /// Never loopback, link-local, multicast or unspecified.
    pub address: IpAddr,
    /// The name of its interface.
    pub interface: String,
    /// Who can reach it.
    pub scope: HostScope,
    /// How long it will stay.
    pub lifetime: HostLifetime,
    /// What its interface is for.
    pub link: HostLink,
}

/// Who can reach an address, unless a firewall forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostScope {
    /// Everybody.
    Public,
    /// The same site only: RFC 1918, RFC 6598 (100.64.0.0/10), unique local IPv6 (RFC 4193).
    Private,
}

/// How long an address stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostLifetime {
    /// As long as the network does.
    Stable,
    /// About a day (RFC 8981).
    Temporary,
    /// On its way out: nothing new should begin with it (RFC 4862, section 5.5.4).
    Deprecated,
}

/// What an interface is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostLink {
    /// Packets to the internet leave by it.
    Uplink,
    /// Another network.
    Other,
    /// A network inside of this machine, as those of containers and virtual machines: a bridge that is no uplink.
    Internal,
}

/// Lists the addresses of this machine, the best first, at most [`MAX_HOST_ADDRESSES`].
///
/// Seen from the network namespace of the calling thread; needs no permission and sends no packet. `own_interface` is
/// the name of the interface that carries our own traffic.
///
/// # Errors
/// When the kernel refuses the netlink socket or a request on it.
pub async fn host_addresses(own_interface: &str) -> io::Result<Vec<HostAddress>> {
    let netlink = Netlink::connect()?;
    let links: Vec<Link> = netlink.links().await?.iter().map(Link::from).collect();
    let addresses: Vec<LinkAddress> =
        netlink.addresses().await?.iter().filter_map(LinkAddress::read).collect();
    let uplinks = uplinks(&netlink).await;
    Ok(select(&links, &addresses, &uplinks, own_interface))
}

/// Returns the interfaces that lead out, with the address that packets carry there.
pub(crate) async fn uplinks(netlink: &Netlink) -> Vec<(u32, IpAddr)> {
    let mut uplinks = Vec::new();
    for far in [FAR_V4.into(), FAR_V6.into()] {
        uplinks.extend(netlink.way_to(far).await);
    }
    uplinks
}

fn select(
    links: &[Link],
    addresses: &[LinkAddress],
    uplinks: &[(u32, IpAddr)],
    own_interface: &str,
) -> Vec<HostAddress> {
    let mut found = Vec::new();
    for link in links.iter().filter(|link| link.name != own_interface && is_usable(link)) {
        let on_link = |address: &&LinkAddress| address.index == link.index && can_be_reached(address);
        for address in addresses.iter().filter(on_link) {
            let host = HostAddress {
                address: address.ip,
                interface: link.name.clone(),
                scope: scope(address.ip),
                lifetime: lifetime(address),
                link: purpose(link, uplinks),
            };
            let is_source = uplinks.contains(&(link.index, address.ip));
            found.push((rank(&host, is_source), link.index, host));
        }
    }
    found.sort_by_key(|(rank, index, host)| (*rank, *index, host.address));
    thin_out(&mut found);
    found.into_iter().map(|(_, _, host)| host).collect()
}

/// What is compared first decides: addresses on their way out are last, then uplinks come first and on these the
/// address that the kernel itself would take, then public, stable and IPv6 ones.
fn rank(host: &HostAddress, is_source: bool) -> Rank {
    let is_deprecated = host.lifetime == HostLifetime::Deprecated;
    (is_deprecated, host.link, !is_source, host.scope, host.lifetime, host.address.is_ipv4())
}

type Rank = (bool, HostLink, bool, HostScope, HostLifetime, bool);

/// Keeps the first few of each interface and family, so that one with many addresses does not crowd out the others.
fn thin_out(found: &mut Vec<(Rank, u32, HostAddress)>) {
    let mut kept: Vec<(u32, bool)> = Vec::new();
    found.retain(|(_, index, host)| {
        let group = (*index, host.address.is_ipv4());
        let keep = kept.iter().filter(|other| **other == group).count() < MAX_PER_LINK;
        if keep {
            kept.push(group);
        }
        keep
    });
    found.truncate(MAX_HOST_ADDRESSES);
}

/// Whether the interface works and leads to a network of its own.
pub(crate) fn is_usable(link: &Link) -> bool {
    let works = link.flags.contains(LinkFlags::Up | LinkFlags::Running);
    works && !link.flags.contains(LinkFlags::Loopback) && !is_tunnel(link)
}

fn is_tunnel(link: &Link) -> bool {
    let Some(kind) = &link.kind else { return false };
    if TUNNELS.contains(kind) {
        return true;
    }
    let is_network = NETWORKS.contains(kind) || *kind == InfoKind::Other(PPP.to_owned());
    !is_network && link.flags.intersects(LinkFlags::Pointopoint | LinkFlags::Noarp)
}

pub(crate) fn purpose(link: &Link, uplinks: &[(u32, IpAddr)]) -> HostLink {
    if uplinks.iter().any(|(index, _)| *index == link.index) {
        HostLink::Uplink
    } else if link.kind == Some(InfoKind::Bridge) || HOST_ONLY.iter().any(|name| link.name.starts_with(name))
    {
        HostLink::Internal
    } else {
        HostLink::Other
    }
}

fn can_be_reached(address: &LinkAddress) -> bool {
    is_valid(address) && !address.is_link_local()
}

/// Whether the address is one of a host, and its check for duplicates is over.
pub(crate) fn is_valid(address: &LinkAddress) -> bool {
    let checked = !address.flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
        || address.flags.contains(AddressFlags::Optimistic);
    let ip = address.ip;
    checked
        && !ip.is_loopback()
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0)
        && !matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn scope(ip: IpAddr) -> HostScope {
    let is_private = match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    if is_private { HostScope::Private } else { HostScope::Public }
}

pub(crate) fn lifetime(address: &LinkAddress) -> HostLifetime {
    if address.flags.contains(AddressFlags::Deprecated) {
        HostLifetime::Deprecated
    } else if address.ip.is_ipv6() && address.flags.contains(TEMPORARY) {
        HostLifetime::Temporary
    } else {
        HostLifetime::Stable
    }
}

/// The most addresses that [`host_addresses`] returns: each one is checked against each of a peer's.
pub const MAX_HOST_ADDRESSES: usize = 16;

/// Addresses of one interface and family: a stable one, a temporary one, and the predecessor of each.
const MAX_PER_LINK: usize = 4;

/// Destinations that stand for the internet (RFC 5737, RFC 3849). They belong to nobody, so only a default route leads
/// there. No packet is sent.
const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// For IPv6 the kernel gives this name to the bit of `IFA_F_SECONDARY`.
const TEMPORARY: AddressFlags = AddressFlags::Secondary;

/// Drivers of tunnels that look like Ethernet; those that do not are known by their flags as well.
const TUNNELS: [InfoKind; 9] = [
    InfoKind::Tun,
    InfoKind::Wireguard,
    InfoKind::Vxlan,
    InfoKind::Geneve,
    InfoKind::GreTap,
    InfoKind::GreTap6,
    InfoKind::ErSpan,
    InfoKind::Ip6ErSpan,
    InfoKind::Xfrm,
];

/// Drivers of networks that may be point-to-point or without neighbours: modems, and what containers are given.
const NETWORKS: [InfoKind; 4] = [InfoKind::Wwan, InfoKind::RmNet, InfoKind::IpVlan, InfoKind::Netkit];
const PPP: &str = "ppp";

/// How the interfaces of VirtualBox and VMware to their own machines begin; their drivers have no name in netlink.
const HOST_ONLY: [&str; 2] = ["vboxnet", "vmnet"];

#[cfg(test)]
mod tests;
