//! Seals what is said on a local network, under a key of the network's members that changes every hour.
//!
//! ```text
//! key    = Expand(Extract(salt = net id, ikm = network secret || hour u64), "mesh/1 lan")     hour = unix time / 3600
//! sealed = nonce 24 | XChaCha20-Poly1305(key, nonce, content, ad = name of the announcement)
//! ```

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use mesh_session::kdf;
use mesh_wire::NetId;
use mesh_wire::lan::{CONTENT, InstanceName, NONCE, SEALED};
use zeroize::Zeroizing;

/// Seals and opens announcements.
pub struct LanSeal {
    net: NetId,
    secret: Zeroizing<[u8; 32]>,
    /// That of this hour, then those of the hour before and after, for members whose clocks are wrong.
    ciphers: Option<(u64, Box<[XChaCha20Poly1305; 3]>)>,
}

impl LanSeal {
    /// Makes one for a network.
    #[must_use]
    pub fn new(net: NetId, secret: Zeroizing<[u8; 32]>) -> Self {
        Self { net, secret, ciphers: None }
    }

    /// Seals a content; none where the library fails, which it does not for this length.
    pub fn seal(
        &mut self,
        unix: u64,
        name: &InstanceName,
        nonce: [u8; NONCE],
        content: &[u8; CONTENT],
    ) -> Option<[u8; SEALED]> {
        let payload = Payload { msg: content, aad: name };
        let sealed = self.ciphers(unix)[0].encrypt(&XNonce::from(nonce), payload).ok()?;
        [&nonce[..], &sealed].concat().try_into().ok()
    }

    /// Opens what a member sealed within this hour or the ones beside it.
    pub fn open(&mut self, unix: u64, name: &InstanceName, sealed: &[u8; SEALED]) -> Option<[u8; CONTENT]> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let nonce = XNonce::from(*nonce);
        let open = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(&nonce, Payload { msg: sealed, aad: name }).ok()?.try_into().ok()
        };
        self.ciphers(unix).iter().find_map(open)
    }

    fn ciphers(&mut self, unix: u64) -> &[XChaCha20Poly1305; 3] {
        let hour = unix / HOUR;
        if self.ciphers.as_ref().is_none_or(|(of, _)| *of != hour) {
            self.ciphers = None;
        }
        let (net, secret) = (&self.net, &self.secret);
        let make = |hour: u64| {
            let key = kdf::extract(&net.0, &[&secret[..], &hour.to_le_bytes()]).expand::<32>("mesh/1 lan");
            XChaCha20Poly1305::new((&*key).into())
        };
        let ciphers = || Box::new([hour, hour.saturating_sub(1), hour.saturating_add(1)].map(make));
        &self.ciphers.get_or_insert_with(|| (hour, ciphers())).1
    }
}

impl std::fmt::Debug for LanSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanSeal").field("net", &self.net).finish_non_exhaustive()
    }
}

/// Seconds of a key: what a stranger recorded is worth nothing two hours later.
const HOUR: u64 = 3600;

#[cfg(test)]
mod tests {
    use mesh_wire::lan::NAME;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn of(net: u8, secret: u8) -> LanSeal {
        LanSeal::new(NetId([net; 32]), Zeroizing::new([secret; 32]))
    }

    #[test]
    fn members_open_and_others_do_not() {
        let name = [b'a'; NAME];
        let sealed = of(1, 2).seal(NOW, &name, [3; NONCE], &[4; CONTENT]).unwrap();
        assert_eq!(of(1, 2).open(NOW, &name, &sealed), Some([4; CONTENT]));
        assert_eq!(of(1, 3).open(NOW, &name, &sealed), None);
        assert_eq!(of(2, 2).open(NOW, &name, &sealed), None);
        assert_eq!(of(1, 2).open(NOW, &[b'b'; NAME], &sealed), None);
        for at in 0..SEALED {
            let mut changed = sealed;
            changed[at] ^= 1;
            assert_eq!(of(1, 2).open(NOW, &name, &changed), None, "byte {at}");
        }
    }

    #[test]
    fn key_counts_for_an_hour_and_those_beside_it() {
        let name = [b'a'; NAME];
        let sealed = of(1, 2).seal(NOW, &name, [3; NONCE], &[4; CONTENT]).unwrap();
        let mut seal = of(1, 2);
        for (hours, opens) in [(0, true), (1, true), (2, false), (1, true)] {
            assert_eq!(seal.open(NOW + hours * HOUR, &name, &sealed).is_some(), opens, "{hours}");
            assert_eq!(seal.open(NOW - hours * HOUR, &name, &sealed).is_some(), opens, "-{hours}");
        }
    }

    #[test]
    fn sealed_content_has_these_bytes() {
        let name = *b"0123456789abcdef0123456789abcdef";
        let sealed = of(1, 2).seal(NOW, &name, [3; NONCE], &[4; CONTENT]).unwrap();
        let digest = kdf::sha512(&[&sealed]);
        assert_eq!(data_encoding::HEXLOWER.encode(&digest[..16]), "d17aee08b06557a63e7e331340071494");
    }
}
