//! A bridge in a namespace of its own, as the public network between hosts.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::host::Host;
use crate::namespace::{Lab, ip};

/// Which addresses the hosts of the public network have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

/// The public network: hosts plugged into it reach each other.
#[derive(Debug)]
pub struct Switch<'lab> {
    lab: &'lab Lab,
    bridge: Host,
    underlay: Underlay,
    next: Cell<u8>,
}

impl<'lab> Switch<'lab> {
    pub(crate) fn new(lab: &'lab Lab, underlay: Underlay) -> Result<Self> {
        let bridge = lab.namespace("public")?;
        let namespace = bridge.namespace();
        ip(&["-n", namespace, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", namespace, "link", "set", "br0", "up"])?;
        Ok(Self { lab, bridge, underlay, next: Cell::new(1) })
    }

    /// Makes a host with the next free address on its interface `eth0`.
    ///
    /// # Errors
    /// `ip` failed, or there are no addresses left.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.host_with(name, self.underlay).map(|(host, _)| host)
    }

    /// Makes a host with other addresses than most have; returns it with its port of the bridge as well.
    ///
    /// # Errors
    /// See [`Switch::host`].
    pub(crate) fn host_with(&self, name: &str, underlay: Underlay) -> Result<(Host, String)> {
        let mut host = self.lab.namespace(name)?;
        let number = self.plug(&host, "eth0")?;
        let v4 = Ipv4Addr::new(203, 0, 113, number);
        let v6 = IpAddr::from(Self::ipv6_beside(v4));
        let v4 = IpAddr::from(v4);
        if underlay != Underlay::V6 {
            host.add_address("eth0", v4, 24)?;
        }
        if underlay != Underlay::V4 {
            host.add_address("eth0", v6, 64)?;
        }
        host.set_underlay(if underlay == Underlay::V6 { v6 } else { v4 });
        Ok((host, format!("p{number}")))
    }

    /// Plugs a router in as `interface` and gives it the next free IPv4 address.
    ///
    /// # Errors
    /// See [`Switch::host`].
    pub(crate) fn router(&self, router: &Host, interface: &str) -> Result<Ipv4Addr> {
        let address = Ipv4Addr::new(203, 0, 113, self.plug(router, interface)?);
        router.add_address(interface, address.into(), 24)?;
        Ok(address)
    }

    /// Joins a host to the bridge; its number is that of the port and the end of its addresses.
    fn plug(&self, host: &Host, interface: &str) -> Result<u8> {
        let number = self.next.get();
        self.next.set(number.checked_add(1).expect("a test makes fewer than 255 hosts"));
        let port = format!("p{number}");
        self.lab.cable((host, interface), (&self.bridge, &port))?;
        ip(&["-n", self.bridge.namespace(), "link", "set", &port, "master", "br0"])?;
        Ok(number)
    }

    /// Makes all ways between hosts long ones: what may pass few more routers does not arrive.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn lengthen(&self) -> Result<()> {
        self.bridge.nft(LONG)
    }

    /// The IPv6 address of the host that has this IPv4 address, where hosts have both.
    pub fn ipv6_beside(address: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(address.octets()[3]))
    }

    /// Lets no UDP in IP packets beyond so many bytes through, silently, as a way with a smaller MTU on which ICMP is lost.
    /// [`Switch::cuts_at_the_host`] makes the lengths show.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn limit_udp(&self, bytes: u16) -> Result<()> {
        let _ = self.bridge.nft("delete table bridge narrow\n");
        self.bridge.nft(&format!(
            "table bridge narrow {{
                chain forward {{
                    type filter hook forward priority 0;
                    meta l4proto udp ip length > {bytes} drop
                    meta l4proto udp ip6 length > {} drop
                }}
            }}\n",
            bytes - 40
        ))
    }

    /// Has a host cut what it sends into packets itself, as for a network card without offload, so that their lengths show.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn cuts_at_the_host(host: &Host) -> Result<()> {
        ip(&["-n", host.namespace(), "link", "set", "eth0", "gso_max_segs", "1"])
    }

    /// The laboratory that it belongs to.
    pub(crate) fn lab(&self) -> &'lab Lab {
        self.lab
    }

    /// The namespace that holds the bridge, for captures of everything that passes.
    pub fn bridge(&self) -> &Host {
        &self.bridge
    }
}

/// As if a dozen routers were between hosts.
const LONG: &str = "table bridge long {
    chain forward {
        type filter hook forward priority 0;
        ether type ip ip ttl <= 12 drop
        ether type ip6 ip6 hoplimit <= 12 ip6 nexthdr udp drop
    }
}\n";
