//! Configuration files of the daemon and of the relay.

use std::path::Path;

use meshd::config::{Config, Flags};

/// Reads the text as each configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    daemon(text);
    relay(text);
}

fn daemon(text: &str) {
    match Config::parse(&Flags::default(), text, Path::new("meshd.toml")) {
        Ok(config) => {
            assert!((1280..=9000).contains(&config.mtu), "an MTU that does not work");
            assert!((1..=15).contains(&config.interface.len()), "a name that no interface has");
            let flags = Flags { interface: Some("mesh7".into()), ..Flags::default() };
            let flagged =
                Config::parse(&flags, text, Path::new("meshd.toml")).expect("a flag replaces a key");
            assert_eq!((flagged.interface.as_str(), flagged.mtu), ("mesh7", config.mtu));
        }
        Err(error) => assert_message(&format!("{error:#}"), "meshd.toml"),
    }
}

fn relay(text: &str) {
    match meshrelay::Config::parse(text, Path::new("meshrelay.toml")) {
        Ok(config) => {
            assert!(!config.listen.is_empty(), "a relay that nobody reaches");
            assert_eq!(config.certificate.is_some(), config.key.is_some());
            let limits = &config.limits;
            assert!(limits.clients > 0 && limits.handles > 0 && limits.handshake_seconds > 0);
            assert!(limits.restart_min_ms <= limits.restart_max_ms);
        }
        Err(error) => assert_message(&error.to_string(), "meshrelay.toml"),
    }
}

/// An operator reads one line, which names the file.
fn assert_message(message: &str, file: &str) {
    assert!(message.contains(file), "which file? {message}");
    assert!(!message.contains('\n'), "more than a line: {message}");
}
