//! `relay`.

use mesh_control::{RelayState, RelayStatus, Relays, Timestamp};

use super::super::Style;
use super::super::table::{Cell, Column, Table};
use super::super::units::{clean, rtt, span, span_of};
use super::{relay_colour, without_pin};

/// The table of the relays; while the node is down, what the roster announces.
pub(crate) fn relays(relays: &Relays, now: Timestamp, style: Style) -> String {
    if relays.relays.is_empty() {
        let lines = relays.announced.iter().map(|url| format!("{}\n", clean(url)));
        return std::iter::once("this node is down; the network announces:\n".to_owned())
            .chain(lines)
            .collect();
    }
    let mut table = Table::new(&COLUMNS);
    for relay in &relays.relays {
        let text = |value: Option<String>| Cell::new(value.unwrap_or_else(|| "-".to_owned()));
        let connected = relay.state == RelayState::Connected;
        table.row(vec![
            Cell::new(clean(without_pin(&relay.url))),
            Cell::coloured(state(relay), relay_colour(relay.state)),
            text(role(relay).map(ToOwned::to_owned)),
            text(relay.rtt_ms.map(rtt)),
            text(connected.then(|| if relay.udp { "yes" } else { "no" }.to_owned())),
            text(relay.since.map(|since| span_of(since.age(now)))),
            Cell::new(relay.source.to_string()),
        ]);
    }
    let mut text = table.text(style);
    for relay in &relays.relays {
        if let Some(error) = relay.error.as_ref().filter(|_| relay.state != RelayState::Connected) {
            let wait = relay.retry_in_ms.map(|ms| format!(", next try in {}", span(ms.div_ceil(1000))));
            let wait = wait.unwrap_or_default();
            text.push_str(&format!("{}: {}{wait}\n", clean(without_pin(&relay.url)), clean(error)));
        }
    }
    text
}

/// How far the connection is, as one word.
pub(super) fn state(relay: &RelayStatus) -> String {
    match relay.state {
        RelayState::Connected if relay.suspect => "silent".into(),
        RelayState::Disconnected if relay.error.is_none() => "not needed".into(),
        RelayState::Disconnected | RelayState::Connecting | RelayState::Connected | RelayState::Unknown => {
            relay.state.to_string()
        }
    }
}

/// What the relay is to this node.
pub(super) const fn role(relay: &RelayStatus) -> Option<&'static str> {
    if relay.home {
        Some("home")
    } else if relay.warm {
        Some("warm")
    } else {
        None
    }
}

const COLUMNS: [Column; 7] = [
    Column { title: "RELAY", right: false, leave_out: 0 },
    Column { title: "STATE", right: false, leave_out: 0 },
    Column { title: "ROLE", right: false, leave_out: 0 },
    Column { title: "RTT", right: true, leave_out: 0 },
    Column { title: "UDP", right: false, leave_out: 2 },
    Column { title: "SINCE", right: true, leave_out: 3 },
    Column { title: "FROM", right: false, leave_out: 1 },
];
