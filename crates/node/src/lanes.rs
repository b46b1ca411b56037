//! What further threads of the packet path get of a node, and what they give back: see [`Worker`](crate::Worker).
//!
//! What opens the frames of a session's lanes is handed out when the session begins, what seals them when a worker that has
//! leave to send ([`Grant`]) asks for it, behind all packets that it passed on. Until then the node seals the packets of the
//! worker's queue itself, on the worker's lane, so that the receiver handles a flow in one thread from its first frame on.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_packet::Offload;
use mesh_session::{LaneOpener, LaneSealer, Lanes};
use mesh_wire::NodeId;

use crate::node::{Link, Node, Now, Slot};
use crate::path::Path;
use crate::peer::Live;
use crate::report::{Report, direct};
use crate::routes::Routes;
use crate::tx::TxQueue;

/// What the node tells a worker.
#[derive(Debug)]
pub struct News(pub(crate) Item);

#[derive(Debug)]
pub(crate) enum Item {
    /// Whom an address belongs to, and the peers by their places.
    Routes(Arc<Routes<Slot>>, Arc<[NodeId]>),
    /// A session with a peer, which the peer may send under.
    Session { number: u32, peer: NodeId, opener: Box<LaneOpener> },
    /// The worker's lane of it.
    Sealer { number: u32, sealer: Box<LaneSealer> },
    /// Where packets for a peer go.
    Way { peer: NodeId, told: Told },
    /// A session is no more.
    End(u32),
}

/// The leave to send to a peer without the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Under this session.
    pub(crate) number: u32,
    pub(crate) to: SocketAddr,
    /// Frames are handed to the kernel one by one.
    pub(crate) single: bool,
}

/// What workers know of the way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// Without it, packets go to the node.
    pub(crate) grant: Option<Grant>,
    /// The longest packet of a path that has a limit.
    pub(crate) clamp: Option<usize>,
    /// The node sends its packets over the relay.
    pub(crate) by_relay: bool,
}

/// What a worker gives to the node, in this order.
#[derive(Debug)]
pub enum ToNode {
    /// A packet of the device, for [`Node::handle_passed`].
    Packet {
        /// Its bytes.
        packet: Vec<u8>,
        /// What is left to be done for it.
        offload: Offload,
    },
    /// A frame for another thread; for [`Node::handle_frame`] where that is the first.
    Frame {
        /// Whose it is.
        thread: u16,
        /// What it came over.
        path: Path,
        /// Its bytes.
        frame: Vec<u8>,
    },
    /// A message to the node itself, for [`Node::handle_passed_control`].
    Control {
        /// Our number of the session that it came under.
        number: u32,
        /// What it came over.
        path: Path,
        /// Its bytes.
        message: Vec<u8>,
    },
    /// The worker asks for its lane of the session with this number, for [`Node::handle_want`].
    Want(u32),
    /// What the worker did, for [`Node::handle_report`].
    Report(Box<Report>),
    /// To be given back when all before it has been dealt with and has left.
    Mark(u64),
    /// The same, which waits until there is room on the way to the relay, too: the worker passes on no more packets for it
    /// before.
    Window(u64),
}

/// A frame that came to the wrong thread.
#[derive(Debug)]
pub struct Stray {
    /// Whose it is.
    pub thread: u16,
    /// What it came over.
    pub path: Path,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// What waits for the workers.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// One queue for each worker.
    news: Vec<VecDeque<News>>,
    strays: VecDeque<Stray>,
    /// Peers whose grant is to be looked at again.
    pub(crate) dirty: BTreeSet<Slot>,
    /// The thread whose packet is handled.
    pub(crate) origin: u16,
}

impl Sharing {
    pub(crate) fn new(threads: u16) -> Self {
        let workers = usize::from(threads.saturating_sub(1));
        Self { news: (0..workers).map(|_| VecDeque::new()).collect(), ..Self::default() }
    }

    pub(crate) const fn is_shared(&self) -> bool {
        !self.news.is_empty()
    }

    fn tell_all(&mut self, item: impl Fn() -> Item) {
        for queue in &mut self.news {
            queue.push_back(News(item()));
        }
    }

    pub(crate) fn stray(&mut self, thread: u16, path: Path, frame: &[u8]) {
        self.strays.push_back(Stray { thread, path, frame: frame.to_vec() });
    }
}

impl Node {
    /// Sends a packet that a worker passed on. Poll as after [`Node::handle_offloaded`].
    pub fn handle_passed(
        &mut self,
        now: Now,
        thread: u16,
        (packet, offload): (&[u8], &Offload),
        tx: &mut TxQueue,
    ) {
        self.sharing.origin = thread;
        self.handle_offloaded(now, packet, offload, tx);
        self.sharing.origin = 0;
    }

    /// Takes a message to the node that a worker opened. Poll as after [`Node::handle_frame`].
    pub fn handle_passed_control(
        &mut self,
        now: Now,
        (number, path): (u32, Path),
        message: &[u8],
        tx: &mut TxQueue,
    ) {
        if let Some(slot) = self.owners.get(number) {
            self.handle_control(now, (slot, number, path), message, tx);
        }
    }

    /// Hands the worker of a thread its lane of a session, where there is one; a mark that the worker asked for comes back
    /// behind that. Poll for news afterwards.
    pub fn handle_want(&mut self, thread: u16, number: u32) {
        let Some(slot) = self.owners.get(number) else { return };
        let peer = &mut self.peers[slot.0];
        let Some(live) = peer.sessions.iter_mut().find(|live| live.number.get() == number) else { return };
        let at = usize::from(thread).wrapping_sub(1);
        let sealer = live.lanes.get_mut(at).and_then(Option::take);
        if let (Some(sealer), Some(news)) = (sealer, self.sharing.news.get_mut(at)) {
            news.push_back(News(Item::Sealer { number, sealer: Box::new(sealer) }));
        }
    }

    /// Looks what the workers are to be told. Call after every `handle_*` and before [`Node::poll_news`], where there are
    /// workers.
    pub fn share_out(&mut self, now: Now) {
        for number in self.owners.take_removed() {
            self.sharing.tell_all(|| Item::End(number));
        }
        for slot in std::mem::take(&mut self.sharing.dirty) {
            self.renew_grant(now.instant, slot);
        }
    }

    /// Keeps an address of a peer from the workers: the first thread has the socket that it answers. Call after
    /// [`NodeEvent::Path`](crate::NodeEvent::Path) and before [`Node::share_out`].
    pub fn keep_alone(&mut self, peer: NodeId, address: Option<SocketAddr>) {
        if let Some(slot) = self.by_id.get(&peer).copied() {
            self.peers[slot.0].alone = address;
            self.unsettle(slot);
        }
    }

    /// Takes the next news for the worker of a thread, 1 and up. Poll after [`Node::share_out`].
    pub fn poll_news(&mut self, thread: u16) -> Option<News> {
        self.sharing.news.get_mut(usize::from(thread).checked_sub(1)?)?.pop_front()
    }

    /// Takes the next frame that is a worker's. Poll after the news.
    pub fn poll_stray(&mut self) -> Option<Stray> {
        self.sharing.strays.pop_front()
    }

    /// Has the grant of a peer looked at again.
    pub(crate) fn unsettle(&mut self, slot: Slot) {
        if self.sharing.is_shared() {
            self.sharing.dirty.insert(slot);
        }
    }

    /// Tells the workers whom addresses belong to.
    pub(crate) fn share_routes(&mut self) {
        if !self.sharing.is_shared() {
            return;
        }
        let ids: Arc<[NodeId]> = self.peers.iter().map(|peer| peer.id).collect();
        let routes = &self.routes;
        self.sharing.tell_all(|| Item::Routes(Arc::clone(routes), Arc::clone(&ids)));
        self.sharing.dirty = (0..self.peers.len()).map(Slot).collect();
    }

    /// Hands the lanes of a session that begins to the workers.
    pub(crate) fn share_session(&mut self, slot: Slot, live: &mut Live) {
        if !self.sharing.is_shared() || self.config.link != Link::Ip {
            return;
        }
        let threads = u16::try_from(self.sharing.news.len() + 1).expect("16 threads at most");
        let (number, peer) = (live.number.get(), self.peers[slot.0].id);
        let divided = live.session.divide(threads);
        for (queue, Lanes { sealer, opener }) in self.sharing.news.iter_mut().zip(divided) {
            live.lanes.push(sealer);
            queue.push_back(News(Item::Session { number, peer, opener: Box::new(opener) }));
        }
        self.sharing.dirty.insert(slot);
    }

    fn renew_grant(&mut self, now: Instant, slot: Slot) {
        let grant = self.grant(now, slot);
        let id = self.peers[slot.0].id;
        if let Some((_, until)) = grant {
            self.arm(slot, until);
        }
        let grant = grant.map(|(grant, _)| grant);
        let by_relay = grant.is_none() && self.reached_by_relay(slot);
        let told = Told { grant, clamp: self.clamp(slot), by_relay };
        let peer = &mut self.peers[slot.0];
        if std::mem::replace(&mut peer.shared, told) != told {
            self.sharing.tell_all(|| Item::Way { peer: id, told });
        }
    }

    /// Returns how workers may send to a peer, and until when that holds.
    fn grant(&self, now: Instant, slot: Slot) -> Option<(Grant, Instant)> {
        let peer = &self.peers[slot.0];
        let live = &peer.sessions[self.data_session(now, slot)?];
        let way = self.way(now, slot);
        // What waits goes first; and only one path is sent over from several threads.
        let waits = !peer.queue.is_empty() || peer.held.is_some();
        // A path with a limit is the node's alone.
        let limited = self.clamp(slot).is_some();
        if limited || live.lanes.is_empty() || waits || way.also.is_some() {
            return None;
        }
        let to = direct(way.path).filter(|to| peer.alone != Some(*to))?;
        let grant = Grant { number: live.number.get(), to, single: way.single };
        let stale = live.established + self.config.timings.stale();
        Some((grant, peer.paths.sure_until().map_or(stale, |until| until.min(stale))))
    }
}
