//! A further thread of the packet path: one queue of the device, one socket for each family, and the lanes of sessions that
//! the node handed out.
//!
//! ```text
//! queue of the device ─FairQueue─► mesh_node::Worker ─► TxQueue ─► UDP socket
//! UDP socket ─► mesh_node::Worker ─► queue of the device
//! Post ◄─ the first thread, other workers          Inbox ◄─ what is passed on, reports
//! ```
//! Invariants: nothing here is shared with another thread but the two queues, whose locks are taken once for a batch that
//! is passed on or for news, never for a frame or packet that the worker handles itself; see [`Counts`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_node::{Delivery, Now, Path, ToNode, TxQueue, Worker};
use mesh_packet::Offload;
use mesh_session::wipe_after_sessions;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::EngineEvent;
use super::counts::{Counts, Trip};
use super::inbox::Inbox;
use super::post::{Mail, Post};
use super::traffic::{Machine, Traffic};

impl Machine for Worker {
    fn packet(&mut self, _: Now, packet: &[u8], offload: &Offload, tx: &mut TxQueue) {
        self.handle_offloaded(packet, offload, tx);
    }

    fn frame<'a>(
        &mut self,
        _: Now,
        path: Path,
        frame: &'a mut [u8],
        _: &mut TxQueue,
    ) -> Option<Delivery<'a>> {
        self.handle_frame(path, frame, false)
    }

    /// Only the first thread has extra sockets.
    fn take_proof(&mut self) -> bool {
        false
    }

    fn network(&self, _: &[u8]) -> Option<usize> {
        Some(0)
    }

    /// The node is given what does, in portions for which there is room.
    fn goes_by_relay(&self, _: Now, packet: &[u8]) -> bool {
        Worker::goes_by_relay(self, packet)
    }
}

/// A worker with what it works with.
pub(super) struct Further {
    /// 1 and up.
    pub(super) number: u16,
    pub(super) machine: Worker,
    pub(super) traffic: Traffic,
    /// The queues of all workers, its own among them.
    pub(super) posts: Arc<[Post]>,
    pub(super) home: Arc<Inbox>,
    pub(super) events: mpsc::Sender<EngineEvent>,
    pub(super) counts: Arc<[Counts]>,
    pub(super) trip: Arc<Trip>,
    /// What it passes on in this turn.
    pub(super) passing: Vec<ToNode>,
    /// Locks that it took, and what it passed on.
    pub(super) locks: u64,
    pub(super) passed: u64,
}

/// Which of the file descriptors have something.
struct Ready {
    post: bool,
    udp: bool,
    device: bool,
}

impl Further {
    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => wipe_after_sessions(),
                Ok(false) => return,
                Err(error) => {
                    let _ = self.events.try_send(EngineEvent::Failed(error));
                    return;
                }
            }
        }
    }

    fn turn(&mut self) -> io::Result<bool> {
        let ready = self.wait()?;
        let now = super::now();
        if ready.post && !self.read_post() {
            return Ok(false);
        }
        if ready.udp && !self.machine.holds_frames() {
            let Self { machine, traffic, .. } = self;
            traffic.read_sockets(machine, now, None, |_, _| false);
            if let Some(rooms) = traffic.make_room(now.instant, || self.trip.get()) {
                self.counts[usize::from(self.number)].show_rooms(rooms);
            }
        }
        if ready.device && !self.machine.holds_packets() {
            self.traffic.send_waiting(&mut self.machine, now)?;
        }
        self.machine.report(now.instant);
        self.traffic.flush();
        self.pass_on();
        self.count();
        Ok(true)
    }

    /// Waits until the device, a socket or the post has something, or a report is due.
    fn wait(&mut self) -> io::Result<Ready> {
        let now = Instant::now();
        let alone = self.traffic.look_at_relay(self.machine.holds_for_relay(), || now);
        let timer = self.machine.poll_timeout(now).into_iter().chain(alone).min();
        let timeout = timer.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let post = self.post().signal().as_fd();
        let unwatched = PollFd::new(post, PollFlags::empty());
        let mut fds = [PollFd::new(post, PollFlags::POLLIN), unwatched.clone(), unwatched.clone(), unwatched];
        if !self.machine.holds_frames() {
            for (fd, socket) in fds[FRAMES_AT..DEVICE_AT].iter_mut().zip(self.traffic.ways.udp.fds()) {
                *fd = PollFd::new(socket, PollFlags::POLLIN);
            }
        }
        let takes = alone.is_none() && !self.machine.holds_packets();
        if takes {
            fds[DEVICE_AT] = PollFd::new(self.traffic.device.as_fd(), PollFlags::POLLIN);
        }
        let waiting = takes && !self.traffic.waiting.is_empty();
        match poll(&mut fds, if waiting { PollTimeout::ZERO } else { timeout }) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let any = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Ok(Ready {
            post: any(&fds[0]),
            udp: fds[FRAMES_AT..DEVICE_AT].iter().any(any),
            device: waiting || any(&fds[DEVICE_AT]),
        })
    }

    /// Takes what others sent; false when the thread is to end.
    fn read_post(&mut self) -> bool {
        self.locks += 1;
        for mail in self.post().take() {
            match mail {
                Mail::News(news) => {
                    self.machine.handle_news(news);
                    // What is aside may have another way by now.
                    self.traffic.waiting.bring_back();
                }
                Mail::Frame(path, mut frame) => {
                    if let Some(delivery) = self.machine.handle_frame(path, &mut frame, true) {
                        self.traffic.deliver(delivery);
                    }
                }
                Mail::Mark(mark) => self.machine.handle_mark(mark),
                Mail::Stop => return false,
            }
        }
        true
    }

    /// Gives what is not for this thread to whom it is for.
    fn pass_on(&mut self) {
        while let Some(out) = self.machine.poll_out() {
            self.passed += u64::from(matches!(out, ToNode::Packet { .. } | ToNode::Frame { .. }));
            if let ToNode::Frame { thread, path, frame } = out {
                match usize::from(thread).checked_sub(1) {
                    None => self.passing.push(ToNode::Frame { thread, path, frame }),
                    Some(at) => {
                        if let Some(post) = self.posts.get(at) {
                            self.locks += 1;
                            post.put(Mail::Frame(path, frame));
                        }
                    }
                }
            } else {
                self.passing.push(out);
            }
        }
        if !self.passing.is_empty() {
            self.locks += 1;
            self.home.pass(self.number, &mut self.passing);
        }
    }

    fn count(&self) {
        let counts = &self.counts[usize::from(self.number)];
        counts.show(self.traffic.moved, self.passed, self.locks);
        counts.show_drops(&self.traffic.ways.drops, self.traffic.waiting.dropped());
    }

    fn post(&self) -> &Post {
        &self.posts[usize::from(self.number) - 1]
    }
}

/// Where the UDP sockets are among the file descriptors: one for each family.
const FRAMES_AT: usize = 1;
const DEVICE_AT: usize = 3;
