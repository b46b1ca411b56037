//! Holds many authenticated connections to a relay that say nothing, until it is killed.
//!
//! Each client is the root of a network of its own. Prints `ready` once all of them are connected.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::BytesMut;
use clap::Parser;
use mesh_identity::Identity;
use mesh_net::{RelayClient, RelayConfig, RelayEvent, RelaySink};
use mesh_wire::relay::Role;
use mesh_wire::{NodeId, RelayUrl};
use tokio::sync::mpsc;

#[derive(Debug, Parser)]
struct Arguments {
    /// The relay as `wss://host:port#PIN`.
    #[arg(long)]
    relay: String,
    /// How many connections.
    #[arg(long, default_value_t = 1000)]
    count: usize,
}

/// Tells when its client is connected.
struct Ready(mpsc::Sender<()>);

impl RelaySink for Ready {
    fn frames(&self, _from: NodeId, _payload: BytesMut, _segment: Option<u16>) {}

    fn event(&self, event: RelayEvent) {
        if matches!(event, RelayEvent::Up { .. }) {
            // Full means that enough have come up already.
            let _ = self.0.try_send(());
        }
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "whoever started this program waits for the line")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (url, pin) = RelayUrl::parse_with_pin(&arguments.relay).context("--relay")?;
    let (up, mut ups) = mpsc::channel(arguments.count.max(1));
    let mut clients = Vec::new();
    let mut waiting = 0_usize;
    for _ in 0..arguments.count {
        let identity = Arc::new(Identity::generate()?);
        let net = identity.net_id();
        let (url, role) = (url.clone(), Role::Root);
        let config =
            RelayConfig { udp: true, door: None, url, pin, role, net, identity, admission: Vec::new() };
        clients.push(RelayClient::start(config, Arc::new(Ready(up.clone()))));
        waiting += 1;
        // A few at a time: a thousand handshakes at once would only make each of them late.
        while waiting >= AT_ONCE {
            ups.recv().await.context("the clients ended")?;
            waiting -= 1;
        }
    }
    while waiting > 0 {
        ups.recv().await.context("the clients ended")?;
        waiting -= 1;
    }
    println!("ready");
    std::future::pending::<()>().await;
    drop(clients);
    Ok(())
}

const AT_ONCE: usize = 8;
