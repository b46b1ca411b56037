//! Tells messages that change something from those that only repeat, or that concern our own interface.
//!
//! The kernel repeats a lot: an IPv6 address at each router advertisement, a wireless link at each scan.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rtnetlink::packet_route::address::{AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::NetworkChange;
use crate::netlink::{Link, LinkAddress};

/// What is known of the network, as far as needed to see a repetition.
#[derive(Debug)]
pub(super) struct Filter {
    own_name: String,
    /// The index last seen with our own interface's name. Kept after the interface went, for its last messages.
    own_index: Option<u32>,
    /// Whether each link works.
    links: BTreeMap<u32, bool>,
    /// Each address with those flags that matter.
    addresses: BTreeMap<(u32, IpAddr), AddressFlags>,
    /// Whether something that exists may be missing above.
    has_gaps: bool,
}

impl Filter {
    pub(super) fn new(own_name: &str) -> Self {
        Self {
            own_name: own_name.to_owned(),
            own_index: None,
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            has_gaps: false,
        }
    }

    /// Takes one message in and returns what it changes.
    pub(super) fn note(&mut self, message: &RouteNetlinkMessage) -> NetworkChange {
        let mut change = NetworkChange::default();
        if let RouteNetlinkMessage::NewLink(link) = message {
            change.links = self.link(link, false);
        } else if let RouteNetlinkMessage::DelLink(link) = message {
            change.links = self.link(link, true);
        } else if let RouteNetlinkMessage::NewAddress(address) = message {
            change.addresses = self.address(address, false);
        } else if let RouteNetlinkMessage::DelAddress(address) = message {
            change.addresses = self.address(address, true);
        } else if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) = message {
            change.routes = self.route(route);
        }
        change
    }

    /// Forgets what is known, as messages were missed: the next one about each thing counts as a change.
    pub(super) fn forget(&mut self) {
        self.links.clear();
        self.addresses.clear();
        self.has_gaps = true;
    }

    fn link(&mut self, message: &LinkMessage, is_gone: bool) -> bool {
        // Others are about ports of a bridge, and say nothing of the link itself.
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let link = Link::from(message);
        if link.name == self.own_name {
            self.own_index = Some(link.index);
        } else if self.own_index == Some(link.index) {
            self.own_index = None;
        }
        if self.own_index == Some(link.index) || link.flags.contains(LinkFlags::Loopback) {
            return false;
        }
        if is_gone {
            return self.links.remove(&link.index).unwrap_or(true);
        }
        let works = link.flags.contains(LinkFlags::Up | LinkFlags::Running) && !link.is_port;
        match remember(&mut self.links, link.index, works) {
            Some(before) => before != works,
            // A new link changes nothing before it works. One that is merely forgotten may have worked.
            None => works || self.has_gaps,
        }
    }

    fn address(&mut self, message: &AddressMessage, is_gone: bool) -> bool {
        let Some(address) = LinkAddress::read(message) else { return false };
        if self.own_index == Some(address.index) || address.is_link_local() {
            return false;
        }
        let key = (address.index, address.ip);
        if is_gone {
            self.addresses.remove(&key);
            return true;
        }
        let flags = address.flags & STATE;
        remember(&mut self.addresses, key, flags) != Some(flags)
    }

    fn route(&self, message: &RouteMessage) -> bool {
        matches!(
            message.header.kind,
            RouteType::Unicast | RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
        ) && !leads_to_neighbours(message)
            && !self.is_own(message)
    }

    fn is_own(&self, message: &RouteMessage) -> bool {
        let Some(own) = self.own_index else { return false };
        let mut is_own = false;
        for attribute in &message.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                is_own = *index == own;
            } else if let RouteAttribute::MultiPath(hops) = attribute {
                is_own = hops.iter().all(|hop| hop.interface_index == own);
            }
        }
        is_own
    }
}

/// Whether a route is one of those to link-local and multicast addresses that come with each interface.
fn leads_to_neighbours(message: &RouteMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        if let RouteAttribute::Destination(RouteAddress::Inet6(ip)) = attribute {
            ip.is_unicast_link_local() || ip.is_multicast()
        } else if let RouteAttribute::Destination(RouteAddress::Inet(ip)) = attribute {
            ip.is_link_local() || ip.is_multicast()
        } else {
            false
        }
    })
}

/// Returns what was known. In a full map an unknown thing stays unknown, and each message about it counts.
fn remember<K: Ord, V>(known: &mut BTreeMap<K, V>, key: K, value: V) -> Option<V> {
    if known.len() < MAX_KNOWN || known.contains_key(&key) { known.insert(key, value) } else { None }
}

/// The flags of an address that decide whether it is used.
const STATE: AddressFlags =
    AddressFlags::Tentative.union(AddressFlags::Dadfailed).union(AddressFlags::Deprecated);

/// More links or addresses than any machine of a person has; some hundred kilobytes.
const MAX_KNOWN: usize = 4096;
