//! A relay whose operator is the attacker: it has the true key of the relay, speaks the protocol of the relay, and does
//! to the traffic what its mode says. It checks nothing of what clients show.
//!
//! `hub.rs` knows who is there and passes messages on, `mischief.rs` is what happens to them on the way, `pushes.rs` is
//! what it sends unasked, `upstream.rs` forwards the challenge of an honest relay. A line `mischief N` on the standard
//! output says that something was done for the N-th time; what was seen goes to a file.

mod dice;
mod hub;
mod mischief;
mod pushes;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use mesh_identity::PublicIdentity;
use mesh_wire::limits::RELAY_PAYLOAD;
use mesh_wire::relay::{Binding, ClientMessage, ROSTER_BLOB, RelayMessage, Role, ServerHello, Welcome};
use rustls::ServerConfig;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use hub::Hub;
use mischief::{Kind, Mode};

/// The WebSocket of a client.
type Socket = WebSocketStream<TlsStream<TcpStream>>;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Certificate and key of the relay that this one stands in for.
    #[arg(long)]
    pem: PathBuf,
    /// What is done to the traffic.
    #[arg(long, value_enum)]
    mode: Mode,
    /// The only message of a handshake that the mode is about; all four unless given.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Where everything that passes is written to.
    #[arg(long)]
    capture: PathBuf,
    /// The honest relay, for `forward-challenge`.
    #[arg(long)]
    upstream: Option<SocketAddr>,
    /// Where chance starts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (tls, pin) = certificate(&arguments.pem)?;
    let listener = TcpListener::bind(arguments.listen).await.context("cannot listen")?;
    let hub = Hub::new(arguments.mode, arguments.kind, arguments.seed, &arguments.capture)?;
    let hub = Arc::new(Mutex::new(hub));
    tokio::spawn(push(Arc::clone(&hub)));
    say("ready");
    loop {
        let (tcp, address) = listener.accept().await?;
        let (tls, hub) = (tls.clone(), Arc::clone(&hub));
        let upstream = arguments.upstream.filter(|_| arguments.mode == Mode::ForwardChallenge);
        tokio::spawn(async move {
            let served = async {
                let socket = accept_async(tls.accept(tcp).await?).await?;
                match upstream {
                    Some(upstream) => upstream::forward(socket, upstream).await,
                    None => serve(socket, address, pin, hub).await,
                }
            };
            if let Err(error) = served.await {
                say(&format!("client {address} ended: {error:#}"));
            }
        });
    }
}

/// Sends what the mode sends unasked, for ever.
async fn push(hub: Arc<Mutex<Hub>>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        hub.lock().unwrap_or_else(PoisonError::into_inner).push();
    }
}

/// Lets a client in, whoever it is, and moves its messages.
async fn serve(mut socket: Socket, observed: SocketAddr, pin: [u8; 32], hub: Arc<Mutex<Hub>>) -> Result<()> {
    let lock = || hub.lock().unwrap_or_else(PoisonError::into_inner);
    let hello = ServerHello {
        relay_id: pin,
        challenge: pin,
        binding: Binding::Exporter,
        max_payload: u32::try_from(RELAY_PAYLOAD)?,
        max_roster: u32::try_from(ROSTER_BLOB)?,
    };
    socket.send(Message::Binary(RelayMessage::Hello(hello).encode().into())).await?;
    let Some(Ok(Message::Binary(auth))) = socket.next().await else { bail!("no CLIENT_AUTH") };
    let ClientMessage::Auth(auth) = ClientMessage::parse(&auth)? else { bail!("no CLIENT_AUTH") };
    let keys = PublicIdentity::parse(auth.keys)?;
    let party = if auth.role == Role::Root { auth.net.as_party() } else { keys.node_id() };
    let welcome = Welcome { connection: [0; 16], observed, heartbeat: 30, handles: 4096, rate: 0 };
    socket.send(Message::Binary(RelayMessage::Welcome(welcome).encode().into())).await?;
    let (outbox, mut inbox) = mpsc::channel(OUTBOX);
    let number = lock().join(auth.net, party, auth.role, outbox);
    say(&format!("client {party} is welcome"));
    let result = loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let late = lock().handle(number, &bytes)?;
                    for (delay, delivery) in late {
                        let hub = Arc::clone(&hub);
                        tokio::spawn(async move {
                            tokio::time::sleep(delay).await;
                            hub.lock().unwrap_or_else(PoisonError::into_inner).deliver(&delivery);
                        });
                    }
                }
                Some(Ok(Message::Close(_))) | None => break Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error.into()),
            },
            Some(message) = inbox.recv() => {
                if let Err(error) = socket.send(message).await {
                    break Err(error.into());
                }
            }
        }
    };
    lock().leave(number);
    result
}

/// Reads certificate and key, and returns how to serve them with the pin that clients know.
fn certificate(path: &PathBuf) -> Result<(TlsAcceptor, [u8; 32])> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem)?;
    let parsed = ParsedCertificate::try_from(chain.first().context("no certificate")?)?;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &parsed.subject_public_key_info());
    let pin = hash.as_ref().try_into()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), pin))
}

/// One line for whoever waits for it.
#[expect(clippy::print_stdout, reason = "a test waits for these lines")]
fn say(text: &str) {
    println!("{text}");
}

/// Messages that wait for a client that does not read; what comes beyond them is lost.
const OUTBOX: usize = 4096;
