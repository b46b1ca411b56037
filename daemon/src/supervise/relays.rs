//! The clients of the relays: which are started and ended, and what is known of each.
//!
//! In: what the clients tell, relays that frames want, the list as it changes. Out: the same events with their relay,
//! and through pool and engine who is home. [`Choice`] decides, this file does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant as Moment};

use mesh_control::{RelaySource, RelayState, RelayStatus};
use mesh_identity::Identity;
use mesh_net::{RelayClient, RelayConfig, RelayEvent};
use mesh_wire::control::RelaysTold;
use mesh_wire::relay::Role;
use mesh_wire::{NetId, Pin};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::pending::{Pending, Taken};
use super::sinks::Sink;
use crate::engine::{Command, Inbox};
use crate::relays::RELAYS;
use crate::relays::choice::Choice;
use crate::relays::list::{Known, Source};
use crate::relays::pool::RelayPool;
use crate::relays::table::{Slot, Slots};

/// A relay that is neither home nor warm is left when it carried nothing for so long.
const IDLE: Duration = Duration::from_secs(30);
/// For peers that are nowhere all relays are tried, at most so often.
const SEARCH: Duration = Duration::from_secs(30);

/// As whom to connect.
pub(super) struct Credentials {
    pub(super) net: NetId,
    pub(super) identity: Arc<Identity>,
    pub(super) admission: Vec<u8>,
    /// Frames may go over UDP.
    pub(super) udp: bool,
}

/// What happened at the relays.
pub(super) enum RelaysEvent {
    /// The client of this relay told something.
    Told(Pin, RelayEvent),
    /// Frames want relays that have no client.
    Wanted(Slots),
    /// Something is due.
    Due,
    /// A client ended by itself, which none does.
    Ended,
}

/// All relays of the network.
pub(super) struct Relays {
    credentials: Credentials,
    pool: RelayPool,
    inbox: Arc<Inbox>,
    arrived: Arc<Notify>,
    entries: Vec<Entry>,
    choice: Choice,
    told: Vec<Pin>,
    searched: Option<Moment>,
    /// Whose events are taken next, so that a relay that tells much does not drown the others.
    turn: AtomicUsize,
    /// Host and port of home.
    home: watch::Sender<(String, u16)>,
}

struct Entry {
    known: Known,
    slot: Slot,
    client: Option<(RelayClient, Arc<Pending>)>,
    status: RelayStatus,
}

impl Relays {
    /// Starts a client for each relay of the list, which is not empty.
    pub(super) fn start(credentials: Credentials, list: Vec<Known>, inbox: Arc<Inbox>) -> Self {
        let first = list.first().map(address).unwrap_or_default();
        let mut relays = Self {
            credentials,
            pool: RelayPool::default(),
            inbox,
            arrived: Arc::new(Notify::new()),
            entries: Vec::new(),
            choice: Choice::default(),
            told: Vec::new(),
            searched: None,
            turn: AtomicUsize::new(0),
            home: watch::channel(first).0,
        };
        relays.set_list(list);
        relays
    }

    /// Takes a changed list: clients of relays that left it end, those of new ones start.
    pub(super) fn set_list(&mut self, list: Vec<Known>) {
        let now = Moment::now();
        let stays = |entry: &Entry| {
            list.iter().any(|known| known.pin == entry.known.pin && known.url == entry.known.url)
        };
        for entry in self.entries.extract_if(.., |entry| !stays(entry)) {
            self.pool.set_sender(entry.slot, None);
            self.pool.set_relay(entry.slot, None);
            for node in self.pool.lost(entry.slot) {
                self.inbox.command(Command::Presence(node, false));
            }
            self.choice.closed(now, &entry.known.pin);
        }
        let mut entries = std::mem::take(&mut self.entries);
        for known in list.into_iter().take(RELAYS) {
            let at = entries.iter().position(|entry| entry.known.pin == known.pin);
            let mut entry = match at {
                Some(at) => entries.swap_remove(at),
                None => self.entry(&entries, &known),
            };
            entry.status.source = source(known.source);
            entry.known = known;
            self.entries.push(entry);
        }
        let pins: Vec<Pin> = self.entries.iter().map(|entry| entry.known.pin).collect();
        self.choice.set_list(now, &pins);
        let several = self.entries.len() > 1;
        for (client, _) in self.entries.iter().filter_map(|entry| entry.client.as_ref()) {
            client.sender().set_several(several);
        }
        self.settle();
    }

    /// Takes a newer proof of membership, for connections to come.
    pub(super) fn set_admission(&mut self, admission: Vec<u8>) {
        for (client, _) in self.entries.iter().filter_map(|entry| entry.client.as_ref()) {
            client.set_admission(admission.clone());
        }
        self.credentials.admission = admission;
    }

    pub(super) fn pool(&self) -> RelayPool {
        self.pool.clone()
    }

    /// Host and port of the relay that is home, as it changes.
    pub(super) fn home_address(&self) -> watch::Receiver<(String, u16)> {
        self.home.subscribe()
    }

    /// Waits for the next event. Nothing is lost when the future is dropped.
    pub(super) async fn next(&self) -> RelaysEvent {
        let due = self.due();
        tokio::select! {
            event = self.next_told() => event,
            wants = self.pool.wanted() => RelaysEvent::Wanted(wants),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => RelaysEvent::Due,
        }
    }

    async fn next_told(&self) -> RelaysEvent {
        loop {
            for nth in 0..self.entries.len() {
                let at = (self.turn.load(Ordering::Relaxed) + nth) % self.entries.len();
                let entry = &self.entries[at];
                let Some((_, events)) = &entry.client else { continue };
                match events.take() {
                    Taken::Event(event) => {
                        self.turn.store(at + 1, Ordering::Relaxed);
                        return RelaysEvent::Told(entry.known.pin, event);
                    }
                    Taken::Ended => return RelaysEvent::Ended,
                    Taken::Nothing => {}
                }
            }
            self.arrived.notified().await;
        }
    }

    fn due(&self) -> Option<Instant> {
        let now = Moment::now();
        let spare = self.entries.iter().filter(|entry| entry.client.is_some());
        let spare = spare.filter(|entry| !self.choice.wants(now, &entry.known.pin));
        let idle = spare.filter_map(|entry| self.pool.idle_for(entry.slot, now));
        let closes = idle.map(|idle| now + IDLE.saturating_sub(idle).max(Duration::from_millis(100))).min();
        closes.into_iter().chain(self.choice.due(now)).min().map(Instant::from_std)
    }

    /// Does what is due.
    pub(super) fn timeout(&mut self) {
        self.choice.timeout(Moment::now());
        self.settle();
    }

    /// Connects to relays that frames want.
    pub(super) fn open_wanted(&mut self, wants: Slots) {
        for at in 0..self.entries.len() {
            if wants.has(self.entries[at].slot) {
                self.open(at);
            }
        }
        self.settle();
    }

    /// Looks for a peer that is nowhere at every relay.
    pub(super) fn search(&mut self) {
        let now = Moment::now();
        if self.searched.is_some_and(|at| now < at + SEARCH) {
            return;
        }
        self.searched = Some(now);
        for at in 0..self.entries.len() {
            self.open(at);
        }
    }

    /// Notes that a relay is connected and answers, or no longer.
    pub(super) fn set_up(&mut self, pin: &Pin, up: bool) {
        self.choice.set_up(Moment::now(), pin, up);
        self.settle();
    }

    /// Takes a round trip.
    pub(super) fn measured(&mut self, pin: &Pin, rtt: Duration) {
        self.choice.measured(Moment::now(), pin, rtt);
        self.settle();
    }

    pub(super) fn status_mut(&mut self, pin: &Pin) -> Option<&mut RelayStatus> {
        self.entries.iter_mut().find(|entry| entry.known.pin == *pin).map(|entry| &mut entry.status)
    }

    /// What is known of each relay, in the order of the list.
    pub(super) fn statuses(&self) -> Vec<RelayStatus> {
        self.entries.iter().map(|entry| entry.status.clone()).collect()
    }

    /// The relay that is home, or will be.
    pub(super) fn home(&self) -> Option<&RelayStatus> {
        let home = self.entries.iter().find(|entry| entry.status.home);
        home.or(self.entries.first()).map(|entry| &entry.status)
    }

    /// Tells whether any relay is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.entries.iter().any(|entry| entry.status.state == RelayState::Connected)
    }

    /// Tries at once whatever is not connected, and often from then on.
    pub(super) fn hurry(&self) {
        for (client, _) in self.entries.iter().filter_map(|entry| entry.client.as_ref()) {
            client.reconnect_now();
        }
    }

    /// Sends what is queued, for one second at most, and ends all connections.
    pub(super) async fn stop(self) {
        let clients = self.entries.into_iter().filter_map(|entry| entry.client);
        futures_util::future::join_all(clients.map(|(client, _)| client.stop())).await;
    }

    /// Makes an entry in the first place that is free.
    fn entry(&self, others: &[Entry], known: &Known) -> Entry {
        let taken = |slot: usize| self.entries.iter().chain(others).any(|entry| entry.slot.0 == slot);
        let slot =
            Slot((0..RELAYS).find(|slot| !taken(*slot)).expect("the list is no longer than the places"));
        self.pool.set_relay(slot, Some((known.pin, known.url.to_string())));
        let status = RelayStatus { url: known.url.to_string(), ..RelayStatus::default() };
        Entry { known: known.clone(), slot, client: None, status }
    }

    fn open(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        if entry.client.is_some() {
            return;
        }
        let config = RelayConfig {
            door: None,
            url: entry.known.url.clone(),
            pin: Some(entry.known.pin),
            role: Role::Member,
            net: self.credentials.net,
            identity: Arc::clone(&self.credentials.identity),
            admission: self.credentials.admission.clone(),
            udp: self.credentials.udp,
        };
        let events = Arc::new(Pending::new(Arc::clone(&self.arrived)));
        let sink = Sink {
            inbox: Arc::clone(&self.inbox),
            events: Arc::clone(&events),
            pool: self.pool.clone(),
            slot: entry.slot,
        };
        let client = RelayClient::start(config, Arc::new(sink));
        client.sender().set_several(self.entries.len() > 1);
        let entry = &mut self.entries[at];
        self.pool.set_sender(entry.slot, Some(client.sender()));
        entry.client = Some((client, events));
    }

    fn close(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        entry.client = None;
        let kept = RelayStatus { url: std::mem::take(&mut entry.status.url), ..RelayStatus::default() };
        entry.status = RelayStatus { source: entry.status.source, rtt_ms: entry.status.rtt_ms, ..kept };
        self.pool.set_sender(entry.slot, None);
        self.choice.closed(Moment::now(), &entry.known.pin);
        for node in self.pool.lost(entry.slot) {
            self.inbox.command(Command::Presence(node, false));
        }
        tracing::debug!(relay = %entry.status.url, "a relay that nobody uses is left");
    }

    /// Starts and ends clients, and tells pool, peers and people where home is.
    fn settle(&mut self) {
        let now = Moment::now();
        for at in 0..self.entries.len() {
            let (pin, slot) = (self.entries[at].known.pin, self.entries[at].slot);
            if self.choice.wants(now, &pin) {
                self.open(at);
            } else if self.pool.idle_for(slot, now).is_some_and(|idle| idle >= IDLE) {
                self.close(at);
            }
        }
        let (home, warm) = (self.choice.home(), self.choice.warm());
        let rank = |pin: &Pin| (Some(*pin) != home, Some(*pin) != warm);
        let mut order: Vec<_> =
            self.entries.iter().map(|entry| (rank(&entry.known.pin), entry.slot)).collect();
        order.sort_by_key(|(rank, _)| *rank);
        self.pool.set_order(order.into_iter().map(|(_, slot)| slot).collect());
        for entry in &mut self.entries {
            let is_home = home == Some(entry.known.pin);
            if is_home && !entry.status.home {
                tracing::info!(relay = %entry.status.url, "home relay");
            }
            entry.status.home = is_home;
            entry.status.warm = warm == Some(entry.known.pin);
            entry.status.rtt_ms = self.choice.rtt(&entry.known.pin).map(|rtt| rtt.as_secs_f64() * 1e3);
            if is_home {
                let address = address(&entry.known);
                self.home.send_if_modified(|known| std::mem::replace(known, address.clone()) != address);
            }
        }
        self.tell(home, warm);
    }

    /// Tells the peers where this node is; while there is no choice they know.
    fn tell(&mut self, home: Option<Pin>, warm: Option<Pin>) {
        let told: Vec<Pin> = home.into_iter().chain(warm).collect();
        if (self.entries.len() > 1 || !self.told.is_empty()) && self.told != told {
            self.told.clone_from(&told);
            self.inbox.command(Command::Relays(RelaysTold { list: told }));
        }
    }
}

fn address(known: &Known) -> (String, u16) {
    (known.url.host().to_owned(), known.url.port())
}

const fn source(source: Source) -> RelaySource {
    match source {
        Source::Roster => RelaySource::Roster,
        Source::Ticket => RelaySource::Ticket,
        Source::Config => RelaySource::Config,
    }
}
