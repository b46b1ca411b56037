//! A relay that takes nothing, and peers that need no relay.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Daemon, Host, Lab, Mesh, MeshOptions, scenario};
use nix::sys::signal::Signal;

#[test]
fn direct_peers_go_on_while_the_relay_takes_nothing() {
    scenario("backlog_direct_goes_on", |lab| goes_on(lab, 1));
}

#[test]
fn direct_peers_go_on_with_two_threads_too() {
    scenario("backlog_direct_goes_on_with_two_threads", |lab| goes_on(lab, 2));
}

fn goes_on(lab: &Lab, threads: u16) -> Result<()> {
    let mut options = MeshOptions::default();
    options.daemon.direct = true;
    options.daemon.extra = format!("relay_udp = false\nengine_threads = {threads}\n");
    let mut mesh = Mesh::new(lab, &["anna", "bert"], &options)?;
    // Nothing but TCP reaches the third node, so only the relay leads to it.
    let host = mesh.switch.host("carl")?;
    host.nft(
        "table inet cut { chain in { type filter hook input priority 0; iifname \"eth0\" meta l4proto udp drop\n}\n}\n",
    )?;
    let carl = Daemon::start(lab, &host, &options.daemon)?;
    carl.join(&mesh.nodes[0].invite(&["--name", "carl"])?)?;
    let (bert, carl) = (mesh.nodes[1].ipv4()?, carl.ipv4()?);
    let anna = &mesh.nodes[0];
    anna.ping_address(&carl)?;
    anna.ping_address(&bert)?;
    anna.wait_for_status("a direct path to bert", LIMIT, |status| {
        let path = |name: &str| status.peer(name).ok().map(|peer| peer["path"].clone());
        path("bert").is_some_and(|path| path == "direct") && path("carl").is_some_and(|path| path == "relay")
    })?;
    let echo = echo(mesh.nodes[1].host(), &bert)?;
    let anna = mesh.nodes[0].host().clone();
    // What the threads hold of each other is settled by the first packets.
    ask(&anna, &bert, 5)?;
    let relay = mesh.relay.process()?;
    relay.signal(Signal::SIGSTOP)?;
    let asked = beside_flood(&anna, &carl, || ask(&anna, &bert, 200));
    relay.signal(Signal::SIGCONT)?;
    drop(echo);
    let asked = asked?;
    let held = asked.iter().filter(|flow| flow.answers < 195 || flow.silence >= Duration::from_millis(300));
    // One in a thousand pairs of flows shares a line of the daemon's queue: a flow that does so with one of the flood waits with it.
    assert!(held.count() <= 1, "200 questions to a direct peer in each flow: {asked:?}");
    Ok(())
}

/// Answers datagrams while it lives.
struct Echo {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers what comes to an address of a host.
fn echo(host: &Host, address: &str) -> Result<Echo> {
    let socket = host.enter(|| Ok(UdpSocket::bind((address, PORT))?))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let thread = thread::spawn(move || {
        let mut bytes = [0; 64];
        while !told.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..length], from);
            }
        }
    });
    Ok(Echo { ended, thread: Some(thread) })
}

/// What one flow of questions saw.
#[derive(Debug, Clone, Copy)]
struct Asked {
    answers: u32,
    /// The longest time without an answer.
    silence: Duration,
}

/// Asks an address so many times, every 20 ms, over several flows, so that each thread of the daemon has some.
fn ask(host: &Host, to: &str, times: u32) -> Result<Vec<Asked>> {
    host.enter(|| {
        let sockets = (0..FLOWS)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect((to, PORT))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let mut asked = vec![(Asked { answers: 0, silence: Duration::ZERO }, start); sockets.len()];
        // A last answer has a second to come.
        let end = start + APART * times + Duration::from_secs(1);
        let mut sent = 0;
        while Instant::now() < end && (sent < times || asked.iter().any(|(asked, _)| asked.answers < times)) {
            if sent < times && start + APART * sent <= Instant::now() {
                sent += 1;
                for socket in &sockets {
                    // A full device is a lost question.
                    let _ = socket.send(b"question");
                }
            }
            for (socket, (asked, last)) in sockets.iter().zip(&mut asked) {
                while socket.recv(&mut [0; 64]).is_ok() {
                    asked.answers += 1;
                    asked.silence = asked.silence.max(last.elapsed());
                    *last = Instant::now();
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(asked.into_iter().map(|(asked, _)| asked).collect())
    })
}

/// Does something while a host sends 50 MB/s of datagrams to an address, over several flows.
pub(crate) fn beside_flood<T: Send>(host: &Host, to: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            host.enter(|| {
                let sockets =
                    (0..FLOWS).map(|_| UdpSocket::bind("0.0.0.0:0")).collect::<Result<Vec<_>, _>>()?;
                while !ended.load(Ordering::Relaxed) {
                    for number in 0..50 {
                        // A full device is as good as a full relay.
                        let _ = sockets[number % FLOWS].send_to(&[7; 1000], (to, 9));
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            })
        });
        let result = body();
        ended.store(true, Ordering::Relaxed);
        flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result
    })
}

const LIMIT: Duration = Duration::from_secs(20);
/// Flows of questions, and as many of the flood: the kernel gives each to a thread of the daemon by its ports.
const FLOWS: usize = 8;
/// Between two questions.
const APART: Duration = Duration::from_millis(20);
const PORT: u16 = 7000;
