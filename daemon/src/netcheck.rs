//! `POST /v1/netcheck`: what the network around this node lets through, and what follows from that.
//!
//! In: the configuration and the relay, if this node knows one. Out: a [`Netcheck`]. The sockets are new ones on the
//! addresses where the node's own are bound: how a NAT filters shows only on a socket that has not sent anything to the
//! address that answers. [`ask`] asks the relay's STUN service, [`forecast`] draws the conclusions.
//!
//! Invariants: everything ends within [`PORT_MAPPING`] plus some seconds; a silent server is never taken for an answer;
//! ports that gateways open are given back.

mod ask;
mod forecast;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_control::{FamilyCheck, IpFamily, NatFiltering, NatMapping, Netcheck, PortMappingCheck};
use mesh_net::{PortMapConfig, PortMapper, Transport, host_addresses};
use mesh_wire::RelayUrl;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use self::ask::{Findings, Servers};
use crate::config::Config;

/// Gateways get this long to open a port.
const PORT_MAPPING: Duration = Duration::from_secs(4);
/// A port that could not be given back is closed after this.
const LIFETIME: Duration = Duration::from_secs(120);
/// The relay's name is looked up within this.
const LOOKUP: Duration = Duration::from_secs(2);
/// A TCP connection to the relay is made within this.
const CONNECT: Duration = Duration::from_secs(4);

/// Looks at the network.
pub(crate) async fn run(config: &Config, relay: Option<&RelayUrl>) -> Netcheck {
    let hosts = host_addresses(&config.interface).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the machine's addresses cannot be listed");
        Vec::new()
    });
    let hosts: Vec<IpAddr> = hosts.iter().map(|host| host.address).collect();
    let relays = match relay {
        Some(relay) => look_up(relay).await,
        None => Vec::new(),
    };
    let of = |family| check_family(family, bind_address(config, family), &hosts, &relays);
    let (v4, v6, port_mappings) =
        tokio::join!(of(IpFamily::Ipv4), of(IpFamily::Ipv6), port_mappings(config.port_mapping));
    let mut netcheck = Netcheck {
        relay: relay.map(RelayUrl::authority),
        families: vec![v4.0, v6.0],
        port_mappings,
        ..Netcheck::default()
    };
    let mut cannot_tell = [v4.1, v6.1].concat();
    if relay.is_none() {
        cannot_tell.push(
            "how NATs treat this node: it is in no network, so it knows no relay that it could ask".into(),
        );
    } else if relays.is_empty() {
        cannot_tell.push("how NATs treat this node: the name of the relay was not found".into());
    }
    if !config.port_mapping {
        cannot_tell.push("whether the router opens ports: \"port_mapping\" is off in meshd.toml".into());
    }
    netcheck.cannot_tell = cannot_tell;
    let told = forecast::forecast(&netcheck, config.direct && config.birthday);
    netcheck.forecast = told.sentences;
    netcheck.advice = told.advice;
    netcheck
}

/// Where the node's own socket of a family is bound, with any port; `None` when it has none.
fn bind_address(config: &Config, family: IpFamily) -> Option<SocketAddr> {
    let any = |ip: &str| SocketAddr::new(ip.parse().ok()?, 0).into();
    match &config.udp_listen {
        Some(listen) => {
            let own = listen.iter().find(|address| is_of(family, address.ip()));
            own.map(|address| SocketAddr::new(address.ip(), 0))
        }
        None if family == IpFamily::Ipv4 => any("0.0.0.0"),
        None => any("::"),
    }
}

async fn look_up(relay: &RelayUrl) -> Vec<SocketAddr> {
    let looked_up = timeout(LOOKUP, tokio::net::lookup_host((relay.host(), relay.port()))).await;
    let Ok(Ok(found)) = looked_up else { return Vec::new() };
    found.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())).collect()
}

/// Also returns what cannot be told.
async fn check_family(
    family: IpFamily,
    bind: Option<SocketAddr>,
    hosts: &[IpAddr],
    relays: &[SocketAddr],
) -> (FamilyCheck, Vec<String>) {
    let addresses: Vec<IpAddr> = hosts.iter().copied().filter(|ip| is_of(family, *ip)).collect();
    let mut check = FamilyCheck { family, addresses, ..FamilyCheck::default() };
    let Some(relay) = relays.iter().find(|relay| is_of(family, relay.ip())) else {
        return (check, Vec::new());
    };
    let (tcp, found) = tokio::join!(tcp(*relay), udp(bind, relay.ip()));
    check.relay_tcp_ms = tcp.map(milliseconds);
    let Some((findings, hairpin)) = found else { return (check, Vec::new()) };
    check.relay_udp_ms = Some(milliseconds(findings.rtt));
    check.mapped = Some(findings.mapped);
    check.mapping = findings.mapping(hosts);
    check.filtering = findings.filtering();
    check.hairpin = hairpin.filter(|_| check.mapping != NatMapping::None);
    let cannot_tell = missing(&check, &findings);
    (check, cannot_tell)
}

fn missing(check: &FamilyCheck, findings: &Findings) -> Vec<String> {
    let family = if check.family == IpFamily::Ipv4 { "IPv4" } else { "IPv6" };
    let mut list = Vec::new();
    if check.mapping == NatMapping::Unknown {
        list.push(format!("how the NAT maps over {family}: only one port of the relay answered"));
    } else if check.mapping == NatMapping::Independent && !findings.two_addresses() {
        let what = "whether the NAT gives another public port towards other addresses";
        list.push(format!("{what} over {family}: the relay has one address"));
    }
    match check.filtering {
        NatFiltering::Unknown => {
            list.push(format!(
                "whose packets are let in over {family}: the relay has no second port to answer from"
            ));
        }
        NatFiltering::PortIndependent => {
            let what = "whether packets of addresses that nothing was sent to are let in";
            list.push(format!("{what} over {family}: the relay has one address"));
        }
        NatFiltering::EndpointIndependent
        | NatFiltering::AddressDependent
        | NatFiltering::AddressAndPortDependent => {}
    }
    list
}

async fn tcp(relay: SocketAddr) -> Option<Duration> {
    let began = Instant::now();
    timeout(CONNECT, TcpStream::connect(relay)).await.ok()?.ok()?;
    Some(began.elapsed())
}

async fn udp(bind: Option<SocketAddr>, relay: IpAddr) -> Option<(Findings, Option<bool>)> {
    let bind = bind?;
    let socket = UdpSocket::bind(bind).await.ok()?;
    let other = UdpSocket::bind(bind).await.ok()?;
    let servers = Servers::of(relay);
    let findings = ask::examine(&socket, servers).await?;
    let hairpin = ask::hairpin(&socket, findings.mapped, &other, servers).await;
    Some((findings, hairpin))
}

/// Asks gateways to open a port, and gives it back.
async fn port_mappings(wanted: bool) -> Vec<PortMappingCheck> {
    if !wanted {
        return Vec::new();
    }
    // The socket keeps the port from being anybody else's meanwhile.
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0").await else { return Vec::new() };
    let Ok(local) = socket.local_addr() else { return Vec::new() };
    let mapper = PortMapper::start(PortMapConfig {
        transport: Transport::Udp,
        ipv4: vec![local.port()],
        ipv6: Vec::new(),
        local: None,
        lifetime: LIFETIME,
    });
    let mut mappings = mapper.mappings();
    let _ = timeout(PORT_MAPPING, mappings.wait_for(|list| !list.is_empty())).await;
    let granted = mappings.borrow().clone();
    mapper.stop().await;
    let told = granted.into_iter().map(|mapping| PortMappingCheck {
        protocol: mapping.protocol.to_string(),
        gateway: mapping.gateway,
        external: mapping.external,
        double_nat: mapping.double_nat,
    });
    told.collect()
}

fn is_of(family: IpFamily, ip: IpAddr) -> bool {
    ip.to_canonical().is_ipv4() == (family == IpFamily::Ipv4)
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
