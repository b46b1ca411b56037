//! Other programs, set up as their own documents say.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Kind, MTU, Subject, newest};
use crate::arena::{Host, Process, wait_until};
use crate::packages;

/// wireguard-go, the newest that packages hold, set up with `wg`.
pub(super) fn wireguard_go(near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("wg", "wireguard-tools")]])?;
    let program = newest("wireguard-go", "wireguard-go")?;
    let mut keys = Vec::new();
    for host in [&near, &far] {
        let secret = host.run(&["wg", "genkey"])?;
        let path = host.dir.join("key");
        fs::write(&path, &secret)?;
        let public = host.run(&["sh", "-c", &format!("wg pubkey < {}", path.display())])?;
        keys.push((path.display().to_string(), public.trim().to_owned()));
    }
    let mut programs = Vec::new();
    for (index, (host, other)) in [(&near, &far), (&far, &near)].into_iter().enumerate() {
        // Its control socket lies in a directory that all namespaces share.
        let interface = &format!("smwg{index}");
        let words = ["env", "WG_PROCESS_FOREGROUND=1", &program.display().to_string(), "-f", interface];
        let mut process = host.spawn("wireguard-go", &words)?;
        wait_for_interface(host, &mut process, interface)?;
        let endpoint = format!("{}:51820", other.address);
        let allowed = inner(1 - index);
        host.run(&[
            "wg",
            "set",
            interface,
            "private-key",
            &keys[index].0,
            "listen-port",
            "51820",
            "peer",
            &keys[1 - index].1,
            "allowed-ips",
            &format!("{allowed}/32"),
            "endpoint",
            &endpoint,
        ])?;
        configure(host, interface, index)?;
        programs.push(process);
    }
    ready(Subject {
        kind: Kind::WireguardGo,
        near,
        far,
        address: inner(1),
        programs,
        interface: "smwg0".into(),
    })
}

/// Nebula without a lighthouse: each host knows the other's address.
pub(super) fn nebula(near: Host, far: Host) -> Result<Subject> {
    let program = newest("nebula", "nebula")?;
    let cert = program.with_file_name("nebula-cert").display().to_string();
    let dir = near.dir.display().to_string();
    near.run(&[
        &cert,
        "ca",
        "-name",
        "bench",
        "-out-crt",
        &format!("{dir}/ca.crt"),
        "-out-key",
        &format!("{dir}/ca.key"),
    ])?;
    let mut programs = Vec::new();
    for (index, (host, other)) in [(&near, &far), (&far, &near)].into_iter().enumerate() {
        let (name, at) = (format!("n{index}"), host.dir.display().to_string());
        let network = format!("{}/24", inner(index));
        let (crt, key) = (format!("{at}/{name}.crt"), format!("{at}/{name}.key"));
        let ca = [format!("{dir}/ca.crt"), format!("{dir}/ca.key")];
        let words = ["sign", "-name", &name, "-ip", &network, "-ca-crt", &ca[0], "-ca-key", &ca[1]];
        host.run(&[&[cert.as_str()][..], &words, &["-out-crt", &crt, "-out-key", &key]].concat())?;
        let config = format!(
            "pki: {{ca: {ca}, cert: {crt}, key: {key}}}\nstatic_host_map: {{\"{other_inner}\": [\"{other}:4242\"]}}\nlighthouse: {{am_lighthouse: false, hosts: []}}\nlisten: {{host: 0.0.0.0, port: 4242}}\ntun: {{dev: neb0, mtu: {MTU}}}\nfirewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n",
            ca = ca[0],
            other_inner = inner(1 - index),
            other = other.address,
        );
        let path = host.dir.join("nebula.yml");
        fs::write(&path, config)?;
        let words = [program.display().to_string(), "-config".into(), path.display().to_string()];
        let mut process = host.spawn("nebula", &words.each_ref().map(String::as_str))?;
        wait_for_interface(host, &mut process, "neb0")?;
        programs.push(process);
    }
    ready(Subject { kind: Kind::Nebula, near, far, address: inner(1), programs, interface: "neb0".into() })
}

/// tinc 1.0 in router mode.
pub(super) fn tinc(near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("tincd", "tinc")]])?;
    for (index, (host, other)) in [(&near, "n1"), (&far, "n0")].into_iter().enumerate() {
        let dir = host.dir.join("tinc");
        fs::create_dir_all(dir.join("hosts"))?;
        fs::write(
            dir.join("tinc.conf"),
            format!("Name = n{index}\nConnectTo = {other}\nInterface = tinc0\nMode = router\n"),
        )?;
        let about = format!("Address = {}\nSubnet = {}/32\n", host.address, inner(index));
        fs::write(dir.join("hosts").join(format!("n{index}")), about)?;
        let up =
            format!("#!/bin/sh\nip addr add {}/24 dev tinc0\nip link set tinc0 mtu {MTU} up\n", inner(index));
        fs::write(dir.join("tinc-up"), up)?;
        host.run(&["chmod", "+x", &dir.join("tinc-up").display().to_string()])?;
        host.run(&["tincd", "-c", &dir.display().to_string(), "-K2048"])?;
    }
    let name = |host: &Host, name: &str| host.dir.join("tinc/hosts").join(name);
    fs::copy(name(&near, "n0"), name(&far, "n0"))?;
    fs::copy(name(&far, "n1"), name(&near, "n1"))?;
    let mut programs = Vec::new();
    for host in [&near, &far] {
        let dir = host.dir.join("tinc").display().to_string();
        let pid = format!("{dir}/pid");
        let mut process = host.spawn("tincd", &["tincd", "-c", &dir, "-D", "--pidfile", &pid])?;
        wait_for_interface(host, &mut process, "tinc0")?;
        programs.push(process);
    }
    ready(Subject { kind: Kind::Tinc, near, far, address: inner(1), programs, interface: "tinc0".into() })
}

/// Waits until the tunnel answers.
fn ready(subject: Subject) -> Result<Subject> {
    wait_until(&format!("{} to carry a ping", subject.kind.name()), Duration::from_secs(20), || {
        let ping = subject.near.command(&["ping", "-n", "-c", "1", "-W", "1", &subject.address]).output()?;
        Ok(ping.status.success().then_some(()))
    })?;
    Ok(subject)
}

fn wait_for_interface(host: &Host, process: &mut Process, name: &str) -> Result<()> {
    wait_until(&format!("the interface {name}"), Duration::from_secs(10), || {
        process.check_running()?;
        let shown = host.command(&["ip", "link", "show", "dev", name]).output()?;
        Ok(shown.status.success().then_some(()))
    })
}

fn configure(host: &Host, interface: &str, index: usize) -> Result<()> {
    host.run(&["ip", "addr", "add", &format!("{}/24", inner(index)), "dev", interface])?;
    host.run(&["ip", "link", "set", interface, "mtu", &MTU.to_string(), "up"])
        .map(drop)
        .with_context(|| format!("cannot set {interface} up"))
}

/// The inner address of the near and of the far end.
fn inner(index: usize) -> String {
    format!("10.66.0.{}", index + 1)
}
