//! Joining: a relay, a coordinator and nodes as values on loopback; no interface is made.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_control::{ApiError, ErrorCode, InviteRequest};
use mesh_identity::{
    Identity, NewMember, Roster, RosterDraft, Ticket, TicketSecret, UnixSeconds, default_pool,
};
use mesh_session::handshake::Local;
use mesh_session::{AeadKind, ProviderKind};
use mesh_wire::roster::{Link, RosterSettings};
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};
use meshd::coordinator::{Coordinator, CoordinatorConfig, FRESH_FOR, Ledger, MEMBERSHIP};
use meshd::engine::unix_now;
use meshd::enrol::join;
use meshd::state::{Membership, StateDir};
use meshrelay::{Config, Relay};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay, and a network whose coordinator may come and go.
struct Place {
    _relay: Relay,
    _dir: TempDir,
    state: Arc<StateDir>,
    root: Local,
    membership: Membership,
}

impl Place {
    /// `others` is how many members the network has beside its coordinator.
    fn new(others: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let config = Config {
            listen: vec![any],
            stun_listen: Vec::new(),
            metrics_listen: None,
            state_dir: dir.path().join("relay"),
            ..Config::default()
        };
        std::fs::create_dir(dir.path().join("relay")).unwrap();
        let relay = Relay::start(config).unwrap();
        let address = relay.addresses()[0];
        let url = RelayUrl::new(&address.ip().to_string(), address.port()).unwrap();
        let state = StateDir::open(&dir.path().join("node"), ProviderKind::default()).unwrap();
        let root = local();
        let roster = Arc::new(roster(&root.identity, others));
        let membership = Membership {
            net: root.identity.net_id(),
            network_secret: [7; 32].into(),
            secret_epoch: 1,
            relay: url,
            pin: relay.pin(),
            up: true,
            roster: Arc::clone(&roster),
        };
        Ledger::new(roster).store(&state).unwrap();
        Self { _relay: relay, _dir: dir, state: Arc::new(state), root, membership }
    }

    /// Starts the coordinator from what is stored, as after a restart.
    fn coordinator(&self) -> Running {
        let stop = CancellationToken::new();
        let config = CoordinatorConfig {
            state: Arc::clone(&self.state),
            root: self.root.clone(),
            membership: self.membership.clone(),
            ledger: self.ledger(),
            relays: Vec::new(),
        };
        let (coordinator, _) = Coordinator::start(config, stop.clone());
        Running { coordinator, stop }
    }

    fn ledger(&self) -> Ledger {
        Ledger::load(&self.state, self.membership.net, unix_now()).unwrap().unwrap()
    }

    /// A ticket that no coordinator made, for any network.
    fn forged(&self, net: NetId) -> Ticket {
        let secret = TicketSecret::generate().unwrap();
        let ends = UnixSeconds(unix_now() + 60);
        Ticket::new(net, self.membership.relay.clone(), self.membership.pin, secret, ends)
    }
}

struct Running {
    coordinator: Coordinator,
    stop: CancellationToken,
}

impl Running {
    async fn invite(&self, request: InviteRequest) -> Ticket {
        let (reply, answer) = oneshot::channel();
        self.coordinator.invite(request, reply);
        Ticket::parse(answer.await.unwrap().unwrap().ticket.expose()).unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.coordinator.ended().await;
    }
}

fn local() -> Local {
    let identity = Arc::new(Identity::generate().unwrap());
    Local { identity, provider: ProviderKind::default().provider(), aead: AeadKind::default().provider() }
}

fn roster(root: &Identity, others: usize) -> Roster {
    let now = unix_now();
    let settings = RosterSettings {
        name: "home".parse().unwrap(),
        ipv4_pool: default_pool(root.net_id(), 0),
        link: Link::Tun,
        mtu: 1420,
        relays: Vec::new(),
    };
    let member = |name: String| NewMember {
        name: name.parse().unwrap(),
        groups: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        not_before: UnixSeconds(now),
        not_after: UnixSeconds(now + MEMBERSHIP),
    };
    let id = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        NodeId(id)
    };
    let mut draft = RosterDraft::new(root.public(), settings, id(0), member("coordinator".into())).unwrap();
    for number in 1..=others {
        draft.admit(id(number), member(format!("node-{number}"))).unwrap();
    }
    draft.sign(root, UnixSeconds(now), FRESH_FOR).unwrap()
}

async fn joined(ticket: &Ticket, node: &Local, name: &str) -> Result<Membership, ApiError> {
    let (progress, _) = watch::channel(String::new());
    timeout(PATIENCE, join(ticket, node, name, &progress)).await.expect("joining never ends")
}

async fn refused(ticket: &Ticket, node: &Local, name: &str) -> ErrorCode {
    joined(ticket, node, name).await.expect_err("this ticket admits nobody").code
}

#[tokio::test]
async fn node_joins_and_its_ticket_is_spent() {
    let place = Place::new(0);
    let running = place.coordinator();
    let ticket = running.invite(InviteRequest::default()).await;
    let node = local();
    let membership = joined(&ticket, &node, "pi").await.unwrap();
    assert_eq!(membership.roster.leaf(&node.identity.node_id()).unwrap().name.as_str(), "pi");
    assert_eq!((membership.network_secret[..].to_vec(), membership.secret_epoch), (vec![7; 32], 1));
    assert_eq!(place.ledger().roster().version(), membership.roster.version());
    assert_eq!(refused(&ticket, &local(), "other").await, ErrorCode::TicketUsed);
    let again = joined(&ticket, &node, "pi").await.unwrap();
    assert_eq!(again.roster.version(), membership.roster.version());
}

#[tokio::test]
async fn tickets_that_admit_nobody_say_why() {
    let place = Place::new(0);
    let running = place.coordinator();
    let unknown = place.forged(place.membership.net);
    assert_eq!(refused(&unknown, &local(), "pi").await, ErrorCode::TicketForeign);
    let ended = Ticket::new(
        place.membership.net,
        place.membership.relay.clone(),
        place.membership.pin,
        TicketSecret::generate().unwrap(),
        UnixSeconds(unix_now() - 1),
    );
    assert_eq!(refused(&ended, &local(), "pi").await, ErrorCode::TicketExpired);
    let taken = running.invite(InviteRequest::default()).await;
    assert_eq!(refused(&taken, &local(), "coordinator").await, ErrorCode::TicketNameTaken);
    let pin = Ticket::new(
        place.membership.net,
        place.membership.relay.clone(),
        Pin([0; 32]),
        TicketSecret::generate().unwrap(),
        UnixSeconds(unix_now() + 60),
    );
    assert_eq!(refused(&pin, &local(), "pi").await, ErrorCode::RelayPinMismatch);
}

#[tokio::test]
async fn coordinator_does_not_believe_the_date_of_a_ticket() {
    let place = Place::new(0);
    let ticket = |ends| {
        let (net, relay) = (place.membership.net, place.membership.relay.clone());
        let secret = TicketSecret::from_seed(&[5; 16]);
        Ticket::new(net, relay, place.membership.pin, secret, UnixSeconds(ends))
    };
    let mut ledger = place.ledger();
    ledger.invite(&ticket(unix_now() - 1), &InviteRequest::default(), unix_now()).unwrap();
    ledger.store(&place.state).unwrap();
    let _running = place.coordinator();
    let edited = ticket(unix_now() + 3600);
    assert_eq!(refused(&edited, &local(), "pi").await, ErrorCode::TicketExpired);
}

#[tokio::test]
async fn ticket_of_another_network_waits_for_a_coordinator_that_is_not_there() {
    let place = Place::new(0);
    let _running = place.coordinator();
    let other = place.forged(NetId([9; 32]));
    let (progress, mut watched) = watch::channel(String::new());
    let node = local();
    let joining = tokio::spawn(async move { join(&other, &node, "pi", &progress).await });
    let waits = watched.wait_for(|text| text.contains("another network"));
    timeout(PATIENCE, waits).await.expect("it says what it waits for").unwrap();
    joining.abort();
}

#[tokio::test]
async fn coordinator_that_ended_before_its_answer_admits_once() {
    let place = Place::new(0);
    let running = place.coordinator();
    let ticket = running.invite(InviteRequest::default()).await;
    running.end().await;
    let node = local();
    let mut ledger = place.ledger();
    let root = &place.root.identity;
    assert!(ledger.admit(&ticket.invite_id(), node.identity.public(), "pi", unix_now(), root).unwrap());
    ledger.store(&place.state).unwrap();

    let _running = place.coordinator();
    let membership = joined(&ticket, &node, "pi").await.unwrap();
    assert_eq!(membership.roster.version(), 2);
    assert_eq!(refused(&ticket, &local(), "other").await, ErrorCode::TicketUsed);
    assert_eq!(place.ledger().roster().leaves().len(), 2);
}

#[tokio::test]
async fn join_outlasts_a_coordinator_that_comes_late() {
    let place = Place::new(0);
    let running = place.coordinator();
    let ticket = running.invite(InviteRequest::default()).await;
    running.end().await;
    let (progress, mut watched) = watch::channel(String::new());
    let joining = tokio::spawn(async move { join(&ticket, &local(), "pi", &progress).await });
    let waits = watched.wait_for(|text| text.contains("coordinator to come online"));
    timeout(PATIENCE, waits).await.expect("it says what it waits for").unwrap();
    let _running = place.coordinator();
    timeout(PATIENCE, joining).await.expect("joining never ends").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_racers_for_one_use_have_one_winner() {
    let place = Place::new(0);
    let running = place.coordinator();
    let text = running.invite(InviteRequest::default()).await.to_text();
    let mut racers = JoinSet::new();
    for _ in 0..20 {
        let ticket = Ticket::parse(&text).unwrap();
        racers.spawn(async move { joined(&ticket, &local(), "~racer").await.map_err(|error| error.code) });
    }
    let results = racers.join_all().await;
    let winners = results.iter().filter(|result| result.is_ok()).count();
    let late = results.iter().filter(|result| matches!(result, Err(ErrorCode::TicketUsed))).count();
    assert_eq!((winners, late), (1, 19));
    assert_eq!(place.ledger().roster().leaves().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roster_of_4000_nodes_arrives() {
    let place = Place::new(4000);
    let running = place.coordinator();
    let ticket = running.invite(InviteRequest::default()).await;
    let membership = joined(&ticket, &local(), "pi").await.unwrap();
    assert_eq!(membership.roster.leaves().len(), 4002);
}
