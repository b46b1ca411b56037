//! The golden transcript once more, computed from `docs/protocol.md` alone: offsets are numbers, labels are strings, and of the
//! crate under test only HKDF and X25519 are used, which the vectors prove.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use mesh_identity::{Label, PublicIdentity, Signature};
use mesh_session::kdf::{Prk, constant_time_eq, extract, hmac_sha512_16, sha512};
use mesh_session::{EphemeralSecret, Secret};
use ml_kem::{DecapsulationKey, EncapsulationKey, MlKem1024};

use crate::golden::{ALICE, BOB, committed};
use crate::seeded::Stream;

const P: &[u8] = b"mesh/1 SIGMA-R X25519+ML-KEM-1024 ML-DSA-87+Ed25519 ChaCha20Poly1305 SHA512";

struct Golden(BTreeMap<String, Vec<u8>>);

impl Golden {
    fn get(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }
}

fn open(key: &[u8; 32], nonce: [u8; 12], ad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: sealed, aad: ad };
    ChaCha20Poly1305::new(key.into()).decrypt(&nonce.into(), payload).unwrap()
}

fn add(th: [u8; 64], message: &[u8]) -> [u8; 64] {
    let length = u32::try_from(message.len()).unwrap().to_le_bytes();
    sha512(&[&th, &length, message])
}

/// The shared secrets of two sides whose fresh keys come from the seeds: the one that speaks first makes X25519 key and
/// ML-KEM seed, the other X25519 key and the randomness of the encapsulation.
fn exchange(first: &mut Stream, second: &mut Stream) -> (Exchange, Secret<32>) {
    let (a, seed) = (first.bytes::<32>(), first.bytes::<64>());
    let (b, m) = (second.bytes::<32>(), second.bytes::<32>());
    let (a, b) = (EphemeralSecret::from_bytes(&a), EphemeralSecret::from_bytes(&b));
    let (a_public, b_public) = (a.public().unwrap(), b.public().unwrap());
    let decapsulation = DecapsulationKey::<MlKem1024>::from_seed(seed.into());
    let ek: &EncapsulationKey<MlKem1024> = decapsulation.encapsulation_key();
    let (ciphertext, kem) = ek.encapsulate_deterministic(&m.into());
    let shared = a.agree(&b_public).unwrap();
    let exchange = Exchange { a_public, b_public, ciphertext: ciphertext.to_vec(), kem: kem.into() };
    (exchange, shared)
}

struct Exchange {
    a_public: [u8; 32],
    b_public: [u8; 32],
    ciphertext: Vec<u8>,
    kem: [u8; 32],
}

/// Checks the frames of a session against the keys that follow from `ck0`, and returns the next `ck`.
fn session(golden: &Golden, name: &str, ck0: &Prk, (i, r): (u32, u32)) -> Secret<64> {
    assert_eq!(golden.get(&format!("{name}: session id")), ck0.expand_public::<16>("session_id"));
    let (k_ir, k_ri) = (ck0.expand::<32>("k_ir"), ck0.expand::<32>("k_ri"));
    let mut counters = [0_u64; 2];
    for (frame, from_initiator, kind, content) in [
        ("PING", true, 4, vec![1, 4, 3, 2, 1, 0, 0, 0, 0]),
        ("PONG", false, 4, vec![2, 4, 3, 2, 1, 0, 0, 0, 0]),
        ("IP", true, 1, vec![0x45; 64]),
        ("Ethernet", false, 2, vec![2; 60]),
        ("QUIC", false, 3, vec![0xc0; 100]),
    ] {
        let (key, receiver) = if from_initiator { (&k_ir, r) } else { (&k_ri, i) };
        let counter = &mut counters[usize::from(from_initiator)];
        let header = [&[0x94, 0, 0][..], &receiver.to_le_bytes(), &counter.to_le_bytes()].concat();
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        *counter += 1;
        let bytes = golden.get(&format!("{name}: {frame}"));
        assert_eq!(bytes[..15], header, "{name}: {frame}");
        assert_eq!(open(key, nonce, &header, &bytes[15..]), [&[kind][..], &content].concat());
    }
    ck0.expand("ck")
}

/// Opens a RESPONSE or ESTABLISHED, checks its claims and its parts, and returns the node id that signed.
fn claims(
    golden: &Golden,
    (name, first, label): (&str, u8, Label),
    (receiver, key): (u32, Secret<32>),
    (th, other): ([u8; 64], &[u8]),
    hs: &Prk,
) -> Vec<u8> {
    let message = golden.get(name);
    assert_eq!(message[..8], [&[first, 0, 0, 0][..], &receiver.to_le_bytes()].concat());
    let plain = open(&key, [0; 12], &message[..8], &message[8..]);
    let (identity, rest) = plain.split_at(2624);
    let proof_length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
    let (proof, rest) = rest[2..].split_at(proof_length);
    let (params, signature) = rest.split_at(59);
    assert_eq!(signature.len(), 4691);
    assert_eq!(params[..5], [0, 0, 0, 0, 4]);
    let node = sha512(&[b"mesh/1 node-id", &2592_u32.to_le_bytes(), identity])[..32].to_vec();
    let input = [&th[..], &node, other, &sha512(&[proof, params])].concat();
    let signature = Signature::parse(signature).unwrap();
    PublicIdentity::parse(identity).unwrap().verify(label, &input, &signature).unwrap();

    let side = if first == 0x92 { "i" } else { "r" };
    let key = hs.expand::<32>(&format!("{side} fragment"));
    let id = hs.expand_public::<8>(&format!("{side} fragment id"));
    let mut whole = Vec::new();
    for index in 0..7 {
        let part = golden.get(&format!("{name} part {index}"));
        assert_eq!(part[..16], [&[0x96, index, 7, first][..], &receiver.to_le_bytes(), &id].concat());
        let mut nonce = [0; 12];
        nonce[11] = index;
        whole.extend(open(&key, nonce, &part[..16], &part[16..]));
    }
    assert_eq!(whole, message);
    node
}

/// Checks the parts of HELLO or CHALLENGE and their tags.
fn parts(golden: &Golden, name: &str, key: &[u8; 64], receiver: u32) {
    let mut whole = Vec::new();
    for index in 0..2_u8 {
        let part = golden.get(&format!("{name} part {index}"));
        assert_eq!(part[..8], [&[0x96, index, 2, golden.get(name)[0]][..], &receiver.to_le_bytes()].concat());
        let (covered, tag) = part.split_at(part.len() - 16);
        assert!(constant_time_eq(&hmac_sha512_16(key, &[covered]), tag));
        whole.extend_from_slice(&covered[16..]);
    }
    assert_eq!(whole, golden.get(name));
}

/// Opens the COOKIEs and checks mac2 of the HELLOs that show their cookies.
fn cookies(golden: &Golden, pre: &Prk, id_i: &[u8]) {
    let hello = golden.get("HELLO");
    // The responder draws its keys first, then the secret of its cookies.
    let mut stream = Stream::new(BOB.0);
    let [_, _, secret]: [[u8; 32]; 3] = std::array::from_fn(|_| stream.bytes());
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    let six = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let port = 4500_u16.to_le_bytes();
    for (name, source) in [
        ("relay", [&[1], id_i].concat()),
        ("IPv4", [&[2], &mapped[..], &port].concat()),
        ("IPv6", [&[2], &six[..], &port].concat()),
    ] {
        let reply = golden.get(&format!("COOKIE for {name}"));
        assert_eq!((reply.len(), &reply[..8]), (64, &[0x95, 1, 0, 0, 0x11, 0x11, 0x11, 0x11][..]));
        let payload = Payload { msg: &reply[32..], aad: &hello[1652..1668] };
        let nonce: [u8; 24] = reply[8..32].try_into().unwrap();
        let sealer = XChaCha20Poly1305::new((&*pre.expand::<32>("mesh/1 cookie")).into());
        let cookie = sealer.decrypt(&nonce.into(), payload).unwrap();
        assert_eq!(cookie, hmac_sha512_16(&secret, &[&source]), "{name}");
        let again = golden.get(&format!("HELLO with the cookie for {name}"));
        assert_eq!(again[..1668], hello[..1668]);
        assert_eq!(again[1668..], hmac_sha512_16(&cookie, &[&hello[..1668]]));
    }
}

/// Opens the ACKs of both directions.
fn acknowledgements(golden: &Golden, hs: &Prk, (i, r): (u32, u32)) {
    for (name, side, receiver, of) in [("RESPONSE", "r", i, "i"), ("ESTABLISHED", "i", r, "r")] {
        for bitmap in [0x40_u64, 0x60, 0x70, 0x78, 0x7c, 0x7e, 0x7f] {
            let ack = golden.get(&format!("{name} ACK {bitmap:#x}"));
            let id = hs.expand_public::<8>(&format!("{of} fragment id"));
            let body = [&[0x96, 0xff, 0, 0x9f][..], &u32::to_le_bytes(receiver), &id, &bitmap.to_le_bytes()]
                .concat();
            assert_eq!(ack[..24], body);
            let mut nonce = [0; 12];
            nonce[0] = 1;
            nonce[4..].copy_from_slice(&bitmap.to_le_bytes());
            assert!(open(&hs.expand(&format!("{side} fragment")), nonce, &body, &ack[24..]).is_empty());
        }
    }
}

#[test]
fn transcript_follows_the_document() {
    let golden = Golden(committed("member"));
    let (net, psk) = (golden.get("network id"), golden.get("network secret"));
    let (id_i, id_r) = (golden.get("id of the initiator"), golden.get("id of the responder"));
    let (i, r) = (0x1111_1111, 0x2222_2222);
    let (mut fresh_i, mut fresh_r) = (Stream::new(ALICE.1), Stream::new(BOB.1));
    let (keys, dh) = exchange(&mut fresh_i, &mut fresh_r);
    let pre = extract(psk, &[id_r]);

    let hello = golden.get("HELLO");
    assert_eq!(hello.len(), 1684);
    assert_eq!(
        hello[..20],
        [&[0x90, 1, 0, 0][..], &[0x11; 4], &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat()
    );
    assert_eq!(hello[52..84], keys.a_public);
    assert_eq!(hello[1652..1668], hmac_sha512_16(&pre.expand::<64>("mesh/1 mac1")[..], &[&hello[..1652]]));
    assert_eq!(hello[1668..], [0; 16]);
    parts(&golden, "HELLO", &pre.expand("mesh/1 fragment i"), i);

    cookies(&golden, &pre, id_i);

    let challenge = golden.get("CHALLENGE");
    assert_eq!(challenge.len(), 1668);
    let start = [&[0x91, 1, 0, 0][..], &[0x22; 4], &[0x11; 4], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(challenge[..20], start);
    assert_eq!(challenge[52..84], keys.b_public);
    assert_eq!(challenge[84..1652], keys.ciphertext);
    parts(&golden, "CHALLENGE", &pre.expand("mesh/1 fragment r"), i);

    let th1 = add(sha512(&[P, net]), &hello[..1652]);
    let th2 = add(th1, &challenge[..1652]);
    let hs = extract(&th2, &[&keys.kem, &dh[..], psk]);
    assert_eq!(challenge[1652..], hmac_sha512_16(&hs.expand::<32>("confirm")[..], &[&th2]));

    let response = ("RESPONSE", 0x92, Label::Initiator);
    assert_eq!(claims(&golden, response, (r, hs.expand("i hs")), (th2, id_r), &hs), id_i);
    let th3 = add(th2, golden.get("RESPONSE"));
    let established = ("ESTABLISHED", 0x93, Label::Responder);
    assert_eq!(claims(&golden, established, (i, hs.expand("r hs")), (th3, id_i), &hs), id_r);
    acknowledgements(&golden, &hs, (i, r));

    let th4 = add(th3, golden.get("ESTABLISHED"));
    let ck0 = extract(&th4, &[&hs.expand::<64>("master")[..]]);
    let ck = session(&golden, "handshake", &ck0, (i, r));

    let (i, r) = (0x5555_5555_u32, 0x6666_6666_u32);
    let exporter = golden.get("exporter");
    let of = golden.get("handshake: session id");
    let hash = sha512(&[b"mesh/1 mix", of, &i.to_le_bytes(), &r.to_le_bytes()]);
    let mut ck = session(&golden, "mix", &extract(&ck[..], &[exporter, &hash]), (i, r));

    for (name, leads) in [("rekey", true), ("rekey by the responder", false)] {
        let (keys, dh) =
            if leads { exchange(&mut fresh_i, &mut fresh_r) } else { exchange(&mut fresh_r, &mut fresh_i) };
        let (offer, answer) = (golden.get(&format!("{name}: offer")), golden.get(&format!("{name}: answer")));
        assert_eq!(
            (offer.len(), offer[..4].to_vec(), &offer[4..36]),
            (1604, vec![0x33; 4], &keys.a_public[..])
        );
        assert_eq!(
            (answer.len(), answer[..4].to_vec(), &answer[4..36]),
            (1604, vec![0x44; 4], &keys.b_public[..])
        );
        assert_eq!(answer[36..], keys.ciphertext);
        let next = extract(&ck[..], &[&keys.kem, &dh[..], &sha512(&[offer, answer])]);
        let numbers = (0x3333_3333, 0x4444_4444);
        ck = session(&golden, name, &next, if leads { numbers } else { (numbers.1, numbers.0) });
    }
}
