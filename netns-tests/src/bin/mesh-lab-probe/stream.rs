//! A TCP stream whose every byte is known to both ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::announce_ready;
use crate::pattern::Pattern;

/// Sends `bytes` bytes, waits for the other end to have read them, and reports the time.
pub(crate) fn send(to: SocketAddr, bytes: u64, rate: Option<u64>) -> Result<Value> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("cannot connect")?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut pattern = Pattern::new(SEED);
    // In small pieces where there is a rate, so that no queue on the way is filled by one of them.
    let chunk = if rate.is_some() { PACED } else { CHUNK };
    let mut buffer = vec![0; chunk];
    let mut left = bytes;
    while left > 0 {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64((bytes - left) as f64 / rate as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let length = usize::try_from(left).unwrap_or(chunk).min(chunk);
        pattern.fill(&mut buffer[..length]);
        stream.write_all(&buffer[..length]).context("the stream broke")?;
        left -= u64::try_from(length)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("no end from the other side")?;
    Ok(json!({ "sent": bytes, "seconds": start.elapsed().as_secs_f64() }))
}

/// Receives one stream and reports its length and whether every byte was right.
pub(crate) fn receive(bind: SocketAddr) -> Result<Value> {
    let listener = TcpListener::bind(bind).context("cannot bind")?;
    announce_ready();
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut pattern = Pattern::new(SEED);
    let (mut got, mut want) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut received, mut intact) = (0_u64, true);
    loop {
        // Whole chunks, so that the pattern advances by multiples of eight.
        let mut length = 0;
        while length < CHUNK {
            match stream.read(&mut got[length..]).context("the stream broke")? {
                0 => break,
                more => length += more,
            }
        }
        pattern.fill(&mut want[..length]);
        intact &= got[..length] == want[..length];
        received += u64::try_from(length)?;
        if length < CHUNK {
            break;
        }
    }
    Ok(json!({ "received": received, "intact": intact }))
}

const CHUNK: usize = 256 * 1024;
const PACED: usize = 8 * 1024;
const SEED: u64 = 500;

/// A stream that stands still for this long is broken.
const PATIENCE: Duration = Duration::from_secs(30);
