//! The control channel: the client opens it, both sides say what they are, messages of later versions are skipped.

use mesh_wire::WireError;
use mesh_wire::channel::{BLOCK, CONTROL, CONTROL_VERSION, Message, Preamble, block_len};
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, WriteError};

use super::PeerInfo;

/// Why a control channel came to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// The connection ended, with the channel in it.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The peer sent what the protocol does not allow.
    #[error("the peer broke the control channel's rules ({0})")]
    Wire(#[from] WireError),
    /// The peer opened a channel of another kind.
    #[error("the peer opened a channel that is not the control channel of version {CONTROL_VERSION}")]
    Preamble,
    /// The peer's first message is not its INFO, or a later one is.
    #[error("the peer sent its INFO not once and first")]
    Order,
    /// The peer ended its side of the channel.
    #[error("the peer ended the control channel")]
    Ended,
}

/// Both directions of an open control channel. Our direction stays open as long as this value lives.
pub(super) struct Control {
    send: SendStream,
    recv: RecvStream,
    block: [u8; BLOCK],
}

impl Control {
    /// Opens the channel as the client.
    pub(super) async fn open(connection: &Connection, info: &[u8]) -> Result<Self, ControlError> {
        let (send, recv) = connection.open_bi().await?;
        let mut control = Self { send, recv, block: [0; BLOCK] };
        let preamble = Preamble { protocol: CONTROL, version: CONTROL_VERSION }.encode();
        control.write(&[&preamble, info].concat()).await?;
        Ok(control)
    }

    /// Takes the channel that the client opens.
    pub(super) async fn accept(connection: &Connection, info: &[u8]) -> Result<Self, ControlError> {
        let (send, recv) = connection.accept_bi().await?;
        let mut control = Self { send, recv, block: [0; BLOCK] };
        let preamble = Preamble::parse(control.read().await?)?;
        if preamble != (Preamble { protocol: CONTROL, version: CONTROL_VERSION }) {
            return Err(ControlError::Preamble);
        }
        control.write(info).await?;
        Ok(control)
    }

    /// Reads the peer's first message.
    pub(super) async fn info(&mut self) -> Result<PeerInfo, ControlError> {
        match Message::parse(self.read().await?)? {
            Message::Info(info) => Ok(PeerInfo { version: info.version.to_owned(), os: info.os.to_owned() }),
            Message::Unknown(_) => Err(ControlError::Order),
        }
    }

    /// Reads what follows until the channel ends, and returns why it did.
    pub(super) async fn run(mut self) -> ControlError {
        loop {
            let message = match self.read().await {
                Ok(body) => Message::parse(body),
                Err(error) => return error,
            };
            match message {
                Ok(Message::Unknown(_)) => {}
                Ok(Message::Info(_)) => return ControlError::Order,
                Err(error) => return error.into(),
            }
        }
    }

    async fn read(&mut self) -> Result<&[u8], ControlError> {
        let mut header = [0; 2];
        self.recv.read_exact(&mut header).await.map_err(read_error)?;
        let body = &mut self.block[..block_len(header)?];
        self.recv.read_exact(body).await.map_err(read_error)?;
        Ok(body)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ControlError> {
        self.send.write_all(bytes).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                ControlError::Ended
            }
        })
    }
}

fn read_error(error: ReadExactError) -> ControlError {
    match error {
        ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => error.into(),
        ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_) => ControlError::Ended,
    }
}
