//! The smallest web server that `curl` is content with.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// Serves one page of a given size until killed.
pub(crate) fn run(bind: SocketAddr, bytes: usize, title: &str) -> Result<()> {
    let mut page = format!("{title}\n").into_bytes();
    page.resize(bytes.max(page.len()), b'.');
    let listener = TcpListener::bind(bind).with_context(|| format!("cannot listen on {bind}"))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut request = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        // The blank line ends the request; the path decides.
        let mut small = false;
        while request.read_line(&mut line).is_ok_and(|read| read > 2) {
            small |= line.starts_with("GET / ");
            line.clear();
        }
        let body = if small { &page[..title.len() + 1] } else { &page[..] };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // A client that goes away early is its own affair.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    }
}
