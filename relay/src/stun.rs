//! Answers STUN binding requests, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_wire::stun::{BindingRequest, BindingSuccess, MESSAGE};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::Shared;

/// Runs until told to stop.
pub(crate) async fn answer_loop(socket: UdpSocket, shared: Arc<Shared>, stop: CancellationToken) {
    // One byte more than the longest request, so that a longer datagram shows.
    let mut buffer = [0; MESSAGE + 1];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((len, from)) => match answer(&buffer[..len], from) {
                // An answer that does not go out is asked for again.
                Some(answer) if socket.try_send_to(&answer, from).is_ok() => {
                    shared.metrics.stun_answers.add(1)
                }
                Some(_) | None => shared.metrics.stun_ignored.add(1),
            },
            Err(error) => {
                tracing::debug!(reason = %error, "receiving on the STUN socket failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

fn answer(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let request = BindingRequest::parse(datagram).ok()?;
    let BindingRequest { transaction, fingerprint } = request;
    Some(BindingSuccess { transaction, mapped: from, fingerprint }.encode())
}

/// An error of the socket that persists must not take a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
