use super::*;
use crate::testing::{is_right, mend_header, upper_is_right, v4, v6};
use proptest::prelude::*;

const DF: u16 = 0x4000;
const UDP: u8 = 17;

#[test]
fn ipv4_answer_has_these_bytes() {
    let packet = v4(DF, &[], UDP, &payload(1400));
    let answer = answer(&packet, 1300).unwrap();
    let header = [0x45, 0xc0, 0x02, 0x40, 0, 0, 0x40, 0, 64, 1, 0x6f, 0x73, 100, 64, 0, 9, 100, 64, 0, 1];
    assert_eq!(answer[..20], header);
    assert_eq!(answer[20..22], [3, 4]);
    assert_eq!(answer[24..28], [0, 0, 0x05, 0x14]);
    assert_eq!(answer[28..], packet[..548]);
    assert!(is_right(&[&answer[..20]]) && is_right(&[&answer[20..]]));
}

#[test]
fn ipv6_answer_has_these_bytes() {
    let packet = v6(UDP, &payload(1400));
    let answer = answer(&packet, 1300).unwrap();
    assert_eq!(answer[..8], [0x60, 0, 0, 0, 0x04, 0xd8, 58, 64]);
    assert_eq!(answer[8..24], "fd00::9".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(answer[24..40], packet[8..24]);
    assert_eq!(answer[40..42], [2, 0]);
    assert_eq!(answer[44..48], [0, 0, 0x05, 0x14]);
    assert_eq!(answer[48..], packet[..1232]);
    assert_eq!(answer.len(), TOO_BIG_LEN);
    assert!(upper_is_right(&answer, ICMPV6, 40));
}

#[test]
fn short_packet_is_quoted_whole_and_padding_is_not() {
    let mut packet = v4(DF, &[1; 40], UDP, &payload(41));
    packet.extend([0xee; 600]);
    let answer = answer(&packet, 100).unwrap();
    assert_eq!(answer[28..], packet[..101]);
    assert!(is_right(&[&answer[..20]]) && is_right(&[&answer[20..]]));
}

#[test]
fn packet_that_fits_or_may_be_fragmented_gets_none() {
    assert!(answer(&v4(DF, &[], UDP, &payload(1280)), 1300).is_none());
    assert!(answer(&v4(DF, &[], UDP, &payload(1281)), 1300).is_some());
    assert!(answer(&v4(0, &[], UDP, &payload(1400)), 1300).is_none());
    assert!(answer(&v4(0x2000, &[], UDP, &payload(1400)), 1300).is_none());
    assert!(answer(&v6(UDP, &payload(1260)), 1300).is_none());
    assert!(answer(&v6(UDP, &payload(1261)), 1300).is_some());
}

#[test]
fn no_mtu_below_the_least_of_the_version_is_told() {
    assert!(answer(&v4(DF, &[], UDP, &payload(48)), 0).is_none());
    assert_eq!(answer(&v4(DF, &[], UDP, &payload(49)), 0).unwrap()[26..28], [0, 68]);
    assert!(answer(&v6(UDP, &payload(1240)), 1000).is_none());
    assert_eq!(answer(&v6(UDP, &payload(1241)), 1000).unwrap()[44..48], 1280_u32.to_be_bytes());
}

#[test]
fn icmp_errors_are_not_answered_and_other_icmp_is() {
    for kind in 0..=255 {
        let mut message = payload(1400);
        message[0] = kind;
        let silent = [3, 4, 5, 11, 12].contains(&kind);
        assert_eq!(answer(&v4(DF, &[], ICMP, &message), 1300).is_none(), silent, "ICMP type {kind}");
        let silent = kind < 128 || kind == 137;
        assert_eq!(answer(&v6(ICMPV6, &message), 1300).is_none(), silent, "ICMPv6 type {kind}");
        let mut behind = vec![ICMPV6, 0, 0, 0, 0, 0, 0, 0];
        behind.extend(&message);
        assert_eq!(answer(&v6(60, &behind), 1300).is_none(), silent, "ICMPv6 type {kind} behind options");
    }
    // No type is no message that may be answered.
    let mut extensions = vec![60, 159, 0, 0, 0, 0, 0, 0];
    extensions.resize(1280, 0);
    extensions.extend([ICMPV6, 0, 0, 0, 0, 0, 0, 0]);
    assert!(answer(&v6(0, &extensions), 1300).is_none());
    extensions[1280] = 59;
    assert!(answer(&v6(0, &extensions), 1300).is_some());
}

#[test]
fn only_first_fragments_are_answered() {
    assert!(answer(&v4(DF | 0x2000, &[], UDP, &payload(1400)), 1300).is_some());
    assert!(answer(&v4(DF | 0x2001, &[], UDP, &payload(1400)), 1300).is_none());
    let fragment = |offset: u8| v6(44, &[&[UDP, 0, 0, offset, 0, 0, 0, 1][..], &payload(1400)].concat());
    assert!(answer(&fragment(1), 1300).is_some());
    assert!(answer(&fragment(9), 1300).is_none());
}

#[test]
fn sources_that_are_no_single_host_are_not_answered() {
    let bad = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 1, 1, 1],
        [240, 0, 0, 1],
        [255; 4],
    ];
    for source in bad {
        let mut packet = v4(DF, &[], UDP, &payload(1400));
        packet[12..16].copy_from_slice(&source);
        mend_header(&mut packet);
        assert!(answer(&packet, 1300).is_none(), "{source:?}");
        let packet = v4(DF, &[], UDP, &payload(1400));
        assert_eq!(too_big(&packet, 1300, source.into(), &mut [0; TOO_BIG_LEN]), None, "from {source:?}");
    }
    for source in ["::", "::1", "ff02::1"] {
        let source: Ipv6Addr = source.parse().unwrap();
        let mut packet = v6(UDP, &payload(1400));
        packet[8..24].copy_from_slice(&source.octets());
        assert!(answer(&packet, 1300).is_none(), "{source}");
        let packet = v6(UDP, &payload(1400));
        assert_eq!(too_big(&packet, 1300, source.into(), &mut [0; TOO_BIG_LEN]), None, "from {source}");
    }
}

#[test]
fn groups_get_an_answer_with_ipv6_only() {
    for destination in [[224, 0, 0, 251], [255, 255, 255, 255], [0, 0, 0, 0]] {
        let mut packet = v4(DF, &[], UDP, &payload(1400));
        packet[16..20].copy_from_slice(&destination);
        mend_header(&mut packet);
        assert!(answer(&packet, 1300).is_none(), "{destination:?}");
    }
    let mut packet = v6(UDP, &payload(1400));
    packet[24..40].copy_from_slice(&"ff05::2".parse::<Ipv6Addr>().unwrap().octets());
    assert!(upper_is_right(&answer(&packet, 1300).unwrap(), ICMPV6, 40));
}

#[test]
fn mixed_versions_and_small_buffers_get_none() {
    let (old, new) = (v4(DF, &[], UDP, &payload(1400)), v6(UDP, &payload(1400)));
    let (from_old, from_new) = ("100.64.0.9".parse().unwrap(), "fd00::9".parse().unwrap());
    assert_eq!(too_big(&old, 1300, from_new, &mut [0; TOO_BIG_LEN]), None);
    assert_eq!(too_big(&new, 1300, from_old, &mut [0; TOO_BIG_LEN]), None);
    assert_eq!(too_big(&old, 1300, from_old, &mut [0; 575]), None);
    assert_eq!(too_big(&old, 1300, from_old, &mut [0; 576]), Some(576));
    assert_eq!(too_big(&new, 1300, from_new, &mut [0; 1279]), None);
    assert_eq!(too_big(&new, 1300, from_new, &mut [0; 1280]), Some(1280));
}

#[test]
fn no_cut_of_a_packet_is_answered() {
    for packet in [v4(DF, &[1; 8], UDP, &payload(200)), v6(UDP, &payload(1300))] {
        for len in 0..packet.len() {
            assert!(answer(&packet[..len], 68).is_none(), "{len} bytes");
        }
        assert!(answer(&packet, 68).is_some());
    }
}

fn answer(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let from = if packet.first()? >> 4 == 4 { "100.64.0.9" } else { "fd00::9" };
    let mut out = [0xaa; TOO_BIG_LEN + 8];
    let len = too_big(packet, mtu, from.parse().unwrap(), &mut out)?;
    assert!(out[len..].iter().all(|byte| *byte == 0xaa), "bytes behind the message change");
    Some(out[..len].to_vec())
}

fn payload(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

proptest! {
    #[test]
    fn answers_are_right_small_and_not_answered_themselves(
        bytes in proptest::collection::vec(any::<u8>(), 0..1500),
        flags: u16,
        protocol: u8,
        mtu in 0..1500_u16,
        kind in 0..4_u8,
    ) {
        let packet = match kind {
            0 => bytes,
            1 => v4(flags | DF, &[], protocol, &bytes),
            2 => v4(flags & 0xe000, &[1; 20], protocol, &bytes),
            _ => v6(protocol, &bytes),
        };
        if let Some(answer) = answer(&packet, mtu) {
            let ip = IpPacket::parse(&answer).unwrap();
            prop_assert_eq!(ip.total_len, answer.len());
            prop_assert_eq!(ip.dst, IpPacket::parse(&packet).unwrap().src);
            let (header, most) = if ip.src.is_ipv4() { (20, 576) } else { (40, 1280) };
            prop_assert!(answer.len() <= most);
            prop_assert_eq!(&answer[header + 8..], &packet[..answer.len() - header - 8]);
            if ip.src.is_ipv4() {
                prop_assert!(is_right(&[&answer[..20]]) && is_right(&[&answer[20..]]));
            } else {
                prop_assert!(upper_is_right(&answer, ICMPV6, 40));
            }
            let mut out = [0; TOO_BIG_LEN];
            prop_assert_eq!(too_big(&answer, 68, ip.dst, &mut out), None);
        }
    }
}
