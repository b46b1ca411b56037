//! Datagrams of somebody who knows the protocol and no secret of the network.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::SockaddrStorage;
use serde_json::{Value, json};

use crate::batch::{BATCH, Sender};
use crate::pattern::Pattern;

/// Sends `count` datagrams as fast as the sockets take them; reports how many went and what came back.
pub(crate) fn run(to: SocketAddr, count: u64, seed: u64) -> Result<Value> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sockets: Vec<UdpSocket> = (0..SOCKETS)
        .map(|_| {
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("cannot bind")?;
            socket.set_read_timeout(Some(Duration::from_millis(1)))?;
            Ok(socket)
        })
        .collect::<Result<_>>()?;
    let target = SockaddrStorage::from(to);
    let mut made = Maker::new(seed);
    let mut sender = Sender::new();
    let mut buffers = vec![Vec::new(); BATCH];
    let mut kinds: BTreeMap<&'static str, u64> = BTreeMap::new();
    let start = Instant::now();
    let mut left = count;
    for socket in sockets.iter().cycle() {
        let now = buffers.len().min(usize::try_from(left).unwrap_or(BATCH));
        if now == 0 {
            break;
        }
        for buffer in buffers.iter_mut().take(now) {
            *kinds.entry(made.datagram(buffer)).or_default() += 1;
        }
        let messages: Vec<_> = buffers
            .iter()
            .take(now)
            .map(|buffer| (target, [IoSlice::new(buffer), IoSlice::new(&[])]))
            .collect();
        sender.send(socket, &messages)?;
        left -= u64::try_from(now)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (replies, reply_bytes) = replies(&sockets)?;
    Ok(json!({
        "sent": sender.sent, "sent_bytes": sender.bytes, "refused": sender.refused, "kinds": kinds,
        "replies": replies, "reply_bytes": reply_bytes, "seconds": seconds,
    }))
}

/// What waits in the sockets, and what still comes within [`PATIENCE`].
fn replies(sockets: &[UdpSocket]) -> Result<(u64, u64)> {
    let (mut replies, mut bytes) = (0, 0);
    let mut buffer = vec![0; 65_536];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for socket in sockets {
            while let Ok(length) = socket.recv(&mut buffer) {
                replies += 1;
                bytes += u64::try_from(length)?;
            }
        }
    }
    Ok((replies, bytes))
}

/// Makes datagrams from a seed.
struct Maker(Pattern);

impl Maker {
    fn new(seed: u64) -> Self {
        Self(Pattern::new(seed))
    }

    /// Replaces the content of a buffer by the next datagram; returns its kind.
    fn datagram(&mut self, buffer: &mut Vec<u8>) -> &'static str {
        let kind = KINDS[self.below(KINDS.len())];
        match kind {
            "noise" => {
                let length = 1 + self.below(1452);
                self.random(buffer, length);
            }
            "handshake" => self.handshake(buffer),
            "fragment" => self.fragment(buffer),
            "frame" => {
                let length = FRAME_OVERHEAD + self.below(1420);
                self.frame(buffer, length);
            }
            "stun" => self.stun(buffer),
            "truncated" => {
                self.valid_looking(buffer);
                buffer.truncate(self.below(buffer.len() + 1));
            }
            "oversize" => {
                self.valid_looking(buffer);
                let length = buffer.len() + 1 + self.below(OVERSIZE - buffer.len());
                buffer.resize(length, 0);
            }
            _ => self.foreign(buffer),
        }
        kind
    }

    fn valid_looking(&mut self, buffer: &mut Vec<u8>) {
        match self.below(4) {
            0 => self.handshake(buffer),
            1 => self.fragment(buffer),
            2 => self.frame(buffer, FRAME_OVERHEAD + 1300),
            _ => self.stun(buffer),
        }
    }

    /// Every first byte from 0x90 to 0x9f, at the length that belongs to it, with random macs.
    fn handshake(&mut self, buffer: &mut Vec<u8>) {
        let kind = 0x90 + self.byte() % 16;
        let length = match kind {
            0x90 => HELLO_LEN,
            0x91 => CHALLENGE_LEN,
            0x92 | 0x93 => 7000 + self.below(2000),
            0x95 => COOKIE_LEN,
            _ => 1 + self.below(1452),
        };
        self.random(buffer, length);
        // Version 1, no flags, suite 1 in front of what a mac covers.
        let start = [kind, 1, 0, 0, 1, 0];
        let shared = start.len().min(length);
        buffer[..shared].copy_from_slice(&start[..shared]);
    }

    /// Parts of every message with counts and lengths that fit, and acknowledgements.
    fn fragment(&mut self, buffer: &mut Vec<u8>) {
        let (count, of, last) = match self.below(5) {
            0 | 1 => (2, 0x90, 548),
            2 => (2, 0x91, 532),
            3 => (7, 0x92 + self.byte() % 2, 33 + self.below(1168)),
            _ => (0, 0x9f, 40),
        };
        let index = if count == 0 { 0xff } else { self.byte() % count };
        let length = if count == 0 || index + 1 == count { last } else { 1200 };
        self.random(buffer, length);
        buffer[..4].copy_from_slice(&[0x96, index, count, of]);
    }

    /// A sealed frame on the first lanes with a small counter, for a random receiver.
    fn frame(&mut self, buffer: &mut Vec<u8>, length: usize) {
        self.random(buffer, length);
        let lane = self.byte() % 3;
        buffer[..3].copy_from_slice(&[0x94, lane, 0]);
        buffer[9..15].fill(0);
    }

    /// A binding request (RFC 8489) with a random transaction.
    fn stun(&mut self, buffer: &mut Vec<u8>) {
        self.random(buffer, 20);
        buffer[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    }

    /// What other programs send to open ports: DNS, QUIC, WireGuard, TLS, HTTP.
    fn foreign(&mut self, buffer: &mut Vec<u8>) {
        let (length, start): (usize, &[u8]) = match self.below(5) {
            0 => (40, &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
            1 => (1200, &[0xc3, 0, 0, 0, 1, 8]),
            2 => (148, &[1, 0, 0, 0]),
            3 => (517, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
            _ => (80, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        self.random(buffer, length);
        buffer[..start.len()].copy_from_slice(start);
    }

    fn random(&mut self, buffer: &mut Vec<u8>, length: usize) {
        buffer.resize(length, 0);
        self.0.fill(buffer);
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn byte(&mut self) -> u8 {
        // The upper bytes of the generator are the better ones.
        self.number().to_le_bytes()[6]
    }

    fn below(&mut self, bound: usize) -> usize {
        let number = usize::try_from(self.number() >> 20).unwrap_or(0);
        number.checked_rem(bound).unwrap_or(0)
    }
}

/// Each as often as the others.
const KINDS: [&str; 8] =
    ["noise", "handshake", "fragment", "frame", "stun", "truncated", "oversize", "foreign"];

/// As many senders; small enough to look through for replies.
const SOCKETS: usize = 16;

/// How long late replies are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest datagram that is made; longer ones cost the sender more than the receiver.
const OVERSIZE: usize = 12_000;

const HELLO_LEN: usize = 1684;
const CHALLENGE_LEN: usize = 1668;
const COOKIE_LEN: usize = 64;
/// Header, type and tag of a sealed frame.
const FRAME_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mesh_wire::{frame, handshake};

    use super::*;

    #[test]
    fn lengths_are_those_of_the_protocol() {
        assert_eq!((HELLO_LEN, CHALLENGE_LEN), (handshake::HELLO_LEN, handshake::CHALLENGE_LEN));
        assert_eq!(FRAME_OVERHEAD, frame::OVERHEAD);
    }

    #[test]
    fn every_kind_and_every_first_byte_occurs_and_a_seed_repeats() {
        let (mut made, mut again) = (Maker::new(5), Maker::new(5));
        let (mut buffer, mut second) = (Vec::new(), Vec::new());
        let (mut kinds, mut firsts, mut lengths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for _ in 0..20_000 {
            let kind = made.datagram(&mut buffer);
            assert_eq!((kind, &buffer), (again.datagram(&mut second), &second));
            assert!(buffer.len() <= OVERSIZE);
            kinds.insert(kind);
            if kind == "handshake" {
                firsts.insert(buffer[0]);
            }
            lengths.insert(buffer.len());
        }
        assert_eq!(kinds.len(), KINDS.len());
        assert_eq!(firsts, (0x90..=0x9f).collect());
        assert!(lengths.contains(&HELLO_LEN) && lengths.contains(&1200) && lengths.contains(&548));
        assert!(lengths.contains(&0));
    }
}
