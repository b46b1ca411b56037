//! A man in the middle between a client and an honest relay: what the relay asks is asked of the client, and what the
//! client answers is the answer.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use mesh_wire::relay::RelayMessage;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::{Socket, say};

/// Connects to the honest relay in the name of a client and passes everything on, both ways, until one of them ends it.
pub(crate) async fn forward(mut client: Socket, address: SocketAddr) -> Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.context("the honest relay is away")?;
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("relay")?, tcp).await?;
    let (mut relay, _) = client_async("wss://relay/relay", tls).await?;
    let mut asked = false;
    loop {
        tokio::select! {
            message = relay.next() => {
                let Some(Ok(message)) = message else { return Ok(()) };
                if let Message::Binary(bytes) = &message {
                    match RelayMessage::parse(bytes) {
                        Ok(RelayMessage::Hello(_)) => asked = true,
                        Ok(RelayMessage::Welcome(_)) => say("upstream let us in"),
                        Ok(RelayMessage::Error { code, text }) => say(&format!("upstream refused: {code:?}, {text}")),
                        Ok(_) | Err(_) => {}
                    }
                }
                client.send(message).await?;
            }
            message = client.next() => {
                let Some(Ok(message)) = message else { return Ok(()) };
                if asked && matches!(message, Message::Binary(_)) {
                    asked = false;
                    say("forwarded an answer");
                }
                relay.send(message).await?;
            }
        }
    }
}

#[derive(Debug)]
struct TrustAll;

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
