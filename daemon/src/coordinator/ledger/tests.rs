use mesh_identity::{TicketSecret, default_pool};
use mesh_session::ProviderKind;
use mesh_wire::Pin;
use mesh_wire::roster::{Link, RosterSettings};

use super::*;

const NOW: u64 = 1_800_000_000;

struct Network {
    root: Identity,
    coordinator: Identity,
    ledger: Ledger,
}

impl Network {
    fn new() -> Self {
        let (root, coordinator) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let settings = RosterSettings {
            name: "home".parse().unwrap(),
            ipv4_pool: default_pool(root.net_id(), 0),
            link: Link::Tun,
            mtu: 1420,
            relays: Vec::new(),
        };
        let member = NewMember {
            name: "coordinator".parse().unwrap(),
            groups: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            not_before: UnixSeconds(NOW),
            not_after: UnixSeconds(NOW + MEMBERSHIP),
        };
        let draft = RosterDraft::new(root.public(), settings, coordinator.node_id(), member).unwrap();
        let roster = draft.sign(&root, UnixSeconds(NOW), FRESH_FOR).unwrap();
        Self { root, coordinator, ledger: Ledger::new(Arc::new(roster)) }
    }

    fn invite(&mut self, request: &InviteRequest) -> [u8; INVITE_ID] {
        let ticket = self.ticket(request);
        self.ledger.invite(&ticket, request, NOW).unwrap();
        ticket.invite_id()
    }

    fn ticket(&self, request: &InviteRequest) -> Ticket {
        let secret = TicketSecret::generate().unwrap();
        let relay = "wss://relay.example".parse().unwrap();
        Ticket::new(self.root.net_id(), relay, Pin([0; 32]), secret, UnixSeconds(NOW + request.ttl_s))
    }

    fn admit(&mut self, id: &[u8; INVITE_ID], node: &Identity, name: &str) -> Result<bool, LedgerError> {
        self.ledger.admit(id, node.public(), name, NOW, &self.root)
    }

    fn name_of(&self, node: &Identity) -> String {
        self.ledger.roster().leaf(&node.node_id()).unwrap().name.to_string()
    }
}

fn node() -> Identity {
    Identity::generate().unwrap()
}

fn uses(uses: u32) -> InviteRequest {
    InviteRequest { uses, ..InviteRequest::default() }
}

#[test]
fn single_use_admits_one_node_and_answers_it_again() {
    let mut network = Network::new();
    let id = network.invite(&uses(1));
    let (first, second) = (node(), node());
    assert!(network.admit(&id, &first, "a").unwrap());
    assert!(matches!(network.admit(&id, &second, "b"), Err(LedgerError::Used)));
    assert!(!network.admit(&id, &first, "another-name").unwrap());
    assert_eq!((network.ledger.roster().version(), network.name_of(&first)), (2, "a".into()));
    assert_eq!(network.ledger.places(&id), 0);
}

#[test]
fn several_uses_count_nodes_and_not_attempts() {
    let mut network = Network::new();
    let id = network.invite(&uses(2));
    let (first, second) = (node(), node());
    assert!(network.admit(&id, &first, "a").unwrap());
    assert!(!network.admit(&id, &first, "a").unwrap());
    assert_eq!(network.ledger.places(&id), 1);
    assert!(network.admit(&id, &second, "b").unwrap());
    assert!(matches!(network.admit(&id, &node(), "c"), Err(LedgerError::Used)));
}

#[test]
fn expired_and_unknown_invitations_admit_nobody() {
    let mut network = Network::new();
    let id = network.invite(&uses(1));
    let at = NOW + InviteRequest::DEFAULT_TTL_S;
    let late = network.ledger.admit(&id, node().public(), "a", at, &network.root);
    assert!(matches!(late, Err(LedgerError::Expired)));
    assert!(matches!(network.admit(&[9; INVITE_ID], &node(), "a"), Err(LedgerError::Unknown)));
    assert_eq!(network.ledger.roster().version(), 1);
}

#[test]
fn taken_name_is_refused_and_costs_no_use() {
    let mut network = Network::new();
    let id = network.invite(&uses(1));
    let newcomer = node();
    let refused = network.admit(&id, &newcomer, "coordinator").unwrap_err();
    assert_eq!(refused.refusal(), Refusal::NameTaken);
    assert!(network.admit(&id, &newcomer, "a").unwrap());
}

#[test]
fn proposed_name_gives_way_to_a_taken_one() {
    let mut network = Network::new();
    let id = network.invite(&uses(2));
    let (first, second) = (node(), node());
    network.admit(&id, &first, "~pi").unwrap();
    network.admit(&id, &second, "~pi").unwrap();
    assert_eq!(network.name_of(&first), "pi");
    assert_eq!(network.name_of(&second), format!("pi-{}", second.node_id().short()));
}

#[test]
fn name_and_groups_of_the_invitation_count() {
    let mut network = Network::new();
    let id = network.invite(&InviteRequest {
        name: Some("printer".into()),
        groups: vec!["office".into()],
        ..InviteRequest::default()
    });
    let printer = node();
    network.admit(&id, &printer, "other").unwrap();
    let leaf = network.ledger.roster().leaf(&printer.node_id()).unwrap();
    assert_eq!((leaf.name.as_str(), leaf.groups.len()), ("printer", 1));
}

#[test]
fn hundred_racers_have_one_winner() {
    let mut network = Network::new();
    let id = network.invite(&uses(1));
    let racers: Vec<Identity> = (0..100).map(|_| node()).collect();
    let winners = racers.iter().filter(|racer| network.admit(&id, racer, "~racer").is_ok()).count();
    assert_eq!((winners, network.ledger.roster().leaves().len()), (1, 2));
}

#[test]
fn memberships_are_renewed_before_they_end() {
    let mut network = Network::new();
    assert!(!network.ledger.renew(NOW, &network.root).unwrap());
    let later = NOW + MEMBERSHIP - RENEW_BEFORE;
    assert!(network.ledger.renew(later, &network.root).unwrap());
    let leaf = network.ledger.roster().leaf(&network.coordinator.node_id()).unwrap();
    assert_eq!((leaf.not_before.0, leaf.not_after.0), (NOW, later + MEMBERSHIP));
}

#[test]
fn member_whose_time_ended_comes_back_with_a_new_ticket_only() {
    let mut network = Network::new();
    let (old, member) = (network.invite(&uses(5)), node());
    network.admit(&old, &member, "a").unwrap();
    let address = network.ledger.roster().leaf(&member.node_id()).unwrap().ipv4;
    let later = NOW + MEMBERSHIP;
    let again = network.ledger.admit(&old, member.public(), "a", later, &network.root);
    assert!(matches!(again, Err(LedgerError::Used)));

    let request = uses(1);
    let secret = TicketSecret::generate().unwrap();
    let relay = "wss://relay.example".parse().unwrap();
    let ends = UnixSeconds(later + 60);
    let ticket = Ticket::new(network.root.net_id(), relay, Pin([0; 32]), secret, ends);
    network.ledger.invite(&ticket, &request, later).unwrap();
    let id = ticket.invite_id();
    assert!(network.ledger.admit(&id, member.public(), "b", later, &network.root).unwrap());
    let leaf = network.ledger.roster().leaf(&member.node_id()).unwrap();
    assert_eq!((leaf.name.as_str(), leaf.ipv4, leaf.not_after.0), ("a", address, later + MEMBERSHIP));
    assert!(!network.ledger.admit(&id, member.public(), "b", later, &network.root).unwrap());
    assert_eq!(network.ledger.places(&id), 0);
}

#[test]
fn removed_node_needs_a_new_ticket() {
    let mut network = Network::new();
    let (old, member) = (network.invite(&uses(5)), node());
    network.admit(&old, &member, "a").unwrap();
    let mut draft = RosterDraft::from_roster(network.ledger.roster());
    draft.remove(&member.node_id());
    network.ledger.roster = Arc::new(sign(&draft, &network.root, NOW).unwrap());
    assert!(matches!(network.admit(&old, &member, "a"), Err(LedgerError::Used)));
    let new = network.invite(&uses(1));
    assert!(network.admit(&new, &member, "a").unwrap());
}

#[test]
fn requests_out_of_bounds_are_refused() {
    let mut network = Network::new();
    let named = |uses| InviteRequest { name: Some("a".into()), uses, ..InviteRequest::default() };
    for request in [
        uses(0),
        uses(USES_MOST + 1),
        InviteRequest { ttl_s: 0, ..uses(1) },
        InviteRequest { ttl_s: TTL_MOST + 1, ..uses(1) },
        named(2),
        InviteRequest { name: Some("coordinator".into()), ..uses(1) },
        InviteRequest { groups: vec!["A b".into()], ..uses(1) },
        InviteRequest { groups: (0..17).map(|n| format!("g{n}")).collect(), ..uses(1) },
    ] {
        let ticket = network.ticket(&request);
        let refused = network.ledger.invite(&ticket, &request, NOW);
        assert!(matches!(refused, Err(LedgerError::Request(_))), "{request:?}");
        assert!(network.ledger.psk(&ticket.invite_id()).is_none());
    }
}

#[test]
fn use_and_admission_are_stored_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("state"), ProviderKind::AwsLc).unwrap();
    let mut network = Network::new();
    let (net, id, member) = (network.root.net_id(), network.invite(&uses(1)), node());
    network.ledger.store(&state).unwrap();

    std::fs::create_dir(state.path("ledger.state.new")).unwrap();
    network.admit(&id, &member, "a").unwrap();
    assert!(network.ledger.store(&state).is_err());
    let stored = Ledger::load(&state, net, NOW).unwrap().unwrap();
    assert_eq!((stored.roster().version(), stored.places(&id)), (1, 1));

    std::fs::remove_dir(state.path("ledger.state.new")).unwrap();
    network.ledger.store(&state).unwrap();
    let stored = Ledger::load(&state, net, NOW).unwrap().unwrap();
    assert_eq!((stored.roster().version(), stored.places(&id)), (2, 0));
    assert_eq!(stored.psk(&id), network.ledger.psk(&id));
}

#[test]
fn ledger_behind_the_roster_takes_it_and_closes_its_invitations() {
    let mut network = Network::new();
    let id = network.invite(&uses(1));
    let mut restored = network.ledger.clone();
    let member = node();
    network.admit(&id, &member, "a").unwrap();
    assert!(restored.catch_up(network.ledger.roster()));
    assert!(!restored.catch_up(network.ledger.roster()));
    assert!(matches!(
        restored.admit(&id, node().public(), "b", NOW, &network.root),
        Err(LedgerError::Unknown)
    ));
    network.ledger = restored;
    let next = network.invite(&uses(1));
    network.admit(&next, &node(), "b").unwrap();
    assert_eq!(network.ledger.roster().version(), 3);
    assert!(network.ledger.roster().leaf(&member.node_id()).is_some());
}

#[test]
fn clock_in_the_past_is_told_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("state"), ProviderKind::AwsLc).unwrap();
    let network = Network::new();
    network.ledger.store(&state).unwrap();
    let error = Ledger::load(&state, network.root.net_id(), NOW - 2 * 86_400).unwrap_err();
    assert!(matches!(error, StateError::Clock { .. }), "{error}");
    let error = Ledger::load(&state, NetId([1; 32]), NOW).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
}

#[test]
fn roster_announces_relays_each_once_up_to_a_number_and_never_none() {
    let mut network = Network::new();
    let url = |name: &str| -> mesh_wire::RelayUrl { format!("wss://{name}.example").parse().unwrap() };
    let mut change =
        |change| network.ledger.change_relays(change, NOW, &network.root).map_err(|e| e.to_string());
    for number in 0..8 {
        let add = RelayChange::Add(url(&format!("r{number}")), Pin([number; 32]));
        assert_eq!(change(add.clone()), Ok(true));
        assert_eq!(change(add), Ok(false), "twice is harmless");
    }
    assert!(change(RelayChange::Add(url("r8"), Pin([8; 32]))).unwrap_err().contains("8 relays"));
    assert!(change(RelayChange::Remove(url("other"))).unwrap_err().contains("does not announce"));
    for number in 1..8 {
        assert_eq!(change(RelayChange::Remove(url(&format!("r{number}")))), Ok(true));
    }
    for clash in [RelayChange::Add(url("r0"), Pin([9; 32])), RelayChange::Add(url("r9"), Pin([0; 32]))] {
        assert!(change(clash).unwrap_err().contains("already"));
    }
    assert!(change(RelayChange::Remove(url("r0"))).unwrap_err().contains("last relay"));
    let roster = network.ledger.roster();
    assert_eq!((roster.settings().relays.len(), roster.version()), (1, 16));
}
