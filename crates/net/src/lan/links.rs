//! On which interfaces neighbours are looked for.

use std::io;
use std::net::IpAddr;

use mesh_wire::lan::ADDRESSES;
use rtnetlink::packet_route::link::LinkFlags;

use crate::hosts::{self, HostLink};
use crate::netlink::{Link, LinkAddress, Netlink};

/// An interface on which neighbours are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanLink {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses with the length of their prefixes, link-local ones last, at most as many as an announcement holds.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl LanLink {
    /// Whether a host with this address would be a neighbour on the interface.
    #[must_use]
    pub fn reaches(&self, ip: IpAddr) -> bool {
        if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return self.addresses.iter().any(|(own, _)| own.is_ipv6());
        }
        self.addresses.iter().any(|(own, prefix)| match (own, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub((*prefix).into());
                (own.to_bits() ^ ip.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub((*prefix).into());
                (own.to_bits() ^ ip.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        })
    }
}

/// Lists the interfaces with neighbours, at most [`MAX_LINKS`]: those that work and know multicast, and are neither
/// loopback, nor a tunnel, nor our own, nor a network inside of this machine.
///
/// # Errors
/// When the kernel refuses the netlink socket or a request on it.
pub async fn lan_links(own_interface: &str) -> io::Result<Vec<LanLink>> {
    let netlink = Netlink::connect()?;
    let links: Vec<Link> = netlink.links().await?.iter().map(Link::from).collect();
    let addresses: Vec<LinkAddress> =
        netlink.addresses().await?.iter().filter_map(LinkAddress::read).collect();
    let uplinks = hosts::uplinks(&netlink).await;
    Ok(select(&links, &addresses, &uplinks, own_interface))
}

fn select(
    links: &[Link],
    addresses: &[LinkAddress],
    uplinks: &[(u32, IpAddr)],
    own_interface: &str,
) -> Vec<LanLink> {
    let has_neighbours = |link: &&Link| {
        link.name != own_interface
            && hosts::is_usable(link)
            && link.flags.contains(LinkFlags::Multicast)
            && hosts::purpose(link, uplinks) != HostLink::Internal
    };
    let mut found: Vec<LanLink> = links
        .iter()
        .filter(has_neighbours)
        .filter_map(|link| {
            let mut own: Vec<&LinkAddress> = addresses
                .iter()
                .filter(|address| address.index == link.index && hosts::is_valid(address))
                .collect();
            own.sort_by_key(|address| (address.is_link_local(), hosts::lifetime(address), address.ip));
            let addresses: Vec<_> =
                own.iter().take(ADDRESSES).map(|address| (address.ip, address.prefix)).collect();
            (!addresses.is_empty()).then(|| LanLink { index: link.index, name: link.name.clone(), addresses })
        })
        .collect();
    found.truncate(MAX_LINKS);
    found
}

/// More interfaces to networks of their own has no machine that is a node; each costs a packet in half a minute.
pub const MAX_LINKS: usize = 8;

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressFlags;
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    const WORKS: LinkFlags =
        LinkFlags::Up.union(LinkFlags::Running).union(LinkFlags::Multicast).union(LinkFlags::Broadcast);

    fn link(index: u32, name: &str, kind: Option<InfoKind>, flags: LinkFlags) -> Link {
        Link { index, name: name.into(), kind, flags, is_port: false }
    }

    fn address(index: u32, ip: &str, prefix: u8) -> LinkAddress {
        LinkAddress { index, ip: ip.parse().unwrap(), prefix, flags: AddressFlags::Permanent }
    }

    #[test]
    fn only_interfaces_with_neighbours_are_taken() {
        let links = [
            link(1, "lo", None, WORKS | LinkFlags::Loopback),
            link(2, "eth0", None, WORKS),
            link(3, "mesh0", Some(InfoKind::Tun), WORKS),
            link(4, "wg0", Some(InfoKind::Wireguard), WORKS),
            link(5, "docker0", Some(InfoKind::Bridge), WORKS),
            link(6, "down0", None, LinkFlags::Multicast),
            link(7, "quiet0", None, LinkFlags::Up | LinkFlags::Running),
            link(8, "bare0", None, WORKS),
            link(9, "own0", None, WORKS),
        ];
        let mut addresses: Vec<_> =
            (1..=7).chain([9]).map(|index| address(index, "192.168.1.7", 24)).collect();
        addresses.push(address(2, "fe80::1", 64));
        addresses.push(address(2, "2001:db8::1", 64));
        let found = select(&links, &addresses, &[], "own0");
        let names: Vec<_> = found.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["eth0"]);
        let own: Vec<_> = found[0].addresses.iter().map(|(ip, _)| ip.to_string()).collect();
        assert_eq!(own, ["192.168.1.7", "2001:db8::1", "fe80::1"]);
        let bridge = select(&links, &addresses, &[(5, "192.168.1.7".parse().unwrap())], "own0");
        assert!(bridge.iter().any(|link| link.name == "docker0"), "a bridge may be the way out");
    }

    #[test]
    fn addresses_without_a_finished_check_are_left_out() {
        let links = [link(2, "eth0", None, WORKS)];
        let mut tentative = address(2, "fe80::1", 64);
        tentative.flags = AddressFlags::Tentative;
        assert!(select(&links, &[tentative], &[], "own0").is_empty());
        let many: Vec<_> = (1..20).map(|number| address(2, &format!("10.0.0.{number}"), 8)).collect();
        assert_eq!(select(&links, &many, &[], "own0")[0].addresses.len(), ADDRESSES);
    }

    #[test]
    fn neighbours_share_a_prefix_or_are_link_local() {
        let of = |ip: &str, prefix| (ip.parse().unwrap(), prefix);
        let lan = LanLink {
            index: 2,
            name: "eth0".into(),
            addresses: vec![of("192.168.1.7", 24), of("2001:db8::7", 64)],
        };
        for (ip, near) in [
            ("192.168.1.200", true),
            ("192.168.2.1", false),
            ("2001:db8::1:1", true),
            ("2001:db8:0:1::1", false),
            ("fe80::9", true),
        ] {
            assert_eq!(lan.reaches(ip.parse().unwrap()), near, "{ip}");
        }
        let v4 = LanLink { addresses: vec![of("10.0.0.1", 0), of("10.0.0.2", 32)], ..lan };
        assert!(v4.reaches("198.51.100.1".parse().unwrap()), "a prefix of no length reaches all");
        assert!(!v4.reaches("fe80::9".parse().unwrap()));
    }
}
