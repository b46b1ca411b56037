//! What the API asks of the daemon.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use mesh_control::{
    ApiError, DownAnswer, ErrorCode, Event, Id, InviteAnswer, InviteRequest, Netcheck, NodeState, PathKind,
    PeerStatus, PingAnswer, PingRequest, PingVia, RelayRequest, Relays, Status, UpAnswer, UpRequest,
};
use mesh_node::{Echo, NoPath, Path, Via};
use mesh_wire::NodeId;
use mesh_wire::roster::Leaf;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::timeout;

use super::{Request, Shared};
use crate::api::Backend;
use crate::engine::Command;
use crate::state::Membership;
use crate::{netcheck, status};

/// The API's hold on the daemon.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// One look at the network at a time.
    netcheck: Semaphore,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, requests: mpsc::Sender<Request>) -> Self {
        Self { shared, requests, netcheck: Semaphore::new(1) }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Request,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || ApiError::new(ErrorCode::Down, "meshd is stopping");
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    fn membership(&self) -> Result<Membership, ApiError> {
        self.shared.view().membership.clone().ok_or_else(|| {
            ApiError::new(ErrorCode::NotEnrolled, "this node is in no network").with_hint(
                "create one: meshctl up --new NAME --relay URL#PIN; or join one: meshctl up --ticket-file FILE",
            )
        })
    }
}

impl Backend for Handle {
    async fn id(&self) -> Result<Id, ApiError> {
        let membership = self.shared.view().membership.clone();
        let roster = membership.as_ref().map(|membership| &membership.roster);
        let leaf = roster.and_then(|roster| roster.leaf(&self.shared.own));
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            &self.shared.identity.public().as_bytes()[..],
        );
        Ok(Id {
            node_id: self.shared.own.to_string(),
            name: leaf.map(|leaf| leaf.name.to_string()),
            network: roster.map(|roster| roster.settings().name.to_string()),
            net_id: membership.as_ref().map(|membership| membership.net.to_string()),
            public_key_fingerprint: format!(
                "sha256:{}",
                BASE32_NOPAD.encode(digest.as_ref()).to_ascii_lowercase()
            ),
        })
    }

    async fn status(&self) -> Result<Status, ApiError> {
        let snapshot = self.shared.snapshot().await;
        let view = self.shared.view().clone();
        let mut status = status::status(&self.shared.config, self.shared.own, &view, snapshot.as_ref());
        for peer in &mut status.peers {
            peer.software = self.shared.software(&peer.node_id);
        }
        Ok(status)
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, ApiError> {
        self.membership()?;
        Ok(self.status().await?.peers)
    }

    async fn up(&self, request: UpRequest) -> Result<UpAnswer, ApiError> {
        self.ask(|reply| Request::Up(request, reply)).await
    }

    async fn down(&self) -> Result<DownAnswer, ApiError> {
        self.ask(Request::Down).await
    }

    async fn ping(&self, request: PingRequest) -> Result<PingAnswer, ApiError> {
        let membership = self.membership()?;
        let leaf = find(membership.roster.leaves(), &request.peer).ok_or_else(|| {
            ApiError::new(ErrorCode::UnknownPeer, format!("no member is called \"{}\"", request.peer))
                .with_hint("\"meshctl peers\" lists them")
        })?;
        if leaf.node_id == self.shared.own {
            return Err(ApiError::new(ErrorCode::BadRequest, format!("\"{}\" is this node", request.peer)));
        }
        let down =
            || ApiError::new(ErrorCode::Down, "this node is down").with_hint("run \"meshctl up\" first");
        let inbox = self.shared.inbox().ok_or_else(down)?;
        let (reply, answer) = oneshot::channel();
        let echo = Echo { via: request.via.map(via), size: request.size };
        inbox.command(Command::Ping(leaf.node_id, echo, reply));
        let wait = Duration::from_millis(request.timeout_ms.min(PingRequest::MAX_TIMEOUT_MS));
        let pong = match timeout(wait, answer).await {
            Ok(Ok(Ok(pong))) => pong,
            Ok(Ok(Err(why))) => return Err(no_path(leaf.name.as_str(), why)),
            Ok(Err(_)) => return Err(ApiError::new(ErrorCode::Busy, "too many pings wait for an answer")),
            Err(_) => return Err(self.no_answer(leaf, wait, &request)),
        };
        let id = leaf.node_id.to_string();
        let peer = self.status().await?.peers.into_iter().find(|peer| peer.node_id == id);
        if peer.as_ref().is_some_and(|peer| matches!(peer.path, PathKind::Relay | PathKind::DirectWss)) {
            // Who asks by hand does not wait for the next turn.
            inbox.command(Command::Search(leaf.node_id));
        }
        let relayed = matches!(pong.path, Path::Relay(_));
        let beside = self.shared.view().pool.as_ref().and_then(|pool| pool.beside(&leaf.node_id));
        let by_wss = relayed && beside.is_some();
        let relayed = relayed && !by_wss;
        Ok(PingAnswer {
            peer: leaf.name.to_string(),
            address: Some(leaf.ipv4.into()),
            path: match (by_wss, relayed) {
                (true, _) => PathKind::DirectWss,
                (false, true) => PathKind::Relay,
                (false, false) => PathKind::Direct,
            },
            relay: self.shared.view().relay.as_ref().filter(|_| relayed).map(|relay| relay.url.clone()),
            size: Some(request.size.unwrap_or(if request.via.is_some() {
                PingRequest::MIN_SIZE
            } else {
                PLAIN
            })),
            rtt_ms: pong.rtt.as_secs_f64() * 1e3,
        })
    }

    async fn netcheck(&self) -> Result<Netcheck, ApiError> {
        let busy = |_| ApiError::new(ErrorCode::Busy, "another netcheck is under way");
        let _turn = self.netcheck.try_acquire().map_err(busy)?;
        let view = self.shared.view().clone();
        let home = view.relay.as_ref().and_then(|home| home.url.parse().ok());
        let relay = home.or_else(|| view.membership.as_ref().map(|membership| membership.relay.clone()));
        if let Some(pool) = &view.pool {
            // The answers are there long before everything else is.
            pool.measure();
        }
        let found = netcheck::run(&self.shared.config, relay.as_ref()).await;
        Ok(Netcheck { relays: self.shared.view().relays.clone(), ..found })
    }

    async fn invite(&self, request: InviteRequest) -> Result<InviteAnswer, ApiError> {
        self.ask(|reply| Request::Invite(request, reply)).await
    }

    async fn relays(&self) -> Result<Relays, ApiError> {
        let membership = self.membership()?;
        let announced = membership.roster.settings().relays.iter();
        let announced = announced.map(|(url, pin)| url.with_pin(pin)).collect();
        Ok(Relays { announced, relays: self.shared.view().relays.clone() })
    }

    async fn change_relays(&self, request: RelayRequest) -> Result<Relays, ApiError> {
        self.ask(|reply| Request::Relays(request, reply)).await?;
        self.relays().await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.listen()
    }
}

impl Handle {
    /// Says why a ping stayed unanswered, as far as it is known.
    fn no_answer(&self, leaf: &Leaf, wait: Duration, request: &PingRequest) -> ApiError {
        let view = self.shared.view();
        let why = if view.state == NodeState::Up {
            match (request.via, request.size) {
                (_, Some(size)) => format!("it is offline, or the path carries no message of {size} bytes"),
                (Some(PingVia::Direct), None) => "it is offline, or the direct path is cut".to_owned(),
                (Some(PingVia::Relay) | None, None) => "it is offline, or the relay loses packets".to_owned(),
            }
        } else {
            format!("this node waits for {}", view.ready.reason)
        };
        let message = format!("{} did not answer within {:.1} s: {why}", leaf.name, wait.as_secs_f64());
        ApiError::new(ErrorCode::Timeout, message)
    }
}

fn via(asked: PingVia) -> Via {
    match asked {
        PingVia::Relay => Via::Relay,
        PingVia::Direct => Via::Direct,
    }
}

/// Says why a ping cannot take the path that was asked for, and what to do.
fn no_path(peer: &str, why: NoPath) -> ApiError {
    let (message, hint) = match why {
        NoPath::RelayDown => (
            "this node is not connected to its relay".to_owned(),
            "run \"meshctl status\", which shows the last error of the relay".to_owned(),
        ),
        NoPath::PeerNotAtRelay => {
            (format!("{peer} is not connected to the relay"), format!("run \"meshctl status\" on {peer}"))
        }
        NoPath::DirectOff => (
            format!("there is no direct path to {peer}, and this node looks for none"),
            "remove \"direct = false\" from the configuration of meshd".to_owned(),
        ),
        NoPath::NoDirect => (
            format!("there is no direct path to {peer} at the moment"),
            format!("a search begins; try again in 5 s, or run \"meshctl why {peer}\""),
        ),
    };
    ApiError::new(ErrorCode::NoPath, message).with_hint(hint)
}

/// Bytes of a ping of which nothing is asked: its kind and its id.
const PLAIN: u16 = 9;
const _: () = assert!(PingRequest::MIN_SIZE as usize == mesh_wire::control::PATH_CHALLENGE);
const _: () = assert!(PingRequest::MAX_SIZE as usize == mesh_wire::control::PROBE);

/// Finds a member by name, by address or by node id.
fn find<'a>(leaves: &'a [Leaf], text: &str) -> Option<&'a Leaf> {
    let address = text.parse::<IpAddr>().ok();
    let id = text.parse::<NodeId>().ok();
    leaves.iter().find(|leaf| {
        leaf.name.as_str() == text
            || address.is_some_and(|address| leaf.owns(address))
            || id.is_some_and(|id| leaf.node_id == id)
    })
}
