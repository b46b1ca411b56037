//! The interface as a value: it exists in the system as long as the value does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_packet::{OFFLOAD_HEADER, Offload};
use nix::errno::Errno;
use nix::sys::uio::{readv, writev};
use nix::unistd::read;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::config::{Bounds, check_name, is_v6};
use crate::netlink::{Link, Netlink, Remover, has_errno, link_message, no_link_local};
use crate::sys::{self, OpenError};
use crate::{DeviceConfig, DeviceError, Holder, Mode};

/// An interface of our own. Dropping it removes the interface with its addresses and routes, even where
/// [`DeviceIo`] handles are still about; their calls then fail.
#[derive(Debug)]
pub struct Device {
    io: DeviceIo,
    /// The queues beside that one.
    further: Vec<DeviceIo>,
    /// Why there are none, where some were wanted.
    refused: Option<io::Error>,
    config: DeviceConfig,
    index: u32,
    routes: BTreeSet<IpNet>,
    netlink: Netlink,
    remover: Option<Remover>,
}

impl Device {
    /// Creates the interface, gives it its addresses and routes and sets it up; all or nothing.
    ///
    /// Runs inside a tokio runtime and uses the network namespace of the calling thread.
    ///
    /// # Errors
    /// See [`DeviceError`]; an interface created on the way is removed again.
    pub async fn create(config: &DeviceConfig) -> Result<Self, DeviceError> {
        Self::create_with_queues(config, 1).await
    }

    /// The same with several queues, among which the kernel distributes flows. Where it does not make so many, there is one:
    /// see [`Device::refused`].
    ///
    /// # Errors
    /// As for [`Device::create`].
    pub async fn create_with_queues(config: &DeviceConfig, queues: u16) -> Result<Self, DeviceError> {
        config.check()?;
        let name = &config.name;
        let failed = |action: &str, source| netlink_error(name, action, source);
        let netlink = Netlink::connect().map_err(|source| failed("look it up", source))?;
        if let Some(link) = netlink.link(name).await.map_err(|source| failed("look it up", source))? {
            return Err(DeviceError::InUse { name: name.clone(), holder: link.into() });
        }
        let (fd, further, refused) = match open_queues(config, queues) {
            Ok((fd, further)) => (fd, further, None),
            Err(error) => {
                let fd = sys::open(name, config.mode, config.offload);
                (fd.map_err(|error| open_error(name, error))?, Vec::new(), error)
            }
        };
        let offload = if config.offload { Capabilities::ask(&fd) } else { Capabilities::default() };
        let link = netlink.link(name).await.and_then(|link| link.ok_or_else(|| Errno::ENODEV.into()));
        let index = link.map_err(|source| failed("look it up", source))?.index;
        let remover = Remover::new(index).map_err(|source| failed("prepare its removal", source))?;
        let mut device = Self {
            io: DeviceIo { fd: Arc::new(fd), header: config.offload, offload, mode: config.mode },
            further: Vec::new(),
            refused,
            config: config.clone(),
            index,
            routes: BTreeSet::new(),
            netlink,
            remover: Some(remover),
        };
        let of = |fd| DeviceIo { fd: Arc::new(fd), ..device.io.clone() };
        device.further = further.into_iter().map(of).collect();
        device.configure().await?;
        device.set_routes(&config.routes).await?;
        Ok(device)
    }

    /// The name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The index by which the kernel knows the interface.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// A handle for the thread that moves the packets, those of the first queue where there are several.
    #[must_use]
    pub fn io(&self) -> DeviceIo {
        self.io.clone()
    }

    /// Handles for the threads of the queues beside the first.
    #[must_use]
    pub fn further_queues(&self) -> Vec<DeviceIo> {
        self.further.clone()
    }

    /// Why there is one queue, where several were wanted.
    #[must_use]
    pub const fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Makes exactly `routes` lead into the device, besides the on-link routes of its addresses.
    ///
    /// # Errors
    /// [`DeviceError::RouteExists`] or [`DeviceError::Netlink`]. Routes that are no longer wanted go first; on an
    /// error those before the failing one have changed, and calling again goes on from there.
    pub async fn set_routes(&mut self, routes: &[IpNet]) -> Result<(), DeviceError> {
        let on_link: BTreeSet<IpNet> = self.config.addresses.iter().map(IpNet::trunc).collect();
        let wanted: BTreeSet<IpNet> =
            routes.iter().map(IpNet::trunc).filter(|route| !on_link.contains(route)).collect();
        let gone: Vec<IpNet> = self.routes.difference(&wanted).copied().collect();
        for prefix in gone {
            match self.netlink.delete_route(self.index, &prefix).await {
                // An administrator was faster; the result is the wanted one.
                Err(error) if has_errno(&error, Errno::ESRCH) => {}
                result => result.map_err(|source| self.error(&format!("remove route {prefix}"), source))?,
            }
            self.routes.remove(&prefix);
        }
        let new: Vec<IpNet> = wanted.difference(&self.routes).copied().collect();
        for prefix in new {
            match self.netlink.add_route(self.index, &prefix).await {
                Err(error) if has_errno(&error, Errno::EEXIST) => {
                    return Err(DeviceError::RouteExists { prefix });
                }
                result => result.map_err(|source| self.error(&format!("add route {prefix}"), source))?,
            }
            self.routes.insert(prefix);
        }
        Ok(())
    }

    /// Changes the MTU, in bytes of the largest IP packet.
    ///
    /// # Errors
    /// [`DeviceError::Mtu`] when out of range (1280 at least where the interface has an IPv6 address),
    /// [`DeviceError::Netlink`] when the kernel refuses.
    pub async fn set_mtu(&mut self, mtu: u16) -> Result<(), DeviceError> {
        self.config.check_mtu(mtu)?;
        let message = link_message(self.index).mtu(mtu.into()).build();
        self.netlink.change_link(message).await.map_err(|source| self.error("set its MTU", source))?;
        self.config.mtu = mtu;
        Ok(())
    }

    /// Removes the interface with its addresses and routes, like a drop but with a result.
    ///
    /// # Errors
    /// [`DeviceError::Netlink`] when the kernel refuses; the interface then goes with the last [`DeviceIo`].
    pub async fn close(mut self) -> Result<(), DeviceError> {
        self.remover = None;
        match self.netlink.delete_link(self.index).await {
            Err(error) if has_errno(&error, Errno::ENODEV) => Ok(()),
            result => result.map_err(|source| self.error("remove it", source)),
        }
    }

    async fn configure(&self) -> Result<(), DeviceError> {
        let mut message = link_message(self.index).mtu(self.config.mtu.into());
        if let Some(mac) = self.config.mac {
            message = message.address(mac.to_vec());
        }
        let message = message.build();
        self.netlink
            .change_link(message)
            .await
            .map_err(|source| self.error("set its MTU and hardware address", source))?;
        self.configure_queue().await;
        self.configure_ipv6().await?;
        let message = link_message(self.index).up().build();
        self.netlink.change_link(message).await.map_err(|source| self.error("bring it up", source))?;
        for address in &self.config.addresses {
            self.netlink.add_address(self.index, address).await.map_err(|source| {
                let refused = [Errno::EACCES, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
                if is_v6(address) && refused.iter().any(|errno| has_errno(&source, *errno)) {
                    return DeviceError::NoIpv6 { name: self.config.name.clone(), address: *address, source };
                }
                self.error(&format!("add address {address}"), source)
            })?;
        }
        self.wait_for_addresses().await;
        Ok(())
    }

    /// Bounds the queue and what the kernel hands over at once. Without it the device is slower, so a refusal passes.
    async fn configure_queue(&self) {
        let Some(Bounds { segments, queue }) = self.config.bounds else { return };
        for attribute in [LinkAttribute::GsoMaxSegs(segments), LinkAttribute::TxQueueLen(queue)] {
            let message = link_message(self.index).append_extra_attribute(attribute).build();
            if let Err(error) = self.netlink.change_link(message).await {
                debug!(%error, interface = self.config.name, "the kernel keeps its own bounds of the queue");
            }
        }
    }

    /// Waits until every address receives: the kernel makes IPv6 ones local in a task of its own, after it has
    /// confirmed the address.
    async fn wait_for_addresses(&self) {
        let local = async {
            for address in self.config.addresses.iter().filter(|address| is_v6(address)) {
                while !self.netlink.is_local(address.addr()).await.unwrap_or(false) {
                    sleep(LOCAL_POLL).await;
                }
            }
        };
        if timeout(LOCAL_DEADLINE, local).await.is_err() {
            warn!(interface = self.config.name, "the IPv6 addresses do not receive yet; IPv4 does");
        }
    }

    /// Has to run before the interface is set up, which is when the kernel makes up addresses.
    async fn configure_ipv6(&self) -> Result<(), DeviceError> {
        if self.config.mode == Mode::Tun {
            let message = link_message(self.index).append_extra_attribute(no_link_local()).build();
            match self.netlink.change_link(message).await {
                // Without IPv6 there is no link-local address to prevent.
                Err(error) if has_errno(&error, Errno::EAFNOSUPPORT) => {}
                result => result.map_err(|source| self.error("turn off its link-local address", source))?,
            }
        }
        // A peer must not become this machine's router by announcing itself.
        let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", self.config.name);
        match fs::write(&path, "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, path, "failed to refuse IPv6 router advertisements; make the file writable");
            }
            _ => {}
        }
        Ok(())
    }

    fn error(&self, action: &str, source: io::Error) -> DeviceError {
        netlink_error(&self.config.name, action, source)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.remover.take().map(|remover| remover.remove())
            && !has_errno(&error, Errno::ENODEV)
        {
            warn!(%error, interface = self.config.name, "failed to remove the interface at once");
        }
    }
}

/// Opens several queues, the first of them apart; an error without a reason where one is wanted.
fn open_queues(config: &DeviceConfig, queues: u16) -> Result<(OwnedFd, Vec<OwnedFd>), Option<io::Error>> {
    if queues < 2 {
        return Err(None);
    }
    let open = || {
        sys::open_queue(&config.name, config.mode, config.offload).map_err(|error| match error {
            OpenError::Node(error) | OpenError::Attach(error) => Some(error),
        })
    };
    let first = open()?;
    let further = (1..queues).map(|_| open()).collect::<Result<_, _>>()?;
    Ok((first, further))
}

/// What the kernel leaves to whoever has the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Long packets of TCP, which are to be cut.
    pub tcp: bool,
    /// The same of UDP (Linux 6.2 and newer).
    pub udp: bool,
}

impl Capabilities {
    /// Asks for as much as the kernel grants.
    fn ask(fd: &OwnedFd) -> Self {
        for (tcp, udp) in [(true, true), (true, false)] {
            let flags = TUN_F_CSUM | TUN_F_TSO | if udp { TUN_F_USO } else { 0 };
            if sys::set_offload(fd, flags).is_ok() {
                return Self { tcp, udp };
            }
        }
        Self::default()
    }
}

/// Reads and writes the packets of a [`Device`]; clones share its queue. Never blocks.
#[derive(Clone, Debug)]
pub struct DeviceIo {
    fd: Arc<OwnedFd>,
    /// A header is in front of each packet.
    header: bool,
    offload: Capabilities,
    mode: Mode,
}

impl DeviceIo {
    /// What the kernel leaves to the reader, and takes from the writer.
    #[must_use]
    pub const fn offload(&self) -> Capabilities {
        self.offload
    }

    /// Whether it carries Ethernet frames.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.mode == Mode::Tap
    }

    /// Reads one packet or frame into `buffer` and returns its length and what is left to be done for it; what does
    /// not fit is lost.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; `InvalidData` for a packet of a kind that was not asked for, which is lost;
    /// EBADFD once the interface is gone, and then for ever.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<(usize, Offload)> {
        if !self.header {
            return Ok((read(&self.fd, buffer)?, Offload::NONE));
        }
        let mut header = [0; OFFLOAD_HEADER];
        let length = readv(&self.fd, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)])?;
        let length = length.checked_sub(OFFLOAD_HEADER).ok_or(io::ErrorKind::InvalidData)?;
        let offload = Offload::decode(&header).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok((length, offload))
    }

    /// Writes one packet or frame, the parts one behind the other, of which [`MAX_PARTS`] are looked at, and what is
    /// left to be done for it.
    ///
    /// A device without offload takes only packets for which nothing is left to be done.
    ///
    /// # Errors
    /// `InvalidInput` for bytes that cannot be a packet, or an offload that the device does not have; EIO while an
    /// administrator has the interface down; EBADFD once it is gone.
    pub fn write(&self, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
        let header = offload.encode();
        let mut slices = [IoSlice::new(&[]); 1 + MAX_PARTS];
        let mut count = 0;
        if self.header {
            slices[0] = IoSlice::new(&header);
            count = 1;
        } else if *offload != Offload::NONE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for part in parts.iter().take(MAX_PARTS) {
            slices[count] = IoSlice::new(part);
            count += 1;
        }
        writev(&self.fd, &slices[..count])?;
        Ok(())
    }

    /// Writes one packet or frame for which nothing is left to be done.
    ///
    /// # Errors
    /// As for [`DeviceIo::write`].
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.write(&Offload::NONE, &[packet])
    }
}

impl AsFd for DeviceIo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Removes a TUN or TAP interface that was made persistent and that no program uses; says whether there was one.
///
/// Devices of this crate leave nothing behind; this is for one that was prepared by hand (`ip tuntap add`).
///
/// # Errors
/// [`DeviceError::InUse`] when a program uses the interface or it is of another kind, else as for
/// [`Device::create`].
pub async fn cleanup_stale(name: &str) -> Result<bool, DeviceError> {
    check_name(name)?;
    let failed = |action: &str, source| netlink_error(name, action, source);
    let netlink = Netlink::connect().map_err(|source| failed("look it up", source))?;
    let Some(link) = netlink.link(name).await.map_err(|source| failed("look it up", source))? else {
        return Ok(false);
    };
    if link.kind != Some(InfoKind::Tun) {
        return Err(DeviceError::InUse { name: name.to_owned(), holder: link.into() });
    }
    // Only one program at a time can attach, so success proves that no other one has. EINVAL: of the other mode.
    let attached = match sys::open(name, Mode::Tun, false) {
        Err(OpenError::Attach(error)) if has_errno(&error, Errno::EINVAL) => {
            sys::open(name, Mode::Tap, false)
        }
        result => result,
    };
    let _attached = attached.map_err(|error| open_error(name, error))?;
    netlink.delete_link(link.index).await.map_err(|source| failed("remove it", source))?;
    Ok(true)
}

impl From<Link> for Holder {
    fn from(link: Link) -> Self {
        match link.kind {
            Some(InfoKind::Tun) => Self::Tun,
            Some(kind) => Self::Foreign(kind.to_string()),
            None => Self::Foreign("hardware".to_owned()),
        }
    }
}

/// The most parts of one packet: as many as the segments that the kernel's UDP receives at once.
pub const MAX_PARTS: usize = 66;
// Of <linux/if_tun.h>: checksums, TCP over both families with and without congestion marks, UDP over both families.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO: u32 = 0x02 | 0x04 | 0x08;
const TUN_F_USO: u32 = 0x20 | 0x40;
/// The kernel's task usually runs within a millisecond.
const LOCAL_POLL: Duration = Duration::from_millis(1);
/// Ample for a loaded machine; IPv4 works anyway, so a node rather starts than fails.
const LOCAL_DEADLINE: Duration = Duration::from_secs(2);

fn open_error(name: &str, error: OpenError) -> DeviceError {
    let name = name.to_owned();
    match error {
        OpenError::Node(source) => match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES | Errno::EPERM) => DeviceError::DeviceNode { source },
            _ => DeviceError::NoDriver { source },
        },
        OpenError::Attach(source) => match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES | Errno::EPERM) => DeviceError::NoCapability { name, source },
            // Taken between the look and the attempt, or attached to a device of another mode.
            Some(Errno::EBUSY | Errno::EINVAL) => DeviceError::InUse { name, holder: Holder::Tun },
            _ => DeviceError::Driver { name, source },
        },
    }
}

fn netlink_error(name: &str, action: &str, source: io::Error) -> DeviceError {
    DeviceError::Netlink { name: name.to_owned(), action: action.to_owned(), source }
}
