//! What another user of the machine may do; needs root, which may become anyone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mesh_control::{ApiError, Document, ErrorCode};
use nix::unistd::geteuid;

use super::Server;

#[tokio::test]
async fn stranger_cannot_connect() {
    let Some(server) = server() else { return };
    assert_eq!(as_nobody(&server.path, "GET", "/v1/status").await, "connect: Permission denied");
}

#[tokio::test]
async fn reader_may_read_but_not_change() {
    let Some(server) = server() else { return };
    // Stands for membership in the group, which lets a caller in who is neither root nor operator.
    fs::set_permissions(&server.path, Permissions::from_mode(0o666)).unwrap();
    assert!(as_nobody(&server.path, "GET", "/v1/status").await.starts_with("HTTP/1.1 200 "));
    for route in ["/v1/up", "/v1/down", "/v1/ping", "/v1/invites", "/v1/relays", "/v1/none"] {
        let answer = as_nobody(&server.path, "POST", route).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{route}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(ApiError::from_json(body.as_bytes()).unwrap().code, ErrorCode::NotPermitted);
    }
    assert_eq!(*server.backend.asked.lock().unwrap(), ["status"]);
}

fn server() -> Option<Server> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can act as another user");
        return None;
    }
    let server = Server::start();
    fs::set_permissions(server.path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    Some(server)
}

/// One request by the user `nobody`, sent with the perl that every Debian has.
async fn as_nobody(socket: &Path, method: &str, route: &str) -> String {
    let script = r#"
        use IO::Socket::UNIX;
        my ($path, $method, $route) = @ARGV;
        my $socket = IO::Socket::UNIX->new(Peer => $path) or do { print "connect: $!"; exit };
        print $socket "$method $route HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n";
        $socket->flush;
        print while <$socket>;
    "#;
    let mut command = Command::new("perl");
    command.args(["-e", script]).arg(socket).args([method, route]).env("LC_ALL", "C").current_dir("/");
    command.uid(NOBODY).gid(NOBODY);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const NOBODY: u32 = 65534;
