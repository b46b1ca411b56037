//! A TCP stream that counts what it writes, so that a slow client can be told from a stuck one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Counts the bytes that the kernel took.
#[derive(Debug)]
pub(crate) struct CountedStream {
    inner: TcpStream,
    written: u64,
}

impl CountedStream {
    /// Takes over an accepted stream and sets its options.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn new(inner: TcpStream) -> io::Result<Self> {
        inner.set_nodelay(true)?;
        let socket = SockRef::from(&inner);
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        Ok(Self { inner, written: 0 })
    }

    /// Returns how many bytes the kernel has taken so far.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    fn count(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.written += u64::try_from(*n).unwrap_or(0);
        }
        result
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Unsent bytes that the kernel may hold, so that excess waits, and is dropped, in our queue instead.
const NOTSENT_LOWAT: u32 = 64 * 1024;
/// How long sent bytes may stay without an acknowledgement before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
