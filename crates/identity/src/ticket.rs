//! Tickets: what a new node needs to find a network and to be let in, as one line of text.
//!
//! The text is [`PREFIX`] and base64url (RFC 4648, section 5, no padding) of body and
//! checksum. The checksum catches a mistyped or edited ticket before anything is sent; what keeps a stranger out is
//! the key derived from the seed.

use std::fmt;

use aws_lc_rs::{hkdf, rand};
use data_encoding::BASE64URL_NOPAD;
use mesh_wire::ticket::{CHECKSUM, MAX_LEN, PREFIX, TicketBody};
use mesh_wire::{NetId, Pin, RelayUrl, WireError};
use zeroize::Zeroizing;

use crate::UnixSeconds;
use crate::hash::sha512;

/// An invitation to a network. Its secret is wiped on drop and never printed.
pub struct Ticket {
    net: NetId,
    pin: Pin,
    relay: RelayUrl,
    secret: TicketSecret,
    expires: u32,
}

impl Ticket {
    /// Makes a ticket that ends at `expires`, at the latest in the year 2106.
    #[must_use]
    pub fn new(net: NetId, relay: RelayUrl, pin: Pin, secret: TicketSecret, expires: UnixSeconds) -> Self {
        Self { net, pin, relay, secret, expires: u32::try_from(expires.0).unwrap_or(u32::MAX) }
    }

    /// Reads a ticket from text. Space and line breaks, as a mail program adds them, are skipped.
    ///
    /// # Errors
    /// [`TicketError`] says whether it is no ticket, a damaged one or one of a newer program.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let mut compact = Zeroizing::new(String::with_capacity(text.len()));
        compact.extend(text.chars().filter(|c| !c.is_ascii_whitespace()));
        let encoded = compact.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        if encoded.len() > BASE64URL_NOPAD.encode_len(MAX_LEN) {
            return Err(TicketError::NotATicket);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TicketError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TicketError::Damaged)?;
        if checksum(body) != *sum {
            return Err(TicketError::Damaged);
        }
        let body = TicketBody::parse(body).map_err(|error| match error {
            WireError::Version(version) => TicketError::UnknownVersion(version),
            WireError::Truncated | WireError::Trailing | WireError::TooLong(_) | WireError::Invalid(_) => {
                TicketError::Invalid(error)
            }
        })?;
        let TicketBody { net, pin, seed, expires, relay } = body;
        Ok(Self { net, pin, relay, secret: TicketSecret(seed), expires })
    }

    /// Returns the text form, about 160 characters. It is a secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = TicketBody {
            net: self.net,
            pin: self.pin,
            seed: self.secret.0.clone(),
            expires: self.expires,
            relay: self.relay.clone(),
        }
        .encode();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut text =
            Zeroizing::new(String::with_capacity(PREFIX.len() + BASE64URL_NOPAD.encode_len(bytes.len())));
        text.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }

    /// Refuses a ticket that has ended.
    ///
    /// # Errors
    /// [`TicketError::Expired`].
    pub fn check_expiry(&self, now: UnixSeconds) -> Result<(), TicketError> {
        if now < self.expires() { Ok(()) } else { Err(TicketError::Expired) }
    }

    /// Returns the network that the ticket invites to.
    #[must_use]
    pub const fn net(&self) -> NetId {
        self.net
    }

    /// Returns the relay at which the network's mailbox is reachable.
    #[must_use]
    pub const fn relay(&self) -> &RelayUrl {
        &self.relay
    }

    /// Returns the pin of the relay's certificate.
    #[must_use]
    pub const fn pin(&self) -> Pin {
        self.pin
    }

    /// Returns when the ticket ends.
    #[must_use]
    pub fn expires(&self) -> UnixSeconds {
        UnixSeconds(u64::from(self.expires))
    }

    /// Returns the id by which the coordinator finds the invitation; it is sent in the clear.
    #[must_use]
    pub fn invite_id(&self) -> [u8; 16] {
        self.secret.invite_id(self.net)
    }

    /// Returns the key that both sides mix into the handshake of the enrolment.
    #[must_use]
    pub fn psk(&self) -> Zeroizing<[u8; 32]> {
        self.secret.psk(self.net)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("net", &self.net)
            .field("relay", &self.relay)
            .field("secret", &self.secret)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The 16-byte seed of a ticket, wiped on drop and never printed.
///
/// Id and key follow from it by HKDF-SHA-512 (RFC 5869) with the network id as salt and the infos
/// `"mesh/1 ticket id"` and `"mesh/1 ticket psk"`.
pub struct TicketSecret(Box<Zeroizing<[u8; 16]>>);

impl TicketSecret {
    /// Makes a fresh secret.
    ///
    /// # Errors
    /// [`TicketError::Randomness`] when the system has no random bytes.
    pub fn generate() -> Result<Self, TicketError> {
        let mut seed = Box::new(Zeroizing::new([0; 16]));
        rand::fill(seed.as_mut_slice()).map_err(|_| TicketError::Randomness)?;
        Ok(Self(seed))
    }

    /// Takes a secret that was kept.
    #[must_use]
    pub fn from_seed(seed: &[u8; 16]) -> Self {
        let mut own = Box::new(Zeroizing::new([0; 16]));
        own.copy_from_slice(seed);
        Self(own)
    }

    /// Returns the seed, for keeping the invitation.
    #[must_use]
    pub fn seed(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns the id by which the coordinator finds the invitation; it is sent in the clear.
    #[must_use]
    pub fn invite_id(&self, net: NetId) -> [u8; 16] {
        *self.derive(net, b"mesh/1 ticket id")
    }

    /// Returns the key that both sides mix into the handshake of the enrolment.
    #[must_use]
    pub fn psk(&self, net: NetId) -> Zeroizing<[u8; 32]> {
        self.derive(net, b"mesh/1 ticket psk")
    }

    fn derive<const N: usize>(&self, net: NetId, info: &[u8]) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0; N]);
        hkdf::Salt::new(hkdf::HKDF_SHA512, &net.0)
            .extract(self.0.as_slice())
            .expand(&[info], Length(N))
            .and_then(|okm| okm.fill(out.as_mut_slice()))
            .expect("HKDF-SHA-512 gives up to 16,320 bytes");
        out
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A ticket cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The text does not begin as a ticket does, or is far too long for one.
    #[error("this is not a ticket; a ticket begins with \"{PREFIX}\"")]
    NotATicket,
    /// The checksum is wrong: a character is missing, added or changed.
    #[error("the ticket is damaged; copy the whole line again")]
    Damaged,
    /// A newer program made it.
    #[error("the ticket has version {0}, which this program does not know; update it")]
    UnknownVersion(u8),
    /// The checksum is right and the content is not.
    #[error("the ticket has a wrong content; ask for a new one")]
    Invalid(#[source] WireError),
    /// Its time is over.
    #[error("the ticket has expired; ask for a new one, or check the clock of this machine")]
    Expired,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Randomness,
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    *sha512(&[b"mesh/1 ticket", body]).first_chunk().expect("64 bytes begin with 4 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        let relay = "wss://relay.example:8443".parse().unwrap();
        let secret = TicketSecret::from_seed(&[3; 16]);
        Ticket::new(NetId([1; 32]), relay, Pin([2; 32]), secret, UnixSeconds(1_800_000_000))
    }

    #[test]
    fn text_is_read_back() {
        let text = ticket().to_text();
        assert!((140..=165).contains(&text.len()), "{} characters", text.len());
        let (start, end) = text.split_at(70);
        for text in [text.as_str(), &format!("  {start}\r\n {end}\n")] {
            let back = Ticket::parse(text).unwrap();
            assert_eq!(*back.to_text(), *ticket().to_text());
            assert_eq!(back.psk(), ticket().psk());
        }
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        let text = ticket().to_text();
        for at in 0..text.len() {
            let mut bad = text.as_bytes().to_vec();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            let expected = if at < PREFIX.len() { TicketError::NotATicket } else { TicketError::Damaged };
            assert_eq!(Ticket::parse(&bad).unwrap_err(), expected);
            assert!(Ticket::parse(&text[..at]).is_err());
        }
        assert_eq!(Ticket::parse(&format!("{}A", *text)).unwrap_err(), TicketError::Damaged);
        assert_eq!(Ticket::parse("hello").unwrap_err(), TicketError::NotATicket);
        let long = format!("{PREFIX}{}", "A".repeat(10_000));
        assert_eq!(Ticket::parse(&long).unwrap_err(), TicketError::NotATicket);
    }

    #[test]
    fn other_version_and_wrong_content_have_their_own_errors() {
        let with_sum = |mut body: Vec<u8>| {
            let sum = checksum(&body);
            body.extend_from_slice(&sum);
            format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&body))
        };
        assert_eq!(Ticket::parse(&with_sum(vec![9, 1, 2])).unwrap_err(), TicketError::UnknownVersion(9));
        assert!(matches!(Ticket::parse(&with_sum(vec![1; 40])).unwrap_err(), TicketError::Invalid(_)));
    }

    #[test]
    fn expiry_is_exclusive() {
        assert_eq!(ticket().check_expiry(UnixSeconds(1_799_999_999)), Ok(()));
        assert_eq!(ticket().check_expiry(UnixSeconds(1_800_000_000)), Err(TicketError::Expired));
    }

    #[test]
    fn derivations_are_fixed_and_depend_on_the_network() {
        let secret = TicketSecret::from_seed(&[3; 16]);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&secret.invite_id(NetId([1; 32]))),
            "5f1e4dd2a64cbc90e378925d952e7fe8"
        );
        assert_eq!(
            data_encoding::HEXLOWER.encode(secret.psk(NetId([1; 32])).as_slice()),
            "aed2321e46e15505f32b28ef70e5a804e826fe0fddf6e26cdf683bac2bf71b68"
        );
        assert_ne!(secret.invite_id(NetId([1; 32])), secret.invite_id(NetId([4; 32])));
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", ticket());
        assert!(text.contains("[redacted]") && !text.contains("3, 3"));
    }
}
