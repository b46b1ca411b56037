//! What the fuzzer runs: one function for each parser and state machine that bytes from outside reach.
//!
//! In: any bytes. Out: nothing, or a panic that names the property that does not hold. `fuzz/` wraps each function for
//! cargo-fuzz; `tests/replay.rs` gives them everything that is kept in `fuzz/corpus` and `fuzz/regressions`, with the
//! ordinary toolchain.
//!
//! Map: [`TARGETS`] lists the functions, a module each; `world.rs` has keys, rosters and half-done handshakes that are
//! the same in every process; `input.rs` reads a script off fuzzer's bytes and edits genuine messages by it; `seeds.rs`
//! has what the fuzzer starts from.
//!
//! Invariants of every function: it depends on nothing but its input and on keys that no input decides, so that an input
//! that failed fails again; it leaves nothing behind; what it asserts holds for every input, also for a genuine message that
//! the fuzzer took from a comparison.

mod config;
mod control_api;
mod files;
mod fragment;
mod frame;
mod handshake;
mod hub;
mod ice;
mod input;
mod lan;
mod node;
mod packet;
mod relay;
mod roster;
pub mod seeds;
mod stun;
mod ticket;
mod world;

pub use config::config;
pub use control_api::control_api;
pub use files::files;
pub use fragment::fragment;
pub use frame::frame;
pub use handshake::handshake;
pub use hub::hub;
pub use ice::ice;
pub use lan::lan;
pub use node::node;
pub use packet::packet;
pub use relay::relay;
pub use roster::roster;
pub use stun::stun;
pub use ticket::ticket;

/// A function that the fuzzer calls, and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, those first that strangers reach most easily.
pub const TARGETS: &[Target] = &[
    ("handshake", handshake),
    ("fragment", fragment),
    ("frame", frame),
    ("relay", relay),
    ("roster", roster),
    ("ticket", ticket),
    ("control_api", control_api),
    ("config", config),
    ("node", node),
    ("hub", hub),
    ("packet", packet),
    ("stun", stun),
    ("lan", lan),
    ("ice", ice),
    ("files", files),
];
