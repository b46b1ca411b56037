//! A stranger on a switch: it repeats what nodes announced, and says things in the same form.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_wire::lan::{GROUP_V4, Message, NAME, PORT, SEALED};
use serde_json::{Value, json};

use crate::pattern::Pattern;

/// Sends for so long: recorded announcements, the same with changes, invented ones, farewells and questions.
pub(crate) fn flood(from: IpAddr, messages: &Path, seconds: f64, rate: Option<u64>) -> Result<Value> {
    // The address says which interface.
    let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
    let to = SocketAddr::new(GROUP_V4.into(), PORT);
    let recorded = read(messages)?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let (mut sent, mut turn) = (0_u64, 0_usize);
    while Instant::now() < end {
        if rate
            .is_some_and(|rate| sent > u64::try_from(start.elapsed().as_millis()).unwrap_or(0) * rate / 1000)
        {
            std::thread::yield_now();
            continue;
        }
        let genuine = &recorded[turn % recorded.len()];
        let message = match turn / recorded.len() % 5 {
            0 => genuine.clone(),
            1 => changed(genuine, turn),
            2 => {
                let mut sealed = [0; SEALED];
                Pattern::new(u64::try_from(turn)?).fill(&mut sealed);
                Message::Announcement { name: [b'e'; NAME], sealed: &sealed }.encode()
            }
            3 => match Message::parse(genuine) {
                Ok(Message::Announcement { name, .. }) => Message::Farewell { name }.encode(),
                _ => Message::Question.encode(),
            },
            _ => Message::Question.encode(),
        };
        turn += 1;
        // A full queue of the interface only slows it down.
        sent += u64::from(socket.send_to(&message, to).is_ok());
    }
    Ok(json!({ "sent": sent, "recorded": recorded.len() }))
}

fn changed(genuine: &[u8], turn: usize) -> Vec<u8> {
    let mut message = genuine.to_vec();
    let at = message.len() - 1 - turn % SEALED;
    message[at] ^= 1;
    message
}

/// Reads messages, one in a line of hexadecimal digits.
fn read(file: &Path) -> Result<Vec<Vec<u8>>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let digit = |text: &str| u8::from_str_radix(text, 16).context("no hexadecimal digit");
    let line = |line: &str| (0..line.len() / 2).map(|at| digit(&line[at * 2..at * 2 + 2])).collect();
    let messages: Vec<Vec<u8>> = text.lines().map(line).collect::<Result<_>>()?;
    ensure!(!messages.is_empty(), "nothing was recorded");
    Ok(messages)
}
