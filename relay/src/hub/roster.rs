//! The latest sealed roster of each network, in bounded memory.

use std::collections::HashMap;

use bytes::Bytes;
use mesh_wire::NetId;
use mesh_wire::relay::ErrorCode;

/// Rosters as ready ROSTER messages.
#[derive(Debug)]
pub(super) struct Rosters {
    kept: HashMap<NetId, Kept>,
    bytes: usize,
    limits: RosterLimits,
}

/// What is kept at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RosterLimits {
    /// Networks.
    pub(crate) count: usize,
    /// Bytes of all rosters.
    pub(crate) bytes: usize,
}

/// Why a roster is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutError {
    /// A newer one is kept.
    Stale,
    /// There is no room, and all the networks with a roster have clients.
    Full,
}

#[derive(Debug)]
struct Kept {
    version: u64,
    message: Bytes,
}

impl Rosters {
    pub(super) fn new(limits: RosterLimits) -> Self {
        Self { kept: HashMap::new(), bytes: 0, limits }
    }

    /// Keeps a roster. Returns whether it is another one than before; networks that are not `busy` make room.
    pub(super) fn put(
        &mut self,
        net: NetId,
        version: u64,
        message: Bytes,
        busy: impl Fn(&NetId) -> bool,
    ) -> Result<bool, PutError> {
        if let Some(old) = self.kept.get(&net) {
            if old.version > version {
                return Err(PutError::Stale);
            }
            if old.version == version && old.message == message {
                return Ok(false);
            }
        }
        if !self.fits(net, message.len()) {
            self.kept.retain(|kept, _| *kept == net || busy(kept));
            self.bytes = self.kept.values().map(|kept| kept.message.len()).sum();
            if !self.fits(net, message.len()) {
                return Err(PutError::Full);
            }
        }
        self.bytes += message.len();
        if let Some(old) = self.kept.insert(net, Kept { version, message }) {
            self.bytes -= old.message.len();
        }
        Ok(true)
    }

    pub(super) fn get(&self, net: &NetId) -> Option<Bytes> {
        self.kept.get(net).map(|kept| kept.message.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn fits(&self, net: NetId, len: usize) -> bool {
        let old = self.kept.get(&net).map(|kept| kept.message.len());
        let count = self.kept.len() + usize::from(old.is_none());
        count <= self.limits.count && self.bytes - old.unwrap_or(0) + len <= self.limits.bytes
    }
}

impl PutError {
    /// Returns the code and text that the client is told.
    pub(crate) const fn answer(self) -> (ErrorCode, &'static str) {
        match self {
            Self::Stale => (ErrorCode::StaleRoster, "this relay holds a newer roster of the network"),
            Self::Full => (ErrorCode::RosterNotKept, "this relay has no room for another roster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u8) -> NetId {
        NetId([n; 32])
    }

    #[test]
    fn only_growing_versions_are_kept() {
        let mut rosters = Rosters::new(RosterLimits { count: 9, bytes: 99 });
        let put = |rosters: &mut Rosters, version, text: &'static str| {
            rosters.put(net(1), version, Bytes::from_static(text.as_bytes()), |_| true)
        };
        assert_eq!(put(&mut rosters, 2, "two"), Ok(true));
        assert_eq!(put(&mut rosters, 2, "two"), Ok(false));
        assert_eq!(put(&mut rosters, 2, "resealed"), Ok(true));
        assert_eq!(put(&mut rosters, 1, "one"), Err(PutError::Stale));
        assert_eq!(put(&mut rosters, 3, "three"), Ok(true));
        assert_eq!(rosters.get(&net(1)).unwrap(), "three");
        assert_eq!((rosters.count(), rosters.bytes()), (1, 5));
    }

    #[test]
    fn networks_without_clients_make_room() {
        let mut rosters = Rosters::new(RosterLimits { count: 2, bytes: 10 });
        let blob = |len| Bytes::from(vec![0; len]);
        assert_eq!(rosters.put(net(1), 1, blob(4), |_| true), Ok(true));
        assert_eq!(rosters.put(net(2), 1, blob(4), |_| true), Ok(true));
        assert_eq!(rosters.put(net(3), 1, blob(1), |_| true), Err(PutError::Full));
        assert_eq!(rosters.put(net(2), 2, blob(7), |_| true), Err(PutError::Full));
        assert_eq!(rosters.put(net(2), 2, blob(6), |_| true), Ok(true));
        assert_eq!(rosters.put(net(3), 1, blob(4), |kept| *kept == net(2)), Ok(true));
        assert_eq!(rosters.get(&net(1)), None);
        assert_eq!((rosters.count(), rosters.bytes()), (2, 10));
    }
}
