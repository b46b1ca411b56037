//! Addresses that a real DHCP server (`dnsmasq`) gives out behind a router, and a real client (`udhcpc`) takes.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::router::Router;
use crate::host::Host;
use crate::namespace::Lab;
use crate::process::Process;
use crate::wait::wait_until;

/// A DHCP server on the inside of a router.
#[derive(Debug)]
pub struct DhcpServer {
    process: Process,
    /// Which hardware address gets which address; read at the start and after SIGHUP.
    hosts: PathBuf,
    inside: Ipv4Addr,
}

/// A DHCP client that owns the IPv4 address and the default route of one interface.
#[derive(Debug)]
pub struct DhcpClient {
    process: Process,
    host: Host,
    interface: String,
}

impl DhcpServer {
    pub(super) fn start(lab: &Lab, router: &Router) -> Result<Self> {
        let serial = lab.serial();
        let hosts = lab.path(&format!("dhcp-{serial}/hosts"))?;
        fs::write(&hosts, "")?;
        let inside = router.address(0);
        let range = format!("{},{},{LEASE}", router.address(FIRST), router.address(LAST));
        let leases = hosts.with_file_name("leases");
        let mut process = router
            .namespace()
            .run("dnsmasq")
            .args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--pid-file="])
            .args(["--user=root", "--port=0", "--interface=lan", "--bind-interfaces", "--no-ping"])
            // A server that knows all leases refuses what it does not know at once.
            .args(["--dhcp-authoritative", "--dhcp-range", &range])
            .args([format!("--dhcp-hostsfile={}", hosts.display())])
            .args([format!("--dhcp-leasefile={}", leases.display())])
            .spawn(&format!("dnsmasq-{serial}"))?;
        process.wait_for_log("DHCP, IP range", START)?;
        Ok(Self { process, hosts, inside })
    }

    /// Gives a host the address with this number from its next renewal on, in place of any other.
    ///
    /// # Errors
    /// The server is gone.
    pub fn assign(&self, client: &DhcpClient, number: u8) -> Result<Ipv4Addr> {
        let file = format!("/sys/class/net/{}/address", client.interface);
        let hardware = client.host.run("cat").args([file]).ok()?.stdout;
        let [a, b, c, _] = self.inside.octets();
        let address = Ipv4Addr::new(a, b, c, number);
        fs::write(&self.hosts, format!("{},{address}\n", hardware.trim()))?;
        let line = format!("read {}", self.hosts.display());
        let times = || -> Result<usize> { Ok(self.process.log()?.matches(&line).count()) };
        let before = times()?;
        self.process.signal(Signal::SIGHUP)?;
        wait_until("the server to read its hosts", START, || Ok((times()? > before).then_some(())))?;
        Ok(address)
    }
}

impl DhcpClient {
    /// Takes what addresses an interface has from it, and waits for one of a server.
    ///
    /// # Errors
    /// The client did not start, or no server answered.
    pub fn start(lab: &Lab, host: &Host, interface: &str) -> Result<Self> {
        let serial = lab.serial();
        let script = lab.path(&format!("dhcp-{serial}/script"))?;
        fs::write(&script, SCRIPT)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let script = script.display().to_string();
        let mut process = host
            .run("busybox")
            .args(["udhcpc", "-f", "-i", interface, "-s", &script, "-t", "5", "-T", "1", "-A", "1"])
            .spawn(&format!("udhcpc-{serial}"))?;
        process.wait_for_log(BOUND, Duration::from_secs(20))?;
        Ok(Self { process, host: host.clone(), interface: interface.into() })
    }

    /// Asks the server for the lease again, as the client does by itself after half of its time.
    ///
    /// # Errors
    /// The client is gone.
    pub fn renew(&self) -> Result<()> {
        self.process.signal(Signal::SIGUSR1)
    }

    /// The address that it holds with its route; none while it has no lease.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn address(&self) -> Result<Option<Ipv4Addr>> {
        let log = self.process.log()?;
        let Some(line) = log.lines().rfind(|line| line.starts_with(BOUND) || line.starts_with(FREED)) else {
            return Ok(None);
        };
        let Some(address) = line.strip_prefix(BOUND) else { return Ok(None) };
        address.trim().parse().map(Some).with_context(|| format!("no address: {line}"))
    }
}

/// Does as told by the client (environment variables of `udhcpc`), and says so once it is done.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
deconfig)
    ip -4 addr flush dev "$interface"
    echo "holds no lease"
    ;;
bound | renew)
    ip -4 addr replace "$ip/$mask" dev "$interface"
    ip route replace default via "${router%% *}" dev "$interface"
    echo "holds a lease of $ip"
    ;;
esac
"#;

/// What the script says.
const BOUND: &str = "holds a lease of ";
const FREED: &str = "holds no lease";

/// The addresses that are given out, far from those of hosts that have one by hand.
const FIRST: u8 = 100;
const LAST: u8 = 199;
/// The shortest time that the server gives a lease for.
const LEASE: &str = "2m";
const START: Duration = Duration::from_secs(5);
