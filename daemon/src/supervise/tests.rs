use std::collections::{BTreeMap, BTreeSet};

use mesh_identity::{NewMember, Roster, RosterDraft, UnixSeconds, default_pool};
use mesh_session::{AeadKind, ProviderKind};
use mesh_wire::Pin;
use mesh_wire::roster::{Link, RosterSettings};

use super::*;
use crate::coordinator::{FRESH_FOR, Ledger, MEMBERSHIP};

/// A state directory with the keys of one network's root, and a node in it.
struct Place {
    _dir: tempfile::TempDir,
    state: Arc<StateDir>,
    own: NodeId,
    root: Arc<Identity>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state"), ProviderKind::default()).unwrap();
        let own = state.identity().unwrap().node_id();
        let root = Arc::new(Identity::generate().unwrap());
        Self { _dir: dir, state: Arc::new(state), own, root }
    }

    /// Loads what is stored, as at a start of the daemon.
    fn supervisor(&self) -> anyhow::Result<Supervisor> {
        let config = Config {
            wss: None,
            state_dir: self.state.path(""),
            socket: self.state.path("socket"),
            interface: "mesh-test".into(),
            mode: None,
            offload: true,
            copy_dscp: false,
            engine_threads: 1,
            mtu: 1420,
            group: String::new(),
            operator: None,
            log: String::new(),
            provider: ProviderKind::default(),
            aead: AeadKind::default(),
            aes: true,
            path_finder: crate::config::PathFinder::Sealed,
            direct: false,
            birthday: false,
            relay_udp: true,
            relays: Vec::new(),
            port_mapping: false,
            mdns: false,
            udp_listen: Some(Vec::new()),
            endpoints: BTreeMap::new(),
            hold_until_mixed: true,
        };
        Supervisor::new(config, Arc::clone(&self.state)).map(|(supervisor, _)| supervisor)
    }

    /// Version 1 of the network, with `first` as its coordinator until `ends`.
    fn founded(&self, first: NodeId, ends: u64) -> Roster {
        let settings = RosterSettings {
            name: "home".parse().unwrap(),
            ipv4_pool: default_pool(self.root.net_id(), 0),
            link: Link::Tun,
            mtu: 1420,
            relays: Vec::new(),
        };
        let draft = RosterDraft::new(self.root.public(), settings, first, member("first", ends)).unwrap();
        self.sign(&draft)
    }

    /// The version after `roster`, with one node more.
    fn next(&self, roster: &Roster, number: u8) -> Roster {
        let mut draft = RosterDraft::from_roster(roster);
        draft.admit(NodeId([number; 32]), member(&format!("node-{number}"), later())).unwrap();
        self.sign(&draft)
    }

    fn sign(&self, draft: &RosterDraft) -> Roster {
        draft.sign(&self.root, UnixSeconds(unix_now()), FRESH_FOR).unwrap()
    }

    fn membership(&self, roster: Roster) -> Membership {
        Membership {
            net: roster.net(),
            network_secret: [7; 32].into(),
            secret_epoch: 1,
            relay: "wss://127.0.0.1:1".parse().unwrap(),
            pin: Pin([0; 32]),
            up: true,
            roster: Arc::new(roster),
        }
    }

    fn enrol(&self, roster: Roster) {
        self.state.store_membership(&self.membership(roster)).unwrap();
    }

    /// Makes the node coordinator, with a ledger that stands at `ledger`.
    fn coordinate(&self, roster: Roster, ledger: Roster) {
        self.state.store_root(&self.root).unwrap();
        Ledger::new(Arc::new(ledger)).store(&self.state).unwrap();
        self.enrol(roster);
    }
}

fn member(name: &str, ends: u64) -> NewMember {
    NewMember {
        name: name.parse().unwrap(),
        groups: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        not_before: UnixSeconds(0),
        not_after: UnixSeconds(ends),
    }
}

fn later() -> u64 {
    unix_now() + MEMBERSHIP
}

fn joining() -> Joining {
    let task = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
    Joining { task, progress: watch::channel(String::new()).1, replies: Vec::new() }
}

#[tokio::test]
async fn network_is_not_created_during_a_join() {
    let mut supervisor = Place::new().supervisor().unwrap();
    supervisor.joining = Some(joining());
    let relay = format!("wss://127.0.0.1:1#{}", Pin([0; 32]));
    let refused = supervisor.up_new("home", &relay, None, None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(refused.hint.is_some_and(|hint| hint.contains("meshctl down")));
}

#[tokio::test]
async fn finished_join_does_not_replace_a_network() {
    let (place, other) = (Place::new(), Place::new());
    place.enrol(place.founded(place.own, later()));
    let mut supervisor = place.supervisor().unwrap();
    supervisor.joining = Some(joining());
    let foreign = other.membership(other.founded(place.own, later()));
    supervisor.join_event(JoinEvent::Done(Box::new(Ok(foreign)))).await;
    let stored = place.state.membership(unix_now()).unwrap().unwrap();
    assert_eq!(stored.net, place.root.net_id());
    assert_eq!(supervisor.membership.unwrap().net, place.root.net_id());
}

#[tokio::test]
async fn root_keys_of_an_attempt_do_not_count_in_a_network_that_was_joined() {
    let (place, other) = (Place::new(), Place::new());
    place.state.store_root(&place.root).unwrap();
    place.enrol(other.founded(place.own, later()));
    let mut supervisor = place.supervisor().unwrap();
    assert!(supervisor.root().is_none());
    assert!(supervisor.coordination().unwrap().is_none());
    supervisor.membership = None;
    assert!(supervisor.root().is_some());
}

#[tokio::test]
async fn ticket_is_used_by_whose_membership_ended_and_by_nobody_else_inside() {
    let net = |place: &Place| place.root.net_id();
    for (ends, away, expected) in [(later(), false, false), (1, false, true), (later(), true, true)] {
        let place = Place::new();
        let first = if away { NodeId([1; 32]) } else { place.own };
        place.enrol(place.founded(first, ends));
        let supervisor = place.supervisor().unwrap();
        assert_eq!(supervisor.may_join(net(&place)).unwrap(), expected);
        let foreign = supervisor.may_join(net(&Place::new())).unwrap_err();
        assert_eq!(foreign.code, ErrorCode::AlreadyEnrolled);
    }
    let place = Place::new();
    place.coordinate(place.founded(place.own, 1), place.founded(place.own, 1));
    assert!(!place.supervisor().unwrap().may_join(net(&place)).unwrap());
    assert!(Place::new().supervisor().unwrap().may_join(net(&place)).unwrap());
}

#[tokio::test]
async fn ledger_and_roster_agree_on_the_newer_one() {
    let place = Place::new();
    let first = place.founded(place.own, later());
    let second = place.next(&first, 1);
    place.coordinate(second.clone(), first.clone());
    let mut supervisor = place.supervisor().unwrap();
    let (_, ledger) = supervisor.coordination().unwrap().unwrap();
    assert_eq!(ledger.roster().version(), 2);

    let place = Place { root: Arc::clone(&place.root), ..Place::new() };
    let first = place.founded(place.own, later());
    place.coordinate(first.clone(), place.next(&first, 1));
    let supervisor = place.supervisor().unwrap();
    assert_eq!(supervisor.membership.unwrap().roster.version(), 2);
}

#[tokio::test]
async fn coordinator_without_its_ledger_does_not_start() {
    let place = Place::new();
    let roster = place.founded(place.own, later());
    place.coordinate(roster.clone(), roster);
    std::fs::remove_file(place.state.path(Ledger::FILE)).unwrap();
    let error = format!("{:#}", place.supervisor().unwrap_err());
    assert!(error.contains("ledger.state") && error.contains("backup"), "{error}");
}

#[tokio::test]
async fn roster_of_another_history_is_not_adopted() {
    let place = Place::new();
    let first = place.founded(place.own, later());
    let (second, other) = (place.next(&first, 1), place.next(&first, 2));
    place.enrol(second.clone());
    let mut supervisor = place.supervisor().unwrap();
    for (roster, expected) in [
        (other.clone(), second.head_hash()),
        (place.next(&other, 3), second.head_hash()),
        (first, second.head_hash()),
    ] {
        supervisor.adopt(Arc::new(roster)).await;
        assert_eq!(supervisor.membership.as_ref().unwrap().roster.head_hash(), expected);
    }
    let third = place.next(&second, 3);
    supervisor.adopt(Arc::new(third.clone())).await;
    let stored = place.state.membership(unix_now()).unwrap().unwrap();
    assert_eq!(stored.roster.head_hash(), third.head_hash());
}

#[tokio::test]
async fn node_that_cannot_come_up_tries_again_and_a_removed_one_does_not() {
    let place = Place::new();
    place.enrol(place.founded(NodeId([1; 32]), later()));
    let mut supervisor = place.supervisor().unwrap();
    assert_eq!(supervisor.start_running().await.unwrap_err().code, ErrorCode::NotEnrolled);
    assert!(supervisor.retry.is_none());

    let place = Place::new();
    let roster = place.founded(place.own, later());
    place.coordinate(roster.clone(), roster);
    let mut supervisor = place.supervisor().unwrap();
    std::fs::write(place.state.path(Ledger::FILE), "damaged").unwrap();
    assert_eq!(supervisor.start_running().await.unwrap_err().code, ErrorCode::StateDamaged);
    assert!(supervisor.retry.is_some());
    assert_eq!(supervisor.shared.view().state, NodeState::Starting);
    assert!(supervisor.shared.view().ready.reason.contains("ledger.state"));
}
