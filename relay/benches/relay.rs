//! What a message costs the relay beside its sockets: `cargo bench -p meshrelay`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use meshrelay::Forwarding;

fn main() {
    divan::main();
}

/// Read, check the route, copy under the destination's handle, queue, take out to be written: single frames of a ping and
/// of a full packet, and the longest batch.
#[divan::bench(args = [64, 1420, 60_000])]
fn forward(bencher: Bencher<'_, '_>, size: usize) {
    let forwarding = Forwarding::new(0);
    let message = forwarding.message(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        assert!(forwarding.forward(black_box(&message)), "the message was dropped");
        forwarding.read()
    });
}

/// The same as a burst: a hundred messages wait before the first is written.
#[divan::bench]
fn forward_100_of_1420(bencher: Bencher<'_, '_>) {
    let forwarding = Forwarding::new(0);
    let message = forwarding.message(1420);
    bencher.counter(BytesCount::new(100 * 1420_usize)).bench_local(|| {
        for _ in 0..100 {
            assert!(forwarding.forward(black_box(&message)), "the message was dropped");
        }
        (0..100).map(|_| forwarding.read()).sum::<usize>()
    });
}

/// What a message costs beside that when its connection has no good route, in a network of so many clients.
#[divan::bench(args = [2, 1000, 10_000])]
fn find_route(bencher: Bencher<'_, '_>, clients: u64) {
    let mut forwarding = Forwarding::new(clients - 2);
    bencher.bench_local(|| black_box(&mut forwarding).find_route());
}
