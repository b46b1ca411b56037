//! What waits to be sent to the relay, and which handles it has given out. Pure: no socket, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use mesh_wire::NodeId;
use mesh_wire::limits::RELAY_PAYLOAD;
use mesh_wire::relay::{Bound, ClientMessage, Data, Direction, NO_HANDLE, RosterBlob};

/// As many nodes are bound as a client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many nodes are bound at the relay")]
pub struct QueueFull;

/// Why frames were not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many bytes wait already; frames of a tunnel are dropped then.
    #[error("too many frames wait for the relay")]
    QueueFull,
    /// The node is neither bound nor did it send frames on this connection.
    #[error("the node is not bound at the relay")]
    Unbound,
    /// There is no connection.
    #[error("the relay is not connected")]
    Down,
    /// The payload is empty, longer than a relay forwards, or its segment size is zero.
    #[error("the payload has a size that no relay forwards")]
    Size,
}

/// Outgoing messages of one client, in the order control, bindings, roster, frames.
#[derive(Debug)]
pub(super) struct Queue {
    up: bool,
    peers: BTreeMap<NodeId, Peer>,
    handles: HashMap<u32, NodeId>,
    /// Handles that ended, the latest last: PEER_GONE overtakes the last frames of the node.
    departed: VecDeque<u32>,
    control: VecDeque<Vec<u8>>,
    to_bind: VecDeque<NodeId>,
    /// Nodes that were asked for, and are no longer wanted, before the relay has told their handles.
    unwanted: BTreeSet<NodeId>,
    roster: Option<(u64, Bytes)>,
    roster_pending: bool,
    frames: VecDeque<(u32, Frames)>,
    frame_bytes: usize,
    above_half: bool,
}

#[derive(Debug, Default)]
struct Peer {
    /// Asked for by `bind`, hence asked for again on the next connection.
    wanted: bool,
    handle: Option<u32>,
    /// The relay has refused the binding on this connection.
    refused: bool,
    /// Frames from before the relay has told the handle.
    waiting: VecDeque<Frames>,
}

#[derive(Debug)]
struct Frames {
    payload: BytesMut,
    segment: Option<u16>,
    class: u8,
}

/// Frames that leave as datagrams.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagrams {
    pub(super) handle: u32,
    pub(super) payload: BytesMut,
    pub(super) segment: Option<u16>,
    /// The traffic class that the datagrams are to have.
    pub(super) class: u8,
}

impl Peer {
    /// Keeps frames until there is a handle. Returns the bytes of older ones that were dropped for them.
    fn wait(&mut self, frames: Frames) -> usize {
        self.waiting.push_back(frames);
        let mut bytes: usize = self.waiting.iter().map(|frames| frames.payload.len()).sum();
        let mut dropped = 0;
        while bytes > WAITING_BYTES
            && let Some(oldest) = self.waiting.pop_front()
        {
            bytes -= oldest.payload.len();
            dropped += oldest.payload.len();
        }
        dropped
    }
}

/// What a presence message changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presence {
    pub(super) node: NodeId,
    pub(super) present: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            up: false,
            peers: BTreeMap::new(),
            handles: HashMap::new(),
            departed: VecDeque::new(),
            control: VecDeque::new(),
            to_bind: VecDeque::new(),
            unwanted: BTreeSet::new(),
            roster: None,
            roster_pending: false,
            frames: VecDeque::new(),
            frame_bytes: 0,
            above_half: false,
        }
    }

    pub(super) fn bind(&mut self, node: NodeId) -> Result<(), QueueFull> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&node) {
            return Err(QueueFull);
        }
        let peer = self.peers.entry(node).or_default();
        // A handle that the relay gave unasked lasts until the node goes; asking makes it last.
        let asked = std::mem::replace(&mut peer.wanted, true);
        self.unwanted.remove(&node);
        if self.up && !asked {
            self.to_bind.push_back(node);
        }
        Ok(())
    }

    pub(super) fn unbind(&mut self, node: NodeId) {
        let Some(peer) = self.peers.remove(&node) else { return };
        self.release(&peer);
        let queued = self.to_bind.len();
        self.to_bind.retain(|queued| *queued != node);
        if let Some(handle) = peer.handle {
            self.handles.remove(&handle);
            self.push_control(ClientMessage::Unbind(handle).encode());
        } else if self.up && self.to_bind.len() == queued && !peer.refused && self.unwanted.len() < MAX_PEERS
        {
            self.unwanted.insert(node);
        }
    }

    pub(super) fn send(
        &mut self,
        to: NodeId,
        payload: BytesMut,
        segment: Option<u16>,
    ) -> Result<(), SendError> {
        self.send_as(to, payload, segment, 0)
    }

    /// Queues frames whose datagrams, if they leave as such, are to have a traffic class.
    pub(super) fn send_as(
        &mut self,
        to: NodeId,
        payload: BytesMut,
        segment: Option<u16>,
        class: u8,
    ) -> Result<(), SendError> {
        if payload.is_empty() || payload.len() > RELAY_PAYLOAD || segment == Some(0) {
            return Err(SendError::Size);
        }
        if !self.up {
            return Err(SendError::Down);
        }
        let peer = self.peers.get_mut(&to).filter(|peer| !peer.refused).ok_or(SendError::Unbound)?;
        if self.frame_bytes + payload.len() > FRAME_BYTES {
            return Err(SendError::QueueFull);
        }
        self.frame_bytes += payload.len();
        self.above_half |= self.frame_bytes >= FRAME_BYTES / 2;
        let frames = Frames { payload, segment, class };
        match peer.handle {
            Some(handle) => self.frames.push_back((handle, frames)),
            None => {
                // The newest are worth most when the handle comes, and one peer does not fill the queue of all.
                self.frame_bytes -= peer.wait(frames);
            }
        }
        Ok(())
    }

    pub(super) fn put_roster(&mut self, version: u64, blob: Bytes) {
        self.roster = Some((version, blob));
        self.roster_pending = self.up;
    }

    /// Queues a message of the connection itself; beyond the limit the newest is dropped.
    pub(super) fn push_control(&mut self, message: Vec<u8>) {
        if self.control.len() < CONTROL_MESSAGES {
            self.control.push_back(message);
        }
    }

    pub(super) const fn queued_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Starts a connection: every wanted node is asked for, and the roster is given, once more.
    pub(super) fn connected(&mut self) {
        self.up = true;
        self.to_bind = self.peers.iter().filter(|(_, peer)| peer.wanted).map(|(node, _)| *node).collect();
        self.roster_pending = self.roster.is_some();
    }

    /// Ends a connection. Returns whether the caller has to tell that there is room.
    pub(super) fn disconnected(&mut self) -> bool {
        self.up = false;
        self.handles.clear();
        self.departed.clear();
        self.control.clear();
        self.to_bind.clear();
        self.unwanted.clear();
        self.frames.clear();
        self.peers.retain(|_, peer| peer.wanted);
        for peer in self.peers.values_mut() {
            peer.handle = None;
            peer.refused = false;
            peer.waiting.clear();
        }
        self.frame_bytes = 0;
        std::mem::replace(&mut self.above_half, false)
    }

    /// Takes the next message to send.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.pop_message(|_, _| false)
    }

    /// Takes the next message to send; frames that `keep` wants stay, for [`Queue::pop_frames`].
    pub(super) fn pop_message(&mut self, keep: impl Fn(&[u8], Option<u16>) -> bool) -> Option<Bytes> {
        if let Some(message) = self.control.pop_front() {
            return Some(message.into());
        }
        if let Some(node) = self.to_bind.pop_front() {
            return Some(ClientMessage::Bind(node).encode().into());
        }
        if std::mem::replace(&mut self.roster_pending, false)
            && let Some((version, blob)) = &self.roster
        {
            let message = ClientMessage::RosterPut(RosterBlob { version: *version, blob });
            return Some(message.encode().into());
        }
        let (handle, frames) =
            self.frames.pop_front_if(|(_, frames)| !keep(&frames.payload, frames.segment))?;
        self.frame_bytes -= frames.payload.len();
        let data = Data { handle, segment: frames.segment, payload: &frames.payload };
        let mut message = Vec::with_capacity(data.header_len() + data.payload.len());
        data.write(&mut message, Direction::Send);
        Some(message.into())
    }

    /// Takes the next frames, if `fit` says so.
    pub(super) fn pop_frames(&mut self, fit: impl Fn(&[u8], Option<u16>) -> bool) -> Option<Datagrams> {
        let (handle, frames) =
            self.frames.pop_front_if(|(_, frames)| fit(&frames.payload, frames.segment))?;
        self.frame_bytes -= frames.payload.len();
        let Frames { payload, segment, class } = frames;
        Some(Datagrams { handle, payload, segment, class })
    }

    /// Returns, once, that the waiting bytes fell below half of the limit.
    pub(super) fn take_room(&mut self) -> bool {
        let room = self.above_half && self.frame_bytes < FRAME_BYTES / 2;
        self.above_half &= !room;
        room
    }

    /// Takes BOUND. Returns `None` when the relay has given out more handles than a client may have.
    pub(super) fn bound(&mut self, bound: &Bound) -> Option<Presence> {
        let unwanted = self.unwanted.remove(&bound.node);
        if bound.handle == NO_HANDLE {
            self.refuse(bound.node);
            return Some(Presence { node: bound.node, present: false });
        }
        if unwanted {
            self.push_control(ClientMessage::Unbind(bound.handle).encode());
            return Some(Presence { node: bound.node, present: false });
        }
        if self.handles.len() >= 2 * MAX_PEERS {
            return None;
        }
        self.handles.insert(bound.handle, bound.node);
        let peer = self.peers.entry(bound.node).or_default();
        peer.refused = false;
        if let Some(old) = peer.handle.replace(bound.handle)
            && old != bound.handle
        {
            self.handles.remove(&old);
        }
        self.frames.extend(peer.waiting.drain(..).map(|frames| (bound.handle, frames)));
        Some(Presence { node: bound.node, present: bound.present })
    }

    pub(super) fn peer_present(&self, handle: u32) -> Option<Presence> {
        Some(Presence { node: *self.handles.get(&handle)?, present: true })
    }

    /// Takes PEER_GONE; it also ends a handle that this side never asked for.
    pub(super) fn peer_gone(&mut self, handle: u32) -> Option<Presence> {
        let node = *self.handles.get(&handle)?;
        if self.departed.contains(&handle) {
            return None;
        }
        if self.peers.get(&node).is_some_and(|peer| !peer.wanted) {
            self.peers.remove(&node);
            self.departed.push_back(handle);
            if self.departed.len() > DEPARTED
                && let Some(oldest) = self.departed.pop_front()
            {
                self.handles.remove(&oldest);
            }
        }
        Some(Presence { node, present: false })
    }

    pub(super) fn node(&self, handle: u32) -> Option<NodeId> {
        self.handles.get(&handle).copied()
    }

    fn refuse(&mut self, node: NodeId) {
        if let Some(mut peer) = self.peers.remove(&node) {
            self.release(&peer);
            peer.waiting.clear();
            peer.refused = true;
            self.peers.insert(node, peer);
        }
    }

    fn release(&mut self, peer: &Peer) {
        let waiting: usize = peer.waiting.iter().map(|frames| frames.payload.len()).sum();
        self.frame_bytes -= waiting;
    }
}

/// Bytes of frames that wait at most; a caller that gets [`SendError::QueueFull`] drops.
const FRAME_BYTES: usize = 512 * 1024;
/// Of these, frames of one node that wait for its handle at most: one full batch.
const WAITING_BYTES: usize = RELAY_PAYLOAD;
/// Answers to PING and UNBINDs that wait at most, far below 64 KiB; the newest is dropped.
const CONTROL_MESSAGES: usize = 1024;
/// Ended handles under which frames are still taken.
const DEPARTED: usize = 64;
/// Nodes of one network, and guests, that a client binds at most.
const MAX_PEERS: usize = 8192;

#[cfg(test)]
#[cfg(not(modelled))]
mod tests;
