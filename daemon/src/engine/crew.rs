//! The further threads of the packet path, as the first one holds them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mesh_net::{Lost, Rooms, UdpSockets};
use mesh_node::{Node, Worker};
use mesh_tun::DeviceIo;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use super::counts::{Counts, ThreadSnapshot, Trip};
use super::inbox::Inbox;
use super::post::{Mail, Post};
use super::traffic::Traffic;
use super::worker::Further;
use super::{EngineDrops, EngineEvent};

/// All further threads; dropping it ends them.
pub(super) struct Crew {
    posts: Arc<[Post]>,
    counts: Arc<[Counts]>,
    trip: Arc<Trip>,
    /// When it is to be told again.
    trip_due: Option<Instant>,
    /// The sockets of the workers.
    lost: Lost,
    /// The processor of each thread, where there are several.
    cpus: Vec<usize>,
    threads: Vec<JoinHandle<()>>,
    /// Marks to be given back, and whether that needs room on the way to the relay.
    marks: VecDeque<(u16, u64, bool)>,
    /// Locks of the posts that the first thread took.
    pub(super) locks: u64,
}

/// What a further thread works with.
#[derive(Debug)]
pub struct ThreadParts {
    /// Its queue of the device.
    pub device: DeviceIo,
    /// Its sockets.
    pub udp: UdpSockets,
    /// Its machine.
    pub worker: Worker,
}

/// What all further threads have in common.
pub(super) struct Common<'c> {
    pub(super) home: &'c Arc<Inbox>,
    pub(super) events: &'c mpsc::Sender<EngineEvent>,
}

impl Crew {
    /// Starts a thread for each of the parts; `traffic` makes what it moves packets with.
    ///
    /// # Errors
    /// When a queue or a thread cannot be made; those that were made end.
    pub(super) fn start(
        parts: Vec<ThreadParts>,
        common: &Common<'_>,
        traffic: impl Fn(DeviceIo, UdpSockets) -> Traffic,
    ) -> io::Result<Self> {
        let posts: Arc<[Post]> = parts.iter().map(|_| Post::new()).collect::<io::Result<_>>()?;
        let counts: Arc<[Counts]> = (0..=parts.len()).map(|_| Counts::default()).collect();
        let cpus = if parts.is_empty() { Vec::new() } else { processors(parts.len() + 1) };
        let mut crew = Self {
            posts,
            counts,
            trip: Arc::default(),
            trip_due: None,
            lost: Lost::default(),
            cpus,
            threads: Vec::new(),
            marks: VecDeque::new(),
            locks: 0,
        };
        for (number, ThreadParts { device, udp, worker }) in (1..).zip(parts) {
            crew.lost = std::mem::take(&mut crew.lost).and(&udp.lost());
            if let Some(rooms) = udp.rooms() {
                crew.counts[usize::from(number)].show_rooms(rooms);
            }
            let further = Further {
                number,
                machine: worker,
                traffic: traffic(device, udp),
                posts: Arc::clone(&crew.posts),
                home: Arc::clone(common.home),
                events: common.events.clone(),
                counts: Arc::clone(&crew.counts),
                trip: Arc::clone(&crew.trip),
                passing: Vec::new(),
                locks: 0,
                passed: 0,
            };
            let cpu = crew.cpus.get(usize::from(number)).copied();
            let builder = thread::Builder::new().name(format!("mesh-engine-{number}"));
            crew.threads.push(builder.spawn(move || {
                bind(cpu);
                further.run();
            })?);
        }
        Ok(crew)
    }

    /// Whether there are further threads.
    pub(super) fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Returns the processor of the first thread; none where it is the only one.
    pub(super) fn first_cpu(&self) -> Option<usize> {
        self.cpus.first().copied()
    }

    /// Tells the workers what the node has for them.
    pub(super) fn tell(&mut self, node: &mut Node) {
        for (number, post) in (1..).zip(self.posts.iter()) {
            while let Some(news) = node.poll_news(number) {
                self.locks += 1;
                post.put(Mail::News(news));
            }
        }
        while let Some(stray) = node.poll_stray() {
            if let Some(post) = usize::from(stray.thread).checked_sub(1).and_then(|at| self.posts.get(at)) {
                self.locks += 1;
                post.put(Mail::Frame(stray.path, stray.frame));
            }
        }
    }

    /// Takes a worker's mark; that of a `window` goes back only once there is room on the way to the relay.
    pub(super) fn mark(&mut self, thread: u16, mark: u64, window: bool) {
        self.marks.push_back((thread, mark, window));
    }

    /// Whether marks wait to go back.
    pub(super) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Gives marks back, those of windows only where there is room on the way to the relay.
    pub(super) fn return_marks(&mut self, room: bool) {
        for _ in 0..self.marks.len() {
            let Some((thread, mark, window)) = self.marks.pop_front() else { return };
            if window && !room {
                self.marks.push_back((thread, mark, window));
            } else if let Some(post) = usize::from(thread).checked_sub(1).and_then(|at| self.posts.get(at)) {
                self.locks += 1;
                post.put(Mail::Mark(mark));
            }
        }
    }

    /// Tells the workers now and then how long the longest path is; only the node knows.
    pub(super) fn tell_trip(&mut self, now: Instant, trip: impl FnOnce() -> Option<Duration>) {
        if self.trip_due.is_none_or(|due| due <= now) {
            self.trip_due = Some(now + TRIP_AGE);
            self.trip.set(trip());
        }
    }

    /// Names the sockets of the workers.
    pub(super) fn lost(&self) -> Lost {
        self.lost.clone()
    }

    /// Returns the room of the sockets of each worker.
    pub(super) fn rooms(&self) -> impl Iterator<Item = Rooms> {
        self.counts[1..].iter().filter_map(Counts::rooms)
    }

    /// Returns the counts of the first thread.
    pub(super) fn first(&self) -> &Counts {
        &self.counts[0]
    }

    /// Returns what each thread did.
    pub(super) fn snapshot(&self) -> Vec<ThreadSnapshot> {
        let cpu = |at: usize| self.cpus.get(at).copied();
        self.counts.iter().enumerate().map(|(at, counts)| counts.snapshot(cpu(at))).collect()
    }

    /// Adds what the workers dropped.
    pub(super) fn add_drops(&self, drops: &mut EngineDrops) {
        for counts in &self.counts[1..] {
            counts.add_drops(drops);
        }
        drops.inbox_full += self.posts.iter().map(Post::dropped).sum::<u64>();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for post in self.posts.iter() {
            post.put(Mail::Stop);
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Binds the calling thread to a processor, so that its caches stay warm; where that is refused it runs anywhere.
pub(super) fn bind(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    let bound = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = bound {
        tracing::warn!(%error, cpu, "an engine thread could not be bound to its processor");
    }
}

/// Returns a processor for each thread, of those that this process may use, in turn where there are fewer.
fn processors(threads: usize) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    let usable: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    usable.into_iter().cycle().take(threads).collect()
}

/// Returns how many threads move packets, of a wish between 0 (as many as are good) and [`MOST_THREADS`], on a machine with
/// so many processors.
///
/// The programs whose packets these are, the kernel and the relay client need processors, too: half of them. On three or
/// fewer, threads only take turns.
#[must_use]
pub fn threads(wanted: u16, processors: usize) -> u16 {
    match wanted {
        0 if processors <= 3 => 1,
        0 => u16::try_from(processors / 2).unwrap_or(MOST_THREADS).min(MOST_THREADS),
        wanted => wanted.min(MOST_THREADS),
    }
}

/// Sockets are given more room four times a second at most.
const TRIP_AGE: Duration = Duration::from_millis(250);

/// As many as a session has lanes.
pub const MOST_THREADS: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_processors_move_packets_and_never_more_than_there_are_lanes() {
        for (processors, expected) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (9, 4), (32, 16), (256, 16)] {
            assert_eq!(threads(0, processors), expected, "{processors} processors");
        }
        assert_eq!((threads(1, 64), threads(2, 2), threads(40, 2)), (1, 2, 16));
        assert_eq!(usize::from(MOST_THREADS), mesh_wire::limits::LANES);
    }

    #[test]
    fn threads_get_processors_in_turn() {
        let cpus = processors(5);
        assert_eq!(cpus.len(), 5);
        let one: std::collections::BTreeSet<_> = cpus.iter().collect();
        assert!(one.len() == 5 || cpus[0] == cpus[one.len()]);
    }
}
