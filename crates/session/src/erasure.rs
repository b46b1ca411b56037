//! Proof that nothing of a finished handshake, of a rekey or of a session that is gone stays in memory.
//!
//! Every [`crate::Secret`] that is dropped leaves a masked copy here; afterwards the memory of this process is searched for
//! what is under the mask.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mesh_identity::Identity;
use mesh_wire::NetId;
use mesh_wire::frame::PayloadKind;
use mesh_wire::handshake::Params;
use zeroize::Zeroizing;

use crate::aead::{AeadKind, AeadProvider};
use crate::dh::EphemeralSecret;
use crate::handshake::{AwaitChallenge, AwaitResponse, Local, LocalClaims, Network, Purpose};
use crate::pq::ProviderKind;
use crate::secret::Secret;
use crate::session::Session;

/// What a remembered byte is combined with, so that the memory of the test does not match itself.
const MASK: u64 = 0xa5c3_96e1_5b7d_2f48;
/// Bytes of an ML-KEM-1024 decapsulation key that are secret, from its start; the encapsulation key follows.
const KEM_SECRET_PART: usize = 1536;

thread_local! {
    /// Masked words of the secrets that this thread dropped, each with the length of its secret.
    static GONE: RefCell<BTreeMap<u64, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// Keeps the masked words of a secret that is about to be wiped.
pub(crate) fn remember(secret: &[u8]) {
    let part = if secret.len() > KEM_SECRET_PART { &secret[..KEM_SECRET_PART] } else { secret };
    GONE.with_borrow_mut(|gone| {
        for at in (0..part.len() - 7).step_by(8) {
            let word = part[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            gone.insert(word ^ MASK, secret.len());
        }
    });
}

/// Returns the lengths of the remembered secrets of which a word is still in this process's writable memory.
fn found() -> BTreeMap<usize, usize> {
    let gone = GONE.with_borrow(Clone::clone);
    let memory = File::open("/proc/self/mem").unwrap();
    let mut hits = BTreeMap::new();
    let mut page = vec![0; 4096 + 7];
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split(' ');
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        for at in (start..end).step_by(4096) {
            // The last page of a range has nothing behind it; its tail is then of the page before and harmless.
            let Ok(length) = memory.read_at(&mut page, at) else { continue };
            for window in page[..length].windows(8) {
                let word = u64::from_le_bytes(window.try_into().unwrap()) ^ MASK;
                if let Some(secret) = gone.get(&word) {
                    *hits.entry(*secret).or_insert(0) += 1;
                }
            }
        }
    }
    hits
}

fn local(provider: ProviderKind, aead: &'static dyn AeadProvider) -> Local {
    let identity = Identity::generate().unwrap().with_signer(provider.provider().signer());
    Local { identity: Arc::new(identity), provider: provider.provider(), aead }
}

fn claims() -> LocalClaims {
    let params = Params {
        capabilities: 0,
        lanes: 1,
        mtu: 1420,
        roster_version: 3,
        tls_pin: [0; 32],
        mixed_index: 4,
        connection: [0; 8],
    };
    LocalClaims { proof: vec![1; 500], params }
}

fn use_it(a: &mut Session, b: &mut Session) {
    let mut frame = vec![0; Session::frame_len(100)];
    a.seal(0, PayloadKind::Ip, &mut frame).unwrap();
    b.open(&mut frame).unwrap();
    b.seal(0, PayloadKind::Ip, &mut frame).unwrap();
    a.open(&mut frame).unwrap();
}

#[inline(never)]
fn handshake(a: &Local, b: &Local) -> (Session, Session) {
    let network = Network::new(NetId([1; 32]), Zeroizing::new([2; 32]), Purpose::Member);
    let id = b.identity.node_id();
    let (waiting, hello) = AwaitChallenge::start(a, &network, id, 1, [3; 32]).unwrap();
    let (state, challenge) = AwaitResponse::start(b, &network, id, &hello, 2, [4; 32]).unwrap();
    let (waiting, response) = waiting.take(a, &network, &challenge, &claims()).unwrap();
    let peer = state.take(b, id, &response).unwrap();
    let (_, theirs, established) = state.proven(peer, &response).establish(b, &claims()).unwrap();
    (waiting.take(a, &established).unwrap().session, theirs)
}

#[inline(never)]
fn life(a: &Local, b: &Local) {
    let (mut left, mut right) = handshake(a, b);
    use_it(&mut left, &mut right);
    let exporter = Secret::copy(&crate::kdf::sha512(&[&left.id()]));
    let (mut left, mut right) = (left.mix(&exporter, 5, 6).unwrap(), right.mix(&exporter, 6, 5).unwrap());
    use_it(&mut left, &mut right);
    for index in 10..13 {
        let rekey = left.lead_rekey(a.provider, index).unwrap();
        let (next, answer) = right.follow_rekey(b.provider, rekey.offer(), index + 10).unwrap();
        left = left.finish_rekey(a.provider, &rekey, &answer).unwrap();
        right = next;
        use_it(&mut left, &mut right);
    }
}

#[test]
fn nothing_secret_stays_in_memory() {
    for provider in ProviderKind::ALL {
        let [first, second] = AeadKind::ALL;
        for aead in [first.provider(), second.provider(), first.provider_with_aes()] {
            let (a, b) = (local(provider, aead), local(provider, aead));
            life(&a, &b);
            assert!(GONE.with_borrow(BTreeMap::len) > 500, "secrets were remembered");
            assert_eq!(found(), BTreeMap::new(), "{provider}, {aead:?}: length of a secret and places");
        }
    }
}

/// Takes the given number of steps of a handshake and gives it up, before there is a session whose end would clean up.
#[inline(never)]
fn give_up_after(steps: usize, a: &Local, b: &Local) {
    let network = Network::new(NetId([1; 32]), Zeroizing::new([2; 32]), Purpose::Member);
    let id = b.identity.node_id();
    let (waiting, hello) = AwaitChallenge::start(a, &network, id, 1, [3; 32]).unwrap();
    if steps == 1 {
        return;
    }
    let (state, challenge) = AwaitResponse::start(b, &network, id, &hello, 2, [4; 32]).unwrap();
    if steps == 2 {
        return;
    }
    let (_waiting, response) = waiting.take(a, &network, &challenge, &claims()).unwrap();
    if steps == 3 {
        return;
    }
    state.take(b, id, &response).unwrap();
}

#[test]
fn each_step_of_a_handshake_cleans_up_after_itself() {
    for provider in ProviderKind::ALL {
        let (a, b) = (
            local(provider, AeadKind::AwsLc.provider()),
            local(provider, AeadKind::ChaCha20Poly1305.provider()),
        );
        for steps in 1..=4 {
            give_up_after(steps, &a, &b);
            assert_eq!(found(), BTreeMap::new(), "{provider}, step {steps}: length of a secret and places");
        }
    }
    assert!(GONE.with_borrow(BTreeMap::len) > 500, "secrets were remembered");
}

#[test]
fn search_finds_what_is_there() {
    let (secret, _) = EphemeralSecret::generate().unwrap();
    let kept = secret.agree(&[9; 32]).unwrap();
    let copy = kept.to_vec();
    drop(kept);
    assert_eq!(found().keys().copied().collect::<Vec<_>>(), [32]);
    drop(Zeroizing::new(copy));
}
