//! Direct WSS: what happens at doors, and what it means for the paths.

use std::time::Instant;

use mesh_control::{EventKind, NoticeLevel, PathChange, PathReason};
use mesh_net::RelayEvent;
use mesh_node::{ChangeReason, Path};
use mesh_wire::NodeId;

use super::super::Shared;
use super::super::doors::{DoorsEvent, Moved};
use super::{After, Running};
use crate::status::path_change;
use crate::status::wss::{beside_change, with_beside};

impl Running {
    pub(super) fn doors_event(&mut self, shared: &Shared, event: DoorsEvent) -> After {
        let (nodes, reason) = match event {
            DoorsEvent::Told(node, event) => {
                let ended = matches!(event, RelayEvent::Down { .. });
                let reason = if ended { PathReason::Closed } else { PathReason::Silent };
                self.doors.heard(node, event);
                (vec![node], reason)
            }
            DoorsEvent::Wanted(wanted) => {
                self.doors.open_wanted(&wanted);
                (Vec::new(), PathReason::Closed)
            }
            DoorsEvent::Guest(node) => (vec![node], PathReason::Silent),
            DoorsEvent::Due => (self.doors.timeout(), PathReason::Closed),
            DoorsEvent::Ended(node) => {
                tracing::error!("a client of a peer's door ended unexpectedly");
                self.doors.told(node, None);
                (vec![node], PathReason::Closed)
            }
        };
        for node in nodes {
            self.moved_beside(shared, node, reason);
        }
        After::Show
    }

    /// Takes a change of path in the engine, which knows nothing of doors.
    pub(super) fn path_event(
        &mut self,
        shared: &Shared,
        node: NodeId,
        (from, to): (Path, Path),
        reason: ChangeReason,
    ) {
        if matches!(to, Path::Udp(_)) {
            self.on_udp.insert(node);
            self.doors.direct(node);
        } else {
            self.on_udp.remove(&node);
        }
        if let Some(changes) = self.beside.get_mut(&node) {
            changes.last = None;
        }
        let beside = self.relays.pool().beside(&node);
        self.tell_path(shared, node, with_beside(path_change((from, to), reason), beside));
    }

    /// Tells that frames for a peer go past the relays from here on, or do not any more.
    pub(super) fn moved_beside(&mut self, shared: &Shared, node: NodeId, ended: PathReason) {
        let Some(Moved { before, after }) = self.doors.moved(node) else { return };
        if after.is_some() {
            self.passed.found(node);
            self.prove_near();
        }
        // What goes over UDP goes on doing so.
        if self.on_udp.contains(&node) {
            return;
        }
        let change = beside_change(before, after, ended);
        let changes = self.beside.entry(node).or_default();
        (changes.count, changes.last) = (changes.count + 1, Some((change.clone(), Instant::now())));
        self.tell_path(shared, node, change);
    }

    fn tell_path(&self, shared: &Shared, node: NodeId, change: PathChange) {
        shared.changed.put(node);
        let peer = self.name(node);
        let (path, reason) = (change.to, change.reason);
        tracing::info!(%peer, from = %change.from, %path, %reason, "path changed");
        shared.event(EventKind::Path { peer: peer.clone(), change });
        shared.notice(NoticeLevel::Info, None, format!("{peer} is reached by the path {path}: {reason}"));
    }
}
