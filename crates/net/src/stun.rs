//! Asks STUN servers for the addresses under which a NAT lets this node appear (RFC 8489, binding transactions only).
//!
//! A pure state machine for the one UDP socket of each family that also carries everything else, because a mapping is worth
//! something only on the socket that is used. In: servers, datagrams, time. Out: requests, and what the servers said.
//!
//! Invariants: an answer counts only with the transaction id of a question that is open and from the address asked, so
//! nobody who does not see the traffic can invent one; servers and events are bounded; nothing is sent unasked. What a
//! server says may still be a lie: a mapped address is a place to be tried, never a proof.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use mesh_wire::stun::{BindingRequest, BindingSuccess, TransactionId};

/// The two address families, each with a socket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the NAT in front of one socket chooses the mapped port (RFC 4787, section 4.1), as far as the answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Two servers at different IP addresses saw the same mapped address: every peer will see it, too.
    EndpointIndependent,
    /// Two ports of the same server saw the same mapped address. It is that of every peer behind nearly all NATs that do
    /// so; only one with address-dependent mapping, which is rare, would show others another port.
    PortIndependent,
    /// Servers saw different mapped addresses: a peer will see one that nobody was told.
    Dependent {
        /// The mapped port of one server minus that of the server asked just before it; `None` where their mapped IP
        /// addresses differ or no two neighbours answered. The sign holds unless packets overtook each other.
        step: Option<i32>,
    },
    /// Fewer than two servers answered.
    Unknown,
}

/// What one server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerReport {
    /// The server, as asked.
    pub server: SocketAddr,
    /// Where it saw this node; `None` before its answer, and for good when it gave none.
    pub mapped: Option<SocketAddr>,
}

/// News of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StunEvent {
    /// A server answered.
    Mapped(ServerReport),
    /// Every server of this family has answered or was given up; [`StunClient::mapping`] is final for this round.
    Finished(Family),
}

/// Asks servers in rounds. After each `handle_*` and after [`start`](Self::start), poll transmits, events and the timeout.
#[derive(Debug, Default)]
pub struct StunClient {
    questions: Vec<Question>,
    /// What is due to be sent; at most one entry per question, as indexes.
    transmits: VecDeque<usize>,
    /// At most one per question and one per family.
    events: VecDeque<StunEvent>,
}

impl StunClient {
    /// Makes a client that has nothing to ask.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a round: every server is asked at once, in this order. Answers to an earlier round no longer count.
    ///
    /// Duplicates are left out, and of each family all beyond [`MAX_STUN_SERVERS`]. `random` has to be unpredictable: it is
    /// what keeps strangers from answering.
    pub fn start(&mut self, now: Instant, servers: &[SocketAddr], mut random: impl FnMut() -> TransactionId) {
        *self = Self::default();
        for &server in servers {
            let server = canonical(server);
            if !self.has_room_for(&server) {
                continue;
            }
            let state = State::Open { tries: 1, until: now + FIRST_WAIT };
            self.transmits.push_back(self.questions.len());
            self.questions.push(Question { server, transaction: random(), state });
        }
    }

    /// Tells whether the datagram was the answer to an open question.
    ///
    /// Anything else changes nothing, so it may be somebody else's: forged, late, a duplicate, or no STUN at all.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let Ok(answer) = BindingSuccess::parse(datagram) else { return false };
        let from = canonical(from);
        let Some(index) = self.questions.iter().position(|question| question.expects(from, &answer)) else {
            return false;
        };
        let mapped = canonical(answer.mapped);
        let question = &mut self.questions[index];
        question.state = State::Answered(mapped);
        let (server, family) = (question.server, Family::of(&question.server));
        self.transmits.retain(|due| *due != index);
        self.events.push_back(StunEvent::Mapped(ServerReport { server, mapped: Some(mapped) }));
        self.finish(family);
        true
    }

    /// Repeats what was not answered in time, or gives it up.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.questions.len() {
            let question = &mut self.questions[index];
            let State::Open { tries, until } = question.state else { continue };
            if now < until {
                continue;
            }
            let family = Family::of(&question.server);
            if tries == TRIES {
                question.state = State::Silent;
                self.transmits.retain(|due| *due != index);
                self.finish(family);
            } else {
                question.state = State::Open { tries: tries + 1, until: now + FIRST_WAIT * (1 << tries) };
                if !self.transmits.contains(&index) {
                    self.transmits.push_back(index);
                }
            }
        }
    }

    /// Returns the next request and the server it goes to.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let question = &self.questions[self.transmits.pop_front()?];
        let request = BindingRequest { transaction: question.transaction, fingerprint: false, change: None };
        Some((question.server, request.encode()))
    }

    /// Returns the next piece of news.
    pub fn poll_event(&mut self) -> Option<StunEvent> {
        self.events.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout); `None` while no question is open.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.questions.iter().filter_map(Question::until).min()
    }

    /// What each server of a family said in this round, in the order asked.
    pub fn reports(&self, family: Family) -> impl Iterator<Item = ServerReport> + Clone {
        self.of(family).map(|question| ServerReport { server: question.server, mapped: question.mapped() })
    }

    /// How the NAT maps this family, from the answers so far.
    #[must_use]
    pub fn mapping(&self, family: Family) -> Mapping {
        Mapping::from_reports(self.reports(family))
    }

    fn of(&self, family: Family) -> impl Iterator<Item = &Question> + Clone {
        self.questions.iter().filter(move |question| Family::of(&question.server) == family)
    }

    fn has_room_for(&self, server: &SocketAddr) -> bool {
        let alike = self.of(Family::of(server));
        alike.clone().count() < MAX_STUN_SERVERS && alike.clone().all(|question| question.server != *server)
    }

    fn finish(&mut self, family: Family) {
        if self.of(family).all(|question| question.until().is_none()) {
            self.events.push_back(StunEvent::Finished(family));
        }
    }
}

impl Family {
    /// The family of the socket that reaches an address; an IPv4 address mapped into IPv6 is IPv4.
    #[must_use]
    pub fn of(address: &SocketAddr) -> Self {
        if address.ip().to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Mapping {
    fn from_reports(reports: impl Iterator<Item = ServerReport> + Clone) -> Self {
        let answers = || reports.clone().filter_map(|report| Some((report.server, report.mapped?)));
        let Some((first, mapped)) = answers().next() else { return Self::Unknown };
        if answers().any(|(_, other)| other != mapped) {
            return Self::Dependent { step: step(reports) };
        }
        if answers().any(|(server, _)| server.ip() != first.ip()) {
            Self::EndpointIndependent
        } else if answers().any(|(server, _)| server != first) {
            Self::PortIndependent
        } else {
            Self::Unknown
        }
    }
}

/// One server and where its transaction stands.
#[derive(Debug)]
struct Question {
    server: SocketAddr,
    transaction: TransactionId,
    state: State,
}

impl Question {
    fn expects(&self, from: SocketAddr, answer: &BindingSuccess) -> bool {
        self.until().is_some()
            && self.server == from
            && self.transaction == answer.transaction
            && is_plausible(&self.server, &answer.mapped)
    }

    const fn until(&self) -> Option<Instant> {
        if let State::Open { until, .. } = self.state { Some(until) } else { None }
    }

    const fn mapped(&self) -> Option<SocketAddr> {
        if let State::Answered(mapped) = self.state { Some(mapped) } else { None }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Open {
        /// Requests handed out, or due.
        tries: u32,
        until: Instant,
    },
    Answered(SocketAddr),
    Silent,
}

/// The step between the last two neighbours that both answered with the same IP address.
fn step(reports: impl Iterator<Item = ServerReport> + Clone) -> Option<i32> {
    let pairs = reports.clone().zip(reports.skip(1));
    pairs.fold(None, |found, (before, after)| match (before.mapped, after.mapped) {
        (Some(before), Some(after)) if before.ip() == after.ip() => {
            Some(i32::from(after.port()) - i32::from(before.port()))
        }
        (_, _) => found,
    })
}

/// Whether a peer could send to `mapped` at all. A server must not make peers knock at their own doors.
fn is_plausible(server: &SocketAddr, mapped: &SocketAddr) -> bool {
    let ip = mapped.ip().to_canonical();
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let at_home = ip.is_loopback() && !server.ip().is_loopback();
    mapped.port() != 0 && !local && !at_home && !ip.is_unspecified() && !ip.is_multicast()
}

/// The form in which equal addresses compare equal: no IPv4 mapped into IPv6, no flow label.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

/// Servers of one family in a round: two show how the NAT maps, more only help when some are silent.
pub const MAX_STUN_SERVERS: usize = 4;

/// Requests per server: a path that loses one packet in ten loses all three answers once in a hundred and fifty rounds.
const TRIES: u32 = 3;

/// The first wait, doubled by each repetition: 100, 200 and 400 ms, so a server is given up after 700 ms.
///
/// RFC 8489, section 6.2.1, starts at 500 ms where nothing is known of the path. Here three small packets cannot congest
/// anything, the first packet of a user may be waiting, and a round trip above 100 ms only costs a needless repetition:
/// the answer to an earlier request counts until the server is given up.
const FIRST_WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
