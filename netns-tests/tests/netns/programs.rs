//! Programs that people run through the tunnel.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use lab::{Mesh, MeshOptions, scenario};

#[test]
fn web_page_with_curl() {
    scenario("web_page_with_curl", |lab| {
        let mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
        let page = lab.path("web/page")?;
        let copy = lab.path("web/copy")?;
        let whole = laptop.host().shell(&format!("head -c 50000000 /dev/urandom > {}", page.display())).ok();
        whole?;
        let mut server = pi
            .host()
            .run(env!("CARGO_BIN_EXE_mesh-lab-probe"))
            .args(["http", "--bind", "[::]:80", "--file", &page.display().to_string()])
            .spawn("http")?;
        server.wait_for_log("ready", Duration::from_secs(5))?;
        for host in [pi.ipv4()?, format!("[{}]", pi.ipv6()?)] {
            laptop
                .host()
                .run("curl")
                .args(["-sSf", "-g", "-o", &copy.display().to_string(), &format!("http://{host}/page")])
                .limit(Duration::from_secs(60))
                .ok()?;
            let sums = laptop
                .host()
                .run("sha256sum")
                .args([page.display().to_string(), copy.display().to_string()])
                .ok()?
                .stdout;
            let sums: Vec<_> = sums.lines().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(sums[0], sums[1], "the page changed on its way");
            fs::remove_file(&copy)?;
        }
        Ok(())
    });
}

#[test]
fn command_over_ssh() {
    scenario("command_over_ssh", |lab| {
        let mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
        let dir = lab.path("ssh/x")?.with_file_name("");
        let dir = dir.display();
        for key in ["host", "user"] {
            laptop.host().shell(&format!("ssh-keygen -q -t ed25519 -N '' -f {dir}{key}")).ok()?;
        }
        fs::copy(format!("{dir}user.pub"), format!("{dir}authorized"))?;
        // The directory above belongs to everybody's /tmp, which sshd would refuse for keys in general.
        let mut server = pi
            .host()
            .shell(&format!(
                "mount -t tmpfs tmpfs /run; mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f /dev/null -h {dir}host -o ListenAddress={} -o AuthorizedKeysFile={dir}authorized -o StrictModes=no -o UsePAM=no -o PermitRootLogin=prohibit-password -o PidFile=none",
                pi.ipv4()?
            ))
            .spawn("sshd")?;
        server.wait_for_log("Server listening", Duration::from_secs(10))?;
        let output = ssh(laptop, &pi.ipv4()?, &format!("{dir}user"))?;
        assert!(output.contains("bytes 1000000"), "{output}");
        Ok(())
    });
}

fn ssh(from: &lab::Daemon, address: &str, key: &str) -> Result<String> {
    let command = "head -c 1000000 /dev/zero | wc -c | sed 's/^/bytes /'";
    let output = from
        .host()
        .run("ssh")
        .args(["-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-F", "/dev/null"])
        .args([&format!("root@{address}"), command])
        .ok()?;
    Ok(output.stdout)
}
