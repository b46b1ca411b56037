//! Nothing can be taken away: no suite, no version, no half of a signature. The attacker here knows the network's secret
//! and, where a box is changed, the key of that box, as a member that misbehaves does.

use std::sync::Arc;

use mesh_identity::{Identity, Label};
use mesh_session::aead::{AeadKind, AeadProvider as _};
use mesh_session::handshake::{
    AwaitChallenge, AwaitEstablished, AwaitResponse, HandshakeError, Local, LocalClaims, Network, Purpose,
};
use mesh_session::{ProviderKind, Session, kdf};
use mesh_wire::frame::PayloadKind;
use mesh_wire::handshake::{BOX_HEADER, HELLO_BODY, PARAMS_LEN, Params, RESPONSE, SUITE, SUITE_AES, VERSION};
use mesh_wire::limits::{ED25519_SIGNATURE, MLDSA_SIGNATURE, PUBLIC_IDENTITY, SIGNATURE};
use mesh_wire::{NetId, NodeId, WireError};
use zeroize::Zeroizing;

use crate::seeded::Recorder;

const SECRET: [u8; 32] = [9; 32];

fn network() -> Network {
    Network::new(NetId([7; 32]), Zeroizing::new(SECRET), Purpose::Member)
}

struct Node {
    local: Local,
    id: NodeId,
    aead: &'static Recorder,
}

fn node() -> Node {
    let identity = Arc::new(Identity::generate().unwrap());
    let aead = Recorder::leaked(AeadKind::AwsLc);
    let provider = ProviderKind::AwsLc.provider();
    Node { id: identity.node_id(), local: Local { identity, provider, aead }, aead }
}

/// A node whose processor seals with AES, or is taken for one that does not.
fn with_aes(aes: bool) -> Local {
    let aead = if aes { AeadKind::AwsLc.provider_with_aes() } else { AeadKind::AwsLc.provider() };
    Local {
        identity: Arc::new(Identity::generate().unwrap()),
        provider: ProviderKind::AwsLc.provider(),
        aead,
    }
}

fn claims() -> LocalClaims {
    let params = Params {
        capabilities: 0,
        lanes: 2,
        mtu: 1420,
        roster_version: 3,
        tls_pin: [1; 32],
        mixed_index: 4,
        connection: [0; 8],
    };
    LocalClaims { proof: b"proof".to_vec(), params }
}

fn hello(a: &Node, b: &Node) -> (AwaitChallenge, Vec<u8>) {
    AwaitChallenge::start(&a.local, &network(), b.id, 11, [1; 32]).unwrap()
}

fn answer(b: &Node, hello: &[u8]) -> Result<(AwaitResponse, Vec<u8>), HandshakeError> {
    AwaitResponse::start(&b.local, &network(), b.id, hello, 22, [2; 32])
}

/// Changes a HELLO and keys it again, as whoever knows the network's secret can.
fn rekeyed(hello: &[u8], responder: NodeId, edit: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut changed = hello.to_vec();
    edit(&mut changed[..HELLO_BODY]);
    let key = kdf::extract(&SECRET, &[&responder.0]).expand::<64>("mesh/1 mac1");
    let mac1 = kdf::hmac_sha512_16(&key[..], &[&changed[..HELLO_BODY]]);
    changed[HELLO_BODY..HELLO_BODY + 16].copy_from_slice(&mac1);
    changed
}

/// A handshake up to RESPONSE, and then ESTABLISHED.
struct Run {
    state: AwaitResponse,
    awaits: AwaitEstablished,
    response: Vec<u8>,
}

fn run(a: &Node, b: &Node) -> Run {
    let (awaits, hello) = hello(a, b);
    let (state, challenge) = answer(b, &hello).unwrap();
    let (awaits, response) = awaits.take(&a.local, &network(), &challenge, &claims()).unwrap();
    Run { state, awaits, response }
}

/// Opens the last box that `by` sealed, changes the claims in it, and seals it again.
fn reseal(by: &Node, message: &[u8], edit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let (key, nonce) = *by.aead.log().last().unwrap();
    let (header, sealed) = message.split_at(BOX_HEADER);
    let key = AeadKind::ChaCha20Poly1305.key(&key);
    let mut sealed = sealed.to_vec();
    let mut claims = key.open_in_place(&nonce, header, &mut sealed).unwrap().to_vec();
    edit(&mut claims);
    let tag = key.seal_in_place(&nonce, header, &mut claims);
    [header, &claims, &tag].concat()
}

/// What an attacker does to the claims, and what has to come of it.
type Attack = (&'static str, fn(&mut Vec<u8>), fn(HandshakeError) -> bool);

fn is_signature(error: HandshakeError) -> bool {
    matches!(error, HandshakeError::Signature | HandshakeError::Identity)
}

fn is_malformed(error: HandshakeError) -> bool {
    matches!(error, HandshakeError::Malformed(WireError::Truncated | WireError::Trailing))
}

fn attacks() -> Vec<Attack> {
    vec![
        ("ML-DSA half zero", |claims| half(claims, Half::MlDsa).fill(0), is_signature),
        ("Ed25519 half zero", |claims| half(claims, Half::Ed25519).fill(0), is_signature),
        ("ML-DSA half changed", |claims| half(claims, Half::MlDsa)[4000] ^= 1, is_signature),
        ("Ed25519 half changed", |claims| half(claims, Half::Ed25519)[40] ^= 1, is_signature),
        ("both halves zero", |claims| whole(claims).fill(0), is_signature),
        ("Ed25519 half left out", |claims| drop_end(claims, ED25519_SIGNATURE), is_malformed),
        ("ML-DSA half left out", drop_mldsa, is_malformed),
        ("no signature", |claims| drop_end(claims, SIGNATURE), is_malformed),
        ("a byte more", |claims| claims.push(0), is_malformed),
        ("keys of nobody", |claims| claims[..PUBLIC_IDENTITY].fill(1), is_signature),
        ("ML-DSA key zero", |claims| claims[..100].fill(0), is_signature),
        ("Ed25519 key zero", |claims| claims[PUBLIC_IDENTITY - 32..PUBLIC_IDENTITY].fill(0), is_signature),
        ("another proof", |claims| claims[PUBLIC_IDENTITY + 2] ^= 1, is_signature),
        ("another capability", |claims| params(claims)[0] ^= 1, is_signature),
        ("another roster version", |claims| params(claims)[7] ^= 1, is_signature),
        ("another TLS pin", |claims| params(claims)[15] ^= 1, is_signature),
        ("another number after the mix", |claims| params(claims)[47] ^= 1, is_signature),
        ("another connection", |claims| params(claims)[58] ^= 1, is_signature),
    ]
}

enum Half {
    MlDsa,
    Ed25519,
}

fn whole(claims: &mut [u8]) -> &mut [u8] {
    let at = claims.len() - SIGNATURE;
    &mut claims[at..]
}

fn half(claims: &mut [u8], half: Half) -> &mut [u8] {
    let (mldsa, ed25519) = whole(claims).split_at_mut(MLDSA_SIGNATURE);
    match half {
        Half::MlDsa => mldsa,
        Half::Ed25519 => ed25519,
    }
}

fn params(claims: &mut [u8]) -> &mut [u8] {
    let at = claims.len() - SIGNATURE - PARAMS_LEN;
    &mut claims[at..at + PARAMS_LEN]
}

fn drop_end(claims: &mut Vec<u8>, bytes: usize) {
    claims.truncate(claims.len() - bytes);
}

fn drop_mldsa(claims: &mut Vec<u8>) {
    let at = claims.len() - SIGNATURE;
    claims.drain(at..at + MLDSA_SIGNATURE);
}

#[test]
fn hello_without_the_suite_is_refused() {
    let (a, b) = (node(), node());
    let (_, genuine) = hello(&a, &b);
    assert!(answer(&b, &rekeyed(&genuine, b.id, |_| {})).is_ok());
    for suites in [vec![2], vec![0xffff], vec![2, 3, 4, 5], vec![0x0100], vec![0, 0]] {
        let changed = rekeyed(&genuine, b.id, |body| set_suites(body, &suites));
        assert_eq!(answer(&b, &changed).unwrap_err(), HandshakeError::Suite, "{suites:?}");
    }
    for count in [0, 5, 255] {
        let changed = rekeyed(&genuine, b.id, |body| body[8] = count);
        assert!(matches!(answer(&b, &changed).unwrap_err(), HandshakeError::Malformed(_)), "{count}");
    }
}

#[test]
fn suite_that_was_stripped_or_added_on_the_way_breaks_the_confirmation() {
    for suites in [vec![SUITE, 2], vec![2, SUITE], vec![3, 2, SUITE, 9]] {
        let (a, b) = (node(), node());
        let (awaits, genuine) = hello(&a, &b);
        let changed = rekeyed(&genuine, b.id, |body| set_suites(body, &suites));
        let (_, challenge) = answer(&b, &changed).unwrap();
        let taken = awaits.take(&a.local, &network(), &challenge, &claims());
        assert_eq!(taken.unwrap_err(), HandshakeError::Confirmation, "{suites:?}");
    }
}

/// AES is what both have or nothing, a session seals and opens with what was agreed on, and so do those that follow it.
#[test]
fn aes_is_agreed_on_by_two_that_have_it() {
    let has = AeadKind::AwsLc.provider_with_aes().suites().contains(&SUITE_AES);
    for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
        let (a, b) = (with_aes(first), with_aes(second));
        let id = b.identity.node_id();
        let (awaits, hello) = AwaitChallenge::start(&a, &network(), id, 11, [1; 32]).unwrap();
        let (state, challenge) = AwaitResponse::start(&b, &network(), id, &hello, 22, [2; 32]).unwrap();
        let (awaits, response) = awaits.take(&a, &network(), &challenge, &claims()).unwrap();
        let peer = state.take(&b, id, &response).unwrap();
        let (_, mut theirs, established) = state.proven(peer, &response).establish(&b, &claims()).unwrap();
        let mut ours = awaits.take(&a, &established).unwrap().session;
        let expected = if has && first && second { SUITE_AES } else { SUITE };
        for index in 0..2 {
            assert_eq!((ours.suite(), theirs.suite()), (expected, expected));
            assert_eq!(ours.limit() < 1 << 30, expected == SUITE_AES);
            let mut frame = vec![5; Session::frame_len(100)];
            ours.seal(0, PayloadKind::Ip, &mut frame).unwrap();
            assert_eq!(theirs.open(&mut frame).unwrap().payload, [5; 100]);
            let rekey = ours.lead_rekey(a.provider, 30 + index).unwrap();
            let (next, answer) = theirs.follow_rekey(b.provider, rekey.offer(), 40 + index).unwrap();
            ours = ours.finish_rekey(a.provider, &rekey, &answer).unwrap();
            theirs = next;
        }
    }
}

#[test]
fn aes_that_was_stripped_on_the_way_breaks_the_confirmation() {
    let (a, b) = (with_aes(true), with_aes(true));
    if !a.aead.suites().contains(&SUITE_AES) {
        return;
    }
    let id = b.identity.node_id();
    let (awaits, hello) = AwaitChallenge::start(&a, &network(), id, 11, [1; 32]).unwrap();
    let changed = rekeyed(&hello, id, |body| set_suites(body, &[SUITE]));
    let (_, challenge) = AwaitResponse::start(&b, &network(), id, &changed, 22, [2; 32]).unwrap();
    let taken = awaits.take(&a, &network(), &challenge, &claims());
    assert_eq!(taken.unwrap_err(), HandshakeError::Confirmation);
}

#[test]
fn suite_that_was_not_offered_is_not_taken() {
    let (a, b) = (node(), node());
    let (awaits, genuine) = hello(&a, &b);
    let (_, challenge) = answer(&b, &genuine).unwrap();
    for suite in [0, 2, 0x0100, 0xffff] {
        let mut changed = challenge.clone();
        changed[12..14].copy_from_slice(&u16::to_le_bytes(suite));
        let taken = awaits.take(&a.local, &network(), &changed, &claims());
        assert_eq!(taken.unwrap_err(), HandshakeError::Suite);
    }
    assert!(awaits.take(&a.local, &network(), &challenge, &claims()).is_ok());
}

#[test]
fn other_version_is_refused_on_both_sides() {
    let (a, b) = (node(), node());
    let (awaits, genuine) = hello(&a, &b);
    let (_, challenge) = answer(&b, &genuine).unwrap();
    for version in (0..=255).filter(|version| *version != VERSION) {
        let expected = HandshakeError::Malformed(WireError::Version(version));
        let changed = rekeyed(&genuine, b.id, |body| body[1] = version);
        assert_eq!(answer(&b, &changed).unwrap_err(), expected);
        let mut changed = challenge.clone();
        changed[1] = version;
        let taken = awaits.take(&a.local, &network(), &changed, &claims());
        assert_eq!(taken.unwrap_err(), expected);
    }
}

#[test]
fn response_without_both_halves_of_its_signature_is_refused() {
    let (a, b) = (node(), node());
    let run = run(&a, &b);
    for (name, edit, expected) in attacks() {
        let changed = reseal(&a, &run.response, edit);
        let error = run.state.take(&b.local, b.id, &changed).unwrap_err();
        assert!(expected(error), "{name}: {error:?}");
    }
    assert!(run.state.take(&b.local, b.id, &reseal(&a, &run.response, |_| {})).is_ok());
}

#[test]
fn established_without_both_halves_of_its_signature_is_refused() {
    let (a, b) = (node(), node());
    let run = run(&a, &b);
    let peer = run.state.take(&b.local, b.id, &run.response).unwrap();
    let last = run.state.proven(peer, &run.response);
    let (_, _, established) = last.establish(&b.local, &claims()).unwrap();
    for (name, edit, expected) in attacks() {
        let changed = reseal(&b, &established, edit);
        let error = run.awaits.take(&a.local, &changed).unwrap_err();
        assert!(expected(error), "{name}: {error:?}");
    }
    assert!(run.awaits.take(&a.local, &established).is_ok());
}

#[test]
fn signature_of_another_run_role_or_node_is_refused() {
    let (a, b, other) = (node(), node(), node());
    let first = run(&a, &b);
    let (key, nonce) = *a.aead.log().last().unwrap();
    let mut sealed = first.response[BOX_HEADER..].to_vec();
    let key = AeadKind::AwsLc.key(&key);
    let claims = key.open_in_place(&nonce, &first.response[..BOX_HEADER], &mut sealed).unwrap();
    let of_another_run = whole(claims).to_vec();
    let of_another_role = a.local.identity.sign(Label::Responder, b"").unwrap().as_bytes().to_vec();
    let of_another_node = other.local.identity.sign(Label::Initiator, b"").unwrap().as_bytes().to_vec();

    let second = run(&a, &b);
    assert_eq!(second.response[0], RESPONSE);
    for stolen in [of_another_run, of_another_role, of_another_node] {
        let changed = reseal(&a, &second.response, |claims| whole(claims).copy_from_slice(&stolen));
        assert_eq!(second.state.take(&b.local, b.id, &changed).unwrap_err(), HandshakeError::Signature);
        for part in [0..MLDSA_SIGNATURE, MLDSA_SIGNATURE..SIGNATURE] {
            let changed = reseal(&a, &second.response, |claims| {
                whole(claims)[part.clone()].copy_from_slice(&stolen[part.clone()]);
            });
            assert_eq!(
                second.state.take(&b.local, b.id, &changed).unwrap_err(),
                HandshakeError::Signature,
                "one half of it"
            );
        }
    }
}

fn set_suites(body: &mut [u8], suites: &[u16]) {
    body[8] = u8::try_from(suites.len()).unwrap();
    body[12..20].fill(0);
    for (at, suite) in suites.iter().enumerate() {
        body[12 + 2 * at..14 + 2 * at].copy_from_slice(&suite.to_le_bytes());
    }
}
