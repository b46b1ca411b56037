//! The texts for people, one function per answer.

mod netcheck;
mod ping;
mod relays;
mod status;
mod why;

use mesh_control::{
    DownAnswer, Id, InviteAnswer, NodeState, PathKind, PeerState, PeerStatus, RelayState, Status, Timestamp,
    Version,
};

use super::Style;
use super::table::Colour;
use super::units::{bytes, clean, count, rtt, span};
pub(crate) use netcheck::netcheck;
pub(crate) use ping::{PingSummary, loss as ping_loss, reply as ping_reply};
pub(crate) use relays::relays;
pub(crate) use status::{peers, status};
pub(crate) use why::{why, why_json};

/// After `down`.
pub(crate) fn down(answer: &DownAnswer) -> String {
    let text = match (answer.state, answer.changed) {
        (NodeState::Unenrolled, _) => "this node is in no network",
        (_, true) => "down",
        (_, false) => "already down",
    };
    format!("{text}\n")
}

/// Who this node is.
pub(crate) fn id(id: &Id) -> String {
    let mut block = Block::new();
    block.line("node", id.name.as_deref().unwrap_or("(no name yet)"));
    block.line("node id", &id.node_id);
    block.line("keys", &id.public_key_fingerprint);
    block.line("network", id.network.as_deref().unwrap_or("(none)"));
    if let Some(net_id) = &id.net_id {
        block.line("network id", net_id);
    }
    block.text
}

/// What stands beside a ticket, for the person and not for the pipe.
pub(crate) fn invite(answer: &InviteAnswer, now: Timestamp) -> String {
    // Rounded, since a moment passes between making and showing it.
    let left = now.age(answer.expires).as_millis().saturating_add(500) / 1000;
    let left = span(u64::try_from(left).unwrap_or(u64::MAX));
    let nodes = count(answer.uses, "node");
    format!("good for {nodes} within {left}; on the other machine: meshctl up --ticket-file -")
}

/// Our version and the daemon's.
pub(crate) fn versions(own: &str, daemon: Option<&Version>) -> String {
    let mut text = format!("meshctl {own}\n");
    if let Some(daemon) = daemon {
        text.push_str(&format!("meshd   {} ({})\n", clean(&daemon.version), clean(&daemon.protocol)));
    }
    text
}

/// After `up`: who and where this node is, and whom it reaches.
pub(crate) fn up(status: &Status, style: Style) -> String {
    let mut block = Block::new();
    if let (Some(node), Some(network)) = (&status.node, &status.network) {
        let name = Colour::Good.paint(&clean(&node.name), style);
        block.text.push_str(&format!("{name} is {} in {}\n", status.state, clean(&network.name)));
        block.line("  addresses", &addresses(&node.addresses));
        block.line("  interface", &format!("{} ({}, mtu {})", node.interface, node.mode, node.mtu));
    }
    if let Some(relay) = &status.relay {
        block.line("  relay", &format!("{} {}", without_pin(&relay.url), relay.state));
    }
    let best = status.peers.iter().filter(|peer| peer.state == PeerState::Established).min_by(|a, b| {
        let rtt = |peer: &PeerStatus| peer.session.as_ref().and_then(|s| s.rtt_ms).unwrap_or(f64::MAX);
        rtt(a).total_cmp(&rtt(b))
    });
    if let Some(peer) = best {
        let rtt = peer
            .session
            .as_ref()
            .and_then(|s| s.rtt_ms)
            .map(|ms| format!(", {}", rtt(ms)))
            .unwrap_or_default();
        block.line("  reaches", &format!("{} via {}{rtt}", peer.name, path(peer)));
    } else if status.ready.only_member {
        block.line("  reaches", "nobody yet: this is the only member; \"meshctl invite\" makes a ticket");
    } else if !status.ready.reason.is_empty() {
        block.line("  waits for", &status.ready.reason);
    }
    block.text
}

/// Everything about one peer.
pub(crate) fn peer(peer: &PeerStatus, style: Style) -> String {
    let mut block = Block::new();
    block.line("name", &peer.name);
    block.line("node id", &peer.node_id);
    block.line("addresses", &addresses(&peer.addresses));
    block.line("groups", &if peer.groups.is_empty() { "(none)".to_owned() } else { peer.groups.join(", ") });
    let (state, colour) = peer_state(peer);
    block.painted("state", &colour.paint(&state, style));
    let changes = Some(peer.path_changes).filter(|changes| *changes > 0);
    let changes = changes.map(|changes| format!(", {}", why::changes(changes))).unwrap_or_default();
    block.line("path", &format!("{}{changes}", path(peer)));
    if let Some(relays) = why::home_relays(peer) {
        block.line("its relays", &relays);
    }
    if let Some(wss) = &peer.wss {
        block.line("its wss", &why::its_wss(wss));
    }
    if let Some(session) = &peer.session {
        block.line("rtt", &session.rtt_ms.map_or("-".to_owned(), rtt));
        block.line(
            "received",
            &format!("{} in {}", bytes(session.rx_bytes), count(session.rx_packets, "packet")),
        );
        block
            .line("sent", &format!("{} in {}", bytes(session.tx_bytes), count(session.tx_packets, "packet")));
        block.line(
            "last heard",
            &session.last_received_s.map_or("never".to_owned(), |s| format!("{} ago", span(s))),
        );
        block.line(
            "handshake",
            &format!("{} ago, keys {} old", span(session.handshake_age_s), span(session.key_age_s)),
        );
        block.line("suite", &session.suite);
        block.line(
            "tls keys",
            if session.exporter_mixed { "mixed into the keys" } else { "not mixed in yet" },
        );
    }
    if let Some(software) = &peer.software {
        block.line("software", software);
    }
    if let Some(error) = &peer.last_error {
        block.line("last error", error);
    }
    block.text
}

/// Lines of a label and a value, aligned.
#[derive(Debug)]
struct Block {
    text: String,
}

impl Block {
    fn new() -> Self {
        Self { text: String::new() }
    }

    /// A value that may come from elsewhere.
    fn line(&mut self, label: &str, value: &str) {
        self.painted(label, &clean(value));
    }

    /// A value that is clean, and may have colours.
    fn painted(&mut self, label: &str, value: &str) {
        self.text.push_str(&format!("{label:<LABEL_WIDTH$}{value}\n"));
    }
}

fn addresses(addresses: &[std::net::IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "(none)".to_owned() } else { texts.join(", ") }
}

/// What carries the frames, with the relay's name.
fn path(peer: &PeerStatus) -> String {
    match (peer.path, &peer.relay) {
        (PathKind::Relay, Some(relay)) => format!("relay ({})", clean(relay)),
        (PathKind::Direct, _) if peer.endpoint.is_some() => {
            peer.endpoint.map_or_else(String::new, |endpoint| format!("direct ({endpoint})"))
        }
        (PathKind::DirectWss, _) => {
            peer.endpoint.map_or_else(|| peer.path.to_string(), |endpoint| format!("direct-wss ({endpoint})"))
        }
        (kind, _) => kind.to_string(),
    }
}

fn peer_state(peer: &PeerStatus) -> (String, Colour) {
    match peer.state {
        PeerState::Established => ("established".into(), Colour::Good),
        PeerState::Handshaking => ("handshaking".into(), Colour::Pending),
        PeerState::Offline => ("offline".into(), Colour::Faint),
        PeerState::Idle if peer.online == Some(false) => ("offline".into(), Colour::Faint),
        PeerState::Idle => ("idle".into(), Colour::Plain),
        PeerState::Unknown => ("unknown".into(), Colour::Plain),
    }
}

fn relay_colour(state: RelayState) -> Colour {
    match state {
        RelayState::Connected => Colour::Good,
        RelayState::Connecting => Colour::Pending,
        RelayState::Disconnected => Colour::Bad,
        RelayState::Unknown => Colour::Plain,
    }
}

/// A pin is for the configuration; on a status line it is noise.
fn without_pin(url: &str) -> &str {
    url.split('#').next().unwrap_or(url)
}

/// The longest label and a gap.
const LABEL_WIDTH: usize = 13;

#[cfg(test)]
mod tests;
