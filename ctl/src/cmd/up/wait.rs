//! Waiting until data passes.

use std::time::Duration;

use mesh_control::{Client, EventStream, NodeState, PeerState, RelayState, Status, UpRequest};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Progress;

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A sealed packet went to a peer and back.
    DataPassed,
    /// There is nobody else yet.
    OnlyMember,
    /// There are others, and none is connected.
    AllOffline,
    /// The deadline came first.
    TimedOut,
}

/// Follows the status until there is an outcome; what it waits for goes to `progress`.
///
/// Events only say when to look again. When they break off, looking every second remains.
pub(super) async fn until_ready(
    client: &Client,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(Outcome, Status), Failure> {
    let mut events = timeout_at(deadline, client.events()).await.ok().and_then(Result::ok);
    let mut offline_since = None;
    loop {
        let status = client.status().await?;
        match status.state {
            NodeState::Unenrolled | NodeState::Down => {
                return Err(Failure::new(Exit::NotUp, "down", "the node was taken down meanwhile"));
            }
            NodeState::Starting | NodeState::Connecting | NodeState::Up | NodeState::Unknown => {}
        }
        if let Some(outcome) = outcome(&status, Instant::now(), &mut offline_since) {
            return Ok((outcome, status));
        }
        if Instant::now() >= deadline {
            return Ok((Outcome::TimedOut, status));
        }
        progress.show(&format!("waiting for {}", reason(&status)));
        let look_again = deadline.min(Instant::now() + LOOK_EVERY);
        tokio::select! {
            biased;
            () = sleep_until(look_again) => {}
            () = next_event(&mut events) => sleep(EVENT_PAUSE).await,
        }
    }
}

/// Asks the daemon and shows meanwhile what it waits for. At the deadline the daemon goes on and the last known reason
/// is returned, in words that follow the statement that it took too long.
pub(super) async fn for_answer(
    client: &Client,
    request: &UpRequest,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Result<(), String>, Failure> {
    let mut answer = std::pin::pin!(client.up(request));
    let mut waits_for = String::new();
    let mut look_at = Instant::now() + FIRST_LOOK;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => {
                answer?;
                return Ok(Ok(()));
            }
            () = sleep_until(deadline) => return Ok(Err(waits_for)),
            () = sleep_until(look_at) => {}
        }
        if let Ok(Ok(status)) = timeout_at(deadline, client.status()).await
            && !status.ready.reason.is_empty()
        {
            let reason = reason(&status);
            progress.show(&format!("waiting for {reason}"));
            waits_for = format!(": waiting for {reason}");
        }
        look_at = Instant::now() + LOOK_EVERY;
    }
}

/// What the node waits for, in words that follow "waiting for".
pub(super) fn reason(status: &Status) -> String {
    let relay_error = status
        .relay
        .as_ref()
        .filter(|relay| relay.state != RelayState::Connected)
        .and_then(|relay| relay.error.as_deref());
    match (status.ready.reason.as_str(), relay_error) {
        ("", None) => "data to pass".to_owned(),
        ("", Some(error)) => format!("the relay: {error}"),
        (reason, Some(error)) if !reason.contains(error) => format!("{reason} ({error})"),
        (reason, _) => reason.to_owned(),
    }
}

fn outcome(status: &Status, now: Instant, offline_since: &mut Option<Instant>) -> Option<Outcome> {
    if status.ready.data_passed {
        return Some(Outcome::DataPassed);
    }
    if status.state != NodeState::Up {
        *offline_since = None;
        return None;
    }
    if status.ready.only_member {
        return Some(Outcome::OnlyMember);
    }
    let offline =
        |peer: &mesh_control::PeerStatus| peer.online == Some(false) || peer.state == PeerState::Offline;
    if status.peers.is_empty() || !status.peers.iter().all(offline) {
        *offline_since = None;
        return None;
    }
    let since = *offline_since.get_or_insert(now);
    (now.duration_since(since) >= OFFLINE_SETTLES).then_some(Outcome::AllOffline)
}

/// Returns at the next event; never, once there is no stream.
async fn next_event(events: &mut Option<EventStream>) {
    if let Some(stream) = events {
        if let Ok(Some(_)) = stream.next().await {
            return;
        }
        *events = None;
    }
    std::future::pending().await
}

/// What takes no longer than this needs no explanation.
const FIRST_LOOK: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Events come in bursts; one look is enough for those of a twentieth of a second.
const EVENT_PAUSE: Duration = Duration::from_millis(50);

/// Peers that come up at the same moment are not called offline.
const OFFLINE_SETTLES: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use mesh_control::{Counters, CryptoStatus, PeerStatus, Readiness, RelayStatus};

    use super::*;

    fn status(state: NodeState, peers: &[Option<bool>]) -> Status {
        Status {
            state,
            version: String::new(),
            network: None,
            node: None,
            relays: Vec::new(),
            relay: None,
            ready: Readiness::default(),
            peers: peers.iter().map(|&online| PeerStatus { online, ..PeerStatus::default() }).collect(),
            counters: Counters::default(),
            crypto: CryptoStatus::default(),
            slowed_by: Vec::new(),
            wss: None,
        }
    }

    #[test]
    fn data_that_passed_is_enough() {
        let mut status = status(NodeState::Connecting, &[None]);
        status.ready.data_passed = true;
        assert_eq!(outcome(&status, Instant::now(), &mut None), Some(Outcome::DataPassed));
    }

    #[test]
    fn only_member_waits_for_the_relay() {
        let mut status = status(NodeState::Connecting, &[]);
        status.ready.only_member = true;
        assert_eq!(outcome(&status, Instant::now(), &mut None), None);
        status.state = NodeState::Up;
        assert_eq!(outcome(&status, Instant::now(), &mut None), Some(Outcome::OnlyMember));
    }

    #[test]
    fn all_offline_counts_once_it_has_settled() {
        let (now, mut since) = (Instant::now(), None);
        let offline = status(NodeState::Up, &[Some(false), Some(false)]);
        assert_eq!(outcome(&offline, now, &mut since), None);
        let later = now + OFFLINE_SETTLES;
        assert_eq!(outcome(&status(NodeState::Up, &[Some(false), None]), later, &mut since), None);
        assert_eq!(outcome(&offline, later, &mut since), None);
        assert_eq!(outcome(&offline, later + OFFLINE_SETTLES, &mut since), Some(Outcome::AllOffline));
    }

    #[test]
    fn reason_names_the_error_of_the_relay_once() {
        let mut status = status(NodeState::Connecting, &[]);
        assert_eq!(reason(&status), "data to pass");
        status.relay =
            Some(RelayStatus { error: Some("connection refused".into()), ..RelayStatus::default() });
        assert_eq!(reason(&status), "the relay: connection refused");
        status.ready.reason = "the relay r to answer".into();
        assert_eq!(reason(&status), "the relay r to answer (connection refused)");
        status.ready.reason = "the relay r: connection refused".into();
        assert_eq!(reason(&status), "the relay r: connection refused");
    }
}
