//! A message's way through the relay without its sockets, for the benchmarks.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use mesh_wire::relay::{ClientMessage, Data, Role};
use mesh_wire::{NetId, NodeId};

use super::{Hub, HubLimits, Member, RosterLimits, Route};
use crate::outbox::Outbox;
use crate::queue::{Dropped, Next};

/// A network of members, one of which sends to another.
pub struct Forwarding {
    hub: Hub,
    sender: Member,
    handle: u32,
    /// As the sender's connection keeps it.
    route: Route,
    receiver: Arc<Outbox>,
    now: Instant,
}

impl Forwarding {
    /// Joins a sender, a receiver and so many others, and binds the first to the second.
    ///
    /// # Panics
    /// When the hub refuses, which it has no reason to.
    #[must_use]
    pub fn new(others: u64) -> Self {
        let mut hub = Hub::new(LIMITS);
        let mut join = |number: u64| {
            let outbox = Arc::new(Outbox::default());
            let joined = hub.join((NET, node(number)), Role::Member, number, Arc::clone(&outbox));
            (joined.expect("members need not wait"), outbox)
        };
        let (sender, _) = join(0);
        let (_, receiver) = join(1);
        for number in 0..others {
            join(2 + number);
        }
        hub.bind(sender, node(1));
        let handle = hub.clients.get(&sender.party).and_then(|client| client.table.handle(&node(1)));
        let handle = handle.expect("it was just bound");
        let route = hub.route(sender, handle).expect("the receiver is there");
        let forwarding = Self { hub, sender, handle, route, receiver, now: Instant::now() };
        // What the receiver was told before any data.
        while forwarding.read() > 0 {}
        forwarding
    }

    /// Returns a message of the sender with a frame of so many bytes.
    #[must_use]
    pub fn message(&self, len: usize) -> Vec<u8> {
        let payload = vec![0xa5; len];
        ClientMessage::Send(Data { handle: self.handle, segment: None, payload: &payload }).encode()
    }

    /// Asks for the route, as a connection does that has no good one for a handle; tells whether there is one.
    pub fn find_route(&mut self) -> bool {
        self.hub.route(self.sender, self.handle).is_ok()
    }

    /// Does with a message what a connection does that knows the route; tells whether it was queued.
    #[must_use]
    pub fn forward(&self, message: &[u8]) -> bool {
        match ClientMessage::parse(message) {
            Ok(ClientMessage::Send(data)) if self.route.is_good() => {
                self.route.deliver(&data, self.now) == Dropped::default()
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Takes what the receiver's connection writes next; returns how many bytes it has.
    #[must_use]
    pub fn read(&self) -> usize {
        match self.receiver.pop(self.now, &mut Dropped::default()) {
            Next::Message(message) => message.len(),
            Next::Nothing | Next::Close => 0,
        }
    }
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding").field("handle", &self.handle).finish_non_exhaustive()
    }
}

fn node(number: u64) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    NodeId(id)
}

const NET: NetId = NetId([0xf0; 32]);

const LIMITS: HubLimits = HubLimits {
    handles: 4096,
    guest_handles: 2,
    handles_total: 1_000_000,
    guests_per_network: 64,
    guests_per_source: 8,
    rosters: RosterLimits { count: 1, bytes: 3000 },
};
