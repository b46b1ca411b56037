use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh_packet::{ECN, Ecn};
use mesh_wire::frame::SEALED;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{MAX_BATCH, UdpBound, UdpSendError, UdpSockets, canonical, send};

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

fn bound(listen: &[SocketAddr]) -> (UdpSockets, Vec<SocketAddr>) {
    let sockets = UdpSockets::bind(listen).unwrap();
    let addresses = sockets.local_addrs().collect();
    (sockets, addresses)
}

/// Receives until `count` datagrams came; polls as the packet thread does.
fn receive(sockets: &mut UdpSockets, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut got = Vec::new();
    while got.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} datagrams", got.len());
        wait_readable(sockets, 100);
        let mut each = |from: SocketAddr, bytes: &mut [u8], segment: usize, _: Ecn| {
            got.extend(bytes.chunks(segment).map(|datagram| (from, datagram.to_vec())));
        };
        assert!(sockets.recv_batch(&mut each).unwrap() <= 2 * MAX_BATCH);
        assert!(sockets.recv_others(MAX_BATCH, &mut each).unwrap() <= 2 * MAX_BATCH);
    }
    got
}

fn wait_readable(sockets: &UdpSockets, milliseconds: u16) {
    let all = sockets.fds().chain(sockets.other_fds());
    let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::from(milliseconds)).unwrap();
}

/// A datagram whose bytes tell its number, and which begins as a frame does.
fn datagram(number: usize, len: usize) -> Vec<u8> {
    let rest = (1..len).map(|at| u8::try_from((number * 31 + at) % 251).unwrap());
    [SEALED].into_iter().chain(rest).collect()
}

/// A frame of a lane.
fn frame(lane: u8, mark: u8) -> Vec<u8> {
    [SEALED, lane, 0, mark].into_iter().chain([7; 40]).collect()
}

#[test]
fn each_family_has_its_socket() {
    let (mut here, to) = bound(&[V4, V6]);
    let (there, from) = bound(&[V4, V6]);
    there.send(to[0], b"four", None, 0).unwrap();
    there.send(to[1], b"six", None, 0).unwrap();
    let mut got = receive(&mut here, 2);
    got.sort();
    assert_eq!(got, [(from[0], b"four".to_vec()), (from[1], b"six".to_vec())]);
}

#[test]
fn both_families_share_a_port() {
    // Another program may take the port in between; then another one will do.
    let shared = (0..20).find_map(|_| {
        let (six, addresses) = bound(&[SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)]);
        drop(six);
        let port = addresses[0].port();
        let any4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        UdpSockets::bind(&[any4, addresses[0]]).ok().map(|sockets| (sockets, port))
    });
    let (mut sockets, port) = shared.unwrap();
    let (sender, _) = bound(&[V4, V6]);
    sender.send(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), b"4", None, 0).unwrap();
    sender.send(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port), b"6", None, 0).unwrap();
    assert_eq!(receive(&mut sockets, 2).len(), 2);
}

#[test]
fn mapped_addresses_count_as_ipv4() {
    let (mut here, to) = bound(&[V4]);
    let (there, from) = bound(&[V4]);
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to[0].port());
    assert!(there.serves(mapped));
    there.send(mapped, b"x", None, 0).unwrap();
    assert_eq!(receive(&mut here, 1), [(from[0], b"x".to_vec())]);
    assert_eq!(canonical(mapped), to[0]);
    let flow: SocketAddr = std::net::SocketAddrV6::new(Ipv6Addr::LOCALHOST, 9, 77, 3).into();
    assert_eq!(canonical(flow), SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 9));
    let link = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 77, 3);
    assert_eq!(canonical(link.into()), std::net::SocketAddrV6::new(*link.ip(), 9, 0, 3).into());
}

#[test]
fn second_address_of_a_family_and_a_taken_port_are_refused() {
    let error = UdpSockets::bind(&[V4, V4]).unwrap_err();
    assert_eq!(error.address, V4);
    let (_holder, taken) = bound(&[V6]);
    let error = UdpSockets::bind(&[V4, taken[0]]).unwrap_err();
    assert_eq!(error.address, taken[0]);
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken[0].to_string()));
}

#[test]
fn no_sockets_is_a_choice() {
    let (mut none, addresses) = bound(&[]);
    assert_eq!((addresses.len(), none.fds().count()), (0, 0));
    assert_eq!(none.recv_batch(|_, _, _, _| panic!("nothing can arrive")).unwrap(), 0);
    assert!(matches!(none.send(V4, b"x", None, 0), Err(UdpSendError::NoSocket)));
}

#[test]
fn segments_arrive_as_datagrams() {
    for family in [V4, V6] {
        let (mut here, to) = bound(&[family]);
        let (there, from) = bound(&[family]);
        for (segment, total) in [(1200, 1200 * 7 + 5), (1, 200), (1452, 60_000), (500, 500), (700, 699)] {
            let payload = datagram(total, total);
            there.send(to[0], &payload, Some(segment), 0).unwrap();
            let wanted: Vec<_> =
                payload.chunks(segment.into()).map(|part| (from[0], part.to_vec())).collect();
            assert_eq!(receive(&mut here, wanted.len()), wanted, "{segment} of {total}");
        }
    }
}

#[test]
fn burst_is_taken_in_bounded_batches_and_whole() {
    let (mut here, to) = bound(&[V4]);
    let (there, from) = bound(&[V4]);
    // Different lengths are never put together, so that each buffer holds one datagram.
    let count = 3 * MAX_BATCH + 5;
    for number in 0..count {
        there.send(to[0], &datagram(number, 100 + number), None, 0).unwrap();
    }
    wait_readable(&here, 1000);
    let mut lengths = Vec::new();
    let mut calls = 0;
    while lengths.len() < count {
        let before = lengths.len();
        let taken = here
            .recv_batch(|source, bytes, segment, _| {
                assert_eq!((source, segment), (from[0], bytes.len()));
                assert_eq!(bytes, datagram(bytes.len() - 100, bytes.len()));
                lengths.push(bytes.len());
            })
            .unwrap();
        assert_eq!(taken, lengths.len() - before);
        assert!(taken <= MAX_BATCH);
        calls += 1;
    }
    assert_eq!(calls, 4, "{MAX_BATCH} per call");
    assert_eq!(lengths, (100..100 + count).collect::<Vec<_>>());
    assert_eq!(here.recv_batch(|_, _, _, _| panic!("all was taken")).unwrap(), 0);
}

#[test]
fn socket_holds_a_burst_that_nobody_reads() {
    let (mut here, to) = bound(&[V4]);
    let (there, _) = bound(&[V4]);
    // What the kernel's default of 208 KiB would not hold.
    let payload = datagram(3, 60_000);
    for _ in 0..4 {
        there.send(to[0], &payload, Some(1200), 0).unwrap();
    }
    let got = receive(&mut here, 200);
    assert_eq!(got.len(), 200);
}

#[test]
fn frame_comes_to_the_thread_of_its_lane_and_nothing_else_does() {
    for family in [V4, V6] {
        let UdpBound { mut threads, refused } = UdpSockets::bind_for(&[family], 3).unwrap();
        assert!(refused.is_none(), "{refused:?}");
        let to = threads[0].local_addrs().next().unwrap();
        assert!(threads.iter().all(|thread| thread.local_addrs().eq([to])));
        let (there, from) = bound(&[family]);
        for lane in 0..16 {
            there.send(to, &frame(lane, 1), None, 0).unwrap();
        }
        for other in [&b"\x93 is no frame"[..], b"x", &[SEALED]] {
            there.send(to, other, None, 0).unwrap();
        }
        for (number, thread) in threads.iter_mut().enumerate() {
            let mine: Vec<_> = (0..16).filter(|lane| usize::from(*lane) % 3 == number).collect();
            let mut wanted: Vec<_> = mine.iter().map(|lane| (from[0], frame(*lane, 1))).collect();
            let mut got = receive(thread, wanted.len() + if number == 0 { 3 } else { 0 });
            if number == 0 {
                wanted.extend(
                    [&b"\x93 is no frame"[..], b"x", &[SEALED]].map(|other| (from[0], other.to_vec())),
                );
            }
            got.sort();
            wanted.sort();
            assert_eq!(got, wanted, "thread {number}");
        }
    }
}

#[test]
fn flood_of_what_is_no_frame_leaves_the_frames_alone() {
    let (mut here, to) = bound(&[V4]);
    let (there, _) = bound(&[V4]);
    let junk = [0x95; 1200];
    for mark in 0..50 {
        for _ in 0..100 {
            // The sender's queue may be full; then there is enough of it.
            let _ = there.send(to[0], &junk, None, 0);
        }
        there.send(to[0], &frame(0, mark), None, 0).unwrap();
    }
    let mut marks = Vec::new();
    while here.recv_batch(|_, bytes, segment, _| marks.extend(bytes.chunks(segment).map(|f| f[3]))).unwrap()
        > 0
    {}
    assert_eq!(marks, (0..50).collect::<Vec<u8>>());
    assert_eq!(here.recv_others(3, |_, bytes, _, _| assert_eq!(bytes[0], 0x95)).unwrap(), 3);
}

#[test]
fn port_of_several_sockets_is_taken_for_others() {
    let bound = UdpSockets::bind_for(&[V4], 2).unwrap();
    let taken = bound.threads[1].local_addrs().next().unwrap();
    let error = UdpSockets::bind_for(&[taken], 2).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn empty_datagrams_are_passed_over() {
    let (mut here, to) = bound(&[V4]);
    let plain = std::net::UdpSocket::bind(V4).unwrap();
    plain.send_to(&[], to[0]).unwrap();
    plain.send_to(b"x", to[0]).unwrap();
    assert_eq!(receive(&mut here, 1), [(plain.local_addr().unwrap(), b"x".to_vec())]);
    // And nothing is sent for an empty payload.
    here.send(plain.local_addr().unwrap(), &[], None, 0).unwrap();
    plain.set_nonblocking(true).unwrap();
    assert_eq!(plain.recv_from(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn oversize_datagram_is_refused_and_harms_nothing() {
    let (mut here, to) = bound(&[V4]);
    let (there, from) = bound(&[V4]);
    assert!(matches!(there.send(to[0], &vec![1; 65_508], None, 0), Err(UdpSendError::TooLarge)));
    there.send(to[0], &vec![2; 65_507], None, 0).unwrap();
    there.send(to[0], b"after", None, 0).unwrap();
    let got = receive(&mut here, 2);
    assert_eq!((got[0].1.len(), &got[1]), (65_507, &(from[0], b"after".to_vec())));
}

#[test]
fn closed_port_ends_nothing() {
    let (mut here, to) = bound(&[V4, V6]);
    for family in [V4, V6] {
        let (gone, closed) = bound(&[family]);
        drop(gone);
        // Each provokes an ICMP message to the socket that sent it.
        for _ in 0..5 {
            here.send(closed[0], b"anybody there?", None, 0).unwrap();
            assert_eq!(here.recv_batch(|_, _, _, _| {}).unwrap(), 0);
        }
    }
    let (there, from) = bound(&[V4]);
    there.send(to[0], b"still here", None, 0).unwrap();
    assert_eq!(receive(&mut here, 1), [(from[0], b"still here".to_vec())]);
}

#[test]
fn refused_segmentation_is_remembered() {
    let (mut here, to) = bound(&[V4]);
    let (there, _) = bound(&[V4]);
    let socket = there.ipv4.as_ref().unwrap();
    for refusal in [Errno::EIO, Errno::EINVAL] {
        let gso = AtomicBool::new(true);
        let together = RefCell::new(0);
        let payload = datagram(9, 10_000);
        for _ in 0..2 {
            send::send(&gso, (to[0], 0), &payload, Some(999), |transmit| {
                if transmit.segment_size.is_some() {
                    *together.borrow_mut() += 1;
                    return Err(refusal.into());
                }
                socket.state.try_send((&socket.socket).into(), transmit)
            })
            .unwrap();
            let got: Vec<u8> = receive(&mut here, 11).into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert_eq!(got, payload);
        }
        assert_eq!(together.into_inner(), 1, "tried once");
        assert!(!gso.into_inner());
    }
}

#[test]
fn error_that_single_datagrams_share_is_not_blamed_on_segmentation() {
    let gso = AtomicBool::new(true);
    let result = send::send(&gso, (V4, 0), &[0; 3000], Some(1500), |transmit| {
        Err(if transmit.segment_size.is_some() { Errno::EINVAL } else { Errno::EMSGSIZE }.into())
    });
    assert!(matches!(result, Err(UdpSendError::TooLarge)));
    assert!(gso.load(Ordering::Relaxed));
}

#[test]
fn full_socket_tells_how_much_left() {
    for gso in [true, false] {
        let mut left = 3;
        let result = send::send(&AtomicBool::new(gso), (V4, 0), &[0; 300_000], Some(1000), |transmit| {
            assert!(transmit.contents.len() <= 64_000);
            if left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            left -= 1;
            Ok(())
        });
        let expected = if gso { 192_000 } else { 3000 };
        assert!(matches!(result, Err(UdpSendError::Full { sent }) if sent == expected), "{result:?}");
    }
}

#[test]
fn pending_error_of_another_datagram_costs_nothing() {
    let mut calls = 0;
    send::send(&AtomicBool::new(true), (V4, 0), b"x", None, |_| {
        calls += 1;
        if calls == 1 { Err(Errno::ECONNREFUSED.into()) } else { Ok(()) }
    })
    .unwrap();
    assert_eq!(calls, 2);
}

#[test]
fn firewall_and_missing_routes_are_told_apart_from_a_full_socket() {
    for (errno, unreachable) in [
        (Errno::EPERM, true),
        (Errno::ENETUNREACH, true),
        (Errno::EHOSTUNREACH, true),
        (Errno::ENOBUFS, false),
        (Errno::EAGAIN, false),
    ] {
        let error = UdpSendError::new(errno.into(), 0);
        assert_eq!(matches!(error, UdpSendError::Unreachable(_)), unreachable, "{errno}");
        assert_eq!(matches!(error, UdpSendError::Full { sent: 0 }), !unreachable, "{errno}");
    }
}

#[test]
fn congestion_mark_arrives_with_and_without_segmentation() {
    let (mut here, to) = bound(&[V4, V6]);
    let (there, _) = bound(&[V4, V6]);
    let marks = [Ecn::NotCapable, Ecn::Capable1, Ecn::Capable0, Ecn::Experienced];
    for to in to {
        for class in [0_u8, 1, 2, 3, 0xb8, 0xb8 | 3] {
            for (payload, segment) in [(vec![7; 100], None), (vec![7; 3000], Some(1000))] {
                there.send(to, &payload, segment, class).unwrap();
                let (mut bytes, deadline) = (0, Instant::now() + Duration::from_secs(10));
                while bytes < payload.len() {
                    assert!(Instant::now() < deadline, "{bytes} bytes of class {class}");
                    wait_readable(&here, 100);
                    here.recv_others(MAX_BATCH, |_, received, _, mark| {
                        bytes += received.len();
                        assert_eq!(mark, marks[usize::from(class & ECN)]);
                    })
                    .unwrap();
                }
            }
        }
    }
}
