//! The journey of a user, on one machine, with the real programs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::arena::{Arena, Host, Process, wait_until};
use crate::programs::{self, Relay, overlay_addresses, start_daemon, start_relay};
use crate::{arena, isolate, packages, say, workspace, write_json};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the network up and say how to enter it.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep` left up.
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
    /// Write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Shows the journey; fails if any step does.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.clean {
        arena::remove(NAME);
        say::line("removed");
        return Ok(ExitCode::SUCCESS);
    }
    if !isolate::is_inside() {
        packages::ensure_installed(&[packages::BUILD, packages::NAMESPACES, packages::TRAFFIC])?;
        say::heading("Building the programs");
        workspace::build(&workspace::PROGRAMS)?;
    }
    isolate::ensure_root_of_networks()?;
    let mut stage = Stage::new()?;
    let figures = stage.play()?;
    report(&figures);
    write_json(arguments.json.as_ref(), &figures)?;
    if arguments.keep {
        stage.keep()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The hosts with what runs on them.
#[derive(Debug)]
struct Stage {
    laptop: Host,
    pi: Host,
    relay: Relay,
    daemons: Vec<Process>,
    // Last, so that the programs end before their namespaces go.
    arena: Arena,
}

impl Stage {
    fn new() -> Result<Self> {
        say::heading("A public network with a relay, a laptop and a pi");
        let mut arena = Arena::new(NAME)?;
        let relay_host = arena.host("relay")?;
        let (laptop, pi) = (arena.host("laptop")?, arena.host("pi")?);
        for host in [&relay_host, &laptop, &pi] {
            say::line(&format!("  {:8} {}", host.name, host.address));
        }
        say::command("relay", "meshrelay --config meshrelay.toml &");
        let relay = start_relay(&relay_host, "")?;
        say::output(&format!("reachable at {}", relay.url));
        let mut daemons = Vec::new();
        for host in [&laptop, &pi] {
            say::command(&host.name, "meshd --config meshd.toml &");
            daemons.push(start_daemon(host, true)?);
        }
        Ok(Self { laptop, pi, relay, daemons, arena })
    }

    /// Runs the journey and returns its figures.
    fn play(&mut self) -> Result<Value> {
        say::heading("The first node makes the network");
        let url = self.relay.url.clone();
        show_ctl(&self.laptop, &["up", "--new", "home", "--relay", &url, "--name", "laptop"], None)?;
        let invite = ["invite", "--name", "pi", "--uses", "1", "--ttl", "1h"];
        let ticket = show_ctl(&self.laptop, &invite, None)?;

        say::heading("The other node joins with the ticket");
        let (laptop4, laptop6) = overlay_addresses(&self.laptop)?;
        let start = Instant::now();
        show_ctl(&self.pi, &["up", "--ticket-file", "-"], Some(&ticket))?;
        let up_s = start.elapsed().as_secs_f64();
        self.pi.run(&["ping", "-n", "-c", "1", "-W", "5", &laptop4])?;
        let first_ping_s = start.elapsed().as_secs_f64();

        say::heading("They reach each other");
        let ping = show_ping(&self.pi, &["-c", "5", "-i", "0.2", &laptop4])?;
        show_ping(&self.laptop, &["-c", "3", "-i", "0.2", &overlay_addresses(&self.pi)?.1])?;
        let text = show_ctl(&self.pi, &["ping", "laptop", "-c", "3", "-i", "0.2"], None)?;
        if !lost_nothing(&text) {
            bail!("meshctl lost pings between pi and laptop");
        }

        say::heading("What the daemons say");
        show_ctl(&self.laptop, &["status"], None)?;
        show_ctl(&self.pi, &["peers"], None)?;

        say::heading("A web page over the tunnel");
        let web = self.web(&laptop6)?;

        say::heading("Throughput");
        let [up, down] = self.throughput(&laptop4)?;
        for daemon in &mut self.daemons {
            daemon.check_running()?;
        }
        self.relay.process.check_running()?;
        Ok(json!({
            "schema": "shadowmesh.demo/1",
            "up_s": up_s,
            "first_ping_s": first_ping_s,
            "rtt_ms": average_rtt(&ping).context("ping printed no average")?,
            "web_mbit_s": web,
            "tcp_pi_to_laptop_mbit_s": up,
            "tcp_laptop_to_pi_mbit_s": down,
        }))
    }

    /// Fetches a page and a large file; returns the speed in Mbit/s.
    fn web(&self, address: &str) -> Result<f64> {
        let program = std::env::current_exe()?.display().to_string();
        let bind = format!("[{address}]:8080");
        let size = WEB_BYTES.to_string();
        say::command("laptop", &format!("a small web server on {bind} &"));
        let words = ["serve", "--bind", &bind, "--bytes", &size, "--title", "Hello from the laptop."];
        let mut server = self.laptop.spawn("web", &[&[program.as_str()][..], &words].concat())?;
        wait_until("the web server", Duration::from_secs(5), || {
            server.check_running()?;
            Ok(self.laptop.run(&["ss", "-H", "-lnt"])?.contains(":8080 ").then_some(()))
        })?;
        let page = show(&self.pi, &["curl", "-sS", "-g", &format!("http://{bind}/")])?;
        if !page.starts_with("Hello") {
            bail!("the web page is not the one that was sent: {page}");
        }
        let file = format!("http://{bind}/file");
        let format = "%{size_download} bytes, %{speed_download} bytes/s\n";
        let text = show(&self.pi, &["curl", "-sS", "-g", "-o", "/dev/null", "-w", format, &file])?;
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        let (received, speed) = (numbers.next(), numbers.next());
        if received != Some(f64::from(WEB_BYTES)) {
            bail!("the file has {received:?} bytes instead of {WEB_BYTES}");
        }
        Ok(speed.context("curl printed no speed")? * 8.0 / 1e6)
    }

    /// Measures TCP from the pi to the laptop and back, in Mbit/s.
    fn throughput(&self, address: &str) -> Result<[f64; 2]> {
        say::command("laptop", &format!("iperf3 -s -B {address} &"));
        let mut server = self.laptop.spawn("iperf3", &["iperf3", "-s", "-B", address])?;
        wait_until("iperf3 to listen", Duration::from_secs(5), || {
            server.check_running()?;
            Ok(self.laptop.run(&["ss", "-H", "-lnt"])?.contains(":5201 ").then_some(()))
        })?;
        let mut results = [0.0; 2];
        for (result, reverse) in results.iter_mut().zip([false, true]) {
            let mut words = vec!["iperf3", "-c", address, "-t", "3", "-i", "1"];
            if reverse {
                words.push("-R");
            }
            let text = show(&self.pi, &[&words[..], &["-f", "m"]].concat())?;
            *result = receiver_rate(&text).context("iperf3 printed no rate of the receiver")?;
        }
        Ok(results)
    }

    /// Leaves everything up.
    fn keep(self) -> Result<()> {
        say::heading("Left up");
        let programs = workspace::release_dir().display().to_string();
        for host in [&self.laptop, &self.pi] {
            let socket = host.dir.join("meshd.sock");
            say::line(&format!(
                "  ip netns exec {} env PATH=\"{programs}:$PATH\" SHADOWMESH_SOCKET={} bash",
                host.namespace,
                socket.display()
            ));
        }
        if isolate::is_inside() {
            // The namespaces of an ordinary user live as long as this process.
            let pid = std::process::id();
            say::line(&format!(
                "  first: nsenter --target {pid} --user --net --mount --preserve-credentials"
            ));
            say::line("  press Ctrl-C here to remove it");
            loop {
                std::thread::park();
            }
        }
        say::line("  remove it with: cargo xtask demo --clean");
        for daemon in self.daemons {
            daemon.release();
        }
        self.relay.process.release();
        self.arena.keep()
    }
}

/// Runs a command on a host and shows it with its output.
fn show(host: &Host, words: &[&str]) -> Result<String> {
    let typed: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    say::command(&host.name, &typed.join(" "));
    let text = host.run(words)?;
    say::output(&text);
    Ok(text)
}

/// Runs `ping`, which succeeds when a single answer comes, and fails unless all do.
fn show_ping(host: &Host, words: &[&str]) -> Result<String> {
    let text = show(host, &[&["ping", "-n"][..], words].concat())?;
    if !lost_nothing(&text) {
        bail!("pings were lost between {} and {}", host.name, words.last().unwrap_or(&""));
    }
    Ok(text)
}

/// Runs `meshctl` on a host and shows it with what it printed.
fn show_ctl(host: &Host, words: &[&str], input: Option<&str>) -> Result<String> {
    say::command(&host.name, &format!("meshctl {}", words.join(" ")));
    if let Some(input) = input {
        say::output(input);
    }
    let output = programs::ctl_output(host, words, input)?;
    say::output(&String::from_utf8_lossy(&output.stderr));
    say::output(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!("meshctl {} failed ({})", words.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The word as a shell wants it.
fn quoted(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\n', "\\n")) }
}

fn report(figures: &Value) {
    say::heading("Figures");
    let mut rows = vec![vec!["what".to_owned(), "value".to_owned()]];
    for (name, key, unit) in ROWS {
        let value = figures[key].as_f64().unwrap_or(f64::NAN);
        rows.push(vec![name.to_owned(), format!("{value:.*} {unit}", if value < 100.0 { 2 } else { 0 })]);
    }
    say::table(&rows);
}

/// Whether the summary of `ping` or `meshctl ping` names no loss.
fn lost_nothing(text: &str) -> bool {
    text.contains(" 0% packet loss") || text.contains(" 0% loss")
}

/// The average of the last line of `ping`: `rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms`.
fn average_rtt(text: &str) -> Option<f64> {
    let (_, numbers) = text.lines().find(|line| line.starts_with("rtt "))?.split_once(" = ")?;
    numbers.split('/').nth(1)?.parse().ok()
}

/// The rate in the line of the receiver of `iperf3 -f m`.
fn receiver_rate(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.trim_end().ends_with("receiver"))?;
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec")?;
    words.get(unit.checked_sub(1)?)?.parse().ok()
}

const NAME: &str = "demo";
const WEB_BYTES: u32 = 20_000_000;

const ROWS: [(&str, &str, &str); 6] = [
    ("meshctl up with a ticket", "up_s", "s"),
    ("up with a ticket until the first ping", "first_ping_s", "s"),
    ("round trip, idle", "rtt_ms", "ms"),
    ("download with curl", "web_mbit_s", "Mbit/s"),
    ("TCP, pi to laptop", "tcp_pi_to_laptop_mbit_s", "Mbit/s"),
    ("TCP, laptop to pi", "tcp_laptop_to_pi_mbit_s", "Mbit/s"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_stands_second() {
        assert_eq!(average_rtt("x\nrtt min/avg/max/mdev = 0.1/0.25/0.3/0.0 ms\n"), Some(0.25));
        assert_eq!(average_rtt("no answer"), None);
    }

    #[test]
    fn one_lost_ping_is_a_loss() {
        assert!(lost_nothing("5 packets transmitted, 5 received, 0% packet loss, time 803ms"));
        assert!(lost_nothing(
            "laptop: 3 sent, 3 received, 0% loss, rtt min/avg/max 1.0 ms / 1.5 ms / 2.0 ms"
        ));
        assert!(!lost_nothing("laptop: 3 sent, 0 received, 100% loss"));
        assert!(!lost_nothing("5 packets transmitted, 4 received, 20% packet loss, time 803ms"));
        assert!(!lost_nothing(""));
    }

    #[test]
    fn rate_is_that_of_the_receiver() {
        let text = "[  5]   0.00-3.00   sec   900 MBytes  2516 Mbits/sec    0             sender\n\
                    [  5]   0.00-3.00   sec   898 MBytes  2511 Mbits/sec                  receiver\n";
        assert_eq!(receiver_rate(text), Some(2511.0));
    }
}
