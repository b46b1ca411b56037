//! OpenVPN between two hosts, over UDP, in user space.

use std::fs;

use anyhow::{Context as _, Result};

use super::super::{Kind, MTU, Subject};
use super::{Ends, inner, wait_for_interface};
use crate::arena::Host;
use crate::packages;

/// TLS with the other's fingerprint, AES-256-GCM; without its module for the kernel.
pub(in super::super) fn start(near: Host, far: Host) -> Result<Subject> {
    packages::ensure_installed(&[&[("openvpn", "openvpn"), ("openssl", "openssl")]])?;
    let ends = Ends { kind: Kind::Openvpn, near, far, interface: INTERFACE };
    let mut prints = Vec::new();
    for (_, host, _) in ends.both() {
        let [crt, key] = ["vpn.crt", "vpn.key"].map(|name| host.dir.join(name).display().to_string());
        let words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"];
        let rest = ["-nodes", "-days", "7", "-subj", "/CN=bench", "-keyout", &key, "-out", &crt];
        host.run(&[&words[..], &rest].concat())?;
        let text = host.run(&["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", &crt])?;
        prints.push(text.trim().rsplit('=').next().context("openssl told no fingerprint")?.to_owned());
    }
    let mut programs = Vec::new();
    for (index, host, other) in ends.both() {
        let role = if index == 0 { "tls-server\ndh none" } else { "tls-client" };
        let text = format!(
            "dev {INTERFACE}\ndev-type tun\nproto udp4\nport 1194\nlocal {own}\nremote {other}\n{role}\ncert {dir}/vpn.crt\nkey {dir}/vpn.key\npeer-fingerprint {print}\ndata-ciphers AES-256-GCM\ndisable-dco\nifconfig {inner_own} {inner_other}\ntun-mtu {MTU}\nmssfix 0\n",
            own = host.address,
            other = other.address,
            dir = host.dir.display(),
            print = prints[1 - index],
            inner_own = inner(index),
            inner_other = inner(1 - index),
        );
        let path = host.dir.join("openvpn.conf");
        fs::write(&path, text)?;
        let mut process = host.spawn("openvpn", &["openvpn", "--config", &path.display().to_string()])?;
        wait_for_interface(host, &mut process, INTERFACE)?;
        programs.push(process);
    }
    ends.ready(programs, None)
}

const INTERFACE: &str = "ovpn0";
