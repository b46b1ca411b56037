//! Where a node is: the relays at which its peers reach it.

use crate::Pin;
use crate::codec::{Put, Reader, WireError};

/// Relays that a node names at most: its home, and the one that it keeps warm.
pub const RELAYS_TOLD: usize = 2;

/// The relays at which the sender is, its home first; each message replaces the one before.
///
/// A relay is named by its key alone: who receives this looks it up among the relays that it knows already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelaysTold {
    /// At most [`RELAYS_TOLD`], each once.
    pub list: Vec<Pin>,
}

impl RelaysTold {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let list = &self.list[..self.list.len().min(RELAYS_TOLD)];
        out.put_u8(u8::try_from(list.len()).expect("at most 2"));
        for pin in list {
            out.put(&pin.0);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = usize::from(reader.u8()?);
        if count > RELAYS_TOLD {
            return Err(WireError::TooLong("relays"));
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let pin = Pin(reader.array()?);
            if list.contains(&pin) {
                return Err(WireError::Invalid("relays"));
            }
            list.push(pin);
        }
        Ok(Self { list })
    }
}
