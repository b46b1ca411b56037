//! Addresses and changes of real interfaces, in network namespaces of their own: each test runs on a thread that has left
//! the machine's namespace, so nothing here can touch an interface or a route of the machine.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "netns/portmap.rs"]
mod portmap;

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{Write, stderr};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_net::{
    Family, HostAddress, HostLifetime, HostLink, HostScope, Mapping, NETWORK_CHANGE_WINDOW, NetworkChange,
    NetworkWatch, StunClient, StunEvent, host_addresses,
};
use mesh_wire::stun::{BindingRequest, BindingSuccess, TransactionId};
use nix::sched::{CloneFlags, unshare};

#[test]
fn addresses_of_networks_are_listed_and_those_of_tunnels_are_not() {
    in_namespace(async || {
        ip("link set lo up");
        ip("address add 192.0.2.200/32 dev lo");
        assert!(host_addresses(OWN).await.unwrap().is_empty());

        network("eth0", &["198.51.100.2/24", "2001:db8:5::2/64"]);
        network("eth1", &["10.9.0.2/24", "fd00:9::2/64"]);
        ip("route add default via 198.51.100.1");
        ip("-6 route add default via 2001:db8:5::1");
        let _tunnels = [
            tunnel(OWN, tun::Layer::L3, "100.64.0.1/20"),
            tunnel("other0", tun::Layer::L3, "100.65.0.1/20"),
            tunnel("zt0", tun::Layer::L2, "10.147.0.1/24"),
        ];
        ip("link add docker0 type bridge");
        ip("link set docker0 up");
        ip("link add veth0 type veth peer name veth0-peer");
        ip("link set veth0 master docker0 up");
        ip("link set veth0-peer up");
        ip("address add 172.17.0.1/16 dev docker0");
        // An interface that is down keeps its address.
        ip("link add eth2 type veth peer name eth2-peer");
        ip("address add 203.0.113.9/24 dev eth2");

        eventually("the bridge works", async || {
            host_addresses(OWN).await.unwrap().iter().any(|host| host.interface == "docker0")
        })
        .await;
        let hosts = host_addresses(OWN).await.unwrap();
        let host = |address: &str, interface: &str, scope, link| HostAddress {
            address: address.parse().unwrap(),
            interface: interface.to_owned(),
            scope,
            lifetime: HostLifetime::Stable,
            link,
        };
        assert_eq!(
            hosts,
            [
                host("2001:db8:5::2", "eth0", HostScope::Public, HostLink::Uplink),
                host("198.51.100.2", "eth0", HostScope::Public, HostLink::Uplink),
                host("fd00:9::2", "eth1", HostScope::Private, HostLink::Other),
                host("10.9.0.2", "eth1", HostScope::Private, HostLink::Other),
                host("172.17.0.1", "docker0", HostScope::Private, HostLink::Internal),
            ]
        );
    });
}

#[test]
fn address_on_its_way_out_is_last_and_one_in_doubt_is_left_out() {
    in_namespace(async || {
        network("eth0", &["2001:db8:5::2/64"]);
        ip("address add 2001:db8:5::1/64 dev eth0 nodad preferred_lft 0");
        ip("address add 10.9.0.2/24 dev eth0");
        // While its duplicates are looked for, for a second or more.
        ip("address add 2001:db8:5::3/64 dev eth0");
        let addresses: Vec<(IpAddr, HostLifetime)> = host_addresses(OWN)
            .await
            .unwrap()
            .into_iter()
            .map(|host| (host.address, host.lifetime))
            .collect();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            addresses,
            [
                (address("2001:db8:5::2"), HostLifetime::Stable),
                (address("10.9.0.2"), HostLifetime::Stable),
                (address("2001:db8:5::1"), HostLifetime::Deprecated),
            ]
        );
    });
}

#[test]
fn address_route_and_link_changes_are_noticed() {
    in_namespace(async || {
        network("eth0", &["198.51.100.2/24"]);
        let mut watch = NetworkWatch::start(OWN).await.unwrap();

        ip("address add 198.51.100.3/24 dev eth0");
        assert!(next(&mut watch).await.addresses);
        ip("route add default via 198.51.100.1");
        assert_eq!(next(&mut watch).await, NetworkChange { routes: true, ..NetworkChange::default() });
        ip("address del 198.51.100.3/24 dev eth0");
        assert_eq!(next(&mut watch).await, NetworkChange { addresses: true, ..NetworkChange::default() });
        ip("link set eth0-peer down");
        assert!(next(&mut watch).await.links);
        ip("link set eth0-peer up");
        assert!(next(&mut watch).await.links);
        ip("link del eth0");
        let change = next(&mut watch).await;
        assert!(change.links && change.addresses, "{change:?}");
    });
}

#[test]
fn changes_that_come_together_are_told_once_and_soon() {
    in_namespace(async || {
        network("eth0", &["198.51.100.2/24"]);
        let mut watch = NetworkWatch::start(OWN).await.unwrap();
        let start = Instant::now();
        let batch: String = (10..40).map(|n| format!("address add 198.51.100.{n}/24 dev eth0\n")).collect();
        ip_batch(&batch);
        let applied = start.elapsed();
        let change = next(&mut watch).await;
        assert_eq!(change, NetworkChange { addresses: true, ..NetworkChange::default() });
        // Reading began after the last of them, so all fell into one window.
        assert!(start.elapsed() >= applied + NETWORK_CHANGE_WINDOW);
        nothing_but(Marker::Route, &mut watch).await;
    });
}

#[test]
fn changes_of_the_own_interface_are_ignored() {
    in_namespace(async || {
        network("eth0", &["198.51.100.2/24"]);
        let mut watch = NetworkWatch::start(OWN).await.unwrap();
        for marker in [Marker::Route, Marker::Address] {
            let device = tunnel(OWN, tun::Layer::L3, "100.64.0.1/20");
            ip(&format!("-6 address add fd00:5::1/64 dev {OWN}"));
            ip(&format!("route add 10.7.0.0/16 dev {OWN}"));
            ip(&format!("-6 route add fd00:6::/64 dev {OWN}"));
            drop(device);
            nothing_but(marker, &mut watch).await;
        }
    });
}

#[test]
fn messages_that_the_kernel_had_to_drop_count_as_a_change() {
    in_namespace(async || {
        network("eth0", &["198.51.100.2/24"]);
        let mut watch = NetworkWatch::start(OWN).await.unwrap();
        // Nobody reads, and far more is said than the socket's buffer holds.
        let routes: String =
            (0..20_000).map(|n| format!("route add 10.{}.{}.0/24 dev eth0\n", n / 250, n % 250)).collect();
        ip_batch(&routes);
        let change = next(&mut watch).await;
        assert!(change.links && change.addresses && change.routes, "{change:?}");
    });
}

#[test]
fn stun_over_real_sockets_finds_the_mapped_address_of_both_families() {
    in_namespace(async || {
        network("eth0", &["198.51.100.2/24", "2001:db8:5::2/64"]);
        ip("link set lo up");
        for (own, family) in [("198.51.100.2", Family::V4), ("[2001:db8:5::2]", Family::V6)] {
            let bind = || {
                let socket = UdpSocket::bind(format!("{own}:0").parse::<SocketAddr>().unwrap()).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            };
            let (socket, servers) = (bind(), [bind(), bind()]);
            let addresses: Vec<SocketAddr> =
                servers.iter().map(|server| server.local_addr().unwrap()).collect();
            let mut client = StunClient::new();
            client.start(Instant::now(), &addresses, counting());
            // Ends after 700 ms at the latest, as the client gives up then.
            while client.poll_timeout().is_some() {
                client.handle_timeout(Instant::now());
                while let Some((to, bytes)) = client.poll_transmit() {
                    socket.send_to(&bytes, to).unwrap();
                }
                servers.iter().for_each(answer);
                let mut buffer = [0; 600];
                while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    client.handle_datagram(from, &buffer[..len]);
                }
            }
            let events: Vec<StunEvent> = std::iter::from_fn(|| client.poll_event()).collect();
            assert_eq!(events.last(), Some(&StunEvent::Finished(family)));
            assert_eq!(client.mapping(family), Mapping::PortIndependent);
            let mapped = client.reports(family).map(|report| report.mapped);
            assert!(mapped.eq([Some(socket.local_addr().unwrap()); 2]));
        }
    });
}

/// Answers what has arrived.
fn answer(server: &UdpSocket) {
    let mut buffer = [0; 600];
    while let Ok((len, from)) = server.recv_from(&mut buffer) {
        let BindingRequest { transaction, fingerprint, .. } = BindingRequest::parse(&buffer[..len]).unwrap();
        let answer =
            BindingSuccess { transaction, mapped: from, fingerprint, origin: None, other: None }.encode();
        server.send_to(&answer, from).unwrap();
    }
}

fn counting() -> impl FnMut() -> TransactionId {
    let mut count = 0;
    move || {
        count += 1;
        [count; 12]
    }
}

/// Makes a tunnel that works as long as the device is held.
fn tunnel(name: &str, layer: tun::Layer, address: &str) -> tun::Device {
    let mut config = tun::configure();
    config.tun_name(name).layer(layer);
    let device = tun::create(&config).unwrap();
    ip(&format!("link set {name} up"));
    ip(&format!("address add {address} dev {name}"));
    until_works(name);
    device
}

/// Makes an interface that works, with addresses that can be used at once.
fn network(name: &str, addresses: &[&str]) {
    ip(&format!("link add {name} type veth peer name {name}-peer"));
    ip(&format!("link set {name}-peer up"));
    ip(&format!("link set {name} up"));
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        ip(&format!("address add {address} dev {name} {nodad}"));
    }
    until_works(name);
    until_works(&format!("{name}-peer"));
}

/// The kernel notices a carrier a moment after both ends are up.
fn until_works(name: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let link = ip(&format!("-o link show dev {name}"));
        if link.contains("LOWER_UP> ") && !link.contains("state DOWN") {
            return;
        }
        assert!(Instant::now() < deadline, "{name} does not work: {link}");
    }
}

async fn next(watch: &mut NetworkWatch) -> NetworkChange {
    tokio::time::timeout(DEADLINE, watch.changed()).await.expect("a change is told in time").unwrap()
}

#[derive(Clone, Copy)]
enum Marker {
    Route,
    Address,
}

/// Makes one change and demands that nothing else was on its way.
async fn nothing_but(marker: Marker, watch: &mut NetworkWatch) {
    let none = NetworkChange::default();
    let wanted = match marker {
        Marker::Route => {
            ip("route add 10.200.0.0/16 via 198.51.100.1");
            NetworkChange { routes: true, ..none }
        }
        Marker::Address => {
            ip("address add 198.51.100.201/32 dev eth0");
            NetworkChange { addresses: true, ..none }
        }
    };
    assert_eq!(next(watch).await, wanted);
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::task::yield_now().await;
    }
}

/// Runs `test` on a thread in a new network namespace, where the machine lets us make one.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("no network namespace can be made ({errno}); run as root"));
        }
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            return skip(&format!("/dev/net/tun cannot be opened ({error})"));
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Says past the harness, which would swallow the words of a test that passes, that this one did nothing.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("SHADOWMESH_REQUIRE_NETNS").is_none(),
        "SHADOWMESH_REQUIRE_NETNS is set, but {reason}"
    );
    let _ = writeln!(stderr(), "SKIPPED: {reason}");
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs many commands in one process.
fn ip_batch(lines: &str) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

const OWN: &str = "smtest0";
const DEADLINE: Duration = Duration::from_secs(10);
