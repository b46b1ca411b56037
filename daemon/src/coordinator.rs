//! The coordinator: the node that holds the network's root keys answers joining nodes in the network's mailbox.
//!
//! In: requests to invite, and messages that guests of the relay send to the network's id. Out: tickets, sealed
//! answers, and each new roster, signed, stored, then given to this node and to the relay for all members.
//!
//! Invariants: an admission is durable before it is answered, in one file with the use of its invitation; a guest gets
//! an answer only to an invitation's id, and beyond that only with the invitation's secret; all tables are bounded.

mod answer;
mod ledger;
mod mailboxes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_control::{ApiError, ErrorCode, InviteAnswer, InviteRequest, SecretText, Timestamp};
use mesh_identity::{Identity, Roster, Ticket, TicketSecret, UnixSeconds};
use mesh_session::Session;
use mesh_session::handshake::{AwaitResponse, Local, Network, Peer, Purpose};
use mesh_wire::control::{Control, REFUSAL_TEXT, Refusal};
use mesh_wire::frame::SEALED;
use mesh_wire::handshake::{ENROL, INVITE_ID, RESPONSE, encode_enrol_unknown, parse_enrol};
use mesh_wire::{NodeId, Pin, RelayUrl};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::answer::Answer;
pub use self::ledger::{FRESH_FOR, Ledger, LedgerError, MEMBERSHIP};
use self::mailboxes::{Mailboxes, Number};
use crate::engine::unix_now;
use crate::enrol::link::{Heard, Link, Receiver, open_control, random, seal_control};
use crate::relays::list;
use crate::roster_seal;
use crate::state::{Membership, StateDir};

/// Guests that are joining at a time.
const GUESTS: usize = 256;
/// Guests that may be joining with one invitation beyond the places it has left: whoever came late is told so, and a
/// spent ticket in many hands does not keep the holders of others out.
const LATE_GUESTS: usize = 2;
/// Parts of an answer on their way to a guest: the relay keeps the newest message for a slow reader, however long it
/// takes, so that of two parts none is dropped.
const IN_FLIGHT: usize = 2;
/// How long a guest may take from one message to the next.
const GUEST_AGE: Duration = Duration::from_secs(10);
/// How often the dates of memberships are looked at.
const RENEW_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Requests to invite that wait.
const REQUESTS: usize = 16;

/// The daemon's hold on a running coordinator; dropping it ends the task.
#[derive(Debug)]
pub struct Coordinator {
    requests: mpsc::Sender<Request>,
    task: AbortOnDropHandle<()>,
}

/// What a coordinator is made of.
#[derive(Debug)]
pub struct CoordinatorConfig {
    /// Where the ledger is stored.
    pub state: Arc<StateDir>,
    /// The network's root keys and the libraries.
    pub root: Local,
    /// The network.
    pub membership: Membership,
    /// The ledger as loaded.
    pub ledger: Ledger,
    /// Relays of the node's own configuration.
    pub relays: Vec<(RelayUrl, Pin)>,
}

/// A change of the relays that the roster announces.
#[derive(Debug, Clone)]
pub enum RelayChange {
    /// One more, with its key.
    Add(RelayUrl, Pin),
    /// One less.
    Remove(RelayUrl),
}

type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

#[derive(Debug)]
enum Request {
    Invite(InviteRequest, Reply<InviteAnswer>),
    Relays(RelayChange, Reply<()>),
}

impl Coordinator {
    /// Connects to the relays as the network's root and answers. Each new roster appears in the returned channel.
    #[must_use]
    pub fn start(config: CoordinatorConfig, stop: CancellationToken) -> (Self, watch::Receiver<Arc<Roster>>) {
        let (link, heard) = Link::new();
        let relays = Mailboxes::new(Arc::clone(&config.root.identity), config.membership.net, link);
        let (rosters, receiver) = watch::channel(Arc::clone(config.ledger.roster()));
        let (requests, incoming) = mpsc::channel(REQUESTS);
        let desk = Desk { relays, config, guests: BTreeMap::new(), next_index: 0, rosters };
        let task = tokio::spawn(desk.run(heard, incoming, stop));
        (Self { requests, task: AbortOnDropHandle::new(task) }, receiver)
    }

    /// Asks for a ticket; the answer goes to `reply`.
    pub fn invite(&self, request: InviteRequest, reply: Reply<InviteAnswer>) {
        self.ask(Request::Invite(request, reply));
    }

    /// Asks for a roster that announces other relays; the answer goes to `reply`.
    pub fn change_relays(&self, change: RelayChange, reply: Reply<()>) {
        self.ask(Request::Relays(change, reply));
    }

    fn ask(&self, request: Request) {
        let busy = || ApiError::new(ErrorCode::Busy, "too many requests at once; try again");
        match self.requests.try_send(request).map_err(mpsc::error::TrySendError::into_inner) {
            Ok(()) => {}
            Err(Request::Invite(_, reply)) => drop(reply.send(Err(busy()))),
            Err(Request::Relays(_, reply)) => drop(reply.send(Err(busy()))),
        }
    }

    /// Waits for the end after the stop signal: from then on the ledger on the disk changes no more. Each step of the
    /// task is bounded.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the coordinator did not end in order");
        }
    }
}

/// A guest that is joining.
struct Guest {
    /// Where it is.
    relay: Number,
    invite: [u8; INVITE_ID],
    expires: Instant,
    step: Step,
}

enum Step {
    Challenged(Box<AwaitResponse>),
    Proven(Box<Peer>, Box<Session>),
    Answering(Box<Session>, Answer),
}

struct Desk {
    config: CoordinatorConfig,
    relays: Mailboxes,
    guests: BTreeMap<NodeId, Guest>,
    next_index: u32,
    rosters: watch::Sender<Arc<Roster>>,
}

impl Desk {
    async fn run(
        mut self,
        mut heard: Receiver,
        mut requests: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) {
        let mut renew = interval(RENEW_EVERY);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.publish();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(request) = requests.recv() => match request {
                    Request::Invite(request, reply) => drop(reply.send(self.invite(&request))),
                    Request::Relays(change, reply) => drop(reply.send(self.change_relays(change))),
                },
                Some(message) = heard.recv() => self.hear(message),
                _ = renew.tick() => self.renew(),
            }
        }
        self.relays.stop().await;
    }

    fn invite(&mut self, request: &InviteRequest) -> Result<InviteAnswer, ApiError> {
        let secret = TicketSecret::generate()
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        let membership = &self.config.membership;
        let expires = unix_now().saturating_add(request.ttl_s);
        let (relay, pin) =
            self.relays.meeting_place().unwrap_or_else(|| (membership.relay.clone(), membership.pin));
        let ticket = Ticket::new(membership.net, relay, pin, secret, UnixSeconds(expires));
        let mut next = self.config.ledger.clone();
        next.invite(&ticket, request, unix_now()).map_err(|error| ledger_error(&error))?;
        self.store(next)?;
        Ok(InviteAnswer {
            ticket: SecretText::new(std::mem::take(&mut *ticket.to_text())),
            expires: Timestamp::from_unix_seconds(expires),
            uses: request.uses,
        })
    }

    fn hear(&mut self, heard: Heard) {
        let Heard::Frames { relay, from, mut payload } = heard else { return };
        let now = Instant::now();
        self.forget_idle(now);
        match payload.first().copied() {
            Some(ENROL) => self.challenge(now, (relay, from), &payload),
            Some(RESPONSE) => self.prove(now, from, &payload),
            Some(SEALED) => self.sealed(now, from, &mut payload),
            _ => {}
        }
    }

    fn challenge(&mut self, now: Instant, (relay, from): (Number, NodeId), message: &[u8]) {
        let Ok((invite, hello)) = parse_enrol(message) else { return };
        let Some(psk) = self.config.ledger.psk(&invite) else {
            return self.relays.send(relay, from, &encode_enrol_unknown(&invite));
        };
        if !self.has_room(from, &invite) {
            // Anybody who knows the id of an invitation gets here: no reason for a line in every log.
            return tracing::debug!(peer = %from.short(), "too many nodes join at once; this one has to try again");
        }
        let Ok(nonce) = random() else { return };
        let own = self.config.membership.net.as_party();
        let network = Network::new(self.config.membership.net, psk, Purpose::Enrol);
        self.next_index = self.next_index.wrapping_add(1);
        match AwaitResponse::start(&self.config.root, &network, own, hello, self.next_index, nonce) {
            Ok((state, challenge)) => {
                let step = Step::Challenged(Box::new(state));
                self.guests.insert(from, Guest { relay, invite, expires: now + GUEST_AGE, step });
                self.relays.send(relay, from, &challenge);
            }
            Err(error) => tracing::debug!(peer = %from.short(), %error, "HELLO of a guest is refused"),
        }
    }

    fn prove(&mut self, now: Instant, from: NodeId, message: &[u8]) {
        let own = self.config.membership.net.as_party();
        let Some(Guest { step: Step::Challenged(state), .. }) = self.guests.get(&from) else { return };
        let peer = match state.take(&self.config.root, own, message) {
            Ok(peer) if peer.id == from => peer,
            Ok(_) => {
                return tracing::debug!(peer = %from.short(), "a guest proves other keys than at the relay");
            }
            Err(error) => {
                return tracing::debug!(peer = %from.short(), %error, "RESPONSE of a guest is refused");
            }
        };
        let Some(Guest { relay, invite, step: Step::Challenged(state), .. }) = self.guests.remove(&from)
        else {
            return;
        };
        let proven = state.proven(peer, message);
        let Ok((peer, session, established)) = proven.establish(&self.config.root, &crate::enrol::claims())
        else {
            return;
        };
        let step = Step::Proven(Box::new(peer), Box::new(session));
        self.guests.insert(from, Guest { relay, invite, expires: now + GUEST_AGE, step });
        self.relays.send(relay, from, &established);
    }

    fn has_room(&self, from: NodeId, invite: &[u8; INVITE_ID]) -> bool {
        let others = || self.guests.iter().filter(|(id, _)| **id != from);
        let same = others().filter(|(_, guest)| guest.invite == *invite).count();
        others().count() < GUESTS && same < self.config.ledger.places(invite).saturating_add(LATE_GUESTS)
    }

    fn sealed(&mut self, now: Instant, from: NodeId, frame: &mut [u8]) {
        match self.guests.get_mut(&from).map(|guest| &mut guest.step) {
            Some(Step::Proven(_, session)) => {
                let Some(Control::EnrolRequest { name }) = open_control(session, frame) else { return };
                let name = name.to_owned();
                self.admit(now, from, &name);
            }
            Some(Step::Answering(session, _)) => {
                if open_control(session, frame) == Some(Control::Keepalive) {
                    self.send_parts(now, from, 1);
                }
            }
            Some(Step::Challenged(_)) | None => {}
        }
    }

    fn admit(&mut self, now: Instant, from: NodeId, name: &str) {
        let Some(Guest { relay, invite, step: Step::Proven(peer, mut session), .. }) =
            self.guests.remove(&from)
        else {
            return;
        };
        match self.admission(&invite, &peer, name) {
            Ok(roster) => {
                let answer = Answer::new(&self.config.membership, &roster);
                let step = Step::Answering(session, answer);
                self.guests.insert(from, Guest { relay, invite, expires: now, step });
                self.send_parts(now, from, IN_FLIGHT);
                self.publish();
            }
            Err((refusal, text)) => {
                let text: String = text.chars().take(REFUSAL_TEXT / 4).collect();
                let refused = Control::EnrolRefused { refusal, text: &text };
                seal_and_send(&self.relays, (relay, from), &mut session, &refused);
            }
        }
    }

    /// Sends a guest the next parts of its answer, and forgets it with the last one.
    fn send_parts(&mut self, now: Instant, to: NodeId, count: usize) {
        let Some(Guest { relay, expires, step: Step::Answering(session, answer), .. }) =
            self.guests.get_mut(&to)
        else {
            return;
        };
        *expires = now + GUEST_AGE;
        for _ in 0..count {
            if let Some(part) = answer.next_part() {
                seal_and_send(&self.relays, (*relay, to), session, &part);
            }
        }
        if answer.is_sent() {
            self.guests.remove(&to);
        }
    }

    /// Uses the invitation and signs the roster, stores both in one step, then tells.
    fn admission(
        &mut self,
        invite: &[u8; INVITE_ID],
        peer: &Peer,
        name: &str,
    ) -> Result<Arc<Roster>, (Refusal, String)> {
        let mut next = self.config.ledger.clone();
        let changed = next
            .admit(invite, &peer.identity, name, unix_now(), &self.config.root.identity)
            .map_err(|error| (error.refusal(), error.to_string()))?;
        if changed {
            self.store(next).map_err(|error| {
                tracing::warn!(reason = %error.message, "an admission could not be stored");
                (Refusal::Storage, "the coordinator could not store the admission".to_owned())
            })?;
            tracing::info!(peer = %peer.id.short(), epoch = self.config.ledger.roster().version(), "a node was admitted");
        }
        Ok(Arc::clone(self.config.ledger.roster()))
    }

    fn change_relays(&mut self, change: RelayChange) -> Result<(), ApiError> {
        let mut next = self.config.ledger.clone();
        let changed = next
            .change_relays(change, unix_now(), &self.config.root.identity)
            .map_err(|error| ledger_error(&error))?;
        if changed {
            self.store(next)?;
            self.publish();
        }
        Ok(())
    }

    fn renew(&mut self) {
        let mut next = self.config.ledger.clone();
        match next.renew(unix_now(), &self.config.root.identity) {
            Ok(false) => {}
            Ok(true) => match self.store(next) {
                Ok(()) => self.publish(),
                Err(error) => {
                    tracing::warn!(reason = %error.message, "renewed memberships could not be stored")
                }
            },
            Err(error) => tracing::warn!(%error, "memberships could not be renewed"),
        }
    }

    fn store(&mut self, next: Ledger) -> Result<(), ApiError> {
        next.store(&self.config.state)
            .map_err(|error| ApiError::new(ErrorCode::Storage, crate::one_line(&error)))?;
        self.config.ledger = next;
        Ok(())
    }

    /// Gives the roster in force to this node and, sealed, to the relays: those that it names, and as farewell those that
    /// it names no more.
    fn publish(&mut self) {
        let roster = Arc::clone(self.config.ledger.roster());
        match roster_seal::seal(&self.config.membership, &roster) {
            Ok(blob) => self.relays.put_roster(roster.version(), &Bytes::from(blob)),
            Err(error) => tracing::warn!(reason = %error.message, "the roster could not be sealed"),
        }
        self.config.membership.roster = Arc::clone(&roster);
        self.relays.set_list(&list::of(&self.config.membership, &self.config.relays));
        self.rosters.send_replace(roster);
    }

    fn forget_idle(&mut self, now: Instant) {
        let relays = &self.relays;
        self.guests.retain(|id, guest| {
            let keep = guest.expires > now;
            if !keep {
                relays.unbind(guest.relay, *id);
            }
            keep
        });
    }
}

fn seal_and_send(
    relays: &Mailboxes,
    (relay, to): (Number, NodeId),
    session: &mut Session,
    message: &Control<'_>,
) {
    match seal_control(session, message) {
        Ok(frame) => relays.send(relay, to, &frame),
        Err(error) => tracing::warn!(%error, "answer to a joining node could not be sealed"),
    }
}

fn ledger_error(error: &LedgerError) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, error.to_string())
}

/// Makes the root keys usable in handshakes.
#[must_use]
pub fn root_local(root: Arc<Identity>, like: &Local) -> Local {
    Local { identity: root, provider: like.provider, aead: like.aead }
}
