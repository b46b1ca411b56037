//! What people and machines get wrong: one line that says what to do, the right exit code, nothing half done.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Daemon, DaemonOptions, Lab, Mesh, MeshOptions, Output, Relay, RelayOptions, Underlay, scenario};

use crate::users::{WITHOUT_CAPABILITY, prepare_for_nobody};

/// The program ended with `code` and one line that contains all of `words`.
fn one_line(output: &Output, code: i32, words: &[&str]) {
    let text = output.stderr.trim_end();
    assert_eq!(output.code, Some(code), "{}: {} {text}", output.line, output.stdout);
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    let lower = text.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "\"{word}\" is missing: {text}");
    }
}

fn alone(lab: &Lab, extra: &str) -> Result<Daemon> {
    let host = lab.namespace("alone")?;
    Daemon::prepare(lab, &host, &DaemonOptions { extra: extra.into(), ..DaemonOptions::default() })
}

#[test]
fn unknown_key_in_the_daemons_configuration() {
    scenario("unknown_key_in_the_daemons_configuration", |lab| {
        let daemon = alone(lab, "colour = \"blue\"\n")?;
        one_line(&daemon.attempt()?, 2, &["colour", "meshd.toml"]);
        Ok(())
    });
}

#[test]
fn wrong_type_in_the_daemons_configuration() {
    scenario("wrong_type_in_the_daemons_configuration", |lab| {
        let daemon = alone(lab, "mtu = \"large\"\n")?;
        one_line(&daemon.attempt()?, 2, &["mtu", "meshd.toml"]);
        Ok(())
    });
}

#[test]
fn missing_configuration_that_was_named() {
    scenario("missing_configuration_that_was_named", |lab| {
        let daemon = alone(lab, "")?;
        fs::remove_file(daemon.config_path())?;
        one_line(&daemon.attempt()?, 2, &["meshd.toml"]);
        Ok(())
    });
}

#[test]
fn errors_in_the_relays_configuration() {
    scenario("errors_in_the_relays_configuration", |lab| {
        let host = lab.namespace("relay")?;
        for (extra, word) in [("colour = 1\n", "colour"), ("access = 7\n", "access")] {
            for check in [true, false] {
                let arguments = if check { vec!["--check-config".to_owned()] } else { Vec::new() };
                let options = RelayOptions { extra: extra.into(), arguments };
                let relay = Relay::prepare(lab, &host, &options)?;
                one_line(&relay.attempt()?, 2, &[word, "meshrelay.toml"]);
            }
        }
        let options = RelayOptions { arguments: vec!["--check-config".into()], ..RelayOptions::default() };
        Relay::prepare(lab, &host, &options)?.attempt()?.success()?;
        Ok(())
    });
}

#[test]
fn key_file_that_others_can_read() {
    scenario("key_file_that_others_can_read", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop"], &MeshOptions::default())?;
        let laptop = &mut mesh.nodes[0];
        laptop.stop()?;
        let key = key_files(laptop)?.into_iter().next().context("no key file in the state directory")?;
        let name = key.file_name().and_then(|name| name.to_str()).context("a plain name")?.to_owned();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
        one_line(&laptop.attempt()?, 1, &[&name, "chmod"]);
        // Put right, everything works again.
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        laptop.launch()?;
        laptop
            .wait_for_status("the node to be up", Duration::from_secs(10), |status| status.state() == "up")?;
        Ok(())
    });
}

#[test]
fn key_file_of_another_user() {
    scenario("key_file_of_another_user", |lab| {
        let mut daemon = prepare_for_nobody(lab, &lab.namespace("alone")?, WITHOUT_CAPABILITY)?;
        daemon.launch()?;
        daemon.stop()?;
        let key = key_files(&daemon)?.into_iter().next().context("no key file in the state directory")?;
        daemon.host().run("chown").args(["root:root", &key.display().to_string()]).ok()?;
        one_line(&daemon.attempt()?, 1, &[&key.display().to_string()]);
        Ok(())
    });
}

#[test]
fn damaged_state_is_named_and_kept() {
    scenario("damaged_state_is_named_and_kept", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let laptop = &mut mesh.nodes[0];
        laptop.stop()?;
        for path in files_of_state(laptop)? {
            let name = path.file_name().and_then(|name| name.to_str()).context("a plain name")?.to_owned();
            let original = fs::read(&path)?;
            for damage in [Vec::new(), original[..original.len() / 2].to_vec(), flipped(&original)] {
                fs::write(&path, &damage)?;
                let output = laptop.attempt()?;
                one_line(&output, 1, &[&name]);
                assert_eq!(fs::read(&path)?, damage, "{name} was changed");
                assert!(!laptop.host().has_interface("mesh0")?, "an interface in spite of damage in {name}");
            }
            fs::write(&path, &original)?;
        }
        laptop.launch()?;
        mesh.ping_all()
    });
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    bytes
}

/// Every file of the state directory that holds something worth protecting.
fn files_of_state(daemon: &Daemon) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![daemon.state_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.is_file() && fs::metadata(&path)?.len() > 0 {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn key_files(daemon: &Daemon) -> Result<Vec<PathBuf>> {
    let mut files = files_of_state(daemon)?;
    files.retain(|path| {
        path.extension().is_some_and(|end| end == "key") || path.to_string_lossy().contains("key")
    });
    Ok(files)
}

#[test]
fn socket_path_in_use() {
    scenario("socket_path_in_use", |lab| {
        let first = Daemon::start(lab, &lab.namespace("alone")?, &DaemonOptions::default())?;
        // The same configuration a second time: the first keeps its socket.
        let output = first.attempt()?;
        one_line(&output, 1, &[&first.socket()]);
        first.ctl(&["version"])?.success()?;
        // A file of somebody else is not taken for a left-over socket.
        let other = alone_at(lab, "other")?;
        fs::write(other.socket(), "precious")?;
        one_line(&other.attempt()?, 1, &[&other.socket()]);
        assert_eq!(fs::read_to_string(other.socket())?, "precious");
        Ok(())
    });
}

fn alone_at(lab: &Lab, name: &str) -> Result<Daemon> {
    Daemon::prepare(lab, &lab.namespace(name)?, &DaemonOptions::default())
}

#[test]
fn no_tun_device() {
    scenario("no_tun_device", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let options = DaemonOptions {
            wrapper: Some("mount -t tmpfs tmpfs /dev/net; exec \"$@\"".into()),
            ..DaemonOptions::default()
        };
        fails_at_start_or_up(lab, &public.host("laptop")?, &options, &relay, "/dev/net/tun")
    });
}

#[test]
fn no_capability() {
    scenario("no_capability", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let mut daemon = prepare_for_nobody(lab, &public.host("laptop")?, WITHOUT_CAPABILITY)?;
        let output = daemon.attempt()?;
        if output.code == Some(124) {
            daemon.launch()?;
            refused_at_up(&daemon, &relay, "CAP_NET_ADMIN")
        } else {
            one_line(&output, 1, &["CAP_NET_ADMIN"]);
            Ok(())
        }
    });
}

/// A daemon may find out at its start or at the first `up`; both are right if the message is.
fn fails_at_start_or_up(
    lab: &Lab,
    host: &lab::Host,
    options: &DaemonOptions,
    relay: &Relay,
    word: &str,
) -> Result<()> {
    let mut daemon = Daemon::prepare(lab, host, options)?;
    let output = daemon.attempt()?;
    if output.code == Some(124) {
        daemon.launch()?;
        refused_at_up(&daemon, relay, word)
    } else {
        one_line(&output, 1, &[word]);
        Ok(())
    }
}

fn refused_at_up(daemon: &Daemon, relay: &Relay, word: &str) -> Result<()> {
    let output =
        daemon.ctl(&["up", "--new", "home", "--relay", &relay.url(), "--name", "x", "--timeout", "5"])?;
    let last = output.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
    assert_eq!(output.code, Some(1), "{} {}", output.stdout, output.stderr);
    assert!(last.contains(word), "\"{word}\" is missing: {last}");
    assert!(!daemon.host().has_interface("mesh0")?);
    assert_eq!(daemon.status()?.state(), "unenrolled", "half done");
    Ok(())
}

#[test]
fn port_of_the_relay_in_use() {
    scenario("port_of_the_relay_in_use", |lab| {
        let host = lab.namespace("relay")?;
        let mut first = Relay::prepare(lab, &host, &RelayOptions::default())?;
        // Without addresses in use elsewhere the metrics port is the only other one that could collide.
        first.launch()?;
        let second = Relay::prepare(lab, &host, &RelayOptions::default())?;
        one_line(&second.attempt()?, 1, &["in use"]);
        assert!(first.process()?.is_running()?);
        Ok(())
    });
}

#[test]
fn disk_full_while_joining() {
    scenario("disk_full_while_joining", |lab| {
        let mesh = Mesh::new(lab, &["laptop"], &MeshOptions::default())?;
        let host = mesh.switch.host("pi")?;
        // The daemon mounts a small disk over its state; `fill` leaves room for less than a roster.
        let options = DaemonOptions {
            wrapper: Some(
                "d=$(sed -n 's/^state_dir = \"\\(.*\\)\"/\\1/p' \"$3\"); mkdir -p -m 700 \"$d\"; mount -t tmpfs -o size=4m,mode=700 tmpfs \"$d\"; exec \"$@\""
                    .into(),
            ),
            ..DaemonOptions::default()
        };
        let mut pi = Daemon::start(lab, &host, &options)?;
        let root = format!("/proc/{}/root{}", pi.process()?.pid(), pi.state_dir().display());
        let _full = host.shell(&format!("cat /dev/zero > {root}/fill || true")).output()?;
        let ticket = mesh.nodes[0].invite(&["--uses", "1", "--name", "pi"])?;
        let output = pi.try_join(&ticket, &["--timeout", "10"])?;
        assert_eq!(output.code, Some(1), "{} {}", output.stdout, output.stderr);
        let last = output.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
        assert!(last.contains("space") || last.contains("full"), "{last}");
        assert_eq!(pi.status()?.state(), "unenrolled", "half done");
        assert!(!host.has_interface("mesh0")?);
        assert_eq!(mesh.nodes[0].status()?.members(), 1, "the ticket was used");
        // With room it works, with the same ticket.
        fs::remove_file(format!("{root}/fill"))?;
        pi.join(&ticket)?;
        assert_eq!(mesh.nodes[0].status()?.members(), 2);
        pi.ping_address(&mesh.nodes[0].ipv4()?)
    });
}

#[test]
fn no_daemon_at_the_socket() {
    scenario("no_daemon_at_the_socket", |lab| {
        let daemon = alone(lab, "")?;
        one_line(&daemon.ctl(&["status"])?, 3, &["meshd", &daemon.socket()]);
        Ok(())
    });
}

#[test]
fn pool_that_overlaps_a_route() {
    scenario("pool_that_overlaps_a_route", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let daemon = Daemon::start(lab, &public.host("laptop")?, &DaemonOptions::default())?;
        let output =
            daemon.ctl(&["up", "--new", "home", "--relay", &relay.url(), "--ipv4-pool", "203.0.113.0/24"])?;
        assert!(matches!(output.code, Some(1 | 2)), "{} {}", output.stdout, output.stderr);
        assert!(output.stderr.contains("203.0.113.0/24"), "does not name the route: {}", output.stderr);
        assert_eq!(daemon.status()?.state(), "unenrolled");
        Ok(())
    });
}

#[test]
fn verbs_before_enrolment() {
    scenario("verbs_before_enrolment", |lab| {
        let daemon = Daemon::start(lab, &lab.namespace("alone")?, &DaemonOptions::default())?;
        for words in [&["up"][..], &["invite"], &["ping", "x"], &["peers"]] {
            let output = daemon.ctl(words)?;
            assert_eq!(output.code, Some(4), "{words:?}: {} {}", output.stdout, output.stderr);
        }
        daemon.ctl(&["frobnicate"])?.exits(2)?;
        daemon.ctl(&["invite", "--ttl", "soon"])?.exits(2)?;
        let start = std::time::Instant::now();
        daemon.ctl(&["status"])?;
        assert!(start.elapsed() < Duration::from_secs(2));
        Ok(())
    });
}
