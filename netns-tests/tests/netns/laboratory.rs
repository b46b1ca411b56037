//! The laboratory itself, with plain tools: a scenario that fails should not be the laboratory's fault.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Capture, Lab, StreamServer, Underlay, scenario, udp_address};
use serde_json::Value;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn hosts_of_a_switch_reach_each_other() {
    scenario("hosts_of_a_switch_reach_each_other", |lab| {
        let public = lab.public(Underlay::Both)?;
        let (one, two) = (public.host("one")?, public.host("two")?);
        one.run("ping").args(["-n", "-c", "1", "-W", "2", &two.address().to_string()]).ok()?;
        one.run("ping").args(["-n", "-c", "1", "-W", "2", "2001:db8::2"]).ok()?;
        assert!(one.open_ports()?.is_empty());
        Ok(())
    });
}

#[test]
fn command_that_hangs_is_ended() {
    scenario("command_that_hangs_is_ended", |lab| {
        let host = lab.namespace("alone")?;
        let output = host.run("sleep").args(["60"]).limit(Duration::from_millis(200)).output()?;
        assert_eq!(output.code, Some(124));
        Ok(())
    });
}

#[test]
fn nothing_is_left_after_a_panic() {
    scenario("nothing_is_left_after_a_panic", |lab| {
        let mut namespace = String::new();
        let mut pid = 0;
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let inner = Lab::new("inner").unwrap();
            let host = inner.namespace("inner").unwrap();
            namespace = host.namespace().to_owned();
            let sleeper = host.run("sleep").args(["60"]).spawn("sleeper").unwrap();
            pid = sleeper.pid();
            panic!("on purpose");
        }));
        assert!(attempt.is_err());
        let names = lab.namespace("look")?.run("ip").args(["netns", "list"]).ok()?.stdout;
        assert!(!names.contains(&namespace), "{namespace} is still there");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        Ok(())
    });
}

#[test]
fn stranger_is_seen_whole_and_its_replies_are_counted() {
    scenario("stranger_is_seen_whole_and_its_replies_are_counted", |lab| {
        let public = lab.public(Underlay::Both)?;
        let (one, two) = (public.host("one")?, public.host("two")?);
        for target in [udp_address(&two), "[2001:db8::2]:4747".parse()?] {
            // Nobody listens, so that the host answers with ICMP, which a capture of everything shows.
            let capture = Capture::start(lab, &two, "eth0", "ip or ip6 proto 17 or icmp6[0] = 1")?;
            let report = probe(&one, &["stranger", "--to", &target.to_string(), "--count", "20000"])?;
            let recording = capture.stop()?;
            assert_eq!((&report["sent"], &report["refused"]), (&20_000.into(), &0.into()), "{report}");
            assert_eq!(report["replies"], 0, "{report}");
            let arrived = recording.datagrams.iter().filter(|datagram| datagram.to == target).count();
            assert_eq!(arrived, 20_000);
            assert!(recording.packets > 20_000, "neither fragments nor ICMP were seen");
        }
        Ok(())
    });
}

#[test]
fn flood_comes_from_addresses_that_are_routed_back() {
    scenario("flood_comes_from_addresses_that_are_routed_back", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (one, two) = (public.host("one")?, public.host("two")?);
        two.run("ip").args(["route", "add", "198.18.0.0/15", "via", &one.address().to_string()]).ok()?;
        // Two parts of a message, as they would be captured.
        let target = udp_address(&two);
        let capture = Capture::start(lab, &two, "eth0", "udp")?;
        let parts = [r"\x96\x00\x02\x90identity12345678part", r"\x96\x01\x02\x90identity12345678end"];
        for part in parts {
            one.shell(&format!("printf '{part}' > /dev/udp/{}/{}", target.ip(), target.port())).ok()?;
        }
        let template = capture.stop()?;
        assert_eq!(template.datagrams.len(), 2, "{template:?}");
        let capture = Capture::start(lab, &two, "eth0", "ip")?;
        let file = template.file().display().to_string();
        let report = probe(
            &one,
            &[
                "flood",
                "--to",
                &target.to_string(),
                "--sources",
                "198.18.0.0/15",
                "--from-pcap",
                &file,
                "--order",
                "110",
                "--count",
                "5000",
                "--rate",
                "50000",
            ],
        )?;
        let recording = capture.stop()?;
        assert_eq!(report["sent"], 15_000, "{report}");
        let remotes = recording.exchanges(target);
        assert_eq!(remotes.len(), 5000);
        for (source, exchange) in remotes {
            assert_eq!(exchange.datagrams_in, 3, "{source}");
            assert_eq!(exchange.bytes_in, 2 * 23 + 24, "{source}");
        }
        assert_eq!(recording.datagrams[0].payload, template.datagrams[1].payload);
        assert_eq!(recording.datagrams[2].payload, template.datagrams[0].payload);
        // The host answered the closed port, towards the addresses that were claimed.
        assert!(recording.packets > 15_000, "{} packets", recording.packets);
        Ok(())
    });
}

#[test]
fn stream_is_measured() {
    scenario("stream_is_measured", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (one, two) = (public.host("one")?, public.host("two")?);
        let mut server = StreamServer::start(&two, &two.address().to_string())?;
        let (first, second) = (server.measure(&one, 1)?, server.measure(&one, 1)?);
        assert!(first > 1e7 && second > 1e7, "{first} and {second} bit/s");
        Ok(())
    });
}

fn probe(host: &lab::Host, words: &[&str]) -> Result<Value> {
    let output = host.run(PROBE).args(words.iter().copied()).limit(Duration::from_secs(60)).ok()?;
    serde_json::from_str(output.stdout.trim_start_matches("ready")).context("no report")
}
