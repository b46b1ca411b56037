//! The lanes of a session in the hands of several threads: each thread seals and opens on its own lanes, with counters and
//! replay windows that no other thread looks at.
//!
//! A lane belongs to the thread of its number, modulo the number of threads. Each thread may seal an equal part of what
//! the key may, so that the limit holds without a counter that they share.

use std::fmt;
use std::sync::Arc;

use mesh_identity::wipe_stack;
use mesh_wire::frame::{FrameHeader, PayloadKind};

use super::{ENDED, MAX_FORGERIES, OpenError, Opened, SealError, Session, open_frame, seal_frame};
use crate::aead::Aead;
use crate::replay::ReplayWindow;

/// Seals on one lane of a session.
pub struct LaneSealer {
    key: Arc<dyn Aead>,
    /// The lane, the receiver's number for the session, and the next counter.
    next: FrameHeader,
    limit: u64,
}

/// Opens what comes on the lanes of one thread.
pub struct LaneOpener {
    key: Arc<dyn Aead>,
    /// Our number for the session.
    local: u32,
    /// The windows of the thread's lanes: of its first one, of that one plus the number of threads, and so on.
    windows: Vec<Option<ReplayWindow>>,
    threads: u16,
    thread: u16,
    forgeries: u64,
}

/// What one further thread gets of a session.
#[derive(Debug)]
pub struct Lanes {
    /// None where the peer granted fewer lanes.
    pub sealer: Option<LaneSealer>,
    /// What the peer sends on the thread's lanes.
    pub opener: LaneOpener,
}

impl Session {
    /// Hands out the lanes of all threads but the first, in the order of the threads, with the windows and counters that
    /// they have by then; this session keeps the lanes of the first. Nothing is handed out twice.
    ///
    /// From then on each of the `threads` threads seals a part of [`Session::limit`].
    pub fn divide(&mut self, threads: u16) -> Vec<Lanes> {
        if self.threads > 1 || threads < 2 {
            return Vec::new();
        }
        self.threads = threads;
        (1..threads).map(|thread| self.lanes_of(thread)).collect()
    }

    /// Returns the thread that a lane is of, where that is not the first one.
    #[must_use]
    pub const fn owner_elsewhere(&self, lane: u16) -> Option<u16> {
        let thread = lane % self.threads;
        if thread == 0 { None } else { Some(thread) }
    }

    fn lanes_of(&mut self, thread: u16) -> Lanes {
        let (start, step) = (usize::from(thread), usize::from(self.threads));
        let counter = self.counters.get(start).copied();
        let sealer = counter.map(|counter| LaneSealer {
            key: Arc::clone(&self.sealer),
            next: FrameHeader { lane: thread, receiver: self.remote.index, counter },
            limit: self.limit(),
        });
        let opener = LaneOpener {
            key: Arc::clone(&self.opener),
            local: self.local.index,
            windows: self.windows.iter_mut().skip(start).step_by(step).map(Option::take).collect(),
            threads: self.threads,
            thread,
            forgeries: 0,
        };
        Lanes { sealer, opener }
    }
}

impl LaneSealer {
    /// Returns how many frames it has sealed.
    #[must_use]
    pub const fn sealed(&self) -> u64 {
        self.next.counter
    }

    /// Seals a frame in place, as [`Session::seal`] does.
    ///
    /// # Errors
    /// [`SealError::Exhausted`] when the thread's part of the key is used up.
    ///
    /// # Panics
    /// When `frame` is shorter than [`mesh_wire::frame::OVERHEAD`].
    pub fn seal(&mut self, kind: PayloadKind, frame: &mut [u8]) -> Result<(), SealError> {
        if self.next.counter >= self.limit {
            return Err(SealError::Exhausted);
        }
        seal_frame(&*self.key, &self.next, kind, frame);
        self.next.counter += 1;
        Ok(())
    }
}

impl LaneOpener {
    /// Returns the thread that a lane is of, where that is another one.
    #[must_use]
    pub const fn owner_elsewhere(&self, lane: u16) -> Option<u16> {
        let thread = lane % self.threads;
        if thread == self.thread { None } else { Some(thread) }
    }

    /// Opens a frame in place and accepts its counter, as [`Session::open`] does.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Elsewhere`] where the lane is of another thread.
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let header = FrameHeader::parse(frame).map_err(OpenError::Malformed)?;
        if header.receiver != self.local {
            return Err(OpenError::Index);
        }
        if self.forgeries >= MAX_FORGERIES / u64::from(self.threads) {
            return Err(OpenError::Spent);
        }
        if let Some(thread) = self.owner_elsewhere(header.lane) {
            return Err(OpenError::Elsewhere(thread));
        }
        let at = usize::from(header.lane / self.threads);
        let window = self.windows.get_mut(at).ok_or(OpenError::Lane)?;
        open_frame(&*self.key, &header, window, &mut self.forgeries, frame)
    }
}

impl Drop for LaneSealer {
    fn drop(&mut self) {
        wipe_stack();
        ENDED.set(true);
    }
}

impl Drop for LaneOpener {
    fn drop(&mut self) {
        wipe_stack();
        ENDED.set(true);
    }
}

impl fmt::Debug for LaneSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSealer").field("next", &self.next).field("key", &"[redacted]").finish()
    }
}

impl fmt::Debug for LaneOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneOpener")
            .field("local", &self.local)
            .field("thread", &self.thread)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::pair;
    use super::*;
    use crate::aead::AeadKind;

    fn frame(payload: u8) -> Vec<u8> {
        let mut frame = vec![0; Session::frame_len(1)];
        frame[mesh_wire::frame::PAYLOAD_OFFSET] = payload;
        frame
    }

    #[test]
    fn each_thread_opens_its_lanes_and_names_the_owner_of_others() {
        // The receiver grants 3 lanes and has 2 threads.
        let (mut a, mut b) = pair(AeadKind::AwsLc);
        let mut lanes = b.divide(2);
        let mut opener = lanes.remove(0).opener;
        assert!(lanes.is_empty() && b.divide(2).is_empty());
        for lane in 0..3 {
            let mut sealed = frame(7);
            a.seal(lane, PayloadKind::Ip, &mut sealed).unwrap();
            let (mut copy, owner) = (sealed.clone(), lane % 2);
            if owner == 0 {
                assert_eq!(opener.open(&mut copy).unwrap_err(), OpenError::Elsewhere(0));
                assert_eq!(b.open(&mut sealed).unwrap().payload, [7]);
            } else {
                assert_eq!(b.open(&mut copy).unwrap_err(), OpenError::Elsewhere(1));
                let again = copy.clone();
                assert_eq!(opener.open(&mut copy).unwrap().payload, [7]);
                assert_eq!(opener.open(&mut again.clone()).unwrap_err(), OpenError::Replayed);
            }
        }
        let mut forged = frame(0);
        forged[..15].copy_from_slice(&FrameHeader { lane: 1, receiver: 20, counter: 9 }.encode());
        assert_eq!(opener.open(&mut forged).unwrap_err(), OpenError::Forged);
        forged[1] = 5;
        assert_eq!(opener.open(&mut forged).unwrap_err(), OpenError::Lane);
        forged[3] ^= 1;
        assert_eq!(opener.open(&mut forged).unwrap_err(), OpenError::Index);
    }

    #[test]
    fn what_was_received_before_the_lanes_are_handed_out_stays_received() {
        let (mut a, mut b) = pair(AeadKind::AwsLc);
        let mut sealed = frame(1);
        a.seal(1, PayloadKind::Ip, &mut sealed).unwrap();
        let again = sealed.clone();
        b.open(&mut sealed).unwrap();
        let mut opener = b.divide(2).remove(0).opener;
        assert_eq!(opener.open(&mut again.clone()).unwrap_err(), OpenError::Replayed);
        // And a counter goes on where it was.
        let mut sealer = a.divide(2).remove(0).sealer.unwrap();
        let mut next = frame(2);
        sealer.seal(PayloadKind::Ip, &mut next).unwrap();
        assert_eq!(FrameHeader::parse(&next).unwrap().counter, 1);
        assert_eq!(opener.open(&mut next).unwrap().payload, [2]);
        assert_eq!(a.seal(1, PayloadKind::Ip, &mut frame(0)), Err(SealError::Lane(1)));
        assert!(a.seal(2, PayloadKind::Ip, &mut frame(0)).is_ok(), "the first thread has lanes 0 and 2");
    }

    #[test]
    fn lanes_that_were_not_granted_are_not_handed_out() {
        // The responder may use 2 lanes, of which the third and fourth thread get none.
        let (_, mut b) = pair(AeadKind::AwsLc);
        let sealers: Vec<bool> = b.divide(4).iter().map(|lanes| lanes.sealer.is_some()).collect();
        assert_eq!(sealers, [true, false, false]);
    }

    #[test]
    fn parts_of_the_limit_add_up_to_it() {
        let (mut a, _) = pair(AeadKind::AwsLc);
        let whole = a.limit();
        let mut sealer = a.divide(3).remove(0).sealer.unwrap();
        assert!(a.limit() * 3 <= whole);
        assert_eq!(sealer.limit, a.limit());
        sealer.next.counter = sealer.limit - 1;
        assert!(sealer.seal(PayloadKind::Ip, &mut frame(0)).is_ok());
        assert_eq!(sealer.seal(PayloadKind::Ip, &mut frame(0)), Err(SealError::Exhausted));
        assert!(!format!("{sealer:?}").contains("key: Aws"));
    }

    proptest! {
        /// Whoever seals in whatever order: no nonce occurs twice, every frame is opened once, by the owner of its lane.
        #[test]
        fn nonces_never_repeat_and_each_frame_is_opened_once(
            threads in 2u16..5,
            steps in proptest::collection::vec(0u16..3, 1..60),
        ) {
            let (mut a, mut b) = pair(AeadKind::AwsLc);
            let mut sealers: Vec<_> = a.divide(3).into_iter().map(|lanes| lanes.sealer).collect();
            let mut openers: Vec<_> = b.divide(threads).into_iter().map(|lanes| lanes.opener).collect();
            let mut nonces = std::collections::BTreeSet::new();
            for thread in steps {
                let mut sealed = frame(9);
                match thread.checked_sub(1) {
                    None => a.seal(0, PayloadKind::Ip, &mut sealed).unwrap(),
                    Some(at) => {
                        let sealer = sealers[usize::from(at)].as_mut().unwrap();
                        sealer.seal(PayloadKind::Ip, &mut sealed).unwrap();
                    }
                }
                let header = FrameHeader::parse(&sealed).unwrap();
                prop_assert!(nonces.insert(header.nonce()));
                let owner = header.lane % threads;
                let mut opened = 0;
                opened += usize::from(b.open(&mut sealed.clone()).is_ok());
                for opener in &mut openers {
                    opened += usize::from(opener.open(&mut sealed.clone()).is_ok());
                }
                prop_assert_eq!(opened, 1);
                let again = match owner.checked_sub(1) {
                    None => b.open(&mut sealed).is_ok(),
                    Some(at) => openers[usize::from(at)].open(&mut sealed).is_ok(),
                };
                prop_assert!(!again);
            }
        }
    }
}
