//! STUN answers that are lies: of a server, and of somebody who claims to be one.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_wire::stun::{BindingRequest, BindingSuccess};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, socket};
use serde_json::{Value, json};

use crate::announce_ready;
use crate::batch::Sender;
use crate::flood::{header, ipv4};
use crate::pattern::Pattern;

/// Answers every request with the same address, for so many seconds, and reports how many it answered.
pub(crate) fn serve(bind: SocketAddr, say: SocketAddr, seconds: f64) -> Result<Value> {
    let socket = UdpSocket::bind(bind).context("cannot bind")?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    announce_ready();
    let (start, mut answered) = (Instant::now(), 0_u64);
    let mut buffer = [0; 2048];
    while start.elapsed().as_secs_f64() < seconds {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Ok(request) = BindingRequest::parse(&buffer[..length]) {
            let answer = answer(request.transaction, say, request.fingerprint);
            socket.send_to(&answer, from)?;
            answered += 1;
        }
    }
    Ok(json!({ "answered": answered }))
}

/// Sends answers that nobody asked for, in the name of a server, with transactions by chance.
pub(crate) fn forge(
    (from, to): (SocketAddr, SocketAddr),
    say: SocketAddr,
    rate: u64,
    seconds: f64,
) -> Result<Value> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
        .context("cannot make a raw socket")?;
    let (from, to) = (ipv4(from)?, ipv4(to)?);
    let (mut sender, mut chance) = (Sender::new(), Pattern::new(rate));
    announce_ready();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let mut random = [0; 16];
        chance.fill(&mut random);
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&random[..12]);
        let bytes = answer(transaction, say, false);
        let head = header(from, to, bytes.len())?;
        sender.send(&raw, &[(SockaddrIn::from(to), [IoSlice::new(&head), IoSlice::new(&bytes)])])?;
        let due = Duration::from_secs_f64(sender.sent as f64 / rate as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(json!({ "sent": sender.sent, "refused": sender.refused }))
}

fn answer(transaction: [u8; 12], mapped: SocketAddr, fingerprint: bool) -> Vec<u8> {
    BindingSuccess { transaction, mapped, fingerprint, origin: None, other: None }.encode()
}
