//! Finds members on the local networks of this machine, and is found by them, without relay or coordinator.
//!
//! In: the interfaces of the machine, messages of multicast DNS from anybody. Out: our announcements, and through the
//! engine's inbox where members are. [`LanMachine`] decides; this carries, seals and opens.
//!
//! Invariants: what is found is a place to try, and only a handshake makes it more; messages are read at a bounded rate,
//! what is beyond it waits in the kernel and is dropped there.

pub mod seal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_net::{LanCounts, LanMachine, LanPorts, LanSay, LanSockets, lan_links};
use mesh_wire::NodeId;
use mesh_wire::lan::Message;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::seal::LanSeal;
use crate::engine::{Command, Inbox, unix_now};

/// Messages read in one go; then others have their turn.
const TURN: u32 = 200;
/// A turn takes at least so long in a flood: 20,000 messages a second cost some percent of a core, whoever sends them.
const TURN_TAKES: Duration = Duration::from_millis(10);

/// What discovery works with.
#[derive(Debug)]
pub struct LanConfig {
    /// The interface that does not count.
    pub interface: String,
    /// Where the UDP sockets are bound.
    pub sockets: Vec<SocketAddr>,
    /// This node.
    pub own: NodeId,
    /// The members' keys.
    pub seal: LanSeal,
    /// Where findings go.
    pub engine: Arc<Inbox>,
}

/// The hold on the running actor; dropping it ends the actor without a farewell.
#[derive(Debug)]
pub struct Lan {
    changed: Arc<Notify>,
    stop: CancellationToken,
    counts: watch::Receiver<LanCounts>,
    task: AbortOnDropHandle<()>,
}

impl Lan {
    /// Starts the actor.
    #[must_use]
    pub fn start(config: LanConfig) -> Self {
        let (changed, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let (publish, counts) = watch::channel(LanCounts::default());
        let of = |v4: bool| config.sockets.iter().find(|socket| socket.is_ipv4() == v4).copied();
        let ports = LanPorts { v4: of(true), v6: of(false) };
        let actor = Actor {
            machine: LanMachine::new(config.own, ports, Box::new(random)),
            sockets: LanSockets::default(),
            changed: Arc::clone(&changed),
            publish,
            config,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(actor.run(stop.clone())));
        Self { changed, stop, counts, task }
    }

    /// Says that addresses or interfaces of the machine changed.
    pub fn network_changed(&self) {
        self.changed.notify_one();
    }

    /// Returns what came so far, for as long as the actor runs.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<LanCounts> {
        self.counts.clone()
    }

    /// Says farewell and ends the actor.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::debug!("what finds neighbours ended by a panic");
        }
    }
}

struct Actor {
    config: LanConfig,
    machine: LanMachine,
    sockets: LanSockets,
    changed: Arc<Notify>,
    publish: watch::Sender<LanCounts>,
}

impl Actor {
    async fn run(mut self, stop: CancellationToken) {
        let changed = Arc::clone(&self.changed);
        let mut buffer = [0; LanSockets::BUFFER];
        let mut turn = (Instant::now(), 0);
        self.look().await;
        loop {
            self.carry_out();
            let due = self.machine.poll_timeout().map(Instant::from_std);
            let rest = (turn.1 >= TURN).then(|| turn.0 + TURN_TAKES);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = changed.notified() => self.look().await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.machine.handle_timeout(Instant::now().into_std(), unix_now());
                }
                () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {
                    turn = (Instant::now(), 0);
                }
                datagram = self.sockets.recv(&mut buffer), if rest.is_none() => {
                    let now = Instant::now();
                    turn = if now >= turn.0 + TURN_TAKES { (now, 1) } else { (turn.0, turn.1 + 1) };
                    let message = buffer.get(..datagram.len).unwrap_or_default();
                    let seal = &mut self.config.seal;
                    let from = (datagram.link, datagram.from);
                    self.machine.handle_datagram(now.into_std(), from, message, |name, sealed| {
                        seal.open(unix_now(), name, sealed)
                    });
                }
            }
        }
        self.machine.close();
        self.carry_out();
    }

    /// Lists the interfaces anew.
    async fn look(&mut self) {
        match lan_links(&self.config.interface).await {
            Ok(links) => {
                tracing::debug!(?links, "neighbours are looked for");
                self.sockets.set_links(&links);
                self.machine.set_links(Instant::now().into_std(), links);
            }
            Err(error) => tracing::debug!(%error, "the machine's interfaces cannot be listed"),
        }
    }

    /// Says what is to be said and tells what was found.
    fn carry_out(&mut self) {
        while let Some(transmit) = self.machine.poll_transmit() {
            let message = match &transmit.say {
                LanSay::Question => Some(Message::Question.encode()),
                LanSay::Farewell { name } => Some(Message::Farewell { name: *name }.encode()),
                LanSay::Announcement { name, content } => {
                    let sealed = self.config.seal.seal(content.made, name, nonce(), &content.encode());
                    sealed.map(|sealed| Message::Announcement { name: *name, sealed: &sealed }.encode())
                }
            };
            if !message.is_some_and(|message| self.sockets.send(transmit.link, &message)) {
                self.machine.unsent();
            }
        }
        while let Some(found) = self.machine.poll_found() {
            tracing::debug!(peer = %found.node.short(), addresses = ?found.addresses, "found on a local network");
            self.config.engine.command(Command::Near(found.node, found.addresses));
        }
        let counts = self.machine.counts();
        self.publish.send_if_modified(|known| std::mem::replace(known, counts) != counts);
    }
}

fn random() -> u64 {
    u64::from_le_bytes(bytes())
}

fn nonce() -> [u8; mesh_wire::lan::NONCE] {
    bytes()
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's generator, once seeded, does not fail");
    bytes
}
