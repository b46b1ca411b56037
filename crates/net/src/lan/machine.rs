//! When to announce and to ask, whom to hear, what to believe and for how long.

mod rate;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use mesh_wire::lan::{CONTENT, Content, InstanceName, Message, NAME, SEALED};

use self::rate::{Bucket, Rate, Sources};
use self::table::{Heard, Table};
use super::LanLink;

/// What this node says of itself beside its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanPorts {
    /// The port of its IPv4 socket, and the only address that it has if it is bound to one.
    pub v4: Option<SocketAddr>,
    /// The same for IPv6.
    pub v6: Option<SocketAddr>,
}

/// What is to be said on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanTransmit {
    /// The number of the interface.
    pub link: u32,
    /// What.
    pub say: LanSay,
}

/// What can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LanSay {
    /// Who is there?
    Question,
    /// This node is; the caller seals it for the name.
    Announcement {
        /// Under which name.
        name: InstanceName,
        /// What is to be sealed.
        content: Content,
    },
    /// The name is not used any more.
    Farewell {
        /// Which.
        name: InstanceName,
    },
}

/// Where a member is, as announcements say; each replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanFound {
    /// Who.
    pub node: NodeId,
    /// Where; none any more where it is empty.
    pub addresses: Vec<SocketAddr>,
}

/// What came and what was made of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanCounts {
    /// Announcements of other members that said something new.
    pub heard: u64,
    /// Announcements that no member sealed within the last hours.
    pub unsealed: u64,
    /// Sealed announcements of a form that this version does not know.
    pub malformed: u64,
    /// Announcements no newer than what was heard before: somebody sent them again.
    pub stale: u64,
    /// Addresses that no neighbour can have.
    pub far: u64,
    /// Messages beyond the rate of their sender or of all senders.
    pub rate: u64,
    /// Announcements and questions of ours that did not leave.
    pub unsent: u64,
}

/// The machine of one node.
pub struct LanMachine {
    own: NodeId,
    ports: LanPorts,
    random: Box<dyn FnMut() -> u64 + Send>,
    links: BTreeMap<u32, State>,
    name: InstanceName,
    /// When another name is taken.
    renames: Option<Instant>,
    table: Table,
    sweep: Option<Instant>,
    sources: Sources,
    opens: Bucket,
    transmits: VecDeque<LanTransmit>,
    found: VecDeque<LanFound>,
    counts: LanCounts,
}

/// What is under way on one interface.
#[derive(Debug)]
struct State {
    link: LanLink,
    /// The next announcement.
    next: Instant,
    last: Option<Instant>,
    /// Questions, and announcements in quick succession, that are left.
    early: u32,
}

impl LanMachine {
    /// Makes a machine that says nothing before it is given interfaces. `random` gives unpredictable numbers.
    #[must_use]
    pub fn new(own: NodeId, ports: LanPorts, mut random: Box<dyn FnMut() -> u64 + Send>) -> Self {
        let name = new_name(&mut random);
        Self {
            own,
            ports,
            random,
            links: BTreeMap::new(),
            name,
            renames: None,
            table: Table::default(),
            sweep: None,
            sources: Sources::default(),
            opens: Bucket::default(),
            transmits: VecDeque::new(),
            found: VecDeque::new(),
            counts: LanCounts::default(),
        }
    }

    /// Takes the interfaces of the machine, listed anew because something changed. Poll for everything afterwards.
    pub fn set_links(&mut self, now: Instant, links: Vec<LanLink>) {
        let mut before = std::mem::take(&mut self.links);
        for link in links {
            let known = before.remove(&link.index).filter(|state| state.link == link);
            // What changed on the way to a neighbour is not seen here: those that are there are asked again.
            let last = known.and_then(|state| state.last);
            let state = State { next: now + self.between(SOON, SOON_MOST), last, early: EARLY, link };
            self.links.insert(state.link.index, state);
        }
        let gone = self.table.retain(|heard| self.links.contains_key(&heard.link));
        self.tell(gone);
    }

    /// Takes a datagram; `open` opens what is sealed. Poll for everything afterwards.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        (link, from): (u32, SocketAddr),
        datagram: &[u8],
        open: impl FnOnce(&InstanceName, &[u8; SEALED]) -> Option<[u8; CONTENT]>,
    ) {
        // Whatever else is said on that port is for others.
        let Ok(message) = Message::parse(datagram) else { return };
        if !self.links.contains_key(&link) {
            return;
        }
        if !self.sources.take(now, (link, from.ip())) {
            self.counts.rate += 1;
            return;
        }
        match message {
            Message::Question => self.answer(now, link),
            // Anybody can say farewell for anybody.
            Message::Farewell { .. } => {}
            Message::Announcement { name, .. } if name == self.name => {}
            Message::Announcement { name, sealed } => {
                if !self.opens.take(now, OPENS) {
                    self.counts.rate += 1;
                    return;
                }
                match open(&name, sealed).as_ref().map(Content::parse) {
                    None => self.counts.unsealed += 1,
                    Some(Err(_)) => self.counts.malformed += 1,
                    Some(Ok(content)) if content.node == self.own => {}
                    Some(Ok(content)) => self.take(now, link, &content),
                }
            }
        }
    }

    /// Does what is due; `unix` is the time in seconds since 1970. Poll for everything afterwards.
    pub fn handle_timeout(&mut self, now: Instant, unix: u64) {
        if self.sweep.is_some_and(|at| at <= now) {
            let gone = self.table.retain(|heard| now.duration_since(heard.at) < LIFETIME);
            self.sweep = (!self.table.is_empty()).then(|| now + SWEEP);
            self.tell(gone);
        }
        let due: Vec<u32> =
            self.links.iter().filter(|(_, state)| state.next <= now).map(|(link, _)| *link).collect();
        if !due.is_empty() {
            self.rename(now);
        }
        for link in due {
            let regular = self.between(INTERVAL - JITTER, INTERVAL + JITTER);
            let Some(state) = self.links.get_mut(&link) else { continue };
            state.last = Some(now);
            state.next = now + regular;
            if state.early > 0 {
                state.early -= 1;
                self.transmits.push_back(LanTransmit { link, say: LanSay::Question });
                if state.early > 0 {
                    state.next = now + APART;
                }
            }
            if let Some(content) = content(self.own, self.ports, &state.link, unix) {
                let say = LanSay::Announcement { name: self.name, content };
                self.transmits.push_back(LanTransmit { link, say });
            }
        }
    }

    /// Says farewell everywhere and nothing afterwards. Poll for transmits.
    pub fn close(&mut self) {
        self.farewell();
        self.links.clear();
    }

    /// Counts something that did not leave.
    pub fn unsent(&mut self) {
        self.counts.unsent += 1;
    }

    /// When [`LanMachine::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.links.values().map(|state| state.next).chain(self.sweep).min()
    }

    /// The next thing to say.
    pub fn poll_transmit(&mut self) -> Option<LanTransmit> {
        self.transmits.pop_front()
    }

    /// The next member whose addresses changed.
    pub fn poll_found(&mut self) -> Option<LanFound> {
        self.found.pop_front()
    }

    /// What came so far.
    #[must_use]
    pub fn counts(&self) -> LanCounts {
        self.counts
    }

    /// Somebody asks: everybody answers, each after another while, but no more than once a second.
    fn answer(&mut self, now: Instant, link: u32) {
        let wait = self.between(SOON, SOON_MOST);
        let Some(state) = self.links.get_mut(&link) else { return };
        let at = state.last.map_or(now + wait, |last| (now + wait).max(last + APART));
        state.next = state.next.min(at);
    }

    fn take(&mut self, now: Instant, link: u32, content: &Content) {
        let Some(state) = self.links.get(&link) else { return };
        let mut news = false;
        let mut stale = false;
        for ip in &content.addresses {
            if !state.link.reaches(*ip) {
                self.counts.far += 1;
                continue;
            }
            let port = if ip.is_ipv4() { content.port_v4 } else { content.port_v6 };
            let address = match ip {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(*v6, port, 0, link).into(),
                IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(*ip, port),
            };
            let heard = Heard { link, made: content.made, at: now };
            match self.table.hear((content.node, address), heard) {
                table::Hearing::New => news = true,
                table::Hearing::Newer => {}
                table::Hearing::Again => stale = true,
            }
        }
        if stale {
            self.counts.stale += 1;
        } else {
            self.counts.heard += 1;
        }
        if !self.table.is_empty() {
            self.sweep.get_or_insert(now + SWEEP);
        }
        if news {
            self.tell(vec![content.node]);
        }
    }

    /// Tells where these members are.
    fn tell(&mut self, nodes: Vec<NodeId>) {
        for node in nodes {
            self.found.retain(|found| found.node != node);
            self.found.push_back(LanFound { node, addresses: self.table.addresses(node) });
        }
    }

    /// Takes another name from time to time, so that announcements of one day are not one thread to follow.
    fn rename(&mut self, now: Instant) {
        match self.renames {
            Some(at) if at <= now => {
                self.farewell();
                self.name = new_name(&mut self.random);
            }
            Some(_) => return,
            None => {}
        }
        self.renames = Some(now + RENAME);
    }

    /// Others need not remember the name any longer.
    fn farewell(&mut self) {
        let name = self.name;
        let told = self.links.iter().filter(|(_, state)| state.last.is_some());
        let all = told.map(|(link, _)| LanTransmit { link: *link, say: LanSay::Farewell { name } });
        self.transmits.extend(all);
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_millis()).unwrap_or(u64::MAX).max(1);
        least + Duration::from_millis((self.random)() % span)
    }
}

/// What a node says on an interface; none where it has no socket there.
fn content(own: NodeId, ports: LanPorts, link: &LanLink, made: u64) -> Option<Content> {
    let socket = |ip: &IpAddr| if ip.is_ipv4() { ports.v4 } else { ports.v6 };
    let open = |ip: &IpAddr| socket(ip).is_some_and(|at| at.ip().is_unspecified() || at.ip() == *ip);
    let addresses: Vec<_> = link.addresses.iter().map(|(ip, _)| *ip).filter(open).collect();
    let port = |socket: Option<SocketAddr>| socket.map_or(0, |at| at.port());
    let content = Content { made, node: own, port_v4: port(ports.v4), port_v6: port(ports.v6), addresses };
    (!content.addresses.is_empty()).then_some(content)
}

fn new_name(random: &mut Box<dyn FnMut() -> u64 + Send>) -> InstanceName {
    let mut name = [b'0'; NAME];
    let text = format!("{:016x}{:016x}", random(), random());
    name.copy_from_slice(text.as_bytes());
    name
}

impl fmt::Debug for LanMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanMachine").field("links", &self.links).finish_non_exhaustive()
    }
}

/// Between two announcements; members that came meanwhile have asked, so this only keeps what is known alive.
const INTERVAL: Duration = Duration::from_secs(30);
const JITTER: Duration = Duration::from_secs(3);
/// What was not heard again is forgotten: three announcements in a row were lost.
const LIFETIME: Duration = Duration::from_secs(120);
/// How often it is looked for what is to be forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// Answers are spread over this (RFC 6762, section 6).
const SOON: Duration = Duration::from_millis(20);
const SOON_MOST: Duration = Duration::from_millis(120);
/// Between two announcements on one interface at least (RFC 6762, sections 6 and 8.3).
const APART: Duration = Duration::from_secs(1);
/// Questions and announcements at the beginning, a second apart, as the first may be lost.
const EARLY: u32 = 3;
/// A name is used so long.
const RENAME: Duration = Duration::from_secs(600);
/// Openings of all senders together: 4000 a second take about 2 % of a core.
const OPENS: Rate = Rate { per_second: 4000, burst: 4000 };
