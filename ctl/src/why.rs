//! Why frames to a peer take the path they take: one reason, one sentence, the cheapest thing to do about it.
//!
//! Pure: everything follows from what the daemon says at one moment. The order of the questions matters: first what keeps
//! all frames from the peer, then what keeps this node or the peer from looking for a direct path, then what the probes
//! met.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use mesh_control::{
    AddressKind, DirectStatus, NatMapping, PathKind, PeerState, PeerStatus, RelayState, RemoteAddress, Status,
};

/// What keeps frames off the direct path, or that nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// They take it.
    Direct,
    /// They go to the peer itself, over TCP.
    DirectWss,
    /// The relay is not connected, and nothing else leads to the peer.
    RelayDown,
    /// The peer is not connected to the relay.
    PeerOffline,
    /// The session is being made.
    Handshaking,
    /// Nothing wants the peer.
    Idle,
    /// The daemon says nothing about direct paths.
    OldDaemon,
    /// This node's configuration forbids direct paths.
    OffHere,
    /// This node has no UDP socket.
    NoSocket,
    /// The first search goes on.
    Searching,
    /// No traffic began a search yet.
    NotSearched,
    /// A full-size probe was answered, and the relay was taken since.
    LeftDirect,
    /// This node found no address of its own.
    NoOwnAddress,
    /// The peer told no address that this node could try.
    NoPeerAddress,
    /// Short probes pass, long ones do not.
    ShortOnly,
    /// Ports of a NAT are guessed at the moment.
    Guessing,
    /// Both NATs map for each destination.
    BothDependent,
    /// The NAT here maps for each destination, and the peer's side lets in only whom it sent to.
    DependentHere,
    /// The same the other way round.
    DependentThere,
    /// UDP seems to be blocked here.
    BlockedHere,
    /// UDP seems to be blocked at the peer.
    BlockedThere,
    /// Nothing was answered, though both sides can use UDP.
    Unanswered,
}

/// A reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: Reason,
    /// What it is, in one sentence that needs no other.
    pub(crate) sentence: String,
    /// The cheapest thing to do about it; none where all is well.
    pub(crate) fix: Option<String>,
}

impl Reason {
    /// The name in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectWss => "direct_wss",
            Self::RelayDown => "relay_down",
            Self::PeerOffline => "peer_offline",
            Self::Handshaking => "handshaking",
            Self::Idle => "idle",
            Self::OldDaemon => "old_daemon",
            Self::OffHere => "off_here",
            Self::NoSocket => "no_socket",
            Self::Searching => "searching",
            Self::NotSearched => "not_searched",
            Self::LeftDirect => "left_direct",
            Self::NoOwnAddress => "no_own_address",
            Self::NoPeerAddress => "no_peer_address",
            Self::ShortOnly => "short_only",
            Self::Guessing => "guessing",
            Self::BothDependent => "both_dependent",
            Self::DependentHere => "dependent_here",
            Self::DependentThere => "dependent_there",
            Self::BlockedHere => "blocked_here",
            Self::BlockedThere => "blocked_there",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Finds the reason for one of the peers of a status, and puts it into words.
pub(crate) fn judge(status: &Status, peer: &PeerStatus) -> Verdict {
    let reason = reason(status, peer);
    let words = Words { status, peer };
    Verdict { reason, sentence: words.sentence(reason), fix: words.fix(reason) }
}

fn reason(status: &Status, peer: &PeerStatus) -> Reason {
    if peer.path == PathKind::Direct {
        return Reason::Direct;
    }
    if peer.path == PathKind::DirectWss {
        return Reason::DirectWss;
    }
    if status.relay.as_ref().is_none_or(|relay| relay.state != RelayState::Connected) {
        return Reason::RelayDown;
    }
    if peer.online == Some(false) || peer.state == PeerState::Offline {
        return Reason::PeerOffline;
    }
    match peer.state {
        PeerState::Handshaking => return Reason::Handshaking,
        PeerState::Idle => return Reason::Idle,
        PeerState::Established | PeerState::Offline | PeerState::Unknown => {}
    }
    peer.direct.as_ref().map_or(Reason::OldDaemon, search)
}

/// What keeps a peer on the relay that is well reached over it.
fn search(direct: &DirectStatus) -> Reason {
    let proved = direct.remotes.iter().any(|remote| remote.last_full_answer_s.is_some());
    if !direct.enabled {
        Reason::OffHere
    } else if direct.sockets.is_empty() {
        Reason::NoSocket
    } else if direct.birthday.is_some_and(|birthday| birthday.active) {
        Reason::Guessing
    } else if direct.searching && direct.next_search_s.is_none() {
        // After one that found nothing, its reason says more than that another one goes on.
        Reason::Searching
    } else if proved {
        Reason::LeftDirect
    } else if direct.next_search_s.is_none() {
        Reason::NotSearched
    } else if direct.own.is_empty() {
        Reason::NoOwnAddress
    } else if !direct.remotes.iter().any(|remote| remote.kind != AddressKind::Seen) {
        Reason::NoPeerAddress
    } else if direct.remotes.iter().any(|remote| remote.last_answer_s.is_some()) {
        Reason::ShortOnly
    } else {
        unanswered(direct)
    }
}

/// What may have met the probes when none was answered.
fn unanswered(direct: &DirectStatus) -> Reason {
    // Who knows its mapping, or an address that a server saw, got an answer over UDP.
    let here = direct.own_mapping != NatMapping::Unknown
        || direct.own.iter().any(|own| own.kind == AddressKind::Reflexive);
    let there = direct.peer_mapping != NatMapping::Unknown
        || direct.remotes.iter().any(|remote| remote.kind == AddressKind::Reflexive);
    // Behind a port that a router keeps open it does not matter how the NAT maps.
    let open = direct.own.iter().map(|own| own.kind).chain(direct.remotes.iter().map(|remote| remote.kind));
    let open = open.into_iter().any(|kind| matches!(kind, AddressKind::Mapped | AddressKind::Configured));
    match (direct.own_mapping, direct.peer_mapping) {
        _ if !here => Reason::BlockedHere,
        _ if !there => Reason::BlockedThere,
        _ if open => Reason::Unanswered,
        (here, there) if here.is_dependent() && there.is_dependent() => Reason::BothDependent,
        (here, _) if here.is_dependent() => Reason::DependentHere,
        (_, there) if there.is_dependent() => Reason::DependentThere,
        _ => Reason::Unanswered,
    }
}

/// What the sentences speak of.
struct Words<'a> {
    status: &'a Status,
    peer: &'a PeerStatus,
}

impl Words<'_> {
    fn sentence(&self, reason: Reason) -> String {
        let peer = &self.peer.name;
        match reason {
            Reason::Direct => format!("frames go straight to {peer}, without the relay"),
            Reason::DirectWss => format!(
                "frames go straight to {peer} over TCP (WSS), without the relay, as there is no path over UDP: {}",
                self.udp().map_or_else(|| "none was looked for".to_owned(), |reason| self.sentence(reason))
            ),
            Reason::RelayDown => {
                let error = self.status.relay.as_ref().and_then(|relay| relay.error.as_ref());
                let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
                format!("this node does not reach its relay{error}, and knows no direct path to {peer}")
            }
            Reason::PeerOffline => {
                format!("{peer} is not connected to the relay: it is switched off, down or without internet")
            }
            Reason::Handshaking => {
                let error = self.peer.last_error.as_ref();
                let error = error.map(|error| format!("; the last attempt failed: {error}")).unwrap_or_default();
                format!("the session with {peer} is still being made{error}")
            }
            Reason::Idle => format!("nothing was sent to {peer} lately, so there is no session and no path"),
            Reason::OldDaemon => "meshd says nothing about direct paths: it is older than meshctl".to_owned(),
            Reason::OffHere => "direct paths are switched off on this node (direct = false)".to_owned(),
            Reason::NoSocket => "this node has no UDP socket (udp_listen = [])".to_owned(),
            Reason::Searching => "the search for a direct path goes on; it takes 5 s at most".to_owned(),
            Reason::NotSearched => {
                format!("no traffic has flowed to or from {peer} that would begin a search for a direct path")
            }
            Reason::LeftDirect => self.left(),
            Reason::NoOwnAddress => {
                "this machine has no address that others could reach over UDP: no interface is up beside mesh and loopback"
                    .to_owned()
            }
            Reason::NoPeerAddress => format!(
                "{peer} tells no UDP address that this node could try: it has direct paths switched off, no IP version in \
                 common with this node, or older software"
            ),
            Reason::ShortOnly => format!(
                "short probes to {peer} are answered but full-size ones are not: something on the way drops large or \
                 fragmented packets"
            ),
            Reason::Guessing => format!(
                "this node and {peer} are guessing at which port of a NAT they could meet, which takes 8 s at most{}",
                self.chance().map(|chance| format!(" and succeeds in {chance}")).unwrap_or_default()
            ),
            Reason::BothDependent => format!(
                "the NAT here and the NAT of {peer} both use another public port for each destination (symmetric), so \
                 neither side can know where the other one will come from{}",
                self.guesses()
            ),
            Reason::DependentHere => format!(
                "the NAT here uses another public port for each destination (symmetric), and {peer} is behind a NAT or \
                 firewall that lets in only whom it sent to{}",
                self.guesses()
            ),
            Reason::DependentThere => format!(
                "the NAT of {peer} uses another public port for each destination (symmetric), and this node is behind a \
                 NAT or firewall that lets in only whom it sent to{}",
                self.guesses()
            ),
            Reason::BlockedHere => format!(
                "{} was answered, and no STUN server answers this node either: its network seems to block UDP",
                self.probes()
            ),
            Reason::BlockedThere => format!(
                "{} was answered, and no STUN server answers {peer} either: its network seems to block UDP",
                self.probes()
            ),
            Reason::Unanswered => format!(
                "{} was answered, though UDP works on both sides: a firewall at one end lets nothing in",
                self.probes()
            ),
        }
    }

    fn fix(&self, reason: Reason) -> Option<String> {
        let peer = &self.peer.name;
        Some(match reason {
            Reason::Direct => return None,
            Reason::DirectWss => return self.udp().and_then(|reason| self.fix(reason)),
            Reason::RelayDown => {
                "make sure that this machine reaches the TCP port of the relay; \"meshctl status\" shows the error"
                    .to_owned()
            }
            Reason::PeerOffline => format!("start {peer}, or run \"meshctl status\" there"),
            Reason::Handshaking => "wait a few seconds and ask again".to_owned(),
            Reason::Idle | Reason::NotSearched => format!("run \"meshctl ping {peer}\" and ask again"),
            Reason::OldDaemon => "restart meshd, after an update if there is one".to_owned(),
            Reason::OffHere => {
                format!("remove \"direct = false\" from {CONFIG} and restart meshd")
            }
            Reason::NoSocket => format!("remove \"udp_listen = []\" from {CONFIG} and restart meshd"),
            Reason::Searching => "wait 5 s and ask again".to_owned(),
            Reason::Guessing => "wait 8 s and ask again".to_owned(),
            Reason::LeftDirect => format!("run \"meshctl ping {peer}\", which tries it again"),
            Reason::NoOwnAddress => "connect this machine to a network (\"ip address\" shows what it has)".to_owned(),
            Reason::NoPeerAddress => {
                format!("update {peer}, and remove \"direct = false\" and \"udp_listen = []\" from its {CONFIG}")
            }
            Reason::ShortOnly => format!(
                "set \"mtu = 1280\" in {CONFIG} on both nodes and restart them, or let ICMP \"too big\" and UDP fragments \
                 through the firewalls"
            ),
            Reason::BothDependent | Reason::DependentHere => {
                format!("turn on UPnP or PCP in the router of this node; or {}", self.forward_here())
            }
            Reason::DependentThere => {
                format!("turn on UPnP or PCP in the router of {peer}; or {}", self.forward_there())
            }
            Reason::BlockedHere => self.offer(peer, self.peer.wss.is_some(), "this machine"),
            Reason::BlockedThere => self.offer("this node", self.status.wss.is_some(), peer),
            Reason::Unanswered => {
                format!("let UDP port {} in through the firewall of this machine, or {}", self.port(), self.forward_here())
            }
        })
    }

    /// What keeps frames off a path over UDP.
    fn udp(&self) -> Option<Reason> {
        self.peer.direct.as_ref().map(search)
    }

    /// How `blocked`, whose network lets no UDP through, gets a path to `open` that needs none.
    fn offer(&self, open: &str, offers: bool, blocked: &str) -> String {
        let allow = format!("allow UDP from {blocked} to the internet");
        if !offers {
            return format!(
                "add \"[wss]\" with listen = \"[::]:8443\" to {CONFIG} on {open} and restart meshd there, if its TCP port \
                 can be reached from outside; or {allow}"
            );
        }
        let error = self.peer.wss.as_ref().and_then(|wss| wss.error.as_ref());
        let error = error.map(|error| format!(" (the last attempt failed: {error})")).unwrap_or_default();
        format!("make the TCP port of {open} reachable from outside, which offers WSS{error}; or {allow}")
    }

    fn left(&self) -> String {
        let remotes = self.peer.direct.iter().flat_map(|direct| &direct.remotes);
        let proved = remotes.filter_map(|remote| Some((remote.last_full_answer_s?, remote.address))).min();
        let (ago, address) = proved.map_or((0, String::new()), |(ago, address)| (ago, format!(" {address}")));
        format!("the direct path{address} last worked {ago} s ago, and frames have taken the relay since")
    }

    /// "; 2 attempts to guess a port failed, each of which succeeds in 98 of 100 cases".
    fn guesses(&self) -> String {
        let birthday = self.peer.direct.as_ref().and_then(|direct| direct.birthday);
        let (Some(birthday), Some(chance)) = (birthday, self.chance()) else { return String::new() };
        let failed = birthday.attempts - birthday.found.min(birthday.attempts);
        match (birthday.enabled, failed) {
            (false, _) => {
                format!("; guessing ports, which succeeds in {chance}, is switched off (birthday = false)")
            }
            (true, 0) => format!("; guessing ports, which succeeds in {chance}, was not tried yet"),
            (true, 1) => format!("; one attempt to guess a port failed, which succeeds in {chance}"),
            (true, failed) => {
                format!("; {failed} attempts to guess a port failed, each of which succeeds in {chance}")
            }
        }
    }

    /// "98 of 100 cases".
    fn chance(&self) -> Option<String> {
        let chance = self.peer.direct.as_ref()?.birthday?.chance.clamp(0.0, 1.0);
        let cases =
            [100_u32, 1000, 10_000, 100_000].into_iter().find(|cases| chance * f64::from(*cases) >= 1.5);
        let cases = cases.unwrap_or(100_000);
        Some(format!("{:.0} of {cases} cases", (chance * f64::from(cases)).min(f64::from(cases) - 1.0)))
    }

    /// "none of 12 probes to 3 addresses".
    fn probes(&self) -> String {
        let remotes = self.peer.direct.as_ref().map_or(&[][..], |direct| &direct.remotes);
        let sent: u64 = remotes.iter().map(|remote| u64::from(remote.sent)).sum();
        let addresses =
            if remotes.len() == 1 { "1 address".to_owned() } else { format!("{} addresses", remotes.len()) };
        format!("none of {sent} probes to {addresses} of {}", self.peer.name)
    }

    /// Opens this node's side by hand, and tells the peer.
    fn forward_here(&self) -> String {
        let own = self.status.node.as_ref().map_or("THIS-NODE", |node| node.name.as_str());
        let public = self.peer.direct.as_ref().and_then(|direct| {
            direct.own.iter().find(|own| own.kind == AddressKind::Reflexive).map(|own| own.address)
        });
        forward("this machine", own, &self.peer.name, self.port(), public.map(|address| address.ip()))
    }

    /// Opens the peer's side by hand, and tells this node.
    fn forward_there(&self) -> String {
        let remotes = self.peer.direct.as_ref().map_or(&[][..], |direct| &direct.remotes);
        let of = |kind| {
            remotes.iter().find(|remote: &&RemoteAddress| remote.kind == kind).map(|remote| remote.address)
        };
        let port = of(AddressKind::Host).map_or(PORT, |address| address.port());
        let public = of(AddressKind::Reflexive).map(|address| address.ip());
        forward(&self.peer.name, &self.peer.name, "this node", port, public)
    }

    /// Where this node listens.
    fn port(&self) -> u16 {
        let socket = self.peer.direct.as_ref().and_then(|direct| direct.sockets.first());
        socket.map(SocketAddr::port).filter(|port| *port != 0).unwrap_or(PORT)
    }
}

/// How to make `name`, on `machine`, reachable for `other`.
fn forward(machine: &str, name: &str, other: &str, port: u16, public: Option<IpAddr>) -> String {
    let public = public.map_or_else(
        || format!("PUBLIC-ADDRESS:{port}"),
        |address| SocketAddr::new(address, port).to_string(),
    );
    let listen = format!("udp_listen = [\"0.0.0.0:{port}\", \"[::]:{port}\"]");
    format!(
        "forward UDP port {port} to {machine} on its router, set {listen} there, and endpoints.{name} = [\"{public}\"] on \
         {other}"
    )
}

/// The file in which the fixes are made.
const CONFIG: &str = "/etc/shadowmesh/meshd.toml";

/// A port as good as any, where none is known.
const PORT: u16 = 4747;
