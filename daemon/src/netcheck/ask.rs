//! Questions to the relay's STUN service (RFC 5780), and what the answers mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_control::{NatFiltering, NatMapping};
use mesh_wire::control::Step;
use mesh_wire::stun::{BindingRequest, BindingSuccess, Change, MESSAGE};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// The relay's two STUN ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Servers {
    first: SocketAddr,
    second: SocketAddr,
}

impl Servers {
    pub(super) fn of(relay: IpAddr) -> Self {
        let [first, second] = crate::direct::STUN_PORTS.map(|port| SocketAddr::new(relay, port));
        Self { first, second }
    }
}

/// What the relay said.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    pub(super) mapped: SocketAddr,
    pub(super) rtt: Duration,
    port: u16,
    /// Which server saw the socket where; the first one is in it.
    seen: Vec<(SocketAddr, SocketAddr)>,
    /// Whether an answer from another port arrived; `None` where the relay cannot send one.
    other_port: Option<bool>,
    /// The same for another address.
    other_address: Option<bool>,
}

impl Findings {
    /// How the NAT maps. `hosts` are this machine's addresses.
    pub(super) fn mapping(&self, hosts: &[IpAddr]) -> NatMapping {
        let same = self.seen.iter().all(|(_, mapped)| *mapped == self.mapped);
        let own = hosts.contains(&self.mapped.ip()) || self.mapped.ip().is_loopback();
        match (same, self.seen.len()) {
            (true, _) if own && self.mapped.port() == self.port => NatMapping::None,
            (false, _) if self.counts() => NatMapping::Sequential,
            (false, _) => NatMapping::Dependent,
            (true, 2..) => NatMapping::Independent,
            (true, _) => NatMapping::Unknown,
        }
    }

    /// Whether one server asked after the other saw ports that follow each other.
    fn counts(&self) -> bool {
        let mut pairs = self.seen.windows(2);
        pairs.all(|pair| {
            let [(_, before), (_, after)] = pair else { return false };
            let step = i32::from(after.port()) - i32::from(before.port());
            before.ip() == after.ip() && Step::new(step).is_some()
        })
    }

    /// Whether servers at two IP addresses told where they saw this node.
    pub(super) fn two_addresses(&self) -> bool {
        self.seen
            .iter()
            .any(|(server, _)| Some(server.ip()) != self.seen.first().map(|(first, _)| first.ip()))
    }

    /// Whose packets are let in.
    pub(super) const fn filtering(&self) -> NatFiltering {
        match (self.other_port, self.other_address) {
            (_, Some(true)) => NatFiltering::EndpointIndependent,
            (Some(true), Some(false)) => NatFiltering::AddressDependent,
            (Some(true), None) => NatFiltering::PortIndependent,
            (Some(false), _) => NatFiltering::AddressAndPortDependent,
            (None, _) => NatFiltering::Unknown,
        }
    }
}

/// Asks everything, in the order in which no question spoils the next: nothing is sent to an address before it was seen
/// whether its packets come in unasked. `None` when nothing at all came back.
pub(super) async fn examine(socket: &UdpSocket, servers: Servers) -> Option<Findings> {
    let Servers { first, .. } = servers;
    let port = socket.local_addr().ok()?.port();
    // A relay of an earlier version ignores every CHANGE-REQUEST.
    let unchanged = ask(socket, first, Some(Change::default()), first).await;
    let (answer, rtt) = match unchanged {
        Some(found) => found,
        None => ask(socket, first, None, first).await?,
    };
    let mapped = answer.mapped;
    let other = answer.other.map(|other| {
        let here = other.ip().is_unspecified();
        SocketAddr::new(if here { first.ip() } else { other.ip().to_canonical() }, other.port())
    });
    let mut findings =
        Findings { mapped, rtt, port, seen: vec![(first, mapped)], other_port: None, other_address: None };
    if let Some(other) = other.filter(|other| other.port() != first.port()) {
        let from = SocketAddr::new(first.ip(), other.port());
        let change = Change { address: false, port: true };
        findings.other_port = Some(ask(socket, first, Some(change), from).await.is_some());
    }
    let far = other.filter(|other| other.ip() != first.ip() && other.is_ipv4() == first.is_ipv4());
    if let Some(far) = far {
        let change = Change { address: true, port: true };
        findings.other_address = Some(ask(socket, first, Some(change), far).await.is_some());
    }
    let second = other.map_or(servers.second, |other| SocketAddr::new(first.ip(), other.port()));
    for server in [Some(second), far].into_iter().flatten() {
        if let Some((answer, _)) = ask(socket, server, None, server).await {
            findings.seen.push((server, answer.mapped));
        }
    }
    Some(findings)
}

/// Whether two sockets behind the NAT reach each other at their public addresses. Both send, so that no filter is in the
/// way.
pub(super) async fn hairpin(
    one: &UdpSocket,
    one_mapped: SocketAddr,
    two: &UdpSocket,
    servers: Servers,
) -> Option<bool> {
    let (answer, _) = ask(two, servers.first, None, servers.first).await?;
    let mut word = [0; 16];
    aws_lc_rs::rand::fill(&mut word).ok()?;
    for wait in WAITS {
        // What cannot be sent does not arrive.
        let _ = one.send_to(&word, answer.mapped).await;
        let _ = two.send_to(&word, one_mapped).await;
        let until = Instant::now() + wait;
        let is_word = |datagram: &[u8], _| (*datagram == word).then_some(());
        let heard = tokio::select! {
            heard = receive(one, until, is_word) => heard,
            heard = receive(two, until, is_word) => heard,
        };
        if heard.is_some() {
            return Some(true);
        }
    }
    Some(false)
}

/// Asks up to three times; an answer counts from the address `from` only.
async fn ask(
    socket: &UdpSocket,
    to: SocketAddr,
    change: Option<Change>,
    from: SocketAddr,
) -> Option<(BindingSuccess, Duration)> {
    let mut transaction = [0; 12];
    aws_lc_rs::rand::fill(&mut transaction).ok()?;
    let request = BindingRequest { transaction, fingerprint: false, change }.encode();
    for wait in WAITS {
        let began = Instant::now();
        socket.send_to(&request, to).await.ok()?;
        let is_answer = |datagram: &[u8], sender: SocketAddr| {
            let answer = BindingSuccess::parse(datagram).ok()?;
            let expected = sender.ip().to_canonical() == from.ip() && sender.port() == from.port();
            (expected && answer.transaction == transaction).then_some(answer)
        };
        if let Some(mut answer) = receive(socket, began + wait, is_answer).await {
            answer.mapped = SocketAddr::new(answer.mapped.ip().to_canonical(), answer.mapped.port());
            return Some((answer, began.elapsed()));
        }
    }
    None
}

/// Waits for a datagram that `wanted` takes, and drops all others.
async fn receive<T>(
    socket: &UdpSocket,
    until: Instant,
    wanted: impl Fn(&[u8], SocketAddr) -> Option<T>,
) -> Option<T> {
    let mut buffer = [0; MESSAGE + 1];
    loop {
        match timeout_at(until, socket.recv_from(&mut buffer)).await.ok()? {
            Ok((len, from)) => {
                if let Some(found) = wanted(&buffer[..len], from) {
                    return Some(found);
                }
            }
            // A port that is closed, told by ICMP; an answer may still come.
            Err(error) => {
                tracing::debug!(%error, "receiving failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// How long each try waits for its answer.
const WAITS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1000)];

/// An error of the socket that persists must not take a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(seen: &[(&str, &str)], other_port: Option<bool>, other_address: Option<bool>) -> Findings {
        let seen: Vec<(SocketAddr, SocketAddr)> =
            seen.iter().map(|(server, mapped)| (server.parse().unwrap(), mapped.parse().unwrap())).collect();
        let mapped = seen[0].1;
        Findings { mapped, rtt: Duration::ZERO, port: 5, seen, other_port, other_address }
    }

    #[test]
    fn mapping_is_what_the_servers_agree_on() {
        let hosts = ["10.0.0.1".parse().unwrap()];
        let mapping = |seen: &[(&str, &str)]| findings(seen, None, None).mapping(&hosts);
        let (first, second) = ("192.0.2.1:1", "192.0.2.1:2");
        assert_eq!(mapping(&[(first, "10.0.0.1:5")]), NatMapping::None);
        assert_eq!(mapping(&[(first, "10.0.0.1:6")]), NatMapping::Unknown);
        assert_eq!(mapping(&[(first, "192.0.2.9:5")]), NatMapping::Unknown);
        assert_eq!(mapping(&[(first, "192.0.2.9:5"), (second, "192.0.2.9:5")]), NatMapping::Independent);
        assert_eq!(mapping(&[(first, "192.0.2.9:5"), (second, "192.0.2.9:60")]), NatMapping::Dependent);
        assert_eq!(mapping(&[(first, "192.0.2.9:5"), (second, "192.0.2.9:6")]), NatMapping::Sequential);
        assert_eq!(mapping(&[(first, "10.0.0.1:5"), (second, "192.0.2.9:6")]), NatMapping::Dependent);
        assert!(!findings(&[(first, first), (second, first)], None, None).two_addresses());
        assert!(findings(&[(first, first), ("192.0.2.2:1", first)], None, None).two_addresses());
    }

    #[test]
    fn filtering_is_never_guessed() {
        let filtering =
            |port, address| findings(&[("192.0.2.1:1", "192.0.2.9:5")], port, address).filtering();
        assert_eq!(filtering(None, None), NatFiltering::Unknown);
        assert_eq!(filtering(Some(true), None), NatFiltering::PortIndependent);
        assert_eq!(filtering(Some(true), Some(false)), NatFiltering::AddressDependent);
        assert_eq!(filtering(Some(true), Some(true)), NatFiltering::EndpointIndependent);
        assert_eq!(filtering(Some(false), Some(false)), NatFiltering::AddressAndPortDependent);
        assert_eq!(filtering(Some(false), None), NatFiltering::AddressAndPortDependent);
    }
}
