//! How a node joins: through the relay as a guest, with the handshake keyed by its ticket, to the network's root.
//!
//! In: a ticket and the node's keys. Out: a [`Membership`], or an error that says which of the many things it was.
//! A relay that is down and a coordinator that is away are waited for; everything else ends the attempt.

pub mod link;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_control::{ApiError, ErrorCode};
use mesh_identity::{Roster, Ticket, TicketError, UnixSeconds};
use mesh_net::{RelayClient, RelayConfig, RelayErrorKind, RelayEvent, RelaySender};
use mesh_session::handshake::{
    AwaitChallenge, AwaitEstablished, Established, Local, LocalClaims, Network, Purpose,
};
use mesh_wire::control::{Control, ENROL_ANSWER, EnrolAnswer, Refusal};
use mesh_wire::frame::SEALED;
use mesh_wire::handshake::{
    CHALLENGE, ENROL_UNKNOWN, ESTABLISHED, Params, encode_enrol, parse_enrol_unknown,
};
use mesh_wire::relay::Role;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use zeroize::{Zeroize as _, Zeroizing};

use self::link::{Heard, Link, open_control, seal_control};
use crate::engine::unix_now;
use crate::state::Membership;

/// A step that stays unanswered is begun anew after this and a random time below [`SPREAD_MS`].
const STEP: Duration = Duration::from_secs(3);
/// Nodes that were turned away together, because too many came at once, do not come back together.
const SPREAD_MS: u32 = 1000;

/// Joins the network of a ticket. `progress` is told what is being waited for.
///
/// # Errors
/// An [`ApiError`] whose code tells a damaged, expired, used or foreign ticket, a taken name and a wrong pin apart.
pub async fn join(
    ticket: &Ticket,
    local: &Local,
    name: &str,
    progress: &watch::Sender<String>,
) -> Result<Membership, ApiError> {
    ticket.check_expiry(UnixSeconds(unix_now())).map_err(ticket_error)?;
    let (link, mut heard) = Link::new();
    let client = RelayClient::start(
        RelayConfig {
            door: None,
            udp: true,
            url: ticket.relay().clone(),
            pin: Some(ticket.pin()),
            role: Role::Guest,
            net: ticket.net(),
            identity: Arc::clone(&local.identity),
            admission: Vec::new(),
        },
        Arc::new(link),
    );
    let attempt = Attempt {
        ticket,
        local,
        name,
        progress,
        network: Network::new(ticket.net(), ticket.psk(), Purpose::Enrol),
        relay: client.sender(),
    };
    let result = attempt.run(&mut heard).await;
    client.stop().await;
    result
}

/// Returns how a ticket's fault reads to people.
pub fn ticket_error(error: TicketError) -> ApiError {
    let code = match error {
        TicketError::Expired => ErrorCode::TicketExpired,
        TicketError::Randomness => ErrorCode::Internal,
        TicketError::NotATicket
        | TicketError::Damaged
        | TicketError::UnknownVersion(_)
        | TicketError::Invalid(_) => ErrorCode::TicketDamaged,
    };
    ApiError::new(code, error.to_string()).with_hint("ask for a new one: meshctl invite")
}

struct Attempt<'a> {
    ticket: &'a Ticket,
    local: &'a Local,
    name: &'a str,
    progress: &'a watch::Sender<String>,
    network: Network,
    relay: RelaySender,
}

/// Where the attempt stands.
enum Step {
    /// The relay or the coordinator is not there.
    Away,
    Hello(Box<AwaitChallenge>),
    Response(Box<AwaitEstablished>),
    Asked(Box<Established>, Zeroizing<Vec<u8>>),
}

impl Attempt<'_> {
    async fn run(&self, heard: &mut link::Receiver) -> Result<Membership, ApiError> {
        let mut step = Step::Away;
        let mut due = repeat_at();
        self.say(format!("the relay {} to answer", self.ticket.relay()));
        loop {
            let next = match timeout_at(due, heard.recv()).await {
                Err(_) if matches!(step, Step::Away) => {
                    due = repeat_at();
                    continue;
                }
                Err(_) => self.hello()?,
                Ok(None) => return Err(ApiError::new(ErrorCode::Internal, "the relay client ended")),
                Ok(Some(Heard::Event(event))) => match self.event(event)? {
                    Some(next) => next,
                    None => continue,
                },
                Ok(Some(Heard::Frames { from, payload, .. })) if from == self.ticket.net().as_party() => {
                    match self.message(step, payload)? {
                        Progress::Step(next, moved) => {
                            step = next;
                            if moved {
                                due = repeat_at();
                            }
                            continue;
                        }
                        Progress::Joined(membership) => return Ok(*membership),
                    }
                }
                Ok(Some(Heard::Frames { .. })) => continue,
            };
            step = next;
            due = repeat_at();
        }
    }

    fn event(&self, event: RelayEvent) -> Result<Option<Step>, ApiError> {
        let relay = self.ticket.relay();
        match event {
            RelayEvent::Up { .. } => {
                self.say("the relay to find the network's coordinator".into());
                self.relay
                    .bind(self.ticket.net().as_party())
                    .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
                Ok(None)
            }
            RelayEvent::Down { reason, .. } => {
                if let Some(error) = crate::relay_error(relay, &reason) {
                    return Err(error);
                }
                self.say(format!("the relay {relay} to answer ({reason})"));
                Ok(Some(Step::Away))
            }
            RelayEvent::Peer { node, present } if node == self.ticket.net().as_party() => {
                if present {
                    return self.hello().map(Some);
                }
                self.say(
                    "the network's coordinator to come online; if it is online, the ticket is for another network"
                        .into(),
                );
                Ok(Some(Step::Away))
            }
            RelayEvent::Connecting
            | RelayEvent::Peer { .. }
            | RelayEvent::Roster { .. }
            | RelayEvent::Notice(_)
            | RelayEvent::Udp(_)
            | RelayEvent::Suspect(_)
            | RelayEvent::Rtt(_) => Ok(None),
        }
    }

    fn hello(&self) -> Result<Step, ApiError> {
        self.say("the coordinator to check the ticket".into());
        let (index, nonce) = (1, link::random()?);
        let (state, hello) =
            AwaitChallenge::start(self.local, &self.network, self.ticket.net().as_party(), index, nonce)
                .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        self.send(&encode_enrol(&self.ticket.invite_id(), &hello));
        Ok(Step::Hello(Box::new(state)))
    }

    fn message(&self, step: Step, payload: BytesMut) -> Result<Progress, ApiError> {
        match (payload.first().copied(), step) {
            (Some(ENROL_UNKNOWN), step) => {
                if parse_enrol_unknown(&payload) == Ok(self.ticket.invite_id()) {
                    return Err(ApiError::new(
                        ErrorCode::TicketForeign,
                        "the coordinator of this network does not know the ticket: it is of another network, or was withdrawn",
                    )
                    .with_hint("ask for a new one: meshctl invite"));
                }
                Ok(Progress::Step(step, false))
            }
            (Some(CHALLENGE), Step::Hello(state)) => {
                match state.take(self.local, &self.network, &payload, &claims()) {
                    Ok((next, response)) => {
                        self.send(&response);
                        Ok(Progress::Step(Step::Response(Box::new(next)), true))
                    }
                    Err(_) => Ok(Progress::Step(Step::Hello(state), false)),
                }
            }
            (Some(ESTABLISHED), Step::Response(state)) => match state.take(self.local, &payload) {
                Ok(mut established) => {
                    self.say("the coordinator to admit this node".into());
                    let request = Control::EnrolRequest { name: self.name };
                    self.send(&seal_control(&mut established.session, &request)?);
                    Ok(Progress::Step(Step::Asked(Box::new(established), Zeroizing::default()), true))
                }
                Err(_) => Ok(Progress::Step(Step::Response(state), false)),
            },
            (Some(SEALED), Step::Asked(established, answer)) => self.answer(established, answer, payload),
            (_, step) => Ok(Progress::Step(step, false)),
        }
    }

    /// Takes a refusal, or a part of the answer, which is acknowledged so that the next one leaves.
    fn answer(
        &self,
        mut established: Box<Established>,
        mut answer: Zeroizing<Vec<u8>>,
        mut payload: BytesMut,
    ) -> Result<Progress, ApiError> {
        let message = open_control(&mut established.session, &mut payload);
        if let Some(Control::EnrolRefused { refusal, text }) = message {
            return Err(refused(refusal, text));
        }
        let Some(Control::EnrolPart { total, offset, bytes }) = message else {
            return Ok(Progress::Step(Step::Asked(established, answer), false));
        };
        let taken = collect(&mut answer, total, offset, bytes);
        payload.zeroize();
        if taken == Taken::Whole {
            return self.admitted(&answer).map(Progress::Joined);
        }
        if taken == Taken::Part {
            self.send(&seal_control(&mut established.session, &Control::Keepalive)?);
        }
        Ok(Progress::Step(Step::Asked(established, answer), taken == Taken::Part))
    }

    fn admitted(&self, answer: &[u8]) -> Result<Box<Membership>, ApiError> {
        let wrong = |text: String| {
            ApiError::new(ErrorCode::Internal, format!("the coordinator's answer is wrong: {text}"))
        };
        let answer = EnrolAnswer::parse(answer).map_err(|error| wrong(error.to_string()))?;
        let roster = Roster::verify(answer.roster, self.ticket.net(), UnixSeconds(unix_now()))
            .map_err(|error| wrong(error.to_string()))?;
        if roster.leaf(&self.local.identity.node_id()).is_none() {
            return Err(wrong("the roster does not hold this node".into()));
        }
        Ok(Box::new(Membership {
            net: self.ticket.net(),
            network_secret: answer.network_secret,
            secret_epoch: answer.secret_epoch,
            relay: self.ticket.relay().clone(),
            pin: self.ticket.pin(),
            up: true,
            roster: Arc::new(roster),
        }))
    }

    fn send(&self, message: &[u8]) {
        // What is lost on a full queue or a broken connection is sent anew by the step's deadline.
        let _ = self.relay.send(self.ticket.net().as_party(), BytesMut::from(message), None);
    }

    fn say(&self, text: String) {
        self.progress.send_replace(text);
    }
}

fn repeat_at() -> Instant {
    let random = link::random().map_or(0, u32::from_le_bytes);
    Instant::now() + STEP + Duration::from_millis(u64::from(random % SPREAD_MS))
}

enum Progress {
    Step(Step, bool),
    Joined(Box<Membership>),
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It does not follow the last one.
    No,
    /// More have to come.
    Part,
    /// It was the last one.
    Whole,
}

/// Appends a part that follows the last one.
fn collect(answer: &mut Vec<u8>, total: u32, offset: u32, bytes: &[u8]) -> Taken {
    let (Ok(total), Ok(offset)) = (usize::try_from(total), usize::try_from(offset)) else {
        return Taken::No;
    };
    if bytes.is_empty() || total > ENROL_ANSWER || offset != answer.len() || offset + bytes.len() > total {
        return Taken::No;
    }
    // All at once: what grows leaves copies of the secrets behind.
    answer.reserve_exact(total - offset);
    answer.extend_from_slice(bytes);
    if answer.len() == total { Taken::Whole } else { Taken::Part }
}

fn refused(refusal: Refusal, text: &str) -> ApiError {
    let code = match refusal {
        Refusal::Expired => ErrorCode::TicketExpired,
        Refusal::Used => ErrorCode::TicketUsed,
        Refusal::NameTaken => ErrorCode::TicketNameTaken,
        Refusal::Full | Refusal::Storage | Refusal::Malformed => ErrorCode::RelayRefused,
    };
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    let error = ApiError::new(code, format!("the coordinator refuses: {clean}"));
    match refusal {
        Refusal::NameTaken => error.with_hint("choose another one with --name"),
        Refusal::Expired | Refusal::Used => error.with_hint("ask for a new one: meshctl invite"),
        Refusal::Full | Refusal::Storage | Refusal::Malformed => error,
    }
}

/// An enrolment proves keys only; the node is no member yet.
pub(crate) fn claims() -> LocalClaims {
    let params = Params {
        capabilities: 0,
        lanes: 1,
        mtu: 1280,
        roster_version: 0,
        tls_pin: [0; 32],
        mixed_index: 0,
        connection: [0; 8],
    };
    LocalClaims { proof: Vec::new(), params }
}

/// Tells whether trying again is of no use.
#[must_use]
pub const fn is_final(kind: RelayErrorKind) -> bool {
    use mesh_wire::relay::ErrorCode as Code;
    match kind {
        RelayErrorKind::PinMissing | RelayErrorKind::PinMismatch | RelayErrorKind::Identity => true,
        RelayErrorKind::Auth(code) => match code {
            Code::Version
            | Code::BadMessage
            | Code::BadSignature
            | Code::NotAdmitted
            | Code::NetworkNotServed
            | Code::NotPermitted => true,
            Code::Replaced
            | Code::ControlOverflow
            | Code::TooManyHandles
            | Code::TooLarge
            | Code::Busy
            | Code::StaleRoster
            | Code::RosterNotKept
            | Code::Other(_) => false,
        },
        RelayErrorKind::Unresolved
        | RelayErrorKind::Refused
        | RelayErrorKind::Unreachable
        | RelayErrorKind::Timeout
        | RelayErrorKind::Tls
        | RelayErrorKind::Protocol
        | RelayErrorKind::Replaced
        | RelayErrorKind::Restarting { .. }
        | RelayErrorKind::Closed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_in_order_only() {
        let mut answer = Vec::new();
        assert_eq!(collect(&mut answer, 4, 2, b"cd"), Taken::No);
        assert_eq!(collect(&mut answer, 4, 0, b"ab"), Taken::Part);
        assert_eq!(collect(&mut answer, 4, 0, b"ab"), Taken::No);
        assert_eq!(collect(&mut answer, 4, 2, b"cde"), Taken::No);
        assert_eq!(collect(&mut answer, 4, 2, b""), Taken::No);
        assert_eq!(collect(&mut answer, 4, 2, b"cd"), Taken::Whole);
        assert_eq!(answer, b"abcd");
        assert_eq!(collect(&mut Vec::new(), u32::MAX, 0, b"a"), Taken::No);
    }

    #[test]
    fn only_refusals_that_time_does_not_cure_are_final() {
        use mesh_wire::relay::ErrorCode as Code;
        for code in [Code::Version, Code::BadSignature, Code::NotAdmitted, Code::NetworkNotServed] {
            assert!(is_final(RelayErrorKind::Auth(code)), "{code:?}");
        }
        for code in [Code::Busy, Code::Replaced, Code::ControlOverflow, Code::Other(99)] {
            assert!(!is_final(RelayErrorKind::Auth(code)), "{code:?}");
        }
        assert!(is_final(RelayErrorKind::PinMismatch) && !is_final(RelayErrorKind::Timeout));
    }
}
