use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};

use super::*;

const NOTHING: NetworkChange =
    NetworkChange { links: false, addresses: false, routes: false, resumed: false };
const LINKS: NetworkChange = NetworkChange { links: true, ..NOTHING };
const ADDRESSES: NetworkChange = NetworkChange { addresses: true, ..NOTHING };
const ROUTES: NetworkChange = NetworkChange { routes: true, ..NOTHING };

const WORKS: LinkFlags = LinkFlags::Up.union(LinkFlags::Running);
const OWN: u32 = 7;

fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn address(index: u32, ip: &str, flags: AddressFlags) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(ip.parse().unwrap()));
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

fn route(prefix: &str, length: u8, index: u32) -> RouteMessage {
    let ip: IpAddr = prefix.parse().unwrap();
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(ip, length)
        .unwrap()
        .output_interface(index)
        .build()
}

/// Knows our own interface and one that works.
fn filter() -> Filter {
    let mut filter = Filter::new("mesh0");
    assert_eq!(new_link(&mut filter, link(OWN, "mesh0", WORKS)), NOTHING);
    assert_eq!(new_link(&mut filter, link(2, "eth0", WORKS)), LINKS);
    filter
}

fn new_link(filter: &mut Filter, message: LinkMessage) -> NetworkChange {
    filter.note(&RouteNetlinkMessage::NewLink(message))
}

fn new_address(filter: &mut Filter, message: AddressMessage) -> NetworkChange {
    filter.note(&RouteNetlinkMessage::NewAddress(message))
}

fn new_route(filter: &mut Filter, message: RouteMessage) -> NetworkChange {
    let change = filter.note(&RouteNetlinkMessage::NewRoute(message.clone()));
    assert_eq!(filter.note(&RouteNetlinkMessage::DelRoute(message)), change);
    change
}

#[test]
fn link_counts_when_it_begins_or_ceases_to_work() {
    let mut filter = filter();
    assert_eq!(new_link(&mut filter, link(2, "eth0", WORKS | LinkFlags::Promisc)), NOTHING);
    assert_eq!(new_link(&mut filter, link(2, "eth0", LinkFlags::Up)), LINKS);
    assert_eq!(new_link(&mut filter, link(2, "eth0", LinkFlags::empty())), NOTHING);
    assert_eq!(new_link(&mut filter, link(2, "eth0", WORKS)), LINKS);
    assert_eq!(filter.note(&RouteNetlinkMessage::DelLink(link(2, "eth0", WORKS))), LINKS);
    assert_eq!(new_link(&mut filter, link(3, "eth1", LinkFlags::empty())), NOTHING);
    assert_eq!(filter.note(&RouteNetlinkMessage::DelLink(link(3, "eth1", LinkFlags::empty()))), NOTHING);
    assert_eq!(new_link(&mut filter, link(1, "lo", WORKS | LinkFlags::Loopback)), NOTHING);
}

#[test]
fn ports_of_a_bridge_do_not_count() {
    let mut filter = filter();
    let mut port = link(4, "veth1", WORKS);
    port.attributes.push(LinkAttribute::Controller(9));
    assert_eq!(new_link(&mut filter, port.clone()), NOTHING);
    // That a port leaves its bridge is said by the removal of a link, in a family of its own.
    let mut leaves = link(2, "eth0", WORKS);
    leaves.header.interface_family = AddressFamily::Bridge;
    assert_eq!(filter.note(&RouteNetlinkMessage::DelLink(leaves)), NOTHING);
    let mut enslaved = link(2, "eth0", WORKS);
    enslaved.attributes.push(LinkAttribute::Controller(9));
    assert_eq!(new_link(&mut filter, enslaved), LINKS);
}

#[test]
fn repeated_addresses_do_not_count() {
    let mut filter = filter();
    let fresh = address(2, "2001:db8::1", AddressFlags::Tentative);
    assert_eq!(new_address(&mut filter, fresh), ADDRESSES);
    let checked = address(2, "2001:db8::1", AddressFlags::Permanent);
    assert_eq!(new_address(&mut filter, checked.clone()), ADDRESSES);
    assert_eq!(new_address(&mut filter, checked), NOTHING);
    let repeated = address(2, "2001:db8::1", AddressFlags::Managetempaddr);
    assert_eq!(new_address(&mut filter, repeated.clone()), NOTHING);
    let deprecated = address(2, "2001:db8::1", AddressFlags::Deprecated);
    assert_eq!(new_address(&mut filter, deprecated), ADDRESSES);
    assert_eq!(filter.note(&RouteNetlinkMessage::DelAddress(repeated)), ADDRESSES);
    for link_local in ["fe80::1", "169.254.3.4"] {
        assert_eq!(new_address(&mut filter, address(2, link_local, AddressFlags::empty())), NOTHING);
    }
}

#[test]
fn own_interface_does_not_count() {
    let mut filter = filter();
    assert_eq!(new_link(&mut filter, link(OWN, "mesh0", LinkFlags::empty())), NOTHING);
    assert_eq!(new_address(&mut filter, address(OWN, "100.64.0.1", AddressFlags::empty())), NOTHING);
    assert_eq!(new_route(&mut filter, route("100.64.0.0", 20, OWN)), NOTHING);
    let gone = RouteNetlinkMessage::DelLink(link(OWN, "mesh0", LinkFlags::empty()));
    assert_eq!(filter.note(&gone), NOTHING);
    // The kernel takes addresses and routes away after the link.
    let address = address(OWN, "100.64.0.1", AddressFlags::empty());
    assert_eq!(filter.note(&RouteNetlinkMessage::DelAddress(address)), NOTHING);
    // It comes back under another index.
    assert_eq!(new_link(&mut filter, link(12, "mesh0", WORKS)), NOTHING);
    assert_eq!(new_route(&mut filter, route("100.64.0.0", 20, 12)), NOTHING);
    assert_eq!(new_route(&mut filter, route("100.64.0.0", 20, OWN)), ROUTES);
    // Under another name it is somebody else's.
    assert_eq!(new_link(&mut filter, link(12, "other0", WORKS)), LINKS);
    assert_eq!(new_route(&mut filter, route("100.64.0.0", 20, 12)), ROUTES);
}

#[test]
fn routes_count_unless_they_come_with_an_interface() {
    let mut filter = filter();
    assert_eq!(new_route(&mut filter, route("0.0.0.0", 0, 2)), ROUTES);
    assert_eq!(new_route(&mut filter, route("2001:db8:7::", 48, 2)), ROUTES);
    assert_eq!(new_route(&mut filter, route("fe80::", 64, 2)), NOTHING);
    assert_eq!(new_route(&mut filter, route("ff00::", 8, 2)), NOTHING);
    let mut local = route("192.0.2.7", 32, 2);
    local.header.kind = RouteType::Local;
    assert_eq!(new_route(&mut filter, local), NOTHING);
    let mut unreachable = route("192.0.2.0", 24, 2);
    unreachable.header.kind = RouteType::Unreachable;
    assert_eq!(new_route(&mut filter, unreachable), ROUTES);
}

#[test]
fn route_over_several_interfaces_is_own_only_when_all_are() {
    let mut filter = filter();
    let over = |indexes: &[u32]| {
        let hop = |index: &u32| RouteNextHopBuilder::new_ipv4().interface(*index).build();
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        message.attributes.push(RouteAttribute::MultiPath(indexes.iter().map(hop).collect()));
        message
    };
    assert_eq!(new_route(&mut filter, over(&[OWN, 2])), ROUTES);
    assert_eq!(new_route(&mut filter, over(&[OWN, OWN])), NOTHING);
}

#[test]
fn after_missed_messages_everything_counts_again() {
    let mut filter = filter();
    assert_eq!(new_address(&mut filter, address(2, "192.0.2.7", AddressFlags::empty())), ADDRESSES);
    filter.forget();
    assert_eq!(new_link(&mut filter, link(2, "eth0", LinkFlags::empty())), LINKS);
    assert_eq!(new_address(&mut filter, address(2, "192.0.2.7", AddressFlags::empty())), ADDRESSES);
    assert_eq!(new_link(&mut filter, link(OWN, "mesh0", WORKS)), NOTHING);
}

fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn all_messages_of_a_datagram_are_read() {
    let mut address = address(2, "192.0.2.7", AddressFlags::empty());
    address.header.family = AddressFamily::Inet;
    let datagram = [
        bytes(RouteNetlinkMessage::NewLink(link(2, "eth0", WORKS))),
        bytes(RouteNetlinkMessage::NewAddress(address)),
        bytes(RouteNetlinkMessage::NewRoute(route("0.0.0.0", 0, 2))),
    ]
    .concat();
    let mut all = LINKS;
    all.add(ADDRESSES);
    all.add(ROUTES);
    assert_eq!(read(&datagram, &mut Filter::new("mesh0")), all);
}

#[test]
fn messages_that_cannot_be_read_count() {
    let mut filter = filter();
    let mut cut = bytes(RouteNetlinkMessage::NewLink(link(2, "eth0", WORKS)));
    cut.truncate(20);
    assert_eq!(read(&cut, &mut filter), LINKS);
    let mut bad = bytes(RouteNetlinkMessage::DelRoute(route("192.0.2.0", 24, 2)));
    // The attribute claims to be longer than the message.
    bad[28] = 0xff;
    assert_eq!(read(&bad, &mut filter), ROUTES);
    for rubbish in [&[][..], &[0; 16], &[0xff; 3], &[16, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(read(rubbish, &mut filter), NOTHING, "{rubbish:?}");
    }
}
