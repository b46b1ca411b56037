//! ML-KEM-1024, ChaCha20-Poly1305, X25519 and HKDF-SHA-512 against the vectors of NIST and Wycheproof.
//!
//! Each test counts what it ran, so that a test that runs nothing fails. Neither ML-KEM library offers key generation from a
//! seed or encapsulation with given randomness. Seeds are therefore expanded by the crate `ml-kem`, itself checked against
//! the same vectors, and the providers use the expanded keys; of the encapsulation vectors the keys are used.

use mesh_session::aead::{AeadKind, AeadProvider as _};
use mesh_session::dh::{EphemeralSecret, ZeroSharedSecret};
use mesh_session::kdf;
use mesh_session::pq::{KemSecret, PqError, PqProvider, ProviderKind};
#[expect(deprecated, reason = "the vectors and both providers hold keys in the expanded form")]
use ml_kem::ExpandedKeyEncoding;
use ml_kem::{DecapsulationKey, MlKem1024};
use serde_json::Value;

use crate::json::{acvp, array, hex, is_valid, wycheproof};

fn providers() -> [&'static dyn PqProvider; 2] {
    ProviderKind::ALL.map(ProviderKind::provider)
}

/// Expands a seed (d, then z) into decapsulation and encapsulation key (FIPS 203, algorithm 16).
#[expect(deprecated, reason = "the vectors and both providers hold keys in the expanded form")]
fn expand(seed: [u8; 64]) -> (Vec<u8>, Vec<u8>) {
    let key = DecapsulationKey::<MlKem1024>::from_seed(seed.into());
    let expanded = key.to_expanded_bytes().to_vec();
    // The encapsulation key stands inside (FIPS 203, algorithm 16, line 3).
    let ek = expanded[1536..1536 + 1568].to_vec();
    (expanded, ek)
}

/// A ciphertext or key of a wrong length has no type, which is how this program refuses it.
fn decapsulates(provider: &dyn PqProvider, dk: &[u8], ciphertext: &Value) -> Option<Vec<u8>> {
    let secret = KemSecret::from_bytes(dk).ok()?;
    let shared = provider.kem_decapsulate(&secret, &array(ciphertext)?).unwrap();
    Some(shared.as_bytes().to_vec())
}

fn accepts(provider: &dyn PqProvider, ek: &Value) -> bool {
    let Some(ek) = array(ek) else { return false };
    match provider.kem_encapsulate(&ek) {
        Ok(_) => true,
        Err(PqError::EncapsulationKey) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn mlkem_acvp_key_generation() {
    let mut ran = 0;
    for test in acvp("mlkem1024_keygen.json") {
        let seed = [hex(&test["d"]), hex(&test["z"])].concat();
        let (dk, ek) = expand(seed.try_into().unwrap());
        assert_eq!((&dk, &ek), (&hex(&test["dk"]), &hex(&test["ek"])), "{}", test["tcId"]);
        for a in providers() {
            let (ciphertext, shared) = a.kem_encapsulate(&array(&test["ek"]).unwrap()).unwrap();
            for b in providers() {
                let secret = KemSecret::from_bytes(&dk).unwrap();
                let back = b.kem_decapsulate(&secret, &ciphertext).unwrap();
                assert_eq!(back.as_bytes(), shared.as_bytes(), "{}", test["tcId"]);
                ran += 1;
            }
        }
    }
    assert_eq!(ran, 4 * 25);
}

#[test]
fn mlkem_acvp_functions() {
    let (mut keys_used, mut decapsulated, mut dk_checked, mut ek_checked) = (0, 0, 0, 0);
    for test in acvp("mlkem1024_encapdecap.json") {
        let id = &test["tcId"];
        for provider in providers() {
            match test["function"].as_str().unwrap() {
                "encapsulation" => {
                    assert!(accepts(provider, &test["ek"]), "{provider:?} {id}");
                    keys_used += 1;
                }
                "decapsulation" => {
                    let shared = decapsulates(provider, &hex(&test["dk"]), &test["c"]);
                    assert_eq!(shared, Some(hex(&test["k"])), "{provider:?} {id}");
                    decapsulated += 1;
                }
                "decapsulationKeyCheck" => {
                    let accepted = KemSecret::from_bytes(&hex(&test["dk"])).is_ok();
                    assert_eq!(accepted, test["testPassed"].as_bool().unwrap(), "{id}");
                    dk_checked += 1;
                }
                "encapsulationKeyCheck" => {
                    let accepted = accepts(provider, &test["ek"]);
                    assert_eq!(accepted, test["testPassed"].as_bool().unwrap(), "{provider:?} {id}");
                    ek_checked += 1;
                }
                other => panic!("unknown function {other}"),
            }
        }
    }
    assert_eq!((keys_used, decapsulated, dk_checked, ek_checked), (2 * 25, 2 * 10, 2 * 10, 2 * 10));
}

#[test]
fn mlkem_wycheproof_decapsulation_from_seeds() {
    let (mut ran, mut wrong_seeds) = (0, 0);
    for (_, test) in wycheproof("mlkem_1024.json") {
        let Some(seed) = array(&test["seed"]) else {
            assert!(!is_valid(&test), "{}", test["tcId"]);
            wrong_seeds += 1;
            continue;
        };
        let (dk, ek) = expand(seed);
        for provider in providers() {
            let shared = decapsulates(provider, &dk, &test["c"]);
            assert_eq!(shared, is_valid(&test).then(|| hex(&test["K"])), "{provider:?} {}", test["tcId"]);
            ran += 1;
        }
        if test.get("ek").is_some() {
            assert_eq!(ek, hex(&test["ek"]), "{}", test["tcId"]);
        }
    }
    assert_eq!((ran, wrong_seeds), (2 * 113, 20));
}

#[test]
fn mlkem_wycheproof_encapsulation_keys() {
    let (mut accepted, mut refused) = (0, 0);
    for (_, test) in wycheproof("mlkem_1024_encaps.json") {
        for provider in providers() {
            assert_eq!(accepts(provider, &test["ek"]), is_valid(&test), "{provider:?} {}", test["tcId"]);
            if is_valid(&test) { accepted += 1 } else { refused += 1 }
        }
    }
    assert_eq!((accepted, refused), (2 * 73, 2 * 76));
}

#[test]
fn mlkem_wycheproof_expanded_keys() {
    let mut ran = 0;
    for (_, test) in wycheproof("mlkem_1024_semi_expanded_decaps.json") {
        for provider in providers() {
            let shared = decapsulates(provider, &hex(&test["dk"]), &test["c"]);
            assert_eq!(shared, is_valid(&test).then(|| hex(&test["K"])), "{provider:?} {}", test["tcId"]);
            ran += 1;
        }
    }
    assert_eq!(ran, 2 * 9);
}

#[test]
fn chacha20_poly1305_wycheproof() {
    let (mut ran, mut wrong_nonces) = (0, 0);
    for (_, test) in wycheproof("chacha20_poly1305.json") {
        let id = &test["tcId"];
        let Some(nonce) = array(&test["iv"]) else {
            // A nonce is an array of 12 bytes: another length cannot be passed on.
            assert!(!is_valid(&test), "{id}");
            wrong_nonces += 1;
            continue;
        };
        let (ad, message, ciphertext) = (hex(&test["aad"]), hex(&test["msg"]), hex(&test["ct"]));
        let tag = hex(&test["tag"]);
        for kind in AeadKind::ALL {
            let key = kind.key(&array(&test["key"]).unwrap());
            let mut sealed = [ciphertext.as_slice(), &tag].concat();
            let opened = key.open_in_place(&nonce, &ad, &mut sealed);
            assert_eq!(opened.is_ok(), is_valid(&test), "{kind} {id}");
            if let Ok(plaintext) = opened {
                assert_eq!(plaintext, message, "{kind} {id}");
                let mut buffer = message.clone();
                assert_eq!(key.seal_in_place(&nonce, &ad, &mut buffer).as_slice(), tag, "{kind} {id}");
                assert_eq!(buffer, ciphertext, "{kind} {id}");
            }
            ran += 1;
        }
    }
    assert_eq!((ran, wrong_nonces), (2 * 316, 9));
}

#[test]
fn x25519_wycheproof() {
    let (mut agreed, mut refused) = (0, 0);
    for (_, test) in wycheproof("x25519.json") {
        let secret = EphemeralSecret::from_bytes(&array(&test["private"]).unwrap());
        let result = secret.agree(&array(&test["public"]).unwrap());
        let expected = hex(&test["shared"]);
        if expected == [0; 32] {
            assert_eq!(result, Err(ZeroSharedSecret), "{}", test["tcId"]);
            refused += 1;
        } else {
            assert_eq!(result.unwrap().as_slice(), expected, "{}", test["tcId"]);
            agreed += 1;
        }
    }
    assert_eq!((agreed, refused), (158, 31));
}

#[test]
fn hkdf_sha512_wycheproof() {
    let (mut ran, mut refused) = (0, 0);
    for (_, test) in wycheproof("hkdf_sha512.json") {
        let length = usize::try_from(test["size"].as_u64().unwrap()).unwrap();
        let mut okm = vec![0; length];
        let prk = kdf::extract(&hex(&test["salt"]), &[&hex(&test["ikm"])]);
        let result = prk.expand_into(&hex(&test["info"]), &mut okm);
        assert_eq!(result.is_ok(), is_valid(&test), "{}", test["tcId"]);
        if is_valid(&test) {
            assert_eq!(okm, hex(&test["okm"]), "{}", test["tcId"]);
            ran += 1;
        } else {
            refused += 1;
        }
    }
    assert_eq!((ran, refused), (33, 3));
}
