//! What happens to datagrams on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use mesh_wire::NodeId;
use mesh_wire::frame::SEALED;
use mesh_wire::handshake::{CHALLENGE, ESTABLISHED, HELLO, HELLO_LEN, RESPONSE};

use crate::dice::Dice;
use crate::hub::Delivery;

/// What the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Its work.
    Honest,
    /// Changes a byte of handshake messages.
    Tamper,
    /// Changes a byte of sealed frames.
    TamperFrames,
    /// Cuts handshake messages.
    Truncate,
    /// Lengthens handshake messages.
    Lengthen,
    /// Drops handshake messages.
    Drop,
    /// Brings handshake messages back to who sent them, under the name of who was to have them.
    Reflect,
    /// Brings the handshake message of the same kind that came before instead of each.
    Splice,
    /// Says that handshake messages are from somebody else.
    Misattribute,
    /// Brings everything, and things of the past again and again.
    Replay,
    /// Brings everything, in another order.
    Reorder,
    /// Brings everything, and lies about who is there.
    Presence,
    /// Brings everything, and rosters of its own making.
    Roster,
    /// Brings everything, and messages beyond every limit.
    Oversize,
    /// Brings everything, and messages that mean nothing.
    Garbage,
    /// Does not let clients in itself: forwards what an honest relay asks of them, and their answers.
    ForwardChallenge,
}

/// One of the four messages of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Message 1.
    Hello,
    /// Message 2.
    Challenge,
    /// Message 3.
    Response,
    /// Message 4.
    Established,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Hello => HELLO,
            Self::Challenge => CHALLENGE,
            Self::Response => RESPONSE,
            Self::Established => ESTABLISHED,
        }
    }
}

/// A mode and what it remembers.
#[derive(Debug)]
pub(crate) struct Mischief {
    mode: Mode,
    /// The only message of a handshake that is meant.
    kind: Option<Kind>,
    dice: Dice,
    /// The last handshake message of a kind between two nodes.
    last: BTreeMap<(NodeId, NodeId, u8), Vec<u8>>,
    /// Some of what came by.
    past: Vec<Delivery>,
}

type Late = (Duration, Delivery);

impl Mischief {
    pub(crate) fn new(mode: Mode, kind: Option<Kind>, dice: Dice) -> Self {
        Self { mode, kind, dice, last: BTreeMap::new(), past: Vec::new() }
    }

    /// Returns what arrives instead of a datagram, and when; and whether that is not the datagram itself.
    pub(crate) fn treat(&mut self, original: Delivery) -> (Vec<Late>, bool) {
        let kind = original.bytes.first().copied().unwrap_or(0);
        let handshake = match self.kind {
            Some(only) => kind == only.byte(),
            None => matches!(kind, HELLO | CHALLENGE | RESPONSE | ESTABLISHED),
        };
        let meant = match self.mode {
            Mode::Tamper
            | Mode::Truncate
            | Mode::Lengthen
            | Mode::Drop
            | Mode::Reflect
            | Mode::Splice
            | Mode::Misattribute => handshake,
            Mode::TamperFrames => kind == SEALED,
            Mode::Replay | Mode::Reorder => true,
            Mode::Honest
            | Mode::Presence
            | Mode::Roster
            | Mode::Oversize
            | Mode::Garbage
            | Mode::ForwardChallenge => false,
        };
        if !meant {
            return (vec![now(original)], false);
        }
        (self.spoil(original, kind), true)
    }

    fn spoil(&mut self, mut mail: Delivery, kind: u8) -> Vec<Late> {
        match self.mode {
            Mode::Tamper | Mode::TamperFrames => {
                // mac2 is outside of what a handshake is about: to change it is to do nothing.
                let length = if kind == HELLO { HELLO_LEN - 16 } else { mail.bytes.len() };
                let at = self.dice.pick(length.min(mail.bytes.len()));
                mail.bytes[at] ^= 1 << self.dice.pick(8);
                vec![now(mail)]
            }
            Mode::Truncate => {
                // A relay carries no message of no bytes.
                let length = 1 + self.dice.pick(mail.bytes.len() - 1);
                mail.bytes.truncate(length);
                vec![now(mail)]
            }
            Mode::Lengthen => {
                let more = 1 + self.dice.pick(2000);
                mail.bytes.extend(self.dice.bytes(more));
                vec![now(mail)]
            }
            Mode::Reflect => vec![now(Delivery { from: mail.to, to: mail.from, ..mail })],
            Mode::Splice => {
                let place = (mail.from, mail.to, kind);
                let before = self.last.insert(place, mail.bytes.clone());
                before.map(|bytes| now(Delivery { bytes, ..mail })).into_iter().collect()
            }
            Mode::Misattribute => {
                let name = if self.dice.pick(2) == 0 { mail.to } else { NodeId(self.dice.array()) };
                vec![now(Delivery { from: name, ..mail })]
            }
            Mode::Replay => self.replay(mail),
            Mode::Reorder => {
                let delay = Duration::from_millis(1 + self.dice.roll() % 120);
                vec![(delay, mail)]
            }
            Mode::Drop
            | Mode::Honest
            | Mode::Presence
            | Mode::Roster
            | Mode::Oversize
            | Mode::Garbage
            | Mode::ForwardChallenge => Vec::new(),
        }
    }

    /// The datagram, again a little later, and three of the past, one of them to the wrong side.
    fn replay(&mut self, mail: Delivery) -> Vec<Late> {
        let mut out =
            vec![now(mail.clone()), (Duration::from_millis(1 + self.dice.roll() % 1500), mail.clone())];
        for turned in [false, false, true] {
            let Some(old) = self.past.get(self.dice.pick(self.past.len())).cloned() else { continue };
            out.push(now(if turned { Delivery { from: old.to, to: old.from, ..old } } else { old }));
        }
        if self.past.len() < PAST {
            self.past.push(mail);
        } else {
            let at = self.dice.pick(PAST);
            self.past[at] = mail;
        }
        out
    }
}

fn now(mail: Delivery) -> Late {
    (Duration::ZERO, mail)
}

/// How much of the past is kept.
const PAST: usize = 500;
