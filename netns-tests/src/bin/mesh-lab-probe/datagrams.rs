//! Datagrams that prove their integrity: `number u64 | length u32 | crc u32 | pattern of the number`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::sockopt::{IpMtu, RcvBufForce};
use nix::sys::socket::{getsockopt, setsockopt};
use serde_json::{Value, json};

use crate::announce_ready;
use crate::pattern::{Pattern, crc32};

/// Sends datagrams and reports how many the socket took.
pub(crate) fn send(
    to: SocketAddr,
    from: Option<SocketAddr>,
    count: u64,
    size: usize,
    rate: Option<u64>,
) -> Result<Value> {
    ensure!(size >= HEADER, "a datagram has at least {HEADER} bytes");
    let any = if to.is_ipv4() { SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)) } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(from.unwrap_or(any)).context("cannot bind")?;
    if to.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    let start = Instant::now();
    let mut refused = 0_u64;
    for number in 0..count {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        if socket.send_to(&datagram(number, size)?, to).is_err() {
            refused += 1;
        }
    }
    Ok(json!({ "sent": count - refused, "refused": refused, "seconds": start.elapsed().as_secs_f64() }))
}

/// Sends datagrams as long as the way carries, as far as the kernel knows, and reports the first length and the last.
///
/// The kernel sets DF in what fits (`IP_PMTUDISC_WANT`, its default), and lowers the length when it is told that a datagram was too
/// big.
pub(crate) fn learn(to: SocketAddr, count: u64, rate: u64) -> Result<Value> {
    ensure!(to.is_ipv4(), "only the length of a way over IPv4 can be asked for");
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot bind")?;
    socket.connect(to)?;
    let start = Instant::now();
    let (mut first, mut last) = (None, 0);
    for number in 0..count {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
        let mtu = usize::try_from(getsockopt(&socket, IpMtu)?)?;
        last = mtu.saturating_sub(IP_AND_UDP).max(HEADER);
        first.get_or_insert(last);
        // The news of one that was too big comes as an error of the next.
        let _ = socket.send(&datagram(number, last)?);
    }
    Ok(json!({ "first": first, "last": last, "seconds": start.elapsed().as_secs_f64() }))
}

/// Receives datagrams and reports how many were intact.
pub(crate) fn receive(bind: SocketAddr, count: Option<u64>, idle_ms: u64, limit_s: u64) -> Result<Value> {
    let socket = UdpSocket::bind(bind).context("cannot bind")?;
    // What the kernel drops here, because this program waits for a processor, is no loss of the tunnel.
    let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
    announce_ready();
    let start = Instant::now();
    let (limit, idle) = (Duration::from_secs(limit_s), Duration::from_millis(idle_ms));
    let mut buffer = vec![0; 65_536];
    let (mut intact, mut corrupt, mut doubled, mut late, mut bytes) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    let mut seen = BTreeSet::new();
    let mut sources = BTreeSet::new();
    while count.is_none_or(|count| intact < count) {
        let left = limit.saturating_sub(start.elapsed());
        let patience = if intact == 0 { left } else { left.min(idle) };
        if patience.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(patience))?;
        let Ok((length, source)) = socket.recv_from(&mut buffer) else { break };
        sources.insert(source.ip().to_string());
        bytes += u64::try_from(length)?;
        match number_of(&buffer[..length]) {
            Some(number) if !seen.contains(&number) => {
                intact += 1;
                late += u64::from(seen.last().is_some_and(|newest| *newest > number));
                seen.insert(number);
            }
            Some(_) => doubled += 1,
            None => corrupt += 1,
        }
    }
    Ok(json!({
        "intact": intact, "corrupt": corrupt, "doubled": doubled, "late": late, "bytes": bytes, "sources": sources,
        "missing": missing(&seen),
    }))
}

/// The first numbers that are missing before the highest one.
fn missing(seen: &BTreeSet<u64>) -> Vec<u64> {
    let end = seen.last().copied().unwrap_or_default();
    (0..end).filter(|number| !seen.contains(number)).take(20).collect()
}

fn datagram(number: u64, size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    Pattern::new(number).fill(&mut bytes[HEADER..]);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(size)?.to_le_bytes());
    let crc = crc32(&bytes[HEADER..]);
    bytes[12..HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// The number of a datagram; nothing when a single bit of it is wrong.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let made = datagram(number, bytes.len().max(HEADER)).ok()?;
    (made == bytes).then_some(number)
}

const HEADER: usize = 16;
/// Bytes of the headers of IPv4 and UDP.
const IP_AND_UDP: usize = 28;
/// Bytes that wait in the receiver's socket, at most; a privileged process may ask for more than the system's limit.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_bit_is_noticed() {
        let mut bytes = datagram(9, 200).unwrap();
        assert_eq!(number_of(&bytes), Some(9));
        bytes[150] ^= 1;
        assert_eq!(number_of(&bytes), None);
        assert_eq!(number_of(&bytes[..100]), None);
    }
}
