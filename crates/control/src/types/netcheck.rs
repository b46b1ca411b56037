//! What the network around this node lets through.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::direct::NatMapping;
use super::status::RelayStatus;
use crate::document::Document;

/// The answer to `POST /v1/netcheck`, which takes no body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Netcheck {
    /// The relay that was asked, as `host:port`; absent while this node is in no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// The relays that this node knows, while it is not down; their `rtt_ms` is measured over the authenticated
    /// connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayStatus>,
    /// IPv4 first, then IPv6.
    #[serde(default)]
    pub families: Vec<FamilyCheck>,
    /// Ports that gateways opened on request; they were given back at once.
    #[serde(default)]
    pub port_mappings: Vec<PortMappingCheck>,
    /// With whom direct paths will come about, in sentences for people.
    #[serde(default)]
    pub forecast: Vec<String>,
    /// The cheapest thing that would help, for people; absent where nothing is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What was not found out and why, in sentences for people.
    #[serde(default)]
    pub cannot_tell: Vec<String>,
}

impl Document for Netcheck {
    const SCHEMA: &'static str = "shadowmesh.netcheck/1";
}

/// What was found out about one address family.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FamilyCheck {
    /// Which one.
    #[serde(default)]
    pub family: IpFamily,
    /// This machine's addresses that peers may be able to reach.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// How long a TCP connection to the relay took, in milliseconds; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_tcp_ms: Option<f64>,
    /// The round trip to the relay's STUN service over UDP, in milliseconds; absent where nothing came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_udp_ms: Option<f64>,
    /// Where the relay saw the socket that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<SocketAddr>,
    /// How the NAT maps.
    #[serde(default)]
    pub mapping: NatMapping,
    /// What NAT and firewalls let in.
    #[serde(default)]
    pub filtering: NatFiltering,
    /// Whether two nodes behind this NAT reach each other at their public addresses; absent without a NAT, or where it
    /// was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hairpin: Option<bool>,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// One that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Whose packets a NAT or firewall lets in to a socket that has sent something (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatFiltering {
    /// Everybody's.
    EndpointIndependent,
    /// Those of addresses that were sent to, from whatever port.
    AddressDependent,
    /// Those of addresses that were sent to, from whatever port, and possibly everybody's: the relay has one address.
    PortIndependent,
    /// Those of addresses and ports that were sent to.
    AddressAndPortDependent,
    /// It was not found out, or is one that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A port that a gateway opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMappingCheck {
    /// `PCP`, `NAT-PMP` or `UPnP`.
    pub protocol: String,
    /// The gateway.
    pub gateway: IpAddr,
    /// Where others would send to.
    pub external: SocketAddr,
    /// The external address is a private one: another NAT stands before the internet.
    #[serde(default)]
    pub double_nat: bool,
}
