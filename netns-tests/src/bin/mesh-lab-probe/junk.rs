//! What a stranger might send: noise, and bytes that begin like the protocol's own frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::pattern::Pattern;

/// Sends datagrams of many lengths and first bytes; reports how many bytes went and came.
pub(crate) fn udp(to: SocketAddr, count: u32) -> Result<Value> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    let (mut sent, mut replies, mut reply_bytes) = (0_u64, 0_u64, 0_u64);
    let mut buffer = [0; 2048];
    let mut take = || {
        while let Ok(length) = socket.recv(&mut buffer) {
            replies += 1;
            reply_bytes += u64::try_from(length).unwrap_or(u64::MAX);
        }
    };
    for number in 0..count {
        let bytes = junk(number);
        if socket.send(&bytes).is_ok() {
            sent += u64::try_from(bytes.len())?;
        }
        take();
    }
    // Late answers count as well.
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut late = [0; 2048];
    while let Ok(length) = socket.recv(&mut late) {
        replies += 1;
        reply_bytes += u64::try_from(length)?;
    }
    Ok(json!({ "sent_bytes": sent, "replies": replies, "reply_bytes": reply_bytes }))
}

/// Opens connections and reports how many the other side closed, and how many it still held open after [`PATIENCE`].
pub(crate) fn tcp(to: SocketAddr, count: u32) -> Result<Value> {
    let mut open = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).context("cannot connect")?;
        // The other side may close at once; that is one of the right answers.
        let _ = stream.write_all(&junk(number));
        open.push(stream);
    }
    let (mut closed, mut waiting) = (0_u64, 0_u64);
    let mut buffer = [0; 2048];
    let deadline = Instant::now() + PATIENCE;
    for stream in &mut open {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match stream.read(&mut buffer) {
                Ok(0) => closed += 1,
                Ok(_) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => waiting += 1,
                Err(_) => closed += 1,
            }
            break;
        }
    }
    Ok(json!({ "connections": count, "closed": closed, "waiting": waiting }))
}

/// The message with this number: cycles through kinds and lengths.
fn junk(number: u32) -> Vec<u8> {
    let length = LENGTHS[usize::try_from(number).unwrap_or(0) % LENGTHS.len()];
    let mut bytes = vec![0; length];
    Pattern::new(u64::from(number)).fill(&mut bytes);
    let start: &[u8] = match number % 8 {
        // Handshake and data frames.
        0 => &[0x90, 1, 0, 0],
        1 => &[0x91, 1, 0, 0],
        2 => &[0x94, 0, 0, 1],
        3 => &[0x96, 0, 0, 0],
        // A STUN answer and an indication with the magic cookie: neither may be answered (RFC 8489).
        4 => &[0x01, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42],
        5 => &[0x00, 0x11, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42],
        // A TLS record with a client hello, and a plain HTTP request.
        6 => &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
        _ => b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
    };
    let shared = start.len().min(bytes.len());
    bytes[..shared].copy_from_slice(&start[..shared]);
    bytes
}

/// Longer than the ten seconds that a relay gives a client to authenticate.
const PATIENCE: Duration = Duration::from_secs(15);

const LENGTHS: [usize; 7] = [1, 20, 64, 512, 1200, 1452, 1684];
