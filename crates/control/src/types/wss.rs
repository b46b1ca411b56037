//! Direct WSS: members that connect to each other by TCP, without a relay.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::direct::OwnAddress;

/// Where members may connect to this node, where the configuration wants it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WssStatus {
    /// The address that the configuration names.
    pub listen: String,
    /// Members can connect.
    pub open: bool,
    /// Why they cannot; it is tried again every half minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The key of the certificate, base32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// Where peers are told to connect, the most promising first.
    pub addresses: Vec<OwnAddress>,
    /// Connections of members, since it was opened.
    pub admitted: u64,
    /// Connections that were refused or failed, since it was opened.
    pub refused: u64,
    /// Messages with packets that were dropped because a member took them too slowly or was gone.
    pub dropped: u64,
}

/// Where a peer says that members may connect to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerWss {
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// Why the last attempt to connect failed, until one succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
