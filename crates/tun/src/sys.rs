//! Opens the device, takes its file descriptor over and asks for offload. The only unsafe code of this crate.
#![expect(unsafe_code, reason = "the tun crate hands its descriptor out as a bare number")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::Mode;

/// Which step of opening a device failed.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Opening `/dev/net/tun`.
    Node(io::Error),
    /// Attaching the open file to an interface (TUNSETIFF), or a call after it.
    Attach(io::Error),
}

/// Creates the interface `name`, or attaches to a persistent one, and returns its descriptor: not blocking, closed
/// on exec, without packet information headers; with `offload`, each packet has a virtio header in front.
pub(crate) fn open(name: &str, mode: Mode, offload: bool) -> Result<OwnedFd, OpenError> {
    // The tun crate reports a failing open and a failing TUNSETIFF alike, but the advice to the user differs.
    drop(OpenOptions::new().read(true).write(true).open(NODE).map_err(OpenError::Node)?);

    let mut config = tun::configure();
    config.tun_name(name).layer(match mode {
        Mode::Tun => tun::Layer::L3,
        Mode::Tap => tun::Layer::L2,
    });
    // Its own configuring knows IPv4 only; all of that goes over netlink.
    config.platform_config(|platform| {
        platform.ensure_root_privileges(false).vnet_hdr(offload);
    });
    let device = tun::create(&config).map_err(|error| OpenError::Attach(error.into()))?;
    let raw = device.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up the device's only descriptor, so it is open and nobody else will close it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(|errno| OpenError::Attach(errno.into()))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(|errno| OpenError::Attach(errno.into()))?;
    Ok(fd)
}

/// Tells the kernel which packets it may leave to us: those of `flags`, of `TUN_F_*`.
pub(crate) fn set_offload(fd: &OwnedFd, flags: u32) -> io::Result<()> {
    // SAFETY: the request takes a number and no pointer, and the descriptor is open as long as the borrow.
    unsafe { tun_set_offload(fd.as_raw_fd(), u64::from(flags)) }?;
    Ok(())
}

nix::ioctl_write_int!(tun_set_offload, b'T', 208);

const NODE: &str = "/dev/net/tun";
