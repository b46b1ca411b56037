//! What was dropped and why.

/// Why a packet or message went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// A packet from the device is no IP packet or Ethernet frame.
    NotAPacket,
    /// A packet from the device is for an address that no member has.
    NoRoute,
    /// The queue of packets that wait for a session was full; the oldest went.
    QueueFull,
    /// A packet waited too long for a session.
    QueueExpired,
    /// A QUIC datagram is for a peer without a session.
    NoSession,
    /// The session's key is used up.
    KeyExhausted,
    /// A packet is longer than the path carries; its sender was told, or cannot be.
    TooBig,
    /// Broadcast or multicast beyond the storm limit.
    Storm,
    /// A message from the carrier is of no known kind or form.
    Malformed,
    /// A frame is for a session that does not exist here.
    UnknownSession,
    /// A frame was received before or is too old.
    Replayed,
    /// A frame does not authenticate.
    Forged,
    /// A frame carries the kind of packet that this network does not.
    WrongLink,
    /// A packet's inner source address is not one of the sender's.
    SourceNotAllowed,
    /// A handshake message is not keyed by this network.
    Stranger,
    /// A handshake message fits no handshake under way, or fails its checks.
    HandshakeRefused,
    /// A handshake proved keys that are not of a member.
    NotMember,
    /// A table of handshakes, sessions or peers was full.
    TableFull,
    /// Handshake messages come faster than they are answered.
    RateLimited,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 19] = [
        Self::NotAPacket,
        Self::NoRoute,
        Self::QueueFull,
        Self::QueueExpired,
        Self::NoSession,
        Self::KeyExhausted,
        Self::TooBig,
        Self::Storm,
        Self::Malformed,
        Self::UnknownSession,
        Self::Replayed,
        Self::Forged,
        Self::WrongLink,
        Self::SourceNotAllowed,
        Self::Stranger,
        Self::HandshakeRefused,
        Self::NotMember,
        Self::TableFull,
        Self::RateLimited,
    ];

    /// Returns the stable name that status and metrics show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAPacket => "not_a_packet",
            Self::NoRoute => "no_route",
            Self::QueueFull => "queue_full",
            Self::QueueExpired => "queue_expired",
            Self::NoSession => "no_session",
            Self::KeyExhausted => "key_exhausted",
            Self::TooBig => "too_big",
            Self::Storm => "storm",
            Self::Malformed => "malformed",
            Self::UnknownSession => "unknown_session",
            Self::Replayed => "replayed",
            Self::Forged => "forged",
            Self::WrongLink => "wrong_link",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::Stranger => "stranger",
            Self::HandshakeRefused => "handshake_refused",
            Self::NotMember => "not_member",
            Self::TableFull => "table_full",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// One counter for each [`DropReason`].
#[derive(Debug, Clone, Default)]
pub struct Counters {
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts one drop.
    pub fn count(&mut self, reason: DropReason) {
        if let Some(at) = DropReason::ALL.iter().position(|known| *known == reason) {
            self.drops[at] += 1;
        }
    }

    /// Returns the reasons that occurred, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops).filter(|(_, count)| *count > 0)
    }

    /// Tells whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drops.iter().all(|count| *count == 0)
    }

    /// Returns these counters and others, added up.
    #[must_use]
    pub fn plus(&self, others: &Self) -> Self {
        let mut sum = self.clone();
        for (count, other) in sum.drops.iter_mut().zip(others.drops) {
            *count += other;
        }
        sum
    }

    /// Returns how often one reason occurred.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let mut counters = Counters::default();
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            for _ in 0..=times {
                counters.count(reason);
            }
        }
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.get(reason), u64::try_from(times).unwrap() + 1);
        }
        let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
