//! Many datagrams per system call.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrLike, sendmmsg};

/// One message: where to, and two parts that follow each other.
pub(crate) type Message<'bytes, S> = (S, [IoSlice<'bytes>; 2]);

/// How many messages go to the kernel at once.
pub(crate) const BATCH: usize = 64;

/// A socket's side of `sendmmsg`, with what happened so far.
pub(crate) struct Sender<S> {
    headers: MultiHeaders<S>,
    /// Messages that the kernel took.
    pub(crate) sent: u64,
    /// Bytes in them.
    pub(crate) bytes: u64,
    /// Messages that it refused.
    pub(crate) refused: u64,
}

impl<S: SockaddrLike + Copy> Sender<S> {
    pub(crate) fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(BATCH, None), sent: 0, bytes: 0, refused: 0 }
    }

    /// Sends at most [`BATCH`] messages, and waits where the kernel has no room.
    pub(crate) fn send(&mut self, socket: &impl AsRawFd, messages: &[Message<'_, S>]) -> Result<()> {
        let slices: Vec<[IoSlice<'_>; 2]> = messages.iter().map(|message| message.1).collect();
        let addresses: Vec<Option<S>> = messages.iter().map(|message| Some(message.0)).collect();
        let mut done = 0;
        while done < messages.len() {
            let rest = addresses.get(done..).unwrap_or_default();
            let taken = sendmmsg(
                socket.as_raw_fd(),
                &mut self.headers,
                slices.iter().skip(done),
                rest,
                [],
                MsgFlags::empty(),
            )
            .map(Iterator::count);
            match taken {
                Ok(count) => {
                    let parts = slices.iter().skip(done).take(count).flatten();
                    self.bytes += u64::try_from(parts.map(|part| part.len()).sum::<usize>())?;
                    self.sent += u64::try_from(count)?;
                    done += count;
                }
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => thread::yield_now(),
                Err(_) => {
                    self.refused += 1;
                    done += 1;
                }
            }
        }
        Ok(())
    }
}
