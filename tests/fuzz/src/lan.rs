//! Messages of discovery on a local network, and the machine that hears them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_net::{LanLink, LanMachine, LanPorts};
use mesh_wire::NodeId;
use mesh_wire::lan::{ADDRESSES, CONTENT, Content, MESSAGE, Message};

/// Reads the bytes as a message and as what is sealed in one, then gives them to a machine, once opened as they are and
/// once not opened.
pub fn lan(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        assert!(data.len() <= MESSAGE, "no message is longer");
        // Only the lifetimes of an announcement are free.
        assert_eq!(Message::parse(&message.encode()), Ok(message));
        assert_eq!(message.encode().len(), data.len(), "each kind has one length");
        for cut in 0..data.len() {
            assert!(Message::parse(&data[..cut]).is_err(), "a beginning is a message");
        }
    }
    let content =
        data.get(data.len().saturating_sub(CONTENT)..).and_then(|end| <[u8; CONTENT]>::try_from(end).ok());
    if let Some(content) = content
        && let Ok(parsed) = Content::parse(&content)
    {
        assert!(parsed.addresses.len() <= ADDRESSES);
        assert_eq!(parsed.encode(), content, "what parses has one encoding");
    }
    machine(data, content);
}

fn machine(data: &[u8], content: Option<[u8; CONTENT]>) {
    let ports = LanPorts { v4: Some(([0, 0, 0, 0], 1).into()), v6: Some(([0; 16], 2).into()) };
    let mut machine = LanMachine::new(NodeId([7; 32]), ports, Box::new(|| 7));
    let addresses =
        vec![([192, 168, 1, 7].into(), 24), ([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into(), 64)];
    let link = LanLink { index: 3, name: "eth0".into(), addresses };
    let start = Instant::now();
    machine.set_links(start, vec![link.clone()]);
    for second in 0..5 {
        let now = start + Duration::from_secs(second);
        let from = SocketAddr::from(([192, 168, 1, 66], 5353));
        machine.handle_datagram(now, (3, from), data, |_, _| content.filter(|_| second > 0));
        machine.handle_timeout(now, 1_700_000_000);
    }
    let mut told = 0;
    while let Some(found) = machine.poll_found() {
        told += 1;
        assert!(found.node != NodeId([7; 32]) && found.addresses.len() <= ADDRESSES);
        assert!(found.addresses.iter().all(|found| link.reaches(found.ip()) && found.port() != 0));
    }
    assert!(told <= 1, "one member was told of");
    let said = std::iter::from_fn(|| machine.poll_transmit()).count();
    assert!(said <= 10, "{said} messages in five seconds");
}
