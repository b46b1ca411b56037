//! UPnP-IGD, versions 1 and 2: find the gateway's service by SSDP, map ports by SOAP over HTTP.
//!
//! Invariants: only the gateway itself is listened and talked to, whatever address an answer names; an answer is read
//! up to a bound and within a deadline.

mod http;
mod messages;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

pub(super) use http::UpnpError;
use messages::Location;

use super::Transport;

/// A service of a gateway that maps ports.
#[derive(Clone, Debug)]
pub(super) struct Service {
    control: Location,
    kind: &'static str,
    local: Ipv4Addr,
}

/// A mapping that a [`Service`] made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) external_port: u16,
    /// As asked for, also where the gateway only makes mappings without an end.
    pub(super) lifetime: Duration,
}

/// Looks for services of the gateway for some time; empty if there are none.
///
/// # Errors
/// When the socket cannot be made or cannot send.
pub(super) async fn search(gateway: Ipv4Addr, local: Ipv4Addr) -> io::Result<Vec<Service>> {
    let socket = ssdp_socket(local)?;
    let deadline = Instant::now() + SEARCH_TIME;
    let mut tried = BTreeSet::new();
    for wait in SEARCH_WAITS {
        // Many gateways answer only one of the two.
        for to in [gateway, SSDP_GROUP] {
            for target in messages::SEARCH_TARGETS {
                let request = messages::search(to, target);
                socket.send_to(request.as_bytes(), (to, SSDP_PORT)).await?;
            }
        }
        let until = deadline.min(Instant::now() + wait);
        while let Some(location) = next_location(&socket, gateway, until).await {
            if tried.len() == MOST_LOCATIONS || !tried.insert(location.clone()) {
                continue;
            }
            match services(&location, local).await {
                Ok(services) if services.is_empty() => {}
                Ok(services) => return Ok(services),
                Err(error) => tracing::debug!(%gateway, %error, "no description of the gateway"),
            }
        }
    }
    Ok(Vec::new())
}

impl Service {
    /// Asks for the external address, which may be anything.
    pub(super) async fn external_address(&self) -> Result<Ipv4Addr, UpnpError> {
        let answer = self.call("GetExternalIPAddress", &[]).await?;
        messages::text(&answer, "NewExternalIPAddress")
            .and_then(|text| text.parse().ok())
            .ok_or(UpnpError::Answer)
    }

    /// Makes or renews a mapping of the local port to the external one that is named after it, or to one that `other`
    /// proposes where that is taken.
    pub(super) async fn map(
        &self,
        transport: Transport,
        (port, external_port): (u16, u16),
        lifetime: Duration,
        mut other: impl FnMut() -> u16,
    ) -> Result<Lease, UpnpError> {
        let mut wanted = Lease { external_port, lifetime };
        let mut seconds = lifetime.as_secs();
        for _ in 1..ATTEMPTS {
            match self.add(transport, (port, wanted.external_port), seconds).await {
                Err(UpnpError::Fault(ONLY_PERMANENT)) => seconds = 0,
                Err(UpnpError::Fault(CONFLICT | OTHER_CONFLICT)) => wanted.external_port = other(),
                result => return result.map(|()| wanted),
            }
        }
        self.add(transport, (port, wanted.external_port), seconds).await.map(|()| wanted)
    }

    /// Deletes a mapping.
    pub(super) async fn unmap(&self, transport: Transport, external_port: u16) -> Result<(), UpnpError> {
        let port = external_port.to_string();
        let arguments =
            [("NewRemoteHost", ""), ("NewExternalPort", &port), ("NewProtocol", transport.name())];
        self.call("DeletePortMapping", &arguments).await.map(drop)
    }

    async fn add(
        &self,
        transport: Transport,
        (port, external_port): (u16, u16),
        seconds: u64,
    ) -> Result<(), UpnpError> {
        let (external, internal) = (external_port.to_string(), port.to_string());
        let arguments = [
            ("NewRemoteHost", ""),
            ("NewExternalPort", &external),
            ("NewProtocol", transport.name()),
            ("NewInternalPort", &internal),
            ("NewInternalClient", &self.local.to_string()),
            ("NewEnabled", "1"),
            ("NewPortMappingDescription", "ShadowMesh"),
            ("NewLeaseDuration", &seconds.to_string()),
        ];
        self.call("AddPortMapping", &arguments).await.map(drop)
    }

    async fn call(&self, action: &str, arguments: &[(&str, &str)]) -> Result<String, UpnpError> {
        let body = messages::call(self.kind, action, arguments);
        let soap_action = format!("\"{}#{action}\"", self.kind);
        let (status, answer) = http::post(&self.control, self.local, &soap_action, body).await?;
        if status.is_success() {
            return Ok(answer);
        }
        let code = messages::text(&answer, "errorCode").and_then(|text| text.parse().ok());
        Err(code.map_or(UpnpError::Status(status.as_u16()), UpnpError::Fault))
    }
}

/// The services that the description at `location` names, best first.
async fn services(location: &Location, local: Ipv4Addr) -> Result<Vec<Service>, UpnpError> {
    let description = http::get(location, local).await?;
    let found = messages::services(&description, location).into_iter().take(MOST_SERVICES);
    Ok(found.map(|(kind, control)| Service { control, kind, local }).collect())
}

/// The next place of a description that the gateway tells, until a time.
async fn next_location(socket: &UdpSocket, gateway: Ipv4Addr, until: Instant) -> Option<Location> {
    let mut buffer = [0; SSDP_LEN];
    loop {
        let (len, from) = timeout_at(until, socket.recv_from(&mut buffer)).await.ok()?.ok()?;
        if from.ip() != gateway {
            continue;
        }
        let location = messages::search_answer(&buffer[..len], gateway);
        if location.is_some() {
            return location;
        }
    }
}

fn ssdp_socket(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(local, 0)).into())?;
    socket.set_multicast_if_v4(&local)?;
    socket.set_multicast_ttl_v4(2)?;
    UdpSocket::from_std(socket.into())
}

const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const SSDP_PORT: u16 = 1900;
/// Answers are a few lines; the rest of a longer one is lost.
const SSDP_LEN: usize = 2048;
/// For how long answers are awaited after each time that the question is sent; they may take a second by the standard.
const SEARCH_WAITS: [Duration; 2] = [Duration::from_millis(600), Duration::from_millis(1300)];
/// Bounds the search together with the reading of descriptions.
const SEARCH_TIME: Duration = Duration::from_millis(1900);
/// A gateway may hold several devices, such as a media server.
const MOST_LOCATIONS: usize = 4;
/// A gateway may offer its service for IP and for PPP, of which one works.
const MOST_SERVICES: usize = 4;
/// How often a mapping is tried with other arguments.
const ATTEMPTS: usize = 4;
/// ConflictInMappingEntry: another host has the port.
const CONFLICT: u16 = 718;
/// OnlyPermanentLeasesSupported.
const ONLY_PERMANENT: u16 = 725;
/// ConflictWithOtherMechanisms: the gateway itself has the port.
const OTHER_CONFLICT: u16 = 729;
