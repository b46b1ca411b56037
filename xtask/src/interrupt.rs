//! Ctrl-C and SIGTERM: remove what was made, then end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::{arena, say};

/// The names of arenas that exist, for the thread that ends the program.
static ARENAS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether a signal is ending the program.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Starts to wait for the signals that end the program.
///
/// Blocking them and waiting in a thread would not do: the programs that are started inherit what is blocked.
pub(crate) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupts, mut terminations) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupts.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminations.recv() => SignalKind::terminate().as_raw_value(),
            }
        });
        end(number);
    });
    Ok(())
}

/// Removes the arenas and ends with what a shell expects of a program that a signal ended.
fn end(signal: i32) -> ! {
    ENDING.store(true, Ordering::SeqCst);
    let arenas = ARENAS.lock().map(|arenas| arenas.clone()).unwrap_or_default();
    if !arenas.is_empty() {
        say::problem("interrupted: cleaning up");
    }
    for name in arenas {
        arena::remove(&name);
    }
    std::process::exit(128 + signal);
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
