//! Counters, and their Prometheus text form.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hub::{Census, NoRoute};

macro_rules! counters {
    ($($field:ident: $name:literal $(, $label:literal)?;)*) => {
        /// Everything that is counted since the start.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $(pub(crate) $field: Counter,)*
        }

        impl Metrics {
            /// Returns name, label and value of every counter, those of one name in a row.
            fn list(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$(($name, concat!($($label)?), self.$field.get()),)*]
            }
        }
    };
}

counters! {
    forwarded_messages: "forwarded_messages_total";
    forwarded_bytes: "forwarded_bytes_total";
    dropped_full: "dropped_messages_total", "reason=\"queue_full\"";
    dropped_aged: "dropped_messages_total", "reason=\"too_old\"";
    dropped_absent: "dropped_messages_total", "reason=\"absent\"";
    dropped_not_permitted: "dropped_messages_total", "reason=\"not_permitted\"";
    dropped_unknown_handle: "dropped_messages_total", "reason=\"unknown_handle\"";
    dropped_unwilling: "dropped_messages_total", "reason=\"no_handle\"";
    udp_forwarded_bytes: "udp_forwarded_bytes_total";
    udp_dropped_full: "udp_dropped_datagrams_total", "reason=\"socket_full\"";
    udp_dropped_rate: "udp_dropped_datagrams_total", "reason=\"rate\"";
    udp_dropped_congested: "udp_dropped_datagrams_total", "reason=\"congested\"";
    udp_answers: "udp_answers_total";
    udp_stale: "udp_ignored_total", "reason=\"stale\"";
    udp_strangers: "udp_ignored_total", "reason=\"stranger\"";
    handshakes: "handshakes_total";
    auth_bad_signature: "auth_failures_total", "reason=\"bad_signature\"";
    auth_not_admitted: "auth_failures_total", "reason=\"not_admitted\"";
    auth_not_served: "auth_failures_total", "reason=\"network_not_served\"";
    auth_bad_message: "auth_failures_total", "reason=\"bad_message\"";
    auth_busy: "auth_failures_total", "reason=\"busy\"";
    tls_errors: "tls_errors_total";
    websocket_errors: "websocket_errors_total";
    handshake_timeouts: "handshake_timeouts_total";
    refused_full: "refused_connections_total", "reason=\"full\"";
    refused_too_many: "refused_connections_total", "reason=\"address_connections\"";
    refused_too_fast: "refused_connections_total", "reason=\"address_rate\"";
    ended_stalled: "ended_connections_total", "reason=\"stalled\"";
    ended_silent: "ended_connections_total", "reason=\"silent\"";
    ended_protocol: "ended_connections_total", "reason=\"protocol\"";
    ended_closed: "ended_connections_total", "reason=\"closed\"";
    ended_by_relay: "ended_connections_total", "reason=\"relay\"";
    rosters_taken: "rosters_taken_total";
    stun_answers: "stun_answers_total";
    stun_ignored: "stun_ignored_total";
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Returns how many connections were refused or failed before they were a client's.
    pub(crate) fn refused(&self) -> u64 {
        [
            &self.auth_bad_signature,
            &self.auth_not_admitted,
            &self.auth_not_served,
            &self.auth_bad_message,
            &self.auth_busy,
            &self.tls_errors,
            &self.websocket_errors,
            &self.handshake_timeouts,
            &self.refused_full,
            &self.refused_too_many,
            &self.refused_too_fast,
        ]
        .map(Counter::get)
        .iter()
        .sum()
    }

    /// Returns the counter of what is dropped for this reason.
    pub(crate) const fn no_route(&self, reason: NoRoute) -> &Counter {
        match reason {
            NoRoute::UnknownHandle => &self.dropped_unknown_handle,
            NoRoute::Absent => &self.dropped_absent,
            NoRoute::NotPermitted => &self.dropped_not_permitted,
            NoRoute::Unwilling => &self.dropped_unwilling,
        }
    }

    /// Returns the Prometheus text exposition, version 0.0.4; `lost` is what the kernel dropped at the UDP port.
    pub(crate) fn render(&self, census: &Census, lost: u64) -> String {
        let mut out = String::new();
        let gauges = [
            ("clients", "role=\"member\"", census.members),
            ("clients", "role=\"root\"", census.roots),
            ("clients", "role=\"guest\"", census.guests),
            ("networks", "", census.networks),
            ("roster_cache_entries", "", census.rosters),
            ("roster_cache_bytes", "", census.roster_bytes),
        ];
        let mut last = "";
        for (name, label, value) in gauges {
            line(&mut out, &mut last, "gauge", (name, label, u64::try_from(value).unwrap_or(u64::MAX)));
        }
        for sample in self.list() {
            line(&mut out, &mut last, "counter", sample);
        }
        line(&mut out, &mut last, "counter", ("udp_lost_datagrams_total", "", lost));
        out
    }
}

fn line(out: &mut String, last: &mut &'static str, kind: &str, sample: (&'static str, &str, u64)) {
    let (name, label, value) = sample;
    let mut text = String::new();
    if *last != name {
        text = format!("# TYPE meshrelay_{name} {kind}\n");
        *last = name;
    }
    let label = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
    writeln!(out, "{text}meshrelay_{name}{label} {value}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_each_type_once() {
        let metrics = Metrics::default();
        metrics.dropped_aged.add(3);
        let census = Census { members: 2, roots: 1, guests: 0, networks: 1, rosters: 1, roster_bytes: 9 };
        let text = metrics.render(&census, 7);
        assert!(text.contains("meshrelay_clients{role=\"member\"} 2\n"));
        assert!(text.contains("meshrelay_udp_lost_datagrams_total 7\n"));
        assert!(text.contains("meshrelay_dropped_messages_total{reason=\"too_old\"} 3\n"));
        assert_eq!(text.matches("# TYPE meshrelay_dropped_messages_total counter\n").count(), 1);
        assert!(
            text.lines().all(|line| line.starts_with("# TYPE meshrelay_") || line.starts_with("meshrelay_"))
        );
    }
}
