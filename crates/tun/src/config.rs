//! What an interface is to look like, and which wishes no kernel can fulfil.

use ipnet::IpNet;
use mesh_packet::MacAddr;

use crate::DeviceError;

/// Whether the device carries IP packets or Ethernet frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// IP packets (layer 3).
    Tun,
    /// Ethernet frames without their checksum (layer 2).
    Tap,
}

/// The wanted state of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Interface name: 1 to 15 letters, digits, `-`, `_` or `.`, starting with a letter or digit.
    pub name: String,
    /// Packets or frames.
    pub mode: Mode,
    /// Bytes of the largest IP packet; at least 68, with an IPv6 address at least 1280.
    pub mtu: u16,
    /// Hardware address of a TAP device; without one the kernel makes one up. A TUN device has none.
    pub mac: Option<[u8; 6]>,
    /// Addresses of the interface; the length of each prefix decides its on-link route.
    pub addresses: Vec<IpNet>,
    /// The kernel may leave checksums and the cutting of long packets to whoever has the device; where it cannot, the
    /// device works without.
    pub offload: bool,
    /// The most segments that the kernel puts into one packet of a device with offload, and the most packets that wait
    /// for whoever reads it; the kernel's own choice where there is none.
    pub bounds: Option<Bounds>,
    /// Further prefixes that lead into the device; bits behind the prefix are ignored.
    pub routes: Vec<IpNet>,
}

/// How much the kernel hands over at once, and how much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Segments in one packet.
    pub segments: u32,
    /// Packets in the queue of the device.
    pub queue: u32,
}

impl DeviceConfig {
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        check_name(&self.name)?;
        self.check_mtu(self.mtu)?;
        self.check_mac()
    }

    pub(crate) fn check_mtu(&self, mtu: u16) -> Result<(), DeviceError> {
        let least = if self.addresses.iter().any(is_v6) { MIN_MTU_V6 } else { MIN_MTU_V4 };
        let most = match self.mode {
            Mode::Tun => u16::MAX,
            Mode::Tap => u16::MAX - ETHERNET_HEADER,
        };
        if (least..=most).contains(&mtu) { Ok(()) } else { Err(DeviceError::Mtu { mtu, least, most }) }
    }

    fn check_mac(&self) -> Result<(), DeviceError> {
        match (self.mode, self.mac.map(MacAddr::new)) {
            (Mode::Tun, Some(_)) => Err(DeviceError::MacOnTun),
            (Mode::Tap, Some(mac)) if !mac.is_unicast() => Err(DeviceError::Mac { mac }),
            (Mode::Tun, None) | (Mode::Tap, _) => Ok(()),
        }
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), DeviceError> {
    let refuse = |reason| Err(DeviceError::Name { name: name.to_owned(), reason });
    if name.len() > MAX_NAME {
        return refuse("it is longer than 15 bytes");
    }
    if RESERVED.contains(&name) {
        return refuse("the system uses it for something else");
    }
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return refuse("it does not start with a letter or digit");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return refuse("it has characters other than letters, digits, \"-\", \"_\" and \".\"");
    }
    Ok(())
}

pub(crate) const fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// IFNAMSIZ without the final zero.
const MAX_NAME: usize = 15;
/// The loopback device, and the two directories beside those of the interfaces in `/proc/sys/net/ipv6/conf`.
const RESERVED: [&str; 3] = ["lo", "all", "default"];
/// RFC 791, section 3.2: every link carries that much.
const MIN_MTU_V4: u16 = 68;
/// RFC 8200, section 5. Below it the kernel takes the IPv6 addresses away.
const MIN_MTU_V6: u16 = 1280;
const ETHERNET_HEADER: u16 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DeviceConfig {
        DeviceConfig {
            name: "mesh0".to_owned(),
            mode: Mode::Tun,
            mtu: 1420,
            mac: None,
            addresses: vec!["100.64.3.2/20".parse().unwrap()],
            offload: false,
            bounds: None,
            routes: Vec::new(),
        }
    }

    #[test]
    fn names_that_the_kernel_or_a_shell_would_trip_over_are_refused() {
        for name in ["mesh0", "a", "shadow-mesh_1.5", "123456789012345"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
        for name in
            ["", "1234567890123456", "lo", "all", "mesh 0", "mesh%d", "a/b", "a:1", "-a", "..", "mesch\u{e4}"]
        {
            assert!(matches!(check_name(name), Err(DeviceError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn an_ipv6_address_raises_the_least_mtu() {
        let mut config = config();
        config.mtu = 576;
        assert!(config.check().is_ok());
        config.addresses.push("fd00::1/64".parse().unwrap());
        assert!(matches!(config.check(), Err(DeviceError::Mtu { mtu: 576, least: 1280, .. })));
        config.mtu = 1280;
        assert!(config.check().is_ok());
    }

    #[test]
    fn an_ethernet_header_lowers_the_greatest_mtu() {
        let mut config = config();
        config.mtu = 65535;
        assert!(config.check().is_ok());
        config.mode = Mode::Tap;
        assert!(matches!(config.check(), Err(DeviceError::Mtu { most: 65521, .. })));
    }

    #[test]
    fn hardware_address_needs_a_tap_device_and_one_station() {
        let mut config = DeviceConfig { mac: Some([2, 0, 0, 0, 0, 1]), ..config() };
        assert!(matches!(config.check(), Err(DeviceError::MacOnTun)));
        config.mode = Mode::Tap;
        assert!(config.check().is_ok());
        config.mac = Some([0xff; 6]);
        assert!(matches!(config.check(), Err(DeviceError::Mac { .. })));
    }
}
