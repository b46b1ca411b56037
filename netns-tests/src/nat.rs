//! Private networks behind routers that translate addresses, of every kind that is met in the wild.
//!
//! A [`Site`] is what stands between a host and the public [`Switch`]. Where the kernel's own translation is of the
//! wanted kind exactly, it does it; all other kinds are made by a [`Translation`], packet by packet, on a thread of
//! this process. An application can tell the kinds apart by their behaviour only, which `tests/netns/nat.rs` measures.

mod dhcp;
mod engine;
mod link;
mod packet;
mod router;
mod translator;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::switch::{Switch, Underlay};

pub use dhcp::{DhcpClient, DhcpServer};
pub use link::Rough;
pub use router::Router;
pub use translator::{Dependence, Ports, Refusal, TCP_LIFETIME, Translation};

use router::{Rules, Uplink};

/// What stands between a host and the public network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Nothing: the host has a public address, in each family that the public network has.
    None,
    /// One mapping for all, random ports; everybody comes in.
    FullCone,
    /// One mapping for all, random ports; addresses that a packet went to come in.
    AddressRestricted,
    /// One mapping for all, random ports; addresses with ports that a packet went to come in.
    PortRestricted,
    /// The same with ports preserved where they are free: a Linux router with `masquerade`, which drops what is new.
    LinuxPortRestricted,
    /// The same, but the router accepts what comes for itself: a datagram to a port that nothing behind it has opened
    /// takes that port for half a minute.
    LinuxAccepting,
    /// A mapping with a random port for each address and port.
    SymmetricRandom,
    /// The same as a Linux router makes it: `masquerade fully-random`.
    LinuxSymmetric,
    /// A mapping for each address and port, ports one after the other.
    SymmetricSequential,
    /// A port restricted router behind another one.
    Double,
    /// A Linux router that lets only TCP to ports 443 and that of the laboratory's relays out, and DNS.
    UdpBlocked,
    /// No IPv4 address.
    Ipv6Only,
    /// Both families, but nobody hears its IPv4 packets or is heard by it.
    DeadIpv4,
}

impl NatKind {
    /// Every kind of the matrix.
    pub const ALL: [Self; 12] = [
        Self::None,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::LinuxPortRestricted,
        Self::SymmetricRandom,
        Self::LinuxSymmetric,
        Self::SymmetricSequential,
        Self::Double,
        Self::UdpBlocked,
        Self::Ipv6Only,
        Self::DeadIpv4,
    ];

    /// Those that applications can tell apart: where the kernel makes a kind as well, the translation of the laboratory.
    pub const DISTINCT: [Self; 10] = [
        Self::None,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::SymmetricRandom,
        Self::SymmetricSequential,
        Self::Double,
        Self::UdpBlocked,
        Self::Ipv6Only,
        Self::DeadIpv4,
    ];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address restricted",
            Self::PortRestricted => "port restricted",
            Self::LinuxPortRestricted => "port restricted (Linux)",
            Self::LinuxAccepting => "port restricted (accepting Linux)",
            Self::SymmetricRandom => "symmetric random",
            Self::LinuxSymmetric => "symmetric random (Linux)",
            Self::SymmetricSequential => "symmetric sequential",
            Self::Double => "double",
            Self::UdpBlocked => "UDP blocked",
            Self::Ipv6Only => "IPv6 only",
            Self::DeadIpv4 => "dead IPv4",
        }
    }

    /// How its routers translate; nothing when the kernel does it or nobody.
    pub const fn translation(self) -> Option<Translation> {
        use Dependence::{Address, AddressAndPort, Endpoint};
        let (mapping, filtering, ports) = match self {
            Self::FullCone => (Endpoint, Endpoint, Ports::Random),
            Self::AddressRestricted => (Endpoint, Address, Ports::Random),
            Self::PortRestricted | Self::Double => (Endpoint, AddressAndPort, Ports::Random),
            Self::SymmetricRandom => (AddressAndPort, AddressAndPort, Ports::Random),
            Self::SymmetricSequential => (AddressAndPort, AddressAndPort, Ports::Sequential),
            Self::None
            | Self::LinuxPortRestricted
            | Self::LinuxAccepting
            | Self::LinuxSymmetric
            | Self::UdpBlocked
            | Self::Ipv6Only
            | Self::DeadIpv4 => return None,
        };
        Some(Translation { mapping, filtering, ports, hairpin: false, lifetime: LIFETIME })
    }

    const fn rules(self) -> Option<Rules> {
        match self {
            Self::LinuxPortRestricted => Some(Rules::Masquerade),
            Self::LinuxAccepting => Some(Rules::MasqueradeAccepting),
            Self::LinuxSymmetric => Some(Rules::MasqueradeRandom),
            Self::UdpBlocked => Some(Rules::OnlyWeb),
            Self::None
            | Self::FullCone
            | Self::AddressRestricted
            | Self::PortRestricted
            | Self::SymmetricRandom
            | Self::SymmetricSequential
            | Self::Double
            | Self::Ipv6Only
            | Self::DeadIpv4 => None,
        }
    }
}

/// A place where hosts are: their routers, or the public network itself.
#[derive(Debug)]
pub struct Site<'lab, 'switch> {
    switch: &'switch Switch<'lab>,
    kind: NatKind,
    routers: Vec<Router>,
    next: Cell<u8>,
}

impl<'lab> Switch<'lab> {
    /// Makes a place of a kind on the public network, without hosts.
    ///
    /// # Errors
    /// A router could not be set up.
    pub fn site(&self, name: &str, kind: NatKind) -> Result<Site<'lab, '_>> {
        let mut site = Site { switch: self, kind, routers: Vec::new(), next: Cell::new(FIRST_HOST) };
        let name = format!("nat-{name}");
        if let Some(rules) = kind.rules() {
            site.routers.push(Router::linux(self.lab(), &name, Uplink::Public(self), rules)?);
        } else if let Some(translation) = kind.translation() {
            site.routers.push(Router::new(self.lab(), &name, Uplink::Public(self), translation)?);
            if kind == NatKind::Double {
                let outer = Uplink::Behind(&site.routers[0]);
                let inner = Router::new(self.lab(), &format!("{name}-inner"), outer, translation)?;
                site.routers.push(inner);
            }
        }
        Ok(site)
    }

    /// Makes a place behind one router that translates in any way.
    ///
    /// # Errors
    /// See [`Switch::site`].
    pub fn site_with(&self, name: &str, kind: NatKind, translation: Translation) -> Result<Site<'lab, '_>> {
        let router = Router::new(self.lab(), &format!("nat-{name}"), Uplink::Public(self), translation)?;
        Ok(Site { switch: self, kind, routers: vec![router], next: Cell::new(FIRST_HOST) })
    }

    /// Makes a place behind a router that translates in any way, which is itself behind one of a kind that Linux makes.
    ///
    /// # Errors
    /// The kernel does not translate as that kind says, or a router could not be set up.
    pub fn site_behind(&self, name: &str, kind: NatKind, inner: Translation) -> Result<Site<'lab, '_>> {
        let rules = kind.rules().context("Linux makes no router of this kind")?;
        let name = format!("nat-{name}");
        let outer = Router::linux(self.lab(), &name, Uplink::Public(self), rules)?;
        let inner = Router::new(self.lab(), &format!("{name}-inner"), Uplink::Behind(&outer), inner)?;
        Ok(Site { switch: self, kind, routers: vec![outer, inner], next: Cell::new(FIRST_HOST) })
    }
}

impl Site<'_, '_> {
    /// Makes a host in this place; all hosts behind one router are neighbours.
    ///
    /// # Errors
    /// `ip` or `nft` failed, or there are no addresses left.
    pub fn host(&self, name: &str) -> Result<Host> {
        if let Some(router) = self.routers.last() {
            return router.host(self.switch.lab(), name, self.number()?);
        }
        if self.kind == NatKind::Ipv6Only {
            return self.switch.host_with(name, Underlay::V6).map(|(host, _)| host);
        }
        if self.kind == NatKind::DeadIpv4 {
            let (host, port) = self.switch.host_with(name, Underlay::Both)?;
            self.switch.bridge().nft(&dead_ipv4(&port))?;
            return Ok(host);
        }
        self.switch.host(name)
    }

    /// Unplugs a host from where it is, and plugs it in here; says what its address is from then on.
    ///
    /// # Errors
    /// `ip` failed, or nothing here gives out addresses.
    pub fn take(&self, host: &Host) -> Result<Ipv4Addr> {
        let router = self.routers.last().context("a host moves to where a router is")?;
        host.run("ip").args(["link", "del", "eth0"]).ok()?;
        router.plug(self.switch.lab(), host, "eth0", self.number()?)
    }

    /// Gives a host that is here another address in place of the one that it has, and says which.
    ///
    /// # Errors
    /// `ip` failed, or nothing here gives out addresses.
    pub fn readdress(&self, host: &Host) -> Result<Ipv4Addr> {
        let router = self.routers.last().context("a router gives out addresses")?;
        router.readdress(host, "eth0", self.number()?)
    }

    /// Makes the way through its innermost router a bad one from here on, both ways.
    ///
    /// # Errors
    /// There is none, or its kernel translates.
    pub fn roughen(&self, rough: Rough) -> Result<()> {
        self.routers.last().context("there is no router")?.roughen(rough)
    }

    /// Starts a DHCP server on the inside of its innermost router.
    ///
    /// # Errors
    /// There is no router, or the server did not start.
    pub fn dhcp(&self) -> Result<DhcpServer> {
        let router = self.routers.last().context("a router gives out addresses")?;
        DhcpServer::start(self.switch.lab(), router)
    }

    /// Lets no datagram through its outermost router any more, silently; TCP passes.
    ///
    /// # Errors
    /// There is no router, or `nft` failed.
    pub fn block_udp(&self) -> Result<()> {
        self.outermost()?.namespace().nft(BLOCK_UDP)
    }

    /// Ends [`Site::block_udp`].
    ///
    /// # Errors
    /// Nothing was blocked.
    pub fn unblock_udp(&self) -> Result<()> {
        self.outermost()?.namespace().nft("delete table ip block\n")
    }

    /// Switches its routers off and on: every mapping is forgotten, of TCP as well.
    ///
    /// # Errors
    /// There is none, or a kernel keeps the mappings.
    pub fn reboot(&self) -> Result<()> {
        if self.routers.is_empty() {
            bail!("there is no router to switch off");
        }
        self.routers.iter().try_for_each(Router::reboot)
    }

    /// The routers, the one on the public network first.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// Its public IPv4 address, when it has routers.
    pub fn wan(&self) -> Option<Ipv4Addr> {
        self.routers.first().map(Router::wan)
    }

    /// What it is.
    pub const fn kind(&self) -> NatKind {
        self.kind
    }

    fn outermost(&self) -> Result<&Router> {
        self.routers.first().context("there is no router")
    }

    /// The end of the next host's address.
    fn number(&self) -> Result<u8> {
        let number = self.next.get();
        self.next.set(number.checked_add(1).context("a site has fewer than 255 hosts")?);
        Ok(number)
    }
}

/// Rules of the public bridge under which one port neither sends nor receives IPv4. Neighbours are still found by ARP:
/// the packets just never arrive.
fn dead_ipv4(port: &str) -> String {
    format!(
        "table bridge dead_{port} {{
            chain forward {{
                type filter hook forward priority 0;
                iifname \"{port}\" ether type ip drop
                oifname \"{port}\" ether type ip drop
            }}
        }}\n"
    )
}

/// Before anything is translated.
const BLOCK_UDP: &str = "table ip block {
    chain prerouting {
        type filter hook prerouting priority raw;
        meta l4proto udp drop
    }
}\n";

/// What RFC 4787 asks for at least is 120 s, but many routers forget sooner.
const LIFETIME: Duration = Duration::from_secs(60);

/// The routers themselves have 1.
const FIRST_HOST: u8 = 2;
