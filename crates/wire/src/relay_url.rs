//! Where a relay listens, as people write it: `wss://host[:port]`, optionally with `#PIN`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Pin;
use crate::limits::RELAY_URL;

/// Address of a relay: a host name or IP address and a TCP port.
///
/// Host names are kept in lower case and addresses in their shortest form, so equal relays compare equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayUrl {
    host: String,
    port: u16,
}

impl RelayUrl {
    /// Makes an address from a host (name, IPv4 or IPv6 address without brackets) and a port.
    ///
    /// # Errors
    /// [`RelayUrlError`] when the host is none or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, RelayUrlError> {
        if port == 0 {
            return Err(RelayUrlError::Port);
        }
        Ok(Self { host: canonical_host(host)?, port })
    }

    /// Reads `wss://host[:port]` with an optional `#PIN` behind it.
    ///
    /// # Errors
    /// [`RelayUrlError`] says which part is wrong.
    pub fn parse_with_pin(text: &str) -> Result<(Self, Option<Pin>), RelayUrlError> {
        match text.split_once('#') {
            None => Ok((text.parse()?, None)),
            Some((url, pin)) => Ok((url.parse()?, Some(pin.parse().map_err(|_| RelayUrlError::Pin)?))),
        }
    }

    /// Reads the form that messages carry: `host[:port]` without a scheme, exactly as [`RelayUrl::authority`] writes it.
    ///
    /// # Errors
    /// [`RelayUrlError`] when it is anything else, another spelling of the same relay included.
    pub fn from_authority(text: &str) -> Result<Self, RelayUrlError> {
        let url = parse_authority(text)?;
        if url.authority() == text { Ok(url) } else { Err(RelayUrlError::Host) }
    }

    /// Returns `host[:port]`: IPv6 in brackets, the port left out when it is 443.
    #[must_use]
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        match self.port {
            DEFAULT_PORT => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }

    /// Returns the host name or IP address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns `wss://host[:port]#PIN`.
    #[must_use]
    pub fn with_pin(&self, pin: &Pin) -> String {
        format!("{self}#{pin}")
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.authority())
    }
}

impl FromStr for RelayUrl {
    type Err = RelayUrlError;

    fn from_str(text: &str) -> Result<Self, RelayUrlError> {
        parse_authority(text.strip_prefix(SCHEME).ok_or(RelayUrlError::Scheme)?)
    }
}

/// The text is not the address of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayUrlError {
    /// It does not begin with `wss://`.
    #[error("a relay address begins with \"wss://\", as in wss://relay.example:8443")]
    Scheme,
    /// It is longer than [`RELAY_URL`] bytes.
    #[error("the relay address is longer than {RELAY_URL} characters")]
    TooLong,
    /// It holds a user name, a path or a query.
    #[error("a relay address is wss://HOST[:PORT] only, without user name, path or query")]
    Extra,
    /// The host is neither a host name nor an IP address.
    #[error("the host in the relay address is neither a name nor an IP address (IPv6 stands in brackets)")]
    Host,
    /// The port is not a number between 1 and 65535.
    #[error("the port in the relay address is not a number from 1 to 65535")]
    Port,
    /// What follows `#` is not a pin.
    #[error("the pin behind \"#\" is not 52 characters of base32; copy it from the relay's start message")]
    Pin,
}

fn parse_authority(text: &str) -> Result<RelayUrl, RelayUrlError> {
    if text.len() > RELAY_URL - SCHEME.len() {
        return Err(RelayUrlError::TooLong);
    }
    if text.contains(['/', '?', '#', '@', '\\']) {
        return Err(RelayUrlError::Extra);
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(RelayUrlError::Host)?;
            let host = host.parse::<Ipv6Addr>().map_err(|_| RelayUrlError::Host)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or(RelayUrlError::Port)?),
            };
            (host.to_string(), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (name_or_ipv4(host)?, Some(port)),
            None => (name_or_ipv4(text)?, None),
        },
    };
    let port = port.map_or(Ok(DEFAULT_PORT), parse_port)?;
    Ok(RelayUrl { host, port })
}

fn parse_port(text: &str) -> Result<u16, RelayUrlError> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        Ok(_) | Err(_) => Err(RelayUrlError::Port),
    }
}

fn canonical_host(host: &str) -> Result<String, RelayUrlError> {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => name_or_ipv4(host),
    }
}

/// A name whose last label is a number would be read as an IPv4 address by some resolvers: it must be one.
fn name_or_ipv4(host: &str) -> Result<String, RelayUrlError> {
    let labels_are_good = host.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    // A port of five digits and a colon must still fit into the limit.
    if !labels_are_good || host.len() > RELAY_URL - SCHEME.len() - 6 {
        return Err(RelayUrlError::Host);
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().map(|a| a.to_string()).map_err(|_| RelayUrlError::Host);
    }
    Ok(host.to_ascii_lowercase())
}

const SCHEME: &str = "wss://";
/// The port of HTTPS, through which most networks let traffic pass.
const DEFAULT_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_are_read_and_written_back() {
        for (text, host, port, back) in [
            ("wss://relay.example", "relay.example", 443, "wss://relay.example"),
            ("wss://Relay.Example:443", "relay.example", 443, "wss://relay.example"),
            ("wss://10.0.0.1:8443", "10.0.0.1", 8443, "wss://10.0.0.1:8443"),
            ("wss://[2001:DB8:0::1]:1", "2001:db8::1", 1, "wss://[2001:db8::1]:1"),
            ("wss://[::1]", "::1", 443, "wss://[::1]"),
        ] {
            let url: RelayUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port()), (host, port));
            assert_eq!(url.to_string(), back);
            assert_eq!(back.parse(), Ok(url.clone()));
            assert_eq!(RelayUrl::from_authority(&url.authority()), Ok(url.clone()));
            assert_eq!(RelayUrl::new(host, port), Ok(url));
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_their_reason() {
        use RelayUrlError::{Extra, Host, Port, Scheme, TooLong};
        for (text, error) in [
            ("relay.example", Scheme),
            ("ws://relay.example", Scheme),
            ("wss://", Host),
            ("wss://relay..example", Host),
            ("wss://-relay.example", Host),
            ("wss://relay.example.", Host),
            ("wss://10.0.0.256", Host),
            ("wss://1.2.3", Host),
            ("wss://[::1", Host),
            ("wss://[relay]", Host),
            ("wss://[fe80::1%eth0]", Host),
            ("wss://::1", Host),
            ("wss://relay.example:", Port),
            ("wss://relay.example:0", Port),
            ("wss://relay.example:+1", Port),
            ("wss://relay.example:65536", Port),
            ("wss://[::1]8443", Port),
            ("wss://relay.example/", Extra),
            ("wss://user@relay.example", Extra),
            ("wss://relay.example?x", Extra),
        ] {
            assert_eq!(text.parse::<RelayUrl>(), Err(error), "{text}");
        }
        let long = format!("wss://{}", "a.".repeat(100));
        assert_eq!(long.parse::<RelayUrl>(), Err(TooLong));
        assert_eq!(RelayUrl::new("relay.example", 0), Err(Port));
        assert_eq!(RelayUrl::from_authority("Relay.example"), Err(Host));
        assert_eq!(RelayUrl::from_authority("relay.example:443"), Err(Host));
    }

    #[test]
    fn pin_is_optional_and_checked() {
        let pin = Pin([7; 32]);
        let url: RelayUrl = "wss://relay.example:8443".parse().unwrap();
        assert_eq!(RelayUrl::parse_with_pin(&url.with_pin(&pin)), Ok((url.clone(), Some(pin))));
        assert_eq!(RelayUrl::parse_with_pin("wss://relay.example:8443"), Ok((url, None)));
        assert_eq!(RelayUrl::parse_with_pin("wss://relay.example#"), Err(RelayUrlError::Pin));
        assert_eq!(RelayUrl::parse_with_pin("wss://relay.example#abc"), Err(RelayUrlError::Pin));
    }
}
