//! `status` and `peers`.

use std::collections::BTreeMap;

use mesh_control::{NodeState, PeerStatus, RelayState, RelayStatus, Status, Timestamp, WssStatus};

use super::super::Style;
use super::super::table::{Cell, Colour, Column, Table};
use super::super::units::{bytes, clean, count, rtt, span, span_of};
use super::relays::{self, role};
use super::{Block, addresses, path, peer_state, relay_colour, without_pin};

/// A block about this node, then the table of its peers.
pub(crate) fn status(status: &Status, now: Timestamp, style: Style) -> String {
    let mut block = Block::new();
    let (state, colour) = node_state(status);
    block.painted("state", &colour.paint(&clean(&state), style));
    if let Some(network) = &status.network {
        let members = count(network.members, "member");
        block.line(
            "network",
            &format!("{} ({}), {members}, roster {}", network.name, network.role, network.roster_version),
        );
    }
    if let Some(node) = &status.node {
        block.line("node", &node.name);
        block.line("addresses", &addresses(&node.addresses));
        block.line("interface", &format!("{} ({}, mtu {})", node.interface, node.mode, node.mtu));
    }
    if let Some(relay) = &status.relay {
        let state = relay_colour(relay.state).paint(&relay.state.to_string(), style);
        block.painted(
            "relay",
            &format!("{} {state}{}", clean(without_pin(&relay.url)), clean(&relay_details(relay, now))),
        );
    }
    for relay in status.relays.iter().filter(|relay| !relay.home && status.relays.len() > 1) {
        if status.relay.as_ref().is_some_and(|shown| shown.url == relay.url) {
            continue;
        }
        let role = role(relay).map(|role| format!(" ({role})")).unwrap_or_default();
        let length = relay.rtt_ms.map(|ms| format!(", round trip {}", rtt(ms))).unwrap_or_default();
        let state = relay_colour(relay.state).paint(&relays::state(relay), style);
        block.painted("relay", &format!("{}{role} {state}{length}", clean(without_pin(&relay.url))));
    }
    if matches!(status.state, NodeState::Unenrolled | NodeState::Down) {
        return block.text;
    }
    if let Some(wss) = &status.wss {
        let (text, colour) = own_wss(wss);
        block.painted("wss", &format!("{} {}", clean(&wss.listen), colour.paint(&clean(&text), style)));
    }
    let counters = &status.counters;
    let traffic = |bytes_count, packets| format!("{} in {}", bytes(bytes_count), count(packets, "packet"));
    block.line("received", &traffic(counters.rx_bytes, counters.rx_packets));
    block.line("sent", &traffic(counters.tx_bytes, counters.tx_packets));
    let drops: Vec<String> =
        counters.drops.iter().filter(|(_, n)| **n > 0).map(|(reason, n)| format!("{n} {reason}")).collect();
    if !drops.is_empty() {
        block.line("dropped", &drops.join(", "));
    }
    for slowdown in &status.slowed_by {
        block.line("slowed", &slowdown.detail);
    }
    block.line("crypto", &format!("{}, frames by {}", status.crypto.provider, status.crypto.aead));
    if !status.peers.is_empty() {
        block.text.push('\n');
        block.text.push_str(&peers(&status.peers, style));
    }
    block.text
}

/// The table of peers.
pub(crate) fn peers(peers: &[PeerStatus], style: Style) -> String {
    if peers.is_empty() {
        return "no other members\n".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for peer in peers {
        let session = peer.session.as_ref();
        let number = |value: Option<String>| Cell::new(value.unwrap_or_else(|| "-".to_owned()));
        let (state, colour) = peer_state(peer);
        table.row(vec![
            Cell::new(clean(&peer.name)),
            number(peer.addresses.first().map(ToString::to_string)),
            Cell::coloured(state, colour),
            Cell::new(path(peer)),
            number(session.and_then(|s| s.rtt_ms).map(rtt)),
            number(session.map(|s| bytes(s.rx_bytes))),
            number(session.map(|s| bytes(s.tx_bytes))),
            number(session.map(|s| span(s.handshake_age_s))),
            number(session.map(|s| span(s.key_age_s))),
            number(session.map(|_| peer.path_changes.to_string())),
        ]);
    }
    let mut text = table.text(style);
    text.push_str(&suites(peers));
    for peer in peers {
        if let Some(error) = &peer.last_error {
            text.push_str(&format!("{}: {}\n", clean(&peer.name), clean(error)));
        }
    }
    text
}

/// Says which algorithms are in use with whom, a line each.
fn suites(peers: &[PeerStatus]) -> String {
    let mut by_suite: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for peer in peers {
        if let Some(session) = &peer.session {
            by_suite.entry(clean(&session.suite)).or_default().push(clean(&peer.name));
        }
    }
    by_suite.iter().map(|(suite, names)| format!("with {}: {suite}\n", names.join(", "))).collect()
}

fn node_state(status: &Status) -> (String, Colour) {
    match status.state {
        NodeState::Unenrolled => {
            ("in no network; \"meshctl up --help\" shows how to create or join one".into(), Colour::Pending)
        }
        NodeState::Down => ("down; \"meshctl up\" brings it up".into(), Colour::Pending),
        NodeState::Connecting if status.ready.data_passed => {
            let reason = &status.ready.reason;
            (format!("degraded: data passes without the relay; waiting for {reason}"), Colour::Pending)
        }
        NodeState::Starting | NodeState::Connecting => {
            let reason = &status.ready.reason;
            let waits = if reason.is_empty() { String::new() } else { format!(", waiting for {reason}") };
            (format!("{}{waits}", status.state), Colour::Pending)
        }
        NodeState::Up if status.ready.data_passed => ("up, data passes".into(), Colour::Good),
        NodeState::Up if status.ready.only_member => ("up, only member so far".into(), Colour::Good),
        NodeState::Up if status.ready.reason.is_empty() => ("up".into(), Colour::Good),
        NodeState::Up => (format!("up, waiting for {}", status.ready.reason), Colour::Good),
        NodeState::Unknown => ("unknown; meshd is newer than meshctl".into(), Colour::Plain),
    }
}

/// Whether members can connect to this node, and where they are told to.
fn own_wss(wss: &WssStatus) -> (String, Colour) {
    if let Some(error) = &wss.error {
        return (format!("closed: {error}"), Colour::Bad);
    }
    if !wss.open {
        return ("not open yet".to_owned(), Colour::Pending);
    }
    let addresses: Vec<String> =
        wss.addresses.iter().map(|known| format!("{} ({})", known.address, known.kind)).collect();
    let told = if addresses.is_empty() { "no address known".to_owned() } else { addresses.join(", ") };
    let refused = if wss.refused > 0 {
        format!("; {} refused", count(wss.refused, "connection"))
    } else {
        String::new()
    };
    (format!("open, told to peers: {told}{refused}"), Colour::Good)
}

fn relay_details(relay: &RelayStatus, now: Timestamp) -> String {
    let mut text = String::new();
    if let Some(since) = relay.since {
        text.push_str(&format!(" for {}", span_of(since.age(now))));
    }
    if relay.state == RelayState::Connected {
        if let Some(ms) = relay.connect_ms {
            text.push_str(&format!(", connected within {ms} ms"));
        }
        if let Some(ms) = relay.rtt_ms {
            text.push_str(&format!(", round trip {}", rtt(ms)));
        }
        if relay.suspect {
            text.push_str(", silent");
        }
        if let Some(address) = relay.observed_address {
            text.push_str(&format!(", sees us as {address}"));
        }
        if relay.udp {
            text.push_str(", frames over UDP");
        }
    } else {
        if let Some(error) = &relay.error {
            text.push_str(&format!(": {error}"));
        }
        if let Some(ms) = relay.retry_in_ms {
            text.push_str(&format!(", next try in {}", span(ms.div_ceil(1000))));
        }
    }
    text
}

const COLUMNS: [Column; 10] = [
    Column { title: "NAME", right: false, leave_out: 0 },
    Column { title: "ADDRESS", right: false, leave_out: 0 },
    Column { title: "STATE", right: false, leave_out: 0 },
    Column { title: "PATH", right: false, leave_out: 2 },
    Column { title: "RTT", right: true, leave_out: 3 },
    Column { title: "RX", right: true, leave_out: 5 },
    Column { title: "TX", right: true, leave_out: 4 },
    Column { title: "HANDSHAKE", right: true, leave_out: 6 },
    Column { title: "KEYS", right: true, leave_out: 1 },
    Column { title: "PATH CHANGES", right: true, leave_out: 7 },
];
