//! Accepting connections, knowing who is on the other end, and stopping.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::Uid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Backend, Rights, routes};

/// Answers on `listener` until `stop`, then lets requests under way finish for at most a second and removes the socket.
pub async fn serve<B: Backend>(
    listener: UnixListener,
    backend: Arc<B>,
    rights: Rights,
    stop: CancellationToken,
) {
    let file = SocketFile::of(&listener);
    let router = routes::router(backend, stop.clone());
    let slots = Slots::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Some((caller, slot)) = admit(&stream, &rights, &slots) else { continue };
                    let router = router.clone().layer(Extension(caller));
                    let conversation = converse(stream, router, stop.clone());
                    connections.spawn(async {
                        conversation.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!(reason = %error, "failed to accept on the control socket");
                    // Out of file descriptors, most likely: the connection stays in the backlog, so do not spin on it.
                    let _ = tokio::time::timeout(ACCEPT_PAUSE, stop.cancelled()).await;
                }
            },
        }
    }
    // In this order: the open listener keeps the inode from being another file's.
    file.remove();
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, finish).await.is_err() {
        debug!(connections = connections.len(), "control connections did not finish in time");
    }
    connections.shutdown().await;
}

/// Who is on the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
    pub(super) may_write: bool,
    /// There are too many connections; every request gets that answer.
    pub(super) turned_away: bool,
}

fn admit(stream: &UnixStream, rights: &Rights, slots: &Slots) -> Option<(Caller, Slot)> {
    let credentials = match stream.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => {
            debug!(reason = %error, "a control connection without credentials");
            return None;
        }
    };
    let (uid, pid) = (credentials.uid(), credentials.pid());
    let may_write = rights.may_write(Uid::from_raw(uid));
    let (slot, turned_away) = slots.take(may_write)?;
    Some((Caller { uid, pid, may_write, turned_away }, slot))
}

/// Answers the requests of one connection until it ends or `stop`; `may_write` tells what its caller may do.
pub async fn serve_connection<B: Backend>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    backend: Arc<B>,
    may_write: bool,
    stop: CancellationToken,
) {
    let caller = Caller { uid: Uid::effective().as_raw(), pid: None, may_write, turned_away: false };
    converse(stream, routes::router(backend, stop.clone()).layer(Extension(caller)), stop).await;
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_LIMIT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        debug!(reason = %error, "a control connection ended early");
    }
}

/// Room for connections. Readers cannot take all of it, so that whoever may write always gets through.
struct Slots {
    all: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

/// The room of one connection, free again when dropped.
type Slot = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Slots {
    fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(CONNECTION_LIMIT)),
            readers: Arc::new(Semaphore::new(READER_LIMIT)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_LIMIT)),
        }
    }

    /// A slot and whether it is only good for being told that there is no other; nothing when even those are taken.
    fn take(&self, may_write: bool) -> Option<(Slot, bool)> {
        let take = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_owned().ok();
        let reader = if may_write { Some(None) } else { take(&self.readers).map(Some) };
        if let Some(reader) = reader
            && let Some(slot) = take(&self.all)
        {
            return Some(((slot, reader), false));
        }
        take(&self.turned_away).map(|slot| ((slot, None), true))
    }
}

/// The socket's file as this program made it.
struct SocketFile {
    path: Option<PathBuf>,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn of(listener: &UnixListener) -> Self {
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
        let identity = path.as_ref().and_then(Self::look);
        Self { path, identity }
    }

    fn look(path: &PathBuf) -> Option<(u64, u64)> {
        fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// Removes the file unless another program has put its own there.
    fn remove(&self) {
        let Some(path) = &self.path else { return };
        if self.identity.is_none() || Self::look(path) != self.identity {
            return;
        }
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(path = %path.display(), reason = %error, "failed to remove the control socket")
            }
        }
    }
}

/// Connections at a time; beyond, callers are told so.
pub(super) const CONNECTION_LIMIT: usize = 64;

/// Of these, as many may belong to callers who cannot write.
const READER_LIMIT: usize = 48;

/// Connections that are only told that there are too many; beyond, they are closed unanswered.
const TURNED_AWAY_LIMIT: usize = 16;

/// A local caller sends its headers at once; also how long a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// More than any header of ours, little enough for 64 connections.
const BUFFER_LIMIT: usize = 64 * 1024;

/// Until the next try when accepting fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long requests under way may go on after `stop`.
const STOP_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_cannot_lock_writers_out() {
        let slots = Slots::new();
        let readers: Vec<_> = (0..READER_LIMIT).map(|_| slots.take(false)).collect();
        assert!(readers.iter().all(|taken| matches!(taken, Some((_, false)))));
        assert!(matches!(slots.take(false), Some((_, true))));
        let writers: Vec<_> = (READER_LIMIT..CONNECTION_LIMIT).map(|_| slots.take(true)).collect();
        assert!(writers.iter().all(|taken| matches!(taken, Some((_, false)))));
        assert!(matches!(slots.take(true), Some((_, true))));
        drop(readers);
        assert!(matches!(slots.take(false), Some((_, false))));
    }

    #[test]
    fn connections_beyond_all_limits_get_nothing() {
        let slots = Slots::new();
        let taken: Vec<_> = std::iter::from_fn(|| slots.take(true)).take(1000).collect();
        assert_eq!(taken.len(), CONNECTION_LIMIT + TURNED_AWAY_LIMIT);
    }
}
