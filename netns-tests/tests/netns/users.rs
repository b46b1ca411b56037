//! The daemon as an ordinary user, and who may do what on its socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use lab::{Daemon, DaemonOptions, Lab, Output, Relay, Underlay, binary, scenario};

/// Makes `/dev/net/tun` open to all in the mount namespace of the command, as udev does on a usual machine, and
/// becomes `nobody` with CAP_NET_ADMIN and nothing else.
const AS_NOBODY: &str = "mount -t tmpfs tmpfs /dev/net; mknod -m 666 /dev/net/tun c 10 200; exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin --no-new-privs -- \"$@\"";

/// The same without any capability.
pub(crate) const WITHOUT_CAPABILITY: &str = "mount -t tmpfs tmpfs /dev/net; mknod -m 666 /dev/net/tun c 10 200; exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs -- \"$@\"";

#[test]
fn ordinary_user_with_one_capability() {
    scenario("ordinary_user_with_one_capability", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let root = Daemon::start(lab, &public.host("root")?, &DaemonOptions::default())?;
        root.up_new("home", &relay.url(), "root")?;
        let mut user = prepare_for_nobody(lab, &public.host("user")?, AS_NOBODY)?;
        user.launch()?;
        user.join(&root.invite(&["--name", "user"])?)?;
        user.ping_address(&root.ipv4()?)?;
        user.ping_address(&root.ipv6()?)?;
        let status = fs::read_to_string(format!("/proc/{}/status", user.process()?.pid()))?;
        assert!(status.lines().any(|line| line.starts_with("Uid:") && line.contains("65534")), "{status}");
        user.stop()?;
        assert!(!user.host().has_interface("mesh0")?);
        Ok(())
    });
}

#[test]
fn stranger_on_the_machine_may_not_use_the_socket() {
    scenario("stranger_on_the_machine_may_not_use_the_socket", |lab| {
        let public = lab.public(Underlay::V4)?;
        let daemon = Daemon::start(lab, &public.host("laptop")?, &DaemonOptions::default())?;
        publish_ctl(lab)?;
        let output = ctl_as(lab, &daemon, [NOBODY, NOBODY], "down")?;
        assert_eq!(output.code, Some(5), "{} {}", output.stdout, output.stderr);
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {}", output.stderr);
        Ok(())
    });
}

#[test]
fn group_of_the_socket_may_ask_and_the_operator_may_change() {
    scenario("group_of_the_socket_may_ask_and_the_operator_may_change", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let mut daemon = Daemon::start(lab, &public.host("laptop")?, &DaemonOptions::default())?;
        daemon.up_new("home", &relay.url(), "laptop")?;
        publish_ctl(lab)?;
        let member = [NOBODY, SOCKET_GROUP];
        ctl_as(lab, &daemon, member, "status")?.exits(0)?;
        let refused = ctl_as(lab, &daemon, member, "down")?.exits(5)?;
        assert!(refused.stderr.contains("operator"), "does not say what to do: {}", refused.stderr);
        assert_eq!(daemon.status()?.state(), "up");

        daemon.stop()?;
        let config = fs::read_to_string(daemon.config_path())?;
        fs::write(daemon.config_path(), format!("operator = \"nobody\"\n{config}"))?;
        daemon.launch()?;
        ctl_as(lab, &daemon, member, "down")?.exits(0)?;
        assert_eq!(daemon.status()?.state(), "down");
        Ok(())
    });
}

/// Runs `meshctl` as a user and a group, without any other group.
fn ctl_as(lab: &Lab, daemon: &Daemon, [user, group]: [&str; 2], word: &str) -> Result<Output> {
    let program = lab.path(CTL)?.display().to_string();
    daemon
        .host()
        .run("setpriv")
        .args(["--reuid", user, "--regid", group, "--clear-groups", "--"])
        .args([&program, "--socket", &daemon.socket(), word])
        .output()
}

/// Puts `meshctl` where everybody can run it.
fn publish_ctl(lab: &Lab) -> Result<()> {
    fs::copy(binary("meshctl")?, lab.path(CTL)?)?;
    open_to_all(lab)
}

/// A daemon whose files belong to `nobody` and whose binary everybody can reach.
pub(crate) fn prepare_for_nobody(lab: &Lab, host: &lab::Host, wrapper: &str) -> Result<Daemon> {
    let program = lab.path("public/meshd")?;
    if !program.exists() {
        fs::copy(binary("meshd")?, &program)?;
    }
    let options = DaemonOptions {
        wrapper: Some(wrapper.to_owned()),
        program: Some(program),
        extra: "operator = \"nobody\"\n".into(),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::prepare(lab, host, &options)?;
    let config = fs::read_to_string(daemon.config_path())?;
    fs::write(daemon.config_path(), config.replace("group = \"root\"", "group = \"nogroup\""))?;
    open_to_all(lab)?;
    host.run("chown").args(["-R", "65534:65534", &daemon.dir().display().to_string()]).ok()?;
    Ok(daemon)
}

fn open_to_all(lab: &Lab) -> Result<()> {
    for entry in fs::read_dir(lab.dir())? {
        let path = entry?.path();
        if path.is_dir() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Where every user finds `meshctl`.
const CTL: &str = "public/meshctl";
/// The id of the user `nobody` and of the group `nogroup`.
const NOBODY: &str = "65534";
/// The id of the group that the laboratory's daemons give their sockets.
const SOCKET_GROUP: &str = "0";
