use super::*;
use crate::testing::{mend_upper, pseudo_header, upper_is_right, v4, v6};
use proptest::prelude::*;

const ACK: u8 = 0x10;

#[test]
fn syn_of_linux_is_lowered_byte_for_byte() {
    // A SYN that Linux sent, from 100.64.3.2:33054 to 100.64.9.9:7777, with an MSS of 1380.
    let mut packet = [
        0x45, 0x00, 0x00, 0x3c, 0x34, 0x56, 0x40, 0x00, 0x40, 0x06, 0x31, 0xdb, 0x64, 0x40, 0x03, 0x02, 0x64,
        0x40, 0x09, 0x09, 0x81, 0x1e, 0x1e, 0x61, 0x7b, 0x37, 0x69, 0xe4, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02,
        0xfd, 0x5c, 0x7f, 0x2b, 0x00, 0x00, 0x02, 0x04, 0x05, 0x64, 0x04, 0x02, 0x08, 0x0a, 0x35, 0x45, 0x3d,
        0x59, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x0a,
    ];
    assert!(upper_is_right(&packet, TCP, 20));
    let before = packet;
    assert!(!clamp_mss(&mut packet, 1420));
    assert_eq!(packet, before);
    assert!(clamp_mss(&mut packet, 1300));
    let mut wanted = before;
    wanted[42..44].copy_from_slice(&1260_u16.to_be_bytes());
    // 1380 became 1260: what the sum lost, its complement wins.
    let checksum = u16::from_be_bytes([before[36], before[37]]) + 120;
    wanted[36..38].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(packet, wanted);
    assert!(upper_is_right(&packet, TCP, 20));
}

#[test]
fn both_versions_and_both_directions_are_lowered_and_padding_stays() {
    for flags in [SYN, SYN | ACK, SYN | 0xc0] {
        let mut packet = tcp_v4(flags, &[2, 4, 5, 180], b"early data");
        packet.extend(*b"padding");
        assert!(clamp_mss(&mut packet, 1420));
        assert_eq!(packet[42..44], 1380_u16.to_be_bytes());
        assert!(packet.ends_with(b"early datapadding"));
        packet.truncate(packet.len() - 7);
        assert!(upper_is_right(&packet, TCP, 20));

        let mut packet = tcp_v6(&[], flags, &[2, 4, 5, 160], b"");
        assert!(clamp_mss(&mut packet, 1420));
        assert_eq!(packet[62..64], 1360_u16.to_be_bytes());
        assert!(upper_is_right(&packet, TCP, 40));
    }
}

#[test]
fn option_at_an_odd_place_is_lowered() {
    for fill in 0..4 {
        let options = [&vec![1; fill][..], &[2, 4, 0xff, 0x03], &vec![1; 4 - fill]].concat();
        let mut packet = tcp_v4(SYN, &options, b"x");
        assert!(clamp_mss(&mut packet, 1280));
        assert_eq!(packet[42 + fill..44 + fill], 1240_u16.to_be_bytes());
        assert!(upper_is_right(&packet, TCP, 20), "{fill} bytes in front");
    }
}

#[test]
fn every_option_of_the_kind_is_lowered() {
    let mut packet = tcp_v4(SYN, &[2, 4, 5, 180, 1, 2, 4, 9, 9, 2, 4, 0, 100, 0, 0, 0], b"");
    assert!(clamp_mss(&mut packet, 1300));
    assert_eq!(packet[40..53], [2, 4, 4, 236, 1, 2, 4, 4, 236, 2, 4, 0, 100]);
    assert!(upper_is_right(&packet, TCP, 20));
}

#[test]
fn nothing_is_raised_or_added() {
    let cases = [
        tcp_v4(SYN, &[2, 4, 4, 236], b""),
        tcp_v4(SYN, &[2, 4, 0, 0], b""),
        tcp_v4(SYN, &[], b""),
        tcp_v4(SYN, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], b""),
        // Behind the end of the list lies nothing.
        tcp_v4(SYN, &[0, 2, 4, 255, 255, 0, 0, 0], b""),
        tcp_v6(&[], SYN, &[2, 4, 4, 216], b""),
    ];
    for packet in cases {
        assert_unchanged(&packet);
    }
}

#[test]
fn other_packets_stay() {
    let high = [2, 4, 255, 255];
    let mut udp = tcp_v4(SYN, &high, b"");
    udp[9] = 17;
    let segment = &tcp_v4(SYN, &high, b"")[20..];
    let cases = [
        tcp_v4(ACK, &high, b"data"),
        tcp_v4(SYN | RST, &high, b""),
        udp,
        v4(0x0001, &[], TCP, segment),
        v4(0x3fff, &[], TCP, segment),
        v6(44, &[&[TCP, 0, 0, 8, 0, 0, 0, 1][..], segment].concat()),
        v6(59, segment),
    ];
    for packet in cases {
        assert_unchanged(&packet);
    }
}

#[test]
fn malformed_headers_stay() {
    let bad = [
        // Too long, too short, no length, no MSS that is one.
        &[2, 5, 5, 180][..],
        &[2, 4, 5, 180, 8, 10, 0, 0],
        &[2, 4, 5, 180, 8, 1, 0, 0],
        &[2, 4, 5, 180, 8, 0, 0, 0],
        &[2, 4, 5, 180, 1, 1, 1, 8],
        &[2, 3, 5, 180],
        &[2, 4, 5, 180, 2, 2, 0, 0],
    ];
    for options in bad {
        assert_unchanged(&tcp_v4(SYN, options, b""));
        assert_unchanged(&tcp_v6(&[], SYN, options, b""));
    }
    let mut short_header = tcp_v4(SYN, &[2, 4, 5, 180], b"");
    short_header[32] = 0x40;
    assert_unchanged(&short_header);
    let mut long_header = tcp_v4(SYN, &[2, 4, 5, 180], b"");
    long_header[32] = 0x70;
    assert_unchanged(&long_header);
}

#[test]
fn ipv4_options_extension_headers_and_first_fragments_are_stepped_over() {
    let segment = tcp_v4(SYN, &[2, 4, 255, 255], b"")[20..].to_vec();
    let mut packet = v4(0x2000, &[7, 7, 4, 0, 0, 0, 0, 0], TCP, &segment);
    mend_upper(&mut packet, TCP, 28, 16);
    assert!(clamp_mss(&mut packet, 1420));
    assert!(upper_is_right(&packet, TCP, 28));

    let extensions = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[TCP, 0, 0, 1, 0, 0, 0, 9]].concat();
    let mut packet = tcp_v6(&[(0, &extensions)], SYN, &[2, 4, 255, 255], b"");
    assert!(clamp_mss(&mut packet, 1420));
    assert_eq!(packet[78..80], 1360_u16.to_be_bytes());
    assert!(upper_is_right(&packet, TCP, 56));
}

#[test]
fn absurd_mtu_leaves_some_payload() {
    for mtu in [0, 39, 40, 61, 68] {
        let mut packet = tcp_v4(SYN, &[2, 4, 5, 180], b"");
        assert!(clamp_mss(&mut packet, mtu));
        assert_eq!(packet[42..44], [0, 28]);
        assert!(upper_is_right(&packet, TCP, 20));
    }
}

#[test]
fn partial_checksum_is_completed_over_the_lowered_option() {
    for (mut packet, at) in [
        (tcp_v4(SYN, &[2, 4, 255, 255, 1, 1, 1, 1], b"x"), 20),
        (tcp_v6(&[], SYN, &[1, 2, 4, 9, 9, 0, 0, 0], b""), 40),
    ] {
        // What a kernel leaves there: the sum of the pseudo header, not its complement (virtio 1.2, 5.1.6.2).
        let pseudo = pseudo_header(&packet, TCP, at);
        packet[at + 16..at + 18].copy_from_slice(&(!checksum::finish(checksum::sum(&pseudo))).to_be_bytes());
        assert!(clamp_mss_partial(&mut packet, 1420));
        assert!(!clamp_mss_partial(&mut packet, 1420));
        // What a device does: sums up from the TCP header to the end, field included.
        let completed = checksum::finish(checksum::sum(&packet[at..]));
        packet[at + 16..at + 18].copy_from_slice(&completed.to_be_bytes());
        assert!(upper_is_right(&packet, TCP, at));
    }
}

#[test]
fn no_cut_of_a_syn_is_changed() {
    let extensions = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[TCP, 0, 0, 1, 0, 0, 0, 9]].concat();
    let packets = [
        tcp_v4(SYN, &[1, 2, 4, 255, 255, 0, 0, 0], b""),
        tcp_v6(&[(0, &extensions)], SYN, &[2, 4, 255, 255], b""),
    ];
    for packet in packets {
        for len in 0..packet.len() {
            assert_unchanged(&packet[..len]);
            // Cut by its own length fields as well.
            let mut shorter = packet[..len].to_vec();
            match (packet[0] >> 4, len) {
                (4, 20..) => shorter[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes()),
                (6, 40..) => shorter[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes()),
                _ => {}
            }
            assert_unchanged(&shorter);
        }
    }
}

fn assert_unchanged(packet: &[u8]) {
    let mut changed = packet.to_vec();
    assert!(!clamp_mss(&mut changed, 1300), "{packet:02x?}");
    assert_eq!(changed, packet);
    assert!(!clamp_mss_partial(&mut changed, 1300), "{packet:02x?}");
    assert_eq!(changed, packet);
}

fn segment(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
    let mut segment =
        vec![0xa7, 0xf8, 0x1e, 0x61, 1, 2, 3, 4, 5, 6, 7, 8, length, flags, 0xfd, 0x20, 0, 0, 0, 0];
    segment.extend(options);
    segment.extend(data);
    segment
}

fn tcp_v4(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut packet = v4(0x4000, &[], TCP, &segment(flags, options, data));
    mend_upper(&mut packet, TCP, 20, 16);
    packet
}

/// `extensions` are the number of the first one and their bytes, whose last names TCP.
fn tcp_v6(extensions: &[(u8, &[u8])], flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let (next, bytes) = extensions.first().copied().unwrap_or((TCP, &[]));
    let mut packet = v6(next, &[bytes, &segment(flags, options, data)].concat());
    mend_upper(&mut packet, TCP, 40 + bytes.len(), 16);
    packet
}

/// Options in any order with an MSS among them, filled up to whole words.
fn option_list() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
        any::<[u8; 8]>().prop_map(|times| [&[8, 10][..], &times].concat()),
        Just(vec![1]),
        Just(vec![4, 2]),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
    ];
    proptest::collection::vec(option, 0..6).prop_map(|options| {
        let mut list: Vec<u8> = options.into_iter().take(4).flatten().collect();
        list.truncate(40);
        list.resize(list.len().next_multiple_of(4), 0);
        list
    })
}

proptest! {
    #[test]
    fn full_checksum_stays_right_and_no_mss_is_too_large(
        options in option_list(),
        data in proptest::collection::vec(any::<u8>(), 0..20),
        ipv4: bool,
        mtu: u16,
    ) {
        let (mut packet, at) =
            if ipv4 { (tcp_v4(SYN, &options, &data), 20) } else { (tcp_v6(&[], SYN, &options, &data), 40) };
        let before = packet.clone();
        let changed = clamp_mss(&mut packet, mtu);
        prop_assert_eq!(changed, packet != before);
        prop_assert!(upper_is_right(&packet, TCP, at));
        let most = mtu.saturating_sub(if ipv4 { 40 } else { 60 }).max(28);
        prop_assert_eq!(excess(&packet[at..at + 20 + options.len()], most), None);
        let mut again = packet.clone();
        prop_assert!(!clamp_mss(&mut again, mtu));
        // The incremental checksum is the very one that a sender computes.
        mend_upper(&mut again, TCP, at, 16);
        prop_assert_eq!(again, packet);
    }

    #[test]
    fn wrong_checksum_stays_wrong(options in option_list(), error in 1..u16::MAX) {
        let mut packet = tcp_v4(SYN, &options, b"");
        let checksum = u16::from_be_bytes([packet[36], packet[37]]).wrapping_add(error);
        packet[36..38].copy_from_slice(&checksum.to_be_bytes());
        let right = upper_is_right(&packet, TCP, 20);
        clamp_mss(&mut packet, 900);
        prop_assert_eq!(upper_is_right(&packet, TCP, 20), right);
    }

    #[test]
    fn junk_changes_at_most_in_place(bytes in proptest::collection::vec(any::<u8>(), 0..120), mtu: u16, kind in 0..4_u8) {
        let mut packet = match kind {
            0 => bytes.clone(),
            1 => v4(0, &[], TCP, &bytes),
            2 => v6(TCP, &bytes),
            _ => v6(60, &bytes),
        };
        let before = packet.clone();
        let changed = clamp_mss(&mut packet, mtu);
        prop_assert_eq!(packet.len(), before.len());
        prop_assert_eq!(changed, packet != before);
    }
}
