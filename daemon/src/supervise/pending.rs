//! What a relay client said and the supervisor has not taken yet.
//!
//! Of each kind only the latest is kept, so the memory is bounded and no kind crowds out another: who came and went does
//! not push out that the connection is up, or a roster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh_net::RelayEvent;
use mesh_wire::NodeId;
use mesh_wire::limits::ROSTER_NODES;
use tokio::sync::Notify;

/// The latest events of a relay client.
#[derive(Debug, Default)]
pub(super) struct Pending {
    latest: Mutex<Latest>,
    /// Shared by all relay clients of a node.
    arrived: Arc<Notify>,
}

/// What [`Pending::take`] finds.
#[derive(Debug)]
pub(super) enum Taken {
    Event(RelayEvent),
    Nothing,
    /// The relay client ended.
    Ended,
}

#[derive(Debug, Default)]
struct Latest {
    state: Option<RelayEvent>,
    roster: Option<(u64, Bytes)>,
    peers: BTreeMap<NodeId, bool>,
    notice: Option<String>,
    /// Whether frames go over UDP.
    udp: Option<bool>,
    suspect: Option<bool>,
    rtt: Option<Duration>,
    ended: bool,
}

impl Pending {
    /// Keeps an event in place of an older one of its kind.
    pub(super) fn put(&self, event: RelayEvent) {
        self.lock().put(event);
        self.arrived.notify_one();
    }

    /// Says that the relay client ended and that nothing more comes.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Makes one that wakes whoever waits for `arrived`.
    pub(super) fn new(arrived: Arc<Notify>) -> Self {
        Self { arrived, ..Self::default() }
    }

    /// Takes the next event, if there is one.
    pub(super) fn take(&self) -> Taken {
        let mut latest = self.lock();
        match latest.take() {
            Some(event) => Taken::Event(event),
            None if latest.ended => Taken::Ended,
            None => Taken::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    fn put(&mut self, event: RelayEvent) {
        match event {
            // Why the last attempt failed says more than that the next one begins.
            RelayEvent::Connecting if matches!(self.state, Some(RelayEvent::Down { .. })) => {}
            RelayEvent::Connecting | RelayEvent::Up { .. } => {
                (self.udp, self.suspect, self.rtt) = (None, None, None);
                self.state = Some(event);
            }
            RelayEvent::Udp(udp) => self.udp = Some(udp),
            RelayEvent::Suspect(suspect) => self.suspect = Some(suspect),
            RelayEvent::Rtt(rtt) => self.rtt = Some(rtt),
            RelayEvent::Down { .. } => {
                // Who was there is unknown from here on.
                self.peers.clear();
                (self.udp, self.suspect, self.rtt) = (None, None, None);
                self.state = Some(event);
            }
            RelayEvent::Peer { node, present } => {
                if self.peers.len() < ROSTER_NODES || self.peers.contains_key(&node) {
                    self.peers.insert(node, present);
                }
            }
            RelayEvent::Roster { version, blob } => self.roster = Some((version, blob)),
            RelayEvent::Notice(text) => self.notice = Some(text),
        }
    }

    /// Takes the state before the roster before the peers, who may be in it only.
    fn take(&mut self) -> Option<RelayEvent> {
        if let Some(state) = self.state.take() {
            return Some(state);
        }
        if let Some(udp) = self.udp.take() {
            return Some(RelayEvent::Udp(udp));
        }
        if let Some(suspect) = self.suspect.take() {
            return Some(RelayEvent::Suspect(suspect));
        }
        if let Some(rtt) = self.rtt.take() {
            return Some(RelayEvent::Rtt(rtt));
        }
        if let Some((version, blob)) = self.roster.take() {
            return Some(RelayEvent::Roster { version, blob });
        }
        if let Some((node, present)) = self.peers.pop_first() {
            return Some(RelayEvent::Peer { node, present });
        }
        self.notice.take().map(RelayEvent::Notice)
    }
}

#[cfg(test)]
mod tests {
    use mesh_net::RelayError;

    use super::*;

    impl Pending {
        /// Waits for an event and takes it; none when the relay client ended.
        async fn next(&self) -> Option<RelayEvent> {
            loop {
                match self.take() {
                    Taken::Event(event) => return Some(event),
                    Taken::Ended => return None,
                    Taken::Nothing => self.arrived.notified().await,
                }
            }
        }
    }

    fn node(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        NodeId(id)
    }

    fn down() -> RelayEvent {
        RelayEvent::Down { reason: RelayError::Closed, retry_in: Duration::ZERO }
    }

    fn up() -> RelayEvent {
        RelayEvent::Up { observed: "127.0.0.1:1".parse().unwrap(), relay: None, connect_time: Duration::ZERO }
    }

    fn peer(number: usize, present: bool) -> RelayEvent {
        RelayEvent::Peer { node: node(number), present }
    }

    fn roster(version: u64) -> RelayEvent {
        RelayEvent::Roster { version, blob: Bytes::new() }
    }

    #[tokio::test]
    async fn flood_of_presence_loses_neither_state_nor_roster() {
        let pending = Pending::default();
        pending.put(up());
        pending.put(roster(1));
        for number in 0..3 * ROSTER_NODES {
            pending.put(peer(number, true));
        }
        pending.put(roster(2));
        assert!(matches!(pending.next().await, Some(RelayEvent::Up { .. })));
        assert!(matches!(pending.next().await, Some(RelayEvent::Roster { version: 2, .. })));
        for _ in 0..ROSTER_NODES {
            assert!(matches!(pending.next().await, Some(RelayEvent::Peer { .. })));
        }
        assert!(pending.lock().take().is_none());
    }

    #[tokio::test]
    async fn way_of_an_earlier_connection_is_not_told() {
        let pending = Pending::default();
        pending.put(up());
        pending.put(RelayEvent::Udp(false));
        pending.put(RelayEvent::Udp(true));
        assert!(matches!(pending.next().await, Some(RelayEvent::Up { .. })));
        assert!(matches!(pending.next().await, Some(RelayEvent::Udp(true))));
        pending.put(RelayEvent::Udp(true));
        pending.put(down());
        assert!(matches!(pending.next().await, Some(RelayEvent::Down { .. })));
        assert!(pending.lock().take().is_none());
    }

    #[tokio::test]
    async fn latest_word_about_a_peer_counts() {
        let pending = Pending::default();
        pending.put(peer(1, true));
        pending.put(peer(1, false));
        assert!(matches!(pending.next().await, Some(RelayEvent::Peer { present: false, .. })));
        assert!(pending.lock().take().is_none());
    }

    #[tokio::test]
    async fn lost_connection_voids_presence_and_keeps_its_reason() {
        let pending = Pending::default();
        pending.put(up());
        pending.put(peer(1, true));
        pending.put(down());
        pending.put(RelayEvent::Connecting);
        assert!(matches!(pending.next().await, Some(RelayEvent::Down { .. })));
        assert!(pending.lock().take().is_none());
        pending.put(down());
        pending.put(up());
        assert!(matches!(pending.next().await, Some(RelayEvent::Up { .. })));
    }

    #[tokio::test]
    async fn end_is_told_after_what_came_before() {
        let pending = Pending::default();
        pending.put(RelayEvent::Notice("busy".into()));
        pending.end();
        assert!(matches!(pending.next().await, Some(RelayEvent::Notice(_))));
        assert!(pending.next().await.is_none());
        assert!(pending.next().await.is_none());
    }

    #[tokio::test]
    async fn waiting_ends_with_an_arrival() {
        let pending = Arc::new(Pending::default());
        let waiting = tokio::spawn({
            let pending = pending.clone();
            async move { pending.next().await }
        });
        tokio::task::yield_now().await;
        pending.put(roster(3));
        assert!(matches!(waiting.await.unwrap(), Some(RelayEvent::Roster { version: 3, .. })));
    }
}
