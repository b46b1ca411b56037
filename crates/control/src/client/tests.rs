//! The client against servers that do not behave; how it gets on with a daemon is tested there.

use std::os::unix::net::UnixListener as StdListener;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;
use crate::error::ErrorCode;

#[tokio::test]
async fn missing_socket_means_not_running() {
    let error = Client::new("/nonexistent/meshd.sock").status().await.unwrap_err();
    assert_eq!(error.to_string(), "meshd is not running (/nonexistent/meshd.sock: no such file)");
    assert!(error.hint().unwrap().contains("systemctl start shadowmesh"));
}

#[tokio::test]
async fn abandoned_socket_means_not_running() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    drop(StdListener::bind(&path).unwrap());
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { why: "nobody listens there", .. }), "{error}");
}

#[tokio::test]
async fn other_program_is_no_meshd() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        http("200 OK", "<html></html>"),
        http("200 OK", r#"{"schema":"shadowmesh.status/9"}"#),
        http("200 OK", r#"{"version":"1"}"#),
        http("404 Not Found", "no"),
    ] {
        let error = against(answer.into_bytes()).await.unwrap_err();
        assert!(matches!(error, ClientError::NotMeshd { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn closed_connection_is_broken() {
    let error = against(Vec::new()).await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn endless_answer_is_cut_off() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec();
    answer.resize(ANSWER_LIMIT + 1000, b' ');
    let error = against(answer).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn refusal_keeps_code_and_hint() {
    let refusal = ApiError::new(ErrorCode::Down, "the node is down").with_hint("meshctl up");
    let error = against(http("409 Conflict", &refusal.to_json().unwrap()).into_bytes()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Down));
    assert_eq!((error.to_string(), error.hint()), ("the node is down".into(), Some("meshctl up".into())));
}

#[tokio::test(start_paused = true)]
async fn silent_daemon_runs_into_the_deadline() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    let _listener = StdListener::bind(&path).unwrap();
    let error = Client::new(&path).version().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { waited: READ_TIMEOUT, .. }), "{error:?}");
}

#[test]
fn peer_names_are_escaped_in_routes() {
    assert_eq!(percent_encode("pi-4.home_x~"), "pi-4.home_x~");
    assert_eq!(percent_encode("../up ü"), "..%2Fup%20%C3%BC");
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Asks for the version of a server that reads a request and answers with these bytes.
async fn against(answer: Vec<u8>) -> Result<Version, ClientError> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        // The client may hang up before it has all.
        let _ = stream.write_all(&answer).await;
    };
    let client = Client::new(&path);
    let (answer, ()) = tokio::join!(client.version(), server);
    answer
}
