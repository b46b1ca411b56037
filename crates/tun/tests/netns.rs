//! Real devices in network namespaces of their own: each test runs on a thread that has left the machine's
//! namespace, so nothing here can touch an interface or a route of the machine.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write, stderr};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_packet::{EtherType, Ethernet, IpPacket, MacAddr, TOO_BIG_LEN, clamp_mss, fragment, too_big};
use mesh_tun::{
    Device, DeviceConfig, DeviceError, DeviceIo, Holder, IpNet, Mode, cleanup_stale, local_routes,
    overlapping,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

#[test]
fn udp_over_ipv4_comes_out_byte_exact_and_the_answer_goes_in() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        exchange(&device.io(), "100.64.3.2:4000".parse().unwrap(), "100.64.9.9:7777".parse().unwrap());
    });
}

#[test]
fn each_flow_has_one_of_several_queues_and_keeps_its_order() {
    in_namespace(async || {
        for offload in [false, true] {
            let config = DeviceConfig { offload, ..tun_config() };
            let device = Device::create_with_queues(&config, 4).await.unwrap();
            assert!(device.refused().is_none(), "{:?}", device.refused());
            let queues: Vec<DeviceIo> = [device.io()].into_iter().chain(device.further_queues()).collect();
            assert_eq!(queues.len(), 4);
            let sockets: Vec<UdpSocket> = (0..32).map(|_| UdpSocket::bind("100.64.3.2:0").unwrap()).collect();
            for number in 0..10_u8 {
                for socket in &sockets {
                    socket.send_to(&[number], "100.64.9.9:7777").unwrap();
                }
            }
            // The port of the sender, and the queues and numbers of its packets.
            let mut flows = std::collections::BTreeMap::<u16, (Vec<usize>, Vec<u8>)>::new();
            for (at, queue) in queues.iter().enumerate() {
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = queue.read(&mut buffer) {
                    let packet = &buffer[..length];
                    let port = u16::from_be_bytes([packet[20], packet[21]]);
                    if packet[0] == 0x45 && packet[9] == UDP && packet[16..20] == [100, 64, 9, 9] {
                        let flow = flows.entry(port).or_default();
                        flow.0.push(at);
                        flow.1.push(packet[28]);
                    }
                }
            }
            assert_eq!(flows.len(), 32);
            let used: std::collections::BTreeSet<usize> =
                flows.values().flat_map(|(queues, _)| queues.clone()).collect();
            assert!(used.len() > 1, "all flows are in one queue");
            for (queues, numbers) in flows.into_values() {
                assert!(queues.iter().all(|queue| *queue == queues[0]), "{queues:?}");
                assert_eq!(numbers, (0..10).collect::<Vec<u8>>());
            }
            device.close().await.unwrap();
        }
    });
}

#[test]
fn udp_over_ipv6_works_as_soon_as_the_device_exists() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        exchange(&device.io(), "[fd00:5::2]:4000".parse().unwrap(), "[fd00:5::99]:7777".parse().unwrap());
    });
}

#[test]
fn tun_has_no_link_local_address_and_asks_for_no_router() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        let addresses = ip(&["-6", "-o", "address", "show", "dev", device.name()]);
        assert!(addresses.contains("fd00:5::2/64"), "{addresses}");
        assert!(!addresses.contains("fe80:"), "{addresses}");
        assert!(!addresses.contains("tentative"), "{addresses}");
        // Whatever the kernel had to say at the start lies in front of a packet of ours.
        let socket = UdpSocket::bind("100.64.3.2:0").unwrap();
        socket.send_to(b"marker", "100.64.3.3:9").unwrap();
        let io = device.io();
        loop {
            let bytes = next(&io);
            let packet = IpPacket::parse(&bytes).unwrap();
            if packet.protocol == UDP {
                break;
            }
            let router_solicitation = packet.protocol == ICMPV6 && bytes[packet.header_len] == 133;
            assert!(!router_solicitation, "{bytes:02x?}");
        }
        assert_eq!(sysctl(device.name(), "accept_ra"), "0");
    });
}

#[test]
fn tap_has_its_hardware_address_and_asks_for_neighbours() {
    in_namespace(async || {
        let mac = [0x02, 0, 0x5e, 0x10, 0, 1];
        let config = DeviceConfig { mode: Mode::Tap, mac: Some(mac), ..tun_config() };
        let device = Device::create(&config).await.unwrap();
        let link = ip(&["-o", "link", "show", "dev", device.name()]);
        assert!(link.contains("02:00:5e:10:00:01") && link.contains("mtu 1420"), "{link}");
        assert!(ip(&["-6", "-o", "address", "show", "dev", device.name()]).contains("fe80:"));
        assert_eq!(sysctl(device.name(), "accept_ra"), "0");

        let socket = UdpSocket::bind("100.64.3.2:0").unwrap();
        socket.send_to(b"hello", "100.64.3.3:9").unwrap();
        let io = device.io();
        let bytes = until(&io, |bytes| Ethernet::parse(bytes).unwrap().ethertype == EtherType::ARP);
        let request = Ethernet::parse(&bytes).unwrap();
        assert_eq!((request.src, request.dst), (MacAddr::new(mac), MacAddr::BROADCAST));
        let (operation, wanted) = (&request.payload[6..8], &request.payload[24..28]);
        assert_eq!((operation, wanted), (&[0, 1][..], &[100, 64, 3, 3][..]));

        // The answer of 100.64.3.3 at 02:00:00:00:00:03 brings the datagram out.
        let neighbour = [0x02, 0, 0, 0, 0, 3];
        let mut answer = [&mac[..], &neighbour, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
        answer.extend([&neighbour[..], &[100, 64, 3, 3], &mac, &[100, 64, 3, 2]].concat());
        io.send(&answer).unwrap();
        let bytes = until(&io, |bytes| Ethernet::parse(bytes).unwrap().ethertype == EtherType::IPV4);
        let frame = Ethernet::parse(&bytes).unwrap();
        assert_eq!(frame.dst, MacAddr::new(neighbour));
        assert!(frame.payload.ends_with(b"hello"));
    });
}

#[test]
fn routes_are_added_removed_and_listed() {
    in_namespace(async || {
        let first = nets(&["10.9.0.0/16", "fd00:9::/48"]);
        let config = DeviceConfig { routes: first, ..tun_config() };
        let mut device = Device::create(&config).await.unwrap();
        assert_eq!(own_routes().await, ["10.9.0.0/16", "100.64.0.0/20", "fd00:5::/64", "fd00:9::/48"]);

        device.set_routes(&nets(&["10.9.0.0/16", "10.8.7.6/24", "100.64.3.2/20"])).await.unwrap();
        assert_eq!(own_routes().await, ["10.8.7.0/24", "10.9.0.0/16", "100.64.0.0/20", "fd00:5::/64"]);

        ip(&["route", "del", "10.9.0.0/16"]);
        device.set_routes(&[]).await.unwrap();
        assert_eq!(own_routes().await, ["100.64.0.0/20", "fd00:5::/64"]);

        let routes = local_routes().await.unwrap();
        let pool = "100.64.8.0/21".parse().unwrap();
        assert_eq!(overlapping(&pool, &routes, None).unwrap().device, "smtest0");
        assert_eq!(overlapping(&pool, &routes, Some("smtest0")), None);
    });
}

#[test]
fn routes_of_others_are_seen_and_not_taken_over() {
    in_namespace(async || {
        ip(&["tuntap", "add", "dev", "smother0", "mode", "tun"]);
        ip(&["link", "set", "smother0", "up"]);
        ip(&["address", "add", "10.1.2.3/32", "dev", "smother0"]);
        ip(&["route", "add", "10.7.0.0/16", "dev", "smother0"]);
        ip(&["route", "add", "10.6.0.0/16", "dev", "smother0", "table", "5252"]);
        ip(&["route", "add", "default", "dev", "smother0"]);
        let routes = local_routes().await.unwrap();
        for (pool, table) in [("10.7.8.0/24", 254), ("10.6.0.0/20", 5252), ("10.1.2.0/24", 255)] {
            let route = overlapping(&pool.parse().unwrap(), &routes, None).unwrap();
            assert_eq!((route.device.as_str(), route.table), ("smother0", table), "{pool}");
        }
        assert_eq!(overlapping(&"192.168.0.0/16".parse().unwrap(), &routes, None), None);

        let config = DeviceConfig { routes: nets(&["10.7.0.0/16"]), ..tun_config() };
        let error = Device::create(&config).await.unwrap_err();
        assert!(matches!(error, DeviceError::RouteExists { .. }), "{error}");
        assert!(!exists("smtest0"));
        assert!(ip(&["route", "show", "10.7.0.0/16"]).contains("smother0"));
    });
}

#[test]
fn mtu_changes_and_keeps_room_for_ipv6() {
    in_namespace(async || {
        let mut device = Device::create(&tun_config()).await.unwrap();
        device.set_mtu(1280).await.unwrap();
        assert!(ip(&["-o", "link", "show", "dev", device.name()]).contains("mtu 1280"));
        assert!(matches!(device.set_mtu(1279).await, Err(DeviceError::Mtu { least: 1280, .. })));
        assert!(ip(&["-6", "-o", "address", "show", "dev", device.name()]).contains("fd00:5::2/64"));
    });
}

#[test]
fn kernel_believes_that_a_packet_is_too_big() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        let io = device.io();
        for (own, far, router) in [
            ("100.64.3.2:0", "100.64.9.9:7777", "100.64.3.1"),
            ("[fd00:5::2]:0", "[fd00:5::99]:7777", "fd00:5::1"),
        ] {
            let (far, router): (SocketAddr, IpAddr) = (far.parse().unwrap(), router.parse().unwrap());
            let socket = UdpSocket::bind(own).unwrap();
            socket.send_to(&[7; 1372], far).unwrap();
            let packet = until(&io, |bytes| bytes.ends_with(&[7; 1200]));
            let mut answer = [0; TOO_BIG_LEN];
            let len = too_big(&packet, 1300, router, &mut answer).unwrap();
            io.send(&answer[..len]).unwrap();
            let route = || ip(&["route", "get", &far.ip().to_string()]);
            eventually("the route has the new MTU", || route().contains("mtu 1300"));
            socket.send_to(&[8; 1372], far).unwrap();
            let packet = until(&io, |bytes| bytes.ends_with(&[8; 1200]));
            assert!(
                (1290..=1300).contains(&packet.len()),
                "the kernel made a piece of {} bytes",
                packet.len()
            );
        }
    });
}

#[test]
fn answers_quote_what_the_kernel_quotes() {
    in_namespace(async || {
        let config = DeviceConfig { routes: nets(&["10.9.0.0/16", "fd00:9::/48"]), ..tun_config() };
        let device = Device::create(&config).await.unwrap();
        let io = device.io();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        ip(&["route", "change", "10.9.0.0/16", "dev", "smtest0", "mtu", "lock", "1300"]);
        ip(&["-6", "route", "add", "fd00:9::1/128", "dev", "smtest0", "mtu", "lock", "1300"]);
        for (own, far, behind) in [
            ("100.64.3.2:0", "100.64.9.9:7777", "10.9.0.1"),
            ("[fd00:5::2]:0", "[fd00:5::99]:7777", "fd00:9::1"),
        ] {
            let socket = UdpSocket::bind(own).unwrap();
            socket.send_to(&[7; 1372], far).unwrap();
            let mut packet = until(&io, |bytes| IpPacket::parse(bytes).unwrap().protocol == UDP);
            redirect(&mut packet, far.parse::<SocketAddr>().unwrap().ip(), behind.parse().unwrap());
            io.send(&packet).unwrap();

            let wanted =
                until(&io, |bytes| [ICMP, ICMPV6].contains(&IpPacket::parse(bytes).unwrap().protocol));
            let theirs = IpPacket::parse(&wanted).unwrap();
            let mut answer = [0; TOO_BIG_LEN];
            let len = too_big(&packet, 1300, theirs.src, &mut answer).unwrap();
            let ours = IpPacket::parse(&answer[..len]).unwrap();
            assert_eq!((ours.src, ours.dst, ours.total_len), (theirs.src, theirs.dst, theirs.total_len));
            assert_eq!(answer[ours.header_len..len], wanted[theirs.header_len..]);
        }
    });
}

#[test]
fn kernel_joins_fragments_of_its_fragments() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        let io = device.io();
        let payload: Vec<u8> = (0..=250).cycle().take(4000).collect();
        let socket = UdpSocket::bind("100.64.3.2:7777").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(&payload, "100.64.9.9:7777").unwrap();
        let mut pieces = 0;
        for _ in 0..3 {
            let mut packet = until(&io, |bytes| IpPacket::parse(bytes).unwrap().protocol == UDP);
            turn_round(&mut packet);
            for piece in fragment(&packet, 576).unwrap() {
                let mut bytes = [0; 576];
                let len = piece.write(&mut bytes).unwrap();
                io.send(&bytes[..len]).unwrap();
                pieces += 1;
            }
        }
        let mut received = [0; 5000];
        let (len, from) = socket.recv_from(&mut received).unwrap();
        assert_eq!((&received[..len], from), (&payload[..], "100.64.9.9:7777".parse().unwrap()));
        assert_eq!(pieces, 9);
    });
}

#[test]
fn connection_with_lowered_mss_carries_data_in_small_packets() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        let io = device.io();
        for (own, far) in [("100.64.3.2:7777", "100.64.9.9:7777"), ("[fd00:5::2]:7777", "[fd00:5::99]:7777")]
        {
            let listener = TcpListener::bind(own).unwrap();
            let data: Vec<u8> = (0..=250).cycle().take(100_000).collect();
            let sent = data.clone();
            let sender = std::thread::spawn(move || {
                let far: SocketAddr = far.parse().unwrap();
                TcpStream::connect_timeout(&far, DEADLINE).unwrap().write_all(&sent).unwrap();
            });
            let receiver = std::thread::spawn(move || {
                let mut received = Vec::new();
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.read_to_end(&mut received).unwrap();
                received
            });
            // Every packet comes back as from the far end, so that the kernel talks to itself.
            let (mut lowered, mut largest) = (0, 0);
            while !receiver.is_finished() {
                let mut bytes = next(&io);
                if IpPacket::parse(&bytes).unwrap().protocol != TCP {
                    continue;
                }
                largest = largest.max(bytes.len());
                turn_round(&mut bytes);
                lowered += usize::from(clamp_mss(&mut bytes, 1300));
                io.send(&bytes).unwrap();
            }
            sender.join().unwrap();
            assert!(receiver.join().unwrap() == data, "the data changed on the way to {far}");
            assert_eq!((lowered, largest), (2, 1300));
        }
    });
}

#[test]
fn drop_removes_the_interface_even_under_a_handle() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        let io = device.io();
        assert!(exists("smtest0"));
        drop(device);
        assert!(!exists("smtest0"));
        assert!(own_routes().await.is_empty());
        let error = io.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EBADFD));
    });
}

#[test]
fn close_removes_the_interface_and_is_content_when_it_is_gone() {
    in_namespace(async || {
        Device::create(&tun_config()).await.unwrap().close().await.unwrap();
        assert!(!exists("smtest0"));
        let device = Device::create(&tun_config()).await.unwrap();
        ip(&["link", "del", "smtest0"]);
        device.close().await.unwrap();
    });
}

#[test]
fn device_is_removed_from_its_own_namespace_by_a_drop_elsewhere() {
    in_namespace(async || {
        let device = Device::create(&tun_config()).await.unwrap();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            drop(device);
        })
        .join()
        .unwrap();
        assert!(!exists("smtest0"));
    });
}

#[test]
fn killed_process_leaves_nothing() {
    in_namespace(async || {
        let mut child = Holding::start(&mut this_test_as("hold"));
        assert_eq!(child.line, "created");
        assert!(exists("smtest0"));
        child.kill();
        eventually("the interface is gone", || !exists("smtest0"));
        assert!(own_routes().await.is_empty());
        Device::create(&tun_config()).await.unwrap();
    });
}

#[test]
fn name_of_another_device_is_refused() {
    in_namespace(async || {
        let first = Device::create(&tun_config()).await.unwrap();
        let error = Device::create(&tun_config()).await.unwrap_err();
        assert!(matches!(&error, DeviceError::InUse { holder: Holder::Tun, .. }), "{error}");
        assert!(exists(first.name()));

        ip(&["link", "add", "smbridge0", "type", "bridge"]);
        let config = DeviceConfig { name: "smbridge0".to_owned(), ..tun_config() };
        let error = Device::create(&config).await.unwrap_err();
        assert!(error.to_string().contains("another kind (bridge)"), "{error}");
        assert!(exists("smbridge0"));
    });
}

#[test]
fn only_unused_persistent_devices_are_cleaned_up() {
    in_namespace(async || {
        assert!(!cleanup_stale("smtest0").await.unwrap());
        for mode in ["tun", "tap"] {
            ip(&["tuntap", "add", "dev", "smtest0", "mode", mode]);
            assert!(cleanup_stale("smtest0").await.unwrap(), "{mode}");
            assert!(!exists("smtest0"), "{mode}");
        }
        let device = Device::create(&tun_config()).await.unwrap();
        let error = cleanup_stale("smtest0").await.unwrap_err();
        assert!(matches!(error, DeviceError::InUse { .. }), "{error}");
        assert!(exists(device.name()));
        assert!(matches!(cleanup_stale("lo").await, Err(DeviceError::Name { .. })));
    });
}

#[test]
fn missing_capability_is_named() {
    in_namespace(async || {
        let child = Holding::start(&mut under(&["setpriv", "--bounding-set=-net_admin"]));
        assert!(child.line.contains("without CAP_NET_ADMIN"), "{}", child.line);
        assert!(!exists("smtest0"));
    });
}

#[test]
fn ordinary_user_with_the_capability_can_do_everything() {
    in_namespace(async || {
        if !can_change_user_and_devices() {
            return skip("device files cannot be made here");
        }
        let script = format!("{OWN_NODE} exec \"$@\"");
        let user =
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+net_admin"];
        let wrapper =
            [&["unshare", "-m", "sh", "-c", &script, "sh"][..], &user, &["--ambient-caps=-all,+net_admin"]];
        let mut child = Holding::start(&mut under(&wrapper.concat()));
        assert_eq!(child.line, "created");
        assert_eq!(sysctl("smtest0", "accept_ra"), "0");
        child.kill();
        eventually("the interface is gone", || !exists("smtest0"));
    });
}

#[test]
fn missing_driver_and_closed_device_node_are_told_apart() {
    in_namespace(async || {
        if !can_change_user_and_devices() {
            return skip("device files cannot be made here");
        }
        let empty = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /dev/net && exec \"$@\"", "sh"];
        let child = Holding::start(&mut under(&empty));
        assert!(child.line.contains("modprobe tun"), "{}", child.line);

        let script = format!("{OWN_NODE} chmod 600 /dev/net/tun && exec \"$@\"");
        let user = ["unshare", "-m", "sh", "-c", &script, "sh", "setpriv", "--reuid=65534", "--clear-groups"];
        let child = Holding::start(&mut under(&user));
        assert!(child.line.contains("/dev/net/tun may not be opened"), "{}", child.line);
    });
}

#[test]
fn switched_off_ipv6_is_named_and_ipv4_goes_on() {
    in_namespace(async || {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let error = Device::create(&tun_config()).await.unwrap_err();
        assert!(matches!(error, DeviceError::NoIpv6 { .. }), "{error}");
        assert!(!exists("smtest0"));
        let config = DeviceConfig { addresses: nets(&["100.64.3.2/20"]), ..tun_config() };
        Device::create(&config).await.unwrap();
    });
}

/// Started by other tests as a process of its own: says what became of the device, then holds it until killed.
#[test]
#[ignore = "only as the child of another test"]
fn hold() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    runtime().block_on(async {
        let result = Device::create(&tun_config()).await;
        println!("{PREFIX}{}", result.as_ref().map_or_else(ToString::to_string, |_| "created".to_owned()));
        if result.is_ok() {
            std::future::pending::<()>().await;
        }
    });
}

fn tun_config() -> DeviceConfig {
    DeviceConfig {
        name: "smtest0".to_owned(),
        mode: Mode::Tun,
        mtu: 1420,
        mac: None,
        addresses: nets(&["100.64.3.2/20", "fd00:5::2/64"]),
        offload: false,
        bounds: None,
        routes: Vec::new(),
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
        runtime().block_on(test());
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

/// Whether a child can get another user and device files of its own, which a root of some containers cannot give it.
fn can_change_user_and_devices() -> bool {
    let script = format!("{OWN_NODE} setpriv --reuid=65534 --regid=65534 --clear-groups true");
    let status = Command::new("unshare").args(["-m", "sh", "-c", &script]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Sends a datagram from `own` to `far`, checks what comes out of the device and answers by swapping both ends.
fn exchange(io: &DeviceIo, own: SocketAddr, far: SocketAddr) {
    let payload: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let socket = UdpSocket::bind(own).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(&payload, far).unwrap();

    let mut bytes = until(io, |bytes| IpPacket::parse(bytes).unwrap().protocol == UDP);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.src, packet.dst, packet.total_len), (own.ip(), far.ip(), bytes.len()));
    let udp = &bytes[packet.header_len..];
    assert_eq!(udp[..2], own.port().to_be_bytes());
    assert_eq!(udp[2..4], far.port().to_be_bytes());
    assert_eq!(udp[8..], payload);

    turn_round(&mut bytes);
    let (front, back) = bytes[packet.header_len..].split_at_mut(2);
    front.swap_with_slice(&mut back[..2]);
    io.send(&bytes).unwrap();

    let mut received = [0; 2000];
    let (len, from) = socket.recv_from(&mut received).unwrap();
    assert_eq!((&received[..len], from), (&payload[..], far));
}

/// Swaps source and destination. The internet checksum does not mind the order of its words, so it stays right.
fn turn_round(packet: &mut [u8]) {
    let (at, len) = if IpPacket::parse(packet).unwrap().src.is_ipv4() { (12, 4) } else { (8, 16) };
    let (front, back) = packet[at..].split_at_mut(len);
    front.swap_with_slice(&mut back[..len]);
}

/// Makes `from` the source and `to` the destination, and the checksum of an IPv4 header right.
fn redirect(packet: &mut [u8], from: IpAddr, to: IpAddr) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet[12..20].copy_from_slice(&[from.octets(), to.octets()].concat());
            packet[10..12].fill(0);
            let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum = words.sum::<u32>() % 65535;
            packet[10..12].copy_from_slice(&u16::try_from(65535 - sum).unwrap().to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet[8..40].copy_from_slice(&[from.octets(), to.octets()].concat());
        }
        mixed => panic!("{mixed:?} are of two versions"),
    }
}

/// The next packet out of the device.
fn next(io: &DeviceIo) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let deadline = Instant::now() + DEADLINE;
    loop {
        match io.read(&mut buffer) {
            Ok((len, _)) => return buffer[..len].to_vec(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "no packet came out of the device");
        poll(&mut [PollFd::new(io.as_fd(), PollFlags::POLLIN)], PollTimeout::from(200_u8)).unwrap();
    }
}

fn until(io: &DeviceIo, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    std::iter::repeat_with(|| next(io))
        .take(1000)
        .find(|bytes| wanted(bytes))
        .expect("the wanted packet came out")
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Prefixes that lead into our device, without the kernel's own for multicast and link-local.
async fn own_routes() -> Vec<String> {
    let mut routes: Vec<String> = local_routes()
        .await
        .unwrap()
        .into_iter()
        .filter(|route| route.device == "smtest0" && route.table == 254)
        .map(|route| route.prefix.to_string())
        .collect();
    routes.sort();
    routes
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

fn sysctl(name: &str, key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/{key}")).unwrap().trim().to_owned()
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A process that runs [`hold`], in the namespaces of the thread that started it; killed when dropped.
struct Holding {
    child: Child,
    /// What it said about the device.
    line: String,
    /// Kept open, because the test harness in the child still writes to it.
    _stdout: BufReader<ChildStdout>,
}

impl Holding {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let lines = stdout.by_ref().lines().map(Result::unwrap);
        let line = lines.into_iter().find_map(|line| Some(line.split_once(PREFIX)?.1.to_owned()));
        let line = line.unwrap_or_else(|| panic!("{command:?} said nothing"));
        Self { child, line, _stdout: stdout }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn this_test_as(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command
}

/// The child as the last arguments of `wrapper`.
fn under(wrapper: &[&str]) -> Command {
    let child = this_test_as("hold");
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(child.get_program()).args(child.get_args()).env(CHILD, "1");
    command
}

/// Shell commands that put a device node which everybody may open in the place of the machine's, in a mount namespace.
const OWN_NODE: &str = "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 &&";
const CHILD: &str = "MESH_TUN_TEST_CHILD";
/// Stands in front of the child's line, which follows the test harness's own words.
const PREFIX: &str = "device: ";
const DEADLINE: Duration = Duration::from_secs(10);
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
