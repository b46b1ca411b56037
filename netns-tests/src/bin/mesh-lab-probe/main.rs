//! Traffic for the laboratory: every byte that arrives is compared with the byte that was sent.
//!
//! Each command prints one JSON document when it is done; a receiver prints `ready` first, once its socket stands.

mod batch;
mod datagrams;
mod flood;
mod http;
mod junk;
mod lan;
mod pattern;
mod stranger;
mod stream;
mod stun;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::flood::Flood;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send datagrams, each with its own number, length and checksum.
    UdpSend {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, default_value_t = 1000)]
        count: u64,
        #[arg(long, default_value_t = 1372)]
        size: usize,
        /// Datagrams per second; as fast as the socket takes them unless given.
        #[arg(long)]
        rate: Option<u64>,
        /// The address to send from.
        #[arg(long)]
        from: Option<SocketAddr>,
    },
    /// Send datagrams that may not be fragmented, over IPv4, each as long as the kernel then says that the way carries.
    UdpLearn {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Datagrams per second.
        #[arg(long, default_value_t = 1000)]
        rate: u64,
    },
    /// Receive such datagrams until none came for a while.
    UdpReceive {
        #[arg(long)]
        bind: SocketAddr,
        /// End after this many.
        #[arg(long)]
        count: Option<u64>,
        /// End when none came for this long, once the first arrived.
        #[arg(long, default_value_t = 1500)]
        idle_ms: u64,
        /// End in any case after this long.
        #[arg(long, default_value_t = 60)]
        limit_s: u64,
    },
    /// Send a stream of known bytes.
    TcpSend {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        bytes: u64,
        /// Bytes per second; as fast as the other side takes them unless given.
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Receive one stream and compare every byte.
    TcpReceive {
        #[arg(long)]
        bind: SocketAddr,
    },
    /// Serve one file over HTTP/1.1.
    Http {
        #[arg(long)]
        bind: SocketAddr,
        #[arg(long)]
        file: PathBuf,
    },
    /// Send random and valid-looking datagrams and report what came back.
    JunkUdp {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, default_value_t = 2000)]
        count: u32,
    },
    /// Open connections that send random and valid-looking bytes and report how they ended.
    JunkTcp {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, default_value_t = 50)]
        count: u32,
    },
    /// Send random datagrams and such as only the protocol knows, as fast as the sockets take them.
    Stranger {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
        /// The same seed sends the same datagrams.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Send announcements of a local network again, changed ones, and other messages of the same form.
    LanFlood {
        /// The address to send from.
        #[arg(long)]
        from: IpAddr,
        /// What was recorded: a message in each line, in hexadecimal digits.
        #[arg(long)]
        messages: PathBuf,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Messages per second; as fast as the kernel takes them unless given.
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Answer STUN with the same address always, whoever asks.
    StunServe {
        #[arg(long)]
        bind: SocketAddr,
        /// The address that the answers name.
        #[arg(long)]
        say: SocketAddr,
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Send answers of STUN that nobody asked for, in the name of a server.
    StunForge {
        #[arg(long)]
        to: SocketAddr,
        /// The server.
        #[arg(long)]
        from: SocketAddr,
        /// The address that the answers name.
        #[arg(long)]
        say: SocketAddr,
        /// Datagrams per second.
        #[arg(long, default_value_t = 2000)]
        rate: u64,
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// Send captured parts of HELLOs again, from many addresses that are not ours.
    Flood {
        #[arg(long)]
        to: SocketAddr,
        /// The block of IPv4 addresses to send from.
        #[arg(long)]
        sources: flood::Sources,
        /// A capture of Ethernet that holds the HELLOs.
        #[arg(long)]
        from_pcap: PathBuf,
        /// Which parts each source sends, one digit each.
        #[arg(long, default_value = "01")]
        order: String,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Datagrams per second; as fast as the kernel takes them unless given.
        #[arg(long)]
        rate: Option<u64>,
        /// End after this many sources.
        #[arg(long)]
        count: Option<u64>,
    },
}

#[expect(clippy::print_stdout, reason = "the document on the standard output is what this program is for")]
fn main() -> Result<()> {
    let document = match Arguments::parse().command {
        Command::UdpSend { to, count, size, rate, from } => datagrams::send(to, from, count, size, rate)?,
        Command::UdpLearn { to, count, rate } => datagrams::learn(to, count, rate)?,
        Command::UdpReceive { bind, count, idle_ms, limit_s } => {
            datagrams::receive(bind, count, idle_ms, limit_s)?
        }
        Command::TcpSend { to, bytes, rate } => stream::send(to, bytes, rate)?,
        Command::TcpReceive { bind } => stream::receive(bind)?,
        Command::Http { bind, file } => http::serve(bind, &file)?,
        Command::JunkUdp { to, count } => junk::udp(to, count)?,
        Command::JunkTcp { to, count } => junk::tcp(to, count)?,
        Command::Stranger { to, count, seed } => stranger::run(to, count, seed)?,
        Command::LanFlood { from, messages, seconds, rate } => lan::flood(from, &messages, seconds, rate)?,
        Command::StunServe { bind, say, seconds } => stun::serve(bind, say, seconds)?,
        Command::StunForge { to, from, say, rate, seconds } => stun::forge((from, to), say, rate, seconds)?,
        Command::Flood { to, sources, from_pcap, order, seconds, rate, count } => {
            let to = flood::ipv4(to)?;
            Flood { to, sources, from_pcap: &from_pcap, order: &order, seconds, rate, count }.run()?
        }
    };
    println!("{document}");
    Ok(())
}

/// Tells who waits for it that the socket stands.
#[expect(clippy::print_stdout, reason = "a test waits for this line")]
fn announce_ready() {
    println!("ready");
}
