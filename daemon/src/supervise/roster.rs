//! Which roster is in force, and who may sign the next one.

use std::sync::Arc;

use mesh_control::{ErrorCode, EventKind, NoticeLevel};
use mesh_identity::{Identity, Roster, UpdateError};

use super::Supervisor;
use crate::coordinator::Ledger;
use crate::engine::unix_now;
use crate::one_line;
use crate::state::StateError;

impl Supervisor {
    /// Returns the root keys of the network that this node is in or may create. Those of another network, left by an
    /// attempt to create one, count only while the node is in none.
    pub(super) fn root(&self) -> Option<&Arc<Identity>> {
        let net = self.membership.as_ref().map(|membership| membership.net);
        self.root.as_ref().filter(|root| net.is_none_or(|net| root.net_id() == net))
    }

    /// Returns what a coordinator works with; none on any other node. The ledger comes from the disk each time, because
    /// only what stands there is certain to be the latest. Its roster is the one in force: a crash may have left the
    /// copy behind it.
    pub(super) fn coordination(&mut self) -> Result<Option<(Arc<Identity>, Ledger)>, StateError> {
        let root = self.root().map(Arc::clone);
        let (Some(root), Some(membership)) = (root, &mut self.membership) else { return Ok(None) };
        let mut ledger = Ledger::load(&self.state, membership.net, unix_now())?.ok_or_else(|| {
            StateError::Damaged { path: self.state.path(Ledger::FILE), what: "it is missing".into() }
        })?;
        if ledger.catch_up(&membership.roster) {
            tracing::warn!(
                epoch = membership.roster.version(),
                "the ledger was older than the roster; its invitations are void"
            );
        }
        membership.roster = Arc::clone(ledger.roster());
        Ok(Some((root, ledger)))
    }

    /// Stands on a newer roster: stored first, then used.
    pub(super) async fn adopt(&mut self, roster: Arc<Roster>) {
        let Some(membership) = &mut self.membership else { return };
        match roster.check_replaces(&membership.roster) {
            Ok(()) => {}
            Err(UpdateError::NotNewer) => return,
            Err(error @ (UpdateError::OtherNetwork | UpdateError::Forked)) => {
                return tracing::warn!(epoch = roster.version(), %error, "a roster is not used");
            }
        }
        if let Err(error) = self.state.store_roster(&roster) {
            return tracing::warn!(error = %one_line(&error), "a newer roster could not be stored and is not used");
        }
        membership.roster = Arc::clone(&roster);
        let member = roster.leaf(&self.shared.own).is_some();
        tracing::info!(epoch = roster.version(), members = roster.leaves().len(), "the roster changed");
        if member {
            if let Some(running) = &mut self.running {
                running.adopt(&self.shared, &roster);
            }
        } else {
            self.shared.notice(
                NoticeLevel::Warning,
                Some(ErrorCode::NotEnrolled),
                "this node was removed from its network".to_owned(),
            );
            self.stop_running().await;
        }
        self.show();
        let members = u32::try_from(roster.leaves().len()).unwrap_or(u32::MAX);
        self.shared.event(EventKind::Roster { version: roster.version(), members });
    }
}
