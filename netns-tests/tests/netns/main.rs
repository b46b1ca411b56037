//! The stories of users, told with the real programs in network namespaces.

mod bad_input;
mod crafted;
mod crash;
mod laboratory;
mod programs;
mod relay_absent;
mod relay_restart;
mod spoof;
mod strangers;
mod tap;
mod tickets;
mod transfer;
mod up;
mod users;
