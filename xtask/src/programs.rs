//! The programs of the project on the hosts of an arena.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::arena::{Host, Process, checked, wait_until};
use crate::workspace::release_dir;

/// A running relay.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The program.
    pub(crate) process: Process,
    /// Where users find it, with its pin.
    pub(crate) url: String,
}

/// Starts a relay on its host and waits until it tells its pin.
///
/// `limits` are lines of the table `[limits]` of its configuration.
pub(crate) fn start_relay(host: &Host, limits: &str) -> Result<Relay> {
    let config_path = host.dir.join("meshrelay.toml");
    let config = format!(
        "listen = [\"[::]:{RELAY_PORT}\"]\nstun_listen = [\"[::]:3478\", \"[::]:3479\"]\nmetrics_listen = \"127.0.0.1:9464\"\nstate_dir = \"{}\"\npublic_host = \"{}\"\n[limits]\n{limits}\n",
        host.dir.join("state").display(),
        host.address,
    );
    fs::create_dir_all(host.dir.join("state"))?;
    fs::write(&config_path, config)?;
    let mut process =
        host.spawn("meshrelay", &[&program("meshrelay"), "--config", &config_path.display().to_string()])?;
    let pin = wait_until("the relay to tell its pin", Duration::from_secs(10), || {
        process.check_running()?;
        Ok(pin_in(&process.log()))
    })?;
    wait_until("the relay to listen", Duration::from_secs(10), || {
        process.check_running()?;
        Ok(host.run(&["ss", "-H", "-lnt"])?.contains(&format!(":{RELAY_PORT} ")).then_some(()))
    })?;
    Ok(Relay { process, url: format!("wss://{}:{RELAY_PORT}#{pin}", host.address) })
}

/// How a daemon is configured.
#[derive(Debug)]
pub(crate) struct DaemonOptions {
    /// It looks for direct paths.
    pub(crate) direct: bool,
    /// Its frames may go to the relay over UDP.
    pub(crate) relay_udp: bool,
    /// It looks for neighbours on the local network.
    pub(crate) mdns: bool,
    /// A network that it creates carries Ethernet frames.
    pub(crate) tap: bool,
    /// It seals with AES where both ends can.
    pub(crate) aes: bool,
    /// The inner MTU in bytes.
    pub(crate) mtu: u16,
}

/// Starts a daemon on a host, which looks for direct paths or does not, and waits until its socket answers.
pub(crate) fn start_daemon(host: &Host, direct: bool) -> Result<Process> {
    start_daemon_with(
        host,
        &DaemonOptions { direct, relay_udp: true, mdns: true, tap: false, aes: true, mtu: 1420 },
    )
}

/// Starts a daemon on a host and waits until its socket answers.
pub(crate) fn start_daemon_with(host: &Host, options: &DaemonOptions) -> Result<Process> {
    let DaemonOptions { direct, relay_udp, mdns, tap, aes, mtu } = options;
    let mode = if *tap { "tap" } else { "tun" };
    let config_path = host.dir.join("meshd.toml");
    let config = format!(
        "interface = \"mesh0\"\nmode = \"{mode}\"\nmtu = {mtu}\nstate_dir = \"{}\"\nsocket = \"{}\"\ngroup = \"root\"\ndirect = {direct}\nrelay_udp = {relay_udp}\nmdns = {mdns}\n[crypto]\naes = {aes}\n",
        host.dir.join("state").display(),
        host.dir.join("meshd.sock").display()
    );
    fs::write(&config_path, config)?;
    let mut process =
        host.spawn("meshd", &[&program("meshd"), "--config", &config_path.display().to_string()])?;
    wait_until("the daemon to answer", Duration::from_secs(10), || {
        process.check_running()?;
        Ok(host.command(&[&program("meshctl"), "version"]).output()?.status.success().then_some(()))
    })?;
    Ok(process)
}

/// Runs `meshctl` on a host, with text on its standard input, whatever its exit code.
pub(crate) fn ctl_output(host: &Host, words: &[&str], input: Option<&str>) -> Result<Output> {
    let meshctl = program("meshctl");
    let mut command = host.command(&[&[meshctl.as_str()][..], words].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().context("cannot run meshctl")?;
    if let Some(text) = input {
        let mut stdin = child.stdin.take().expect("the standard input is piped");
        stdin.write_all(text.as_bytes())?;
    }
    Ok(child.wait_with_output()?)
}

/// Runs `meshctl` on a host; fails unless it succeeds.
pub(crate) fn ctl(host: &Host, words: &[&str], input: Option<&str>) -> Result<String> {
    checked(&format!("meshctl {}", words.join(" ")), &ctl_output(host, words, input)?)
}

/// What `meshctl status --json` says on a host.
pub(crate) fn status(host: &Host) -> Result<Value> {
    let text = ctl(host, &["--json", "status"], None)?;
    serde_json::from_str(&text).with_context(|| format!("status is no JSON: {text}"))
}

/// The overlay addresses of a host: IPv4, then IPv6.
pub(crate) fn overlay_addresses(host: &Host) -> Result<(String, String)> {
    let status = status(host)?;
    let list = status["node"]["addresses"].as_array().context("status shows no addresses")?;
    let find = |v6: bool| {
        let mut texts = list.iter().filter_map(Value::as_str);
        texts.find(|text| text.contains(':') == v6).map(str::to_owned).context("an address is missing")
    };
    Ok((find(false)?, find(true)?))
}

/// The path of one of our programs.
pub(crate) fn program(name: &str) -> String {
    release_dir().join(name).display().to_string()
}

/// The first word of 52 base32 characters: no other text that a relay prints has this form.
fn pin_in(log: &str) -> Option<String> {
    let is_pin =
        |word: &&str| word.len() == 52 && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
    log.split(|c: char| !c.is_ascii_alphanumeric()).find(is_pin).map(str::to_owned)
}

const RELAY_PORT: u16 = 8443;
