//! What one handshake and one frame cost: `cargo bench -p mesh-session`.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

#[path = "session/pair.rs"]
mod pair;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mesh_session::{AeadKind, ProviderKind, Session};
use mesh_wire::frame::PayloadKind;

use pair::{handshake, local, network};

fn main() {
    divan::main();
}

/// Both sides of a full handshake, three signature verifications of each side included.
#[divan::bench(args = ProviderKind::ALL)]
fn full_handshake(bencher: Bencher<'_, '_>, provider: ProviderKind) {
    let (a, b) = (local(provider, AeadKind::AwsLc), local(provider, AeadKind::AwsLc));
    let network = network();
    bencher.bench_local(|| handshake(&a, &b, &network));
}

#[divan::bench(args = [64, 1420])]
fn seal_aws_lc(bencher: Bencher<'_, '_>, size: usize) {
    seal(bencher, AeadKind::AwsLc, size);
}

#[divan::bench(args = [64, 1420])]
fn seal_chacha20poly1305(bencher: Bencher<'_, '_>, size: usize) {
    seal(bencher, AeadKind::ChaCha20Poly1305, size);
}

fn seal(bencher: Bencher<'_, '_>, aead: AeadKind, size: usize) {
    let local = local(ProviderKind::AwsLc, aead);
    let (mut session, _) = handshake(&local, &local, &network());
    let mut frame = vec![0; Session::frame_len(size)];
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        session.seal(0, PayloadKind::Ip, black_box(&mut frame)).unwrap();
    });
}

#[divan::bench(args = [64, 1420])]
fn seal_and_open(bencher: Bencher<'_, '_>, size: usize) {
    let local = local(ProviderKind::AwsLc, AeadKind::AwsLc);
    let (mut sender, mut receiver) = handshake(&local, &local, &network());
    let mut frame = vec![0; Session::frame_len(size)];
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        sender.seal(0, PayloadKind::Ip, &mut frame).unwrap();
        receiver.open(black_box(&mut frame)).unwrap();
    });
}
