use super::*;
use crate::testing::{is_right, mend_header, v4, v6};
use proptest::prelude::*;

const UDP: u8 = 17;

#[test]
fn example_of_rfc_791_is_met() {
    // RFC 791, appendix A, example 2: 452 bytes of data, an MTU of 280.
    let packet =
        [&[0x45, 0, 0x01, 0xd8, 0, 111, 0, 0, 123, 6, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2][..], &payload(452)]
            .concat();
    let mut packet = packet;
    mend_header(&mut packet);
    let pieces = cut(&packet, 280);
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0][..10], [0x45, 0, 0x01, 0x14, 0, 111, 0x20, 0, 123, 6]);
    assert_eq!(pieces[0][20..], packet[20..276]);
    assert_eq!(pieces[1][..10], [0x45, 0, 0x00, 0xd8, 0, 111, 0x00, 32, 123, 6]);
    assert_eq!(pieces[1][20..], packet[276..]);
}

#[test]
fn options_without_the_copied_flag_are_in_the_first_fragment_only() {
    // Record route (7), security (0x82, copied), no operation, stream id (0x88, copied), and the end.
    let options = [&[7, 7, 4, 0, 0, 0, 0][..], &[0x82, 3, 9], &[1], &[0x88, 4, 1, 2], &[0]].concat();
    let packet = v4(0, &options, UDP, &payload(200));
    let pieces = cut(&packet, 100);
    assert_eq!(pieces[0][20..36], options);
    assert_eq!(pieces[0].len(), 36 + 64);
    for piece in &pieces[1..] {
        assert_eq!(piece[0], 0x47);
        assert_eq!(piece[20..28], [0x82, 3, 9, 0x88, 4, 1, 2, 0]);
    }
    assert_eq!(pieces[1].len(), 28 + 72);
    assert_eq!(joined(&pieces).0, packet[36..]);

    let all = [&[0x82, 11][..], &[5; 9], &[0x88, 29], &[6; 27]].concat();
    let pieces = cut(&v4(0, &all, UDP, &payload(20)), 68);
    assert!(pieces.iter().all(|piece| piece[20..60] == all) && pieces.len() == 3);
}

#[test]
fn packet_that_fits_is_unchanged() {
    let malformed = v4(0, &[7, 0, 0, 0], UDP, b"data");
    let mut reserved = v4(0xc000, &[], UDP, b"data");
    // The other zero of one's complement.
    reserved[18..20].copy_from_slice(&[0, 0]);
    mend_header(&mut reserved);
    for packet in [
        malformed,
        reserved,
        v4(0x4000, &[], UDP, &payload(80)),
        v4(0x3fff, &[], UDP, &payload(3)),
        v4(0, &[], UDP, b""),
    ] {
        let padded = [&packet[..], b"padding"].concat();
        assert_eq!(cut(&padded, 100), [packet]);
    }
}

#[test]
fn fragments_of_fragments_keep_their_place() {
    let packet = v4(0x2000 | 185, &[], UDP, &payload(1480));
    let pieces = cut(&packet, 576);
    let places: Vec<u16> = pieces.iter().map(|piece| u16::from_be_bytes([piece[6], piece[7]])).collect();
    assert_eq!(places, [0x2000 | 185, 0x2000 | (185 + 69), 0x2000 | (185 + 138)]);
    let pieces = cut(&v4(0x8000 | 185, &[], UDP, &payload(1001)), 576);
    let places: Vec<u16> = pieces.iter().map(|piece| u16::from_be_bytes([piece[6], piece[7]])).collect();
    assert_eq!(places, [0xa000 | 185, 0x8000 | (185 + 69)]);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let bad_checksum = {
        let mut packet = v4(0, &[], UDP, &payload(200));
        packet[8] -= 1;
        packet
    };
    let cases = [
        (v4(0x4000, &[], UDP, &payload(200)), FragmentError::DontFragment),
        (v6(UDP, &payload(200)), FragmentError::Ipv6),
        (v6(UDP, b""), FragmentError::Ipv6),
        (bad_checksum, FragmentError::HeaderChecksum),
        (v4(0, &[7, 0, 0, 0], UDP, &payload(200)), FragmentError::Options),
        (v4(0, &[1, 1, 0x82, 3], UDP, &payload(200)), FragmentError::Options),
        (v4(0x2000, &[], UDP, &payload(201)), FragmentError::Offset),
        (v4(0x1fff, &[], UDP, &payload(200)), FragmentError::Offset),
        (v4(0x1fe5, &[], UDP, &payload(204)), FragmentError::Offset),
        (vec![], FragmentError::Parse(ParseError::Empty)),
        (v4(0, &[], UDP, &payload(200))[..219].to_vec(), FragmentError::Parse(ParseError::Truncated)),
    ];
    for (packet, error) in cases {
        assert_eq!(fragment(&packet, 100).unwrap_err(), error, "{packet:02x?}");
    }
    assert_eq!(fragment(&v4(0, &[], UDP, b"fits"), 67).unwrap_err(), FragmentError::Mtu(67));
    let last = v4(0x1fe4, &[], UDP, &payload(200));
    assert_eq!(joined(&cut(&last, 68)).0, payload(200));
}

#[test]
fn longest_packet_is_cut() {
    let packet = v4(0, &[], UDP, &payload(65515));
    let pieces = cut(&packet, 68);
    assert_eq!(pieces.len(), 65515_usize.div_ceil(48));
    assert_eq!(joined(&pieces).0, packet[20..]);
    assert_eq!(cut(&packet, u16::MAX), [packet]);
}

#[test]
fn small_buffer_is_left_alone() {
    let packet = v4(0, &[], UDP, &payload(200));
    let piece = fragment(&packet, 100).unwrap().next().unwrap();
    let mut out = [0xaa; 120];
    assert_eq!(piece.write(&mut out[..99]), None);
    assert_eq!(out, [0xaa; 120]);
    assert_eq!(piece.write(&mut out), Some(100));
    assert_eq!(out[100..], [0xaa; 20]);
}

/// Every fragment as bytes, each checked for itself.
fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let pieces = fragment(packet, mtu).unwrap().map(|piece| {
        let mut out = vec![0; usize::from(mtu)];
        let len = piece.write(&mut out).unwrap();
        assert_eq!(len, piece.total_len());
        out.truncate(len);
        let ip = IpPacket::parse(&out).unwrap();
        assert_eq!(ip.total_len, len);
        assert!(is_right(&[&out[..ip.header_len]]), "{out:02x?}");
        out
    });
    pieces.collect()
}

/// The payloads put where their fragments say, and whether more follows; none may overlap or be missing.
fn joined(pieces: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let place = |piece: &[u8]| u16::from_be_bytes([piece[6], piece[7]]);
    let start = usize::from(place(&pieces[0]) & 0x1fff) * 8;
    let mut payload = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        assert_eq!(start + payload.len(), usize::from(place(piece) & 0x1fff) * 8);
        let last = number + 1 == pieces.len();
        assert!(last || place(piece) & 0x2000 != 0);
        payload.extend(&piece[usize::from(piece[0] & 0x0f) * 4..]);
    }
    (payload, place(pieces.last().unwrap()) & 0x2000 != 0)
}

fn payload(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

proptest! {
    #[test]
    fn fragments_join_to_the_packet(
        data in proptest::collection::vec(any::<u8>(), 0..3000),
        kinds in proptest::collection::vec((any::<bool>(), 2..9_u8), 0..4),
        offset in 0..7000_u16,
        more: bool,
        mtu in 68..1600_u16,
        again in 68..1600_u16,
    ) {
        let mut options: Vec<u8> =
            kinds.iter().flat_map(|(copied, len)| {
                let mut option = vec![u8::from(*copied) << 7 | 0x15; usize::from(*len)];
                option[1] = *len;
                option
            }).collect();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut data = data;
        if more {
            data.truncate(data.len() / 8 * 8);
        }
        let packet = v4(u16::from(more) << 13 | offset, &options, UDP, &data);
        let pieces = cut(&packet, mtu);
        prop_assert!(pieces.iter().all(|piece| piece.len() <= usize::from(mtu)));
        prop_assert_eq!(joined(&pieces), (data.clone(), more));
        for piece in &pieces {
            prop_assert_eq!(&piece[4..6], &packet[4..6]);
            prop_assert_eq!((piece[1], &piece[8..10], &piece[12..20]), (packet[1], &packet[8..10], &packet[12..20]));
        }
        // The options that later fragments have are the same however often the packet is cut.
        let twice: Vec<Vec<u8>> = pieces.iter().flat_map(|piece| cut(piece, again)).collect();
        prop_assert_eq!(joined(&twice), (data, more));
        prop_assert!(twice.iter().all(|piece| piece.len() <= usize::from(again)));
    }

    #[test]
    fn junk_is_refused_or_cut(bytes in proptest::collection::vec(any::<u8>(), 0..200), mend: bool, mtu in 0..120_u16) {
        let mut packet = bytes;
        if mend && packet.len() >= 60 {
            packet[0] = 0x40 | (packet[0] & 0x0f).max(5);
            packet[2] = 0;
            packet[3] = u8::try_from(packet.len()).unwrap();
            mend_header(&mut packet);
        }
        if let Ok(pieces) = fragment(&packet, mtu) {
            for piece in pieces {
                let mut out = [0; 120];
                let len = piece.write(&mut out).unwrap();
                prop_assert!(len <= usize::from(mtu));
                prop_assert!(IpPacket::parse(&out[..len]).is_ok());
            }
        }
    }
}
