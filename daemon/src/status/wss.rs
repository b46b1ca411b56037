//! What people see of direct WSS.

use std::time::Instant;

use mesh_control::{OwnAddress, PathChange, PathKind, PathReason, PeerWss, WssStatus};
use mesh_wire::NodeId;

use super::{View, address_kind};
use crate::config::Config;
use crate::relays::doors::Beside;

/// Changes of a peer's path to and from direct WSS, of which the engine knows nothing.
#[derive(Debug, Clone, Default)]
pub struct BesideChanges {
    /// How many.
    pub count: u64,
    /// The last one and when it was, unless the engine has made one since.
    pub last: Option<(PathChange, Instant)>,
}

/// Returns what people see of frames that go past the relays from here on, or not any more, for the reason `ended`.
pub(crate) fn beside_change(before: Option<Beside>, after: Option<Beside>, ended: PathReason) -> PathChange {
    let kind = |beside: Option<Beside>| beside.map_or(PathKind::Relay, |_| PathKind::DirectWss);
    let endpoint = |beside: Option<Beside>| beside.map(|beside| beside.address);
    PathChange {
        from: kind(before),
        from_endpoint: endpoint(before),
        to: kind(after),
        to_endpoint: endpoint(after),
        reason: if after.is_some() { PathReason::Connected } else { ended },
    }
}

/// Names direct WSS where the engine means the relay.
pub(crate) fn with_beside(change: PathChange, beside: Option<Beside>) -> PathChange {
    let Some(Beside { address, .. }) = beside else { return change };
    let mut change = change;
    for (kind, endpoint) in
        [(&mut change.from, &mut change.from_endpoint), (&mut change.to, &mut change.to_endpoint)]
    {
        if *kind == PathKind::Relay {
            (*kind, *endpoint) = (PathKind::DirectWss, Some(address));
        }
    }
    change
}

/// Returns this node's part, where the configuration wants one.
pub(super) fn own(config: &Config, view: &View) -> Option<WssStatus> {
    let wss = config.wss.as_ref()?;
    let state = view.door.as_ref().map(|door| door.borrow().clone()).unwrap_or_default();
    let counts = view.pool.as_ref().and_then(|pool| pool.door_counts()).unwrap_or_default();
    Some(WssStatus {
        listen: wss.listen.to_string(),
        open: state.open,
        error: state.error,
        pin: state.pin.map(|pin| pin.to_string()),
        addresses: state
            .addresses
            .iter()
            .map(|known| OwnAddress { address: known.address, kind: address_kind(known.kind) })
            .collect(),
        admitted: counts.admitted,
        refused: counts.refused,
        dropped: counts.dropped,
    })
}

/// Returns a peer's part, where it said something.
pub(super) fn peer(view: &View, node: &NodeId) -> Option<PeerWss> {
    let (told, error) = view.doors.get(node)?;
    Some(PeerWss { addresses: told.addresses.clone(), error: error.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_direct_wss_with_its_address() {
        let beside = Beside { address: "192.0.2.1:443".parse().unwrap(), theirs: true };
        let begins = beside_change(None, Some(beside), PathReason::Silent);
        assert_eq!((begins.from, begins.to), (PathKind::Relay, PathKind::DirectWss));
        assert_eq!((begins.to_endpoint, begins.reason), (Some(beside.address), PathReason::Connected));
        let ends = beside_change(Some(beside), None, PathReason::Silent);
        assert_eq!(
            (ends.from, ends.to, ends.reason),
            (PathKind::DirectWss, PathKind::Relay, PathReason::Silent)
        );
        let direct = PathChange { from: PathKind::Relay, to: PathKind::Direct, ..ends };
        let named = with_beside(direct.clone(), Some(beside));
        assert_eq!((named.from, named.to), (PathKind::DirectWss, PathKind::Direct));
        assert_eq!(with_beside(direct.clone(), None), direct);
    }
}
