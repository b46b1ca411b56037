//! A daemon that answers what the test says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use mesh_control::{ApiError, Document};
use tempfile::TempDir;

/// What the server says to one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// An HTTP status and a JSON body.
    Json(u16, String),
    /// Events, after which the stream breaks off.
    Events(Vec<String>),
    /// Nothing, for as long as the server lives.
    Silence,
}

impl Answer {
    pub(crate) fn ok<T: Document>(document: &T) -> Self {
        Self::Json(200, document.to_json().unwrap())
    }

    pub(crate) fn refusal(error: &ApiError) -> Self {
        Self::Json(error.code.http_status(), error.to_json().unwrap())
    }
}

type Script = dyn Fn(&str, &str) -> Answer + Send + Sync;

/// Serves until dropped.
pub(crate) struct Server {
    directory: TempDir,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    asked: Mutex<Vec<(String, String)>>,
    silent: Mutex<Vec<UnixStream>>,
    stop: AtomicBool,
}

impl Server {
    /// The script gets `METHOD /path` and the body.
    pub(crate) fn start(script: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            asked: Mutex::default(),
            silent: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { directory, shared, acceptor: Some(acceptor) }
    }

    /// Gives the answers of each route in turn; the last one for good.
    pub(crate) fn script(answers: Vec<(&'static str, Vec<Answer>)>) -> Self {
        let queues: Vec<(&str, Mutex<VecDeque<Answer>>)> =
            answers.into_iter().map(|(route, answers)| (route, Mutex::new(answers.into()))).collect();
        Self::start(move |route, _| {
            let Some((_, queue)) = queues.iter().find(|(known, _)| *known == route) else {
                return Answer::Json(404, "{}".to_owned());
            };
            let mut queue = queue.lock().unwrap();
            if queue.len() > 1 { queue.pop_front().unwrap() } else { queue[0].clone() }
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// The bodies that came to `METHOD /path`.
    pub(crate) fn bodies(&self, route: &str) -> Vec<String> {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|(known, _)| known == route).map(|(_, body)| body.clone()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for stream in self.shared.silent.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = UnixStream::connect(self.socket());
        let _ = self.acceptor.take().unwrap().join();
    }
}

fn accept(listener: &UnixListener, shared: &Shared) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        serve(stream.unwrap(), shared);
    }
}

fn serve(mut stream: UnixStream, shared: &Shared) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let route = first.rsplit_once(' ').map_or("", |(route, _)| route).to_owned();
    let answer = (shared.script)(&route, &body);
    shared.asked.lock().unwrap().push((route, body));
    // The program under test may have gone.
    let _ = match answer {
        Answer::Json(status, body) => write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ),
        Answer::Events(events) => {
            let data: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{data}")
        }
        Answer::Silence => {
            shared.silent.lock().unwrap().push(stream);
            Ok(())
        }
    };
}
