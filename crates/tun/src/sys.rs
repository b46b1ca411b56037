//! Opens the device, takes its file descriptor over and asks for offload. The only unsafe code of this crate.
#![expect(
    unsafe_code,
    reason = "the tun crate hands its descriptor out as a bare number and knows one queue only"
)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, c_char, c_int, c_short};

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

/// Opens one of several queues of the interface `name`, which the first one creates; otherwise as [`open`].
pub(crate) fn open_queue(name: &str, mode: Mode, offload: bool) -> Result<OwnedFd, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let fd = OwnedFd::from(options.open(NODE).map_err(OpenError::Node)?);
    // SAFETY: the structure consists of numbers and of unions of numbers, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero and ends the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let kind = match mode {
        Mode::Tun => libc::IFF_TUN,
        Mode::Tap => libc::IFF_TAP,
    };
    let header = if offload { libc::IFF_VNET_HDR } else { 0 };
    let flags = kind | header | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE;
    // Of the 16 bits all are used; the highest is not.
    request.ifr_ifru.ifru_flags = c_short::try_from(flags).map_err(|_| invalid())?;
    // SAFETY: the kernel reads and writes the structure that the request is for, and the descriptor is open.
    unsafe { tun_set_interface(fd.as_raw_fd(), &raw const request) }
        .map_err(|errno| OpenError::Attach(errno.into()))?;
    Ok(fd)
}

fn invalid() -> OpenError {
    OpenError::Attach(io::ErrorKind::InvalidInput.into())
}

/// Tells the kernel which packets it may leave to us: those of `flags`, of `TUN_F_*`.
pub(crate) fn set_offload(fd: &OwnedFd, flags: u32) -> io::Result<()> {
    // SAFETY: the request takes a number and no pointer, and the descriptor is open as long as the borrow.
    unsafe { tun_set_offload(fd.as_raw_fd(), u64::from(flags)) }?;
    Ok(())
}

nix::ioctl_write_int!(tun_set_offload, b'T', 208);
// Its number names an integer and its argument is a structure, since always.
nix::ioctl_write_ptr_bad!(
    tun_set_interface,
    nix::request_code_write!(b'T', 202, size_of::<c_int>()),
    libc::ifreq
);

const NODE: &str = "/dev/net/tun";
