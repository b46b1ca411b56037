//! TLS 1.3 towards a relay whose certificate is pinned.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use mesh_wire::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Accepts the one certificate key that a pin names, whatever else the certificate says.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    /// The pin of a certificate that was refused, for the message to the user.
    refused: Mutex<Option<Pin>>,
}

impl PinVerifier {
    /// Returns a verifier and the client configuration that uses it.
    ///
    /// # Errors
    /// [`Error`] when the provider lacks TLS 1.3.
    pub(crate) fn client(pin: Pin) -> Result<(Arc<Self>, ClientConfig), Error> {
        // Both ends are ours, so the client offers nothing but the hybrid key exchange.
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![provider::kx_group::X25519MLKEM768],
            ..provider::default_provider()
        });
        let verifier = Arc::new(Self { pin, provider: provider.clone(), refused: Mutex::new(None) });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        // A resumed connection would skip the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok((verifier, config))
    }

    /// Returns the pin of the certificate that was refused, if one was.
    pub(crate) fn refused(&self) -> Option<Pin> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = certificate_pin(end_entity)?;
        if verify_slices_are_equal(&found.0, &self.pin.0).is_err() {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
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
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns SHA-256 of the certificate's SubjectPublicKeyInfo.
pub(crate) fn certificate_pin(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let hash = digest::digest(&digest::SHA256, &parsed.subject_public_key_info());
    Ok(Pin(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
}
