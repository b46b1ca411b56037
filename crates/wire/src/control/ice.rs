//! Credentials of ICE agents, which find paths beside or before the challenges (RFC 8445, section 5.3).

use std::fmt;

use zeroize::Zeroizing;

use crate::codec::{Put, Reader, WireError};

/// Longest user name fragment in bytes, with 4 as the shortest; the RFC permits 256, libraries fewer.
pub const FRAGMENT: usize = 32;
/// Longest password in bytes, with 22 as the shortest.
pub const PASSWORD: usize = 64;
const SHORTEST_FRAGMENT: usize = 4;
const SHORTEST_PASSWORD: usize = 22;

/// Under what an agent is asked, and by what it knows that its peer asks.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// The user name fragment, 4 to [`FRAGMENT`] characters of ICE: letters, digits, `+` and `/`.
    pub fragment: String,
    /// The password, 22 to [`PASSWORD`] of the same.
    pub password: Zeroizing<String>,
}

/// Tells the credentials of an agent that was made for the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceOffer {
    /// Those of the sender's agent.
    pub credentials: IceCredentials,
    /// The fragment in the offer that this one answers; none asks for an answer.
    pub answers: Option<String>,
}

impl IceOffer {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_bytes8(self.credentials.fragment.as_bytes());
        out.put_bytes8(self.credentials.password.as_bytes());
        out.put_bytes8(self.answers.as_deref().unwrap_or_default().as_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let fragment = read(reader, SHORTEST_FRAGMENT, FRAGMENT)?.to_owned();
        let password = Zeroizing::new(read(reader, SHORTEST_PASSWORD, PASSWORD)?.to_owned());
        let answers = Some(read(reader, 0, FRAGMENT)?).filter(|answers| !answers.is_empty());
        if answers.is_some_and(|answers| answers.len() < SHORTEST_FRAGMENT) {
            return Err(WireError::Invalid("ICE credentials"));
        }
        let answers = answers.map(str::to_owned);
        Ok(Self { credentials: IceCredentials { fragment, password }, answers })
    }
}

fn read<'a>(reader: &mut Reader<'a>, shortest: usize, longest: usize) -> Result<&'a str, WireError> {
    let text = reader.text8(longest, "ICE credentials")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if text.len() < shortest || !text.bytes().all(allowed) {
        return Err(WireError::Invalid("ICE credentials"));
    }
    Ok(text)
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("fragment", &self.fragment).finish_non_exhaustive()
    }
}
