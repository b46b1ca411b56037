//! What the fuzzer starts from: genuine messages of every kind, and scripts that reach deep.

use std::net::SocketAddr;

use mesh_identity::{Identity, ProofKind, Ticket, TicketSecret, UnixSeconds};
use mesh_wire::control::{
    Control, DoorTold, EnrolAnswer, Half, REKEY_LEN, REKEY_PART, Refusal, RekeyAnswer, RekeyOffer, RekeyPart,
};
use mesh_wire::cookie::{Cookie, NONCE, SEALED};
use mesh_wire::fragment::{Ack, MessageKind, split};
use mesh_wire::handshake::{
    CHALLENGE_LEN, Challenge, Claims, ESTABLISHED, HELLO_LEN, Hello, RESPONSE, SUITE, box_header,
    encode_enrol, encode_enrol_unknown,
};
use mesh_wire::limits::{KEM_CIPHERTEXT, KEM_PUBLIC, PUBLIC_IDENTITY, SIGNATURE};
use mesh_wire::relay::{
    Binding, Bound, ClientAuth, ClientMessage, Data, ErrorCode, RelayMessage, Role, RosterBlob, ServerHello,
    Welcome,
};
use mesh_wire::relay_udp::{self, Kind, Offer};
use mesh_wire::roster::{Head, RosterParts};
use mesh_wire::stun::{BindingRequest, BindingSuccess};
use mesh_wire::ticket::TicketBody;
use mesh_wire::{NetId, NodeId, Pin};
use zeroize::Zeroizing;

use crate::node::ipv4;
use crate::world::{UNIX, claims, world};

/// Returns the seeds of a target; none for a name that is no target's.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "handshake" => handshake(),
        "fragment" => fragment(),
        "frame" => frame(),
        "relay" => [from_client(), from_relay(), relay_udp()].concat(),
        "roster" => roster(),
        "ticket" => ticket(),
        "control_api" => control_api(),
        "config" => texts(&[
            include_str!("../../../packaging/meshd.toml"),
            MESHD,
            include_str!("../../../packaging/meshrelay.toml"),
            MESHRELAY,
        ]),
        "node" => node(),
        "hub" => hub(),
        "packet" => packet(),
        "stun" => stun(),
        "lan" => lan(),
        "ice" => ice(),
        "files" => files(),
        _ => Vec::new(),
    }
}

fn handshake() -> Vec<Vec<u8>> {
    let hello = Hello {
        sender: 1,
        suites: vec![SUITE],
        nonce: [1; 32],
        x25519: [2; 32],
        kem_public: Box::new([3; KEM_PUBLIC]),
    };
    let challenge = Challenge {
        sender: 2,
        receiver: 1,
        suite: SUITE,
        nonce: [1; 32],
        x25519: [2; 32],
        ciphertext: Box::new([3; KEM_CIPHERTEXT]),
    };
    let mut hello = hello.encode_body();
    hello.resize(HELLO_LEN, 9);
    let mut challenge = challenge.encode_body();
    challenge.resize(CHALLENGE_LEN, 9);
    let mut contents = Vec::new();
    Claims {
        identity: &[1; PUBLIC_IDENTITY],
        proof: b"proof",
        params: claims(Vec::new()).params,
        signature: &[2; SIGNATURE],
    }
    .encode(&mut contents);
    let boxed = |kind| [&box_header(kind, 1)[..], &[7; 40]].concat();
    let mut seeds =
        vec![encode_enrol(&[4; 16], &hello), encode_enrol_unknown(&[4; 16]), hello, challenge, contents];
    seeds.extend([boxed(RESPONSE), boxed(ESTABLISHED)]);
    // For each state: nothing changed, a byte changed, cut short, spliced with another handshake.
    for state in 0..8 {
        seeds.push(vec![state]);
        for step in 0..8 {
            seeds.push(vec![state, 1, step, 40, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        }
    }
    seeds
}

fn fragment() -> Vec<Vec<u8>> {
    let mut seeds = vec![Cookie { receiver: 1, nonce: [5; NONCE], sealed: [6; SEALED] }.encode()];
    let (hello, response) = ([1; HELLO_LEN], [2; 13_000]);
    for (kind, message) in [(MessageKind::Hello, &hello[..]), (MessageKind::Response, &response)] {
        let parts = split(kind, 7, [3; 8], message).expect("the lengths are those of such messages");
        seeds.extend(parts.map(|(header, payload)| [&header.encode()[..], payload, &[9; 16]].concat()));
    }
    let ack = Ack { receiver: 7, message: [3; 8], bitmap: 0x0fff };
    seeds.push([&ack.encode_body()[..], &[9; 16]].concat());
    for mode in 0..6 {
        for step in 0..8 {
            seeds.push(vec![mode, 0, 1, step, 30, 255, 1, 2, 3, 4, 5, 6, 7, 8]);
        }
    }
    // All parts in order, backwards with repetitions, and one of another message among them.
    let order =
        |parts: &mut dyn Iterator<Item = u8>| [vec![6], parts.flat_map(|part| [part, 0]).collect()].concat();
    seeds.push(order(&mut (0..12)));
    seeds.push(order(&mut (0..12).rev().chain(0..12)));
    seeds.push(order(&mut [0, 1, 130, 2, 131, 3, 4, 5, 6].into_iter()));
    seeds
}

fn frame() -> Vec<Vec<u8>> {
    let half = [5; REKEY_PART];
    let part = |half_of| RekeyPart { id: 3, half: half_of, bytes: &half };
    let messages = [
        Control::Keepalive,
        Control::Ping(1),
        Control::Pong(2),
        Control::Close,
        Control::RekeyOffer(part(Half::First)),
        Control::RekeyAnswer(part(Half::Second)),
        Control::EnrolRequest { name: "~laptop" },
        Control::EnrolPart { total: 100, offset: 10, bytes: b"part of a roster" },
        Control::EnrolRefused { refusal: Refusal::NameTaken, text: "another member has this name" },
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(Control::encode).collect();
    seeds.extend(longer(&seeds));
    let (index, x25519) = (1, [2; 32]);
    seeds.push(RekeyOffer { index, x25519, kem_public: Box::new([3; KEM_PUBLIC]) }.encode());
    seeds.push(RekeyAnswer { index, x25519, ciphertext: Box::new([3; KEM_CIPHERTEXT]) }.encode());
    seeds.push(vec![9; REKEY_LEN]);
    let answer = EnrolAnswer { secret_epoch: 1, network_secret: Zeroizing::new([7; 32]), roster: b"roster" };
    seeds.push(answer.encode().to_vec());
    seeds.push([&[0x94, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1][..], &[6; 40]].concat());
    for step in 0..8 {
        seeds.push([&[8, 0][..], b"payload!", &[1, step, 20, 255, 1, 2, 3, 4, 5, 6, 7, 8]].concat());
    }
    let v6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
    let addresses = vec![SocketAddr::from(([192, 0, 2, 1], 443)), SocketAddr::from((v6, 8443))];
    seeds.push(Control::Door(Some(DoorTold { pin: Pin([4; 32]), addresses })).encode());
    seeds.push(Control::Door(None).encode());
    seeds
}

fn from_client() -> Vec<Vec<u8>> {
    let auth = |role, admission| {
        let keys = world().root.public().as_bytes();
        ClientMessage::Auth(ClientAuth {
            role,
            net: NetId([2; 32]),
            keys,
            admission,
            signature: &[4; SIGNATURE],
        })
    };
    let data = |segment| ClientMessage::Send(Data { handle: 7, segment, payload: b"four byte frames" });
    let messages = [
        auth(Role::Member, b"proof of membership"),
        auth(Role::Guest, b""),
        ClientMessage::Bind(NodeId([1; 32])),
        ClientMessage::Unbind(7),
        ClientMessage::Ping(*b"heartbt?"),
        ClientMessage::Pong(*b"heartbt?"),
        ClientMessage::UdpEnd,
        ClientMessage::RosterPut(RosterBlob { version: 3, blob: b"sealed" }),
        data(None),
        data(Some(4)),
    ];
    let seeds: Vec<Vec<u8>> = messages.iter().map(ClientMessage::encode).collect();
    [longer(&seeds), seeds].concat()
}

fn relay_udp() -> Vec<Vec<u8>> {
    let kinds = [Kind::Ask, Kind::Challenge, Kind::Proof, Kind::Proven, Kind::Ping, Kind::Pong];
    let control = |kind| relay_udp::Control { kind, connection: 1, counter: 2, cookie: [3; 16] };
    let mut seeds: Vec<_> = kinds.map(|kind| control(kind).encode(64, |_| [4; relay_udp::TAG])).into();
    seeds.push([&relay_udp::data_header(7)[..], b"frame"].concat());
    let offer = Offer { port: 8443, connection: 1, key: [2; 32], up: 3, down: 4 };
    seeds.push(RelayMessage::UdpOffer(offer).encode());
    seeds
}

fn from_relay() -> Vec<Vec<u8>> {
    let data = |segment| RelayMessage::Recv(Data { handle: 7, segment, payload: b"four byte frames" });
    let welcome = |observed: &str| {
        let observed = observed.parse().expect("this is an address");
        RelayMessage::Welcome(Welcome { connection: [1; 16], observed, heartbeat: 25, handles: 64, rate: 0 })
    };
    let messages = [
        RelayMessage::Hello(ServerHello {
            relay_id: [1; 32],
            challenge: [2; 32],
            binding: Binding::Exporter,
            max_payload: 65_536,
            max_roster: 1_052_672,
        }),
        welcome("192.0.2.1:4000"),
        welcome("[2001:db8::1]:4000"),
        RelayMessage::Bound(Bound { node: NodeId([1; 32]), handle: 7, present: true }),
        RelayMessage::PeerGone(7),
        RelayMessage::PeerPresent(7),
        RelayMessage::Ping(*b"heartbt?"),
        RelayMessage::Health("this relay takes 1000 bytes per second"),
        RelayMessage::Restarting { min_ms: 250, max_ms: 1500 },
        RelayMessage::Error { code: ErrorCode::NotAdmitted, text: "the proof does not hold" },
        RelayMessage::Error { code: ErrorCode::Other(900), text: "" },
        RelayMessage::Roster(RosterBlob { version: 3, blob: b"sealed" }),
        data(None),
        data(Some(4)),
    ];
    let seeds: Vec<Vec<u8>> = messages.iter().map(RelayMessage::encode).collect();
    [longer(&seeds), seeds].concat()
}

fn roster() -> Vec<Vec<u8>> {
    let world = world();
    let file = world.roster.encode().to_vec();
    let parts = RosterParts::parse(&file).expect("the roster is genuine");
    let mut seeds = vec![parts.head.to_vec(), parts.settings.to_vec()];
    seeds.extend(parts.leaves.iter().map(|leaf| leaf.to_vec()));
    let head = Head::parse(parts.head).expect("the roster is genuine");
    seeds.push(Head { version: head.version + 1, ..head }.encode().to_vec());
    for kind in [ProofKind::Bare, ProofKind::WithHead, ProofKind::WithRoot] {
        seeds.extend(world.roster.proof(&world.id(2), kind).map(|proof| proof.encode()));
        seeds.extend(world.older.proof(&world.id(0), kind).map(|proof| proof.encode()));
    }
    seeds.push(file);
    for mode in 0..3 {
        for step in 0..8 {
            seeds.push(vec![mode, 2, 2, 1, step, 90, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        }
        seeds.push(vec![mode, 2, 0, 0]);
    }
    // A byte of an address, in the leaf of a proof that has everything else, and in the file.
    seeds.push(vec![1, 2, 2, 1, 0, 0x8f, 0x1d, 1]);
    seeds.push(vec![0, 1, 0, 0x8f, 0x1d, 1]);
    seeds
}

fn ticket() -> Vec<Vec<u8>> {
    let body = |relay: &str| TicketBody {
        net: NetId([1; 32]),
        pin: Pin([2; 32]),
        seed: Box::new(Zeroizing::new([3; 16])),
        expires: 1_900_000_000,
        relay: relay.parse().expect("this is the address of a relay"),
    };
    let mut seeds: Vec<Vec<u8>> = ["wss://relay.example:8443", "wss://[2001:db8::1]", "wss://192.0.2.1:1"]
        .iter()
        .map(|relay| body(relay).encode().to_vec())
        .collect();
    let relay = "wss://relay.example:8443".parse().expect("this is the address of a relay");
    let secret = TicketSecret::from_seed(&[3; 16]);
    let ticket = Ticket::new(NetId([1; 32]), relay, Pin([2; 32]), secret, UnixSeconds(UNIX + 3600));
    seeds.push(ticket.to_text().as_bytes().to_vec());
    seeds.push(format!(" {}\r\n", *ticket.to_text()).into_bytes());
    let pin = Pin([2; 32]);
    seeds.extend(texts(&[
        "wss://relay.example:8443",
        "wss://[2001:DB8:0::1]:443",
        "relay.example",
        "[::ffff:192.0.2.1]:8443",
        &format!("wss://192.0.2.1#{pin}"),
        &pin.to_string(),
    ]));
    seeds
}

fn control_api() -> Vec<Vec<u8>> {
    let documents = [
        r#"{"action":"new","network_name":"home","relay":"wss://r.example:8443","ipv4_pool":"100.64.0.0/16"}"#,
        r#"{"schema":"shadowmesh.up_request/1","action":"join","ticket":"meshticket_x","node_name":"a"}"#,
        r#"{"action":"resume"}"#,
        r#"{"peer":"pi","timeout_ms":1000}"#,
        r#"{"name":"pi","groups":["a","b"],"uses":1,"ttl_s":3600}"#,
        r#"{"schema":"shadowmesh.error/1","code":"down","message":"the node is down","hint":"up"}"#,
        r#"{"schema":"shadowmesh.version/1","version":"1","protocol":"mesh/1","api":"v1"}"#,
        r#"{"schema":"shadowmesh.down/1","state":"down","changed":true}"#,
        r#"{"schema":"shadowmesh.ping/1","peer":"pi","path":"relay","relay":"r.example","rtt_ms":1.5}"#,
        r#"{"schema":"shadowmesh.invite/1","ticket":"x","expires":"2026-01-01T00:00:00Z","uses":1}"#,
        r#"{"schema":"shadowmesh.peers/1","peers":[]}"#,
    ];
    let requests = [
        "GET /v1/version HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/id HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v1/status HTTP/1.0\r\n\r\n",
        "GET /v1/peers HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v1/peers/%ff HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n",
        "HEAD /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /v1/down HTTP/1.1\r\nhost: x\r\n\r\n",
        "DELETE /v1/up HTTP/1.1\r\nhost: x\r\norigin: http://x\r\n\r\n",
        "POST /v1/ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"pee\r\n7\r\nr\":\"x\"}\r\n0\r\n\r\n",
        "POST /v1/up HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1048577\r\ncontent-type: application/json\r\n\r\n",
    ];
    let mut seeds: Vec<Vec<u8>> = documents.iter().map(|text| [&[0][..], text.as_bytes()].concat()).collect();
    for (number, text) in documents.iter().enumerate().take(5) {
        let route = [0, 0, 0, 4, 8][number];
        seeds.push([&[2 + route][..], text.as_bytes()].concat());
        seeds.push([&[130 + route][..], text.as_bytes()].concat());
    }
    seeds.extend(
        requests.iter().flat_map(|text| [1, 129].map(|mode| [&[mode][..], text.as_bytes()].concat())),
    );
    seeds
}

fn node() -> Vec<Vec<u8>> {
    // A packet of 0 for 1, and all four messages delivered as they come.
    let handshake = [0, 0, 1, 7, 4, 0, 0, 4, 0, 0, 4, 0, 0, 4, 0, 0, 4, 0, 0];
    let after = |more: &[u8]| [&[0][..], &handshake, more].concat();
    let mut seeds = vec![
        after(&[]),
        after(&[0, 1, 0, 9, 4, 0, 0]),
        // Both begin at the same time.
        [&[0][..], &[0, 0, 1, 7, 0, 1, 0, 8], &[4, 0, 0].repeat(8)].concat(),
        // Rekey after two minutes of traffic.
        after(&[10, 0, 0xff, 0xff, 0, 0, 1, 7, 4, 0, 0, 4, 0, 0, 4, 0, 0, 4, 0, 0, 0, 1, 0, 7, 4, 0, 0]),
        // Repeated, lost, restarted, on an older roster.
        after(&[8, 0, 0, 14, 1, 0, 0, 0, 1, 7, 4, 0, 0, 4, 0, 0]),
        after(&[14, 0, 1, 14, 0, 2, 13, 0, 1, 5, 11, 0, 1, 1, 12, 0, 1]),
        // Once a session stands, every datagram comes twice.
        [&[0][..], &[0, 0, 1, 7], &[4, 0, 0].repeat(20), &[0, 0, 1, 9], &[8, 0, 0, 4, 0, 0].repeat(6)]
            .concat(),
        after(&[3, 1, 0, 40, 0, 0x94, 0, 0, 1, 0, 0, 0]),
    ];
    for step in 0..8 {
        for message in 0..4 {
            let script =
                [&handshake[..4 + 3 * message], &[9, 0, 0, 0, 1, step, 40, 1, 2, 3, 4], &[4, 0, 0].repeat(5)];
            seeds.push([&[0][..], &script.concat()].concat());
        }
    }
    // The same with packets that wait for a mixed key, over UDP, and both.
    for flags in [4, 8, 12] {
        let steps = [&[0, 0, 1, 7][..], &[4, 0, 0].repeat(40), &[13, 0, 1, 9, 4, 0, 0]].concat();
        seeds.push([&[flags][..], &steps].concat());
        seeds.push(
            [&[flags][..], &[0, 0, 1, 7, 4, 0, 0, 9, 0, 0, 0, 1, 0, 99, 0, 1], &[4, 0, 0].repeat(40)]
                .concat(),
        );
    }
    seeds
}

fn hub() -> Vec<Vec<u8>> {
    let join = |who, how| [0, who, how, 0];
    let scripts: [&[[u8; 4]]; 4] = [
        &[
            join(2, 2),
            join(4, 2),
            [3, 2, 4, 0],
            [10, 2, 0, 0],
            [6, 2, 0, 9],
            [10, 4, 0, 0],
            [6, 4, 0, 9],
            [10, 2, 0, 0],
        ],
        &[
            join(2, 1),
            join(4, 0),
            join(6, 2),
            [3, 4, 0, 0],
            [10, 4, 0, 0],
            [6, 4, 0, 1],
            [9, 2, 1, 5],
            [10, 2, 0, 0],
        ],
        &[
            join(2, 2),
            [3, 2, 4, 0],
            join(4, 2),
            [2, 4, 0, 0],
            [10, 2, 0, 0],
            [5, 2, 0, 0],
            join(2, 2),
            join(3, 2),
        ],
        &[join(2, 0), join(4, 4), join(6, 8), join(8, 12), join(10, 0), [11, 0, 99, 0], [8, 2, 9, 0]],
    ];
    scripts.iter().map(|script| script.concat()).collect()
}

fn packet() -> Vec<Vec<u8>> {
    let v4 = ipv4(0, 1, b"payload");
    let mut v6 = vec![0x60, 0, 0, 0, 0, 4, 58, 64];
    v6.extend([0xfd; 32]);
    v6.extend(*b"DATA++");
    // SYNs with an MSS of 1460, at an even and at an odd place, and packets of 700 and 1300 bytes.
    let tcp = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x70, 2, 0, 0, 0, 0, 0, 0];
    let syn = [&tcp[..], &[1, 2, 4, 5, 180, 1, 2, 0]].concat();
    let mut syn_v4 = ipv4(0, 1, &[&tcp[..], &[2, 4, 5, 180, 0, 0, 0, 0]].concat());
    syn_v4[9] = 6;
    let header_v6 =
        |next, length: u16| [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 64], &[0xfd; 32]].concat();
    let syn_v6 = [&header_v6(60, 36)[..], &[6, 0, 1, 4, 0, 0, 0, 0], &syn].concat();
    let large = ipv4(0, 1, &[7; 680]);
    let mut kept_whole = large.clone();
    kept_whole[6] = 0x40;
    let mut options = ipv4(0, 1, &[&[0x82, 5, 1, 1, 1, 7, 3, 4][..], &[7; 680]].concat());
    options[0] = 0x47;
    let frame = |words: &[u8], payload: &[u8]| [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], words, payload].concat();
    vec![
        frame(&[0x08, 0], &v4),
        frame(&[0x81, 0, 0, 5, 0x86, 0xdd], &v6),
        frame(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 6], b"who has"),
        v4,
        v6,
        b"02:00:00:00:00:01".to_vec(),
        syn_v4,
        syn_v6,
        large,
        kept_whole,
        options,
        [header_v6(17, 1300), vec![7; 1300]].concat(),
    ]
}

fn stun() -> Vec<Vec<u8>> {
    let transaction = [7; 12];
    let mut seeds = Vec::new();
    for fingerprint in [false, true] {
        seeds.push(BindingRequest { transaction, fingerprint, change: None }.encode());
        for mapped in ["192.0.2.1:4000", "[2001:db8::1]:4000"] {
            let mapped = mapped.parse().expect("this is an address");
            for origin in [None, Some(mapped)] {
                seeds.push(
                    BindingSuccess { transaction, mapped, fingerprint, origin, other: origin }.encode(),
                );
            }
        }
    }
    // With SOFTWARE, as other programs send it.
    let head = [0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    seeds.push([&head[..], &transaction, &[0x80, 0x22, 0, 5], b"abcde\0\0\0"].concat());
    seeds
}

fn lan() -> Vec<Vec<u8>> {
    use mesh_wire::lan::{Content, Message, NAME, NONCE, SEALED};
    let addresses = vec![[192, 168, 1, 9].into(), [0xfe80, 0, 0, 0, 0, 0, 0, 9].into()];
    let content = Content { made: 1_700_000_000, node: NodeId([9; 32]), port_v4: 1, port_v6: 2, addresses };
    let mut sealed = [0; SEALED];
    let end = sealed.len() - content.encode().len();
    sealed[end..].copy_from_slice(&content.encode());
    sealed[..NONCE].fill(5);
    let name = [b'a'; NAME];
    let all =
        [Message::Question, Message::Farewell { name }, Message::Announcement { name, sealed: &sealed }];
    let messages = all.iter().map(Message::encode);
    messages.chain([content.encode().to_vec()]).collect()
}

/// Scripts: a search, an offer, a genuine request, an answer, time that passes; and the request of RFC 5769.
fn ice() -> Vec<Vec<u8>> {
    let search: &[u8] = &[0, 1, 1, 1, 1, 0];
    let offer: &[u8] = &[0, 0, 1, 1, 0];
    let request: &[u8] = &[0, 0, 3, 1, 1, 0, 0, 0];
    let answer: &[u8] = &[0, 0, 4, 0, 0, 0, 1, 4, 8, 2, 0, 1, 0, 1, 1, 1, 1, 1, 0];
    let time: &[u8] = &[0, 0, 5, 50];
    let sample: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";
    vec![
        [search, offer, request, time].concat(),
        [search, offer, time, answer, time, request, answer].concat(),
        [offer, request, request, time, time].concat(),
        sample.to_vec(),
    ]
}

fn files() -> Vec<Vec<u8>> {
    let net = Identity::net_id(&world().root);
    let pin = Pin([5; 32]);
    let secret = "07".repeat(32);
    let membership = format!(
        r#"{{"net":"{net}","network_secret":"{secret}","secret_epoch":1,"relay":"wss://r.example","pin":"{pin}","up":true}}"#
    );
    let invite = format!(
        r#"{{"psk":"{secret}","name":"pi","groups":["a"],"uses":2,"used_by":["x"],"expires":1900000000}}"#
    );
    let id = "0a".repeat(16);
    let ledger = format!(r#"{{"roster":"ROSTER","invites":{{"{id}":{invite}}}}}"#);
    let with = |mode: u8, bytes: &[u8]| [&[mode][..], bytes].concat();
    vec![
        with(0, &crate::files::with_key_sum(&[3; 64])),
        with(1, &[3; 64]),
        with(2, &crate::files::with_state_sum(membership.as_bytes())),
        with(3, membership.as_bytes()),
        with(4, &crate::files::with_state_sum(ledger.as_bytes())),
        with(5, ledger.as_bytes()),
    ]
}

/// The same with a byte behind, which most layouts refuse.
fn longer(seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| [&seed[..], &[0]].concat()).collect()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every key of the daemon's configuration.
const MESHD: &str = "state_dir = \"/a\"\nsocket = \"/b\"\ninterface = \"mesh1\"\nmode = \"tap\"\nmtu = 1300\n\
group = \"g\"\noperator = \"o\"\nlog = \"debug\"\n[crypto]\nprovider = \"pqcrypto\"\naead = \"chacha20poly1305\"\n";

/// Keys of the relay's configuration that its example leaves out.
const MESHRELAY: &str = "listen = [\"[::]:8443\"]\nstun_listen = []\nmetrics_listen = \"127.0.0.1:9\"\n\
access = \"listed\"\nnetworks = []\npublic_host = \"x\"\n[limits]\nclients = 1\nhandles = 2\nrestart_min_ms = 1\n";
