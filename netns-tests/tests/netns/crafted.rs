//! A client of the relay that does not keep to the rules.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::BytesMut;
use lab::{Daemon, Mesh, MeshOptions, Relay, Status, drops, scenario, session_with};
use mesh_identity::{Identity, NewMember, ProofKind, Roster, RosterDraft, UnixSeconds};
use mesh_net::{RelayClient, RelayConfig, RelayEvent, RelaySink};
use mesh_wire::handshake::HELLO_LEN;
use mesh_wire::relay::Role;
use mesh_wire::roster::{Link, RosterSettings};
use mesh_wire::{NetId, NodeId, RelayUrl};

/// Everything that a client heard.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("nobody panics while holding this lock")
    }

    fn note(&self, text: String) {
        self.lines().push(text);
    }

    fn contains(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

impl RelaySink for Heard {
    fn frames(&self, from: NodeId, payload: BytesMut, _segment: Option<u16>) {
        self.note(format!("frames {from} {}", payload.len()));
    }

    fn event(&self, event: RelayEvent) {
        self.note(match event {
            RelayEvent::Peer { node, present } => format!("peer {node} present={present}"),
            RelayEvent::Roster { version, .. } => format!("roster {version}"),
            RelayEvent::Connecting => "connecting".into(),
            RelayEvent::Up { .. } => "welcome".into(),
            RelayEvent::Down { reason, .. } => format!("down {reason}"),
            RelayEvent::Udp(udp) => format!("udp {udp}"),
            RelayEvent::Suspect(suspect) => format!("suspect {suspect}"),
            RelayEvent::Rtt(_) => "round trip".into(),
            RelayEvent::Notice(text) => format!("notice {text}"),
        });
    }
}

/// Who connects to the relay, and what for.
#[derive(Debug)]
struct Intruder {
    role: Role,
    net: NetId,
    identity: Identity,
    admission: Vec<u8>,
}

impl Intruder {
    /// Somebody with fresh keys and no papers.
    fn new(role: Role, net: NetId) -> Result<Self> {
        Ok(Self { role, net, identity: Identity::generate()?, admission: Vec::new() })
    }

    /// The root of a network of its own.
    fn other_root() -> Result<Self> {
        let identity = Identity::generate()?;
        Ok(Self { role: Role::Root, net: identity.net_id(), identity, admission: Vec::new() })
    }

    /// A member of another network, with a proof in which everything is right but the root.
    fn foreign_member(net: NetId) -> Result<Self> {
        let (root, identity) = (Identity::generate()?, Identity::generate()?);
        let now = unix_now()?;
        let member = NewMember {
            name: "pi".parse()?,
            groups: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            not_before: now.before(HOUR),
            not_after: now.after(HOUR),
        };
        let settings = RosterSettings {
            name: "home".parse()?,
            ipv4_pool: "100.64.16.0/24".parse()?,
            link: Link::Tun,
            mtu: 1420,
            relays: Vec::new(),
        };
        let draft = RosterDraft::new(root.public(), settings, identity.node_id(), member)?;
        let admission = admission(&draft.sign(&root, now, HOUR)?, identity.node_id())?;
        Ok(Self { role: Role::Member, net, identity, admission })
    }

    /// An enrolled node whose daemon does not run: its keys and its proof.
    fn enrolled(node: &Daemon, net: NetId) -> Result<Self> {
        let identity = Identity::load(&node.state_dir().join("identity.key"))?;
        let roster = Roster::verify(&fs::read(node.state_dir().join("roster.bin"))?, net, unix_now()?)?;
        let admission = admission(&roster, identity.node_id())?;
        Ok(Self { role: Role::Member, net, identity, admission })
    }

    /// Connects, binds `targets` and sends them junk; returns what it heard in two seconds.
    fn intrude(self, host: &lab::Host, relay: &Relay, targets: &[NodeId]) -> Result<Heard> {
        let (url, pin) = RelayUrl::parse_with_pin(&relay.url())?;
        let Self { role, net, identity, admission } = self;
        host.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let heard = Arc::new(Heard::default());
                let config = RelayConfig {
                    udp: true,
                    door: None,
                    url,
                    pin,
                    role,
                    net,
                    identity: Arc::new(identity),
                    admission,
                };
                let client = RelayClient::start(config, heard.clone());
                let sender = client.sender();
                for target in targets {
                    sender.bind(*target)?;
                }
                let end = tokio::time::Instant::now() + Duration::from_secs(2);
                let mut ticks = tokio::time::interval(Duration::from_millis(50));
                while tokio::time::Instant::now() < end {
                    ticks.tick().await;
                    for target in targets {
                        for junk in JUNK {
                            // Refused while nobody is bound, which is as it should be.
                            let _ = sender.send(*target, BytesMut::from(junk), None);
                        }
                    }
                }
                client.stop().await;
                Arc::try_unwrap(heard).ok().context("the client still holds its sink")
            })
        })
    }
}

#[test]
fn outsiders_reach_no_member() {
    scenario("outsiders_reach_no_member", |lab| {
        let mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let net = net_of(&mesh)?;
        let targets: Vec<NodeId> = mesh.nodes.iter().map(node_id).collect::<Result<_>>()?;
        let before = sessions_of(&mesh)?;
        let host = mesh.switch.host("intruder")?;

        // The root of another network.
        let heard = Intruder::other_root()?.intrude(&host, &mesh.relay, &targets)?;
        assert!(heard.contains("welcome"), "the relay serves any network: {heard:?}");
        assert!(!heard.contains("present=true") && !heard.contains("frames"), "{heard:?}");
        // A guest of this network may speak to the coordinator's mailbox only.
        let heard = Intruder::new(Role::Guest, net)?.intrude(&host, &mesh.relay, &targets)?;
        assert!(heard.contains("welcome"), "the relay lets guests in: {heard:?}");
        assert!(!heard.contains("present=true") && !heard.contains("frames"), "{heard:?}");
        assert!(!heard.contains("roster"), "{heard:?}");
        // Who claims to be its root, or a member with made-up papers or those of another network, is not let in.
        let made_up = Intruder { admission: vec![7; 9000], ..Intruder::new(Role::Member, net)? };
        for intruder in [Intruder::new(Role::Root, net)?, made_up, Intruder::foreign_member(net)?] {
            let heard = intruder.intrude(&host, &mesh.relay, &targets)?;
            assert!(heard.contains("down the relay refused"), "{heard:?}");
            assert!(!heard.contains("welcome"), "{heard:?}");
        }

        // A guest that shouts at the mailbox gets no answer and disturbs nobody.
        let heard = Intruder::new(Role::Guest, net)?.intrude(&host, &mesh.relay, &[net.as_party()])?;
        assert!(heard.contains("welcome") && heard.contains("present=true"), "{heard:?}");
        assert!(!heard.contains("frames"), "{heard:?}");
        assert_eq!(sessions_of(&mesh)?, before, "junk was taken for a session");
        mesh.ping_all()
    });
}

#[test]
fn junk_of_a_member_is_dropped_and_counted() {
    scenario("junk_of_a_member_is_dropped_and_counted", |lab| {
        let mut mesh = Mesh::new(lab, &["victim", "friend", "vandal"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let net = net_of(&mesh)?;
        let target = node_id(&mesh.nodes[0])?;
        // Two connections with the same keys would push each other out.
        mesh.nodes[2].stop()?;
        let before = mesh.nodes[0].status()?;
        let since = Instant::now();
        let vandal = Intruder::enrolled(&mesh.nodes[2], net)?;
        let heard = vandal.intrude(mesh.nodes[2].host(), &mesh.relay, &[target])?;
        assert!(heard.contains("welcome") && heard.contains(&format!("{target} present=true")), "{heard:?}");
        assert!(!heard.contains("frames"), "junk was answered: {heard:?}");
        let after = mesh.nodes[0].status()?;
        for reason in ["unknown_session", "malformed", "stranger"] {
            let (before, after) = (drops(&before, reason), drops(&after, reason));
            assert!(after >= before + 10, "{reason}: {before} before, {after} after");
        }
        // The age goes on counting, in whole seconds: the session with the other member is the same.
        let (old, new) = (age_of(&before, "friend")?, age_of(&after, "friend")?);
        assert!(new + 1.0 >= old + since.elapsed().as_secs_f64(), "a new handshake: {old} s, then {new} s");
        mesh.nodes[2].launch()?;
        mesh.ping_all()
    });
}

fn age_of(status: &Status, peer: &str) -> Result<f64> {
    session_with(status, peer)?["handshake_age_s"].as_f64().context("no handshake age")
}

/// How many sessions every node has with others.
fn sessions_of(mesh: &Mesh<'_>) -> Result<Vec<usize>> {
    mesh.nodes
        .iter()
        .map(|node| {
            let status = node.status()?;
            let peers = status.0["peers"].as_array().context("no peers")?;
            Ok(peers.iter().filter(|peer| peer["session"].is_object()).count())
        })
        .collect()
}

fn net_of(mesh: &Mesh<'_>) -> Result<NetId> {
    Ok(mesh.nodes[0].json(&["id"])?["net_id"].as_str().context("no network id")?.parse()?)
}

fn node_id(node: &Daemon) -> Result<NodeId> {
    Ok(node.json(&["id"])?["node_id"].as_str().context("no node id")?.parse()?)
}

/// What shows a relay that a node is a member.
fn admission(roster: &Roster, node: NodeId) -> Result<Vec<u8>> {
    Ok(roster.proof(&node, ProofKind::WithRoot).context("not in the roster")?.encode())
}

fn unix_now() -> Result<UnixSeconds> {
    Ok(UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()))
}

const HOUR: u64 = 3600;

/// A HELLO by its length, without the key of its mac; an unknown kind; a data frame for a session that does not exist.
const JUNK: [&[u8]; 3] = [&[0x90; HELLO_LEN], &[0x9f; 64], &[0x94; 200]];
