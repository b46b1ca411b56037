//! Drives a [`Hub`] by a script of bytes and checks what its clients are told; for the fuzz targets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_wire::relay::{ClientMessage, Data, ErrorCode, NO_HANDLE, RelayMessage, Role, RosterBlob};
use mesh_wire::{NetId, NodeId};

use super::{Hub, HubLimits, Member, Party, RosterLimits, may_reach};
use crate::outbox::Outbox;
use crate::queue::{Dropped, Next};

/// Lets clients of two networks come, go, bind and send as the script says.
///
/// # Panics
/// When a client is told something that it must not be told, or when something stays behind that nobody holds.
pub fn drive(script: &[u8]) {
    let mut world = World::new();
    let mut rest = script;
    for _ in 0..STEPS {
        let Some((step, behind)) = rest.split_first_chunk::<4>() else { break };
        rest = behind;
        match step[0] % 12 {
            0 | 1 => world.join(step[1], step[2]),
            2 => world.leave(step[1]),
            3 | 4 => world.say(step[1], &ClientMessage::Bind(world.node(step[1], step[2])).encode()),
            5 => world.say(step[1], &ClientMessage::Unbind(world.handle(step[1], step[2])).encode()),
            6 | 7 => world.send(step[1], step[2], step[3]),
            8 => {
                let (message, behind) = rest.split_at(rest.len().min(usize::from(step[2])));
                rest = behind;
                world.say(step[1], message);
            }
            9 => {
                let blob = vec![step[3]; usize::from(step[3]) * 8];
                let roster = RosterBlob { version: u64::from(step[2]), blob: &blob };
                world.say(step[1], &ClientMessage::RosterPut(roster).encode());
            }
            10 => world.read(step[1]),
            _ => world.now += Duration::from_millis(u64::from(step[2])),
        }
        world.check_bounds();
    }
    world.end();
}

struct World {
    hub: Hub,
    now: Instant,
    clients: BTreeMap<Party, Client>,
}

struct Client {
    member: Member,
    role: Role,
    outbox: Arc<Outbox>,
    /// Every handle that it was told on this connection.
    told: BTreeMap<u32, NodeId>,
    /// It was told that it was not told everything.
    overflowed: bool,
    ended: bool,
}

impl World {
    fn new() -> Self {
        Self { hub: Hub::new(LIMITS), now: Instant::now(), clients: BTreeMap::new() }
    }

    fn join(&mut self, who: u8, how: u8) {
        let role = match how % 4 {
            0 => Role::Guest,
            1 => Role::Root,
            _ => Role::Member,
        };
        let net = net_of(who);
        let party = (net, if role == Role::Root { net.as_party() } else { node_of(who) });
        let outbox = Arc::new(Outbox::default());
        let joined = self.hub.join(party, role, u64::from(how / 4 % 4), outbox.clone());
        let Ok(member) = joined else { return assert!(role == Role::Guest, "only guests wait") };
        let told = BTreeMap::new();
        self.clients.insert(party, Client { member, role, outbox, told, overflowed: false, ended: false });
        let guests = self.hub.census().guests;
        assert!(guests <= LIMITS.guests_per_network * 2, "{guests} guests");
    }

    fn leave(&mut self, who: u8) {
        if let Some(party) = self.party(who)
            && let Some(client) = self.clients.remove(&party)
        {
            self.hub.leave(client.member);
        }
    }

    /// Does what a connection does with a message of its client.
    fn say(&mut self, who: u8, bytes: &[u8]) {
        let Some(party) = self.party(who) else { return };
        let Some(client) = self.clients.get(&party) else { return };
        let (member, role) = (client.member, client.role);
        if client.ended || client.outbox.is_crowded() {
            return;
        }
        match ClientMessage::parse(bytes) {
            Ok(ClientMessage::Bind(node)) => self.hub.bind(member, node),
            Ok(ClientMessage::Unbind(handle)) => self.hub.unbind(member, handle),
            Ok(ClientMessage::Send(data)) => self.forward(party, &data),
            Ok(ClientMessage::RosterPut(roster)) if role == Role::Root => {
                let message = RelayMessage::Roster(roster).encode();
                let _ = self.hub.put_roster(member, roster.version, message.into());
            }
            Ok(ClientMessage::Ping(token)) => {
                client.outbox.control(&RelayMessage::Pong(token));
            }
            Ok(ClientMessage::Pong(_) | ClientMessage::RosterPut(_) | ClientMessage::UdpEnd) => {}
            Ok(ClientMessage::Auth(_)) | Err(_) => {
                client.outbox.close_with(ErrorCode::BadMessage, "the message cannot be read");
            }
        }
    }

    /// Sends data that names its sender.
    fn send(&mut self, who: u8, to: u8, length: u8) {
        let Some(party) = self.party(who) else { return };
        let payload = [&party.0.0[..1], &party.1.0[..1], &vec![length; usize::from(length) * 256]].concat();
        let data = Data { handle: self.handle(who, to), segment: None, payload: &payload };
        self.forward(party, &data);
    }

    fn forward(&mut self, from: Party, data: &Data<'_>) {
        let Some(client) = self.clients.get(&from) else { return };
        let (member, role) = (client.member, client.role);
        let named =
            data.payload.len() >= 2 && data.payload[0] == from.0.0[0] && data.payload[1] == from.1.0[0];
        if client.ended || !named {
            return;
        }
        let Ok(route) = self.hub.route(member, data.handle) else { return };
        let target = self.clients.values().find(|client| Arc::ptr_eq(&client.outbox, &route.outbox));
        if let Some(target) = target {
            assert_eq!(target.member.party.0, from.0, "data crosses from one network to another");
            assert!(may_reach(role, target.role), "data for whom the sender may not reach");
        }
        route.deliver(data, self.now);
    }

    /// Lets a client read all that waits for it.
    fn read(&mut self, who: u8) {
        if let Some(party) = self.party(who)
            && let Some(client) = self.clients.get_mut(&party)
        {
            client.read(self.now);
        }
    }

    /// The handle that the client was told at some time, or one that it was not told.
    fn handle(&self, who: u8, which: u8) -> u32 {
        let told = self.party(who).and_then(|party| self.clients.get(&party)).map(|client| &client.told);
        let known = told.and_then(|told| told.keys().nth(usize::from(which) % (told.len() + 1)));
        known.copied().unwrap_or_else(|| u32::from(which))
    }

    fn node(&self, who: u8, which: u8) -> NodeId {
        let net = net_of(who);
        if which.is_multiple_of(8) { net.as_party() } else { node_of(which) }
    }

    /// The client that the number stands for, if it is there: a mailbox or a node of one network.
    fn party(&self, who: u8) -> Option<Party> {
        let net = net_of(who);
        let parties = [(net, node_of(who)), (net, net.as_party())];
        let turned = usize::from(who >= 128);
        parties.into_iter().cycle().skip(turned).take(2).find(|party| self.clients.contains_key(party))
    }

    fn check_bounds(&self) {
        let census = self.hub.census();
        assert!(census.rosters <= LIMITS.rosters.count && census.roster_bytes <= LIMITS.rosters.bytes);
        let held: usize = self.hub.clients.values().map(|client| client.table.nodes().count()).sum();
        assert_eq!(self.hub.handles.count, held, "handles are counted wrongly");
        for client in self.hub.clients.values() {
            assert!(client.table.nodes().count() <= LIMITS.handles, "more handles than a client may have");
        }
    }

    /// When all have left, nothing but rosters stays.
    fn end(mut self) {
        for client in self.clients.values_mut() {
            client.read(self.now);
        }
        for client in std::mem::take(&mut self.clients).into_values() {
            self.hub.leave(client.member);
        }
        let hub = &self.hub;
        assert!(hub.clients.is_empty() && hub.networks.is_empty() && hub.guests.is_empty());
        assert_eq!((hub.watchers.len(), hub.handles.count), (0, 0), "what the clients held stays");
    }
}

impl Client {
    fn read(&mut self, now: Instant) {
        let mut bytes = 0;
        let mut gone = BTreeSet::new();
        loop {
            match self.outbox.pop(now, &mut Dropped::default()) {
                Next::Message(message) => {
                    bytes += message.len();
                    self.take(&message, &mut gone);
                }
                Next::Nothing => break,
                Next::Close => {
                    self.ended = true;
                    break;
                }
            }
        }
        assert!(bytes <= WAITING, "{bytes} bytes waited for one client");
    }

    fn take(&mut self, message: &[u8], gone: &mut BTreeSet<u32>) {
        match RelayMessage::parse(message).expect("a relay's messages can be read") {
            RelayMessage::Bound(bound) if bound.handle != NO_HANDLE => {
                assert_ne!(bound.node, self.member.party.1, "a client is bound to itself");
                let before = self.told.insert(bound.handle, bound.node);
                assert!(before.is_none_or(|node| node == bound.node), "a handle names another node");
            }
            RelayMessage::PeerGone(handle) | RelayMessage::PeerPresent(handle) => {
                gone.insert(handle);
                assert!(self.overflowed || self.told.contains_key(&handle), "presence of an untold handle");
            }
            RelayMessage::Error { code: ErrorCode::ControlOverflow, .. } => self.overflowed = true,
            RelayMessage::Recv(data) => {
                let Some(node) = self.told.get(&data.handle) else {
                    return assert!(self.overflowed, "data under an untold handle");
                };
                let (net, sender) = (data.payload[0], data.payload[1]);
                assert_eq!(net, self.member.party.0.0[0], "data of another network");
                assert_eq!(sender, node.0[0], "data under the handle of another node");
            }
            RelayMessage::Roster(_) => assert_eq!(self.role, Role::Member, "only members hear rosters"),
            RelayMessage::Bound(_)
            | RelayMessage::Pong(_)
            | RelayMessage::Ping(_)
            | RelayMessage::Error { .. }
            | RelayMessage::Health(_)
            | RelayMessage::Restarting { .. }
            | RelayMessage::Hello(_)
            | RelayMessage::Welcome(_)
            | RelayMessage::UdpOffer(_) => {}
        }
    }
}

fn net_of(who: u8) -> NetId {
    NetId([0xf0 | (who & 1); 32])
}

fn node_of(who: u8) -> NodeId {
    NodeId([who >> 1 & 7; 32])
}

const LIMITS: HubLimits = HubLimits {
    handles: 4,
    guest_handles: 1,
    handles_total: 20,
    guests_per_network: 3,
    guests_per_source: 2,
    rosters: RosterLimits { count: 1, bytes: 3000 },
};
/// Steps of one script.
const STEPS: usize = 400;
/// What may wait for one client: control messages, a roster, data, and a farewell.
const WAITING: usize = 64 * 1024 + 4096 + 256 * 1024 + 1024;
