//! A connectivity check of ICE (RFC 8445, section 7) and its answer, as far as one may look before it is authenticated:
//! whom it names, what it answers, and which of its bytes the MESSAGE-INTEGRITY covers.

use std::net::SocketAddr;

use super::{Attributes, MESSAGE, OPTIONAL, TransactionId, XOR_MAPPED_ADDRESS, read_address};
use crate::codec::WireError;

/// A check, an answer to one, or a refusal. Nothing in it is true before [`Check::signed`] was compared with
/// [`Check::integrity`] under the right password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check<'a> {
    /// What kind of message it is.
    pub class: CheckClass<'a>,
    /// Pairs an answer with its request.
    pub transaction: TransactionId,
    /// The value of MESSAGE-INTEGRITY: HMAC-SHA-1 (RFC 8489, section 14.5).
    pub integrity: &'a [u8; 20],
    datagram: &'a [u8],
    /// Where MESSAGE-INTEGRITY begins.
    covered: usize,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckClass<'a> {
    /// A binding request with `USERNAME = receiver:sender`.
    Request {
        /// The receiver's fragment.
        receiver: &'a str,
        /// The sender's fragment.
        sender: &'a str,
    },
    /// A binding success, and where the request was seen to come from.
    Success(SocketAddr),
    /// A binding error, as 487 (role conflict).
    Failure,
}

impl<'a> Check<'a> {
    /// Reads a whole datagram.
    ///
    /// What an agent of ICE does not say is refused, also where the RFC lets a reader skip it: the library behind need not
    /// be trusted with it. Attributes behind MESSAGE-INTEGRITY are ignored as section 14.5 demands, but FINGERPRINT, which
    /// has to be there (RFC 8445, section 7.1).
    ///
    /// # Errors
    /// [`WireError`] when it is anything else, or is malformed, fails its FINGERPRINT or has none.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        let kind =
            datagram.first_chunk().map(|kind| u16::from_be_bytes(*kind)).ok_or(WireError::Truncated)?;
        if ![REQUEST, SUCCESS, FAILURE].contains(&kind) {
            return Err(WireError::Invalid("STUN header"));
        }
        let mut attributes = Attributes::open(datagram, kind)?;
        let (mut username, mut mapped, mut priority, mut integrity) = (None, None, false, None);
        loop {
            let at = datagram.len() - attributes.rest.remaining();
            let Some((attribute, value)) = attributes.next()? else { break };
            if integrity.is_some() {
                continue;
            }
            let fresh = match attribute {
                USERNAME => username.replace(value).is_none(),
                XOR_MAPPED_ADDRESS => mapped.replace(read_address(value, &attributes.transaction)?).is_none(),
                PRIORITY => !std::mem::replace(&mut priority, value.len() == 4),
                MESSAGE_INTEGRITY => {
                    let value = value.try_into().map_err(|_| WireError::Invalid("STUN integrity"))?;
                    integrity.replace((at, value)).is_none()
                }
                USE_CANDIDATE | ERROR_CODE => true,
                // Without MESSAGE-INTEGRITY before it.
                super::FINGERPRINT => return Err(WireError::Invalid("STUN integrity")),
                _ => attribute >= OPTIONAL && !REFUSED.contains(&attribute),
            };
            if !fresh {
                return Err(WireError::Invalid("STUN attribute"));
            }
        }
        let (covered, integrity) = integrity.ok_or(WireError::Invalid("STUN integrity"))?;
        if !attributes.fingerprint {
            return Err(WireError::Invalid("STUN fingerprint"));
        }
        let class = match kind {
            REQUEST if priority => names(username)?,
            SUCCESS => CheckClass::Success(mapped.ok_or(WireError::Invalid("STUN address"))?),
            FAILURE => CheckClass::Failure,
            _ => return Err(WireError::Invalid("STUN attribute")),
        };
        Ok(Self { class, transaction: attributes.transaction, integrity, datagram, covered })
    }

    /// Returns what the MESSAGE-INTEGRITY is computed over: the message before it, with a length as if it ended with it.
    #[must_use]
    pub fn signed(&self) -> ([u8; 4], &'a [u8]) {
        let length =
            u16::try_from(self.covered - super::HEADER + INTEGRITY).expect("a datagram of 548 bytes");
        let [high, low] = length.to_be_bytes();
        ([self.datagram[0], self.datagram[1], high, low], &self.datagram[4..self.covered])
    }
}

fn names(username: Option<&[u8]>) -> Result<CheckClass<'_>, WireError> {
    let text = username.and_then(|name| std::str::from_utf8(name).ok());
    let (receiver, sender) =
        text.and_then(|name| name.split_once(':')).ok_or(WireError::Invalid("STUN user name"))?;
    Ok(CheckClass::Request { receiver, sender })
}

const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const FAILURE: u16 = 0x0111;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
/// ALTERNATE-SERVER: no agent sends another one elsewhere. NETWORK-COST: none of ours says it.
const REFUSED: [u16; 2] = [0x8023, 0xc057];
/// Bytes of the attribute with its header.
const INTEGRITY: usize = 24;
const _: () = assert!(MESSAGE < 1 << 16);

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 5769, section 2.1: user name, priority, ICE-CONTROLLED, SOFTWARE, MESSAGE-INTEGRITY, FINGERPRINT.
    const SAMPLE: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    #[test]
    fn request_of_the_rfc_is_read() {
        let check = Check::parse(SAMPLE).unwrap();
        assert_eq!(check.class, CheckClass::Request { receiver: "evtj", sender: "h6vY" });
        assert_eq!((check.integrity[0], check.transaction[0]), (0x9a, 0xb7));
        let (start, rest) = check.signed();
        assert_eq!(start, [0, 1, 0, 0x50], "a length that ends with MESSAGE-INTEGRITY");
        assert_eq!(rest.len() + 4 + 24, SAMPLE.len() - 8);
    }

    #[test]
    fn any_other_bytes_are_refused() {
        for length in 0..SAMPLE.len() {
            assert!(Check::parse(&SAMPLE[..length]).is_err(), "{length}");
        }
        for at in 0..SAMPLE.len() {
            let mut wrong = SAMPLE.to_vec();
            wrong[at] ^= 1;
            assert!(Check::parse(&wrong).is_err(), "the fingerprint covers byte {at}");
        }
    }

    #[test]
    fn messages_without_their_attributes_are_refused() {
        let sealed = |attributes: &[u8]| super::super::encode(REQUEST, [7; 12], attributes, true);
        let name: &[u8] = b"\x00\x06\x00\x03a:b\0";
        let priority: &[u8] = &[0, 0x24, 0, 4, 1, 2, 3, 4];
        let integrity = [&[0, 8, 0, 20][..], &[9; 20]].concat();
        let whole = [name, priority, &integrity].concat();
        assert!(Check::parse(&sealed(&whole)).is_ok());
        for wrong in [
            [name, &integrity].concat(),
            [priority, &integrity].concat(),
            [name, priority].concat(),
            [name, name, priority, &integrity].concat(),
            [priority, b"\x00\x06\x00\x03abc\0", &integrity].concat(),
            // MAPPED-ADDRESS, ALTERNATE-SERVER, NETWORK-COST.
            [&[0, 1, 0, 0], name, priority, &integrity].concat(),
            [&[0x80, 0x23, 0, 0], name, priority, &integrity].concat(),
            [&[0xc0, 0x57, 0, 0], name, priority, &integrity].concat(),
        ] {
            assert!(Check::parse(&sealed(&wrong)).is_err(), "{wrong:?}");
        }
        let ignored = [&whole[..], &[0, 1, 0, 0]].concat();
        assert!(Check::parse(&sealed(&ignored)).is_ok(), "what follows the integrity is ignored");
        assert!(Check::parse(&super::super::encode(REQUEST, [7; 12], &whole, false)).is_err());
    }
}
