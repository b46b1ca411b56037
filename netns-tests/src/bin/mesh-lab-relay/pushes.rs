//! What the relay sends unasked.

use mesh_wire::NodeId;
use mesh_wire::handshake::{HELLO, HELLO_LEN};
use mesh_wire::relay::{Bound, Data, ROSTER_MESSAGE, RelayMessage, Role, RosterBlob};
use tokio_tungstenite::tungstenite::Message;

use crate::dice::Dice;
use crate::hub::Client;
use crate::mischief::Mode;

/// A mode and where it is.
#[derive(Debug)]
pub(crate) struct Pushes {
    mode: Mode,
    dice: Dice,
    turn: u64,
}

impl Pushes {
    pub(crate) fn new(mode: Mode, dice: Dice) -> Self {
        Self { mode, dice, turn: 0 }
    }

    /// Returns what one client is sent now; `roster` is the newest one that the relay was given for its network.
    pub(crate) fn for_client(&mut self, client: &Client, roster: Option<&(u64, Vec<u8>)>) -> Vec<Message> {
        self.turn += 1;
        match self.mode {
            Mode::Presence => self.presence(client),
            Mode::Roster if client.role == Role::Member => self.roster(roster),
            // Seldom enough for a client to come back in between.
            Mode::Oversize if self.turn.is_multiple_of(15) => self.oversize(),
            Mode::Garbage => self.garbage(client),
            Mode::Honest
            | Mode::Roster
            | Mode::Oversize
            | Mode::Tamper
            | Mode::TamperFrames
            | Mode::Truncate
            | Mode::Lengthen
            | Mode::Drop
            | Mode::Reflect
            | Mode::Splice
            | Mode::Misattribute
            | Mode::Replay
            | Mode::Reorder
            | Mode::ForwardChallenge => Vec::new(),
        }
    }

    /// Everybody comes and goes, and so does who never was there.
    fn presence(&mut self, client: &Client) -> Vec<Message> {
        let mut out = Vec::new();
        for (handle, node) in &client.handles {
            for _ in 0..4 {
                out.push(match self.dice.pick(3) {
                    0 => message(&RelayMessage::PeerGone(*handle)),
                    1 => message(&RelayMessage::PeerPresent(*handle)),
                    _ => {
                        let present = self.dice.pick(2) == 0;
                        message(&RelayMessage::Bound(Bound { node: *node, handle: *handle, present }))
                    }
                });
            }
        }
        let unknown = 100_000 + u32::try_from(self.dice.pick(1000)).unwrap_or(0);
        out.push(message(&RelayMessage::PeerPresent(unknown)));
        out.push(message(&RelayMessage::PeerGone(unknown)));
        out
    }

    /// One roster that is none.
    fn roster(&mut self, kept: Option<&(u64, Vec<u8>)>) -> Vec<Message> {
        let (version, blob) = kept.cloned().unwrap_or_else(|| (1, self.dice.bytes(6000)));
        let mut changed = blob.clone();
        let at = self.dice.pick(changed.len());
        changed[at] ^= 1 << self.dice.pick(8);
        let (version, blob) = match self.turn % 8 {
            0 => (u64::MAX, self.dice.bytes(6000)),
            1 => (version + 1, changed),
            2 => (version + 1, blob),
            3 => (version, changed),
            4 => (version.saturating_sub(1), blob),
            5 => (version + 2, self.dice.bytes(1024 * 1024)),
            6 => (0, Vec::from([0; 40])),
            _ => (version + 3, blob[..blob.len() / 2].to_vec()),
        };
        vec![message(&RelayMessage::Roster(RosterBlob { version, blob: &blob }))]
    }

    /// More than any limit.
    fn oversize(&mut self) -> Vec<Message> {
        let length = match self.dice.pick(4) {
            0 => ROSTER_MESSAGE + 1,
            1 => 5 + 65_537,
            2 => 8 * 1024 * 1024,
            _ => 64 * 1024 * 1024,
        };
        let mut bytes = vec![0x5a; length];
        bytes[0] = if self.dice.pick(2) == 0 { RECV } else { ROSTER };
        vec![Message::Binary(bytes.into())]
    }

    /// Things without meaning, most of them in a right envelope, so that the connection lasts.
    fn garbage(&mut self, client: &Client) -> Vec<Message> {
        let mut out = Vec::new();
        for handle in client.handles.keys() {
            for first in [HELLO, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x9f, 0x00, 0xff] {
                let length = if first == HELLO { HELLO_LEN } else { 1 + self.dice.pick(3000) };
                let mut payload = self.dice.bytes(length);
                payload[0] = first;
                out.push(message(&RelayMessage::Recv(Data {
                    handle: *handle,
                    segment: None,
                    payload: &payload,
                })));
            }
        }
        let text = "\u{1b}[2J\u{7}".repeat(20);
        out.push(message(&RelayMessage::Health(&text)));
        for _ in 0..20 {
            let handle = 1_000_000 + u32::try_from(self.dice.pick(1 << 20)).unwrap_or(0);
            let node = NodeId(self.dice.array());
            out.push(message(&RelayMessage::Bound(Bound { node, handle, present: true })));
        }
        if self.turn.is_multiple_of(20) {
            out.push(match self.dice.pick(4) {
                0 => Message::Text("what is this?".into()),
                1 => Message::Binary(Vec::new().into()),
                2 => Message::Binary(self.dice.bytes(40).into()),
                _ => {
                    let mut hello = self.dice.bytes(74);
                    hello[0] = 1;
                    Message::Binary(hello.into())
                }
            });
        }
        out
    }
}

fn message(message: &RelayMessage<'_>) -> Message {
    Message::Binary(message.encode().into())
}

const ROSTER: u8 = 0x0f;
const RECV: u8 = 0x12;
