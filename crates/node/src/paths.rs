//! Which of the ways to a peer its frames take.
//!
//! In: what the peer says of its addresses, where its frames come from, challenges that were answered, what is sent, the
//! passing of time. Out: [`Step`]s, which the node carries out. The relay is where everything begins and what is
//! returned to; UDP is taken once the length of the frames that it carries was found by answered challenges, which show
//! both directions, and left as soon as one that carries data stops answering. A path in use whose long frames do not arrive
//! any more is measured anew, and meanwhile only carries what it was shown to carry.
//!
//! A search sends short challenges to every address of the peer, while the peer does the same: each opens its own NAT
//! for the other (RFC 8445 calls these connectivity checks). Searches begin with traffic, so that idle peers are silent.
//!
//! Invariants: no clock, no randomness; every list is bounded; nothing the peer says moves frames anywhere before a
//! challenge with an unpredictable id came back from there.

mod birthday;
mod change;
mod measure;
mod near;
mod opening;
mod predict;
mod remote;
mod segments;
mod size;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use mesh_wire::control::{self, Candidates, Mapping};

use crate::path::Path;
use crate::tx::By;

pub(crate) use self::birthday::{Allowance, Birthday, chance};
pub(crate) use self::change::Change;
pub use self::change::ChangeReason;
pub(crate) use self::opening::OPENING_HOPS;
pub(crate) use self::remote::Remote;
use self::size::least;

/// The paths to one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    relay: Path,
    current: Path,
    /// The longest payload that the current path carries, in bytes.
    limit: u16,
    changes: u64,
    last_change: Option<Change>,
    remotes: Vec<Remote>,
    /// Where it was found on a local network.
    near: Vec<SocketAddr>,
    /// How the peer's NAT maps, as it says.
    mapping: Mapping,
    /// The IPv4 address at which a server saw the peer last, as it says.
    public: Option<SocketAddrV4>,
    /// Addresses that nobody named and that were challenged all the same.
    guessed: u64,
    birthday: Birthday,
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
    began: Instant,
    ends: Instant,
    rounds: u32,
    /// When the peer was first told our candidates since it began.
    told: Option<Instant>,
    /// How often the next ports of the peer's NAT were tried.
    predictions: u32,
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
    /// The length that it carries is being found out, from below.
    measured: bool,
}

/// A question whether the path in use still carries the longest frame.
#[derive(Debug, Clone, Copy)]
struct Check {
    tries: u32,
    next: Instant,
    /// A frame of the least length was answered meanwhile.
    least: bool,
}

/// What the node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tell the peer our candidates, and find out whether they still hold.
    Tell,
    /// Send a short challenge that does not get as far as the peer.
    Open(SocketAddr),
    /// Send a challenge of so many bytes.
    Challenge(SocketAddr, Size),
    /// Send a short challenge to an address that nobody named. It need not be remembered: where it arrives, the peer's
    /// answer comes from an address that was only seen, which is challenged then.
    Guess(SocketAddr, By),
    /// Begin to guess ports with [`Paths::begin_birthday`], if the node may.
    Birthday,
    /// Frames take another path.
    Moved,
    /// A search found nothing while frames go over the relay.
    Failed,
    /// The path in use carries frames of another length than before.
    Sized,
}

/// How long a challenge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As short as it can be.
    Short,
    /// As a frame with so many bytes of payload.
    Long(u16),
    /// The same twice, handed to the kernel as one to cut (UDP GSO), as frames with data are.
    Pair(u16),
}

/// What the paths depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The node looks for direct paths at all.
    pub(crate) searches: bool,
    /// The relay may reach the peer.
    pub(crate) relay: bool,
    /// Ports may be guessed.
    pub(crate) birthday: bool,
    /// How the node's own NAT maps.
    pub(crate) mapping: Mapping,
    /// The longest payload that there is, in bytes.
    pub(crate) most: u16,
}

impl Paths {
    pub(crate) fn new(peer: NodeId) -> Self {
        Self {
            relay: Path::Relay(peer),
            current: Path::Relay(peer),
            limit: u16::MAX,
            changes: 0,
            last_change: None,
            remotes: Vec::new(),
            near: Vec::new(),
            mapping: Mapping::Unknown,
            public: None,
            guessed: 0,
            birthday: Birthday::default(),
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

    /// The direct path in use, or else the best that was proved not long ago.
    pub(crate) fn direct(&self, now: Instant) -> Option<Path> {
        match self.current {
            Path::Udp(_) => Some(self.current),
            Path::Relay(_) => self.best(now).map(Path::Udp),
        }
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

    /// The longest payload that the current path carries, in bytes; the largest number for the relay, which carries all.
    pub(crate) fn limit(&self) -> u16 {
        self.limit
    }

    /// The limit is that of a path which is still being measured.
    pub(crate) fn is_measured(&self) -> bool {
        self.data.measured
    }

    /// The last change of path.
    pub(crate) fn last_change(&self) -> Option<Change> {
        self.last_change
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

    /// Tells whether a search goes on that has time left.
    pub(crate) fn searches_at(&self, now: Instant) -> bool {
        self.search.is_some_and(|search| now < search.ends)
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

    /// Where a frame goes besides the current path: while nothing was heard over that for long, or long frames were
    /// asked for twice in vain, also over the relay. The
    /// replay window of the peer drops what comes twice.
    pub(crate) fn also(&self, now: Instant, setting: Setting) -> Option<Path> {
        let direct = matches!(self.current, Path::Udp(_));
        let doubted = self.data.check.is_some_and(|check| check.tries > PAIR_TRIES);
        (direct && setting.relay && (doubted || !self.is_sure(now))).then_some(self.relay)
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
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == address) {
            // The NATs of both are open for each other there: nothing is to be waited for.
            let news = !std::mem::replace(&mut remote.heard, true) && remote.answered.is_none();
            let looks = self.search.is_some() || self.guesses();
            return news && looks && setting.searches && self.search_now(now);
        }
        // It comes from where nobody said it would: its NAT made another address of it, or it moved.
        self.add(Remote::seen(address));
        setting.searches && self.search_now(now)
    }

    /// The peer looks for a path, and asks whether this is one. It does not use it then, so that its questions say nothing
    /// about frames of this side: whether those arrive is asked. True when [`Paths::timeout`] should be called.
    pub(crate) fn sought(&mut self, now: Instant, from: Path) -> bool {
        let used = matches!(from, Path::Udp(_)) && from == self.current;
        let proved = self.data.proved.is_some_and(|at| now.duration_since(at) < CHECK_AFTER);
        if used && !proved && self.data.check.is_none() {
            self.data.check = Some(Check { tries: 0, next: now, least: false });
            return true;
        }
        false
    }

    /// The peer says where it may be reached; true when [`Paths::timeout`] should be called.
    pub(crate) fn candidates(&mut self, now: Instant, said: &Candidates, setting: Setting) -> bool {
        (self.mapping, self.public) = (said.mapping, predict::public(said));
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
        let Some((rtt, size)) = remote.answer(now, id) else { return (None, Vec::new()) };
        let mut steps = Vec::new();
        match size {
            Size::Short if setting.searches && from != self.current && !remote.is_proved(now) => {
                remote.sizing.begin(now, setting.most);
            }
            Size::Short => {}
            Size::Long(bytes) | Size::Pair(bytes) if from == self.current => {
                if bytes >= self.limit {
                    (self.data.proved, self.data.long, self.data.check) = (Some(now), false, None);
                    remote.sizing.answered(now, bytes);
                    remote.sizing.raise(now, setting.most);
                } else if let Some(check) = &mut self.data.check {
                    check.least = true;
                }
            }
            Size::Long(bytes) | Size::Pair(bytes) => remote.sizing.answered(now, bytes),
        }
        self.measure(now, setting, &mut steps);
        (Some(rtt), steps)
    }

    /// A handshake came through over a path, which shows both directions of it.
    pub(crate) fn shown(&mut self, now: Instant, path: Path, setting: Setting) {
        match path {
            Path::Udp(address) => {
                if !self.remotes.iter().any(|remote| remote.address == address) {
                    self.add(Remote::seen(address));
                }
                if path != self.current && !(matches!(self.current, Path::Udp(_)) && self.is_sure(now)) {
                    self.move_to(now, path, ChangeReason::Handshake, setting);
                }
                (self.data.heard, self.data.unanswered) = (Some(now), None);
            }
            // The other one of two handshakes that crossed, or one that asked over every path.
            Path::Relay(_) if self.is_sure(now) => {}
            Path::Relay(_) => {
                if path != self.current {
                    self.move_to(now, path, ChangeReason::Handshake, setting);
                }
            }
        }
    }

    /// The peer was started anew: what is known of it is past. Returns whether frames took a direct path.
    pub(crate) fn forget(&mut self, now: Instant) -> bool {
        let Path::Relay(peer) = self.relay else { return false };
        let near = std::mem::take(&mut self.near);
        let direct = matches!(self.current, Path::Udp(_));
        if direct {
            let (from, to) = (self.current, self.relay);
            self.last_change = Some(Change { at: now, from, to, reason: ChangeReason::Ended });
            self.changes += 1;
        }
        let (changes, last_change, guessed) = (self.changes, self.last_change, self.guessed);
        let birthday = self.birthday.anew();
        *self = Self { changes, last_change, guessed, birthday, near, ..Self::new(peer) };
        self.add_near();
        direct
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
            self.data.check = Some(Check { tries: 0, next: now, least: false });
        }
        setting.searches && self.is_wanting(now) && self.search_now(now) || direct
    }

    /// The relay is there again: traffic may begin a search at once.
    pub(crate) fn relay_found(&mut self) {
        (self.failures, self.next_search, self.told) = (0, None, None);
    }

    /// The relay does not reach the peer any more: the best path without it is taken, if one is proved.
    pub(crate) fn relay_lost(&mut self, now: Instant, setting: Setting) -> bool {
        if !matches!(self.current, Path::Relay(_)) {
            return false;
        }
        let Some(best) = self.best(now) else { return false };
        self.move_to(now, Path::Udp(best), ChangeReason::RelayLost, setting);
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
        let sizes = self.remotes.iter().filter_map(|remote| remote.sizing.due()).min();
        [search, check, unanswered, long, sizes, self.birthday.due()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: Instant, setting: Setting) -> Vec<Step> {
        let mut steps = Vec::new();
        self.search_goes_on(now, setting, &mut steps);
        self.birthday_goes_on(now, setting, &mut steps);
        self.check(now, setting, &mut steps);
        self.measure(now, setting, &mut steps);
        steps
    }

    /// Our candidates went to the peer.
    pub(crate) fn tells(&mut self, now: Instant) {
        self.told = Some(now);
        if let Some(search) = &mut self.search {
            search.told.get_or_insert(now);
        }
    }

    /// Challenges that went to addresses which nobody named.
    pub(crate) fn guessed(&self) -> u64 {
        self.guessed
    }

    fn search_goes_on(&mut self, now: Instant, setting: Setting, steps: &mut Vec<Step>) {
        let Some(mut search) = self.search else { return };
        if now >= search.ends || !setting.searches {
            self.search = None;
            if self.is_wanting(now) {
                self.failures = self.failures.saturating_add(1);
                let wait = BACKOFF_FIRST.saturating_mul(1 << (self.failures - 1).min(8)).min(BACKOFF_MOST);
                self.next_search = Some(now + wait);
                if matches!(self.current, Path::Relay(_)) {
                    steps.push(Step::Failed);
                }
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
        // What opens the own NAT leaves before the peer hears that it may send.
        self.open(now, steps);
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            self.told = Some(now);
            steps.push(Step::Tell);
        }
        search.rounds += 1;
        search.last = Some(now);
        search.next = now + (ROUND * search.rounds).min(ROUND_MOST);
        let mut challenged = false;
        for remote in self.remotes.iter().filter(|remote| Path::Udp(remote.address) != self.current) {
            if let Some(ready) = self.ready_at(&search, remote).filter(|ready| *ready > now) {
                search.next = search.next.min(ready);
                continue;
            }
            challenged = true;
            if !remote.is_proved(now) && !remote.sizing.is_busy() {
                steps.push(Step::Challenge(remote.address, Size::Short));
            }
        }
        if challenged {
            self.predict(&mut search, setting, steps);
        }
        if self.wants_birthday(now, &search, setting) {
            steps.push(Step::Birthday);
        }
        self.search = Some(search);
    }

    /// Tries the next ports of a peer whose NAT counts. Behind another NAT of that kind each try would come from another
    /// port itself, where the peer does not look.
    fn predict(&mut self, search: &mut Search, setting: Setting, steps: &mut Vec<Step>) {
        let relayed = matches!(self.current, Path::Relay(_));
        let silent = self.remotes.iter().all(|remote| remote.answered.is_none());
        if setting.mapping.is_dependent() || !relayed || !silent || search.predictions == PREDICTIONS {
            return;
        }
        search.predictions += 1;
        for address in predict::predicted(self.mapping, self.public) {
            self.guessed += 1;
            steps.push(Step::Guess(address, By::Usual));
        }
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
            data.check = Some(Check { tries: 0, next: now, least: false });
        }
        let limit = self.limit.min(setting.most);
        let Some(check) = data.check.as_mut().filter(|check| check.next <= now) else { return };
        if check.tries < CHECK_TRIES {
            check.tries += 1;
            let remote = self.remotes.iter().find(|remote| remote.address == address);
            let rtt = remote.and_then(|remote| remote.rtt);
            let together = remote.is_some_and(|remote| remote.segments.works(now));
            let wait = if check.tries == CHECK_TRIES { rtt.unwrap_or_default() * 2 } else { Duration::ZERO };
            check.next = now + CHECK_RETRY.max(wait);
            let pair = together && check.tries <= PAIR_TRIES;
            steps.push(Step::Challenge(address, if pair { Size::Pair(limit) } else { Size::Long(limit) }));
            if check.tries > PAIR_TRIES && limit > least(setting.most) {
                steps.push(Step::Challenge(address, Size::Long(least(setting.most))));
            }
            return;
        }
        if check.least {
            return self.shrinks(now, address, setting, steps);
        }
        let lately = data.heard.is_some_and(|heard| now.duration_since(heard) < CHECK_AFTER);
        let reason = if lately { ChangeReason::ShortOnly } else { ChangeReason::Silent };
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == address) {
            remote.forget();
        }
        let next = self.best(now).map(Path::Udp).or_else(|| setting.relay.then_some(self.relay));
        match next {
            Some(next) => {
                self.move_to(now, next, reason, setting);
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
            self.search = Some(Search::new(now));
            self.unopened();
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
        let known = |address| self.remotes.iter().find(|remote| remote.address == address);
        let rank = |address| known(address).map(Remote::rank);
        match self.current {
            Path::Relay(_) => true,
            Path::Udp(_) if !self.is_sure(now) => true,
            Path::Udp(_) if known(address).is_some_and(|new| new.sizing.carries() < Some(self.limit)) => {
                false
            }
            Path::Udp(current) => match (rank(address), rank(current)) {
                (Some(new), Some(old)) => new.is_clearly_better(&old),
                _ => false,
            },
        }
    }

    /// The best of the addresses that were proved not long ago.
    fn best(&self, now: Instant) -> Option<SocketAddr> {
        let fresh = |remote: &&Remote| remote.is_proved(now) && remote.sizing.carries().is_some();
        let remotes =
            self.remotes.iter().filter(fresh).filter(|remote| Path::Udp(remote.address) != self.current);
        remotes.min_by_key(|remote| remote.rank()).map(|remote| remote.address)
    }

    fn move_to(&mut self, now: Instant, path: Path, reason: ChangeReason, setting: Setting) {
        self.last_change = Some(Change { at: now, from: self.current, to: path, reason });
        self.current = path;
        self.changes += 1;
        self.data = Data::default();
        self.set_limit(setting, &mut Vec::new());
        if matches!(path, Path::Udp(_)) {
            self.data.since = Some(now);
            self.data.heard = Some(now);
            self.birthday.is_found();
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

impl Search {
    fn new(now: Instant) -> Self {
        let ends = now + SEARCH;
        Self { began: now, ends, rounds: 0, told: None, predictions: 0, last: None, next: now }
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
/// The next ports of a NAT that counts are tried so often in one search: once more than a loss costs.
const PREDICTIONS: u32 = 2;
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
/// Data without any answer for so long calls for a check; with the tries it is left within a second.
const CHECK_AFTER: Duration = Duration::from_millis(300);
const CHECK_RETRY: Duration = Duration::from_millis(130);
const CHECK_TRIES: u32 = 4;
/// The first tries of a check go as frames with data do; if only the others are answered, segmentation is at fault.
const PAIR_TRIES: u32 = 2;
/// A path that carries long frames is asked so often whether it still does.
const CHECK_EVERY: Duration = Duration::from_secs(1);
