//! The stories of users, told with the real programs in network namespaces.

mod amplification;
mod bad_input;
mod crafted;
mod crash;
mod direct;
mod fallback;
mod flood;
mod keyed;
mod laboratory;
mod malicious_relay;
mod memory;
mod nat;
mod offload;
mod programs;
mod rekey;
mod relay_absent;
mod relay_restart;
mod silence;
mod spoof;
mod strangers;
mod tap;
mod tickets;
mod transfer;
mod udp;
mod up;
mod users;
