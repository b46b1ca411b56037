//! Captured parts of HELLOs, sent again from addresses that are not ours.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::Recording;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, socket};
use serde_json::{Value, json};

use crate::announce_ready;
use crate::batch::{BATCH, Sender};

/// What to send, where to, for how long.
#[derive(Debug)]
pub(crate) struct Flood<'path> {
    pub(crate) to: SocketAddrV4,
    pub(crate) sources: Sources,
    pub(crate) from_pcap: &'path Path,
    /// Digits: which parts each source sends, in this order.
    pub(crate) order: &'path str,
    pub(crate) seconds: f64,
    /// Datagrams per second; as fast as the kernel takes them unless given.
    pub(crate) rate: Option<u64>,
    /// How many sources; no end but that of the time unless given.
    pub(crate) count: Option<u64>,
}

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    base: u32,
    size: u32,
}

impl FromStr for Sources {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, length) = text.split_once('/').context("write ADDRESS/LENGTH")?;
        let (base, length) = (u32::from(address.parse::<Ipv4Addr>()?), length.parse::<u32>()?);
        ensure!((1..=32).contains(&length), "the length is 1 to 32");
        let size = 1_u32 << (32 - length);
        ensure!(base % size == 0, "{address} is not the first address of the block");
        Ok(Self { base, size })
    }
}

impl Sources {
    /// A different address and port for every number, scattered over the block; they repeat after 60,000 rounds.
    fn nth(self, number: u64) -> SocketAddrV4 {
        let size = u64::from(self.size);
        // An odd factor reaches each address of the block once per round.
        let place = (number % size).wrapping_mul(2_654_435_761) % size;
        let address = u64::from(self.base) + place;
        let port = 1024 + (number / size).wrapping_mul(7919) % 60_000;
        SocketAddrV4::new(
            Ipv4Addr::from(u32::try_from(address).unwrap_or(self.base)),
            u16::try_from(port).unwrap_or(1024),
        )
    }
}

impl Flood<'_> {
    /// Sends and reports.
    pub(crate) fn run(&self) -> Result<Value> {
        let messages = hellos(&Recording::read(self.from_pcap)?)?;
        let parts = self.parts(&messages)?;
        let per_source = self.order.len();
        ensure!(per_source <= BATCH, "an order has at most {BATCH} parts");
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
            .context("cannot make a raw socket")?;
        let target = SockaddrIn::from(self.to);
        let mut sender = Sender::new();
        let mut heads = [[0; HEAD]; BATCH];
        let mut number = 0_u64;
        announce_ready();
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < self.seconds && self.count.is_none_or(|count| number < count) {
            let mut chosen = Vec::with_capacity(BATCH);
            while chosen.len() + per_source <= BATCH && self.count.is_none_or(|count| number < count) {
                let source = self.sources.nth(number);
                let message = &parts[usize::try_from(number % u64::try_from(parts.len())?)?];
                chosen.extend(message.iter().map(|part| (source, *part)));
                number += 1;
            }
            for (head, (source, part)) in heads.iter_mut().zip(&chosen) {
                *head = header(*source, self.to, part.len())?;
            }
            let batch: Vec<_> = heads
                .iter()
                .zip(&chosen)
                .map(|(head, (_, part))| (target, [IoSlice::new(head), IoSlice::new(part)]))
                .collect();
            sender.send(&raw, &batch)?;
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(sender.sent as f64 / rate as f64);
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
        Ok(json!({
            "sent": sender.sent, "refused": sender.refused, "sources": number, "messages": messages.len(),
            "bytes": sender.bytes - sender.sent * u64::try_from(HEAD)?, "seconds": start.elapsed().as_secs_f64(),
        }))
    }

    /// The parts of each message in the order in which a source sends them.
    fn parts<'bytes>(&self, messages: &'bytes [Vec<Vec<u8>>]) -> Result<Vec<Vec<&'bytes [u8]>>> {
        let pick = |message: &'bytes Vec<Vec<u8>>, digit: char| {
            let place = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok());
            let part = place.and_then(|place| message.get(place));
            part.map(Vec::as_slice).with_context(|| format!("a message has no part {digit}"))
        };
        messages
            .iter()
            .map(|message| self.order.chars().map(|digit| pick(message, digit)).collect())
            .collect()
    }
}

/// The parts of each whole HELLO in a recording, by their place.
fn hellos(recording: &Recording) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut found: BTreeMap<Vec<u8>, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
    for datagram in &recording.datagrams {
        let bytes = &datagram.payload;
        if bytes.first() == Some(&0x96) && bytes.get(3) == Some(&0x90) && bytes.len() > 16 {
            found.entry(bytes[4..16].to_vec()).or_default().insert(bytes[1], bytes.clone());
        }
    }
    let whole: Vec<Vec<Vec<u8>>> = found
        .into_values()
        .filter(|parts| parts.values().next().is_some_and(|part| usize::from(part[2]) == parts.len()))
        .map(|parts| parts.into_values().collect())
        .collect();
    if whole.is_empty() {
        bail!("no whole HELLO in {}", recording.file().display());
    }
    Ok(whole)
}

/// The headers of IPv4 and UDP. The kernel fills in length, id and checksum of the first; that of UDP may be left out.
pub(crate) fn header(from: SocketAddrV4, to: SocketAddrV4, payload: usize) -> Result<[u8; HEAD]> {
    let mut head = [0; HEAD];
    (head[0], head[6], head[8], head[9]) = (0x45, 0x40, 64, 17);
    head[2..4].copy_from_slice(&u16::try_from(HEAD + payload)?.to_be_bytes());
    head[12..16].copy_from_slice(&from.ip().octets());
    head[16..20].copy_from_slice(&to.ip().octets());
    head[20..22].copy_from_slice(&from.port().to_be_bytes());
    head[22..24].copy_from_slice(&to.port().to_be_bytes());
    head[24..26].copy_from_slice(&u16::try_from(8 + payload)?.to_be_bytes());
    Ok(head)
}

/// The target of [`Flood`]; there are no spoofed sources on IPv6 in the laboratory.
pub(crate) fn ipv4(to: SocketAddr) -> Result<SocketAddrV4> {
    let SocketAddr::V4(to) = to else { bail!("{to} is no IPv4 address") };
    Ok(to)
}

/// Bytes of both headers.
const HEAD: usize = 28;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lab::Datagram;

    use super::*;

    #[test]
    fn sources_do_not_repeat_and_stay_in_the_block() {
        let sources: Sources = "198.18.0.0/22".parse().unwrap();
        let seen: BTreeSet<_> = (0..50_000).map(|number| sources.nth(number)).collect();
        assert_eq!(seen.len(), 50_000);
        assert!(seen.iter().all(|source| source.ip().octets()[..2] == [198, 18] && source.port() >= 1024));
        assert!(seen.iter().all(|source| source.ip().octets()[2] < 4));
        assert!("198.18.0.1/15".parse::<Sources>().is_err());
    }

    #[test]
    fn only_whole_hellos_are_taken() {
        let part = |index: u8, of: u8, id: u8| {
            let mut bytes = vec![0x96, index, 2, of, 1, 2, 3, 4];
            bytes.extend([id; 40]);
            let address = "192.0.2.1:1".parse().unwrap();
            Datagram { from: address, to: address, len: bytes.len(), payload: bytes }
        };
        let mut recording = Recording::default();
        recording.datagrams =
            vec![part(1, 0x90, 1), part(0, 0x90, 2), part(0, 0x91, 3), part(1, 0x91, 3), part(0, 0x90, 1)];
        let found = hellos(&recording).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0][0][1], found[0][1][1]), (0, 1));
        recording.datagrams.truncate(4);
        assert!(hellos(&recording).is_err());
    }
}
