//! The routers of the laboratory behave as their kinds say, measured from both sides with plain sockets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{
    Dependence, Host, NatKind, Ports, Refusal, Relay, Site, Switch, Translation, Underlay, scenario,
    wait_until,
};

/// What one socket behind a router and three outside find out about it.
#[derive(Debug, PartialEq, Eq)]
struct Observed {
    mapping: Dependence,
    filtering: Dependence,
    /// Whether the port is that of the inside.
    preserved: bool,
    /// Whether mappings that follow each other have ports that do.
    in_a_row: bool,
}

#[test]
fn kinds_behave_as_they_say() {
    use Dependence::{Address, AddressAndPort, Endpoint};
    scenario("kinds_behave_as_they_say", |lab| {
        let public = lab.public(Underlay::V4)?;
        let outside = Outside::new(&public)?;
        for (kind, mapping, filtering) in [
            (NatKind::FullCone, Endpoint, Endpoint),
            (NatKind::AddressRestricted, Endpoint, Address),
            (NatKind::PortRestricted, Endpoint, AddressAndPort),
            (NatKind::LinuxPortRestricted, Endpoint, AddressAndPort),
            (NatKind::SymmetricRandom, AddressAndPort, AddressAndPort),
            (NatKind::LinuxSymmetric, AddressAndPort, AddressAndPort),
            (NatKind::SymmetricSequential, AddressAndPort, AddressAndPort),
            (NatKind::Double, Endpoint, AddressAndPort),
        ] {
            let name = format!("{kind:?}");
            let site = public.site(&name, kind)?;
            let host = site.host(&name)?;
            let observed = outside.observe(&host, &site).with_context(|| kind.name())?;
            let preserved = kind == NatKind::LinuxPortRestricted;
            let in_a_row = kind == NatKind::SymmetricSequential;
            assert_eq!(observed, Observed { mapping, filtering, preserved, in_a_row }, "{}", kind.name());
        }
        Ok(())
    });
}

#[test]
fn any_mix_of_mapping_and_filtering_can_be_made() {
    use Dependence::{Address, AddressAndPort, Endpoint};
    scenario("any_mix_of_mapping_and_filtering_can_be_made", |lab| {
        let public = lab.public(Underlay::V4)?;
        let outside = Outside::new(&public)?;
        for (number, (mapping, filtering)) in
            [(Address, Address), (Address, Endpoint), (AddressAndPort, Endpoint)].into_iter().enumerate()
        {
            let translation = Translation { mapping, filtering, ports: Ports::Preserved, ..cone() };
            let name = number.to_string();
            let site = public.site_with(&name, NatKind::SymmetricRandom, translation)?;
            let host = site.host(&name)?;
            let observed = outside.observe(&host, &site)?;
            assert_eq!((observed.mapping, observed.filtering), (mapping, filtering));
            assert!(observed.preserved, "the first mapping of a port");
        }
        Ok(())
    });
}

#[test]
fn tcp_to_a_relay_works_from_everywhere() {
    scenario("tcp_to_a_relay_works_from_everywhere", |lab| {
        let public = lab.public(Underlay::Both)?;
        let relay = public.host("relay")?;
        let listener = relay.enter(|| Ok(TcpListener::bind(("::", Relay::PORT))?))?;
        for kind in NatKind::ALL {
            let name = format!("{kind:?}");
            let site = public.site(&name, kind)?;
            let host = site.host(&name)?;
            let wants_ipv6 = matches!(kind, NatKind::Ipv6Only | NatKind::DeadIpv4);
            let to: IpAddr = if wants_ipv6 { "2001:db8::1".parse()? } else { relay.address() };
            carry(&host, &listener, to).with_context(|| kind.name())?;
        }
        Ok(())
    });
}

#[test]
fn only_the_web_passes_where_udp_is_blocked() {
    scenario("only_the_web_passes_where_udp_is_blocked", |lab| {
        let public = lab.public(Underlay::V4)?;
        let site = public.site("office", NatKind::UdpBlocked)?;
        let (host, server) = (site.host("laptop")?, public.host("server")?);
        let socket = bind(&host, 0)?;
        let (other, dns) = (bind(&server, 3478)?, bind(&server, 53)?);
        socket.send_to(b"blocked", (server.address(), 3478))?;
        socket.send_to(b"question", (server.address(), 53))?;
        let (_, from) = receive(&dns)?.context("DNS does not pass")?;
        assert_eq!(IpAddr::from(site.wan().unwrap()), from.ip());
        assert!(at_once(&other)?.is_none(), "other datagrams pass");
        let listener = server.enter(|| Ok(TcpListener::bind("0.0.0.0:8080")?))?;
        let to = SocketAddr::new(server.address(), listener.local_addr()?.port());
        let connect = || Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_millis(500))?);
        host.enter(connect).expect_err("TCP to any port passes");
        Ok(())
    });
}

#[test]
fn families_that_are_missing_or_dead() {
    scenario("families_that_are_missing_or_dead", |lab| {
        let public = lab.public(Underlay::Both)?;
        let server = public.host("server")?;
        let both = ["203.0.113.1", "2001:db8::1"];
        for (kind, reached) in [
            (NatKind::None, [true, true]),
            (NatKind::Ipv6Only, [false, true]),
            (NatKind::DeadIpv4, [false, true]),
        ] {
            let name = format!("{kind:?}");
            let host = public.site(&name, kind)?.host(&name)?;
            for (address, reached) in both.into_iter().zip(reached) {
                let ping = host.run("ping").args(["-n", "-c", "1", "-W", "1", address]).output()?;
                assert_eq!(ping.code == Some(0), reached, "{name} to {address}: {}", ping.stderr);
            }
        }
        // What is dead takes packets all the same: a program learns of it by waiting only.
        let state = server.run("ip").args(["-4", "neigh"]).ok()?.stdout;
        let dead = state.lines().filter(|line| line.contains("lladdr")).count();
        assert!(dead >= 2, "the host with dead IPv4 was not found by ARP: {state}");
        Ok(())
    });
}

#[test]
fn mapping_ends_when_nothing_leaves() {
    scenario("mapping_ends_when_nothing_leaves", |lab| {
        let public = lab.public(Underlay::V4)?;
        let lifetime = Duration::from_millis(600);
        let site = public.site_with("short", NatKind::FullCone, Translation { lifetime, ..cone() })?;
        let (host, server) = (site.host("laptop")?, public.host("server")?);
        let (inside, outside) = (bind(&host, 4747)?, bind(&server, 3478)?);
        let first = mapped(&inside, &outside, &server)?;
        let start = Instant::now();
        wait_until("the end of the mapping", Duration::from_secs(5), || {
            outside.send_to(b"are you there", first)?;
            Ok(site.routers()[0].refused(Refusal::Unmapped)?.gt(&0).then_some(()))
        })?;
        assert!(start.elapsed() > lifetime / 2, "after {:?}", start.elapsed());
        let second = mapped(&inside, &outside, &server)?;
        assert_ne!(first, second);
        // And when the router is switched off and on.
        site.reboot()?;
        assert_ne!(mapped(&inside, &outside, &server)?, second);
        Ok(())
    });
}

#[test]
fn neighbours_meet_on_the_inside_and_by_hairpin() {
    scenario("neighbours_meet_on_the_inside_and_by_hairpin", |lab| {
        let public = lab.public(Underlay::V4)?;
        let server = public.host("server")?;
        let outside = bind(&server, 3478)?;
        for hairpin in [false, true] {
            let kind = NatKind::PortRestricted;
            let translation = Translation { hairpin, ..kind.translation().unwrap() };
            let site = public.site_with(&format!("{hairpin}"), kind, translation)?;
            let hosts = [site.host(&format!("one-{hairpin}"))?, site.host(&format!("two-{hairpin}"))?];
            let [one, two] = [bind(&hosts[0], 4747)?, bind(&hosts[1], 4747)?];
            one.send_to(b"neighbour", (hosts[1].address(), 4747))?;
            let (_, from) = receive(&two)?.context("neighbours do not reach each other")?;
            assert_eq!(from, SocketAddr::new(hosts[0].address(), 4747));
            let [at_one, at_two] = [mapped(&one, &outside, &server)?, mapped(&two, &outside, &server)?];
            one.send_to(b"opens", at_two)?;
            two.send_to(b"through the router", at_one)?;
            outside.send_to(b"last", at_one)?;
            let (text, from) = receive(&one)?.context("nothing at all")?;
            let wanted = if hairpin {
                (&b"through the router"[..], at_two)
            } else {
                (&b"last"[..], outside_address(&server))
            };
            assert_eq!((&text[..], from), wanted, "hairpin: {hairpin}");
        }
        Ok(())
    });
}

#[test]
fn echo_and_complaints_pass_a_translator() {
    scenario("echo_and_complaints_pass_a_translator", |lab| {
        let public = lab.public(Underlay::V4)?;
        let site = public.site("home", NatKind::Double)?;
        let (host, server) = (site.host("laptop")?, public.host("server")?);
        let address = server.address().to_string();
        host.run("ping").args(["-n", "-c", "2", "-i", "0.1", "-W", "2", &address]).ok()?;
        // Two routers on the way: a packet that may pass three hops arrives, one that may pass two does not.
        host.run("ping").args(["-n", "-c", "1", "-W", "2", "-t", "3", &address]).ok()?;
        let short = host.run("ping").args(["-n", "-c", "1", "-W", "1", "-t", "2", &address]).output()?;
        assert_ne!(short.code, Some(0), "{}", short.stdout);
        let socket = bind(&host, 0)?;
        socket.connect((server.address(), 9))?;
        socket.send(b"nobody listens")?;
        let error = receive(&socket).expect_err("the complaint did not come back");
        let error = error.downcast::<std::io::Error>()?;
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        Ok(())
    });
}

/// Two sockets on one public host and one on another.
struct Outside {
    one: UdpSocket,
    same_address: UdpSocket,
    other_address: UdpSocket,
    targets: [SocketAddr; 3],
}

impl Outside {
    fn new(public: &Switch<'_>) -> Result<Self> {
        let (first, second) = (public.host("first")?, public.host("second")?);
        let targets = [(&first, 3478), (&first, 3479), (&second, 3478)]
            .map(|(host, port): (&Host, u16)| SocketAddr::new(host.address(), port));
        Ok(Self {
            one: bind(&first, 3478)?,
            same_address: bind(&first, 3479)?,
            other_address: bind(&second, 3478)?,
            targets,
        })
    }

    fn observe(&self, host: &Host, site: &Site<'_, '_>) -> Result<Observed> {
        let inside = bind(host, PORT)?;
        let mut ports = Vec::new();
        for (socket, target) in
            [&self.one, &self.same_address, &self.other_address].into_iter().zip(self.targets)
        {
            inside.send_to(b"where am I", target)?;
            let (_, from) = receive(socket)?.with_context(|| format!("nothing came to {target}"))?;
            ensure!(Some(from.ip()) == site.wan().map(IpAddr::from), "{from} is not the router");
            ports.push(from.port());
        }
        let mapping = match (ports[0] == ports[1], ports[0] == ports[2]) {
            (true, true) => Dependence::Endpoint,
            (true, false) => Dependence::Address,
            (false, false) => Dependence::AddressAndPort,
            (false, true) => anyhow::bail!("no kind of router gives {ports:?}"),
        };
        Ok(Observed {
            mapping,
            filtering: self.filtering(host)?,
            preserved: ports[0] == PORT,
            in_a_row: ports.windows(2).all(|two| two[1] == two[0].wrapping_add(1)),
        })
    }

    /// Who besides the one that a fresh socket has sent to comes in.
    fn filtering(&self, host: &Host) -> Result<Dependence> {
        let inside = bind(host, PORT + 1)?;
        inside.send_to(b"open", self.targets[0])?;
        let (_, mapped) = receive(&self.one)?.context("nothing came")?;
        self.other_address.send_to(b"knock", mapped)?;
        self.same_address.send_to(b"knock", mapped)?;
        self.one.send_to(b"end", mapped)?;
        let mut passed = [false; 3];
        // All take the same way, so that what was sent before the last one has arrived by then or never will.
        while !passed[0] {
            let (_, from) = receive(&inside)?.context("not even the one that was asked comes in")?;
            let number = self.targets.iter().position(|target| *target == from);
            passed[number.context("a stranger")?] = true;
        }
        Ok(match passed[1..] {
            [true, true] => Dependence::Endpoint,
            [true, false] => Dependence::Address,
            [false, false] => Dependence::AddressAndPort,
            _ => anyhow::bail!("no kind of filter lets only another address in"),
        })
    }
}

/// Sends a million bytes over TCP, and gets them back.
fn carry(host: &Host, listener: &TcpListener, to: IpAddr) -> Result<()> {
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let to = SocketAddr::new(to, Relay::PORT);
    let mut stream = host.enter(|| Ok(std::net::TcpStream::connect_timeout(&to, PATIENCE)?))?;
    let (mut accepted, _) = listener.accept()?;
    for stream in [&stream, &accepted] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut received = vec![0; 1_000_000];
            accepted.read_exact(&mut received)?;
            accepted.write_all(&received)
        });
        stream.write_all(&bytes)?;
        let mut received = vec![0; bytes.len()];
        stream.read_exact(&mut received)?;
        ensure!(received == bytes, "the bytes changed on their way");
        echo.join().expect("the other end does not panic")?;
        Ok(())
    })
}

/// The address that a socket has outside, once it has sent a datagram to `outside`.
fn mapped(inside: &UdpSocket, outside: &UdpSocket, server: &Host) -> Result<SocketAddr> {
    inside.send_to(b"where am I", outside_address(server))?;
    Ok(receive(outside)?.context("nothing came")?.1)
}

fn outside_address(server: &Host) -> SocketAddr {
    SocketAddr::new(server.address(), 3478)
}

fn bind(host: &Host, port: u16) -> Result<UdpSocket> {
    host.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

/// The next datagram; nothing when none comes for long.
fn receive(socket: &UdpSocket) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    let mut buffer = [0; 1500];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Ok(Some((buffer[..length].to_vec(), from))),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A datagram that has arrived already.
fn at_once(socket: &UdpSocket) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    socket.set_nonblocking(true)?;
    receive(socket)
}

fn cone() -> Translation {
    NatKind::FullCone.translation().expect("a translation makes full cones")
}

const PORT: u16 = 4747;
const PATIENCE: Duration = Duration::from_secs(3);
