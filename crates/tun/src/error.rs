//! What can go wrong with an interface, each with the next step for the person who reads it.

use std::fmt;
use std::io;

use ipnet::IpNet;
use mesh_packet::MacAddr;

/// Why an interface could not be created, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The configured name cannot be the name of an interface.
    #[error("interface name {name:?} is not usable: {reason}; choose another, such as mesh0")]
    Name {
        /// The configured name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The configured MTU is out of range.
    #[error("an MTU of {mtu} bytes is not possible here; choose one from {least} to {most}")]
    Mtu {
        /// The configured MTU in bytes.
        mtu: u16,
        /// The least possible one; 1280 where the interface has an IPv6 address.
        least: u16,
        /// The greatest possible one.
        most: u16,
    },
    /// The configured hardware address does not belong to a single station.
    #[error(
        "hardware address {mac} is a group or all zero; choose one with an even, non-zero first byte, such as 02"
    )]
    Mac {
        /// The configured hardware address.
        mac: MacAddr,
    },
    /// A hardware address was configured for a TUN device.
    #[error("a TUN device has no hardware address; remove it, or use TAP mode")]
    MacOnTun,
    /// The kernel offers no `/dev/net/tun`.
    #[error(
        "/dev/net/tun is missing; load the driver with \"modprobe tun\", or pass the device into the container \
         (such as \"--device /dev/net/tun\")"
    )]
    NoDriver {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `/dev/net/tun` exists and may not be opened.
    #[error(
        "/dev/net/tun may not be opened; give the user of this program read and write access to it, and name it \
         among the allowed devices of its unit (DeviceAllow=) or container"
    )]
    DeviceNode {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process lacks CAP_NET_ADMIN.
    #[error(
        "interface {name} may not be created without CAP_NET_ADMIN; start the program by its systemd unit or as \
         root, or grant it once with \"setcap cap_net_admin+ep PROGRAM\""
    )]
    NoCapability {
        /// The interface.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An interface of this name exists.
    #[error("interface {name} already exists, {holder}; choose another name, or remove that interface first")]
    InUse {
        /// The interface.
        name: String,
        /// Whose it is.
        holder: Holder,
    },
    /// The kernel has no IPv6, or it is switched off for new interfaces.
    #[error(
        "{address} cannot be added to {name} because IPv6 is switched off; set net.ipv6.conf.default.disable_ipv6=0 \
         with sysctl, and boot without ipv6.disable=1"
    )]
    NoIpv6 {
        /// The interface.
        name: String,
        /// The first IPv6 address.
        address: IpNet,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A route to the same prefix exists and leads elsewhere.
    #[error(
        "a route to {prefix} already exists; remove it, or leave the prefix out (see \"ip route show {prefix}\")"
    )]
    RouteExists {
        /// The prefix.
        prefix: IpNet,
    },
    /// The TUN driver refused for another reason.
    #[error("the TUN driver failed to create interface {name}")]
    Driver {
        /// The interface.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request about the interface.
    #[error("interface {name}: failed to {action}")]
    Netlink {
        /// The interface.
        name: String,
        /// What was asked for, such as `add address fd00::1/64`.
        action: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Whose interface has the wanted name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A TUN or TAP device: another program runs, or the device was made persistent.
    Tun,
    /// A device of another kind, such as `bridge`, or `hardware` where the kernel names none.
    Foreign(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tun => f.write_str("as a TUN or TAP device of another program"),
            Self::Foreign(kind) => write!(f, "as a device of another kind ({kind})"),
        }
    }
}
