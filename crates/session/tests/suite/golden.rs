//! Golden transcripts: with every random value from a seed, each byte that two nodes send is the committed one.
//!
//! `tests/golden/NAME.txt` lists the parts in order with their lengths and, up to 160 bytes, their hex, above that their
//! SHA-512; `NAME.bin` is all parts one after the other. `GOLDEN_WRITE=1 cargo test -p mesh-session golden` writes both anew,
//! which a change of `docs/protocol.md` alone justifies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs};

use data_encoding::HEXLOWER;
use mesh_identity::Identity;
use mesh_session::handshake::{
    Assembly, AwaitChallenge, AwaitResponse, CookieJar, Fragments, Local, LocalClaims, Network, Purpose,
    with_cookie,
};
use mesh_session::{AeadKind, Session, kdf};
use mesh_wire::control::{Control, Half, REKEY_PART, RekeyPart};
use mesh_wire::cookie::Source;
use mesh_wire::frame::{PAYLOAD_OFFSET, PayloadKind};
use mesh_wire::handshake::Params;
use mesh_wire::{NetId, NodeId};
use zeroize::Zeroizing;

use crate::seeded::{Recorder, Seeded, Stream};

/// Parts up to this length stand in the list as they are.
const SHORT: usize = 160;

/// Seeds of the two members.
pub(crate) const ALICE: (&str, &str) = ("alice", "fresh keys of alice");
pub(crate) const BOB: (&str, &str) = ("bob", "fresh keys of bob");

/// Returns the parts of a committed transcript by their names.
pub(crate) fn committed(name: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path(name, "bin")).unwrap();
    let mut rest = bytes.as_slice();
    let mut parts = BTreeMap::new();
    for line in fs::read_to_string(path(name, "txt")).unwrap().lines() {
        let (name, shown) = line.rsplit_once(": ").unwrap();
        let length = shown.split(' ').next().unwrap().parse().unwrap();
        let (part, behind) = rest.split_at(length);
        rest = behind;
        assert!(parts.insert(name.to_owned(), part.to_vec()).is_none(), "{name} is there twice");
    }
    assert!(rest.is_empty());
    parts
}

/// A transcript that grows part by part.
#[derive(Default)]
struct Transcript {
    list: String,
    bytes: Vec<u8>,
}

impl Transcript {
    fn add(&mut self, name: &str, part: &[u8]) {
        let shown = if part.len() <= SHORT {
            HEXLOWER.encode(part)
        } else {
            format!("sha512 {}", HEXLOWER.encode(&kdf::sha512(&[part])))
        };
        writeln!(self.list, "{name}: {} {shown}", part.len()).unwrap();
        self.bytes.extend_from_slice(part);
    }

    fn add_all(&mut self, name: &str, parts: &[Vec<u8>]) {
        for (at, part) in parts.iter().enumerate() {
            self.add(&format!("{name} {at}"), part);
        }
    }

    /// Compares with the committed files, the list first, because its lines say what differs.
    fn check(&self, name: &str) {
        let (list, bytes) = (path(name, "txt"), path(name, "bin"));
        if env::var_os("GOLDEN_WRITE").is_some() {
            fs::write(&list, &self.list).unwrap();
            fs::write(&bytes, &self.bytes).unwrap();
        }
        let committed = fs::read_to_string(&list).unwrap();
        assert!(committed.lines().count() > 40, "{} is cut short", list.display());
        for (expected, found) in committed.lines().zip(self.list.lines()) {
            assert_eq!(found, expected, "in {}", list.display());
        }
        assert_eq!(self.list.lines().count(), committed.lines().count(), "in {}", list.display());
        assert!(fs::read(&bytes).unwrap() == self.bytes, "{} differs", bytes.display());
    }
}

fn path(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension(extension)
}

/// A node whose keys, fresh keys and nonces follow from its name.
struct Node {
    local: Local,
    aead: &'static Recorder,
    stream: Stream,
}

impl Node {
    /// `fresh` seeds the keys that the node makes for each handshake, `name` all else.
    fn new((name, fresh): (&'static str, &'static str), kind: AeadKind) -> Self {
        let mut stream = Stream::new(name);
        let (provider, aead) = (Seeded::leaked(fresh), Recorder::leaked(kind));
        let identity = Identity::from_seeds(&stream.bytes(), &stream.bytes()).unwrap();
        let identity = Arc::new(identity.with_signer(&crate::seeded::Deterministic));
        Self { local: Local { identity, provider, aead }, aead, stream }
    }
}

#[expect(clippy::disallowed_methods, reason = "an instant has no other beginning; no byte depends on it")]
fn start() -> Instant {
    Instant::now()
}

fn claims(proof: &[u8], tls: u8, mixed_index: u32) -> LocalClaims {
    let params = Params {
        capabilities: 0,
        lanes: 4,
        mtu: 1420,
        roster_version: 7,
        tls_pin: [tls; 32],
        mixed_index,
        connection: [0; 8],
    };
    LocalClaims { proof: proof.to_vec(), params }
}

/// Seals a payload, has the other side open it, and writes the frame down.
fn carry(
    transcript: &mut Transcript,
    name: &str,
    (from, to): (&mut Session, &mut Session),
    kind: PayloadKind,
    payload: &[u8],
) {
    let mut frame = vec![0; Session::frame_len(payload.len())];
    frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
    from.seal(0, kind, &mut frame).unwrap();
    transcript.add(name, &frame);
    let opened = to.open(&mut frame).unwrap();
    assert_eq!((opened.kind, &*opened.payload), (kind, payload));
}

fn ping_pong(transcript: &mut Transcript, name: &str, a: &mut Session, b: &mut Session) {
    transcript.add(&format!("{name}: session id"), &a.id());
    assert_eq!(a.id(), b.id());
    let ping = Control::Ping(0x0102_0304).encode();
    carry(transcript, &format!("{name}: PING"), (a, b), PayloadKind::Control, &ping);
    let pong = Control::Pong(0x0102_0304).encode();
    carry(transcript, &format!("{name}: PONG"), (b, a), PayloadKind::Control, &pong);
    carry(transcript, &format!("{name}: IP"), (a, b), PayloadKind::Ip, &[0x45; 64]);
    carry(transcript, &format!("{name}: Ethernet"), (b, a), PayloadKind::Ethernet, &[0x02; 60]);
    carry(transcript, &format!("{name}: QUIC"), (b, a), PayloadKind::Quic, &[0xc0; 100]);
}

/// Carries a message in small datagrams from one side to the other, where the last part comes first.
fn in_parts(transcript: &mut Transcript, name: &str, (from, to): (&Fragments, &Fragments), message: &[u8]) {
    let datagrams = from.split(message).unwrap();
    transcript.add_all(&format!("{name} part"), &datagrams);
    let (first, _) = to.open_part(&datagrams[0]).unwrap();
    let mut assembly = Assembly::new(&first);
    for datagram in datagrams.iter().rev() {
        let (header, payload) = to.open_part(datagram).unwrap();
        assembly.add(&header, &payload).unwrap();
        let ack = to.acknowledge(assembly.bitmap());
        transcript.add(&format!("{name} ACK {:#x}", assembly.bitmap()), &ack);
        assert_eq!(from.open_ack(&ack), Ok(assembly.bitmap()));
    }
    assert_eq!(assembly.into_bytes(), message);
}

/// The four messages in whole and in parts, with a cookie in between, and the session on both sides.
fn handshake(
    transcript: &mut Transcript,
    network: &Network,
    (a, b): (&mut Node, &mut Node),
    party: NodeId,
    (claims_a, claims_b): (&LocalClaims, &LocalClaims),
) -> (Session, Session) {
    let (awaits, hello) =
        AwaitChallenge::start(&a.local, network, party, 0x1111_1111, a.stream.bytes()).unwrap();
    transcript.add("HELLO", &hello);
    transcript.add_all("HELLO part", &network.split(&hello, party, a.stream.bytes()).unwrap());

    let jar = CookieJar::new(network, party, start(), &b.stream.bytes());
    for (name, source) in [
        ("relay", Source::Relay(a.local.identity.node_id())),
        ("IPv4", Source::Udp("192.0.2.1:4500".parse().unwrap())),
        ("IPv6", Source::Udp("[2001:db8::1]:4500".parse().unwrap())),
    ] {
        let [first, second, third]: [[u8; 8]; 3] = std::array::from_fn(|_| b.stream.bytes());
        let nonce: [u8; 24] = [first, second, third].concat().try_into().unwrap();
        let reply = jar.make_reply(&hello, &source, &nonce).unwrap();
        transcript.add(&format!("COOKIE for {name}"), &reply);
        let cookie = network.open_cookie(&reply, &hello, party).unwrap();
        let again = with_cookie(&hello, &cookie).unwrap();
        assert!(jar.checks(&again, &source));
        transcript.add(&format!("HELLO with the cookie for {name}"), &again);
    }

    let (state, challenge) =
        AwaitResponse::start(&b.local, network, party, &hello, 0x2222_2222, b.stream.bytes()).unwrap();
    transcript.add("CHALLENGE", &challenge);
    transcript.add_all("CHALLENGE part", &network.split(&challenge, party, b.stream.bytes()).unwrap());

    let (awaits, response) = awaits.take(&a.local, network, &challenge, claims_a).unwrap();
    transcript.add("RESPONSE", &response);
    let (left, right) = (awaits.fragments(), state.fragments());
    in_parts(transcript, "RESPONSE", (&left, &right), &response);

    let peer = state.take(&b.local, party, &response).unwrap();
    let (_, session, established) = state.proven(peer, &response).establish(&b.local, claims_b).unwrap();
    transcript.add("ESTABLISHED", &established);
    in_parts(transcript, "ESTABLISHED", (&right, &left), &established);
    (awaits.take(&a.local, &established).unwrap().session, session)
}

/// Offer and answer in the frames that carry them; returns the next session on both sides.
fn rekey(
    transcript: &mut Transcript,
    name: &str,
    (a, b): (&Node, &Node),
    (leader, follower): (&mut Session, &mut Session),
) -> (Session, Session) {
    let rekey = leader.lead_rekey(a.local.provider, 0x3333_3333).unwrap();
    transcript.add(&format!("{name}: offer"), rekey.offer());
    let offer = rekey.offer().to_vec();
    let (followed, answer) = follower.follow_rekey(b.local.provider, &offer, 0x4444_4444).unwrap();
    for (at, half) in [Half::First, Half::Second].into_iter().enumerate() {
        let bytes = offer[at * REKEY_PART..][..REKEY_PART].try_into().unwrap();
        let part = Control::RekeyOffer(RekeyPart { id: 0x3333_3333, half, bytes }).encode();
        let name = format!("{name}: REKEY_OFFER {at}");
        carry(transcript, &name, (leader, follower), PayloadKind::Control, &part);
    }
    transcript.add(&format!("{name}: answer"), &answer);
    for (at, half) in [Half::First, Half::Second].into_iter().enumerate() {
        let bytes = answer[at * REKEY_PART..][..REKEY_PART].try_into().unwrap();
        let part = Control::RekeyAnswer(RekeyPart { id: 0x3333_3333, half, bytes }).encode();
        let name = format!("{name}: REKEY_ANSWER {at}");
        carry(transcript, &name, (follower, leader), PayloadKind::Control, &part);
    }
    (leader.finish_rekey(a.local.provider, &rekey, &answer).unwrap(), followed)
}

fn mix(
    transcript: &mut Transcript,
    (a, b): (&mut Session, &mut Session),
    (a_index, b_index): (u32, u32),
) -> (Session, Session) {
    let exporter = kdf::sha512(&[b"exporter", &a.id()]);
    transcript.add("exporter", &exporter);
    (a.mix(&exporter, a_index, b_index).unwrap(), b.mix(&exporter, b_index, a_index).unwrap())
}

/// The recording AEAD of both sides saw no nonce twice under one key.
fn assert_no_nonce_twice(nodes: [&Node; 2], least: usize) {
    let log: Vec<_> = nodes.iter().flat_map(|node| node.aead.log()).collect();
    assert!(log.len() >= least, "{} sealings were recorded", log.len());
    let different: BTreeSet<_> = log.iter().collect();
    assert_eq!(different.len(), log.len(), "a nonce was used twice with one key");
    // Keys of the session, of each box and of each direction's parts.
    let keys: BTreeSet<_> = log.iter().map(|(key, _)| key).collect();
    assert!(keys.len() >= 6);
}

#[test]
fn golden_member() {
    let [one, other] = AeadKind::ALL;
    for (a, b) in [(one, other), (other, one), (one, one)] {
        member(a, b).check("member");
    }
}

fn member(a: AeadKind, b: AeadKind) -> Transcript {
    let mut transcript = Transcript::default();
    let (mut a, mut b) = (Node::new(ALICE, a), Node::new(BOB, b));
    let net = NetId(Stream::new("network").bytes());
    let secret = Zeroizing::new(Stream::new("secret").bytes());
    transcript.add("network id", &net.0);
    transcript.add("network secret", &secret[..]);
    let party = b.local.identity.node_id();
    transcript.add("id of the initiator", &a.local.identity.node_id().0);
    transcript.add("id of the responder", &party.0);
    let network = Network::new(net, secret, Purpose::Member);

    let (claims_a, claims_b) = (claims(b"a proof", 1, 0x5555_5555), claims(b"another proof", 2, 0x6666_6666));
    let (mut left, mut right) =
        handshake(&mut transcript, &network, (&mut a, &mut b), party, (&claims_a, &claims_b));
    ping_pong(&mut transcript, "handshake", &mut left, &mut right);
    let (mut left, mut right) = mix(&mut transcript, (&mut left, &mut right), (0x5555_5555, 0x6666_6666));
    ping_pong(&mut transcript, "mix", &mut left, &mut right);
    let (mut left, mut right) = rekey(&mut transcript, "rekey", (&a, &b), (&mut left, &mut right));
    ping_pong(&mut transcript, "rekey", &mut left, &mut right);
    let (mut right, mut left) =
        rekey(&mut transcript, "rekey by the responder", (&b, &a), (&mut right, &mut left));
    ping_pong(&mut transcript, "rekey by the responder", &mut left, &mut right);

    for (side, node) in [("initiator", &a), ("responder", &b)] {
        for (at, (key, nonce)) in node.aead.log().iter().enumerate() {
            transcript.add(&format!("{side} sealing {at}: key and nonce"), &[&key[..], nonce].concat());
        }
    }
    assert_no_nonce_twice([&a, &b], 40);
    transcript
}

#[test]
fn golden_enrolment() {
    let mut transcript = Transcript::default();
    let mut joiner = Node::new(("joiner", "fresh keys of the joiner"), AeadKind::ChaCha20Poly1305);
    let mut root = Node::new(("root", "fresh keys of the root"), AeadKind::AwsLc);
    let net = root.local.identity.net_id();
    let psk = Zeroizing::new(Stream::new("psk").bytes());
    transcript.add("network id", &net.0);
    transcript.add("psk", &psk[..]);
    let network = Network::new(net, psk, Purpose::Enrol);
    let mut claims = claims(b"", 0, 0);
    claims.params.lanes = 1;
    let (mut left, mut right) =
        handshake(&mut transcript, &network, (&mut joiner, &mut root), net.as_party(), (&claims, &claims));
    ping_pong(&mut transcript, "enrolment", &mut left, &mut right);
    assert_no_nonce_twice([&joiner, &root], 20);
    transcript.check("enrolment");
}
