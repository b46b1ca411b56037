//! Cookies: a responder under load asks an initiator to prove that it receives where it sends from.
//!
//! ```text
//! cookie  HMAC16(the responder's secret, source)      valid 120 to 240 seconds
//! COOKIE  XChaCha20-Poly1305 under Expand(Extract(salt = psk, ikm = id_R), "mesh/1 cookie", 32), ad = mac1 of the HELLO
//! mac2    HMAC16(cookie, HELLO up to mac2)
//! ```
//! No state is kept per initiator. Randomness and time are arguments.

use std::fmt;
use std::time::{Duration, Instant};

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use mesh_wire::NodeId;
use mesh_wire::cookie::{Cookie, NONCE, SEALED, Source, VALUE};
use mesh_wire::handshake::{HELLO_BODY, HELLO_LEN, Hello};

use super::{HandshakeError, Network};
use crate::kdf;
use crate::secret::Secret;

/// How long a secret makes cookies, as in WireGuard; for as long again it is still recognised.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// What a responder needs to make and recognise cookies.
pub struct CookieJar {
    sealer: Box<XChaCha20Poly1305>,
    current: Secret<32>,
    previous: Option<Secret<32>>,
    made: Instant,
}

impl CookieJar {
    /// Starts for HELLOs that are addressed to `own`, with 32 random bytes as the first secret.
    #[must_use]
    pub fn new(network: &Network, own: NodeId, now: Instant, random: &[u8; 32]) -> Self {
        Self {
            sealer: Box::new(sealer(network, own)),
            current: Secret::copy(random),
            previous: None,
            made: now,
        }
    }

    /// Returns when the secret has to be replaced.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.made + COOKIE_LIFETIME
    }

    /// Replaces the secret by 32 random bytes. The one before is recognised until the next time.
    pub fn rotate(&mut self, now: Instant, random: &[u8; 32]) {
        let old = std::mem::replace(&mut self.current, Secret::copy(random));
        // Called late, it would stretch the life of cookies made long ago.
        let late = now.saturating_duration_since(self.made) >= 2 * COOKIE_LIFETIME;
        self.previous = (!late).then_some(old);
        self.made = now;
    }

    /// Returns the COOKIE that answers a HELLO from `source`, whose mac1 was checked before; `nonce` is random.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] when it is no HELLO.
    pub fn make_reply(
        &self,
        hello: &[u8],
        source: &Source,
        nonce: &[u8; NONCE],
    ) -> Result<Vec<u8>, HandshakeError> {
        let receiver = Hello::parse(hello)?.sender;
        let mut sealed = [0; SEALED];
        let (value, tag) = sealed.split_at_mut(VALUE);
        value.copy_from_slice(&cookie(&self.current, source));
        let made = self
            .sealer
            .encrypt_inout_detached(&XNonce::from(*nonce), mac1(hello), (&mut *value).into())
            .map_err(|_| HandshakeError::Library)?;
        tag.copy_from_slice(&made);
        Ok(Cookie { receiver, nonce: *nonce, sealed }.encode())
    }

    /// Tells whether the mac2 of a HELLO was made with a cookie for `source`.
    #[must_use]
    pub fn checks(&self, hello: &[u8], source: &Source) -> bool {
        if hello.len() != HELLO_LEN {
            return false;
        }
        let (covered, mac2) = hello.split_at(HELLO_LEN - VALUE);
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().any(|secret| {
            let expected = kdf::hmac_sha512_16(&cookie(secret, source), &[covered]);
            kdf::constant_time_eq(&expected, mac2)
        })
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieJar([redacted])")
    }
}

impl Network {
    /// Opens the COOKIE that answers `hello`, which was sent to `responder`.
    ///
    /// # Errors
    /// [`HandshakeError`]; [`HandshakeError::Box`] when it does not answer this HELLO.
    pub fn open_cookie(
        &self,
        message: &[u8],
        hello: &[u8],
        responder: NodeId,
    ) -> Result<[u8; VALUE], HandshakeError> {
        let parsed = Cookie::parse(message)?;
        if parsed.receiver != Hello::parse(hello)?.sender {
            return Err(HandshakeError::Index);
        }
        let (value, tag) = parsed.sealed.split_at(VALUE);
        let mut value: [u8; VALUE] = value.try_into().expect("a cookie is 16 bytes");
        let tag = Tag::try_from(tag).expect("a tag is 16 bytes");
        sealer(self, responder)
            .decrypt_inout_detached(
                &XNonce::from(parsed.nonce),
                mac1(hello),
                value.as_mut_slice().into(),
                &tag,
            )
            .map_err(|_| HandshakeError::Box)?;
        Ok(value)
    }
}

/// Returns a HELLO that shows a cookie: the same bytes with mac2 set. The handshake's state stays the one of `hello`.
///
/// # Errors
/// [`HandshakeError::Malformed`] when it is no HELLO.
pub fn with_cookie(hello: &[u8], cookie: &[u8; VALUE]) -> Result<Vec<u8>, HandshakeError> {
    Hello::parse(hello)?;
    let mut message = hello.to_vec();
    let (covered, mac2) = message.split_at_mut(HELLO_LEN - VALUE);
    mac2.copy_from_slice(&kdf::hmac_sha512_16(cookie, &[covered]));
    Ok(message)
}

fn mac1(hello: &[u8]) -> &[u8] {
    &hello[HELLO_BODY..HELLO_BODY + 16]
}

fn sealer(network: &Network, responder: NodeId) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&*network.key::<32>(responder, "mesh/1 cookie")).into())
}

fn cookie(secret: &Secret<32>, source: &Source) -> [u8; VALUE] {
    kdf::hmac_sha512_16(secret.as_slice(), &[&source.encode()])
}

#[cfg(test)]
mod tests;
