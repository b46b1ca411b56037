//! Port mappings on a real gateway: `miniupnpd` on a router between two network namespaces. Each test runs on a thread
//! that has left the machine's namespace, so nothing here can touch an interface or a rule of the machine.

use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_net::{MapProtocol, PortMapConfig, PortMapper, PortMapping, Transport};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::watch;
use tokio::time::timeout;

use super::skip;

#[test]
fn pcp_maps_a_port_and_releases_it() {
    in_lab(async |lab| {
        let _gateway = lab.gateway(PCP_AND_UPNP);
        maps_and_releases(&lab, ipv4(), MapProtocol::Pcp, "11.0.0.1:4500").await;
    });
}

#[test]
fn gateway_that_only_knows_nat_pmp_maps_a_port_and_releases_it() {
    in_lab(async |lab| {
        let _gateway = lab.gateway(PCP_AND_UPNP);
        lab.router("nft insert rule inet sm input udp dport 5351 @th,64,8 2 drop");
        maps_and_releases(&lab, ipv4(), MapProtocol::NatPmp, "11.0.0.1:4500").await;
    });
}

#[test]
fn gateway_that_only_knows_upnp_maps_a_port_and_releases_it() {
    in_lab(async |lab| {
        let _gateway = lab.gateway(UPNP);
        maps_and_releases(&lab, ipv4(), MapProtocol::Upnp, "11.0.0.1:4500").await;
    });
}

#[test]
fn pcp_opens_the_firewall_for_ipv6_and_closes_it() {
    in_lab(async |lab| {
        let _gateway = lab.gateway(PCP_AND_UPNP);
        let config = PortMapConfig {
            transport: Transport::Udp,
            ipv4: Vec::new(),
            ipv6: vec![PORT],
            local: None,
            lifetime: PortMapper::LIFETIME,
        };
        maps_and_releases(&lab, config, MapProtocol::Pcp, "[2001:db8:1::2]:4500").await;
    });
}

#[test]
fn tcp_port_is_mapped_by_every_protocol_and_released() {
    for (kind, drops, protocol) in [
        (PCP_AND_UPNP, None, MapProtocol::Pcp),
        (
            PCP_AND_UPNP,
            Some("nft insert rule inet sm input udp dport 5351 @th,64,8 2 drop"),
            MapProtocol::NatPmp,
        ),
        (UPNP, None, MapProtocol::Upnp),
    ] {
        in_lab(async move |lab| {
            let _gateway = lab.gateway(kind);
            if let Some(rule) = drops {
                lab.router(rule);
            }
            let _listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
            let external = "11.0.0.1:4500".parse().unwrap();
            assert!(!lab.connects(external));
            let mapper = lab.map(PortMapConfig { transport: Transport::Tcp, ..ipv4() });
            let all = until(&mut mapper.mappings(), "there is a mapping", |all| !all.is_empty()).await;
            assert_eq!((all[0].protocol, all[0].external), (protocol, external), "{all:?}");
            eventually("a connection from outside comes in", || lab.connects(external));
            mapper.stop().await;
            assert!(!lab.connects(external), "still open:\n{}", lab.router("nft list table inet sm"));
        });
    }
}

#[test]
fn port_that_another_host_has_is_replaced_by_another() {
    for kind in [PCP_AND_UPNP, UPNP] {
        in_lab(async move |lab| {
            let _gateway = lab.gateway(kind);
            let first = lab.map(ipv4());
            until(&mut first.mappings(), "the first host has its port", |all| !all.is_empty()).await;

            run("ip address add 192.168.77.3/24 dev sm-lan");
            run("ip route replace 192.168.77.0/24 dev sm-lan proto kernel scope link src 192.168.77.3");
            let second = lab.map(ipv4());
            let socket = lab.inside(PORT);
            let all = until(&mut second.mappings(), "the second host has one", |all| !all.is_empty()).await;
            assert_eq!(all[0].internal, "192.168.77.3:4500".parse().unwrap());
            assert_ne!(all[0].external.port(), PORT, "{all:?}");
            eventually("both external ports lead inside", || {
                ["11.0.0.1:4500".parse().unwrap(), all[0].external].iter().all(|to| lab.reaches(*to, &socket))
            });
            second.stop().await;
            eventually("the port of the second is closed", || !lab.reaches(all[0].external, &socket));
            assert!(lab.reaches("11.0.0.1:4500".parse().unwrap(), &socket));
            first.stop().await;
        });
    }
}

#[test]
fn mapping_is_renewed_before_it_expires() {
    for kind in [PCP_AND_UPNP, UPNP] {
        in_lab(async move |lab| {
            let _gateway = lab.gateway(kind);
            let mapper = lab.map(PortMapConfig { lifetime: Duration::from_secs(4), ..ipv4() });
            let mut mappings = mapper.mappings();
            let first = until(&mut mappings, "there is a mapping", |all| !all.is_empty()).await[0].clone();
            let all = until(&mut mappings, "it lives on", |all| {
                assert_eq!(all.len(), 1, "the mapping was lost");
                Instant::now() > first.expires + Duration::from_secs(1)
            })
            .await;
            assert_eq!(all[0].external, first.external);
            assert!(lab.reaches(first.external, &lab.inside(PORT)));
            mapper.stop().await;
        });
    }
}

#[test]
fn gateway_that_announces_its_restart_is_asked_again() {
    in_lab(async |lab| {
        let gateway = lab.gateway(PCP_AND_UPNP);
        let mapper = lab.map(ipv4());
        let socket = lab.inside(PORT);
        let all = until(&mut mapper.mappings(), "there is a mapping", |all| !all.is_empty()).await;
        assert!(lab.reaches(all[0].external, &socket));
        drop(gateway);
        lab.forget();
        assert!(!lab.reaches(all[0].external, &socket));
        let _gateway = lab.gateway(PCP_AND_UPNP);
        eventually("the port is open again", || lab.reaches(all[0].external, &socket));
        mapper.stop().await;
    });
}

#[test]
fn silent_restart_is_noticed_by_the_epoch() {
    in_lab(async |lab| {
        let gateway = lab.gateway(PCP_AND_UPNP);
        lab.router("nft insert rule inet sm output udp dport 5350 drop");
        // Asked for its epoch every two seconds and renewed after eight.
        let mapper = lab.map(PortMapConfig { lifetime: Duration::from_secs(16), ..ipv4() });
        let mut mappings = mapper.mappings();
        let socket = lab.inside(PORT);
        let first = until(&mut mappings, "there is a mapping", |all| !all.is_empty()).await[0].clone();
        let renewed = until(&mut mappings, "it was renewed", |all| all[0].expires > first.expires).await;
        drop(gateway);
        lab.forget();
        let _gateway = lab.gateway(PCP_AND_UPNP);
        assert!(!lab.reaches(first.external, &socket));
        eventually("the port is open again", || lab.reaches(first.external, &socket));
        let renewal = renewed[0].expires - Duration::from_secs(8);
        assert!(Instant::now() < renewal, "only the renewal made it again");
        mapper.stop().await;
    });
}

#[test]
fn absent_gateway_is_given_up_and_found_when_the_network_changes() {
    in_lab(async |lab| {
        lab.router("nft insert rule inet sm output udp dport 5350 drop");
        lab.router("nft insert rule inet sm input udp dport '{ 1900, 5351 }' counter name asked drop");
        let start = Instant::now();
        let mapper = lab.map(ipv4());
        let mut mappings = mapper.mappings();
        let (mut seen, mut last) = (0, start);
        eventually("the gateway is asked and then left alone", || {
            let asked = lab.asked();
            if asked != seen {
                (seen, last) = (asked, Instant::now());
            }
            seen > 0 && last.elapsed() > Duration::from_secs(2)
        });
        assert!(last - start < Duration::from_secs(2), "asked for {:?}", last - start);
        assert!(mappings.borrow_and_update().is_empty());

        let handle = lab.router("nft -a list chain inet sm input");
        let handle = handle.split_once("\"asked\" drop # handle ").unwrap().1.lines().next().unwrap();
        lab.router(&format!("nft delete rule inet sm input handle {handle}"));
        let _gateway = lab.gateway(PCP_AND_UPNP);
        assert!(mappings.borrow_and_update().is_empty());
        let changed = Instant::now();
        mapper.network_changed();
        until(&mut mappings, "there is a mapping", |all| !all.is_empty()).await;
        assert!(changed.elapsed() < Duration::from_secs(3), "took {:?}", changed.elapsed());
        mapper.stop().await;
    });
}

#[test]
fn lying_gateway_is_not_believed() {
    in_lab(async |lab| {
        // A stranger's answer, an impossible address, a lifetime of nothing and a wrong nonce; without its fault each
        // would be a mapping, as the next test shows.
        let lies: [Lie; 4] = [
            (5352, "11.0.0.9", 60, |_| ()),
            (5351, "127.0.0.1", 60, |_| ()),
            (5351, "11.0.0.9", 0, |_| ()),
            (5351, "11.0.0.9", 60, |bytes| bytes[24] ^= 1),
        ];
        for (port, address, lifetime, change) in lies {
            let liar = Liar::start(&lab.router, port, address.parse().unwrap(), lifetime, change);
            let mapper = lab.map(ipv4());
            eventually("the liar was asked", || liar.asked() > 0);
            // It is asked again when its answer was ignored, and otherwise in the next round.
            mapper.network_changed();
            eventually("the liar was asked again", || liar.asked() > 1);
            assert!(mapper.mappings().borrow().is_empty(), "{port} {address} {lifetime}");
            mapper.stop().await;
        }
    });
}

#[test]
fn private_external_address_is_marked() {
    in_lab(async |lab| {
        let _liar = Liar::start(&lab.router, 5351, "10.3.2.1".parse().unwrap(), 60, |_| ());
        let mapper = lab.map(ipv4());
        let all = until(&mut mapper.mappings(), "there is a mapping", |all| !all.is_empty()).await;
        assert_eq!(all[0].external, "10.3.2.1:4500".parse().unwrap());
        assert!(all[0].double_nat, "{all:?}");
        mapper.stop().await;
    });
}

#[test]
fn machine_without_a_gateway_has_no_mappings_and_stops_at_once() {
    in_lab(async |lab| {
        run("ip route del default");
        let mapper = lab.map(ipv4());
        assert!(mapper.mappings().borrow().is_empty());
        let start = Instant::now();
        mapper.stop().await;
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

/// The whole life of one mapping.
async fn maps_and_releases(lab: &Lab, config: PortMapConfig, protocol: MapProtocol, external: &str) {
    let external: SocketAddr = external.parse().unwrap();
    let socket = lab.inside(PORT);
    assert!(!lab.reaches(external, &socket));
    let mapper = lab.map(config);
    let mut mappings = mapper.mappings();
    let start = Instant::now();
    let all = until(&mut mappings, "there is a mapping", |all| !all.is_empty()).await;
    let [mapping] = &all[..] else { panic!("{all:?}") };
    assert_eq!((mapping.protocol, mapping.external), (protocol, external));
    assert_eq!(mapping.internal.port(), PORT);
    assert!(!mapping.double_nat && mapping.expires > start + PortMapper::LIFETIME / 2, "{mapping:?}");
    eventually("a datagram from outside comes in", || lab.reaches(external, &socket));

    let start = Instant::now();
    mapper.stop().await;
    assert!(start.elapsed() < Duration::from_secs(2), "stopping took {:?}", start.elapsed());
    assert!(mappings.borrow_and_update().is_empty());
    assert!(!lab.reaches(external, &socket), "still open:\n{}", lab.router("nft list table inet sm"));
}

/// A host in the namespace of the calling thread, a router and the internet.
///
/// `192.168.77.2 — 192.168.77.1 router 11.0.0.1 — 11.0.0.2` and `2001:db8:1::2 — fe80::1 router 2001:db8:2::1 —
/// 2001:db8:2::2`. The router masquerades IPv4 and lets nothing in.
struct Lab {
    router: Namespace,
    internet: Namespace,
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let (router, internet) = (Namespace::new(), Namespace::new());
        let lab = Self { router, internet, directory: tempfile::tempdir().unwrap() };
        let (router, internet) = (lab.router.id(), lab.internet.id());
        run("ip link set lo up");
        run(&format!("ip link add sm-lan type veth peer name sm-lan netns {router}"));
        lab.router(&format!("ip link add sm-wan type veth peer name sm-wan netns {internet}"));
        run("ip address add 192.168.77.2/24 dev sm-lan");
        run("ip address add 2001:db8:1::2/64 dev sm-lan nodad");
        lab.router("ip address add 192.168.77.1/24 dev sm-lan");
        lab.router("ip address add 2001:db8:1::1/64 dev sm-lan nodad");
        lab.router("ip address add fe80::1/64 dev sm-lan nodad");
        lab.router("ip address add 11.0.0.1/24 dev sm-wan");
        lab.router("ip address add 2001:db8:2::1/64 dev sm-wan nodad");
        lab.internet.run("ip address add 11.0.0.2/24 dev sm-wan");
        lab.internet.run("ip address add 2001:db8:2::2/64 dev sm-wan nodad");
        for at in ["lo", "sm-lan", "sm-wan"] {
            lab.router(&format!("ip link set {at} up"));
        }
        run("ip link set sm-lan up");
        lab.internet.run("ip link set sm-wan up");
        run("ip route add default via 192.168.77.1");
        run("ip route add default via fe80::1 dev sm-lan");
        lab.internet.run("ip route add 2001:db8:1::/64 via 2001:db8:2::1");
        lab.router("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        lab.router(&format!("nft '{RULES}'"));
        lab
    }

    /// Starts the daemon, and waits until it listens.
    fn gateway(&self, options: &str) -> Daemon {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
        let config = self.directory.path().join(&name);
        std::fs::write(&config, format!("{CONFIG}{options}")).unwrap();
        let pid_file = self.directory.path().join(name + ".pid");
        let mut child = Command::new("nsenter")
            .args(["-t", &self.router.id().to_string(), "-n", "miniupnpd", "-d", "-f"])
            .args([config.as_path(), "-P".as_ref(), pid_file.as_path()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("HTTP listening on port") || (options == PCP_AND_UPNP && !said.contains("5351"))
        {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "miniupnpd ended: {said}");
        }
        // It would stand still, or end, when nobody reads what it says.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Daemon(child)
    }

    /// What a reboot of the router does to its rules.
    fn forget(&self) {
        self.router("for chain in forwarded pre post; do nft flush chain inet sm $chain; done");
    }

    fn map(&self, config: PortMapConfig) -> PortMapper {
        PortMapper::start(config)
    }

    /// A socket of the host, for both families.
    fn inside(&self, port: u16) -> UdpSocket {
        let socket = UdpSocket::bind(("::", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        socket
    }

    /// Whether a stranger on the internet gets a connection.
    fn connects(&self, to: SocketAddr) -> bool {
        self.internet.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(250)).is_ok())
    }

    /// Whether a datagram of a stranger on the internet arrives. Each one comes from another port, which no earlier
    /// datagram has opened a way for.
    fn reaches(&self, to: SocketAddr, inside: &UdpSocket) -> bool {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let word = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
        self.internet.enter(|| UdpSocket::bind((any, 0)).unwrap().send_to(&word, to).unwrap());
        let mut buffer = [0; 64];
        loop {
            match inside.recv_from(&mut buffer) {
                Ok((len, _)) if buffer[..len] == word => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// How many packets met the rule that counts questions.
    fn asked(&self) -> u64 {
        let counter = self.router("nft list counter inet sm asked");
        counter.split_once("packets ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    }

    fn router(&self, script: &str) -> String {
        self.router.run(script)
    }
}

/// Source port, external address, lifetime in seconds and a change of the answer.
type Lie = (u16, &'static str, u32, fn(&mut [u8]));

/// Grants every request by PCP in its own way, until it is dropped.
struct Liar {
    asked: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    fn start(on: &Namespace, port: u16, external: Ipv4Addr, lifetime: u32, change: fn(&mut [u8])) -> Self {
        let bind = |port| on.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let server = bind(5351);
        let speaker = if port == 5351 { server.try_clone().unwrap() } else { bind(port) };
        let (asked, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (asked.clone(), stop.clone());
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let serve = move || {
            let mut bytes = [0; 60];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((60, from)) = server.recv_from(&mut bytes) else { continue };
                bytes[1] |= 0x80;
                bytes[4..8].copy_from_slice(&lifetime.to_be_bytes());
                bytes[8..24].fill(0);
                bytes[56..].copy_from_slice(&external.octets());
                change(&mut bytes);
                speaker.send_to(&bytes, from).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        Self { asked, stop, thread: Some(std::thread::spawn(serve)) }
    }

    /// How often it lied.
    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A running `miniupnpd`, killed when dropped: it has no time to take its mappings back.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace that lives as long as a process that waits for the end of its input.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo made; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "made\n");
        Self(child)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    fn run(&self, script: &str) -> String {
        output(Command::new("nsenter").args(["-t", &self.id().to_string(), "-n", "sh", "-c", script]))
    }

    /// Runs `work` on a thread in this namespace.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.id())).unwrap();
        let in_there = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(in_there).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `test` on a thread in a lab of its own, where the machine lets us make one.
fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("no network namespace can be made ({errno}); run as root"));
        }
        for program in ["nft", "miniupnpd"] {
            if let Err(error) = Command::new(program).arg("--version").output() {
                return skip(&format!(
                    "{program} cannot be run ({error}); install nftables and miniupnpd-nftables"
                ));
            }
        }
        // The test blocks its own thread, and the tasks run on others, which are in the same namespace.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(test(Lab::new()));
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Waits for a list of mappings; `condition` sees each one.
async fn until(
    mappings: &mut watch::Receiver<Vec<PortMapping>>,
    what: &str,
    condition: impl FnMut(&Vec<PortMapping>) -> bool,
) -> Vec<PortMapping> {
    let found = timeout(DEADLINE, mappings.wait_for(condition)).await;
    found.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}")).unwrap().clone()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

fn ipv4() -> PortMapConfig {
    PortMapConfig {
        transport: Transport::Udp,
        ipv4: vec![PORT],
        ipv6: Vec::new(),
        local: None,
        lifetime: PortMapper::LIFETIME,
    }
}

fn run(script: &str) -> String {
    output(Command::new("sh").args(["-c", script]))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const PORT: u16 = 4500;
const DEADLINE: Duration = Duration::from_secs(20);
const PCP_AND_UPNP: &str = "enable_natpmp=yes\n";
const UPNP: &str = "enable_natpmp=no\n";
const CONFIG: &str = "ext_ifname=sm-wan
ext_ifname6=sm-wan
listening_ip=sm-lan
http_port=0
enable_upnp=yes
secure_mode=yes
system_uptime=no
min_lifetime=2
max_lifetime=86400
upnp_table_name=sm
upnp_nat_table_name=sm
upnp_forward_chain=forwarded
upnp_nat_chain=pre
upnp_nat_postrouting_chain=post
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";
const RULES: &str = "
table inet sm {
    counter asked { }
    chain forwarded { }
    chain pre { }
    chain post { }
    chain input { type filter hook input priority 0; }
    chain output { type filter hook output priority 0; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname sm-lan accept
        jump forwarded
    }
    chain prerouting { type nat hook prerouting priority -100; jump pre; }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump post
        meta nfproto ipv4 oifname sm-wan masquerade
    }
}";
