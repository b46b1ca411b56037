//! `why`.

use std::net::SocketAddr;

use mesh_control::{DirectStatus, NatMapping, PathKind, PeerStatus, PeerWss, RemoteAddress};
use serde_json::{Value, json};

use super::super::Style;
use super::super::table::{Cell, Colour, Column, Table};
use super::super::units::{clean, count, rtt, span};
use super::{Block, path, without_pin};
use crate::why::Verdict;

/// The path, the reason, what to do, then what is known of each address of the peer.
pub(crate) fn why(peer: &PeerStatus, verdict: &Verdict, style: Style) -> String {
    let mut block = Block::new();
    let colour = match peer.path {
        PathKind::Direct | PathKind::DirectWss => Colour::Good,
        PathKind::Relay => Colour::Pending,
        PathKind::None | PathKind::Unknown => Colour::Bad,
    };
    let path = if peer.path == PathKind::None { "no path".to_owned() } else { path(peer) };
    let rtt = peer.session.as_ref().and_then(|session| session.rtt_ms).map(rtt);
    let rtt = rtt.filter(|_| peer.path != PathKind::None).map(|rtt| format!(", {rtt}")).unwrap_or_default();
    let name = clean(&peer.name);
    let changes = changes(peer.path_changes);
    block.text.push_str(&format!("{name}: {}{rtt}, {changes}\n", colour.paint(&path, style)));
    block.line("because", &verdict.sentence);
    if let Some(fix) = &verdict.fix {
        block.line("to do", fix);
    }
    last_change(&mut block, peer);
    if let Some(mtu) = peer.path_mtu {
        block.line("mtu", &format!("packets up to {mtu} bytes pass in one piece"));
    }
    if let Some(relays) = home_relays(peer) {
        block.line("its relays", &relays);
    }
    if let Some(wss) = &peer.wss {
        block.line("its wss", &its_wss(wss));
    }
    if let Some(direct) = &peer.direct {
        search(&mut block, peer, direct);
        block.text.push_str(&table(&direct.remotes, style));
    }
    block.text
}

/// The same for programs, with everything that the daemon says of the peer.
pub(crate) fn why_json(peer: &PeerStatus, verdict: &Verdict) -> Value {
    json!({
        "schema": "shadowmesh.why/1",
        "name": peer.name,
        "path": peer.path,
        "reason": verdict.reason.as_str(),
        "because": verdict.sentence,
        "to_do": verdict.fix,
        "peer": peer,
    })
}

/// Where the peer says it is, home first.
pub(super) fn home_relays(peer: &PeerStatus) -> Option<String> {
    let relays: Vec<String> = peer.home_relays.iter().map(|url| clean(without_pin(url))).collect();
    (!relays.is_empty()).then(|| relays.join(", then "))
}

/// Where the peer offers WSS, and why the last attempt there failed.
pub(super) fn its_wss(wss: &PeerWss) -> String {
    let addresses: Vec<String> = wss.addresses.iter().map(ToString::to_string).collect();
    let error = wss.error.as_ref().map(|error| format!("; the last attempt failed: {error}"));
    format!("{}{}", addresses.join(", "), error.unwrap_or_default())
}

/// "path changed 2 times".
pub(super) fn changes(number: u64) -> String {
    if number == 0 {
        "path never changed".to_owned()
    } else {
        format!("path changed {}", count(number, "time"))
    }
}

fn last_change(block: &mut Block, peer: &PeerStatus) {
    let Some((change, seconds)) = peer.last_path_change.as_ref().zip(peer.last_path_change_s) else { return };
    let name = |kind: PathKind, endpoint: Option<SocketAddr>| match endpoint {
        Some(endpoint) => format!("{kind} ({endpoint})"),
        None => kind.to_string(),
    };
    let from = name(change.from, change.from_endpoint);
    let to = name(change.to, change.to_endpoint);
    block.line("changed", &format!("{} ago, from {from} to {to}: {}", span(seconds), change.reason));
}

fn search(block: &mut Block, peer: &PeerStatus, direct: &DirectStatus) {
    let next = match (direct.searching, direct.next_search_s) {
        (true, _) => "goes on".to_owned(),
        (false, None | Some(0)) if peer.path == PathKind::Direct => "found this path".to_owned(),
        (false, None | Some(0)) => "begins with the next packet".to_owned(),
        (false, Some(seconds)) => format!("begins again with traffic in {}", span(seconds)),
    };
    block.line("search", if direct.enabled { &next } else { "switched off" });
    block.line("nat here", nat(direct.own_mapping));
    block.line("nat there", nat(direct.peer_mapping));
    if let Some(birthday) = direct.birthday.filter(|birthday| birthday.attempts > 0) {
        let next = match (birthday.active, birthday.next_s) {
            (true, _) => ", goes on".to_owned(),
            (false, Some(seconds)) if seconds > 0 => format!(", again in {} at the earliest", span(seconds)),
            (false, _) => String::new(),
        };
        let tried = count(u64::from(birthday.attempts), "time");
        block.line(
            "guessing",
            &format!("{tried}, led to a path {}{next}", count(u64::from(birthday.found), "time")),
        );
    }
    if direct.guesses > 0 {
        block.line("guesses", &format!("{} challenges to ports that nobody named", direct.guesses));
    }
    let own: Vec<String> = direct.own.iter().map(|own| format!("{} ({})", own.address, own.kind)).collect();
    for remote in direct.remotes.iter().filter(|remote| remote.single) {
        let text = format!("one by one to {}: those sent together (GSO) do not arrive there", remote.address);
        block.line("datagrams", &text);
    }
    block.line("this node", &if own.is_empty() { "(no address known)".to_owned() } else { own.join(", ") });
}

fn table(remotes: &[RemoteAddress], style: Style) -> String {
    if remotes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&COLUMNS);
    let ago =
        |seconds: Option<u64>| seconds.map_or("never".to_owned(), |seconds| format!("{} ago", span(seconds)));
    for remote in remotes {
        let colour = match (remote.last_full_answer_s, remote.last_answer_s) {
            (Some(_), _) => Colour::Good,
            (None, Some(_)) => Colour::Pending,
            (None, None) => Colour::Faint,
        };
        table.row(vec![
            Cell::new(remote.address.to_string()),
            Cell::new(remote.kind.to_string()),
            Cell::new(remote.sent.to_string()),
            Cell::new(ago(remote.last_sent_s)),
            Cell::coloured(ago(remote.last_answer_s), colour),
            Cell::coloured(ago(remote.last_full_answer_s), colour),
            Cell::new(remote.mtu.map_or("-".to_owned(), |mtu| mtu.to_string())),
            Cell::new(remote.rtt_ms.map_or("-".to_owned(), rtt)),
        ]);
    }
    format!("\n{}", table.text(style))
}

pub(super) const fn nat(mapping: NatMapping) -> &'static str {
    match mapping {
        NatMapping::None => "none: its address is its own",
        NatMapping::Independent => "the same public port for every destination",
        NatMapping::Sequential => "the next public port for each destination (symmetric, in sequence)",
        NatMapping::Dependent => "another public port for each destination (symmetric)",
        NatMapping::Unknown => "not found out",
    }
}

const COLUMNS: [Column; 8] = [
    Column { title: "ITS ADDRESS", right: false, leave_out: 0 },
    Column { title: "KIND", right: false, leave_out: 3 },
    Column { title: "PROBES", right: true, leave_out: 4 },
    Column { title: "LAST", right: true, leave_out: 5 },
    Column { title: "ANSWERED", right: true, leave_out: 0 },
    Column { title: "LONG ONES", right: true, leave_out: 0 },
    Column { title: "MTU", right: true, leave_out: 1 },
    Column { title: "RTT", right: true, leave_out: 2 },
];
