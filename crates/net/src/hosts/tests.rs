use super::*;

const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::Running);

fn link(index: u32, name: &str, kind: Option<InfoKind>) -> Link {
    Link { index, name: name.to_owned(), kind, flags: UP, is_port: false }
}

fn with(link: Link, flags: LinkFlags) -> Link {
    Link { flags: link.flags | flags, ..link }
}

fn address(index: u32, ip: &str) -> LinkAddress {
    flagged(index, ip, AddressFlags::empty())
}

fn flagged(index: u32, ip: &str, flags: AddressFlags) -> LinkAddress {
    LinkAddress { index, ip: ip.parse().unwrap(), prefix: 64, flags }
}

fn texts(hosts: &[HostAddress]) -> Vec<String> {
    hosts.iter().map(|host| host.address.to_string()).collect()
}

/// Names of those links that are kept when each has one address.
fn kept(links: &[Link]) -> Vec<String> {
    let addresses: Vec<LinkAddress> =
        links.iter().map(|link| address(link.index, &format!("10.0.0.{}", link.index))).collect();
    select(links, &addresses, &[], "mesh0").into_iter().map(|host| host.interface).collect()
}

#[test]
fn tunnels_loopback_and_the_own_interface_are_left_out() {
    let no_neighbours = LinkFlags::Pointopoint | LinkFlags::Noarp;
    let other = |name: &str| Some(InfoKind::Other(name.to_owned()));
    let links = [
        with(link(1, "lo", None), LinkFlags::Loopback),
        link(2, "mesh0", Some(InfoKind::Tun)),
        with(link(3, "tailscale0", Some(InfoKind::Tun)), no_neighbours),
        link(4, "ztabcdefgh", Some(InfoKind::Tun)),
        with(link(5, "wg0", Some(InfoKind::Wireguard)), no_neighbours),
        link(6, "flannel.1", Some(InfoKind::Vxlan)),
        with(link(7, "ovpn0", other("ovpn-dco")), no_neighbours),
        with(link(8, "kube-ipvs0", Some(InfoKind::Dummy)), LinkFlags::Noarp),
        link(9, "gretap1", Some(InfoKind::GreTap)),
        Link { flags: LinkFlags::Up, ..link(10, "unplugged", None) },
        Link { flags: LinkFlags::Running, ..link(11, "down", None) },
    ];
    assert!(kept(&links).is_empty(), "{:?}", kept(&links));
}

#[test]
fn networks_that_look_like_tunnels_are_kept() {
    let no_neighbours = LinkFlags::Pointopoint | LinkFlags::Noarp;
    let links = [
        with(link(1, "ppp0", Some(InfoKind::Other("ppp".to_owned()))), no_neighbours),
        with(link(2, "wwan0", None), no_neighbours),
        with(link(3, "wwan1", Some(InfoKind::Wwan)), LinkFlags::Noarp),
        with(link(4, "eth0", Some(InfoKind::Netkit)), LinkFlags::Noarp),
        link(5, "eth1", Some(InfoKind::Veth)),
    ];
    assert_eq!(kept(&links), ["ppp0", "wwan0", "wwan1", "eth0", "eth1"]);
}

#[test]
fn own_interface_is_left_out_whatever_its_driver_is() {
    assert_eq!(kept(&[link(1, "mesh0", None), link(2, "eth0", None)]), ["eth0"]);
}

#[test]
fn addresses_that_peers_cannot_reach_are_left_out() {
    let addresses = [
        address(1, "127.0.0.2"),
        address(1, "169.254.7.7"),
        address(1, "fe80::1"),
        address(1, "::1"),
        address(1, "224.0.0.9"),
        address(1, "0.0.0.0"),
        address(1, "255.255.255.255"),
        address(1, "::ffff:10.0.0.1"),
        flagged(1, "2001:db8::1", AddressFlags::Tentative),
        flagged(1, "2001:db8::2", AddressFlags::Tentative | AddressFlags::Dadfailed),
        flagged(1, "2001:db8::3", AddressFlags::Tentative | AddressFlags::Optimistic),
        // Of an interface that is gone.
        address(9, "10.0.0.9"),
    ];
    assert_eq!(texts(&select(&[link(1, "eth0", None)], &addresses, &[], "mesh0")), ["2001:db8::3"]);
}

#[test]
fn best_addresses_are_first() {
    let links = [
        link(1, "docker0", Some(InfoKind::Bridge)),
        link(2, "eth1", None),
        link(3, "br0", Some(InfoKind::Bridge)),
        link(4, "vboxnet0", None),
    ];
    let addresses = [
        address(1, "172.17.0.1"),
        address(2, "198.51.100.9"),
        address(2, "192.168.7.1"),
        flagged(3, "2001:db8:1::dead", AddressFlags::Deprecated),
        flagged(3, "2001:db8:1::5", AddressFlags::Secondary),
        address(3, "2001:db8:1::1"),
        address(3, "fd00::1"),
        address(3, "192.168.1.2"),
        flagged(3, "192.168.1.3", AddressFlags::Secondary),
        address(4, "192.168.56.1"),
    ];
    let uplinks = [(3, "192.168.1.2".parse().unwrap()), (3, "2001:db8:1::5".parse().unwrap())];
    let hosts = select(&links, &addresses, &uplinks, "mesh0");
    assert_eq!(
        texts(&hosts),
        [
            "2001:db8:1::5",
            "192.168.1.2",
            "2001:db8:1::1",
            "fd00::1",
            "192.168.1.3",
            "198.51.100.9",
            "192.168.7.1",
            "172.17.0.1",
            "192.168.56.1",
            "2001:db8:1::dead",
        ]
    );
    let first = &hosts[0];
    assert_eq!((first.scope, first.link), (HostScope::Public, HostLink::Uplink));
    assert_eq!(first.lifetime, HostLifetime::Temporary);
    assert_eq!(first.interface, "br0");
    assert_eq!(hosts[4].lifetime, HostLifetime::Stable, "a secondary IPv4 address stays");
    assert_eq!(hosts[5].link, HostLink::Other);
    assert_eq!([hosts[7].link, hosts[8].link], [HostLink::Internal; 2]);
    assert_eq!(hosts[9].lifetime, HostLifetime::Deprecated);
}

#[test]
fn scopes_are_told_apart() {
    for (ip, wanted) in [
        ("192.0.2.1", HostScope::Public),
        ("2001:db8::1", HostScope::Public),
        ("10.1.2.3", HostScope::Private),
        ("172.31.0.1", HostScope::Private),
        ("172.32.0.1", HostScope::Public),
        ("100.63.255.255", HostScope::Public),
        ("100.64.0.1", HostScope::Private),
        ("100.127.255.255", HostScope::Private),
        ("100.128.0.1", HostScope::Public),
        ("fdff::1", HostScope::Private),
    ] {
        assert_eq!(scope(ip.parse().unwrap()), wanted, "{ip}");
    }
}

#[test]
fn interface_with_many_addresses_leaves_room_for_others() {
    let links: Vec<Link> = (1..=9).map(|index| link(index, &format!("eth{index}"), None)).collect();
    let addresses: Vec<LinkAddress> = (0..9_000)
        .map(|count| address(count % 9 + 1, &format!("2001:db8::{count:x}")))
        .chain([address(1, "192.0.2.1")])
        .collect();
    let uplinks = [(1, "192.0.2.1".parse().unwrap())];
    let hosts = select(&links, &addresses, &uplinks, "mesh0");
    assert_eq!(hosts.len(), MAX_HOST_ADDRESSES);
    assert_eq!(texts(&hosts[..1]), ["192.0.2.1"]);
    let of_first = hosts.iter().filter(|host| host.interface == "eth1").count();
    assert_eq!(of_first, MAX_PER_LINK + 1);
    assert!(hosts.iter().any(|host| host.interface == "eth2"));
}
