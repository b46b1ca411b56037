//! Domain separation of signatures.

use mesh_wire::codec::Put;

/// Says what a composite signature is for; a signature under one label never verifies under another.
///
/// The signed bytes are `"mesh/1 " || label || 0x00 || message`. The label stands inside the message because the
/// context string of FIPS 204 is always empty: not every implementation can set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// The initiator of a handshake proves its identity (message 3).
    Initiator,
    /// The responder of a handshake proves its identity (message 4).
    Responder,
    /// The root of a network signs the head of a roster.
    RosterHead,
    /// A client proves its identity to a relay.
    RelayAuth,
    /// A member proves its identity to the node behind a door.
    DoorAuth,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 5] =
        [Self::Initiator, Self::Responder, Self::RosterHead, Self::RelayAuth, Self::DoorAuth];

    /// Returns the text that stands in the signed bytes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
            Self::RosterHead => "roster-head",
            Self::RelayAuth => "relay-auth",
            Self::DoorAuth => "door-auth",
        }
    }

    /// Returns the bytes that both algorithms sign.
    pub(crate) fn signed_bytes(self, message: &[u8]) -> Vec<u8> {
        let label = self.as_str().as_bytes();
        let mut out = Vec::with_capacity(PREFIX.len() + label.len() + 1 + message.len());
        out.put(PREFIX);
        out.put(label);
        out.put_u8(0);
        out.put(message);
        out
    }
}

const PREFIX: &[u8] = b"mesh/1 ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_and_message_cannot_run_into_each_other() {
        assert_eq!(Label::Initiator.signed_bytes(b"x"), b"mesh/1 initiator\0x");
        for (i, a) in Label::ALL.iter().enumerate() {
            assert!(!a.as_str().contains('\0'));
            assert!(Label::ALL[i + 1..].iter().all(|b| a.as_str() != b.as_str()));
        }
    }
}
