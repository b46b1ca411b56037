//! What one handshake and one frame cost: `cargo bench -p mesh-session`.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::sync::Arc;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mesh_identity::Identity;
use mesh_session::handshake::{AwaitChallenge, AwaitResponse, Local, LocalClaims, Network, Purpose};
use mesh_session::{AeadKind, ProviderKind, Session};
use mesh_wire::NetId;
use mesh_wire::frame::PayloadKind;
use mesh_wire::handshake::Params;
use zeroize::Zeroizing;

fn main() {
    divan::main();
}

fn local(provider: ProviderKind, aead: AeadKind) -> Local {
    let identity = Identity::generate().unwrap().with_signer(provider.provider().signer());
    Local { identity: Arc::new(identity), provider: provider.provider(), aead }
}

fn network() -> Network {
    Network::new(NetId([1; 32]), Zeroizing::new([2; 32]), Purpose::Member)
}

fn handshake(a: &Local, b: &Local, network: &Network) -> (Session, Session) {
    let params = Params { capabilities: 0, lanes: 4, mtu: 1420, roster_version: 1, tls_pin: [0; 32] };
    let claims = LocalClaims { proof: vec![0; 500], params };
    let id = b.identity.node_id();
    let (waiting, hello) = AwaitChallenge::start(a, network, id, 1, [3; 32]).unwrap();
    let (state, challenge) = AwaitResponse::start(b, network, id, &hello, 2, [4; 32]).unwrap();
    let (waiting, response) = waiting.take(a, network, &challenge, &claims).unwrap();
    let peer = state.take(b, id, &response).unwrap();
    let (_, theirs, established) = state.proven(peer, &response).establish(b, &claims).unwrap();
    (waiting.take(a, &established).unwrap().session, theirs)
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
