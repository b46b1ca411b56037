//! The smallest web server that `curl` is content with.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::announce_ready;

/// Serves one file to every request until it is killed.
pub(crate) fn serve(bind: SocketAddr, file: &Path) -> Result<Value> {
    let body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let listener = TcpListener::bind(bind).context("cannot bind")?;
    announce_ready();
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut request = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        // The blank line ends the request; its content does not matter here.
        while request.read_line(&mut line).is_ok_and(|read| read > 2) {
            line.clear();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // A client that goes away early is its own affair.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }
}
