//! Connectivity checks of ICE: what strangers send, and what a member sends who means ill.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use mesh_ice::{Finder, Output, REMOTES, SansIo, Setting};
use mesh_wire::control::{Candidate, CandidateKind, IceCredentials, IceOffer};
use mesh_wire::stun::{Check, HEADER, MAGIC_COOKIE, MESSAGE, is_stun};
use zeroize::Zeroizing;

use crate::input::{Input, cuts};

/// Reads the bytes as a check, then as a script for a peer that knows its password.
pub fn ice(data: &[u8]) {
    if let Ok(check) = Check::parse(data) {
        assert!(is_stun(data) && (HEADER..=MESSAGE).contains(&data.len()));
        let (start, rest) = check.signed();
        assert_eq!(start[..2], data[..2]);
        assert_eq!(rest, &data[4..4 + rest.len()]);
        assert!(cuts(data.len()).into_iter().all(|cut| Check::parse(&data[..cut]).is_err()));
    }
    World::new().run(Input::new(data));
}

struct World {
    finder: Finder<u8>,
    now: Instant,
    /// What this side told of itself last.
    told: Option<IceCredentials>,
    asked: Vec<(SocketAddr, [u8; 12])>,
    reached: BTreeSet<SocketAddr>,
}

impl World {
    fn new() -> Self {
        let mut counter = 0_u8;
        let random = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                counter = counter.wrapping_mul(5).wrapping_add(7);
                *byte = counter;
            }
        });
        let mut finder = Finder::new(&SansIo, random, Arc::new(|| {}));
        finder.set_bases(vec![([10, 0, 0, 1], 1).into(), ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 1).into()]);
        Self { finder, now: Instant::now(), told: None, asked: Vec::new(), reached: BTreeSet::new() }
    }

    fn run(&mut self, mut input: Input<'_>) {
        for _ in 0..64 {
            if input.is_empty() {
                break;
            }
            self.step(&mut input);
            self.look();
        }
        assert!(self.finder.pairs(0).len() <= REMOTES);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let setting = Setting { controlling: input.flag(), remotes: remotes(input) };
        match input.u8() % 6 {
            0 => self.finder.search(self.now, 0, &setting),
            1 => {
                let answers = self.told.as_ref().filter(|_| input.flag()).map(|told| told.fragment.clone());
                let offer = IceOffer { credentials: peer(input.u8() % 2), answers };
                self.finder.handle_offer(self.now, 0, &offer, &setting);
            }
            2 => {
                let before = self.finder.counts();
                let length = input.below(600);
                self.finder.handle_datagram(self.now, address(input), input.bytes(length));
                let after = self.finder.counts();
                // Nobody finds out a password.
                assert_eq!((after.taken, after.sent), (before.taken, before.sent));
            }
            3 => {
                let Some(told) = self.told.clone() else { return };
                let from = address(input);
                let name = format!("{}:{}", told.fragment, peer(input.u8() % 2).fragment);
                let attributes = [&attribute(0x0006, name.as_bytes())[..], &attributes(input)].concat();
                let transaction = input.bytes(12).try_into().unwrap_or([7; 12]);
                self.finder.handle_datagram(self.now, from, &sealed(1, transaction, &attributes, &told));
            }
            4 => {
                if self.asked.is_empty() {
                    return;
                }
                let (to, transaction) = self.asked[input.below(self.asked.len())];
                let (kind, theirs) = (*input.pick(&[0x0101, 0x0111]), peer(input.u8() % 2));
                let message = sealed(kind, transaction, &attributes(input), &theirs);
                self.finder.handle_datagram(self.now, to, &message);
            }
            _ => {
                self.now += Duration::from_millis(u64::from(input.u8()) * 20);
                self.finder.handle_timeout(self.now);
            }
        }
    }

    fn look(&mut self) {
        let mut said = 0;
        while let Some(output) = self.finder.poll_output() {
            said += 1;
            match output {
                Output::Transmit(transmit) => {
                    assert!(is_stun(&transmit.payload) && transmit.payload.len() <= MESSAGE);
                    self.reached.insert(transmit.to);
                    if transmit.payload[..2] == [0, 1] && self.asked.len() < 64 {
                        let transaction =
                            transmit.payload[8..HEADER].try_into().expect("a header has 20 bytes");
                        self.asked.push((transmit.to, transaction));
                    }
                }
                Output::Say(_, offer) => {
                    if self.told.as_ref() != Some(&offer.credentials) {
                        self.told = Some(offer.credentials);
                        (self.asked, self.reached) = (Vec::new(), BTreeSet::new());
                    }
                }
                Output::Nominated(..) | Output::Failed(_) => {}
            }
        }
        assert!(said <= 8, "{said} outputs of one step");
        assert!(self.reached.len() <= REMOTES, "{} addresses were sent to", self.reached.len());
    }
}

fn peer(number: u8) -> IceCredentials {
    IceCredentials {
        fragment: format!("peer{number}"),
        password: Zeroizing::new(format!("a-password-that-is-long-enough-{number}").replace('-', "+")),
    }
}

fn address(input: &mut Input<'_>) -> SocketAddr {
    let (number, port) = (input.u8(), u16::from(input.u8()) + 1);
    if number % 4 == 0 {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)], port))
    } else {
        SocketAddr::from(([192, 0, 2, number], port))
    }
}

fn remotes(input: &mut Input<'_>) -> Vec<Candidate> {
    let kinds = [CandidateKind::Host, CandidateKind::Reflexive];
    (0..input.u8() % 8).map(|_| Candidate { kind: *input.pick(&kinds), address: address(input) }).collect()
}

/// Attributes that agents say, in any order and any number, with any content.
fn attributes(input: &mut Input<'_>) -> Vec<u8> {
    let kinds = [0x0024, 0x0025, 0x8029, 0x802a, 0x0020, 0x0009, 0x8022, 0xc057, 0x0001, 0x8023, 0x000a];
    let mut out = Vec::new();
    for _ in 0..input.u8() % 8 {
        let kind = *input.pick(&kinds);
        let length = [4, 0, 8, 8, 8, 20, usize::from(input.u8() % 64)][input.below(7)];
        out.extend(attribute(kind, input.bytes(length)));
    }
    // Requests without it go nowhere.
    if input.flag() {
        out.extend(attribute(0x0024, &[1, 2, 3, 4]));
    }
    out
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("attributes are short").to_be_bytes();
    let mut out = [&kind.to_be_bytes()[..], &length, value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// A message with a right MESSAGE-INTEGRITY and a right FINGERPRINT.
fn sealed(kind: u16, transaction: [u8; 12], attributes: &[u8], under: &IceCredentials) -> Vec<u8> {
    let header = |length: usize| {
        let length = u16::try_from(length).expect("messages are short").to_be_bytes();
        [&kind.to_be_bytes()[..], &length, &MAGIC_COOKIE.to_be_bytes(), &transaction].concat()
    };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, under.password.as_bytes());
    let signed = [&header(attributes.len() + 24)[..], attributes].concat();
    let integrity = attribute(0x0008, hmac::sign(&key, &signed).as_ref());
    let mut message = [&header(attributes.len() + 32)[..], attributes, &integrity].concat();
    let mut crc = u32::MAX;
    for byte in &message {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    message.extend(attribute(0x8028, &(!crc ^ 0x5354_554e).to_be_bytes()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_reaches_the_agent() {
        let mut world = World::new();
        // Search with one remote address, an offer, then a genuine request from there.
        for script in [&[0, 1, 1, 1, 1, 0][..], &[0, 0, 1, 1, 0], &[0, 0, 3, 1, 1, 0, 0, 0], &[0, 0, 5, 50]] {
            world.step(&mut Input::new(script));
            world.look();
        }
        assert!(world.finder.counts().taken > 0, "{:?}", world.finder.counts());
        assert!(!world.asked.is_empty());
    }
}
