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
    race(found.collect(), resolve(io::Error::from(io::ErrorKind::NotFound))).await
}

/// Connects to the first of these addresses that answers; see [`dial`].
///
/// # Errors
/// [`DialError::Connect`] when none answers.
pub(crate) async fn dial_addresses(first: SocketAddr, others: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let addresses = [&[first], others].concat();
    let source = io::Error::from(io::ErrorKind::NotConnected);
    race(addresses, DialError::Connect { address: first, source }).await
}

/// Connects to the first address that answers; the error is that of the last one, or the one that is given without any.
async fn race(addresses: Vec<SocketAddr>, mut last_error: DialError) -> Result<TcpStream, DialError> {
    let mut addresses = interleave(addresses).into_iter();
    let mut attempts = JoinSet::new();
    loop {
        let waiting = match addresses.next() {
            Some(address) => {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
                addresses.len() > 0
            }
            None => false,
        };
        tokio::select! {
            biased;
            attempt = attempts.join_next() => match attempt {
                Some(Ok((_, Ok(stream)))) => return Ok(stream),
                Some(Ok((address, Err(source)))) => last_error = DialError::Connect { address, source },
                Some(Err(_)) => {}
                None => return Err(last_error),
            },
            () = sleep(HEAD_START), if waiting => {}
        }
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
