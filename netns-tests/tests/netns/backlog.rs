//! A relay that takes nothing, and peers that need no relay.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use lab::{Daemon, Host, Mesh, MeshOptions, scenario};
use nix::sys::signal::Signal;

#[test]
fn direct_peers_go_on_while_the_relay_takes_nothing() {
    scenario("backlog_direct_goes_on", |lab| {
        let mut options = MeshOptions::default();
        options.daemon.direct = true;
        options.daemon.extra = "relay_udp = false\n".into();
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
            path("bert").is_some_and(|path| path == "direct")
                && path("carl").is_some_and(|path| path == "relay")
        })?;
        let anna = mesh.nodes[0].host().clone();
        let relay = mesh.relay.process()?;
        relay.signal(Signal::SIGSTOP)?;
        let log = beside_flood(&anna, &carl, || {
            let words = ["-n", "-c", "200", "-i", "0.02", "-W", "2", &bert];
            Ok(anna.run("ping").args(words).output()?.stdout)
        });
        relay.signal(Signal::SIGCONT)?;
        let log = log?;
        let answers = log.lines().filter(|line| line.contains("bytes from")).count();
        assert!(answers >= 195, "{answers} answers of a direct peer to 200 pings");
        let silence = lab::longest_silence(&log, Duration::from_millis(20))?;
        assert!(silence < Duration::from_millis(300), "no answer of a direct peer for {silence:?}");
        Ok(())
    });
}

/// Does something while a host sends 50 MB/s of datagrams to an address.
fn beside_flood<T: Send>(host: &Host, to: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            host.enter(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                while !ended.load(Ordering::Relaxed) {
                    for _ in 0..50 {
                        // A full device is as good as a full relay.
                        let _ = socket.send_to(&[7; 1000], (to, 9));
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
