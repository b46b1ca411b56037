//! Where a client's handles lead, kept so that a message is forwarded without the lock of the hub.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::Shared;
use crate::hub::{Member, NoRoute, Route};

/// The routes of one client's handles.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    cached: Vec<Option<Cached>>,
}

/// The route of a handle, or that there was none at a certain count of joins.
#[derive(Debug)]
struct Cached {
    handle: u32,
    since: Instant,
    route: Result<Route, (NoRoute, u64)>,
}

impl Routes {
    /// Returns the route of a handle of `member`, and when it was looked up.
    ///
    /// # Errors
    /// [`NoRoute`] says why there is none.
    pub(crate) fn get(
        &mut self,
        shared: &Shared,
        member: Member,
        handle: u32,
        now: Instant,
    ) -> Result<(&Route, Instant), NoRoute> {
        let place = usize::try_from(handle & 0xffff).map_err(|_| NoRoute::UnknownHandle)?;
        let is_good = |cached: &Cached| cached.handle == handle && cached.is_good(shared);
        if !self.cached.get(place).and_then(Option::as_ref).is_some_and(is_good) {
            let joins = shared.joins.load(Ordering::Acquire);
            let route = shared.hub().route(member, handle);
            if route.as_ref().is_err_and(|reason| *reason == NoRoute::UnknownHandle) {
                return Err(NoRoute::UnknownHandle);
            }
            // A handle that the hub knows is one of at most 65,535 places.
            if self.cached.len() <= place {
                self.cached.resize_with(place + 1, || None);
            }
            let route = route.map_err(|reason| (reason, joins));
            if let Some(slot) = self.cached.get_mut(place) {
                *slot = Some(Cached { handle, since: now, route });
            }
        }
        match self.cached.get(place).and_then(Option::as_ref) {
            Some(Cached { route: Ok(route), since, .. }) => Ok((route, *since)),
            Some(Cached { route: Err((reason, _)), .. }) => Err(*reason),
            None => Err(NoRoute::UnknownHandle),
        }
    }
}

impl Cached {
    fn is_good(&self, shared: &Shared) -> bool {
        match &self.route {
            Ok(route) => route.is_good(),
            // Room in the destination's table or queue may come back at any time.
            Err((NoRoute::Unwilling, _)) => false,
            Err((_, joins)) => shared.joins.load(Ordering::Acquire) == *joins,
        }
    }
}
