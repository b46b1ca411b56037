//! Ctrl-C and SIGTERM: remove what was made, then end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

use crate::{arena, say};

/// The names of arenas that exist, for the thread that ends the program.
static ARENAS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether a signal is ending the program.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Starts to wait for the signals that end the program.
pub(crate) fn watch() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        ENDING.store(true, Ordering::SeqCst);
        let arenas = ARENAS.lock().map(|arenas| arenas.clone()).unwrap_or_default();
        if !arenas.is_empty() {
            say::problem(&format!("{signal}: cleaning up"));
        }
        for name in arenas {
            arena::remove(&name);
        }
        // What a shell expects of a program that a signal ended.
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}

/// Does not return when a signal is ending the program: what failed because of it is no news.
pub(crate) fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// Remembers an arena that has to go when a signal ends the program.
pub(crate) fn protect(name: &str) {
    if let Ok(mut arenas) = ARENAS.lock() {
        arenas.push(name.to_owned());
    }
}

/// Forgets an arena: it is gone, or it stays on purpose.
pub(crate) fn forget(name: &str) {
    if let Ok(mut arenas) = ARENAS.lock() {
        arenas.retain(|other| other != name);
    }
}
