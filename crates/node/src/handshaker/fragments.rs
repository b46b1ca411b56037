//! Handshake messages over UDP: taken apart, put together, repeated until they are acknowledged.
//!
//! Nothing is kept of a datagram before its tag or seal was checked. A HELLO or CHALLENGE is keyed by the network's
//! secret only, so their parts share a small table; the parts of RESPONSE and ESTABLISHED are sealed under keys of the
//! one handshake that they belong to, and are kept there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_session::handshake::{Assembly, Fragments};
use mesh_wire::fragment::{Fragment, FragmentHeader, MESSAGE_ID, MessageKind};

use super::Handshaker;
use crate::counters::DropReason;
use crate::node::Now;
use crate::path::Path;
use crate::tx::TxQueue;

/// Parts that nobody acknowledged are repeated after this, so often.
const RESEND: Duration = Duration::from_millis(250);
const RESENDS: u8 = 2;
/// HELLOs and CHALLENGEs that are put together at a time; of more, the oldest are forgotten: 2.3 KB each.
const INCOMING: usize = 1024;
/// HELLOs whose origin is remembered; of more, the oldest are forgotten: 100 B each.
const ORIGINS: usize = 4096;
/// How long their parts are kept: the parts of one message leave together.
const INCOMING_AGE: Duration = Duration::from_secs(1);
/// Answered handshakes whose ESTABLISHED may still have to be repeated; of more, the oldest are forgotten: 14 KB each.
const CLOSING: usize = 256;

/// A message on its way out, in parts.
#[derive(Debug)]
pub(super) struct Outgoing {
    path: Path,
    parts: Vec<Vec<u8>>,
    /// One bit for each part that arrived.
    acknowledged: u64,
    resend_at: Option<Instant>,
    left: u8,
}

/// HELLOs and CHALLENGEs on their way in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    messages: BTreeMap<(Path, MessageKind, [u8; MESSAGE_ID]), (Instant, Assembly)>,
    order: VecDeque<(Path, MessageKind, [u8; MESSAGE_ID])>,
}

/// Where each HELLO came from first.
///
/// A copy of a HELLO that somebody captured is as valid as the HELLO itself, and checking it costs the most that a
/// stranger can make us spend. Its id is covered by the tags of its parts, so that under load copies from elsewhere are
/// told by it alone. Without load they are treated like the first, or whoever outruns a HELLO would shut its sender out.
#[derive(Debug, Default)]
pub(super) struct Origins {
    first: BTreeMap<[u8; MESSAGE_ID], Path>,
    order: VecDeque<[u8; MESSAGE_ID]>,
}

/// ESTABLISHEDs that the initiator has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Closing(VecDeque<(Arc<Fragments>, Outgoing)>);

impl Outgoing {
    /// Sends all parts.
    pub(super) fn new(now: Instant, path: Path, parts: Vec<Vec<u8>>, tx: &mut TxQueue) -> Self {
        for part in &parts {
            tx.message(path, part);
        }
        Self { path, parts, acknowledged: 0, resend_at: Some(now + RESEND), left: RESENDS }
    }

    pub(super) const fn path(&self) -> Path {
        self.path
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.resend_at
    }

    /// Sends the parts again that did not arrive, if it is time.
    pub(super) fn resend(&mut self, now: Instant, tx: &mut TxQueue) {
        if self.resend_at.is_none_or(|at| at > now) {
            return;
        }
        self.left -= 1;
        self.resend_at = (self.left > 0).then(|| now + RESEND);
        for (at, part) in self.parts.iter().enumerate() {
            if self.acknowledged & (1 << at) == 0 {
                tx.message(self.path, part);
            }
        }
    }

    /// Notes which parts arrived; true when all did.
    pub(super) fn acknowledge(&mut self, bitmap: u64) -> bool {
        self.acknowledged |= bitmap;
        let whole = (0..self.parts.len()).all(|at| self.acknowledged & (1 << at) != 0);
        if whole {
            self.resend_at = None;
        }
        whole
    }
}

impl Incoming {
    /// Adds a part whose tag was checked, and returns the message once it is whole.
    fn add(&mut self, now: Instant, from: Path, header: &FragmentHeader, payload: &[u8]) -> Option<Vec<u8>> {
        let key = (from, header.kind, header.message);
        if !self.messages.contains_key(&key) {
            self.make_room();
            self.messages.insert(key, (now, Assembly::new(header)));
            self.order.push_back(key);
        }
        let (_, assembly) = self.messages.get_mut(&key)?;
        if !assembly.add(header, payload).unwrap_or(false) {
            return None;
        }
        // It is among the last: the parts of one message leave together.
        if let Some(at) = self.order.iter().rposition(|known| *known == key) {
            self.order.remove(at);
        }
        self.messages.remove(&key).map(|(_, assembly)| assembly.into_bytes())
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front()
            && self.messages.get(oldest).is_none_or(|(since, _)| *since + INCOMING_AGE <= now)
        {
            self.messages.remove(oldest);
            self.order.pop_front();
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let oldest = self.order.front()?;
        self.messages.get(oldest).map(|(since, _)| *since + INCOMING_AGE)
    }

    fn make_room(&mut self) {
        if self.order.len() == INCOMING
            && let Some(oldest) = self.order.pop_front()
        {
            self.messages.remove(&oldest);
        }
    }
}

impl Origins {
    /// Notes a HELLO of which a part was checked.
    fn note(&mut self, from: Path, message: [u8; MESSAGE_ID]) {
        if self.first.contains_key(&message) {
            return;
        }
        if self.order.len() == ORIGINS
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        self.first.insert(message, from);
        self.order.push_back(message);
    }

    fn is_copy(&self, from: Path, message: [u8; MESSAGE_ID]) -> bool {
        self.first.get(&message).is_some_and(|first| *first != from)
    }
}

impl Closing {
    pub(super) fn put(&mut self, fragments: Arc<Fragments>, outgoing: Outgoing) {
        if self.0.len() == CLOSING {
            self.0.pop_front();
        }
        self.0.push_back((fragments, outgoing));
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, outgoing)| outgoing.due()).min()
    }

    /// Takes an acknowledgement; true when it was for one of these.
    fn acknowledge(&mut self, from: Path, datagram: &[u8]) -> bool {
        let found = self
            .0
            .iter()
            .position(|(fragments, outgoing)| outgoing.path == from && fragments.open_ack(datagram).is_ok());
        let Some(at) = found else { return false };
        let (fragments, outgoing) = &mut self.0[at];
        if fragments.open_ack(datagram).is_ok_and(|bitmap| outgoing.acknowledge(bitmap)) {
            self.0.remove(at);
        }
        true
    }

    fn resend(&mut self, now: Instant, tx: &mut TxQueue) {
        for (_, outgoing) in &mut self.0 {
            outgoing.resend(now, tx);
        }
        self.0.retain(|(_, outgoing)| outgoing.due().is_some());
    }
}

impl Handshaker {
    /// Repeats the ESTABLISHEDs that were not acknowledged.
    pub(super) fn resend(&mut self, now: Instant, tx: &mut TxQueue) {
        self.closing.resend(now, tx);
    }

    /// Takes a part of a message, or the acknowledgement of parts.
    pub(super) fn handle_fragment(
        &mut self,
        now: Now,
        from: Path,
        datagram: &[u8],
        backlog: usize,
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        match Fragment::parse(datagram).map_err(|_| DropReason::Malformed)? {
            Fragment::Ack(ack, _) => self.handle_ack(from, ack.receiver, datagram),
            Fragment::Part(header, ..) => match header.kind {
                MessageKind::Hello => {
                    if self.gate.is_loaded(now.instant, backlog) && self.origins.is_copy(from, header.message)
                    {
                        return Err(DropReason::Replayed);
                    }
                    self.handle_tagged(now, from, datagram, self.own, backlog, tx)
                }
                MessageKind::Challenge => {
                    let responder =
                        self.awaits_challenge(header.receiver, from).ok_or(DropReason::HandshakeRefused)?;
                    self.handle_tagged(now, from, datagram, responder, backlog, tx)
                }
                MessageKind::Response => {
                    let half = self.half_open.get_mut(&from).ok_or(DropReason::HandshakeRefused)?;
                    let fragments = half.state.fragments();
                    match take_sealed(&fragments, &mut half.inbound, datagram)? {
                        Taken::Whole(message) => self.handle_message(now, from, &message, backlog, tx),
                        Taken::Missing(Some(bitmap)) => {
                            tx.message(from, &fragments.acknowledge(bitmap));
                            Ok(())
                        }
                        Taken::Missing(None) => Ok(()),
                    }
                }
                MessageKind::Established => self.handle_established_part(now, from, &header, datagram, tx),
            },
        }
    }

    /// Takes a part of a HELLO to us or of a CHALLENGE to a HELLO of ours.
    fn handle_tagged(
        &mut self,
        now: Now,
        from: Path,
        datagram: &[u8],
        responder: mesh_wire::NodeId,
        backlog: usize,
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let (header, payload) =
            self.network.open_part(datagram, responder).map_err(|_| DropReason::Stranger)?;
        if header.kind == MessageKind::Hello {
            self.origins.note(from, header.message);
        }
        match self.incoming.add(now.instant, from, &header, payload) {
            Some(message) => self.handle_message(now, from, &message, backlog, tx),
            None => Ok(()),
        }
    }

    fn handle_established_part(
        &mut self,
        now: Now,
        from: Path,
        header: &FragmentHeader,
        datagram: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let (fragments, inbound) =
            self.awaits_established(header.receiver, from).ok_or(DropReason::HandshakeRefused)?;
        let taken = take_sealed(&fragments, inbound, datagram)?;
        match taken {
            Taken::Whole(message) => {
                let all = (1 << u32::from(header.count)) - 1;
                tx.message(from, &fragments.acknowledge(all));
                self.handle_established(now, from, &message)
            }
            Taken::Missing(Some(bitmap)) => {
                tx.message(from, &fragments.acknowledge(bitmap));
                Ok(())
            }
            Taken::Missing(None) => Ok(()),
        }
    }

    fn handle_ack(&mut self, from: Path, receiver: u32, datagram: &[u8]) -> Result<(), DropReason> {
        let acknowledged = self.acknowledge_response(receiver, from, datagram);
        if acknowledged || self.closing.acknowledge(from, datagram) {
            Ok(())
        } else {
            Err(DropReason::HandshakeRefused)
        }
    }
}

/// What a sealed part led to.
enum Taken {
    Whole(Vec<u8>),
    /// More is missing; where the sender is done with a round, it is to be told what arrived.
    Missing(Option<u64>),
}

fn take_sealed(
    fragments: &Fragments,
    inbound: &mut Option<Assembly>,
    datagram: &[u8],
) -> Result<Taken, DropReason> {
    let (header, payload) = fragments.open_part(datagram).map_err(|_| DropReason::Forged)?;
    let assembly = inbound.get_or_insert_with(|| Assembly::new(&header));
    let before = assembly.bitmap();
    let whole = assembly.add(&header, &payload).map_err(|_| DropReason::Malformed)?;
    if whole {
        return Ok(inbound
            .take()
            .map_or(Taken::Missing(None), |assembly| Taken::Whole(assembly.into_bytes())));
    }
    // The last part, or one that was here before, ends what the sender sent at once.
    let ends = header.is_last() || before == assembly.bitmap();
    Ok(Taken::Missing(ends.then(|| assembly.bitmap())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_origin_of_a_hello_is_remembered_in_bounded_room() {
        let from = |host: u8| Path::Udp(std::net::SocketAddr::from(([192, 0, 2, host], 1)));
        let mut origins = Origins::default();
        assert!(!origins.is_copy(from(1), [7; 8]));
        origins.note(from(1), [7; 8]);
        origins.note(from(2), [7; 8]);
        assert!(!origins.is_copy(from(1), [7; 8]) && origins.is_copy(from(2), [7; 8]));
        assert!(!origins.is_copy(from(2), [8; 8]));
        for number in 0..ORIGINS {
            origins.note(from(3), u64::try_from(number).unwrap().to_le_bytes());
        }
        assert_eq!((origins.first.len(), origins.order.len()), (ORIGINS, ORIGINS));
        assert!(!origins.is_copy(from(2), [7; 8]), "the oldest is forgotten");
    }
}
