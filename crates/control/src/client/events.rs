//! Reading server-sent events (WHATWG HTML section 9.2).

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::ClientError;
use crate::document::Document;
use crate::types::Event;

/// The daemon's events, as they come.
#[derive(Debug)]
pub struct EventStream {
    socket: PathBuf,
    body: Incoming,
    parser: Parser,
    /// Reads the connection for as long as the stream lives.
    _connection: JoinSet<()>,
}

impl EventStream {
    pub(super) fn new(socket: PathBuf, body: Incoming, connection: JoinSet<()>) -> Self {
        Self { socket, body, parser: Parser::default(), _connection: connection }
    }

    /// Waits for the next event; nothing when the daemon ends the stream, as it does when it stops.
    ///
    /// May be dropped and called again without loss.
    ///
    /// # Errors
    /// When the connection breaks, the daemon is silent for 45 s, or what comes is no event. Ask for the status then,
    /// and for a new stream.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(data) = self.parser.take_event() {
                let event = Event::from_json(&data).map_err(|error| self.strange(error.to_string()))?;
                return Ok(Some(event));
            }
            let frame = match timeout(SILENCE_LIMIT, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(ClientError::Broken { socket: self.socket.clone(), source: error.into() });
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    return Err(ClientError::Timeout { socket: self.socket.clone(), waited: SILENCE_LIMIT });
                }
            };
            if let Some(data) = frame.data_ref()
                && !self.parser.push(data)
            {
                return Err(self.strange(format!("an event of more than {EVENT_LIMIT} bytes")));
            }
        }
    }

    fn strange(&self, what: String) -> ClientError {
        ClientError::NotMeshd { socket: self.socket.clone(), what }
    }
}

/// Splits the byte stream into the data of events.
#[derive(Debug, Default)]
struct Parser {
    /// What has arrived of the line under way and of those after it.
    buffer: Vec<u8>,
    /// Where the search for the end of the line goes on.
    searched: usize,
    /// The data lines of the event under way.
    data: Vec<u8>,
}

impl Parser {
    /// Takes bytes in; false when they are more than an event may have.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() + self.data.len() <= EVENT_LIMIT
    }

    /// The data of the next complete event.
    fn take_event(&mut self) -> Option<Vec<u8>> {
        let mut consumed = 0;
        let mut event = None;
        while let Some(end) = self.buffer[self.searched..].iter().position(|&b| b == b'\n') {
            let line = &self.buffer[consumed..self.searched + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.searched += end + 1;
            if line.is_empty() && !self.data.is_empty() {
                event = Some(std::mem::take(&mut self.data));
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            consumed = self.searched;
            if event.is_some() {
                break;
            }
        }
        self.buffer.drain(..consumed);
        self.searched = if event.is_some() { 0 } else { self.buffer.len() };
        event
    }
}

/// Three missed signs of life.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);

/// An event is about one thing; this is a thousand times that.
const EVENT_LIMIT: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parser: &mut Parser) -> Vec<String> {
        std::iter::from_fn(|| parser.take_event()).map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn events_are_found_at_every_split() {
        let stream =
            b": listening\n\nevent: state\ndata: {\"a\":1}\n\ndata: x\ndata: y\r\n\r\nid: 3\n\ndata:z\n\n";
        for split in 0..stream.len() {
            let mut parser = Parser::default();
            assert!(parser.push(&stream[..split]));
            let mut events = all(&mut parser);
            assert!(parser.push(&stream[split..]));
            events.extend(all(&mut parser));
            assert_eq!(events, ["{\"a\":1}", "x\ny", "z"], "split at {split}");
        }
    }

    #[test]
    fn unfinished_event_is_kept_back() {
        let mut parser = Parser::default();
        assert!(parser.push(b"data: half"));
        assert_eq!(parser.take_event(), None);
        assert!(parser.push(b" done\n"));
        assert_eq!(parser.take_event(), None);
        assert!(parser.push(b"\n"));
        assert_eq!(parser.take_event().as_deref(), Some(b"half done".as_slice()));
    }

    #[test]
    fn endless_event_is_refused() {
        let mut parser = Parser::default();
        let line = vec![b'x'; 64 * 1024];
        assert!((0..=EVENT_LIMIT / line.len()).any(|_| !parser.push(&line)));
    }
}
