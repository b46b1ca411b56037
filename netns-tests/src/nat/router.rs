//! A router in a namespace of its own: `wan` on the public network or on another router's inside, `lan` for its hosts.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

use super::engine::Engine;
use super::link::Rough;
use super::translator::{Refusal, Translation};
use crate::host::Host;
use crate::mesh::Relay;
use crate::namespace::{Lab, ip};
use crate::switch::Switch;

/// A router that translates.
#[derive(Debug)]
pub struct Router {
    host: Host,
    wan: Ipv4Addr,
    /// What all addresses of the inside begin with.
    inside: [u8; 3],
    engine: Option<Engine>,
}

/// Where a router gets its address from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Uplink<'a> {
    Public(&'a Switch<'a>),
    Behind(&'a Router),
}

/// What a router lets the kernel do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    Masquerade,
    MasqueradeAccepting,
    MasqueradeRandom,
    OnlyWeb,
}

impl Router {
    /// Starts a router that translates as told.
    pub(super) fn new(lab: &Lab, name: &str, uplink: Uplink<'_>, translation: Translation) -> Result<Self> {
        let mut router = Self::bare(lab, name, uplink)?;
        router.host.run("ip").args(["tuntap", "add", "dev", TUN, "mode", "tun"]).ok()?;
        router.host.shell(&router.divert()).ok()?;
        router.host.nft(&router.marks())?;
        router.engine = Some(Engine::start(&router.host, TUN, router.inside, router.wan, translation)?);
        Ok(router)
    }

    /// Starts a router whose kernel translates.
    pub(super) fn linux(lab: &Lab, name: &str, uplink: Uplink<'_>, rules: Rules) -> Result<Self> {
        let router = Self::bare(lab, name, uplink)?;
        router.host.nft(&rules.text())?;
        Ok(router)
    }

    /// The namespace that it runs in: captures on `wan` and `lan` show both sides.
    pub const fn namespace(&self) -> &Host {
        &self.host
    }

    /// Its address on `wan`.
    pub const fn wan(&self) -> Ipv4Addr {
        self.wan
    }

    /// How many packets it refused for this reason.
    ///
    /// # Errors
    /// The kernel translates and does not tell.
    pub fn refused(&self, refusal: Refusal) -> Result<u64> {
        let engine = self.engine.as_ref().context("the kernel translates here and does not count")?;
        Ok(engine.refused(refusal))
    }

    /// Tells whether datagrams from this address would come in through any mapping.
    ///
    /// # Errors
    /// The kernel translates and does not tell.
    pub fn lets_in(&self, far: Ipv4Addr) -> Result<bool> {
        let engine = self.engine.as_ref().context("the kernel translates here and does not tell")?;
        Ok(engine.lets_in(far))
    }

    /// Makes the way through it a bad one from here on, both ways.
    ///
    /// # Errors
    /// The kernel forwards here, which delays nothing.
    pub fn roughen(&self, rough: Rough) -> Result<()> {
        let engine = self.engine.as_ref().context("the kernel forwards here and delays nothing")?;
        engine.roughen(rough);
        Ok(())
    }

    /// Forgets every mapping.
    pub(super) fn reboot(&self) -> Result<()> {
        let Some(engine) = &self.engine else {
            bail!("the kernel keeps its mappings; take a kind that a translation makes");
        };
        engine.forget();
        Ok(())
    }

    /// Makes a host on the inside, with this router as its way to everywhere.
    pub(super) fn host(&self, lab: &Lab, name: &str, number: u8) -> Result<Host> {
        let mut host = lab.namespace(name)?;
        let address = self.plug(lab, &host, "eth0", number)?;
        host.set_underlay(address.into());
        Ok(host)
    }

    /// Makes the namespace with both interfaces, forwarding but not translating.
    fn bare(lab: &Lab, name: &str, uplink: Uplink<'_>) -> Result<Self> {
        let host = lab.namespace(name)?;
        // As in any namespace of routers: what one checks of the sender's address, asymmetric ways would fail.
        host.shell(
            "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done; \
             echo 1 > /proc/sys/net/ipv4/ip_forward",
        )
        .ok()?;
        let (wan, inside) = match uplink {
            Uplink::Public(switch) => {
                let wan = switch.router(&host, "wan")?;
                (wan, [10, wan.octets()[3], 0])
            }
            Uplink::Behind(outer) => {
                let wan = outer.plug(lab, &host, "wan", INNER_ROUTER)?;
                (wan, [10, outer.inside[1], outer.inside[2] + 1])
            }
        };
        let namespace = host.namespace();
        ip(&["-n", namespace, "link", "add", "lan", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", namespace, "link", "set", "lan", "up"])?;
        let router = Self { host, wan, inside, engine: None };
        router.host.add_address("lan", router.address(1).into(), 24)?;
        Ok(router)
    }

    /// Joins a host to the inside, with an address and the default route.
    pub(super) fn plug(&self, lab: &Lab, host: &Host, interface: &str, number: u8) -> Result<Ipv4Addr> {
        let port = format!("l{number}");
        lab.cable((host, interface), (&self.host, &port))?;
        ip(&["-n", self.host.namespace(), "link", "set", &port, "master", "lan"])?;
        let address = self.address(number);
        host.add_address(interface, address.into(), 24)?;
        ip(&["-n", host.namespace(), "route", "add", "default", "via", &self.address(1).to_string()])?;
        Ok(address)
    }

    /// Replaces the address of a host on the inside, and the default route, which goes with it.
    pub(super) fn readdress(&self, host: &Host, interface: &str, number: u8) -> Result<Ipv4Addr> {
        let address = self.address(number);
        host.run("ip").args(["-4", "addr", "flush", "dev", interface]).ok()?;
        host.add_address(interface, address.into(), 24)?;
        ip(&["-n", host.namespace(), "route", "add", "default", "via", &self.address(1).to_string()])?;
        Ok(address)
    }

    /// An address on the inside.
    pub(super) fn address(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.inside;
        Ipv4Addr::new(a, b, c, number)
    }

    /// Leads marked packets to the translator before the kernel sees that some are for its own address; what the
    /// translator sends has that address and is forwarded nevertheless.
    fn divert(&self) -> String {
        format!(
            "ip link set {TUN} up; \
             echo 0 > /proc/sys/net/ipv4/conf/{TUN}/rp_filter; \
             echo 1 > /proc/sys/net/ipv4/conf/{TUN}/accept_local; \
             ip rule add pref 1 fwmark 1 lookup 50; \
             ip route add default dev {TUN} table 50; \
             ip rule add pref 100 lookup local; \
             ip rule del pref 0"
        )
    }

    /// Marks what has to be translated: everything but the traffic between hosts of the inside and their router.
    fn marks(&self) -> String {
        let inside = self.address(0);
        format!(
            "table ip divert {{
                chain prerouting {{
                    type filter hook prerouting priority mangle;
                    iifname {{ \"wan\", \"lan\" }} ip daddr != {{ {inside}/24, 255.255.255.255 }} meta mark set 1
                }}
            }}\n"
        )
    }
}

impl Rules {
    fn text(self) -> String {
        let random = if self == Self::MasqueradeRandom { "fully-random" } else { "" };
        let allowed = if self == Self::OnlyWeb {
            let relay = Relay::PORT;
            format!(
                "iifname \"lan\" tcp dport {{ 443, {relay} }} accept\niifname \"lan\" udp dport 53 accept"
            )
        } else {
            "iifname \"lan\" accept".into()
        };
        // A new packet at the router itself is dropped, so that no entry in its table is made for it: such an entry
        // takes a port, and what the inside sends to the same address then leaves from another one.
        let own = if self == Self::MasqueradeAccepting { "accept" } else { "drop" };
        format!(
            "table ip translate {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    oifname \"wan\" masquerade {random}
                }}
            }}
            table ip filter {{
                chain input {{
                    type filter hook input priority 0;
                    iifname \"wan\" ct state new {own}
                }}
                chain forward {{
                    type filter hook forward priority 0; policy drop;
                    ct state established,related accept
                    {allowed}
                }}
            }}\n"
        )
    }
}

/// The interface of the translator.
const TUN: &str = "nat0";

/// The number of a router on the inside of another one; hosts there begin after the router itself, far below.
const INNER_ROUTER: u8 = 254;
