//! Ports are guessed only where that is wanted.

use std::collections::BTreeSet;

use anyhow::ensure;
use lab::{Capture, DaemonOptions, NatKind, Pair, Underlay, scenario};

/// Two ends that only guessing brings together: one behind a router with random ports, one behind a restricted one.
#[test]
fn node_that_is_not_to_guess_sends_no_guess_and_says_why() {
    for guesses in [[false, false], [true, false], [false, true]] {
        scenario("node_that_is_not_to_guess_sends_no_guess_and_says_why", |lab| {
            let public = lab.public(Underlay::V4)?;
            let kinds = [NatKind::SymmetricRandom, NatKind::PortRestricted];
            let sites = [public.site("one", kinds[0])?, public.site("two", kinds[1])?];
            let hosts = [sites[0].host("laptop")?, sites[1].host("pi")?];
            let options = guesses.map(|guesses| DaemonOptions {
                extra: format!("birthday = {guesses}\n"),
                ..DaemonOptions::default()
            });
            let pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], options)?;
            let captures = [
                Capture::start(lab, &hosts[0], "eth0", "udp")?,
                Capture::start(lab, &hosts[1], "eth0", "udp")?,
            ];
            // A search takes five seconds, and guessing begins after one.
            pair.every_ping("0.1", 35)?;
            ensure!(pair.paths()? == ["relay", "relay"], "{:?}", pair.paths()?);
            for (at, capture) in captures.into_iter().enumerate() {
                let recording = capture.stop()?;
                let (node, peer) = (&pair.nodes[at], &pair.nodes[1 - at]);
                let own = hosts[at].address();
                let flows: BTreeSet<_> = recording
                    .datagrams
                    .iter()
                    .filter(|datagram| datagram.from.ip() == own)
                    .map(|datagram| (datagram.from, datagram.to))
                    .collect();
                tell(node.name(), guesses[at], flows.len());
                let status = node.status()?;
                let peer_status = status.peer(peer.name())?;
                let birthday = &peer_status["direct"]["birthday"];
                ensure!(birthday["enabled"] == guesses[at], "{birthday}");
                if guesses[at] {
                    ensure!(flows.len() > 200 && birthday["attempts"].as_u64() >= Some(1), "{birthday}");
                    continue;
                }
                ensure!(flows.len() < USUAL, "{} sent to or from {} places", node.name(), flows.len());
                ensure!(birthday["attempts"] == 0 && peer_status["direct"]["guesses"] == 0, "{peer_status}");
                let why = node.ctl(&["why", peer.name()])?.stdout;
                ensure!(why.contains("is switched off (birthday = false)"), "{why}");
            }
            Ok(())
        });
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to know")]
fn tell(node: &str, guesses: bool, flows: usize) {
    println!("{node}, birthday = {guesses}: {flows} pairs of addresses");
}

/// Pairs of own and other address with the relay, its STUN ports and every address that the peer names.
const USUAL: usize = 24;
