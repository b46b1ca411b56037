//! Which of the ways to a peer its frames take.
//!
//! In: what the peer says of its addresses, where its frames come from, challenges that were answered, what is sent, the
//! passing of time. Out: [`Step`]s, which the node carries out. The relay is where everything begins and what is
//! returned to; UDP is taken once a challenge as long as the longest frame was answered over it, which shows both
//! directions, and left as soon as one that carries data stops answering.
//!
//! A search sends short challenges to every address of the peer, while the peer does the same: each opens its own NAT
//! for the other (RFC 8445 calls these connectivity checks). Searches begin with traffic, so that idle peers are silent.
//!
//! Invariants: no clock, no randomness; every list is bounded; nothing the peer says moves frames anywhere before a
//! challenge with an unpredictable id came back from there.

mod near;
mod remote;
mod segments;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use mesh_wire::control::{self, Candidates, Mapping};

use crate::path::Path;

pub(crate) use self::remote::Remote;

/// The paths to one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    relay: Path,
    current: Path,
    changes: u64,
    remotes: Vec<Remote>,
    /// Where it was found on a local network.
    near: Vec<SocketAddr>,
    /// How the peer's NAT maps, as it says.
    mapping: Mapping,
    search: Option<Search>,
    /// When the last search began.
    began: Option<Instant>,
    /// Searches in a row that found nothing.
    failures: u32,
    /// Traffic begins no search before this.
    next_search: Option<Instant>,
    /// When the peer was last told our candidates.
    told: Option<Instant>,
    data: Data,
}

/// A search for a path without the relay.
#[derive(Debug, Clone, Copy)]
struct Search {
    ends: Instant,
    rounds: u32,
    /// When the last round was.
    last: Option<Instant>,
    next: Instant,
}

/// What is known of the direct path in use.
#[derive(Debug, Default)]
struct Data {
    /// When it was taken.
    since: Option<Instant>,
    /// When something of the peer last came over it.
    heard: Option<Instant>,
    /// Since when frames were sent and nothing came.
    unanswered: Option<Instant>,
    /// When it last carried the longest frame and its answer.
    proved: Option<Instant>,
    /// Long frames were sent since then.
    long: bool,
    check: Option<Check>,
}

/// A question whether the path in use still carries the longest frame.
#[derive(Debug, Clone, Copy)]
struct Check {
    tries: u32,
    next: Instant,
}

/// What the node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tell the peer our candidates, and find out whether they still hold.
    Tell,
    /// Send a challenge of so many bytes.
    Challenge(SocketAddr, Size),
    /// Frames take another path.
    Moved,
}

/// How long a challenge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As short as it can be.
    Short,
    /// As the longest frame.
    Full,
    /// The same twice, handed to the kernel as one to cut (UDP GSO), as frames with data are.
    Pair,
}

/// What the paths depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The node looks for direct paths at all.
    pub(crate) searches: bool,
    /// The relay may reach the peer.
    pub(crate) relay: bool,
}

impl Paths {
    pub(crate) fn new(peer: NodeId) -> Self {
        Self {
            relay: Path::Relay(peer),
            current: Path::Relay(peer),
            changes: 0,
            remotes: Vec::new(),
            near: Vec::new(),
            mapping: Mapping::Unknown,
            search: None,
            began: None,
            failures: 0,
            next_search: None,
            told: None,
            data: Data::default(),
        }
    }

    /// Where frames go.
    pub(crate) fn current(&self) -> Path {
        self.current
    }

    /// The length of the direct path in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.remotes.iter().find(|remote| Path::Udp(remote.address) == self.current)?.rtt
    }

    /// Tells whether frames to an address have to be handed to the kernel one by one.
    pub(crate) fn is_single(&self, now: Instant, path: Path) -> bool {
        let Path::Udp(address) = path else { return false };
        let remote = self.remotes.iter().find(|remote| remote.address == address);
        remote.is_some_and(|remote| !remote.segments.works(now))
    }

    /// How often frames took another path.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How the peer's NAT maps, as it says.
    pub(crate) fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// The peer's addresses, and what is known of each.
    pub(crate) fn remotes(&self) -> &[Remote] {
        &self.remotes
    }

    /// Tells whether a search goes on.
    pub(crate) fn searches(&self) -> bool {
        self.search.is_some()
    }

    /// When a search may begin again, after those that found nothing.
    pub(crate) fn next_search(&self) -> Option<Instant> {
        self.next_search
    }

    /// The addresses at which the peer answered, the best first.
    pub(crate) fn answered(&self) -> impl Iterator<Item = SocketAddr> {
        let mut known: Vec<_> = self.remotes.iter().filter(|remote| remote.answered.is_some()).collect();
        known.sort_by_key(|remote| remote.rank());
        known.into_iter().map(|remote| remote.address)
    }

    /// Where a frame goes besides the current path: while nothing was heard over that for long, also over the relay. The
    /// replay window of the peer drops what comes twice.
    pub(crate) fn also(&self, now: Instant, setting: Setting) -> Option<Path> {
        let direct = matches!(self.current, Path::Udp(_));
        (direct && setting.relay && !self.is_sure(now)).then_some(self.relay)
    }

    /// A frame with data is sent; true when [`Paths::timeout`] should be called.
    pub(crate) fn sends(&mut self, now: Instant, long: bool, setting: Setting) -> bool {
        match self.current {
            Path::Relay(_) => self.begins(now, setting),
            Path::Udp(_) => {
                self.data.long |= long;
                let arm = self.data.unanswered.is_none() || (long && self.data.check.is_none());
                self.data.unanswered.get_or_insert(now);
                arm
            }
        }
    }

    /// A frame with data of the peer came; true when [`Paths::timeout`] should be called.
    pub(crate) fn receives(&mut self, now: Instant, setting: Setting) -> bool {
        matches!(self.current, Path::Relay(_)) && self.begins(now, setting)
    }

    /// Something that only the peer can have sealed came over a path; true when [`Paths::timeout`] should be called.
    pub(crate) fn heard(&mut self, now: Instant, from: Path, setting: Setting) -> bool {
        if from == self.current {
            if matches!(from, Path::Udp(_)) {
                (self.data.heard, self.data.unanswered) = (Some(now), None);
            }
            return false;
        }
        let Path::Udp(address) = from else { return false };
        if self.remotes.iter().any(|remote| remote.address == address) {
            return false;
        }
        // It comes from where nobody said it would: its NAT made another address of it, or it moved.
        self.add(Remote::seen(address));
        setting.searches && self.search_now(now)
    }

    /// The peer says where it may be reached; true when [`Paths::timeout`] should be called.
    pub(crate) fn candidates(&mut self, now: Instant, said: &Candidates, setting: Setting) -> bool {
        self.mapping = said.mapping;
        let before = self.named();
        self.remotes.retain(|remote| {
            remote.kind.is_none() || remote.near || said.list.iter().any(|c| c.address == remote.address)
        });
        for candidate in &said.list {
            match self.remotes.iter_mut().find(|remote| remote.address == candidate.address) {
                Some(remote) => remote.kind = Some(candidate.kind),
                None => self.add(Remote::named(*candidate)),
            }
        }
        if !setting.searches {
            return false;
        }
        let changed = self.named() != before;
        if self.search.is_some() {
            return changed && self.search_now(now);
        }
        // It searches: at the same time as this side, or nothing is found.
        let searched = self.began.is_some_and(|began| now.duration_since(began) < SEARCH_APART);
        (changed || !searched) && self.is_wanting(now) && self.search_now(now)
    }

    /// A challenge was sent.
    pub(crate) fn challenged(&mut self, now: Instant, to: SocketAddr, id: u64, size: Size) {
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == to) {
            remote.challenged(now, id, size);
        }
    }

    /// A challenge was answered. Returns what is to be done, and the length of the way if it was one of ours.
    pub(crate) fn answered_by(
        &mut self,
        now: Instant,
        from: Path,
        id: u64,
        setting: Setting,
    ) -> (Option<Duration>, Vec<Step>) {
        let Path::Udp(address) = from else { return (None, Vec::new()) };
        let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == address) else {
            return (None, Vec::new());
        };
        let first = remote.answered.is_none();
        let Some((rtt, size)) = remote.answer(now, id) else { return (None, Vec::new()) };
        let mut steps = Vec::new();
        match size {
            Size::Short if first && setting.searches && from != self.current => {
                steps.push(Step::Challenge(address, Size::Full));
            }
            Size::Short => {}
            Size::Full | Size::Pair if from == self.current => {
                (self.data.proved, self.data.long, self.data.check) = (Some(now), false, None);
            }
            Size::Full | Size::Pair => {
                if setting.searches && self.is_better(now, address) {
                    self.move_to(now, from);
                    self.data.proved = Some(now);
                    steps.push(Step::Moved);
                }
            }
        }
        (Some(rtt), steps)
    }

    /// A handshake came through over a path, which shows both directions of it.
    pub(crate) fn shown(&mut self, now: Instant, path: Path) {
        match path {
            Path::Udp(address) => {
                if !self.remotes.iter().any(|remote| remote.address == address) {
                    self.add(Remote::seen(address));
                }
                if path != self.current && !(matches!(self.current, Path::Udp(_)) && self.is_sure(now)) {
                    self.move_to(now, path);
                }
                (self.data.heard, self.data.unanswered) = (Some(now), None);
            }
            // The other one of two handshakes that crossed, or one that asked over every path.
            Path::Relay(_) if self.is_sure(now) => {}
            Path::Relay(_) => {
                if path != self.current {
                    self.move_to(now, path);
                }
            }
        }
    }

    /// The peer was started anew: what is known of it is past.
    pub(crate) fn forget(&mut self) {
        let Path::Relay(peer) = self.relay else { return };
        let near = std::mem::take(&mut self.near);
        *self = Self { changes: self.changes, near, ..Self::new(peer) };
        self.add_near();
    }

    /// Somebody wants a search at once; true when [`Paths::timeout`] should be called.
    pub(crate) fn search(&mut self, now: Instant, setting: Setting) -> bool {
        setting.searches && self.search_now(now)
    }

    /// The machine's own network changed: all paths are to be found anew, and at once.
    pub(crate) fn network_changed(&mut self, now: Instant, setting: Setting) -> bool {
        (self.failures, self.next_search, self.told) = (0, None, None);
        for remote in &mut self.remotes {
            remote.forget();
        }
        let direct = matches!(self.current, Path::Udp(_));
        // Whether the path in use survived is asked at once; until it answers, the relay carries the same.
        self.data.heard = None;
        if direct {
            self.data.check = Some(Check { tries: 0, next: now });
        }
        setting.searches && self.is_wanting(now) && self.search_now(now) || direct
    }

    /// The relay is there again: traffic may begin a search at once.
    pub(crate) fn relay_found(&mut self) {
        (self.failures, self.next_search, self.told) = (0, None, None);
    }

    /// The relay does not reach the peer any more: the best path without it is taken, if one is proved.
    pub(crate) fn relay_lost(&mut self, now: Instant) -> bool {
        if !matches!(self.current, Path::Relay(_)) {
            return false;
        }
        let Some(best) = self.best(now) else { return false };
        self.move_to(now, Path::Udp(best));
        true
    }

    /// When [`Paths::timeout`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let search = self.search.map(|search| search.next.min(search.ends));
        let check = self.data.check.map(|check| check.next);
        let unanswered = match self.data.check {
            None => self.data.unanswered.map(|since| since + CHECK_AFTER),
            Some(_) => None,
        };
        let long = match (self.data.check, self.data.long, self.data.proved) {
            (None, true, Some(proved)) => Some(proved + CHECK_EVERY),
            (None, true, None) => self.data.since,
            _ => None,
        };
        [search, check, unanswered, long].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: Instant, setting: Setting) -> Vec<Step> {
        let mut steps = Vec::new();
        self.search_goes_on(now, setting, &mut steps);
        self.check(now, setting, &mut steps);
        steps
    }

    /// Our candidates went to the peer.
    pub(crate) fn tells(&mut self, now: Instant) {
        self.told = Some(now);
    }

    fn search_goes_on(&mut self, now: Instant, setting: Setting, steps: &mut Vec<Step>) {
        let Some(mut search) = self.search else { return };
        if now >= search.ends || !setting.searches {
            self.search = None;
            if self.is_wanting(now) {
                self.failures = self.failures.saturating_add(1);
                let wait = BACKOFF_FIRST.saturating_mul(1 << (self.failures - 1).min(8)).min(BACKOFF_MOST);
                self.next_search = Some(now + wait);
            }
            return;
        }
        if now < search.next {
            return;
        }
        if search.rounds == ROUNDS {
            search.next = search.ends;
            self.search = Some(search);
            return;
        }
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            self.told = Some(now);
            steps.push(Step::Tell);
        }
        for remote in self.remotes.iter().filter(|remote| Path::Udp(remote.address) != self.current) {
            let size = if remote.answered.is_some() { Size::Full } else { Size::Short };
            if remote.proved.is_none_or(|proved| now.duration_since(proved) >= PROVED) {
                steps.push(Step::Challenge(remote.address, size));
            }
        }
        search.rounds += 1;
        search.last = Some(now);
        search.next = now + (ROUND * search.rounds).min(ROUND_MOST);
        self.search = Some(search);
    }

    /// Asks the path in use whether it lives, and leaves it when it does not.
    fn check(&mut self, now: Instant, setting: Setting, steps: &mut Vec<Step>) {
        let Path::Udp(address) = self.current else { return };
        let data = &mut self.data;
        if data.check.is_none() {
            let unanswered = data.unanswered.is_some_and(|since| now.duration_since(since) >= CHECK_AFTER);
            let unproved = data.long && data.proved.is_none_or(|at| now.duration_since(at) >= CHECK_EVERY);
            if !unanswered && !unproved {
                return;
            }
            data.check = Some(Check { tries: 0, next: now });
        }
        let Some(check) = data.check.as_mut().filter(|check| check.next <= now) else { return };
        if check.tries < CHECK_TRIES {
            check.tries += 1;
            let remote = self.remotes.iter().find(|remote| remote.address == address);
            let rtt = remote.and_then(|remote| remote.rtt);
            let together = remote.is_some_and(|remote| remote.segments.works(now));
            let wait = if check.tries == CHECK_TRIES { rtt.unwrap_or_default() * 2 } else { Duration::ZERO };
            check.next = now + CHECK_RETRY.max(wait);
            let pair = together && check.tries <= PAIR_TRIES;
            steps.push(Step::Challenge(address, if pair { Size::Pair } else { Size::Full }));
            return;
        }
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == address) {
            remote.forget();
        }
        let next = self.best(now).map(Path::Udp).or_else(|| setting.relay.then_some(self.relay));
        match next {
            Some(next) => {
                self.move_to(now, next);
                steps.push(Step::Moved);
                if setting.searches {
                    self.search_now(now);
                }
            }
            None => {
                // Nothing better is known. The peer may have moved to an address that was named, or found near by; the
                // handshake that follows silence finds whatever else there is.
                (self.data.check, self.data.unanswered, self.data.long) = (None, None, false);
                self.begins(now, setting);
            }
        }
    }

    fn begins(&mut self, now: Instant, setting: Setting) -> bool {
        let due = self.next_search.is_none_or(|at| at <= now);
        setting.searches && self.search.is_none() && due && self.search_now(now)
    }

    fn search_now(&mut self, now: Instant) -> bool {
        if self.search.is_none() {
            self.search = Some(Search { ends: now + SEARCH, rounds: 0, last: None, next: now });
            self.began = Some(now);
        } else if let Some(search) = &mut self.search {
            // A peer that names addresses all the time does not make challenges faster than a search that begins.
            let soonest = search.last.map_or(now, |last| now.max(last + ROUND));
            search.next = search.next.min(soonest);
        }
        true
    }

    /// Tells whether another path is wanted: the relay is not, and a direct one may have a better one beside it only
    /// while a search goes on.
    fn is_wanting(&self, now: Instant) -> bool {
        matches!(self.current, Path::Relay(_)) || !self.is_sure(now)
    }

    /// Until when the direct path in use leads to the peer for certain, if nothing more is heard.
    pub(crate) fn sure_until(&self) -> Option<Instant> {
        self.data.heard.map(|at| at + SURE)
    }

    fn is_sure(&self, now: Instant) -> bool {
        let direct = matches!(self.current, Path::Udp(_));
        direct && self.data.heard.is_some_and(|at| now.duration_since(at) < SURE)
    }

    fn is_better(&self, now: Instant, address: SocketAddr) -> bool {
        let rank = |address| self.remotes.iter().find(|remote| remote.address == address).map(Remote::rank);
        match self.current {
            Path::Relay(_) => true,
            Path::Udp(_) if !self.is_sure(now) => true,
            Path::Udp(current) => match (rank(address), rank(current)) {
                (Some(new), Some(old)) => new.is_clearly_better(&old),
                _ => false,
            },
        }
    }

    /// The best of the addresses that were proved not long ago.
    fn best(&self, now: Instant) -> Option<SocketAddr> {
        let fresh = |remote: &&Remote| remote.proved.is_some_and(|at| now.duration_since(at) < PROVED);
        let remotes =
            self.remotes.iter().filter(fresh).filter(|remote| Path::Udp(remote.address) != self.current);
        remotes.min_by_key(|remote| remote.rank()).map(|remote| remote.address)
    }

    fn move_to(&mut self, now: Instant, path: Path) {
        self.current = path;
        self.changes += 1;
        self.data = Data::default();
        if matches!(path, Path::Udp(_)) {
            self.data.since = Some(now);
            self.data.heard = Some(now);
            (self.failures, self.next_search) = (0, None);
            if let Some(search) = &mut self.search {
                // A better one may answer in a moment.
                search.ends = search.ends.min(now + AFTERMATH);
            }
        }
    }

    fn named(&self) -> Vec<SocketAddr> {
        let mut named: Vec<_> =
            self.remotes.iter().filter(|remote| remote.kind.is_some()).map(|remote| remote.address).collect();
        named.sort_unstable();
        named
    }

    fn add(&mut self, remote: Remote) {
        if self.remotes.len() == REMOTES {
            let current = self.current;
            let useless = (0..self.remotes.len())
                .filter(|at| Path::Udp(self.remotes[*at].address) != current)
                .min_by_key(|at| (self.remotes[*at].answered, self.remotes[*at].kind.is_some()));
            if let Some(at) = useless {
                self.remotes.remove(at);
            }
        }
        self.remotes.push(remote);
    }
}

/// What the peer names, and what it was seen at beyond that.
const REMOTES: usize = control::CANDIDATES + 8;
/// A search takes no longer: what plain punching reaches answers within a second or two.
const SEARCH: Duration = Duration::from_secs(5);
/// Between the rounds of a search, growing by as much each time: the first follow quickly, since the peer's NAT opens
/// at a moment that this side does not know.
const ROUND: Duration = Duration::from_millis(50);
const ROUND_MOST: Duration = Duration::from_millis(500);
/// Rounds of one search, twice as many as undisturbed ones have: what a peer says may hasten them, not add many.
const ROUNDS: u32 = 32;
/// The rest of a search that has found a path.
const AFTERMATH: Duration = Duration::from_millis(300);
/// A peer that says its addresses is searched with at most so often where they are the same.
const SEARCH_APART: Duration = Duration::from_secs(2);
/// After a search without a result; doubled after each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// Within a search candidates are told again, as the message may be lost.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// A path over which nothing came for so long may be gone without anybody's fault: NATs forget after 30 s and more.
const SURE: Duration = Duration::from_secs(15);
/// An answer to a full challenge counts this long.
const PROVED: Duration = Duration::from_secs(20);
/// Data without any answer for so long calls for a check; with the tries it is left within a second.
const CHECK_AFTER: Duration = Duration::from_millis(300);
const CHECK_RETRY: Duration = Duration::from_millis(130);
const CHECK_TRIES: u32 = 4;
/// The first tries of a check go as frames with data do; if only the others are answered, segmentation is at fault.
const PAIR_TRIES: u32 = 2;
/// A path that carries long frames is asked so often whether it still does.
const CHECK_EVERY: Duration = Duration::from_secs(1);
