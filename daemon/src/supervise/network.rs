//! How the node gets into a network: by creating one, or with a ticket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use mesh_control::{ApiError, ErrorCode, NoticeLevel, RelayRequest, UpAnswer};
use mesh_identity::{Identity, NewMember, RosterDraft, Ticket, UnixSeconds, default_pool};
use mesh_net::{RelayClient, RelayConfig, RelayEvent};
use mesh_wire::relay::Role;
use mesh_wire::roster::{Ipv4Pool, Link as NetworkLink, Name, RosterSettings};
use mesh_wire::{NetId, Pin, RelayUrl};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::{JoinEvent, Joining, Reply, Supervisor};
use crate::config::Mode;
use crate::coordinator::{FRESH_FOR, Ledger, MEMBERSHIP, RelayChange};
use crate::engine::unix_now;
use crate::enrol::link::{Heard, Link, random};
use crate::enrol::{join, ticket_error};
use crate::state::Membership;
use crate::{interface, one_line};

/// How long creating a network waits for the relay's first word; one that is down is no obstacle.
const RELAY_CHECK: Duration = Duration::from_secs(3);
/// Address ranges tried before a machine counts as full of routes.
const POOLS: u32 = 64;

impl Supervisor {
    /// Creates a network with this node as coordinator, and comes up.
    pub(super) async fn up_new(
        &mut self,
        network_name: &str,
        relay: &str,
        node_name: Option<&str>,
        pool: Option<Ipv4Net>,
    ) -> Result<UpAnswer, ApiError> {
        let (relay, pin) = parse_relay(relay)?;
        if let Some(membership) = &self.membership {
            let settings = membership.roster.settings();
            let same = settings.name.as_str() == network_name
                && membership.relay == relay
                && membership.pin == pin
                && self.root().is_some();
            return if same { self.up_resume().await } else { Err(self.already_enrolled()) };
        }
        if self.joining.is_some() {
            return Err(ApiError::new(ErrorCode::Busy, "this node is joining a network")
                .with_hint("give that up first: meshctl down"));
        }
        let network_name = parse_name(network_name, "network")?;
        let node_name = match node_name {
            Some(name) => parse_name(name, "node")?,
            None => host_name().unwrap_or_else(|| "node-1".parse().expect("it is a DNS label")),
        };
        let root = match &self.root {
            // Left by an attempt that went no further; it has signed nothing that anybody holds.
            Some(root) => Arc::clone(root),
            None => Arc::new(Identity::generate().map_err(|error| internal(&error))?),
        };
        self.state.check_room().map_err(|error| storage(&error))?;
        check_relay(&relay, pin, &root).await?;
        let settings = RosterSettings {
            name: network_name,
            ipv4_pool: default_pool(root.net_id(), 0),
            link: self.configured_link(),
            mtu: self.shared.config.mtu,
            relays: vec![(relay.clone(), pin)],
        };
        let settings = self.choose_pool(settings, root.net_id(), pool).await?;
        let membership = self.found(&root, settings, node_name, (relay, pin)).await?;
        self.membership = Some(membership);
        self.root = Some(root);
        self.start_running().await?;
        self.up_answer(true)
    }

    /// Reads a change of the relays that the roster announces, and asks a new one whether it takes this network.
    pub(super) async fn relay_change(&self, request: &RelayRequest) -> Result<RelayChange, ApiError> {
        match request {
            RelayRequest::Add { relay } => {
                let (url, pin) = parse_relay(relay)?;
                self.coordinating("change its relays")?;
                if let Some(root) = self.root() {
                    check_relay(&url, pin, root).await?;
                }
                Ok(RelayChange::Add(url, pin))
            }
            RelayRequest::Remove { relay } => {
                let (url, _) = RelayUrl::parse_with_pin(relay).map_err(|error| {
                    ApiError::new(ErrorCode::BadRequest, format!("relay {relay}: {error}"))
                })?;
                Ok(RelayChange::Remove(url))
            }
        }
    }

    /// Joins with a ticket; the answer comes when the node is admitted, however long the relay or the coordinator is
    /// away.
    pub(super) async fn up_join(&mut self, ticket: &str, name: Option<&str>, reply: Reply<UpAnswer>) {
        match self.prepare_join(ticket, name).await {
            Ok(None) => {
                let answer = self.up_resume().await;
                let _ = reply.send(answer);
            }
            Ok(Some((ticket, name))) => {
                let (progress, watched) = watch::channel(String::new());
                let local = self.local.clone();
                let task = tokio::spawn(async move { join(&ticket, &local, &name, &progress).await });
                let mut replies = vec![reply];
                if let Some(before) = self.joining.take() {
                    // The newer ticket counts; who waits for the older one learns how this one ends.
                    replies.extend(before.replies);
                }
                self.joining =
                    Some(Joining { task: AbortOnDropHandle::new(task), progress: watched, replies });
                self.show();
            }
            Err(error) => {
                self.retry_later(&error);
                let _ = reply.send(Err(error));
            }
        }
    }

    pub(super) async fn join_event(&mut self, event: JoinEvent) {
        let done = match event {
            JoinEvent::Progress => return self.show(),
            JoinEvent::Done(done) => *done,
        };
        let Some(joining) = self.joining.take() else { return };
        let answer = match done {
            Ok(membership) => self.joined(membership).await,
            Err(error) => {
                self.retry_later(&error);
                Err(error)
            }
        };
        match &answer {
            Ok(answer) => tracing::info!(network = %answer.network.name, "joined"),
            Err(error) => tracing::warn!(reason = %error.message, "joining failed"),
        }
        self.show();
        for reply in joining.replies {
            let _ = reply.send(answer.clone());
        }
    }

    /// Stores the membership and comes up. Where this machine has no room for the network, nothing is stored: the same
    /// ticket admits this node again.
    async fn joined(&mut self, membership: Membership) -> Result<UpAnswer, ApiError> {
        if !self.may_join(membership.net)? {
            return self.up_resume().await;
        }
        interface::check(&self.shared.config, &membership.roster, self.shared.own).await?;
        self.state.store_membership(&membership).map_err(|error| {
            ApiError::new(ErrorCode::Storage, one_line(&error)).with_hint(
                "make room or repair the disk, then use the same ticket again: it still admits this node",
            )
        })?;
        self.membership = Some(membership);
        self.start_running().await?;
        self.up_answer(true)
    }

    /// Checks a ticket, and that this machine can make an interface; none when this node is in its network already.
    async fn prepare_join(
        &mut self,
        text: &str,
        name: Option<&str>,
    ) -> Result<Option<(Ticket, String)>, ApiError> {
        let ticket = Ticket::parse(text).map_err(ticket_error)?;
        if !self.may_join(ticket.net())? {
            return Ok(None);
        }
        ticket.check_expiry(UnixSeconds(unix_now())).map_err(ticket_error)?;
        let name = match name {
            Some(name) => parse_name(name, "node")?.to_string(),
            None => host_name().map_or_else(|| "~node".to_owned(), |name| format!("~{name}")),
        };
        // With a membership that has ended nothing works that could be disturbed.
        self.stop_running().await;
        self.retry = None;
        interface::check_possible(&self.shared.config, self.configured_link()).await?;
        self.state.check_room().map_err(|error| storage(&error))?;
        Ok(Some((ticket, name)))
    }

    /// Returns what a network made here carries, and what a node that joins expects.
    fn configured_link(&self) -> NetworkLink {
        self.shared.config.mode.map_or(NetworkLink::Tun, NetworkLink::from)
    }

    /// Tells people where the network carries something else than this node is configured for.
    pub(super) fn compare_mode(&self, settings: &RosterSettings) {
        let differs = |mode: Mode| NetworkLink::from(mode) != settings.link;
        if self.shared.config.mode.is_some_and(differs) {
            let carries = match settings.link {
                NetworkLink::Tun => "tun",
                NetworkLink::Tap => "tap",
            };
            let text =
                format!("the network's mode is {carries}, which counts; the configuration says another");
            tracing::warn!(network = %settings.name, "{text}");
            self.shared.notice(NoticeLevel::Warning, None, text);
        }
    }

    /// Tells whether there is anything to join for: false for a member, whose time has not ended. A coordinator renews
    /// its own.
    pub(super) fn may_join(&self, net: NetId) -> Result<bool, ApiError> {
        let Some(membership) = &self.membership else { return Ok(true) };
        if membership.net != net {
            return Err(self.already_enrolled());
        }
        let own = membership.roster.leaf(&self.shared.own);
        Ok(self.root().is_none() && own.is_none_or(|leaf| leaf.not_after.0 <= unix_now()))
    }

    fn already_enrolled(&self) -> ApiError {
        let name = self.membership.as_ref().map(|membership| membership.roster.settings().name.to_string());
        ApiError::new(
            ErrorCode::AlreadyEnrolled,
            format!("this node is in the network \"{}\" already", name.unwrap_or_default()),
        )
        .with_hint(
            "a second network needs a second daemon with its own --state-dir, --socket and --interface",
        )
    }

    /// Picks an address range that no route of this machine is in the way of.
    async fn choose_pool(
        &self,
        mut settings: RosterSettings,
        net: NetId,
        wanted: Option<Ipv4Net>,
    ) -> Result<RosterSettings, ApiError> {
        let interface = &self.shared.config.interface;
        if let Some(wanted) = wanted {
            settings.ipv4_pool = Ipv4Pool::new(wanted.network(), wanted.prefix_len()).map_err(|error| {
                ApiError::new(ErrorCode::BadRequest, format!("--ipv4-pool {wanted}: {error}"))
            })?;
            interface::check_pool(&settings, interface).await?;
            return Ok(settings);
        }
        let mut last = None;
        for attempt in 0..POOLS {
            settings.ipv4_pool = default_pool(net, attempt);
            match interface::check_pool(&settings, interface).await {
                Err(error) if error.code == ErrorCode::PoolOverlap => last = Some(error),
                Err(error) => return Err(error),
                Ok(()) => return Ok(settings),
            }
        }
        Err(last.unwrap_or_else(|| ApiError::new(ErrorCode::PoolOverlap, "no free address range")))
    }

    /// Signs the first roster and, where this machine has room for its interface, stores keys, ledger and membership;
    /// the membership last, so that an attempt that ends half way leaves a node in no network.
    async fn found(
        &mut self,
        root: &Arc<Identity>,
        settings: RosterSettings,
        name: Name,
        (relay, pin): (RelayUrl, Pin),
    ) -> Result<Membership, ApiError> {
        let now = unix_now();
        let member = NewMember {
            name,
            groups: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            not_before: UnixSeconds(now),
            not_after: UnixSeconds(now + MEMBERSHIP),
        };
        let draft = RosterDraft::new(root.public(), settings, self.shared.own, member)
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, one_line(&error)))?;
        let roster =
            Arc::new(draft.sign(root, UnixSeconds(now), FRESH_FOR).map_err(|error| internal(&error))?);
        let membership = Membership {
            net: root.net_id(),
            network_secret: Zeroizing::new(random()?),
            secret_epoch: 1,
            relay,
            pin,
            up: true,
            roster: Arc::clone(&roster),
        };
        interface::check(&self.shared.config, &roster, self.shared.own).await?;
        if self.root.is_none() {
            self.state
                .store_root(root)
                .map_err(|error| ApiError::new(ErrorCode::Storage, format!("{error:#}")))?;
            self.root = Some(Arc::clone(root));
        }
        let ledger = Ledger::new(roster);
        ledger.store(&self.state).map_err(|error| storage(&error))?;
        self.state.store_membership(&membership).map_err(|error| storage(&error))?;
        Ok(membership)
    }
}

/// Asks the relay once whether it takes this network: a wrong pin or a refusal is better told before anything is
/// stored. A relay that is down is no obstacle.
async fn check_relay(relay: &RelayUrl, pin: Pin, root: &Arc<Identity>) -> Result<(), ApiError> {
    let (link, mut heard) = Link::new();
    let client = RelayClient::start(
        RelayConfig {
            door: None,
            udp: true,
            url: relay.clone(),
            pin: Some(pin),
            role: Role::Root,
            net: root.net_id(),
            identity: Arc::clone(root),
            admission: Vec::new(),
        },
        Arc::new(link),
    );
    let deadline = Instant::now() + RELAY_CHECK;
    let mut result = Ok(());
    while let Ok(Some(heard)) = timeout_at(deadline, heard.recv()).await {
        match heard {
            Heard::Event(RelayEvent::Up { .. }) => break,
            Heard::Event(RelayEvent::Down { reason, .. }) => {
                result = crate::relay_error(relay, &reason).map_or(Ok(()), Err);
                break;
            }
            Heard::Event(_) | Heard::Frames { .. } => {}
        }
    }
    client.stop().await;
    result
}

fn parse_relay(text: &str) -> Result<(RelayUrl, Pin), ApiError> {
    let bad = |what: String| {
        ApiError::new(ErrorCode::BadRequest, format!("the relay address {what}"))
            .with_hint("it reads wss://host:port#PIN, as the relay prints it at its start")
    };
    let (relay, pin) = RelayUrl::parse_with_pin(text).map_err(|error| bad(format!("is wrong: {error}")))?;
    Ok((relay, pin.ok_or_else(|| bad("has no pin".to_owned()))?))
}

fn parse_name(text: &str, what: &str) -> Result<Name, ApiError> {
    text.parse().map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, format!("the {what} name \"{text}\" is wrong: {error}"))
    })
}

/// Returns this machine's host name, made into a name for a node.
fn host_name() -> Option<Name> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let label = text.trim().split('.').next()?.to_ascii_lowercase();
    let clean: String =
        label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(54).collect();
    clean.trim_matches('-').parse().ok()
}

fn storage(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::Storage, one_line(error))
}

fn internal(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, one_line(error))
}
