//! A long way to a TCP service: a forwarder that holds back what passes, for a kernel without `netem`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::host::Host;

/// How often the forwarder looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// A running forwarder on the loopback interface of a host, at the port of the service; dropping it ends it.
#[derive(Debug)]
pub struct Delay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Forwards `127.0.0.1:port` of a host to a service, with `one_way` of delay in each direction.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(host: &Host, to: IpAddr, port: u16, one_way: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let (host, ended) = (host.clone(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("delay".into()).spawn(move || {
            // Sockets and threads that are made in the namespace stay in it.
            let _ = host.enter(|| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                });
                match listener {
                    Ok(listener) => {
                        let _ = ready.send(Ok(()));
                        accept(&listener, (to, port).into(), one_way, &ended);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
                Ok(())
            });
        })?;
        started.recv().context("the forwarder ended")?.context("the forwarder cannot listen")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, one_way: Duration, stop: &AtomicBool) {
    let mut streams = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((near, _)) = listener.accept() else {
            thread::sleep(LOOK);
            continue;
        };
        let Ok(far) = TcpStream::connect(to) else { continue };
        let _ = (near.set_nonblocking(false), near.set_nodelay(true), far.set_nodelay(true));
        for (from, to) in [(&near, &far), (&far, &near)] {
            if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                carry(from, to, one_way);
            }
        }
        streams.push_back((near, far));
    }
    for (near, far) in streams {
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }
}

/// Reads in one thread and writes in another, so that what is held back does not hold up what follows.
fn carry(mut from: TcpStream, to: TcpStream, one_way: Duration) {
    let (sender, receiver): (Sender<(Instant, Vec<u8>)>, _) = mpsc::channel();
    thread::spawn(move || deliver(&receiver, to));
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + one_way, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
}

fn deliver(receiver: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((at, bytes)) = receiver.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
