//! The thread that moves packets between the interface of a router, its translator, and a link that may be a bad one.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tun::Device;

use super::link::{Link, Rough};
use super::translator::{Refusal, Translation, Translator};
use crate::host::Host;

/// A running translator; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Engine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    translator: Translator,
    link: Link,
    refused: BTreeMap<Refusal, u64>,
}

impl Engine {
    pub(super) fn start(
        router: &Host,
        interface: &str,
        inside: [u8; 3],
        external: Ipv4Addr,
        translation: Translation,
    ) -> Result<Self> {
        let device = router.enter(|| {
            let mut config = tun::configure();
            config.tun_name(interface).layer(tun::Layer::L3);
            // The interface has been set up already, in ways that this library does not know.
            config.platform_config(|platform| {
                platform.ensure_root_privileges(false);
            });
            Device::new(&config).context("cannot open the router's interface")
        })?;
        // Any number does; the time makes runs differ.
        let seed = std::time::UNIX_EPOCH.elapsed()?.subsec_nanos();
        let translator = Translator::new(inside, external, translation, seed.into());
        let link = Link::new(seed.into());
        let state = Mutex::new(State { translator, link, refused: BTreeMap::new() });
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), state });
        let thread = thread::Builder::new().name("translator".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&device)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn forget(&self) {
        self.shared.with(|state| state.translator.forget());
    }

    pub(super) fn roughen(&self, rough: Rough) {
        self.shared.with(|state| state.link.set(rough));
    }

    pub(super) fn lets_in(&self, far: Ipv4Addr) -> bool {
        self.shared.with(|state| state.translator.lets_in(far, Instant::now()))
    }

    pub(super) fn refused(&self, refusal: Refusal) -> u64 {
        self.shared.with(|state| state.refused.get(&refusal).copied().unwrap_or(0))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic over there is in the output already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, device: &Device) {
        let mut buffer = vec![0; LARGEST_PACKET];
        while !self.stop.load(Ordering::Relaxed) {
            let due = self.with(|state| state.link.due());
            let patience = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
            match device.recv_timeout(&mut buffer, patience.min(PATIENCE)) {
                Ok(length) => self.take(&mut buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                // The namespace is gone, and the interface with it.
                Err(_) => return,
            }
            while let Some(packet) = self.with(|state| state.link.arrived(Instant::now())) {
                // What the kernel refuses is lost, as on any wire.
                let _ = device.send(&packet);
            }
        }
    }

    fn take(&self, packet: &mut [u8]) {
        self.with(|state| {
            let now = Instant::now();
            match state.translator.translate(packet, now) {
                Ok(()) => state.link.take(now, packet),
                Err(refusal) => *state.refused.entry(refusal).or_default() += 1,
            }
        });
    }

    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        body(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// More than any MTU.
const LARGEST_PACKET: usize = 65_536;

/// How long the end of a router takes at most.
const PATIENCE: Duration = Duration::from_millis(50);
