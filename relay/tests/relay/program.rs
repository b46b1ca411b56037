//! The program: arguments, messages, exit codes, signals.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn meshrelay(dir: &Path, config: &str) -> Command {
    let path = dir.join("relay.toml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshrelay"));
    command.arg("--config").arg(path).arg("--state-dir").arg(dir.join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("NOTIFY_SOCKET");
    command
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CONFIG: &str =
    "listen = [\"127.0.0.1:0\"]\nstun_listen = []\nmetrics_listen = \"\"\npublic_host = \"relay.example\"\n";

#[test]
fn a_good_configuration_is_said_to_be_good_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = meshrelay(dir.path(), CONFIG).arg("--check-config").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output).0, "the configuration is good\n");
    assert!(!dir.path().join("state").exists());
}

#[test]
fn mistakes_are_one_line_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for (config, wanted) in [
        ("lisen = []", "relay.toml:1: unknown field `lisen`"),
        ("listen = []", "relay.toml: listen: there is no address"),
        ("certificate = \"/nonexistent/a\"\nkey = \"/nonexistent/b\"", "cannot read /nonexistent/a"),
        ("log = \"a=b=c\"", "log: no filter"),
    ] {
        let output = meshrelay(dir.path(), config).arg("--check-config").output().unwrap();
        let (stdout, stderr) = text(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""));
        assert!(stderr.starts_with("meshrelay: ") && stderr.contains(wanted), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let output = meshrelay(dir.path(), CONFIG).arg("--what").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    assert!(meshrelay(dir.path(), CONFIG).arg("--print-pin").output().unwrap().status.success());
    let key = dir.path().join("state/relay.pem");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    for (arguments, code) in [(&["--check-config"][..], 2), (&[][..], 1)] {
        let output = meshrelay(dir.path(), CONFIG).args(arguments).output().unwrap();
        let stderr = text(&output).1;
        assert_eq!(output.status.code(), Some(code));
        assert!(stderr.contains("others can read the private key") && stderr.contains("chmod"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_port_in_use_is_one_line_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = CONFIG.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    let output = meshrelay(dir.path(), &config).output().unwrap();
    let stderr = text(&output).1;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("stop the program that uses the port"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn it_prints_its_address_with_the_pin_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let printed = text(&meshrelay(dir.path(), CONFIG).arg("--print-pin").output().unwrap()).0;
    let mut child = Guard(meshrelay(dir.path(), CONFIG).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("wss://relay.example:"), "{line}");
    let pin = |url: &str| url.trim().split_once('#').unwrap().1.to_owned();
    assert_eq!(pin(&line).len(), 52);
    assert_eq!(pin(&line), pin(&printed));
    let id = Pid::from_raw(i32::try_from(child.0.id()).unwrap());
    kill(id, Signal::SIGTERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn help_has_examples_and_the_manual_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = meshrelay(dir.path(), CONFIG).arg("--help").output().unwrap();
    assert!(text(&output).0.contains("meshrelay --check-config"));
    assert!(meshrelay(dir.path(), CONFIG).arg("--man").arg(dir.path()).status().unwrap().success());
    assert!(std::fs::read_to_string(dir.path().join("meshrelay.8")).unwrap().contains("state\\-dir"));
}
