//! TLS 1.3 between two nodes that know each other's certificate key, and how QUIC is configured.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use mesh_wire::{Pin, channel};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{TransportConfig, VarInt};
use rcgen::{CertificateParams, PKCS_ED25519, PublicKeyData};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureAlgorithm,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::QuicError;
use super::socket::DATAGRAM;
use crate::tls::certificate_pin;

/// The certificate of this start, and the configurations that present it.
pub(super) struct Identity {
    pin: Pin,
    resolver: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
    client_transport: Arc<TransportConfig>,
    server_transport: Arc<TransportConfig>,
}

impl Identity {
    /// Makes an Ed25519 key and a certificate for it.
    pub(super) fn generate() -> Result<Self, QuicError> {
        Self::with_provider(crypto_provider())
    }

    pub(super) fn with_provider(provider: CryptoProvider) -> Result<Self, QuicError> {
        let key = EphemeralKey::generate()?;
        let certificate = CertificateParams::new(vec![NAME.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .map_err(QuicError::Certificate)?;
        Self::assemble(provider, certificate.der().clone(), key)
    }

    fn assemble(
        provider: CryptoProvider,
        certificate: CertificateDer<'static>,
        key: EphemeralKey,
    ) -> Result<Self, QuicError> {
        let pin = certificate_pin(&certificate)?;
        let certified = CertifiedKey::new(vec![certificate], Arc::new(key));
        Ok(Self {
            pin,
            resolver: Arc::new(SingleCertAndKey::from(certified)),
            provider: Arc::new(provider),
            client_transport: Arc::new(transport(0)),
            server_transport: Arc::new(transport(1)),
        })
    }

    pub(super) const fn pin(&self) -> Pin {
        self.pin
    }

    /// Returns the configuration of connections to the peer whose certificate key is `peer`.
    pub(super) fn client(&self, peer: Pin) -> Result<quinn::ClientConfig, QuicError> {
        let mut tls = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(Some(peer)))
            .with_client_cert_resolver(self.resolver.clone());
        tls.alpn_protocols = vec![channel::ALPN.to_vec()];
        tls.enable_sni = false;
        // A resumed connection would skip the certificate.
        tls.resumption = rustls::client::Resumption::disabled();
        let tls = QuicClientConfig::with_initial(Arc::new(tls), initial_suite())
            .expect("the suite is the one that QUIC prescribes");
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.client_transport.clone());
        Ok(config)
    }

    /// Returns the configuration of connections from the peer whose certificate key is `peer`; none is accepted with
    /// `None`.
    pub(super) fn server(&self, peer: Option<Pin>) -> Result<quinn::ServerConfig, QuicError> {
        let mut tls = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.verifier(peer))
            .with_cert_resolver(self.resolver.clone());
        tls.alpn_protocols = vec![channel::ALPN.to_vec()];
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        let tls = QuicServerConfig::with_initial(Arc::new(tls), initial_suite())
            .expect("the suite is the one that QUIC prescribes");
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config
            .transport_config(self.server_transport.clone())
            .migration(false)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES * 16);
        Ok(config)
    }

    fn verifier(&self, pin: Option<Pin>) -> Arc<PeerVerifier> {
        Arc::new(PeerVerifier { pin, provider: self.provider.clone() })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// The private key; never in the form of bytes outside aws-lc, which wipes it when it is freed.
struct EphemeralKey(Arc<Ed25519KeyPair>);

impl EphemeralKey {
    fn generate() -> Result<Self, QuicError> {
        Ed25519KeyPair::generate().map(|key| Self(Arc::new(key))).map_err(|_| QuicError::Random)
    }
}

impl PublicKeyData for EphemeralKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for EphemeralKey {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(msg).as_ref().to_vec())
    }
}

impl SigningKey for EphemeralKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for EphemeralKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for EphemeralKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EphemeralKey([redacted])")
    }
}

/// Accepts the one certificate key that the peer named in its session, whatever else the certificate says.
#[derive(Debug)]
struct PeerVerifier {
    pin: Option<Pin>,
    provider: Arc<CryptoProvider>,
}

impl PeerVerifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = certificate_pin(certificate)?;
        match self.pin {
            Some(pin) if verify_slices_are_equal(&found.0, &pin.0).is_ok() => Ok(()),
            Some(_) | None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Both ends are ours, so nothing is offered but the hybrid key exchange and ciphers with keys of 256 bits.
pub(super) fn crypto_provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![provider::kx_group::X25519MLKEM768],
        ..provider::default_provider()
    }
}

/// Returns the suite whose keys anybody can compute, for the first packets (RFC 9001, section 5.2).
fn initial_suite() -> rustls::quic::Suite {
    provider::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(rustls::Tls13CipherSuite::quic_suite)
        .expect("aws-lc has the suite for QUIC")
}

/// `streams` is how many the peer may open: the client opens the control channel, and there is no other yet.
fn transport(streams: u32) -> TransportConfig {
    let datagram = u16::try_from(DATAGRAM).expect("1200 is below 65,536");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        // A connection stands as long as its session, which has timers of its own; idle peers stay silent.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        .initial_mtu(datagram)
        .min_mtu(datagram)
        .mtu_discovery_config(None)
        .initial_rtt(INITIAL_RTT);
    config
}

/// Nobody reads it: peers look at the key only.
pub(super) const NAME: &str = "shadowmesh";
/// A first datagram that got lost is repeated after three times this; nodes further apart repeat it in vain once.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Unread bytes of one stream that a peer can make us keep.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Unread bytes of one connection that a peer can make us keep, less than the queue in front of the endpoint holds.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Connections from peers that wait for the endpoint to look at them; further ones are refused, and tried again.
const MAX_INCOMING: usize = 256;
/// Bytes that wait with one of them: a first flight and its repetitions.
const INCOMING_BYTES: u64 = 16 * 1024;

#[cfg(test)]
impl Identity {
    /// Returns what somebody has who copied a certificate, but not its key.
    pub(super) fn forged(certificate: CertificateDer<'static>) -> Self {
        Self::assemble(crypto_provider(), certificate, EphemeralKey::generate().unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_never_shown() {
        let identity = Identity::generate().unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity {{ pin: {:?}, .. }}", identity.pin));
        let shown = format!("{:?}", identity.resolver);
        assert!(shown.contains("EphemeralKey([redacted])"), "{shown}");
        assert!(!shown.contains("private"), "{shown}");
    }

    #[test]
    fn every_start_has_a_key_of_its_own() {
        assert_ne!(Identity::generate().unwrap().pin(), Identity::generate().unwrap().pin());
    }

    #[test]
    fn only_the_hybrid_key_exchange_and_ed25519_are_offered() {
        let provider = crypto_provider();
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [rustls::NamedGroup::X25519MLKEM768]);
        let verifier = PeerVerifier { pin: None, provider: Arc::new(provider) };
        assert_eq!(ServerCertVerifier::supported_verify_schemes(&verifier), [SignatureScheme::ED25519]);
        assert_eq!(ClientCertVerifier::supported_verify_schemes(&verifier), [SignatureScheme::ED25519]);
    }
}
