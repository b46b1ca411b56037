//! An attacker at the relay who knows the network secret: SIGMA-R written down a second time, from `docs/protocol.md`
//! section 5, so that every field of it can be wrong.

use mesh_identity::{Identity, Label, sha512};
use mesh_session::kdf::{self, Prk};
use mesh_session::{AeadKind, EphemeralSecret, KemSecret, ProviderKind};
use mesh_wire::NodeId;
use mesh_wire::handshake::{
    BOX_HEADER, CHALLENGE_BODY, Challenge, ESTABLISHED, HELLO_BODY, Hello, Params, RESPONSE, SUITE,
    box_header,
};

use super::world::{CAST, SECRET};

const PROTOCOL: &[u8] = b"mesh/1 SIGMA-R X25519+ML-KEM-1024 ML-DSA-87+Ed25519 ChaCha20Poly1305 SHA512";

/// Returns mac1 of a HELLO's body for a responder.
pub(super) fn mac1(body: &[u8], responder: NodeId) -> [u8; 16] {
    let key = kdf::extract(&SECRET, &[&responder.0]).expand::<64>("mesh/1 mac1");
    kdf::hmac_sha512_16(&key[..], &[body])
}

/// Makes a HELLO's macs right again after its body was changed.
pub(super) fn remac(hello: &mut [u8], responder: NodeId) {
    let mac = mac1(&hello[..HELLO_BODY], responder);
    hello[HELLO_BODY..HELLO_BODY + 16].copy_from_slice(&mac);
}

/// One handshake that the insider leads or answers, after CHALLENGE.
pub(super) struct Insider {
    /// The other side's number.
    remote: u32,
    hs: Prk,
    th2: [u8; 64],
}

/// A HELLO is sent.
pub(super) struct Leading {
    dh: EphemeralSecret,
    kem: KemSecret,
    th1: [u8; 64],
}

impl Leading {
    /// Makes a HELLO for a node.
    pub(super) fn start(responder: NodeId, index: u32) -> (Self, Vec<u8>) {
        let (dh, x25519) = EphemeralSecret::generate().unwrap();
        let (kem, kem_public) = ProviderKind::AwsLc.provider().kem_generate().unwrap();
        let hello = Hello { sender: index, suites: vec![SUITE], nonce: [9; 32], x25519, kem_public };
        let mut message = hello.encode_body();
        let mac = mac1(&message, responder);
        message.extend(mac);
        message.extend([0; 16]);
        (Self { dh, kem, th1: add(start(), &message[..HELLO_BODY]) }, message)
    }

    /// Takes the CHALLENGE, whose tag has to be right.
    pub(super) fn challenged(self, message: &[u8]) -> Insider {
        let (challenge, tag) = Challenge::parse(message).unwrap();
        let dh = self.dh.agree(&challenge.x25519).unwrap();
        let kem = ProviderKind::AwsLc.provider().kem_decapsulate(&self.kem, &challenge.ciphertext).unwrap();
        let th2 = add(self.th1, &message[..CHALLENGE_BODY]);
        let hs = kdf::extract(&th2, &[kem.as_bytes(), &dh[..], &SECRET]);
        let insider = Insider { remote: challenge.sender, hs, th2 };
        assert_eq!(insider.tag(), tag, "the second writing of the key schedule differs from the first");
        insider
    }
}

impl Insider {
    /// Answers a HELLO.
    pub(super) fn answer(hello: &[u8], index: u32) -> (Self, Vec<u8>) {
        let parsed = Hello::parse(hello).unwrap();
        let (dh, x25519) = EphemeralSecret::generate().unwrap();
        let dh = dh.agree(&parsed.x25519).unwrap();
        let (ciphertext, kem) = ProviderKind::AwsLc.provider().kem_encapsulate(&parsed.kem_public).unwrap();
        let challenge = Challenge {
            sender: index,
            receiver: parsed.sender,
            suite: SUITE,
            nonce: [8; 32],
            x25519,
            ciphertext,
        };
        let mut message = challenge.encode_body();
        let th2 = add(add(start(), &hello[..HELLO_BODY]), &message);
        let hs = kdf::extract(&th2, &[kem.as_bytes(), &dh[..], &SECRET]);
        let insider = Self { remote: parsed.sender, hs, th2 };
        message.extend(insider.tag());
        (insider, message)
    }

    fn tag(&self) -> [u8; 16] {
        kdf::hmac_sha512_16(&self.hs.expand::<32>("confirm")[..], &[&self.th2])
    }

    /// The bytes that an initiator signs.
    pub(super) fn initiator_input(
        &self,
        own: NodeId,
        peer: NodeId,
        proof: &[u8],
        params: &Params,
    ) -> Vec<u8> {
        signed(&self.th2, own, peer, proof, params)
    }

    /// The bytes that a responder signs after this RESPONSE.
    pub(super) fn responder_input(
        &self,
        response: &[u8],
        own: NodeId,
        peer: NodeId,
        proof: &[u8],
        params: &Params,
    ) -> Vec<u8> {
        signed(&add(self.th2, response), own, peer, proof, params)
    }

    /// Seals claims, whatever they are, into a RESPONSE.
    pub(super) fn response(&self, claims: &[u8]) -> Vec<u8> {
        self.seal(RESPONSE, "i hs", claims)
    }

    /// Seals claims, whatever they are, into an ESTABLISHED.
    pub(super) fn established(&self, claims: &[u8]) -> Vec<u8> {
        self.seal(ESTABLISHED, "r hs", claims)
    }

    fn seal(&self, kind: u8, label: &str, claims: &[u8]) -> Vec<u8> {
        let header = box_header(kind, self.remote);
        let mut message = [&header[..], claims].concat();
        let key = AeadKind::AwsLc.provider().key(&self.hs.expand::<32>(label));
        let tag = key.seal_in_place(&[0; 12], &header, &mut message[BOX_HEADER..]);
        message.extend(tag);
        message
    }

    /// Opens the RESPONSE that an initiator sent to the insider: this much a member who answers for another learns.
    pub(super) fn open_response(&self, message: &[u8]) -> Vec<u8> {
        let (header, sealed) = message.split_at(BOX_HEADER);
        let mut buffer = sealed.to_vec();
        let key = AeadKind::AwsLc.provider().key(&self.hs.expand::<32>("i hs"));
        key.open_in_place(&[0; 12], header, &mut buffer).unwrap().to_vec()
    }
}

/// Both halves of a good signature.
pub(super) fn sign(identity: &Identity, label: Label, input: &[u8]) -> Vec<u8> {
    identity.sign(label, input).unwrap().as_bytes().to_vec()
}

fn start() -> [u8; 64] {
    sha512(&[PROTOCOL, &CAST.net.0])
}

fn add(th: [u8; 64], message: &[u8]) -> [u8; 64] {
    sha512(&[&th, &u32::try_from(message.len()).unwrap().to_le_bytes(), message])
}

fn signed(th: &[u8; 64], own: NodeId, peer: NodeId, proof: &[u8], params: &Params) -> Vec<u8> {
    [&th[..], &own.0, &peer.0, &sha512(&[proof, &params.encode()])].concat()
}
