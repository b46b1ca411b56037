//! The connections to relays as one: what the packet path sends through.
//!
//! In: frames for a peer. Out: the same, handed to the client of the relay that the `Table` names. A lock is taken for
//! each batch, as each client's queue does; no packet takes one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use mesh_net::{QueueFull, RelaySender, SendError};
use mesh_wire::{NodeId, Pin};
use meshrelay::{DoorCounts, DoorSender};
use tokio::sync::Notify;

use super::RELAYS;
use super::doors::{Beside, Doors, Sent};
use super::table::{Slot, Slots, Table};

type RoomHook = Arc<dyn Fn() + Send + Sync>;

/// Sends to other nodes through whichever relay suits, from any thread and without waiting.
#[derive(Clone, Default)]
pub struct RelayPool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wanted: Notify,
    doors_wanted: Notify,
    network_changed: Notify,
}

#[derive(Default)]
struct State {
    table: Table,
    senders: [Option<RelaySender>; RELAYS],
    /// The addresses of the relays, for people.
    urls: [String; RELAYS],
    /// Relays without a client that peers are at; told to the supervisor.
    wants: Slots,
    /// Datagrams that the kernel did not take, of clients that have ended.
    unsent: u64,
    room: Option<RoomHook>,
    doors: Doors,
}

impl RelayPool {
    /// Asks the relays for the node, on these connections and on all later ones.
    ///
    /// # Errors
    /// [`QueueFull`] when as many nodes are bound as a client may have.
    pub fn bind(&self, node: NodeId) -> Result<(), QueueFull> {
        let mut state = self.lock();
        if !state.table.bind(node) {
            return Ok(());
        }
        let mut full = Ok(());
        for sender in state.senders.iter().flatten() {
            full = full.and(sender.bind(node));
        }
        full
    }

    /// Queues frames for a node: where it is connected past the relays, else at the relay where it is reached best. `class` is
    /// the traffic class of their datagrams, if they leave as such. Without a connection the next attempt begins soon.
    ///
    /// # Errors
    /// [`SendError`]; the frames are dropped then.
    pub fn send(
        &self,
        to: NodeId,
        payload: BytesMut,
        segment: Option<u16>,
        class: u8,
    ) -> Result<(), SendError> {
        let mut state = self.lock();
        let payload = match state.doors.send(&to, payload, segment) {
            Sent::Yes(sent) => return sent,
            Sent::No(payload) => payload,
            Sent::Wanted(payload) => {
                self.shared.doors_wanted.notify_one();
                payload
            }
        };
        let way = state.table.way(&to, state.ready());
        let news = state.wants.or(way.wants);
        if std::mem::replace(&mut state.wants, news) != news {
            self.shared.wanted.notify_one();
        }
        if let Some(sender) = way.slot.and_then(|slot| state.senders[slot.0].as_ref()) {
            return sender.send_as(to, payload, segment, class);
        }
        // Somebody wants a connection: the clients hear of it. The frames go where an answer may come late.
        let mut senders = state.table.order().iter().filter_map(|slot| state.senders[slot.0].as_ref());
        let Some(first) = senders.next() else { return Err(SendError::Down) };
        let sent = first.send_as(to, payload, segment, class);
        for sender in senders {
            sender.wanted();
        }
        sent
    }

    /// Returns how many bytes of frames wait for the fullest of the relays that answer. Peers' doors do not count: a full one
    /// loses frames of its own peer, and holds up nobody else.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let state = self.lock();
        let ready = state.ready();
        let among = |slot: usize| ready.is_empty() || ready.has(Slot(slot));
        let senders = state.senders.iter().enumerate().filter(|(slot, _)| among(*slot));
        let relays = senders.filter_map(|(_, sender)| sender.as_ref());
        relays.map(RelaySender::queued_bytes).max().unwrap_or(0)
    }

    /// Returns how many datagrams for the relays' UDP ports the kernel did not take.
    #[must_use]
    pub fn udp_unsent(&self) -> u64 {
        let state = self.lock();
        state.unsent + state.senders.iter().flatten().map(RelaySender::udp_unsent).sum::<u64>()
    }

    /// Tells whether datagrams for a relay's UDP port leave one by one; see [`RelaySender::udp_goes_singly`].
    #[must_use]
    pub fn udp_goes_singly(&self) -> bool {
        self.lock().senders.iter().flatten().any(RelaySender::udp_goes_singly)
    }

    /// Sets the function that is called when there may be room again.
    ///
    /// It must not block.
    pub fn on_room(&self, hook: impl Fn() + Send + Sync + 'static) {
        let hook: RoomHook = Arc::new(hook);
        let mut state = self.lock();
        for sender in state.senders.iter().flatten() {
            let hook = Arc::clone(&hook);
            sender.on_room(move || hook());
        }
        state.room = Some(hook);
    }

    /// Says that the machine's network changed; see [`RelaySender::network_changed`].
    pub fn network_changed(&self) {
        self.shared.network_changed.notify_one();
        let state = self.lock();
        state.senders.iter().flatten().chain(state.doors.senders()).for_each(RelaySender::network_changed);
    }

    /// Has the round trip to every connected relay measured at once.
    pub fn measure(&self) {
        self.lock().senders.iter().flatten().for_each(RelaySender::measure);
    }

    /// Takes where a peer says it is; relays that this node does not know are left out.
    pub fn told(&self, peer: NodeId, relays: &[Pin]) {
        let left_out = self.lock().table.set_homes(peer, relays);
        tracing::debug!(peer = %peer.short(), left_out, "a peer says at which relays it is");
    }

    /// Gives a place to a relay, or takes it back.
    pub(crate) fn set_relay(&self, slot: Slot, relay: Option<(Pin, String)>) {
        let mut state = self.lock();
        state.table.set_relay(slot, relay.as_ref().map(|(pin, _)| *pin));
        state.urls[slot.0] = relay.map(|(_, url)| url).unwrap_or_default();
    }

    /// Puts a client in its place, and has it ask for every peer; or takes it out.
    pub(crate) fn set_sender(&self, slot: Slot, sender: Option<RelaySender>) {
        let mut state = self.lock();
        state.table.set_open(slot, sender.is_some());
        state.wants = state.wants.without(slot);
        if let Some(sender) = &sender {
            for node in state.table.bound() {
                // As for the clients before: beyond the limit nobody is asked for.
                let _ = sender.bind(node);
            }
            if let Some(hook) = state.room.clone() {
                sender.on_room(move || hook());
            }
        }
        let before = std::mem::replace(&mut state.senders[slot.0], sender);
        state.unsent += before.map_or(0, |before| before.udp_unsent());
    }

    /// Sets in which order relays are used that are as good for a peer.
    pub(crate) fn set_order(&self, order: Vec<Slot>) {
        self.lock().table.set_order(order);
    }

    /// Takes what a relay says of a peer; see [`Table::presence`].
    pub(crate) fn presence(&self, slot: Slot, node: NodeId, present: bool) -> Option<bool> {
        self.lock().table.presence(slot, node, present)
    }

    /// Forgets who is at a relay whose connection ended, and returns who is at no other.
    pub(crate) fn lost(&self, slot: Slot) -> Vec<NodeId> {
        let mut state = self.lock();
        let others = !state.ready().without(slot).is_empty();
        let gone = state.table.lost(slot, others);
        // Where a peer that is gone said it would be, it is looked for.
        let ready = state.ready();
        let wants =
            gone.iter().fold(Slots::default(), |all, node| all.or(state.table.way(node, ready).wants));
        state.wants = state.wants.or(wants);
        if !wants.is_empty() {
            self.shared.wanted.notify_one();
        }
        gone
    }

    /// Returns the relay that carries frames to a peer.
    pub(crate) fn carries(&self, peer: &NodeId) -> Option<String> {
        let state = self.lock();
        let slot = state.table.way(peer, state.ready()).slot?;
        Some(state.urls[slot.0].clone())
    }

    /// Returns where a peer says it is, home first.
    pub(crate) fn homes(&self, peer: &NodeId) -> Vec<String> {
        let state = self.lock();
        let slots = state.table.homes(peer).iter().filter_map(|pin| state.table.slot(pin));
        slots.map(|slot| state.urls[slot.0].clone()).collect()
    }

    /// Waits until frames want a relay that has no client, and returns those relays, once.
    pub(crate) async fn wanted(&self) -> Slots {
        loop {
            let wants = std::mem::take(&mut self.lock().wants);
            if !wants.is_empty() {
                return wants;
            }
            self.shared.wanted.notified().await;
        }
    }

    /// Returns how long a relay has carried nothing.
    pub(crate) fn idle_for(&self, slot: Slot, now: Instant) -> Option<std::time::Duration> {
        Some(self.lock().senders[slot.0].as_ref()?.idle_for(now))
    }

    /// Opens or closes the own door. Returns who was there and is not any more.
    pub(crate) fn set_own_door(&self, own: Option<DoorSender>) -> Vec<NodeId> {
        self.lock().doors.set_own(own)
    }

    /// Takes that a peer is at the own door, and from where, or is not any more.
    pub(crate) fn set_guest(&self, node: NodeId, from: Option<SocketAddr>) {
        self.lock().doors.set_guest(node, from);
    }

    /// Puts a client of a peer's door in its place, and has it ask for the peer; or takes it out.
    pub(crate) fn set_door(&self, node: NodeId, sender: Option<RelaySender>) {
        let mut state = self.lock();
        if let Some(sender) = &sender {
            // One node is never too many.
            let _ = sender.bind(node);
            sender.set_several(true);
        }
        state.doors.set_theirs(node, sender);
    }

    /// Takes that the connection to a peer's door stands, and where that is, or that it ended.
    pub(crate) fn set_door_connected(&self, node: NodeId, address: Option<SocketAddr>) {
        self.lock().doors.set_connected(node, address);
    }

    /// Takes whether a peer is behind its door.
    pub(crate) fn set_door_present(&self, node: NodeId, present: bool) {
        self.lock().doors.set_present(node, present);
    }

    /// Says whether frames for a peer should lead to a connection to its door.
    pub(crate) fn set_door_wished(&self, node: NodeId, wished: bool) {
        self.lock().doors.set_wished(node, wished);
    }

    /// Waits until there are frames for peers whose door should be dialled, and returns these, once.
    pub(crate) async fn doors_wanted(&self) -> BTreeSet<NodeId> {
        loop {
            let wanted = self.lock().doors.take_wanted();
            if !wanted.is_empty() {
                return wanted;
            }
            self.shared.doors_wanted.notified().await;
        }
    }

    /// Waits for a change of the machine's network.
    pub(crate) async fn network_changes(&self) {
        self.shared.network_changed.notified().await;
    }

    /// Returns for how long nothing went through a peer's door; none without a client of it.
    pub(crate) fn door_idle_for(&self, node: &NodeId, now: Instant) -> Option<std::time::Duration> {
        self.lock().doors.idle_for(node, now)
    }

    /// Returns what carries frames for a peer past the relays.
    pub(crate) fn beside(&self, node: &NodeId) -> Option<Beside> {
        self.lock().doors.beside(node)
    }

    /// Returns what was counted at the own door, while it is open.
    pub(crate) fn door_counts(&self) -> Option<DoorCounts> {
        self.lock().doors.own().map(DoorSender::counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ready(&self) -> Slots {
        let ready = |sender: &Option<RelaySender>| sender.as_ref().is_some_and(RelaySender::is_ready);
        let slots = self.senders.iter().enumerate().filter(|(_, sender)| ready(sender));
        slots.fold(Slots::default(), |all, (slot, _)| all.with(Slot(slot)))
    }
}

impl fmt::Debug for RelayPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayPool").finish_non_exhaustive()
    }
}
