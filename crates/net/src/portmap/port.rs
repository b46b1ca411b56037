//! A local port, and what a gateway granted for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::pcp::Nonce;
use crate::backoff::random;

/// A local port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) internal: u16,
    /// The same for all requests, since a gateway renews and deletes only with it (RFC 6887, section 11.3).
    pub(super) nonce: Nonce,
    /// The external port to ask for: the last one that was granted.
    pub(super) wanted: u16,
    pub(super) held: Option<Held>,
}

/// What the gateway granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) external: SocketAddr,
    pub(super) expires: Instant,
    pub(super) renew: Instant,
}

impl Port {
    pub(super) fn new(internal: u16) -> Self {
        Self { internal, nonce: nonce(), wanted: internal, held: None }
    }

    /// Takes over a grant, to be renewed after some time.
    pub(super) fn hold(&mut self, external: SocketAddr, lifetime: Duration, renew: Duration) {
        let now = Instant::now();
        self.wanted = external.port();
        self.held = Some(Held { external, expires: now + lifetime, renew: now + renew });
    }
}

/// A port that no system service has.
pub(super) fn random_port() -> u16 {
    let [low, high, ..] = random().to_le_bytes();
    u16::from_le_bytes([low, high]).max(1024)
}

/// A nonce that nobody else on the network can guess, so that nobody else deletes the mapping.
fn nonce() -> Nonce {
    let mut nonce = [0; 12];
    for word in nonce.chunks_exact_mut(4) {
        word.copy_from_slice(&random().to_le_bytes());
    }
    nonce
}
