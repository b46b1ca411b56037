//! The API on the Unix socket: HTTP/1 and JSON under `/v1/`, so `curl --unix-socket` works.
//!
//! [`bind()`] makes the socket, [`serve`] accepts, checks who calls and routes; what the answers are is the [`Backend`]'s.
//! In: connections and their peer credentials. Out: JSON, or a stream of events.
//!
//! Invariants: reading is for whoever the socket's mode and group let in, anything else for root, the daemon's own user
//! and the operator; every refusal is an [`ApiError`] in JSON; a listener that reads slowly loses events and is told so,
//! and holds nobody up; connections, bodies and waiting are bounded.

mod bind;
mod connection;
mod events;
mod rights;
mod routes;
#[cfg(test)]
mod tests;

use std::future::Future;

use mesh_control::{
    ApiError, DownAnswer, Event, Id, InviteAnswer, InviteRequest, Netcheck, PeerStatus, PingAnswer,
    PingRequest, RelayRequest, Relays, Status, UpAnswer, UpRequest,
};
use tokio::sync::broadcast;

pub use bind::{BindError, bind};
pub use connection::{serve, serve_connection};
pub use rights::{Rights, RightsError};

/// The protocol that this program speaks with peers and relays, as `GET /v1/version` names it.
pub const PROTOCOL: &str = "mesh/1";

/// What stands behind the routes.
///
/// A future is dropped unfinished when its caller hangs up or the daemon stops, so work that must not stop half way
/// belongs to another task, which the method hands it to and whose answer it awaits.
pub trait Backend: Send + Sync + 'static {
    /// Who this node is.
    fn id(&self) -> impl Future<Output = Result<Id, ApiError>> + Send;
    /// Everything about this node and its peers.
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send;
    /// Every other member, ordered by name.
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, ApiError>> + Send;
    /// Creates, joins or resumes; answers when the interface stands, not when data passes.
    fn up(&self, request: UpRequest) -> impl Future<Output = Result<UpAnswer, ApiError>> + Send;
    /// Takes interface and connections away; the node stays enrolled.
    fn down(&self) -> impl Future<Output = Result<DownAnswer, ApiError>> + Send;
    /// Sends one sealed echo; fails with [`mesh_control::ErrorCode::Timeout`] when none comes back in time.
    fn ping(&self, request: PingRequest) -> impl Future<Output = Result<PingAnswer, ApiError>> + Send;
    /// Looks at the network around this node.
    fn netcheck(&self) -> impl Future<Output = Result<Netcheck, ApiError>> + Send;
    /// Makes a ticket.
    fn invite(&self, request: InviteRequest) -> impl Future<Output = Result<InviteAnswer, ApiError>> + Send;
    /// The relays that the network announces, and the connections to all that this node knows.
    fn relays(&self) -> impl Future<Output = Result<Relays, ApiError>> + Send;
    /// Changes what the network announces.
    fn change_relays(&self, request: RelayRequest) -> impl Future<Output = Result<Relays, ApiError>> + Send;
    /// A new listener to what happens from here on.
    fn events(&self) -> broadcast::Receiver<Event>;
}
