//! What passed an interface: `tcpdump` writes it down, this reads it.
//!
//! The kernel filters and counts what it could not keep, so that a recording is either complete or an error.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::host::Host;
use crate::namespace::Lab;
use crate::process::Process;
use crate::wait::wait_until;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Records what passes `interface` of a host in both directions and matches a filter of pcap-filter(7).
    ///
    /// # Errors
    /// `tcpdump` did not start; install it.
    pub fn start(lab: &Lab, host: &Host, interface: &str, filter: &str) -> Result<Self> {
        let serial = lab.serial();
        let file = lab.path(&format!("capture-{serial}.pcap"))?;
        let mut process = host
            .run("tcpdump")
            .args(["-i", interface, "-n", "-U", "--immediate-mode", "-Z", "root", "-B", BUFFER_KIB])
            .args(["-s", SNAP_LEN, "-w", &file.display().to_string(), filter])
            .spawn(&format!("tcpdump-{serial}"))?;
        process.wait_for_log("listening on", Duration::from_secs(10))?;
        Ok(Self { process, file })
    }

    /// Ends the capture once nothing more was written for a while, and reads it.
    ///
    /// # Errors
    /// The kernel dropped something, or the file cannot be read.
    pub fn stop(mut self) -> Result<Recording> {
        let mut last = (0, Instant::now());
        wait_until("the end of what is captured", Duration::from_secs(60), || {
            let size = fs::metadata(&self.file)?.len();
            if size != last.0 {
                last = (size, Instant::now());
            }
            Ok((last.1.elapsed() >= QUIET).then_some(()))
        })?;
        self.process.signal(Signal::SIGINT)?;
        let log = self.process.wait_ok(Duration::from_secs(10))?;
        let count = |what: &str| -> Result<u64> {
            let line = log.lines().find(|line| line.ends_with(what)).with_context(|| log.clone())?;
            Ok(line.split(' ').next().unwrap_or_default().parse()?)
        };
        let dropped = count("dropped by kernel")?;
        // What the kernel has beyond what was written came after the quiet time, with the end itself.
        ensure!(dropped == 0, "the capture is not complete: {}", log.trim_end());
        Recording::read(&self.file)
    }
}

/// What was captured.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Every packet, whatever its protocol.
    pub packets: u64,
    /// Those of them that are UDP, in order. Later fragments of IP count as packets only.
    pub datagrams: Vec<Datagram>,
    file: PathBuf,
}

/// One UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Whom to.
    pub to: SocketAddr,
    /// Bytes of payload by its header. Datagrams that the kernel sends at once (UDP GSO) count as one of their sum.
    pub len: usize,
    /// The payload, or its beginning.
    pub payload: Vec<u8>,
}

/// What went between one address and a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Datagrams to the node.
    pub datagrams_in: u64,
    /// Bytes of their payloads.
    pub bytes_in: u64,
    /// Datagrams from the node.
    pub datagrams_out: u64,
    /// Bytes of their payloads.
    pub bytes_out: u64,
}

impl Recording {
    /// Reads a file of `tcpdump -w` from an Ethernet interface.
    ///
    /// # Errors
    /// It is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut recording = Self { file: path.into(), ..Self::default() };
        let mut rest = bytes.get(24..).with_context(|| format!("{} is no capture", path.display()))?;
        ensure!(bytes.starts_with(&MAGIC), "{} is no capture of this machine", path.display());
        ensure!(bytes.get(20) == Some(&ETHERNET), "{} is no capture of Ethernet", path.display());
        while let Some((header, after)) = rest.split_first_chunk::<16>() {
            let length = usize::try_from(u32_le(header, 8))?;
            let (packet, after) = after.split_at_checked(length).context("the capture ends in a packet")?;
            recording.packets += 1;
            recording.datagrams.extend(datagram(packet));
            rest = after;
        }
        Ok(recording)
    }

    /// Where it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What each remote address exchanged with `node`, without what did not concern `node`.
    pub fn exchanges(&self, node: SocketAddr) -> BTreeMap<SocketAddr, Exchange> {
        let mut remotes: BTreeMap<SocketAddr, Exchange> = BTreeMap::new();
        for datagram in &self.datagrams {
            let len = u64::try_from(datagram.len).unwrap_or(u64::MAX);
            if datagram.to == node {
                let exchange = remotes.entry(datagram.from).or_default();
                exchange.datagrams_in += 1;
                exchange.bytes_in += len;
            } else if datagram.from == node {
                let exchange = remotes.entry(datagram.to).or_default();
                exchange.datagrams_out += 1;
                exchange.bytes_out += len;
            }
        }
        remotes
    }

    /// The first time that each address received more bytes from `node` than it had sent, in the order of the recording.
    pub fn amplified(&self, node: SocketAddr) -> BTreeMap<SocketAddr, Exchange> {
        let mut so_far: BTreeMap<SocketAddr, Exchange> = BTreeMap::new();
        let mut worse = BTreeMap::new();
        for datagram in &self.datagrams {
            let len = u64::try_from(datagram.len).unwrap_or(u64::MAX);
            if datagram.to == node {
                let exchange = so_far.entry(datagram.from).or_default();
                exchange.bytes_in += len;
                exchange.datagrams_in += 1;
            } else if datagram.from == node {
                let exchange = so_far.entry(datagram.to).or_default();
                exchange.bytes_out += len;
                exchange.datagrams_out += 1;
                if exchange.bytes_out > exchange.bytes_in {
                    worse.entry(datagram.to).or_insert(*exchange);
                }
            }
        }
        worse
    }
}

/// The UDP datagram in an Ethernet frame; nothing for anything else.
fn datagram(frame: &[u8]) -> Option<Datagram> {
    let ip = frame.get(14..)?;
    let (from, to, udp): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(*ip.first()? & 0x0f) * 4;
            let later_fragment = (u16::from(*ip.get(6)? & 0x1f) << 8) | u16::from(*ip.get(7)?) != 0;
            if *ip.get(9)? != UDP || later_fragment {
                return None;
            }
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
            (address(12)?.into(), address(16)?.into(), ip.get(header..)?)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
            let udp = match (*ip.get(6)?, *ip.get(40)?) {
                (UDP, _) => ip.get(40..)?,
                // The first fragment, by its offset of zero.
                (FRAGMENT, UDP) if u16_be(ip, 42)? & 0xfff8 == 0 => ip.get(48..)?,
                _ => return None,
            };
            (address(8)?.into(), address(24)?.into(), udp)
        }
        _ => return None,
    };
    let len = usize::from(u16_be(udp, 4)?).checked_sub(8)?;
    let payload = udp.get(8..)?;
    Some(Datagram {
        from: SocketAddr::new(from, u16_be(udp, 0)?),
        to: SocketAddr::new(to, u16_be(udp, 2)?),
        len,
        payload: payload.get(..len).unwrap_or(payload).to_vec(),
    })
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_le(bytes: &[u8; 16], at: usize) -> u32 {
    (0..4).rev().fold(0, |value, byte| (value << 8) | u32::from(bytes[at + byte]))
}

/// The number at the start of a capture with microseconds, written on a little-endian machine.
const MAGIC: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u8 = 1;
/// The protocol number of UDP.
const UDP: u8 = 17;
/// The next-header number of a fragment of IPv6.
const FRAGMENT: u8 = 44;
/// Holds the packets of a second of flood while the disk is slow.
const BUFFER_KIB: &str = "131072";
/// Bytes of each packet that are kept: a frame of the laboratory. With more, the buffer has room for fewer packets.
const SNAP_LEN: &str = "1600";
/// Longer than a packet in flight in the laboratory takes.
const QUIET: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ethertype: [u8; 2], ip: &[u8]) -> Vec<u8> {
        [&[0; 12], &ethertype[..], ip].concat()
    }

    #[test]
    fn udp_is_found_in_both_families_and_nothing_else_is() {
        let udp = [0x12, 0x8b, 0x00, 0x09, 0x00, 0x0a, 0, 0, 7, 8, 0, 0];
        let mut four = [0; 20];
        four[0] = 0x45;
        four[9] = UDP;
        four[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        let found = datagram(&frame([8, 0], &[&four[..], &udp].concat())).unwrap();
        assert_eq!(found.from, "192.0.2.1:4747".parse().unwrap());
        assert_eq!(found.to, "192.0.2.2:9".parse().unwrap());
        assert_eq!((found.len, found.payload), (2, vec![7, 8]));
        let mut six = [0; 40];
        six[6] = UDP;
        (six[23], six[39]) = (1, 2);
        let found = datagram(&frame([0x86, 0xdd], &[&six[..], &udp].concat())).unwrap();
        assert_eq!(found.from, "[::1]:4747".parse().unwrap());
        assert_eq!(found.to, "[::2]:9".parse().unwrap());
        four[9] = 6;
        assert_eq!(datagram(&frame([8, 0], &[&four[..], &udp].concat())), None);
        for length in 0..42 {
            assert_eq!(datagram(&vec![0x45; length]), None);
        }
    }

    #[test]
    fn amplification_is_judged_at_every_moment() {
        let (node, other) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let sent = |from, to, len| Datagram { from, to, len, payload: Vec::new() };
        let mut recording = Recording {
            datagrams: vec![sent(other, node, 10), sent(node, other, 10), sent(other, node, 5)],
            ..Recording::default()
        };
        assert!(recording.amplified(node).is_empty());
        recording.datagrams.swap(1, 2);
        assert!(recording.amplified(node).is_empty());
        recording.datagrams.swap(0, 2);
        // The answer comes before the datagram that would have paid for it.
        assert_eq!(recording.amplified(node)[&other].bytes_out, 10);
        assert_eq!(recording.exchanges(node)[&other].bytes_in, 15);
    }
}
