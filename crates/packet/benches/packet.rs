//! What cutting and joining cost: `cargo bench -p mesh-packet`.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mesh_packet::{Class, IpPacket, Merge, Offload, PartialChecksum, SegmentKind, Segments, Split};

fn main() {
    divan::main();
}

/// A packet of TCP over IPv4 with 44 segments of 1348 bytes, as the device hands it out.
fn long() -> (Vec<u8>, Offload) {
    let payload = 44 * SIZE;
    let total = u16::try_from(52 + payload).unwrap().to_be_bytes();
    let mut packet =
        vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2];
    packet.extend([0x30, 0x39, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    packet.resize(52 + payload, 0xa5);
    let offload = Offload {
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        segments: Some(Segments {
            kind: SegmentKind::TcpV4 { cwr: false },
            header: 52,
            size: u16::try_from(SIZE).unwrap(),
        }),
    };
    (packet, offload)
}

fn segments() -> Vec<Vec<u8>> {
    let (packet, offload) = long();
    let split = Split::new(&packet, 0, &offload).unwrap();
    (0..split.count())
        .map(|number| {
            let mut out = vec![0; split.len(number)];
            split.write(number, &mut out);
            out
        })
        .collect()
}

/// All segments of one packet, each into the same place.
#[divan::bench]
fn split_44_segments(bencher: Bencher<'_, '_>) {
    let (packet, offload) = long();
    let mut out = vec![0; 1400];
    bencher.counter(BytesCount::new(packet.len())).bench_local(|| {
        let split = Split::new(black_box(&packet), 0, &offload).unwrap();
        for number in 0..split.count() {
            split.write(number, black_box(&mut out));
        }
    });
}

/// Their headers joined again; the payloads stay where they are.
#[divan::bench]
fn merge_44_segments(bencher: Bencher<'_, '_>) {
    let parts = segments();
    let mut head = parts[0].clone();
    bencher.counter(BytesCount::new(44 * SIZE)).bench_local(|| {
        head.copy_from_slice(&parts[0]);
        let (mut merge, _) = Merge::begin(black_box(&head), 0).unwrap();
        for part in &parts[1..] {
            black_box(merge.join(&head, part).unwrap());
        }
        merge.finish(&mut head)
    });
}

#[divan::bench]
fn read_header(bencher: Bencher<'_, '_>) {
    let part = segments().swap_remove(0);
    bencher.bench_local(|| IpPacket::parse(black_box(&part)).unwrap());
}

#[divan::bench]
fn classify(bencher: Bencher<'_, '_>) {
    let part = segments().swap_remove(0);
    bencher.bench_local(|| Class::of(black_box(&part), Some(0), 7));
}

const SIZE: usize = 1348;
