//! Answers STUN binding requests, and nothing else.
//!
//! A request may ask that the answer come from another of the relay's STUN addresses (RFC 5780), which shows how a NAT
//! filters. Invariants: an answer goes to where the request came from and nowhere else; only who sends a CHANGE-REQUEST
//! gets the two further addresses, so that an ordinary answer stays small, and only [`CHANGES_PER_SECOND`] of those are
//! answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_wire::stun::{BindingRequest, BindingSuccess, Change, MESSAGE};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::bucket::Bucket;

/// All STUN sockets of the relay: one may have to answer in place of another.
#[derive(Debug)]
pub(crate) struct Service {
    sockets: Vec<UdpSocket>,
    /// Where each is bound, in the same order.
    bound: Vec<SocketAddr>,
    changes: Mutex<Bucket>,
}

impl Service {
    pub(crate) fn new(sockets: Vec<UdpSocket>) -> Self {
        let with_address = |socket: UdpSocket| socket.local_addr().ok().map(|bound| (socket, bound));
        let (sockets, bound) = sockets.into_iter().filter_map(with_address).unzip();
        let changes = Mutex::new(Bucket::new(CHANGES_PER_SECOND, CHANGES_PER_SECOND, Instant::now()));
        Self { sockets, bound, changes }
    }

    /// Returns where the sockets are bound.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Sends the answer, if there is one; tells whether it went out.
    fn answer(&self, own: usize, datagram: &[u8], from: SocketAddr) -> bool {
        let Ok(BindingRequest { transaction, fingerprint, change }) = BindingRequest::parse(datagram) else {
            return false;
        };
        let mut answer = BindingSuccess { transaction, mapped: from, fingerprint, origin: None, other: None };
        let mut by = own;
        if let Some(change) = change {
            let Some(chosen) = choose(&self.bound, own, change) else { return false };
            let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            if !changes.try_take(1.0, Instant::now()) {
                return false;
            }
            by = chosen;
            answer.origin = self.bound.get(by).copied();
            answer.other = other(&self.bound, own).and_then(|other| self.bound.get(other).copied());
        }
        // An answer that does not go out is asked for again.
        self.sockets.get(by).is_some_and(|socket| socket.try_send_to(&answer.encode(), from).is_ok())
    }
}

/// Runs until told to stop.
pub(crate) async fn answer_loop(
    service: Arc<Service>,
    own: usize,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let Some(socket) = service.sockets.get(own) else { return };
    // One byte more than the longest request, so that a longer datagram shows.
    let mut buffer = [0; MESSAGE + 1];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((len, from)) if service.answer(own, &buffer[..len], from) => {
                shared.metrics.stun_answers.add(1);
            }
            Ok(_) => shared.metrics.stun_ignored.add(1),
            Err(error) => {
                tracing::debug!(reason = %error, "receiving on the STUN socket failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// The socket that answers what came to socket `own`; `None` when none differs from it in just what is asked.
fn choose(bound: &[SocketAddr], own: usize, change: Change) -> Option<usize> {
    let here = bound.get(own)?;
    bound.iter().position(|there| {
        there.is_ipv4() == here.is_ipv4()
            && (there.ip() != here.ip()) == change.address
            && (there.port() != here.port()) == change.port
            // Which address a socket on all of them answers from is not the relay's choice.
            && !(change.address && (there.ip().is_unspecified() || here.ip().is_unspecified()))
    })
}

/// The socket that differs most from `own`.
fn other(bound: &[SocketAddr], own: usize) -> Option<usize> {
    choose(bound, own, Change { address: true, port: true })
        .or_else(|| choose(bound, own, Change { address: false, port: true }))
}

/// An error of the socket that persists must not take a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Requests with CHANGE-REQUEST that are answered each second: a node sends a handful when somebody asks it to.
const CHANGES_PER_SECOND: f64 = 200.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn partner_differs_in_just_what_is_asked() {
        let change = |address, port| Change { address, port };
        let full = bound(&["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.2:2", "[2001:db8::1]:2"]);
        assert_eq!(choose(&full, 0, change(false, false)), Some(0));
        assert_eq!(choose(&full, 0, change(false, true)), Some(1));
        assert_eq!(choose(&full, 0, change(true, false)), Some(2));
        assert_eq!(choose(&full, 0, change(true, true)), Some(3));
        assert_eq!(other(&full, 3), Some(0));
        assert_eq!(other(&full, 4), None);
        let wild = bound(&["0.0.0.0:1", "0.0.0.0:2", "192.0.2.2:3"]);
        assert_eq!(choose(&wild, 0, change(false, true)), Some(1));
        assert_eq!(choose(&wild, 0, change(true, true)), None);
        assert_eq!(other(&wild, 1), Some(0));
    }
}
