//! How long the frames are that each address carries, and what follows from that.

use std::net::SocketAddr;
use std::time::Instant;

use super::{ChangeReason, Paths, Setting, Size, Step};
use crate::path::Path;

impl Paths {
    /// Finds out how long frames may be at an address that is known to answer.
    pub(crate) fn prove(&mut self, now: Instant, address: SocketAddr, setting: Setting) -> Vec<Step> {
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == address) {
            remote.sizing.begin(now, setting.most);
        }
        let mut steps = Vec::new();
        self.measure(now, setting, &mut steps);
        steps
    }

    /// The path in use carries less than it did: goes on with the least, and finds out what lies between.
    pub(super) fn shrinks(
        &mut self,
        now: Instant,
        address: SocketAddr,
        setting: Setting,
        steps: &mut Vec<Step>,
    ) {
        let from = self.limit.min(setting.most);
        (self.data.check, self.data.proved, self.data.long) = (None, Some(now), false);
        (self.data.unanswered, self.data.measured) = (None, true);
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.address == address) {
            remote.sizing.shrink(now, from);
        }
        self.measure(now, setting, steps);
    }

    /// Sends the challenges of addresses that are being measured, and takes a path whose length is known.
    pub(super) fn measure(&mut self, now: Instant, setting: Setting, steps: &mut Vec<Step>) {
        for at in 0..self.remotes.len() {
            let remote = &mut self.remotes[at];
            let rtt = remote.rtt.unwrap_or_default();
            if let Some(bytes) = remote.sizing.timeout(now, rtt) {
                steps.push(Step::Challenge(remote.address, Size::Long(bytes)));
            }
            let (address, busy) = (remote.address, remote.sizing.is_busy());
            // Without a relay the least is better than nothing.
            let ready = !busy || (!setting.relay && !self.is_sure(now));
            let remote = &self.remotes[at];
            let known = remote.sizing.carries().is_some() && remote.is_proved(now);
            let other = Path::Udp(address) != self.current;
            if other && ready && known && setting.searches && self.is_better(now, address) {
                let reason = match self.current {
                    Path::Relay(_) => ChangeReason::Found,
                    Path::Udp(_) => ChangeReason::Better,
                };
                self.move_to(now, Path::Udp(address), reason, setting);
                (self.data.proved, self.data.measured) = (Some(now), busy);
                steps.push(Step::Moved);
            }
        }
        self.set_limit(setting, steps);
    }

    /// Brings the limit in line with what is known of the current path.
    pub(super) fn set_limit(&mut self, setting: Setting, steps: &mut Vec<Step>) {
        let before = (self.limit, self.data.measured);
        self.limit = match self.current {
            Path::Relay(_) => u16::MAX,
            Path::Udp(address) => {
                let remote = self.remotes.iter().find(|remote| remote.address == address);
                self.data.measured &= remote.is_some_and(|remote| remote.sizing.is_busy());
                remote.and_then(|remote| remote.sizing.carries()).unwrap_or(setting.most)
            }
        };
        if before != (self.limit, self.data.measured) && !steps.contains(&Step::Moved) {
            steps.push(Step::Sized);
        }
    }
}
