//! Name resolution and TCP connect that race IPv6 and IPv4.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Why no TCP connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address, or the resolver does not answer.
    #[error("the name \"{host}\" could not be resolved")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    /// The last of the addresses that were tried.
    #[error("no connection to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Connects to the first address of `host` that answers; each further one is tried after [`HEAD_START`] or a failure.
///
/// # Errors
/// [`DialError`] when none answers.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let resolve = |source| DialError::Resolve { host: host.to_owned(), source };
    let found = lookup_host((host, port)).await.map_err(resolve)?;
    let mut race = Race::new(interleave(found.collect()), resolve(io::Error::from(io::ErrorKind::NotFound)));
    race.next().await.ok_or_else(|| race.into_error())
}

/// Connections to several addresses, as they come about: each further one is tried after [`HEAD_START`], a failure, or when
/// what came about was not it.
pub(crate) struct Race {
    addresses: std::vec::IntoIter<SocketAddr>,
    attempts: JoinSet<(SocketAddr, io::Result<TcpStream>)>,
    last_error: DialError,
}

impl Race {
    /// Begins one to these addresses, in this order.
    pub(crate) fn to(first: SocketAddr, others: &[SocketAddr]) -> Self {
        let source = io::Error::from(io::ErrorKind::NotConnected);
        let mut addresses = [&[first], others].concat();
        addresses.truncate(MAX_ADDRESSES);
        Self::new(addresses, DialError::Connect { address: first, source })
    }

    fn new(addresses: Vec<SocketAddr>, last_error: DialError) -> Self {
        Self { addresses: addresses.into_iter(), attempts: JoinSet::new(), last_error }
    }

    /// Waits for the next connection; none when no further address answers. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<TcpStream> {
        loop {
            let waiting = match self.addresses.next() {
                Some(address) => {
                    self.attempts.spawn(async move { (address, TcpStream::connect(address).await) });
                    self.addresses.len() > 0
                }
                None => false,
            };
            tokio::select! {
                biased;
                attempt = self.attempts.join_next() => match attempt {
                    Some(Ok((_, Ok(stream)))) => return Some(stream),
                    Some(Ok((address, Err(source)))) => self.last_error = DialError::Connect { address, source },
                    Some(Err(_)) => {}
                    None => return None,
                },
                () = sleep(HEAD_START), if waiting => {}
            }
        }
    }

    /// Says why the last address did not answer.
    pub(crate) fn into_error(self) -> DialError {
        self.last_error
    }
}

/// Orders the addresses IPv6, IPv4, IPv6, …, each family in the order of the resolver.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let mut out = Vec::with_capacity(v6.len() + v4.len());
    for index in 0..v6.len().max(v4.len()) {
        out.extend(v6.get(index));
        out.extend(v4.get(index));
    }
    out.truncate(MAX_ADDRESSES);
    out
}

/// How long one address has the race for itself (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// More addresses than any relay has; bounds the sockets that a bad resolver can make us open.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn families_take_turns_with_ipv6_first() {
        let addresses = |text: &[&str]| text.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let sorted = interleave(addresses(&["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"]));
        assert_eq!(sorted, addresses(&["[::1]:1", "1.1.1.1:1", "2.2.2.2:1"]));
    }

    #[tokio::test]
    async fn a_refused_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(dial("127.0.0.1", port).await.is_ok());
        drop(listener);
        let error = dial("127.0.0.1", port).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { address, ref source }
            if address.port() == port && source.kind() == io::ErrorKind::ConnectionRefused));
    }
}
