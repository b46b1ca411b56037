//! Who is there, under which handles they know each other, and what they send.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use mesh_wire::relay::{Bound, ClientMessage, Data, RelayMessage, Role, RosterBlob};
use mesh_wire::{NetId, NodeId};
use tokio::sync::mpsc::Sender;
use tokio_tungstenite::tungstenite::Message;

use crate::dice::Dice;
use crate::mischief::{Kind, Mischief, Mode};
use crate::pushes::Pushes;
use crate::say;

/// One datagram as it is to arrive.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) net: NetId,
    /// Whom the receiver is told that it comes from.
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) bytes: Vec<u8>,
}

/// A client and the handles that it was told.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) net: NetId,
    pub(crate) party: NodeId,
    pub(crate) role: Role,
    pub(crate) handles: BTreeMap<u32, NodeId>,
    outbox: Sender<Message>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Hub {
    clients: BTreeMap<u64, Client>,
    joined: u64,
    rosters: BTreeMap<NetId, (u64, Vec<u8>)>,
    mischief: Mischief,
    pushes: Pushes,
    done: u64,
    capture: File,
}

impl Hub {
    pub(crate) fn new(mode: Mode, kind: Option<Kind>, seed: u64, capture: &Path) -> Result<Self> {
        Ok(Self {
            clients: BTreeMap::new(),
            joined: 0,
            rosters: BTreeMap::new(),
            mischief: Mischief::new(mode, kind, Dice(seed)),
            pushes: Pushes::new(mode, Dice(!seed)),
            done: 0,
            capture: File::create(capture)?,
        })
    }

    pub(crate) fn join(&mut self, net: NetId, party: NodeId, role: Role, outbox: Sender<Message>) -> u64 {
        self.joined += 1;
        let client = Client { net, party, role, handles: BTreeMap::new(), outbox };
        if let Some((version, blob)) = self.rosters.get(&net).filter(|_| role == Role::Member) {
            client.send(&RelayMessage::Roster(RosterBlob { version: *version, blob }));
        }
        self.clients.insert(self.joined, client);
        self.presence(net, party, true);
        self.joined
    }

    pub(crate) fn leave(&mut self, number: u64) {
        let Some(client) = self.clients.remove(&number) else { return };
        if self.find(client.net, client.party).is_none() {
            self.presence(client.net, client.party, false);
        }
    }

    /// Takes a message of a client; returns what is to arrive later.
    pub(crate) fn handle(&mut self, number: u64, bytes: &[u8]) -> Result<Vec<(Duration, Delivery)>> {
        match ClientMessage::parse(bytes)? {
            ClientMessage::Bind(node) => self.bind(number, node),
            ClientMessage::Unbind(handle) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.handles.remove(&handle);
                }
            }
            ClientMessage::Ping(token) => {
                if let Some(client) = self.clients.get(&number) {
                    client.send(&RelayMessage::Pong(token));
                }
            }
            ClientMessage::RosterPut(roster) => self.put_roster(number, &roster)?,
            ClientMessage::Send(data) => return self.forward(number, &data),
            ClientMessage::Pong(_) | ClientMessage::Auth(_) | ClientMessage::UdpEnd => {}
        }
        Ok(Vec::new())
    }

    /// Sends what the mode sends unasked.
    pub(crate) fn push(&mut self) {
        let mut done = 0;
        for client in self.clients.values() {
            for message in self.pushes.for_client(client, self.rosters.get(&client.net)) {
                done += 1;
                client.push(message);
            }
        }
        self.count(done);
    }

    /// Brings a datagram to whoever is there under the receiver's id.
    pub(crate) fn deliver(&mut self, delivery: &Delivery) {
        let Some(to) = self.find(delivery.net, delivery.to) else { return };
        let Some(client) = self.clients.get_mut(&to) else { return };
        let handle = client.handle_of(delivery.from, true);
        let data = Data { handle, segment: None, payload: &delivery.bytes };
        client.send(&RelayMessage::Recv(data));
    }

    fn bind(&mut self, number: u64, node: NodeId) {
        let Some(net) = self.clients.get(&number).map(|client| client.net) else { return };
        let present = self.find(net, node).is_some();
        if let Some(client) = self.clients.get_mut(&number) {
            let handle = client.handle_of(node, present);
            client.send(&RelayMessage::Bound(Bound { node, handle, present }));
        }
    }

    fn put_roster(&mut self, number: u64, roster: &RosterBlob<'_>) -> Result<()> {
        let Some(net) = self.clients.get(&number).map(|client| client.net) else { return Ok(()) };
        self.capture.write_all(roster.blob)?;
        self.rosters.insert(net, (roster.version, roster.blob.to_vec()));
        for client in self.clients.values().filter(|client| client.net == net && client.role == Role::Member)
        {
            client.send(&RelayMessage::Roster(*roster));
        }
        Ok(())
    }

    fn forward(&mut self, number: u64, data: &Data<'_>) -> Result<Vec<(Duration, Delivery)>> {
        let Some(client) = self.clients.get(&number) else { return Ok(Vec::new()) };
        let Some(to) = client.handles.get(&data.handle).copied() else { return Ok(Vec::new()) };
        let (net, from) = (client.net, client.party);
        self.capture.write_all(data.payload)?;
        let segment = data.segment.map_or(data.payload.len(), usize::from);
        let (mut late, mut done) = (Vec::new(), 0);
        for datagram in data.payload.chunks(segment) {
            let original = Delivery { net, from, to, bytes: datagram.to_vec() };
            let (deliveries, did) = self.mischief.treat(original);
            done += u64::from(did);
            for (delay, delivery) in deliveries {
                if delay.is_zero() {
                    self.deliver(&delivery);
                } else {
                    late.push((delay, delivery));
                }
            }
        }
        self.count(done);
        Ok(late)
    }

    fn presence(&self, net: NetId, party: NodeId, present: bool) {
        for client in self.clients.values().filter(|client| client.net == net) {
            for (handle, _) in client.handles.iter().filter(|(_, node)| **node == party) {
                client.send(&if present {
                    RelayMessage::PeerPresent(*handle)
                } else {
                    RelayMessage::PeerGone(*handle)
                });
            }
        }
    }

    /// The newest connection of a party.
    fn find(&self, net: NetId, party: NodeId) -> Option<u64> {
        let mut found = self.clients.iter().filter(|(_, client)| client.net == net && client.party == party);
        found.next_back().map(|(number, _)| *number)
    }

    /// Says how often something was done, at the first times and whenever the number has doubled.
    fn count(&mut self, more: u64) {
        for _ in 0..more {
            self.done += 1;
            if self.done <= 64 || self.done.is_power_of_two() {
                say(&format!("mischief {}", self.done));
            }
        }
    }
}

impl Client {
    /// Returns the handle of a node, and tells it first where the client does not know it.
    fn handle_of(&mut self, node: NodeId, present: bool) -> u32 {
        if let Some((handle, _)) = self.handles.iter().find(|(_, known)| **known == node) {
            return *handle;
        }
        let handle = self.handles.keys().next_back().map_or(1, |last| last + 1);
        self.handles.insert(handle, node);
        self.send(&RelayMessage::Bound(Bound { node, handle, present }));
        handle
    }

    fn send(&self, message: &RelayMessage<'_>) {
        self.push(Message::Binary(message.encode().into()));
    }

    /// A client that does not read loses what does not fit.
    fn push(&self, message: Message) {
        let _ = self.outbox.try_send(message);
    }
}
