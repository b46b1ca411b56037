//! ML-DSA-87 and Ed25519 against the vectors of NIST and Wycheproof.
//!
//! Each test counts what it ran, so that a test that runs nothing fails. What no implementation can run here:
//! - signing to a known signature: both sign with fresh randomness. Known signatures are verified, keys are compared;
//! - the "internal" and "external mu" interfaces (30 of the ACVP verifications, 17 of the Wycheproof signatures), which
//!   neither library offers; the ACVP signing set is internal throughout and therefore not kept here;
//! - context strings on AWS-LC, whose Rust interface has none. PQClean has them, so they run there, below the trait.

use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{ED25519, ML_DSA_87_SIGNING, PqdsaKeyPair, UnparsedPublicKey};
use mesh_identity::{AwsLc, MlDsa87, Pqcrypto};
use pqcrypto_mldsa::mldsa87;
use pqcrypto_traits::sign::{DetachedSignature, PublicKey, SecretKey};
use serde_json::Value;

use crate::json::{acvp, array, hex, is_valid, wycheproof};

const IMPLEMENTATIONS: [&dyn MlDsa87; 2] = [&AwsLc, &Pqcrypto];

/// A key or signature of a wrong length has no type, which is how this program refuses it.
fn verifies(implementation: &dyn MlDsa87, public: &Value, message: &[u8], signature: &Value) -> bool {
    let (Some(public), Some(signature)) = (array(public), array(signature)) else { return false };
    implementation.verify(&public, message, &signature).is_ok()
}

/// PQClean's own function with a context string; a longer context than 255 bytes has no encoding (FIPS 204, algorithm 3).
fn verifies_with_context(public: &Value, message: &[u8], context: &[u8], signature: &Value) -> bool {
    let (Ok(public), Some(signature)) =
        (mldsa87::PublicKey::from_bytes(&hex(public)), array::<4627>(signature))
    else {
        return false;
    };
    let signature = mldsa87::DetachedSignature::from_bytes(&signature).unwrap();
    mldsa87::verify_detached_signature_ctx(&signature, message, context, &public).is_ok()
}

#[test]
fn mldsa_acvp_key_generation() {
    let mut ran = 0;
    for test in acvp("mldsa87_keygen.json") {
        let seed = array(&test["seed"]).unwrap();
        for implementation in IMPLEMENTATIONS {
            let signer = implementation.signer(&seed).unwrap();
            assert_eq!(signer.public().as_slice(), hex(&test["pk"]), "{}", test["tcId"]);
            // What one signs with this key, both verify.
            let signature = signer.sign(b"message").unwrap();
            for other in IMPLEMENTATIONS {
                other.verify(&signer.public(), b"message", &signature).unwrap();
            }
            ran += 1;
        }
    }
    assert_eq!(ran, 50);
}

/// PQClean signs with the key that AWS-LC expanded: the expansion must be the encoding of FIPS 204.
#[test]
fn mldsa_acvp_expanded_keys() {
    let mut ran = 0;
    for test in acvp("mldsa87_keygen.json") {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, &hex(&test["seed"])).unwrap();
        let expanded = pair.private_key().as_raw_bytes().unwrap();
        assert_eq!(expanded.as_ref(), hex(&test["sk"]), "{}", test["tcId"]);
        assert!(mldsa87::SecretKey::from_bytes(expanded.as_ref()).is_ok());
        ran += 1;
    }
    assert_eq!(ran, 25);
}

#[test]
fn mldsa_acvp_verification() {
    let (mut without_context, mut with_context, mut not_offered) = (0, 0, 0);
    for test in acvp("mldsa87_sigver.json") {
        if test["signatureInterface"] != "external" {
            not_offered += 1;
            continue;
        }
        let (message, context) = (hex(&test["message"]), hex(&test["context"]));
        let expected = test["testPassed"].as_bool().unwrap();
        assert_eq!(
            verifies_with_context(&test["pk"], &message, &context, &test["signature"]),
            expected,
            "{}",
            test["tcId"]
        );
        with_context += 1;
        if context.is_empty() {
            for implementation in IMPLEMENTATIONS {
                let verified = verifies(implementation, &test["pk"], &message, &test["signature"]);
                assert_eq!(verified, expected, "{implementation:?} {}", test["tcId"]);
                without_context += 1;
            }
        }
    }
    assert_eq!((without_context, with_context, not_offered), (2, 15, 30));
}

#[test]
fn mldsa_wycheproof_verification() {
    let (mut without_context, mut with_context) = (0, 0);
    for (group, test) in wycheproof("mldsa_87_verify.json") {
        let message = hex(&test["msg"]);
        let context = hex(&test["ctx"]);
        assert_eq!(
            verifies_with_context(&group["publicKey"], &message, &context, &test["sig"]),
            is_valid(&test),
            "{}",
            test["tcId"]
        );
        with_context += 1;
        if context.is_empty() {
            for implementation in IMPLEMENTATIONS {
                let verified = verifies(implementation, &group["publicKey"], &message, &test["sig"]);
                assert_eq!(verified, is_valid(&test), "{implementation:?} {}", test["tcId"]);
                without_context += 1;
            }
        }
    }
    assert_eq!((without_context, with_context), (2 * 132, 139));
}

#[test]
fn mldsa_wycheproof_signatures_from_seeds() {
    let (mut without_context, mut with_context, mut wrong_seeds, mut not_offered) = (0, 0, 0, 0);
    for (group, test) in wycheproof("mldsa_87_sign_seed.json") {
        let Some(seed) = array(&group["privateSeed"]) else {
            // A seed is an array of 32 bytes: another length cannot be passed on.
            assert!(!is_valid(&test), "{}", test["tcId"]);
            wrong_seeds += 1;
            continue;
        };
        if test.get("msg").is_none() {
            not_offered += 1;
            continue;
        }
        let (message, context) = (hex(&test["msg"]), hex(&test["ctx"]));
        for implementation in IMPLEMENTATIONS {
            let public = implementation.signer(&seed).unwrap().public();
            assert_eq!(public.as_slice(), hex(&group["publicKey"]), "{}", test["tcId"]);
            if context.is_empty() {
                assert!(verifies(implementation, &group["publicKey"], &message, &test["sig"]));
                without_context += 1;
            }
        }
        assert_eq!(
            verifies_with_context(&group["publicKey"], &message, &context, &test["sig"]),
            is_valid(&test),
            "{}",
            test["tcId"]
        );
        with_context += 1;
    }
    assert_eq!((without_context, with_context, wrong_seeds, not_offered), (2 * 47, 51, 3, 17));
}

/// Runs the function that `PublicIdentity::verify` calls.
#[test]
fn ed25519_wycheproof_verification() {
    let mut ran = 0;
    for (group, test) in wycheproof("ed25519.json") {
        let public = hex(&group["publicKey"]["pk"]);
        let verified =
            UnparsedPublicKey::new(&ED25519, public).verify(&hex(&test["msg"]), &hex(&test["sig"])).is_ok();
        assert_eq!(verified, is_valid(&test), "{}", test["tcId"]);
        ran += 1;
    }
    assert_eq!(ran, 151);
}
