//! Tells listeners how a peer stands when that changed.
//!
//! In: whose session, path or presence changed. Out: a `peer` event with the peer's status as it is a moment later.
//!
//! Changes of one peer within [`PAUSE`] become one event, no more than [`MOST`] events leave in that time, and nothing is
//! looked up while nobody listens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_control::EventKind;
use mesh_wire::NodeId;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Shared;
use crate::status;

/// From a change to its events, so that a session, its path and what the relay says of a peer come together.
const PAUSE: Duration = Duration::from_millis(200);
/// Events at once: a quarter of what a listener may fall behind.
const MOST: usize = super::EVENTS / 4;

/// The peers that listeners are to hear of; as many as there are members, at most.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    peers: Mutex<BTreeSet<NodeId>>,
    some: Notify,
}

impl Changed {
    /// Notes that a peer's session, path or presence changed.
    pub(super) fn put(&self, peer: NodeId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        self.some.notify_one();
    }

    /// Waits until there are changes, and a little longer; returns whose they are, as many as may be told at once.
    async fn next(&self) -> BTreeSet<NodeId> {
        self.some.notified().await;
        sleep(PAUSE).await;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = std::iter::from_fn(|| peers.pop_first()).take(MOST).collect();
        if !peers.is_empty() {
            self.some.notify_one();
        }
        next
    }
}

/// Sends the events, without end.
pub(super) async fn tell(shared: Arc<Shared>) {
    loop {
        let changed = shared.changed.next().await;
        if shared.events.receiver_count() == 0 {
            continue;
        }
        let Some(snapshot) = shared.snapshot().await else {
            // A node that is down has no peers that anything could be said of; one that is busy is asked again.
            if shared.inbox().is_some() {
                changed.into_iter().for_each(|peer| shared.changed.put(peer));
            }
            continue;
        };
        let view = shared.view().clone();
        let Some(membership) = &view.membership else { continue };
        let changed: BTreeSet<String> = changed.iter().map(NodeId::to_string).collect();
        for mut peer in status::peers(shared.own, &membership.roster, &view, Some(&snapshot)) {
            if changed.contains(&peer.node_id) {
                peer.software = shared.software(&peer.node_id);
                shared.event(EventKind::Peer { peer: Box::new(peer) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_that_come_together_are_told_once() {
        let changed = Changed::default();
        changed.put(NodeId([1; 32]));
        changed.put(NodeId([2; 32]));
        changed.put(NodeId([1; 32]));
        assert_eq!(changed.next().await, BTreeSet::from([NodeId([1; 32]), NodeId([2; 32])]));
        let idle = tokio::time::timeout(3 * PAUSE, changed.next()).await;
        assert!(idle.is_err(), "nothing changed");
    }

    #[tokio::test]
    async fn more_changes_than_may_be_told_at_once_are_told_later() {
        let changed = Changed::default();
        let all = 2 * MOST + 5;
        for number in 0..all {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            changed.put(NodeId(id));
        }
        let counts = [changed.next().await.len(), changed.next().await.len(), changed.next().await.len()];
        assert_eq!(counts, [MOST, MOST, 5]);
    }
}
