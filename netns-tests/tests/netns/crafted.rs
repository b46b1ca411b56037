//! A client of the relay that does not keep to the rules.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::BytesMut;
use lab::{Mesh, MeshOptions, Relay, scenario};
use mesh_identity::Identity;
use mesh_net::{RelayClient, RelayConfig, RelayEvent, RelaySink};
use mesh_wire::relay::Role;
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
            RelayEvent::Notice(text) => format!("notice {text}"),
        });
    }
}

/// Connects as `role` for `net`, binds `targets` and sends them frames; returns what it heard in two seconds.
fn intrude(
    host: &lab::Host,
    relay: &Relay,
    role: Role,
    net: Option<NetId>,
    admission: &[u8],
    targets: &[NodeId],
) -> Result<Heard> {
    let (url, pin) = RelayUrl::parse_with_pin(&relay.url())?;
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let heard = Arc::new(Heard::default());
            let identity = Arc::new(Identity::generate()?);
            let net = net.unwrap_or_else(|| identity.net_id());
            let config = RelayConfig { url, pin, role, net, identity, admission: admission.to_vec() };
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
                    // Refused while nobody is bound, which is as it should be.
                    let _ = sender.send(*target, BytesMut::from(&[0x90; 1684][..]), None);
                    let _ = sender.send(*target, BytesMut::from(&[0x94; 200][..]), None);
                }
            }
            client.stop().await;
            Arc::try_unwrap(heard).ok().context("the client still holds its sink")
        })
    })
}

#[test]
fn outsiders_reach_no_member() {
    scenario("outsiders_reach_no_member", |lab| {
        let mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let net: NetId = mesh.nodes[0].json(&["id"])?["net_id"].as_str().context("no network id")?.parse()?;
        let targets: Vec<NodeId> = mesh
            .nodes
            .iter()
            .map(|node| Ok(node.json(&["id"])?["node_id"].as_str().context("no node id")?.parse()?))
            .collect::<Result<_>>()?;
        let before = sessions_of(&mesh)?;
        let host = mesh.switch.host("intruder")?;

        // The root of another network.
        let heard = intrude(&host, &mesh.relay, Role::Root, None, &[], &targets)?;
        assert!(heard.contains("welcome"), "the relay serves any network: {heard:?}");
        assert!(!heard.contains("present=true") && !heard.contains("frames"), "{heard:?}");
        // A guest of this network may speak to the coordinator's mailbox only.
        let heard = intrude(&host, &mesh.relay, Role::Guest, Some(net), &[], &targets)?;
        assert!(!heard.contains("present=true") && !heard.contains("frames"), "{heard:?}");
        assert!(!heard.contains("roster"), "{heard:?}");
        // Who claims to be its root or a member with made-up papers is not let in.
        let heard = intrude(&host, &mesh.relay, Role::Root, Some(net), &[], &targets)?;
        assert!(!heard.contains("welcome"), "{heard:?}");
        let heard = intrude(&host, &mesh.relay, Role::Member, Some(net), &[7; 9000], &targets)?;
        assert!(!heard.contains("welcome"), "{heard:?}");

        // A guest that shouts at the mailbox gets no answer and disturbs nobody.
        let heard = intrude(&host, &mesh.relay, Role::Guest, Some(net), &[], &[net.as_party()])?;
        assert!(!heard.contains("frames"), "{heard:?}");
        assert_eq!(sessions_of(&mesh)?, before, "junk was taken for a session");
        mesh.ping_all()
    });
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
