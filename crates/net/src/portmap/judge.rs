//! What to believe of a gateway: its external address, and that it still has its state.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What an external address is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Reachable from the internet as far as its range tells.
    Public,
    /// Behind one more NAT.
    Private,
    /// No unicast address that others could send to.
    Useless,
}

/// Judges the external address that a gateway claims.
pub(super) const fn worth(address: IpAddr) -> Worth {
    match address {
        IpAddr::V4(v4) if is_private(v4) => Worth::Private,
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            let unicast = first != 0 && first < 224 && !v4.is_loopback() && !v4.is_link_local();
            if unicast { Worth::Public } else { Worth::Useless }
        }
        IpAddr::V6(v6) if is_global(v6) => Worth::Public,
        IpAddr::V6(v6) if v6.is_unique_local() => Worth::Private,
        IpAddr::V6(_) => Worth::Useless,
    }
}

/// Private (RFC 1918) or shared by the customers of a provider (RFC 6598).
pub(super) const fn is_private(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_private() || (first == 100 && second & 0xc0 == 64)
}

/// Within 2000::/3, from which all public addresses come.
pub(super) const fn is_global(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xe000 == 0x2000
}

/// The epoch that a gateway told, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    seconds: u32,
    at: Instant,
}

impl Epoch {
    pub(super) const fn new(seconds: u32, at: Instant) -> Self {
        Self { seconds, at }
    }

    /// Whether the gateway lost its mappings between two answers, by the rule of RFC 6887, section 8.5.
    pub(super) fn lost_until(self, later: Self) -> bool {
        let ours = later.at.saturating_duration_since(self.at).as_secs();
        let (before, after) = (u64::from(self.seconds), u64::from(later.seconds));
        let Some(theirs) = (after + 1).checked_sub(before) else { return true };
        // Both clocks may err by a sixteenth, and by a second each for rounding.
        ours + 2 < theirs.saturating_sub(1) - theirs / 16 || theirs + 1 < ours - ours / 16
    }
}

/// Brings a lifetime that a gateway chose into bounds; it may be anything.
pub(super) fn lifetime(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()).min(LONGEST_LIFETIME)
}

/// A mapping is asked for again at least twice in this time, whatever the gateway promised (RFC 6887, section 15).
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_addresses_are_judged_by_range() {
        let of = |text: &str| worth(text.parse().unwrap());
        for text in ["8.8.8.8", "11.0.0.7", "100.63.255.255", "100.128.0.0", "2001:db8::1"] {
            assert_eq!(of(text), Worth::Public, "{text}");
        }
        for text in ["10.0.0.1", "172.31.0.1", "192.168.0.1", "100.64.0.1", "100.127.255.255", "fd00::1"] {
            assert_eq!(of(text), Worth::Private, "{text}");
        }
        for text in
            ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1"]
        {
            assert_eq!(of(text), Worth::Useless, "{text}");
        }
    }

    #[test]
    fn epoch_that_goes_on_is_believed() {
        let start = Instant::now();
        for (before, after, elapsed) in
            [(0, 60, 60), (1000, 1058, 60), (1000, 1062, 60), (5, 5, 0), (5, 4, 0)]
        {
            let later = Epoch::new(after, start + Duration::from_secs(elapsed));
            assert!(!Epoch::new(before, start).lost_until(later), "{before} {after} {elapsed}");
        }
    }

    #[test]
    fn epoch_that_goes_back_stands_still_or_jumps_means_lost_state() {
        let start = Instant::now();
        let cases = [
            (1000, 0, 60),
            (1000, 998, 1),
            (10, 12, 60),
            (1000, 5000, 60),
            (u32::MAX, 0, 0),
            (0, u32::MAX, 1),
        ];
        for (before, after, elapsed) in cases {
            let later = Epoch::new(after, start + Duration::from_secs(elapsed));
            assert!(Epoch::new(before, start).lost_until(later), "{before} {after} {elapsed}");
        }
    }

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!(lifetime(60), Duration::from_secs(60));
        assert_eq!(lifetime(u32::MAX), LONGEST_LIFETIME);
    }
}
