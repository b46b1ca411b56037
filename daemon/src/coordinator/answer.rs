//! What an admitted node is told, cut into parts that leave as earlier ones arrive.

use mesh_identity::Roster;
use mesh_wire::control::{Control, ENROL_PART, EnrolAnswer};
use zeroize::Zeroizing;

use crate::state::Membership;

/// An answer on its way to a guest; wiped when dropped.
pub(super) struct Answer {
    bytes: Zeroizing<Vec<u8>>,
    sent: usize,
}

impl Answer {
    /// Puts the answer together: the network secret and the roster in which the node stands.
    pub(super) fn new(membership: &Membership, roster: &Roster) -> Self {
        let answer = EnrolAnswer {
            secret_epoch: membership.secret_epoch,
            network_secret: membership.network_secret.clone(),
            roster: roster.encode(),
        };
        Self { bytes: answer.encode(), sent: 0 }
    }

    /// Returns the next part; none when all were sent.
    pub(super) fn next_part(&mut self) -> Option<Control<'_>> {
        let size = |length: usize| u32::try_from(length).expect("a roster is at most 1 MiB");
        let bytes = self.bytes[self.sent..].chunks(ENROL_PART).next()?;
        let (total, offset) = (size(self.bytes.len()), size(self.sent));
        self.sent += bytes.len();
        Some(Control::EnrolPart { total, offset, bytes })
    }

    /// Tells whether the last part was sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_answer_without_gaps() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * ENROL_PART + 5).collect();
        let mut answer = Answer { bytes: Zeroizing::new(bytes.clone()), sent: 0 };
        let mut received = Vec::new();
        while let Some(part) = answer.next_part() {
            let Control::EnrolPart { total, offset, bytes: part } = part else { panic!("{part:?}") };
            assert_eq!(
                (usize::try_from(total), usize::try_from(offset)),
                (Ok(bytes.len()), Ok(received.len()))
            );
            received.extend_from_slice(part);
        }
        assert!(answer.is_sent() && received == bytes);
    }
}
