//! The program itself, against a daemon that answers what the test says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod server;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mesh_control::{
    AddressKind, ApiError, Counters, CryptoStatus, DirectStatus, DownAnswer, ErrorCode, FamilyCheck, Id,
    InviteAnswer, IpFamily, Mode, NatFiltering, NatMapping, Netcheck, NetworkStatus, NodeState, NodeStatus,
    OwnAddress, PathKind, PeerState, PeerStatus, Peers, PingAnswer, Readiness, RelayState, RelayStatus,
    RemoteAddress, Role, SessionStatus, Status, Timestamp, UpAnswer, Version,
};
use serde_json::Value;
use server::{Answer, Server};

#[test]
fn missing_daemon_is_exit_3_with_what_to_do() {
    for verb in ["status", "peers", "id", "down", "up", "version", "invite", "why pi", "netcheck"] {
        let words: Vec<&str> = verb.split(' ').collect();
        let output = meshctl(Path::new("/nonexistent/meshd.sock"), &words);
        assert_eq!(output.status.code(), Some(3), "{verb}");
        let line = stderr(&output).lines().last().unwrap().to_owned();
        assert_eq!(
            line,
            "meshctl: meshd is not running (/nonexistent/meshd.sock: no such file); start it with \
             \"systemctl start shadowmesh\", or name its socket with --socket"
        );
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    for args in [
        &["dance"][..],
        &[],
        &["up", "mesh1ticket"],
        &["ping", "--timeout", "61", "pi"],
        &["man", "--json", "."],
    ] {
        assert_eq!(meshctl(Path::new("/nonexistent"), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn every_refusal_has_its_exit_code_and_one_line() {
    for code in ErrorCode::ALL {
        let error = ApiError::new(code, "it\ndid not work").with_hint("do this");
        let server = Server::start(move |_, _| Answer::refusal(&error));
        let expected = match code.as_str() {
            "bad_request" => 2,
            "not_enrolled" | "down" => 4,
            "not_permitted" => 5,
            "unknown_peer" => 6,
            "timeout" => 7,
            "degraded" => 8,
            _ => 1,
        };
        let output = meshctl(&server.socket(), &["down"]);
        assert_eq!(output.status.code(), Some(expected), "{code}");
        assert_eq!(stderr(&output), "meshctl: it did not work; do this\n");
        let output = meshctl(&server.socket(), &["--json", "down"]);
        let json: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((&json["schema"], &json["code"]), (&"shadowmesh.error/1".into(), &code.as_str().into()));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn json_of_every_verb_names_its_schema() {
    let server = daemon(vec![Answer::ok(&ready())]);
    for (args, schema) in [
        (&["status"][..], "status"),
        (&["peers"], "peers"),
        (&["peers", "pi"], "peer"),
        (&["id"], "id"),
        (&["version"], "versions"),
        (&["up"], "status"),
        (&["down"], "down"),
        (&["invite"], "invite"),
        (&["netcheck"], "netcheck"),
    ] {
        let output = meshctl(&server.socket(), &[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?} {}", stderr(&output));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["schema"], format!("shadowmesh.{schema}/1"), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?} {}", stderr(&output));
    }
}

#[test]
fn text_of_every_verb_goes_to_stdout() {
    let server = daemon(vec![Answer::ok(&ready())]);
    for (args, part) in [
        (&["status"][..], "pi    100.64.1.2  established  relay (relay.example)  12.3 ms"),
        (&["peers"], "pi    100.64.1.2"),
        (&["peers", "pi"], "suite        ML-KEM-1024"),
        (&["id"], "node id      aaaa"),
        (&["version"], "meshd   0.9.0 (mesh/1)"),
        (&["up"], "laptop is up in home"),
        (&["down"], "down"),
        (&["netcheck"], "  seen as    192.0.2.1:4000\n"),
        (&["netcheck"], "to do        do this\n"),
    ] {
        let output = meshctl(&server.socket(), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(stdout(&output).contains(part), "{args:?}: {}", stdout(&output));
        assert!(!stdout(&output).contains('\x1b'), "{args:?}");
    }
}

#[test]
fn status_exit_code_tells_the_state() {
    for (state, code) in [
        (NodeState::Unenrolled, 4),
        (NodeState::Down, 4),
        (NodeState::Starting, 8),
        (NodeState::Connecting, 8),
        (NodeState::Up, 0),
    ] {
        let server = daemon(vec![Answer::ok(&Status { state, ..ready() })]);
        assert_eq!(meshctl(&server.socket(), &["status"]).status.code(), Some(code), "{state}");
    }
}

#[test]
fn invite_prints_the_ticket_alone_on_stdout() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let args = ["invite", "--name", "pi", "--group", "a", "--group", "b", "--uses", "2", "--ttl", "1h30m"];
    let output = meshctl(&server.socket(), &args);
    assert_eq!(stdout(&output), "mesh1secret\n");
    assert!(stderr(&output).contains("meshctl up --ticket-file -"), "{}", stderr(&output));
    let body: Value = serde_json::from_str(&server.bodies("POST /v1/invites")[0]).unwrap();
    let expected =
        r#"{"schema":"shadowmesh.invite_request/1","name":"pi","groups":["a","b"],"uses":2,"ttl_s":5400}"#;
    assert_eq!(body, serde_json::from_str::<Value>(expected).unwrap());
}

#[test]
fn ticket_comes_from_stdin_file_or_environment() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let file = server.socket().with_file_name("ticket");
    fs::write(&file, "mesh1file\n").unwrap();

    let mut child = command(&server.socket(), &["up", "--ticket-file", "-", "--name", "pi"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: a line is enough.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"  mesh1stdin\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(stdin);
    meshctl(&server.socket(), &["up", "--ticket-file", file.to_str().unwrap()]);
    command(&server.socket(), &["up"]).env("SHADOWMESH_TICKET", "mesh1env").output().unwrap();

    let bodies: Vec<Value> =
        server.bodies("POST /v1/up").iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let tickets: Vec<&str> = bodies.iter().map(|body| body["ticket"].as_str().unwrap()).collect();
    assert_eq!(tickets, ["mesh1stdin", "mesh1file", "mesh1env"]);
    assert_eq!((&bodies[0]["action"], &bodies[0]["node_name"]), (&"join".into(), &"pi".into()));
}

#[test]
fn empty_ticket_is_refused_before_the_daemon_is_asked() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let output =
        command(&server.socket(), &["up", "--ticket-file", "-"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no ticket in standard input"), "{}", stderr(&output));
    assert!(server.bodies("POST /v1/up").is_empty());
}

#[test]
fn new_network_carries_its_relay_and_pool() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let args =
        ["up", "--new", "home", "--relay", "wss://r#P", "--name", "laptop", "--ipv4-pool", "100.80.0.0/16"];
    assert_eq!(meshctl(&server.socket(), &args).status.code(), Some(0));
    let body: Value = serde_json::from_str(&server.bodies("POST /v1/up")[0]).unwrap();
    let expected = r#"{"schema":"shadowmesh.up_request/1","action":"new","network_name":"home","relay":"wss://r#P",
        "node_name":"laptop","ipv4_pool":"100.80.0.0/16"}"#;
    assert_eq!(body, serde_json::from_str::<Value>(expected).unwrap());
}

#[test]
fn up_waits_until_data_passes_and_says_what_for() {
    let waits = |reason: &str| Answer::ok(&waiting(NodeState::Connecting, reason));
    let server = daemon(vec![
        waits("the relay relay.example to answer"),
        waits("the relay relay.example to answer"),
        waits("pi to answer"),
        Answer::ok(&ready()),
    ]);
    let output = meshctl(&server.socket(), &["up"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stderr(&output),
        "meshctl: coming up\nmeshctl: waiting for the relay relay.example to answer\n\
         meshctl: waiting for pi to answer\n"
    );
    assert!(
        stdout(&output).contains("reaches    pi via relay (relay.example), 12.3 ms"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn up_that_runs_out_of_time_is_exit_7_with_the_reason() {
    let mut status = waiting(NodeState::Connecting, "the relay to answer");
    status.relay = Some(RelayStatus { error: Some("connection refused".into()), ..RelayStatus::default() });
    let server = daemon(vec![Answer::ok(&status)]);
    let output = meshctl(&server.socket(), &["up", "--timeout", "0.2"]);
    assert_eq!(output.status.code(), Some(7));
    let line = stderr(&output).lines().last().unwrap().to_owned();
    assert_eq!(
        line,
        "meshctl: not ready after 0.2 s: waiting for the relay to answer (connection refused); meshd goes on trying, \
         \"meshctl status\" shows how far it is"
    );
}

#[test]
fn up_whose_joining_takes_too_long_is_exit_7() {
    let server = Server::script(vec![("POST /v1/up", vec![Answer::Silence])]);
    let output = meshctl(&server.socket(), &["up", "--timeout", "0.2"]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stderr(&output).contains("coming up took longer than 0.2 s"), "{}", stderr(&output));
}

#[test]
fn up_does_not_wait_with_no_wait() {
    let server = daemon(vec![Answer::ok(&waiting(NodeState::Connecting, "the relay to answer"))]);
    let output = meshctl(&server.socket(), &["up", "--no-wait"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("waits for  the relay to answer"), "{}", stdout(&output));
}

#[test]
fn up_of_the_only_member_is_done_and_with_all_others_offline_degraded() {
    let mut alone = waiting(NodeState::Up, "");
    alone.peers.clear();
    alone.ready.only_member = true;
    let server = daemon(vec![Answer::ok(&alone)]);
    let output = meshctl(&server.socket(), &["up"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("the only member"), "{}", stdout(&output));

    let mut offline = waiting(NodeState::Up, "pi to appear");
    offline.peers[0].online = Some(false);
    let server = daemon(vec![Answer::ok(&offline)]);
    let output = meshctl(&server.socket(), &["up"]);
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("laptop is up in home\n"), "{}", stdout(&output));
    assert!(stderr(&output).contains("every other member is offline"), "{}", stderr(&output));
}

#[test]
fn up_fails_when_the_node_is_taken_down_meanwhile() {
    let server = daemon(vec![
        Answer::ok(&waiting(NodeState::Connecting, "x")),
        Answer::ok(&waiting(NodeState::Down, "")),
    ]);
    assert_eq!(meshctl(&server.socket(), &["up"]).status.code(), Some(4));
}

#[test]
fn ping_prints_replies_and_a_summary() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let output = meshctl(&server.socket(), &["ping", "-c", "2", "-i", "0.01", "pi"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stdout(&output),
        "reply from pi (100.64.1.2) via relay: seq=1 rtt=12.3 ms\n\
         reply from pi (100.64.1.2) via relay: seq=2 rtt=12.3 ms\n\
         pi: 2 sent, 2 received, 0% loss, rtt min/avg/max 12.3 ms / 12.3 ms / 12.3 ms\n"
    );
    let output = meshctl(&server.socket(), &["ping", "-c", "2", "-i", "0.01", "--json", "pi"]);
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["schema"], &lines[0]["rtt_ms"]), (&"shadowmesh.ping/1".into(), &12.3.into()));
    assert_eq!(
        (&lines[2]["schema"], &lines[2]["received"]),
        (&"shadowmesh.ping_summary/1".into(), &2.into())
    );
}

#[test]
fn ping_without_any_reply_is_exit_7_and_with_one_exit_0() {
    let lost = Answer::refusal(&ApiError::new(ErrorCode::Timeout, "no answer within 100 ms"));
    let server = Server::script(vec![("POST /v1/ping", vec![lost.clone()])]);
    let output = meshctl(&server.socket(), &["ping", "-c", "2", "-i", "0.01", "--timeout", "0.1", "pi"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stdout(&output), "pi: 2 sent, 0 received, 100% loss\n");
    assert!(
        stderr(&output).contains("no reply from pi: seq=2 no answer within 100 ms"),
        "{}",
        stderr(&output)
    );

    let server = Server::script(vec![("POST /v1/ping", vec![lost, Answer::ok(&pong())])]);
    let output = meshctl(&server.socket(), &["ping", "-c", "2", "-i", "0.01", "pi"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("2 sent, 1 received, 50% loss"), "{}", stdout(&output));
}

#[test]
fn ping_until_direct_stops_there_and_is_exit_8_otherwise() {
    let direct = Answer::ok(&PingAnswer { path: PathKind::Direct, relay: None, ..pong() });
    let pings = vec![Answer::ok(&pong()), Answer::ok(&pong()), direct, Answer::ok(&pong())];
    let server = Server::script(vec![("POST /v1/ping", pings)]);
    let args = ["ping", "--until-direct", "-c", "9", "-i", "0.01", "pi"];
    let output = meshctl(&server.socket(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(server.bodies("POST /v1/ping").len(), 3);
    let text = stdout(&output);
    assert!(
        text.contains("reply from pi (100.64.1.2) via direct: seq=3 rtt=12.3 ms\npi: 3 sent, "),
        "{text}"
    );

    // From here on every answer comes over the relay.
    let output = meshctl(&server.socket(), &["ping", "--until-direct", "-c", "2", "-i", "0.01", "pi"]);
    assert_eq!(output.status.code(), Some(8));
    assert_eq!(stderr(&output), "meshctl: no direct path; \"meshctl why pi\" tells why\n");
    assert_eq!(server.bodies("POST /v1/ping").len(), 5);

    let lost = Answer::refusal(&ApiError::new(ErrorCode::Timeout, "no answer within 100 ms"));
    let server = Server::script(vec![("POST /v1/ping", vec![lost])]);
    let output = meshctl(&server.socket(), &["ping", "--until-direct", "-c", "2", "-i", "0.01", "pi"]);
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn ping_asks_for_a_path_and_a_length_and_prints_both() {
    let reply = PingAnswer { path: PathKind::Direct, relay: None, size: Some(1200), ..pong() };
    let server = Server::script(vec![("POST /v1/ping", vec![Answer::ok(&reply)])]);
    let args = ["ping", "--via", "direct", "--size", "1200", "-c", "1", "pi"];
    let output = meshctl(&server.socket(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.starts_with("reply from pi (100.64.1.2) via direct: seq=1 size=1200 rtt=12.3 ms\n"),
        "{text}"
    );
    let asked = &server.bodies("POST /v1/ping")[0];
    let asked: Value = serde_json::from_slice(asked.as_ref()).unwrap();
    assert_eq!((&asked["via"], &asked["size"]), (&"direct".into(), &1200.into()));
    let output = meshctl(&server.socket(), &["ping", "--json", "--size", "1200", "-c", "1", "pi"]);
    let line: Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!((&line["path"], &line["size"]), (&"direct".into(), &1200.into()));
    let bodies = server.bodies("POST /v1/ping");
    let asked: Value = serde_json::from_slice(bodies[1].as_ref()).unwrap();
    assert_eq!(asked["via"], Value::Null, "a path that nobody asked for");
}

#[test]
fn ping_over_a_path_that_does_not_exist_is_exit_1_and_says_what_to_do() {
    let error = ApiError::new(ErrorCode::NoPath, "there is no direct path to pi at the moment")
        .with_hint("a search begins; try again in 5 s");
    let server = Server::script(vec![("POST /v1/ping", vec![Answer::refusal(&error)])]);
    let output = meshctl(&server.socket(), &["ping", "--via", "direct", "-c", "5", "pi"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no direct path to pi at the moment"), "{}", stderr(&output));
    assert!(stderr(&output).contains("try again in 5 s"), "{}", stderr(&output));
    assert_eq!(server.bodies("POST /v1/ping").len(), 1, "what does not exist is asked for once");
}

#[test]
fn unknown_peer_is_exit_6_with_the_nearest_name() {
    let unknown = Answer::refusal(&ApiError::new(ErrorCode::UnknownPeer, "no peer is called \"pie\""));
    let server = Server::script(vec![
        ("POST /v1/ping", vec![unknown.clone()]),
        ("GET /v1/peers/pie", vec![unknown]),
        ("GET /v1/peers", vec![Answer::ok(&Peers { peers: ready().peers })]),
        ("GET /v1/status", vec![Answer::ok(&ready())]),
    ]);
    for args in [["ping", "pie"], ["peers", "pie"], ["why", "pie"]] {
        let output = meshctl(&server.socket(), &args);
        assert_eq!(output.status.code(), Some(6));
        assert_eq!(stderr(&output), "meshctl: no peer is called \"pie\"; did you mean \"pi\"?\n");
    }
}

#[test]
fn why_names_one_reason_and_one_thing_to_do() {
    let server = daemon_with_peer(relayed());
    let output = meshctl(&server.socket(), &["why", "pi"]);
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "\
pi: relay (relay.example), 12.3 ms, path never changed
because      the NAT here and the NAT of pi both use another public port for each destination (symmetric), so \
neither side can know where the other one will come from
to do        turn on UPnP or PCP in the router of this node; or forward UDP port 4747 to this machine on its router, set udp_listen = [\"0.0.0.0:4747\", \
\"[::]:4747\"] there, and endpoints.laptop = [\"203.0.113.5:4747\"] on pi
search       begins again with traffic in 12 s
nat here     another public port for each destination (symmetric)
nat there    another public port for each destination (symmetric)
this node    203.0.113.5:61000 (reflexive)

ITS ADDRESS        KIND       PROBES     LAST  ANSWERED  LONG ONES  MTU  RTT
198.51.100.7:4000  reflexive      14  9 s ago     never      never    -    -
"
    );
    let output = meshctl(&server.socket(), &["--json", "why", "100.64.1.2"]);
    assert_eq!(output.status.code(), Some(8));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema"], "shadowmesh.why/1");
    assert_eq!((&json["reason"], &json["path"]), (&"both_dependent".into(), &"relay".into()));
    assert!(json["to_do"].as_str().unwrap().contains("forward UDP port 4747"), "{json}");
    assert_eq!(json["peer"]["direct"]["remotes"][0]["sent"], 14);
}

#[test]
fn why_is_done_when_the_path_is_direct_and_exit_4_when_the_node_is_down() {
    let mut peer = relayed();
    (peer.path, peer.endpoint, peer.path_changes) =
        (PathKind::Direct, Some("198.51.100.7:4000".parse().unwrap()), 1);
    let output = meshctl(&daemon_with_peer(peer.clone()).socket(), &["why", "pi"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("pi: direct (198.51.100.7:4000), 12.3 ms, path changed 1 time\n"), "{text}");
    assert!(!text.contains("to do"), "{text}");

    let down = Status { state: NodeState::Down, ..ready() };
    let output = meshctl(&daemon(vec![Answer::ok(&down)]).socket(), &["why", "pi"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stderr(&output), "meshctl: this node is down; run \"meshctl up\" first\n");
}

#[test]
fn ping_stops_at_an_interrupt_with_its_summary() {
    let server = Server::script(vec![("POST /v1/ping", vec![Answer::ok(&pong())])]);
    let child = command(&server.socket(), &["ping", "-c", "0", "-i", "60", "pi"]).spawn().unwrap();
    until(|| !server.bodies("POST /v1/ping").is_empty());
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).contains("sent, "), "{}", stdout(&output));
    assert!(output.status.code().is_some(), "ended by the signal");
}

#[test]
fn closed_pipe_is_quiet() {
    let mut status = ready();
    // More than a pipe holds.
    status.peers = vec![status.peers[0].clone(); 2000];
    let server = daemon(vec![Answer::ok(&status)]);
    for args in [&["status"][..], &["--json", "status"]] {
        let mut child = command(&server.socket(), args).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn full_disk_is_reported() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(&server.socket(), &["status"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("failed to write the output: No space left"), "{}", stderr(&output));
}

#[test]
fn stranger_is_told_how_to_be_let_in() {
    let server = daemon(vec![Answer::ok(&ready())]);
    fs::set_permissions(server.socket(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(server.socket().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(&server.socket(), &["status"]);
    command.uid(65534).gid(65534).current_dir("/");
    match command.output() {
        Ok(output) => {
            assert_eq!(output.status.code(), Some(5));
            assert!(stderr(&output).contains("usermod -aG shadowmesh"), "{}", stderr(&output));
        }
        Err(error) => eprintln!("skipped: cannot run the program as another user here: {error}"),
    }
}

#[test]
fn socket_comes_from_the_environment_too() {
    let server = daemon(vec![Answer::ok(&ready())]);
    let output = Command::new(PROGRAM).arg("id").env("SHADOWMESH_SOCKET", server.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn version_without_a_daemon_still_tells_its_own() {
    let output = meshctl(Path::new("/nonexistent"), &["version"]);
    assert_eq!(stdout(&output), format!("meshctl {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&meshctl(Path::new("/nonexistent"), &["completions", shell])).contains("meshctl"));
    }
    let directory = tempfile::tempdir().unwrap();
    let output = meshctl(Path::new("/nonexistent"), &["man", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["meshctl.1", "meshctl-up.1", "meshctl-ping.1", "meshctl-why.1"] {
        assert!(fs::read_to_string(directory.path().join(page)).unwrap().contains(".TH"), "{page}");
    }
    let output = meshctl(Path::new("/nonexistent"), &["man", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
}

/// A daemon that knows every route, and whose status goes through these answers.
fn daemon(status: Vec<Answer>) -> Server {
    let up = UpAnswer {
        state: NodeState::Connecting,
        changed: true,
        network: ready().network.unwrap(),
        node: ready().node.unwrap(),
        ready: Readiness::default(),
    };
    let invite = InviteAnswer {
        ticket: "mesh1secret".to_owned().into(),
        expires: Timestamp::from_unix_ms(Timestamp::now().as_unix_ms() + 3_600_000),
        uses: 2,
    };
    let id = Id {
        node_id: "aaaa".into(),
        name: Some("laptop".into()),
        network: Some("home".into()),
        net_id: Some("cccc".into()),
        public_key_fingerprint: "aaaa-aaaa".into(),
    };
    let version = Version { version: "0.9.0".into(), protocol: "mesh/1".into(), api: "v1".into() };
    let event = r#"{"schema":"shadowmesh.event/1","at":"2026-05-04T10:20:30Z","kind":"roster","version":1,"members":2}"#;
    Server::script(vec![
        ("GET /v1/status", status),
        ("GET /v1/peers", vec![Answer::ok(&Peers { peers: ready().peers })]),
        ("GET /v1/peers/pi", vec![Answer::ok(&ready().peers[0])]),
        ("GET /v1/id", vec![Answer::ok(&id)]),
        ("GET /v1/version", vec![Answer::ok(&version)]),
        ("GET /v1/events", vec![Answer::Events(vec![event.to_owned(); 2])]),
        ("POST /v1/up", vec![Answer::ok(&up)]),
        ("POST /v1/netcheck", vec![Answer::ok(&seen())]),
        ("POST /v1/down", vec![Answer::ok(&DownAnswer { state: NodeState::Down, changed: true })]),
        ("POST /v1/ping", vec![Answer::ok(&pong())]),
        ("POST /v1/invites", vec![Answer::ok(&invite)]),
    ])
}

/// A daemon whose only peer is this one.
/// A home router without anything special.
fn seen() -> Netcheck {
    let v4 = FamilyCheck {
        family: IpFamily::Ipv4,
        relay_tcp_ms: Some(12.5),
        relay_udp_ms: Some(12.0),
        mapped: Some("192.0.2.1:4000".parse().unwrap()),
        mapping: NatMapping::Independent,
        filtering: NatFiltering::AddressAndPortDependent,
        hairpin: Some(false),
        ..FamilyCheck::default()
    };
    Netcheck {
        relay: Some("relay.example".into()),
        families: vec![v4],
        forecast: vec!["IPv4: with some.".into()],
        advice: Some("do this".into()),
        ..Netcheck::default()
    }
}

fn daemon_with_peer(peer: PeerStatus) -> Server {
    let relay = RelayStatus { state: RelayState::Connected, ..RelayStatus::default() };
    let status = Status { relay: Some(relay), peers: vec![peer], ..ready() };
    daemon(vec![Answer::ok(&status)])
}

/// A peer that stays on the relay, as both NATs are of the hard kind.
fn relayed() -> PeerStatus {
    let direct = DirectStatus {
        enabled: true,
        next_search_s: Some(12),
        sockets: vec!["0.0.0.0:4747".parse().unwrap()],
        own_mapping: NatMapping::Dependent,
        peer_mapping: NatMapping::Dependent,
        own: vec![OwnAddress { address: "203.0.113.5:61000".parse().unwrap(), kind: AddressKind::Reflexive }],
        remotes: vec![RemoteAddress {
            address: "198.51.100.7:4000".parse().unwrap(),
            kind: AddressKind::Reflexive,
            sent: 14,
            last_sent_s: Some(9),
            last_answer_s: None,
            last_full_answer_s: None,
            ice: false,
            mtu: None,
            single: false,
            rtt_ms: None,
        }],
        ..DirectStatus::default()
    };
    PeerStatus { direct: Some(direct), ..ready().peers[0].clone() }
}

fn pong() -> PingAnswer {
    PingAnswer {
        peer: "pi".into(),
        address: Some("100.64.1.2".parse().unwrap()),
        path: PathKind::Relay,
        relay: Some("relay.example".into()),
        size: None,
        rtt_ms: 12.3,
    }
}

fn waiting(state: NodeState, reason: &str) -> Status {
    let mut status = ready();
    status.state = state;
    status.ready = Readiness { data_passed: false, only_member: false, reason: reason.into() };
    status.peers[0] = PeerStatus { name: "pi".into(), online: Some(true), ..PeerStatus::default() };
    status
}

fn ready() -> Status {
    let session =
        SessionStatus { suite: "ML-KEM-1024+X25519".into(), rtt_ms: Some(12.3), ..SessionStatus::default() };
    Status {
        state: NodeState::Up,
        version: "0.1.0".into(),
        network: Some(NetworkStatus {
            name: "home".into(),
            net_id: "cccc".into(),
            role: Role::Member,
            roster_version: 1,
            members: 2,
        }),
        node: Some(NodeStatus {
            name: "laptop".into(),
            node_id: "aaaa".into(),
            addresses: vec!["100.64.1.1".parse().unwrap()],
            interface: "mesh0".into(),
            mode: Mode::Tun,
            mtu: 1420,
        }),
        relays: Vec::new(),
        relay: Some(RelayStatus::default()),
        ready: Readiness { data_passed: true, only_member: false, reason: String::new() },
        peers: vec![PeerStatus {
            name: "pi".into(),
            node_id: "bbbb".into(),
            addresses: vec!["100.64.1.2".parse().unwrap()],
            online: Some(true),
            path: PathKind::Relay,
            relay: Some("relay.example".into()),
            state: PeerState::Established,
            session: Some(session),
            ..PeerStatus::default()
        }],
        counters: Counters::default(),
        crypto: CryptoStatus::default(),
        slowed_by: Vec::new(),
        wss: None,
    }
}

fn meshctl(socket: &Path, args: &[&str]) -> Output {
    command(socket, args).output().unwrap()
}

fn command(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--socket").arg(socket).args(args).env_remove("SHADOWMESH_TICKET").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Waits for a condition that another process brings about.
fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "the condition did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshctl");
