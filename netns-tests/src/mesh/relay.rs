//! A `meshrelay` under test.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::binary;
use crate::host::{Host, Output};
use crate::namespace::Lab;
use crate::process::Process;
use crate::wait::wait_until;

/// What differs from the plain relay.
#[derive(Debug, Clone, Default)]
pub struct RelayOptions {
    /// Further lines of TOML at the top level.
    pub extra: String,
    /// Further words on the command line.
    pub arguments: Vec<String>,
}

/// A relay, running or stopped, with its configuration and state.
#[derive(Debug)]
pub struct Relay {
    host: Host,
    config_path: PathBuf,
    log_name: String,
    arguments: Vec<String>,
    process: Option<Process>,
    pin: String,
}

impl Relay {
    /// The port of the TLS listener in the laboratory.
    pub const PORT: u16 = 8443;
    /// The UDP port that answers STUN.
    pub const STUN_PORT: u16 = 3478;
    /// Another one, at which a mapping that depends on the port shows.
    pub const OTHER_STUN_PORT: u16 = 3479;

    /// Starts a relay that serves any network.
    ///
    /// # Errors
    /// It did not come up.
    pub fn start(lab: &Lab, host: &Host) -> Result<Self> {
        Self::with(lab, host, &RelayOptions::default())
    }

    /// Starts a relay with options.
    ///
    /// # Errors
    /// It did not come up.
    pub fn with(lab: &Lab, host: &Host, options: &RelayOptions) -> Result<Self> {
        let mut relay = Self::prepare(lab, host, options)?;
        relay.launch()?;
        Ok(relay)
    }

    /// Writes the configuration of a relay without starting it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn prepare(lab: &Lab, host: &Host, options: &RelayOptions) -> Result<Self> {
        let serial = lab.serial();
        let config_path = lab.path(&format!("relay-{serial}/meshrelay.toml"))?;
        let state_dir = lab.path(&format!("relay-{serial}/state"))?;
        let mut config = format!(
            "listen = [\"[::]:{}\"]\nstun_listen = [\"[::]:{}\", \"[::]:{}\"]\nmetrics_listen = \"127.0.0.1:9464\"\nstate_dir = \"{}\"\n",
            Self::PORT,
            Self::STUN_PORT,
            Self::OTHER_STUN_PORT,
            state_dir.display(),
        );
        config.push_str(&options.extra);
        fs::create_dir_all(&state_dir)?;
        fs::write(&config_path, config)?;
        Ok(Self {
            host: host.clone(),
            config_path,
            log_name: format!("meshrelay-{serial}"),
            arguments: options.arguments.clone(),
            process: None,
            pin: String::new(),
        })
    }

    /// Starts the program and waits until it accepts connections.
    ///
    /// # Errors
    /// It did not come up.
    pub fn launch(&mut self) -> Result<()> {
        let mut process = self.command()?.spawn(&self.log_name)?;
        wait_until("the relay to listen", Duration::from_secs(10), || {
            anyhow::ensure!(process.is_running()?, "meshrelay ended: {}", process.log()?.trim_end());
            Ok(self.accepts()?.then_some(()))
        })?;
        if self.pin.is_empty() {
            self.pin = wait_until("the pin in the relay's log", Duration::from_secs(5), || {
                Ok(pin_in(&process.log()?))
            })?;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Runs the program in the foreground, for starts that fail.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn attempt(&self) -> Result<Output> {
        self.command()?.limit(Duration::from_secs(10)).output()
    }

    /// Whether somebody listens on the TLS port.
    ///
    /// # Errors
    /// `ss` failed.
    pub fn accepts(&self) -> Result<bool> {
        let suffix = format!(":{}", Self::PORT);
        let lines = self.host.run("ss").args(["-H", "-lnt"]).ok()?.stdout;
        Ok(lines.lines().any(|line| line.split_whitespace().nth(3).is_some_and(|a| a.ends_with(&suffix))))
    }

    /// Asks the relay to end and waits for it.
    ///
    /// # Errors
    /// It did not end with success.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("the relay does not run")?.terminate(Duration::from_secs(10))
    }

    /// Kills the relay.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the relay does not run")?.kill()
    }

    /// The running program.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the relay does not run")
    }

    /// The file with its certificate and key, which it made at its first start.
    pub fn certificate(&self) -> PathBuf {
        self.config_path.with_file_name("state").join("relay.pem")
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where users find the relay, with its pin.
    pub fn url(&self) -> String {
        self.url_with_pin(&self.pin)
    }

    /// The same with another pin.
    pub fn url_with_pin(&self, pin: &str) -> String {
        let address = self.host.address();
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        format!("wss://{host}:{}#{pin}", Self::PORT)
    }

    /// The same by a name that the users have to know.
    pub fn url_with_name(&self, name: &str) -> String {
        format!("wss://{name}:{}#{}", Self::PORT, self.pin)
    }

    fn command(&self) -> Result<crate::host::Run<'_>> {
        let program = binary("meshrelay")?;
        let config = self.config_path.display().to_string();
        Ok(self
            .host
            .run(&program.display().to_string())
            .args(["--config", &config])
            .args(self.arguments.iter().cloned()))
    }
}

/// The first word of 52 base32 characters: no other text that a relay prints has this form.
fn pin_in(log: &str) -> Option<String> {
    log.split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.len() == 52 && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_is_found_behind_a_url() {
        let pin = "a".repeat(52);
        assert_eq!(pin_in(&format!("listening url=wss://host:8443#{pin} x")), Some(pin));
        assert_eq!(pin_in("nothing"), None);
    }
}
