//! Nebula, directly and through a relay of its own.

use std::fs;

use anyhow::{Context as _, Result};

use super::super::{Kind, MTU, Subject, Third};
use super::{Ends, inner, wait_for_interface};
use crate::arena::{Arena, Host, Process};
use crate::packages;

/// Without a lighthouse: each host knows the other's address.
pub(in super::super) fn direct(near: Host, far: Host) -> Result<Subject> {
    let ends = Ends { kind: Kind::Nebula, near, far, interface: INTERFACE };
    let authority = Authority::new(&ends.near)?;
    let mut programs = Vec::new();
    for (index, host, other) in ends.both() {
        let peer = inner(1 - index);
        let rest = format!("static_host_map: {{\"{peer}\": [\"{}:4242\"]}}\n", other.address);
        programs.push(authority.start(
            host,
            index,
            &format!("{rest}lighthouse: {{am_lighthouse: false}}\n"),
        )?);
    }
    ends.ready(programs, None)
}

/// Through a lighthouse that relays, between ends whose datagrams to each other are dropped.
pub(in super::super) fn relayed(arena: &mut Arena, near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("nft", "nftables")]])?;
    let between = arena.host("nebrelay")?;
    let ends = Ends { kind: Kind::NebulaRelay, near, far, interface: INTERFACE };
    let authority = Authority::new(&between)?;
    let relay = "lighthouse: {am_lighthouse: true}\nrelay: {am_relay: true, use_relays: true}\n";
    let third = inner(2);
    let known = format!(
        "static_host_map: {{\"{third}\": [\"{}:4242\"]}}\nlighthouse: {{am_lighthouse: false, hosts: [\"{third}\"]}}\nrelay: {{relays: [\"{third}\"], am_relay: false, use_relays: true}}\n",
        between.address
    );
    let mut started = vec![authority.start(&between, 2, relay)?];
    for (index, host, other) in ends.both() {
        drop_udp_to(host, other)?;
        started.push(authority.start(host, index, &known)?);
    }
    ends.ready(started, Some(Third { host: between, carries: true }))
}

/// Who signs the certificates of a network.
struct Authority {
    program: String,
    signer: String,
    /// Certificate and key.
    files: [String; 2],
}

impl Authority {
    fn new(host: &Host) -> Result<Self> {
        let program = packages::newest("nebula", "nebula")?;
        let signer = program.with_file_name("nebula-cert").display().to_string();
        let files = ["ca.crt", "ca.key"].map(|name| host.dir.join(name).display().to_string());
        host.run(&[&signer, "ca", "-name", "bench", "-out-crt", &files[0], "-out-key", &files[1]])?;
        Ok(Self { program: program.display().to_string(), signer, files })
    }

    /// Starts a node with a certificate of its own.
    fn start(&self, host: &Host, index: usize, rest: &str) -> Result<Process> {
        let [ca, ca_key] = &self.files;
        let (name, network) = (format!("n{index}"), format!("{}/24", inner(index)));
        let [crt, key, config] =
            ["node.crt", "node.key", "nebula.yml"].map(|name| host.dir.join(name).display().to_string());
        let words = [&self.signer, "sign", "-name", &name, "-ip", &network, "-ca-crt", ca, "-ca-key", ca_key];
        host.run(&[&words[..], &["-out-crt", &crt, "-out-key", &key]].concat())?;
        let text = format!(
            "pki: {{ca: {ca}, cert: {crt}, key: {key}}}\n{rest}listen: {{host: 0.0.0.0, port: 4242}}\ntun: {{dev: {INTERFACE}, mtu: {MTU}}}\nfirewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n"
        );
        fs::write(&config, text)?;
        let mut process = host.spawn("nebula", &[&self.program, "-config", &config])?;
        wait_for_interface(host, &mut process, INTERFACE)?;
        Ok(process)
    }
}

/// Leaves a host no way to send datagrams to another but through a third one.
fn drop_udp_to(host: &Host, other: &Host) -> Result<()> {
    let path = host.dir.join("drop.nft");
    let text = format!(
        "table inet bench {{\n  chain out {{\n    type filter hook output priority 0\n    ip daddr {} meta l4proto udp drop\n  }}\n}}\n",
        other.address
    );
    fs::write(&path, text)?;
    host.run(&["nft", "-f", &path.display().to_string()]).map(drop).context("cannot close the direct way")
}

const INTERFACE: &str = "neb0";
