//! The network's mailbox at every relay of the list.
//!
//! A node that joins knows the relay of its ticket, and a member that just comes up the relays that it has heard of: the
//! coordinator is at all of them, with the latest roster.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mesh_identity::Identity;
use mesh_net::{RelayClient, RelayConfig, RelaySender};
use mesh_wire::relay::Role;
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};
use tokio::task::JoinSet;

use crate::enrol::link::Link;
use crate::relays::list::Known;

/// The number of a mailbox; none is used twice.
pub(super) type Number = usize;

/// The connections as the network's root.
pub(super) struct Mailboxes {
    root: Arc<Identity>,
    net: NetId,
    link: Link,
    boxes: BTreeMap<Number, Mailbox>,
    order: Vec<Pin>,
    next: Number,
    roster: Option<(u64, Bytes)>,
    /// Clients of relays that left the list, which say goodbye.
    leaving: JoinSet<()>,
}

struct Mailbox {
    known: Known,
    client: RelayClient,
    sender: RelaySender,
}

impl Mailboxes {
    /// Connects to no relay yet; what comes goes to `link`.
    pub(super) fn new(root: Arc<Identity>, net: NetId, link: Link) -> Self {
        Self {
            root,
            net,
            link,
            boxes: BTreeMap::new(),
            order: Vec::new(),
            next: 0,
            roster: None,
            leaving: JoinSet::new(),
        }
    }

    /// Connects to the relays of the list and leaves others, once what is queued for them is sent.
    pub(super) fn set_list(&mut self, list: &[Known]) {
        let same = |a: &Known, b: &Known| a.pin == b.pin && a.url == b.url;
        let left = |mailbox: &Mailbox| !list.iter().any(|known| same(known, &mailbox.known));
        for (_, mailbox) in self.boxes.extract_if(.., |_, mailbox| left(mailbox)) {
            self.leaving.spawn(mailbox.client.stop());
        }
        while self.leaving.try_join_next().is_some() {}
        for known in list {
            if self.boxes.values().any(|mailbox| same(known, &mailbox.known)) {
                continue;
            }
            let config = RelayConfig {
                door: None,
                udp: true,
                url: known.url.clone(),
                pin: Some(known.pin),
                role: Role::Root,
                net: self.net,
                identity: Arc::clone(&self.root),
                admission: Vec::new(),
            };
            let client = RelayClient::start(config, Arc::new(self.link.of(self.next)));
            let sender = client.sender();
            if let Some((version, blob)) = &self.roster {
                sender.put_roster(*version, blob.clone());
            }
            self.boxes.insert(self.next, Mailbox { known: known.clone(), client, sender });
            self.next += 1;
        }
        self.order = list.iter().map(|known| known.pin).collect();
    }

    /// Gives every relay the roster for the members.
    pub(super) fn put_roster(&mut self, version: u64, blob: &Bytes) {
        for mailbox in self.boxes.values() {
            mailbox.sender.put_roster(version, blob.clone());
        }
        self.roster = Some((version, blob.clone()));
    }

    /// Sends to a guest at the relay where it is.
    pub(super) fn send(&self, number: Number, to: NodeId, message: &[u8]) {
        if let Some(mailbox) = self.boxes.get(&number) {
            // A guest begins anew where an answer stays away.
            let _ = mailbox.sender.send(to, BytesMut::from(message), None);
        }
    }

    /// Forgets a guest.
    pub(super) fn unbind(&self, number: Number, guest: NodeId) {
        if let Some(mailbox) = self.boxes.get(&number) {
            mailbox.sender.unbind(guest);
        }
    }

    /// Returns the relay where who joins finds this coordinator: the first of the list that is connected.
    pub(super) fn meeting_place(&self) -> Option<(RelayUrl, Pin)> {
        let of = |pin: &Pin| self.boxes.values().find(|mailbox| mailbox.known.pin == *pin);
        let mailboxes = || self.order.iter().filter_map(of);
        let mailbox = mailboxes().find(|mailbox| mailbox.sender.is_ready()).or_else(|| mailboxes().next())?;
        Some((mailbox.known.url.clone(), mailbox.known.pin))
    }

    /// Sends what is queued, for one second at most, and leaves.
    pub(super) async fn stop(self) {
        let clients = self.boxes.into_values().map(|mailbox| mailbox.client.stop());
        futures_util::future::join_all(clients).await;
    }
}
