//! The relay's certificate: its own, made at the first start, or PEM files of the operator.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use mesh_wire::Pin;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;

/// A certificate chain with its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: Pin,
}

/// Why there is no certificate. The text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path} ({source})")]
    Read {
        /// The file.
        path: PathBuf,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// A file or the directory cannot be written.
    #[error("cannot write {path} ({source}); check that state_dir exists and belongs to the relay's user")]
    Write {
        /// The file.
        path: PathBuf,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// Others can read the private key.
    #[error("others can read the private key {path}; run \"chmod o-rwx {path}\" and consider a new key")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
}

impl Certificate {
    /// Reads the certificate that the configuration names, or the relay's own; makes the latter when it is missing.
    ///
    /// # Errors
    /// [`CertificateError`] names the file.
    pub(crate) fn load_or_create(config: &Config) -> Result<Self, CertificateError> {
        let own_path = config.state_dir.join(OWN_FILE);
        match (&config.certificate, &config.key) {
            (Some(chain_path), Some(key_path)) => Self::load(chain_path, key_path),
            _ => Self::own(&own_path),
        }
    }

    /// Reads a certificate of this program's making; makes it when it is missing.
    ///
    /// # Errors
    /// [`CertificateError`] names the file.
    pub(crate) fn own(path: &Path) -> Result<Self, CertificateError> {
        if !path.exists() {
            create_own(path)?;
        }
        Self::load(path, path)
    }

    /// Reads the certificate without making one: `Ok(None)` when the relay's own is not there yet.
    ///
    /// # Errors
    /// [`CertificateError`] names the file.
    pub(crate) fn check(config: &Config) -> Result<Option<Self>, CertificateError> {
        let own = config.certificate.is_none();
        if own && !config.state_dir.join(OWN_FILE).exists() {
            return Ok(None);
        }
        Self::load_or_create(config).map(Some)
    }

    fn load(chain_path: &Path, key_path: &Path) -> Result<Self, CertificateError> {
        let content =
            |path: &Path, reason: String| CertificateError::Content { path: path.to_owned(), reason };
        let chain_pem = read(chain_path)?;
        let key_pem = read(key_path)?;
        let mode = fs::metadata(key_path).map_err(|source| read_error(key_path, source))?.mode();
        if mode & 0o007 != 0 {
            return Err(CertificateError::Exposed { path: key_path.to_owned() });
        }
        let chain = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| content(chain_path, format!("is no PEM file ({error})")))?;
        let Some(first) = chain.first() else {
            return Err(content(chain_path, "holds no certificate".to_owned()));
        };
        let parsed = ParsedCertificate::try_from(first)
            .map_err(|error| content(chain_path, format!("the certificate is malformed ({error})")))?;
        let hash = digest::digest(&digest::SHA256, &parsed.subject_public_key_info());
        let pin = Pin(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"));
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|error| content(key_path, format!("holds no private key ({error})")))?;
        let certificate = Self { chain, key, pin };
        // A key that does not belong to the certificate shows here, not at the first client.
        certificate.server_config().map_err(|error| content(key_path, error.to_string()))?;
        Ok(certificate)
    }

    /// Returns SHA-256 of the public key.
    pub(crate) const fn pin(&self) -> Pin {
        self.pin
    }

    /// Returns the TLS configuration: TLS 1.3 only, the hybrid key exchange preferred, no tickets.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = CryptoProvider {
            kx_groups: vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519],
            ..provider::default_provider()
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

/// Writes certificate and key to one file, so that there is never one without the other.
fn create_own(path: &Path) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::Write { path: path.to_owned(), source };
    let generated = || -> Result<String, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = CertificateParams::new(vec![SUBJECT.to_owned()])?.self_signed(&key)?;
        Ok(certificate.pem() + &key.serialize_pem())
    };
    let pem = generated().map_err(|error| failed(io::Error::other(error)))?;
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.set_permissions(PermissionsExt::from_mode(0o600))?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(failed)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| read_error(path, source))
}

fn read_error(path: &Path, source: io::Error) -> CertificateError {
    CertificateError::Read { path: path.to_owned(), source }
}

/// Certificate and key of the relay within its state directory.
const OWN_FILE: &str = "relay.pem";
/// Nobody reads it: clients look at the key only.
const SUBJECT: &str = "shadowmesh-relay";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        Config { state_dir: dir.to_owned(), ..Config::default() }
    }

    #[test]
    fn an_own_certificate_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir.path().join("state"));
        assert!(Certificate::check(&config).unwrap().is_none());
        let first = Certificate::load_or_create(&config).unwrap();
        assert_eq!(Certificate::load_or_create(&config).unwrap().pin(), first.pin());
        let mode = fs::metadata(config.state_dir.join(OWN_FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&config.state_dir).unwrap().count(), 1);
    }

    #[test]
    fn an_exposed_or_damaged_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        Certificate::load_or_create(&config).unwrap();
        let path = dir.path().join(OWN_FILE);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).unwrap();
        let error = Certificate::load_or_create(&config).unwrap_err();
        assert!(matches!(error, CertificateError::Exposed { .. }), "{error}");

        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, "nothing").unwrap();
        let error = Certificate::load_or_create(&config).unwrap_err().to_string();
        assert!(error.ends_with("relay.pem: holds no certificate"), "{error}");
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Certificate::load_or_create(&config(one.path())).unwrap();
        Certificate::load_or_create(&config(two.path())).unwrap();
        let mixed = Config {
            certificate: Some(one.path().join(OWN_FILE)),
            key: Some(two.path().join(OWN_FILE)),
            ..Config::default()
        };
        assert!(matches!(Certificate::load_or_create(&mixed), Err(CertificateError::Content { .. })));
        let missing = Config { key: Some(two.path().join("none")), ..mixed };
        assert!(matches!(Certificate::load_or_create(&missing), Err(CertificateError::Read { .. })));
    }
}
