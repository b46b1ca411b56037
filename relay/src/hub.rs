//! Who is connected, who is bound to whom, who may reach whom, and the sealed rosters. No socket, no clock.
//!
//! In: joining and leaving clients, their BINDs, UNBINDs and rosters. Out: control messages in the clients' outboxes,
//! and routes that connections cache so that forwarding does not come here.
//!
//! Invariants: nothing crosses from one network to another; a guest reaches the mailbox of its network only, and only
//! the mailbox reaches a guest; a client is told a handle before anything arrives under it; a handle is not given
//! out again for 65,536 uses of its place; whoever holds a handle for a node is told when the node comes and goes.

#[cfg(feature = "bench")]
pub(crate) mod bench;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod roster;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use mesh_wire::relay::{Bound, Data, Direction, ErrorCode, NO_HANDLE, RelayMessage, Role};
use mesh_wire::{NetId, NodeId};

use crate::outbox::Outbox;
use crate::queue::Dropped;
use crate::udp;
use roster::Rosters;
pub(crate) use roster::{PutError, RosterLimits};
use table::{Table, Total};

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Hub {
    clients: HashMap<Party, Client>,
    /// Who holds a handle for a party, connected or not.
    watchers: HashMap<Party, BTreeSet<NodeId>>,
    /// The guests of each network by connection, hence the oldest first, with the source of each.
    guests: HashMap<NetId, BTreeMap<u64, (NodeId, u64)>>,
    /// The clients of each network: what concerns one network costs the others nothing.
    networks: HashMap<NetId, BTreeSet<NodeId>>,
    rosters: Rosters,
    handles: Total,
    limits: HubLimits,
    next_connection: u64,
    /// Grows with every join, so that a connection can remember who is absent.
    joins: Arc<AtomicU64>,
    /// The one whom alone the others may reach, of a hub behind a door.
    host: Option<NodeId>,
}

/// What a [`Hub`] holds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HubLimits {
    /// Handles of one Member or Root.
    pub(crate) handles: usize,
    /// Handles of one Guest.
    pub(crate) guest_handles: usize,
    /// Handles of all clients together; beyond it a client has 64 at most.
    pub(crate) handles_total: usize,
    /// Guests of one network at a time.
    pub(crate) guests_per_network: usize,
    /// Guests of one network and one source.
    pub(crate) guests_per_source: usize,
    /// The kept rosters.
    pub(crate) rosters: RosterLimits,
}

/// A node, or a network's mailbox, within its network.
pub(crate) type Party = (NetId, NodeId);

/// Names one connection of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Whose connection it is.
    pub(crate) party: Party,
    /// Tells it from earlier and later connections of the same party.
    pub(crate) connection: u64,
}

/// Where data for a handle goes.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Of the destination.
    pub(crate) outbox: Arc<Outbox>,
    /// The destination's handle for the sender.
    pub(crate) handle: u32,
    /// The destination at the UDP port.
    pub(crate) udp: Option<Arc<udp::Client>>,
    /// The route is good while the outbox has this epoch.
    pub(crate) epoch: u32,
}

impl Route {
    /// Queues data for the destination, under its handle for the sender.
    pub(crate) fn deliver(&self, data: &Data<'_>, now: Instant) -> Dropped {
        let out = Data { handle: self.handle, ..*data };
        // A copy of the exact size: a view would keep the whole read buffer alive while it waits.
        let mut message = Vec::with_capacity(out.header_len() + out.payload.len());
        out.write(&mut message, Direction::Recv);
        self.outbox.data(self.handle, Bytes::from(message), now)
    }

    /// Tells whether the destination still has the handle.
    pub(crate) fn is_good(&self) -> bool {
        self.outbox.epoch() == self.epoch
    }
}

/// Why data is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// The sender has no such handle.
    UnknownHandle,
    /// The destination is not connected here.
    Absent,
    /// The sender may not reach the destination.
    NotPermitted,
    /// The destination has no handle or no room to be told one.
    Unwilling,
}

/// The network has as many guests of one source as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyGuests;

#[derive(Debug)]
struct Client {
    connection: u64,
    role: Role,
    outbox: Arc<Outbox>,
    table: Table,
    udp: Option<Arc<udp::Client>>,
}

impl Hub {
    pub(crate) fn new(limits: HubLimits) -> Self {
        Self {
            clients: HashMap::new(),
            watchers: HashMap::new(),
            guests: HashMap::new(),
            networks: HashMap::new(),
            rosters: Rosters::new(limits.rosters),
            handles: Total { count: 0, limit: limits.handles_total },
            limits,
            next_connection: 0,
            joins: Arc::default(),
            host: None,
        }
    }

    /// From here on clients reach `host` alone, and it them.
    pub(crate) fn guard(&mut self, host: NodeId) {
        self.host = Some(host);
    }

    /// Ends the connections of all who may not stay.
    pub(crate) fn end(&self, stays: impl Fn(&Party) -> bool) {
        for (_, client) in self.clients.iter().filter(|(party, _)| !stays(party)) {
            client.outbox.close_with(ErrorCode::NotAdmitted, "membership ended");
        }
    }

    fn is_closed(&self, one: NodeId, other: NodeId) -> bool {
        self.host.is_some_and(|host| host != one && host != other)
    }

    /// Adds a client. An older connection of the same party is ended; its peers keep their handles.
    ///
    /// `source` stands for the client's address. The oldest guest makes room for a new one: silent ones would
    /// keep all others out.
    pub(crate) fn join(
        &mut self,
        party: Party,
        role: Role,
        source: u64,
        outbox: Arc<Outbox>,
    ) -> Result<Member, TooManyGuests> {
        if role == Role::Guest {
            self.make_room(party, source)?;
        }
        if let Some(old) = self.remove(party) {
            old.outbox.close_with(ErrorCode::Replaced, "a newer connection with the same keys took over");
        }
        let handles = if role == Role::Guest { self.limits.guest_handles } else { self.limits.handles };
        self.next_connection += 1;
        let connection = self.next_connection;
        if role == Role::Member
            && let Some(message) = self.rosters.get(&party.0)
        {
            outbox.roster(message);
        }
        self.clients
            .insert(party, Client { connection, role, outbox, table: Table::new(handles), udp: None });
        self.networks.entry(party.0).or_default().insert(party.1);
        if role == Role::Guest {
            self.guests.entry(party.0).or_default().insert(connection, (party.1, source));
        }
        self.joins.fetch_add(1, Ordering::AcqRel);
        // A newer connection may be that of a node that was started anew: its peers are told either way.
        self.tell_watchers(party, role, true);
        Ok(Member { party, connection })
    }

    /// Removes a client, unless a newer connection has taken its place.
    pub(crate) fn leave(&mut self, member: Member) {
        if self.clients.get(&member.party).is_none_or(|client| client.connection != member.connection) {
            return;
        }
        if let Some(client) = self.remove(member.party) {
            client.outbox.close(None);
            self.tell_watchers(member.party, client.role, false);
        }
    }

    /// Notes that the client may be reached over UDP.
    pub(crate) fn set_udp(&mut self, member: Member, udp: Arc<udp::Client>) {
        if let Some(client) = current(&mut self.clients, member) {
            client.udp = Some(udp);
            client.outbox.void_routes();
        }
    }

    /// Takes BIND: answers with BOUND, which refuses the binding where the client may not have it.
    pub(crate) fn bind(&mut self, member: Member, node: NodeId) {
        let target = (member.party.0, node);
        let target_role = self.clients.get(&target).map(|client| client.role);
        let closed = self.is_closed(member.party.1, node);
        let Some(client) = current(&mut self.clients, member) else { return };
        let refusal = if node == member.party.1 || closed || !may_bind(client.role, target) {
            Some((ErrorCode::NotPermitted, "this client may not reach that node"))
        } else if client.table.open(node, true, &mut self.handles).is_none() {
            Some((ErrorCode::TooManyHandles, "this client has as many handles as it may have"))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            client.outbox.control(&RelayMessage::Bound(Bound { node, handle: NO_HANDLE, present: false }));
            client.outbox.control(&RelayMessage::Error { code, text });
            return;
        }
        let handle = client.table.handle(&node).unwrap_or(NO_HANDLE);
        let present = target_role.is_some_and(|role| may_reach(client.role, role));
        client.outbox.control(&RelayMessage::Bound(Bound { node, handle, present }));
        self.watchers.entry(target).or_default().insert(member.party.1);
    }

    /// Takes UNBIND.
    pub(crate) fn unbind(&mut self, member: Member, handle: u32) {
        let Some(client) = current(&mut self.clients, member) else { return };
        if let Some(node) = client.table.node(handle) {
            client.table.release(handle, &mut self.handles);
            client.outbox.void_routes();
            self.unwatch((member.party.0, node), member.party.1);
        }
    }

    /// Takes a handle back whose node is not there. Returns whether it did.
    pub(crate) fn unbind_absent(&mut self, member: Member, handle: u32) -> bool {
        let node = current(&mut self.clients, member).and_then(|client| client.table.node(handle));
        let absent = node.is_some_and(|node| !self.clients.contains_key(&(member.party.0, node)));
        if absent {
            self.unbind(member, handle);
        }
        absent
    }

    /// Tells whether a client has a handle for a node.
    pub(crate) fn holds(&mut self, member: Member, node: NodeId) -> bool {
        current(&mut self.clients, member).is_some_and(|client| client.table.handle(&node).is_some())
    }

    /// Finds where data under this handle goes; tells the destination a handle for the sender if it has none.
    pub(crate) fn route(&mut self, member: Member, handle: u32) -> Result<Route, NoRoute> {
        let client = current(&mut self.clients, member).ok_or(NoRoute::UnknownHandle)?;
        let (role, node) = (client.role, client.table.node(handle).ok_or(NoRoute::UnknownHandle)?);
        let closed = self.is_closed(member.party.1, node);
        let destination = self.clients.get_mut(&(member.party.0, node)).ok_or(NoRoute::Absent)?;
        if closed || !may_reach(role, destination.role) {
            return Err(NoRoute::NotPermitted);
        }
        let sender = member.party.1;
        let handle = match destination.table.handle(&sender) {
            Some(handle) => handle,
            None => {
                let handle = destination.table.open(sender, false, &mut self.handles);
                let handle = handle.ok_or(NoRoute::Unwilling)?;
                let bound = Bound { node: sender, handle, present: true };
                if !destination.outbox.control(&RelayMessage::Bound(bound)) {
                    destination.table.release(handle, &mut self.handles);
                    return Err(NoRoute::Unwilling);
                }
                self.watchers.entry(member.party).or_default().insert(node);
                handle
            }
        };
        let outbox = destination.outbox.clone();
        Ok(Route { handle, udp: destination.udp.clone(), epoch: outbox.epoch(), outbox })
    }

    /// Keeps a roster and passes it on to the members of the network.
    pub(crate) fn put_roster(
        &mut self,
        member: Member,
        version: u64,
        message: Bytes,
    ) -> Result<(), PutError> {
        let net = member.party.0;
        let networks = &self.networks;
        let changed = self.rosters.put(net, version, message.clone(), |net| networks.contains_key(net))?;
        if changed {
            let nodes = self.networks.get(&net).into_iter().flatten();
            for client in nodes.filter_map(|node| self.clients.get(&(net, *node))) {
                if client.role == Role::Member {
                    client.outbox.roster(message.clone());
                }
            }
        }
        Ok(())
    }

    /// Ends all connections after a RESTARTING.
    pub(crate) fn restart(&self, min_ms: u32, max_ms: u32) {
        for client in self.clients.values() {
            client.outbox.close(Some(&RelayMessage::Restarting { min_ms, max_ms }));
        }
    }

    /// Returns the count of joins so far, which a connection may read without coming here.
    pub(crate) fn joins(&self) -> Arc<AtomicU64> {
        self.joins.clone()
    }

    /// Counts clients by role, networks with clients, kept rosters and their bytes.
    pub(crate) fn census(&self) -> Census {
        let count = |role| self.clients.values().filter(|client| client.role == role).count();
        Census {
            members: count(Role::Member),
            roots: count(Role::Root),
            guests: count(Role::Guest),
            networks: self.networks.len(),
            rosters: self.rosters.count(),
            roster_bytes: self.rosters.bytes(),
        }
    }

    /// Sends the oldest guest of a full network away. A source with many guests has to wait for these.
    fn make_room(&mut self, (net, node): Party, source: u64) -> Result<(), TooManyGuests> {
        let HubLimits { guests_per_network, guests_per_source, .. } = self.limits;
        let guests = self.guests.get(&net);
        let others = || guests.into_iter().flat_map(BTreeMap::values).filter(|(other, _)| *other != node);
        if guests_per_network == 0 || others().filter(|(_, of)| *of == source).count() >= guests_per_source {
            return Err(TooManyGuests);
        }
        if others().count() < guests_per_network {
            return Ok(());
        }
        let oldest = others().next().map(|(oldest, _)| (net, *oldest));
        if let Some(oldest) = oldest
            && let Some(guest) = self.remove(oldest)
        {
            guest.outbox.close_with(ErrorCode::Busy, "another node that enrols takes this place, try again");
            self.tell_watchers(oldest, Role::Guest, false);
        }
        Ok(())
    }

    /// Takes a client out of all counts and out of the watchers of others.
    fn remove(&mut self, party: Party) -> Option<Client> {
        let client = self.clients.remove(&party)?;
        for node in client.table.nodes() {
            self.unwatch((party.0, node), party.1);
            self.handles.count -= 1;
        }
        if let Some(nodes) = self.networks.get_mut(&party.0) {
            nodes.remove(&party.1);
            if nodes.is_empty() {
                self.networks.remove(&party.0);
            }
        }
        if let Some(guests) = self.guests.get_mut(&party.0) {
            guests.remove(&client.connection);
            if guests.is_empty() {
                self.guests.remove(&party.0);
            }
        }
        Some(client)
    }

    fn unwatch(&mut self, target: Party, watcher: NodeId) {
        if let Some(watchers) = self.watchers.get_mut(&target) {
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.watchers.remove(&target);
            }
        }
    }

    /// Sends PEER_PRESENT or PEER_GONE to everyone who holds a handle; the latter ends handles that nobody asked for.
    fn tell_watchers(&mut self, party: Party, role: Role, present: bool) {
        let Some(watchers) = self.watchers.get(&party) else { return };
        let mut ended = Vec::new();
        for &node in watchers {
            let Some(watcher) = self.clients.get_mut(&(party.0, node)) else { continue };
            let Some(handle) = watcher.table.handle(&party.1) else { continue };
            if !may_reach(watcher.role, role) {
                continue;
            }
            if present {
                watcher.outbox.control(&RelayMessage::PeerPresent(handle));
                continue;
            }
            watcher.outbox.control(&RelayMessage::PeerGone(handle));
            if !watcher.table.is_asked(handle) {
                watcher.table.release(handle, &mut self.handles);
                watcher.outbox.void_routes();
                ended.push(node);
            }
        }
        for node in ended {
            self.unwatch(party, node);
        }
    }
}

/// Numbers for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) members: usize,
    pub(crate) roots: usize,
    pub(crate) guests: usize,
    pub(crate) networks: usize,
    pub(crate) rosters: usize,
    pub(crate) roster_bytes: usize,
}

fn current(clients: &mut HashMap<Party, Client>, member: Member) -> Option<&mut Client> {
    clients.get_mut(&member.party).filter(|client| client.connection == member.connection)
}

const fn may_reach(from: Role, to: Role) -> bool {
    match (from, to) {
        (Role::Member, Role::Member | Role::Root) | (Role::Root, Role::Member | Role::Guest) => true,
        (Role::Guest, Role::Root) => true,
        (Role::Guest, Role::Guest | Role::Member)
        | (Role::Member, Role::Guest)
        | (Role::Root, Role::Root) => false,
    }
}

/// A guest names the mailbox only, so that it cannot probe which nodes are present.
fn may_bind(role: Role, (net, node): Party) -> bool {
    match role {
        Role::Member | Role::Root => true,
        Role::Guest => node == net.as_party(),
    }
}

#[cfg(test)]
mod tests;
