//! A laboratory of network namespaces in which the real programs run.
//!
//! - [`Lab`] owns namespaces, processes' logs and a scratch directory; dropping it removes all of them, also when a
//!   test panics. What a killed run left behind is swept, by the process id in the names, when the next one starts.
//! - [`Host`] is one namespace: it runs commands and holds addresses. [`Switch`] is a bridge that joins hosts.
//! - [`Site`] is a private network behind a router, or routers, that translate addresses as its [`NatKind`] says.
//! - [`DhcpServer`] and [`DhcpClient`] give and take addresses behind a router.
//! - [`Rough`] makes the way through a router a bad one: late, lossy, out of order.
//! - [`Delay`] makes the way to a TCP service longer.
//! - [`Process`] is a program in the background, killed by its id when the value is dropped.
//! - [`Relay`] and [`Daemon`] are the programs under test, with their configuration and state in the scratch directory.
//! - [`Capture`] is what passed an interface, complete or an error; [`StreamServer`] measures a stream.
//! - [`KeyLog`] is what `mesh-lab-daemon` tells of its keys; [`Needles`] searches the memory of a program for them.
//! - [`wait_until`] is the only way to wait: for a condition, with a deadline.
//!
//! Nothing here touches the network of the machine: every link is created inside a namespace.

mod capture;
mod delay;
mod host;
mod keys;
mod memory;
mod mesh;
mod namespace;
mod nat;
mod process;
mod scenario;
mod switch;
mod traffic;
mod wait;

pub use capture::{Capture, Datagram, Exchange, Recording};
pub use delay::Delay;
pub use host::{Host, Output, Run};
pub use keys::{Entry, KeyLog, Recorded, SecretKind};
pub use memory::{Hit, Needles, Search};
pub use mesh::{
    Contact, Daemon, DaemonOptions, Mesh, MeshOptions, Pair, Relay, RelayOptions, Status, UDP_PORT, binary,
    drops, session_with, udp_address, udp_settings,
};
pub use namespace::Lab;
pub use nat::{
    Dependence, DhcpClient, DhcpServer, NatKind, Ports, Refusal, Rough, Router, Site, TCP_LIFETIME,
    Translation,
};
pub use process::Process;
pub use scenario::scenario;
pub use switch::{Switch, Underlay};
pub use traffic::{StreamServer, every_answer, longest_silence, median};
pub use wait::{poll_interval, wait_until};
