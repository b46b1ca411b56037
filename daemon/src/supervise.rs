//! Which task runs when: the daemon's state machine around the engine, the relay client and the coordinator.
//!
//! In: requests of the API, events of the engine, the relay and the coordinator, the stop signal. Out: answers, events
//! for listeners, and the [`View`] that status shows.
//!
//! Order of start: interface, relay client, engine, coordinator. Order of stop: coordinator, goodbye to peers, flush of
//! the relay connection (at most 1 s), engine, interface with its addresses and routes.
//!
//! Invariants: one request changes things at a time; what must not stop half way runs here and not in a caller's
//! future; stopping twice is harmless.

mod connections;
mod doors;
mod handle;
mod machines;
mod network;
mod peers;
mod pending;
mod proof;
mod relays;
mod roster;
mod running;
mod sinks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_control::{
    ApiError, DownAnswer, ErrorCode, Event, EventKind, InviteAnswer, InviteRequest, NodeState, NoticeLevel,
    Readiness, RelayRequest, RelayStatus, UpAnswer, UpRequest,
};
use mesh_identity::Identity;
use mesh_node::Timings;
use mesh_session::handshake::Local;
use mesh_session::{AeadProvider, PqProvider};
use mesh_wire::NodeId;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use self::handle::Handle;
use self::running::{RunEvent, Running};
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::engine::{Command, EngineSnapshot, Inbox, unix_now};
use crate::one_line;
use crate::state::{Membership, StateDir};
use crate::status::{self, View};

/// Requests that wait; the API bounds its connections itself.
const REQUESTS: usize = 32;
/// Events that a slow listener may fall behind.
const EVENTS: usize = 256;
/// The engine shows itself within this, or is stuck.
const SNAPSHOT: Duration = Duration::from_secs(2);
/// From one start to the next attempt, where it failed.
const RETRY: Duration = Duration::from_secs(10);

type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// What the API asks.
pub(crate) enum Request {
    Up(UpRequest, Reply<UpAnswer>),
    Down(Reply<DownAnswer>),
    Invite(InviteRequest, Reply<InviteAnswer>),
    Relays(RelayRequest, Reply<()>),
}

/// What the supervisor and the API share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) identity: Arc<Identity>,
    pub(crate) own: NodeId,
    pub(crate) timings: Timings,
    pub(crate) ice: &'static dyn mesh_ice::Library,
    view: Mutex<View>,
    /// What peers say they run, by node id.
    software: Mutex<BTreeMap<String, String>>,
    inbox: Mutex<Option<Arc<Inbox>>>,
    events: broadcast::Sender<Event>,
    /// The peers that listeners are to hear of.
    changed: peers::Changed,
}

/// What a node computes with, and when it replaces its keys.
#[derive(Debug, Clone, Copy)]
pub struct Libraries {
    /// ML-KEM and the signer.
    pub provider: &'static dyn PqProvider,
    /// ChaCha20-Poly1305.
    pub aead: &'static dyn AeadProvider,
    /// When keys are replaced.
    pub timings: Timings,
    /// Agents of ICE, where the configuration wants them.
    pub ice: &'static dyn mesh_ice::Library,
}

impl Libraries {
    /// Returns what the configuration names, with the timings of the protocol.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            provider: config.provider.provider(),
            aead: if config.aes { config.aead.provider_with_aes() } else { config.aead.provider() },
            timings: Timings::default(),
            ice: &mesh_ice::SansIo,
        }
    }
}

/// The daemon's actor.
pub struct Supervisor {
    shared: Arc<Shared>,
    state: Arc<StateDir>,
    local: Local,
    /// The keys of a network's root, not necessarily of the network that this node is in; see [`Supervisor::root`].
    root: Option<Arc<Identity>>,
    membership: Option<Membership>,
    requests: mpsc::Receiver<Request>,
    running: Option<Running>,
    joining: Option<Joining>,
    retry: Option<Retry>,
}

/// Another attempt to come up, later.
struct Retry {
    at: Instant,
    /// Why the last one failed.
    reason: String,
}

/// An enrolment under way.
struct Joining {
    task: AbortOnDropHandle<Result<Membership, ApiError>>,
    progress: watch::Receiver<String>,
    replies: Vec<Reply<UpAnswer>>,
}

impl Supervisor {
    /// Loads what is stored; starts nothing.
    ///
    /// # Errors
    /// One line that names the damaged or unreadable file.
    pub fn new(config: Config, state: Arc<StateDir>) -> anyhow::Result<(Self, Handle)> {
        let libraries = Libraries::of(&config);
        Self::with_libraries(config, state, libraries)
    }

    /// The same with other cryptographic libraries and timings than the configuration can name, for laboratories that
    /// record keys or cannot wait for their replacement.
    ///
    /// # Errors
    /// As [`Supervisor::new`].
    pub fn with_libraries(
        config: Config,
        state: Arc<StateDir>,
        libraries: Libraries,
    ) -> anyhow::Result<(Self, Handle)> {
        let identity = Arc::new(state.identity()?);
        let root = state.root()?.map(Arc::new);
        let membership = state.membership(unix_now())?;
        let local =
            Local { identity: Arc::clone(&identity), provider: libraries.provider, aead: libraries.aead };
        let shared = Arc::new(Shared {
            own: identity.node_id(),
            identity,
            config,
            timings: libraries.timings,
            ice: libraries.ice,
            view: Mutex::default(),
            software: Mutex::default(),
            inbox: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            changed: peers::Changed::default(),
        });
        let (sender, requests) = mpsc::channel(REQUESTS);
        let mut supervisor = Self {
            shared: Arc::clone(&shared),
            state,
            local,
            root,
            membership,
            requests,
            running: None,
            joining: None,
            retry: None,
        };
        supervisor.coordination()?;
        supervisor.show();
        Ok((supervisor, Handle::new(shared, sender)))
    }

    /// Runs until `stop`, then takes everything down.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.membership.as_ref().is_some_and(|membership| membership.up) {
            self.start_by_itself().await;
        }
        let _peers = AbortOnDropHandle::new(tokio::spawn(peers::tell(Arc::clone(&self.shared))));
        loop {
            let retry_at = self.retry.as_ref().map(|retry| retry.at);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(request) = self.requests.recv() => self.request(request).await,
                event = next_event(&mut self.running) => self.run_event(event).await,
                event = next_join(&mut self.joining) => self.join_event(event).await,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    self.start_by_itself().await;
                }
            }
        }
        self.joining = None;
        self.stop_running().await;
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Up(UpRequest::New { network_name, relay, node_name, ipv4_pool }, reply) => {
                let answer = self.up_new(&network_name, &relay, node_name.as_deref(), ipv4_pool).await;
                let _ = reply.send(answer);
            }
            Request::Up(UpRequest::Join { ticket, node_name }, reply) => {
                self.up_join(ticket.expose(), node_name.as_deref(), reply).await;
            }
            Request::Up(UpRequest::Resume {}, reply) => {
                let answer = self.up_resume().await;
                let _ = reply.send(answer);
            }
            Request::Down(reply) => {
                let answer = self.down().await;
                let _ = reply.send(answer);
            }
            Request::Invite(request, reply) => match self.coordinating("invite") {
                Ok(coordinator) => coordinator.invite(request, reply),
                Err(refusal) => drop(reply.send(Err(refusal))),
            },
            Request::Relays(request, reply) => {
                let change = self.relay_change(&request).await;
                match change.and_then(|change| Ok((change, self.coordinating("change its relays")?))) {
                    Ok((change, coordinator)) => coordinator.change_relays(change, reply),
                    Err(refusal) => drop(reply.send(Err(refusal))),
                }
            }
        }
    }

    async fn up_resume(&mut self) -> Result<UpAnswer, ApiError> {
        if self.membership.is_none() {
            return Err(ApiError::new(ErrorCode::NotEnrolled, "this node is in no network").with_hint(
                "create one: meshctl up --new NAME --relay URL#PIN; or join one: meshctl up --ticket-file FILE",
            ));
        }
        let changed = self.running.is_none();
        self.set_wish(true)?;
        self.start_running().await?;
        if let Some(running) = &self.running {
            running.hurry();
        }
        self.up_answer(changed)
    }

    async fn down(&mut self) -> Result<DownAnswer, ApiError> {
        let changed = self.running.is_some() || self.joining.is_some();
        if let Some(joining) = self.joining.take() {
            for reply in joining.replies {
                let _ = reply
                    .send(Err(ApiError::new(ErrorCode::Down, "joining was given up by \"meshctl down\"")));
            }
        }
        self.retry = None;
        if self.membership.is_some() {
            self.set_wish(false)?;
        }
        self.stop_running().await;
        self.show();
        Ok(DownAnswer { state: self.shared.view().state, changed })
    }

    /// Returns the coordinator that runs here, or why there is none; `what` is what it would do.
    fn coordinating(&self, what: &str) -> Result<&Coordinator, ApiError> {
        let running = self.running.as_ref().map(Running::coordinator);
        match (&self.membership, self.root(), running) {
            (None, _, _) => Err(ApiError::new(ErrorCode::NotEnrolled, "this node is in no network")
                .with_hint("create one: meshctl up --new NAME --relay URL#PIN")),
            (_, None, _) | (_, _, Some(None)) => Err(ApiError::new(
                ErrorCode::NotCoordinator,
                format!("only the network's coordinator can {what}"),
            )
            .with_hint("run the same on the node that created the network")),
            (_, _, None) => {
                Err(ApiError::new(ErrorCode::Down, "this node is down").with_hint("run \"meshctl up\" first"))
            }
            (_, _, Some(Some(coordinator))) => Ok(coordinator),
        }
    }

    /// Remembers whether the daemon is to come up by itself.
    fn set_wish(&mut self, up: bool) -> Result<(), ApiError> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        if membership.up != up {
            let mut next = membership.clone();
            next.up = up;
            self.state
                .store_membership(&next)
                .map_err(|error| ApiError::new(ErrorCode::Storage, one_line(&error)))?;
            *membership = next;
        }
        Ok(())
    }

    async fn start_by_itself(&mut self) {
        if let Err(error) = self.start_running().await {
            tracing::warn!(reason = %error.message, "cannot come up");
            self.shared.notice(NoticeLevel::Warning, Some(error.code), error.message);
        }
    }

    /// Comes up, or tries again by itself later.
    async fn start_running(&mut self) -> Result<(), ApiError> {
        self.retry = None;
        if self.running.is_some() {
            return Ok(());
        }
        let started = self.start().await;
        if let Err(error) = &started {
            self.retry_later(error);
        }
        self.show();
        started
    }

    /// Has a node that is to be up, and is not, come up by itself later. Waiting does not make a node a member.
    fn retry_later(&mut self, error: &ApiError) {
        let wanted = self.membership.as_ref().is_some_and(|membership| membership.up);
        if wanted && self.running.is_none() && error.code != ErrorCode::NotEnrolled {
            self.retry = Some(Retry { at: Instant::now() + RETRY, reason: error.message.clone() });
        }
    }

    async fn start(&mut self) -> Result<(), ApiError> {
        let root =
            self.coordination().map_err(|error| ApiError::new(ErrorCode::StateDamaged, one_line(&error)))?;
        let Some(membership) = self.membership.clone() else { return Ok(()) };
        self.compare_mode(membership.roster.settings());
        self.shared.change(|view| view.state = NodeState::Starting);
        let running = Running::start(&self.shared, &self.state, &self.local, membership, root).await?;
        *lock(&self.shared.inbox) = Some(running.inbox());
        self.running = Some(running);
        Ok(())
    }

    async fn stop_running(&mut self) {
        *lock(&self.shared.inbox) = None;
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.show();
    }

    async fn run_event(&mut self, event: RunEvent) {
        let Some(running) = &mut self.running else { return };
        match running.handle(&self.shared, event) {
            running::After::Nothing => {}
            running::After::Show => self.show(),
            running::After::Adopt(roster) => self.adopt(roster).await,
            running::After::Failed(error) => {
                tracing::warn!(reason = %error.message, "the node failed; starting anew");
                self.shared.notice(NoticeLevel::Warning, Some(error.code), error.message.clone());
                // At once, unless it fails again and again.
                let at = (running.since() + RETRY).max(Instant::now());
                self.stop_running().await;
                self.retry = Some(Retry { at, reason: error.message });
                self.show();
            }
        }
    }

    /// Brings the view up to date and tells listeners when it changed.
    fn show(&self) {
        let running = self.running.as_ref();
        let mut view = self.shared.view().clone();
        view.membership.clone_from(&self.membership);
        view.relay = running.and_then(Running::home_relay).cloned();
        view.relays = running.map(Running::relays).unwrap_or_default();
        view.pool = running.map(Running::pool);
        view.door = running.and_then(Running::door);
        view.doors = running.map(Running::doors).unwrap_or_default();
        view.beside = running.map(Running::beside).unwrap_or_default();
        view.lan = running.and_then(Running::lan);
        view.ice = running.and_then(Running::ice);
        view.state = match (&self.membership, running) {
            (_, None) if self.joining.is_some() => NodeState::Starting,
            (None, _) => NodeState::Unenrolled,
            (Some(_), None) if self.retry.is_some() => NodeState::Starting,
            (Some(_), None) => NodeState::Down,
            (Some(_), Some(running)) => running.state(),
        };
        view.ready = match running {
            Some(running) => running.readiness(),
            None => Readiness { reason: self.waits_for(), ..Readiness::default() },
        };
        let before = self.shared.replace(view.clone());
        if before.state != view.state || before.ready != view.ready {
            self.shared.event(EventKind::State { state: view.state, ready: view.ready });
        }
        if let Some(relay) = view.relay
            && before.relay.is_none_or(|before| RelayStatus { rtt_ms: relay.rtt_ms, ..before } != relay)
        {
            self.shared.event(EventKind::Relay { relay });
        }
    }

    /// Says what a node that is not running waits for.
    fn waits_for(&self) -> String {
        match (&self.joining, &self.retry) {
            (Some(joining), _) => joining.progress.borrow().clone(),
            (None, Some(retry)) => {
                format!("the next attempt to come up, as the last one failed: {}", retry.reason)
            }
            (None, None) if self.membership.is_none() => {
                "\"meshctl up\" with a ticket or a new network".into()
            }
            (None, None) => "\"meshctl up\"".into(),
        }
    }

    fn up_answer(&self, changed: bool) -> Result<UpAnswer, ApiError> {
        let view = self.shared.view().clone();
        let parts = self.membership.as_ref().and_then(|membership| {
            let network = status::network(self.shared.own, membership);
            status::node(&self.shared.config, self.shared.own, membership).map(|node| (network, node))
        });
        let (network, node) = parts
            .ok_or_else(|| ApiError::new(ErrorCode::NotEnrolled, "this node was removed from its network"))?;
        Ok(UpAnswer { state: view.state, changed, network, node, ready: view.ready })
    }
}

impl Shared {
    /// Notes what a peer says it runs.
    pub(crate) fn set_software(&self, peer: NodeId, software: String) {
        self.software.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.to_string(), software);
    }

    /// Returns what a peer said it runs, by its node id.
    pub(crate) fn software(&self, peer: &str) -> Option<String> {
        self.software.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    pub(crate) fn inbox(&self) -> Option<Arc<Inbox>> {
        lock(&self.inbox).clone()
    }

    /// What the engine says of itself; none while there is none, or when it is stuck.
    pub(crate) async fn snapshot(&self) -> Option<EngineSnapshot> {
        let inbox = self.inbox()?;
        let (reply, answer) = oneshot::channel();
        inbox.command(Command::Snapshot(reply));
        timeout(SNAPSHOT, answer).await.ok()?.ok()
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(crate) fn event(&self, kind: EventKind) {
        // Without listeners an event is for nobody.
        let _ = self.events.send(Event::now(kind));
    }

    pub(crate) fn notice(&self, level: NoticeLevel, code: Option<ErrorCode>, message: String) {
        self.event(EventKind::Notice { level, code, message });
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view();
        change(&mut view);
        let (state, ready) = (view.state, view.ready.clone());
        drop(view);
        self.event(EventKind::State { state, ready });
    }

    fn replace(&self, view: View) -> View {
        std::mem::replace(&mut *self.view(), view)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn next_event(running: &mut Option<Running>) -> RunEvent {
    match running {
        Some(running) => running.next().await,
        None => std::future::pending().await,
    }
}

/// What an enrolment under way reports.
pub(crate) enum JoinEvent {
    Progress,
    Done(Box<Result<Membership, ApiError>>),
}

async fn next_join(joining: &mut Option<Joining>) -> JoinEvent {
    let Some(joining) = joining else { return std::future::pending().await };
    tokio::select! {
        biased;
        done = &mut joining.task => JoinEvent::Done(Box::new(done.unwrap_or_else(|error| {
            Err(ApiError::new(ErrorCode::Internal, format!("joining failed: {error}")))
        }))),
        Ok(()) = joining.progress.changed() => JoinEvent::Progress,
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("own", &self.shared.own).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("own", &self.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
