//! The TUN or TAP interface of a node: the device, its addresses, its routes.
//!
//! In: a [`DeviceConfig`] and, later, changed routes or another MTU. Out: a [`Device`], which owns the interface, and
//! [`DeviceIo`] handles that read and write one packet (TUN) or frame (TAP) per system call, of up to 64 KiB where the
//! kernel leaves the cutting of long ones to us.
//!
//! Invariants: the interface is never persistent, so it leaves with its process, however that ends; nothing outside
//! of the interface is changed, so there is nothing else to put back; a route that exists elsewhere is never taken
//! over. The namespace in which [`Device::create`] ran is the one in which the device is later changed and removed.
//!
//! Deliberately absent: peers, keys, any reading of packets.

mod config;
mod device;
mod error;
mod netlink;
mod routes;
mod sys;

pub use config::{Bounds, DeviceConfig, Mode};
pub use device::{Capabilities, Device, DeviceIo, MAX_PARTS, cleanup_stale};
pub use error::{DeviceError, Holder};
pub use ipnet::IpNet;
pub use routes::{LocalRoute, RouteListError, local_routes, overlapping};
