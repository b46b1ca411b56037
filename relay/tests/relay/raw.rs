//! A client that sends whatever a test wants.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use mesh_identity::{Identity, Label, sha512};
use mesh_wire::NetId;
use mesh_wire::relay::{
    ClientAuth, ClientMessage, EXPORTER_LABEL, ErrorCode, RelayMessage, Role, ServerHello, auth_input,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{PATIENCE, Place};

/// A WebSocket to the relay, with the exporter of its TLS connection.
pub(crate) struct Raw {
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
    pub(crate) exporter: [u8; 32],
}

impl Raw {
    pub(crate) async fn connect(place: &Place) -> Self {
        let tls = tls(place, true).await.unwrap();
        let mut exporter = [0; 32];
        tls.get_ref().1.export_keying_material(&mut exporter, EXPORTER_LABEL, None).unwrap();
        let (socket, _) = client_async("wss://localhost/relay", tls).await.unwrap();
        Self { socket, exporter }
    }

    pub(crate) async fn hello(&mut self) -> ServerHello {
        match RelayMessage::parse(&self.next().await.unwrap()).unwrap() {
            RelayMessage::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the next binary message, `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("no message and no end")? {
                Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends; an error shows at the next read.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        let _ = self.socket.send(Message::Binary(bytes.into())).await;
    }

    /// Skips to an ERROR, returns its code and makes sure that the connection ends.
    pub(crate) async fn refused(&mut self) -> Option<ErrorCode> {
        let mut code = None;
        while let Some(bytes) = self.next().await {
            if let Ok(RelayMessage::Error { code: found, .. }) = RelayMessage::parse(&bytes) {
                code = Some(found);
            }
        }
        code
    }

    /// Authenticates as a guest of a network.
    pub(crate) async fn guest(place: &Place, net: NetId) -> Self {
        let mut raw = Self::connect(place).await;
        let hello = raw.hello().await;
        let identity = Identity::generate().unwrap();
        raw.send(auth(&identity, &hello, &raw.exporter, Role::Guest, net, &[])).await;
        let welcome = raw.next().await.unwrap();
        assert!(matches!(RelayMessage::parse(&welcome), Ok(RelayMessage::Welcome(_))));
        raw
    }
}

/// Returns CLIENT_AUTH with a good signature over these values.
pub(crate) fn auth(
    identity: &Identity,
    hello: &ServerHello,
    exporter: &[u8; 32],
    role: Role,
    net: NetId,
    admission: &[u8],
) -> Vec<u8> {
    let input = auth_input(hello, exporter, role, net, &sha512(&[admission]));
    let signature = identity.sign(Label::RelayAuth, &sha512(&[&input])).unwrap();
    let keys = identity.public().as_bytes();
    ClientMessage::Auth(ClientAuth { role, net, keys, admission, signature: signature.as_bytes() }).encode()
}

/// Connects with TLS and trusts any certificate; offers TLS 1.3 with the hybrid key exchange, or with X25519 only.
pub(crate) async fn tls(place: &Place, hybrid: bool) -> std::io::Result<TlsStream<TcpStream>> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if !hybrid {
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth();
    let tcp = TcpStream::connect(place.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
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
