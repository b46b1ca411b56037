//! Messages between a relay and its clients.

use mesh_wire::relay::{
    AUTH_MESSAGE, ClientMessage, DATA_MESSAGE, Data, ErrorCode, ROSTER_MESSAGE, RelayMessage, TEXT,
};
use mesh_wire::relay_udp::{self, Control};

use crate::input::assert_cuts_fail;

/// Reads the bytes as a message of a client and as one of a relay.
pub fn relay(data: &[u8]) {
    if let Ok(message) = ClientMessage::parse(data) {
        from_client(data, &message);
    }
    if let Ok(message) = RelayMessage::parse(data) {
        from_relay(data, &message);
    }
    if let Ok((control, covered, tag)) = Control::parse(data) {
        assert!((relay_udp::CONTROL..=relay_udp::LONGEST).contains(&data.len()));
        let again = control.encode(data.len(), |body| {
            assert_eq!(body, covered, "the tag covers all before it");
            tag
        });
        assert_eq!(again, data, "a control message has one encoding");
        assert!(relay_udp::parse_data(data).is_none(), "a datagram is of one kind");
    }
    if let Some((handle, frame)) = relay_udp::parse_data(data) {
        assert_eq!([&relay_udp::data_header(handle)[..], frame].concat(), data);
    }
}

fn from_client(data: &[u8], message: &ClientMessage<'_>) {
    assert_eq!(message.encode(), data, "a client's message has one encoding");
    let parses = |cut: &[u8]| ClientMessage::parse(cut).is_ok();
    match message {
        ClientMessage::Auth(_) => {
            assert!(data.len() <= AUTH_MESSAGE, "a CLIENT_AUTH is bounded");
            assert_cuts_fail("CLIENT_AUTH", data, parses);
        }
        ClientMessage::Bind(_)
        | ClientMessage::Unbind(_)
        | ClientMessage::Ping(_)
        | ClientMessage::Pong(_)
        | ClientMessage::UdpEnd => assert_cuts_fail("message", data, parses),
        ClientMessage::RosterPut(_) => assert!(data.len() <= ROSTER_MESSAGE, "a ROSTER_PUT is bounded"),
        ClientMessage::Send(content) => frames(data, content),
    }
}

fn from_relay(data: &[u8], message: &RelayMessage<'_>) {
    assert_eq!(message.encode(), data, "a relay's message has one encoding");
    let parses = |cut: &[u8]| RelayMessage::parse(cut).is_ok();
    match message {
        RelayMessage::Hello(_)
        | RelayMessage::Welcome(_)
        | RelayMessage::Bound(_)
        | RelayMessage::PeerGone(_)
        | RelayMessage::PeerPresent(_)
        | RelayMessage::Ping(_)
        | RelayMessage::Pong(_)
        | RelayMessage::UdpOffer(_) => assert_cuts_fail("message", data, parses),
        RelayMessage::Restarting { min_ms, max_ms } => assert!(min_ms <= max_ms),
        RelayMessage::Health(text) => {
            assert!(text.len() <= TEXT);
            assert_cuts_fail("HEALTH", data, parses);
        }
        RelayMessage::Error { code, text } => {
            assert!(text.len() <= TEXT);
            assert_eq!(ErrorCode::from_u16(code.to_u16()), *code);
            assert_cuts_fail("ERROR", data, parses);
        }
        RelayMessage::Roster(_) => assert!(data.len() <= ROSTER_MESSAGE, "a ROSTER is bounded"),
        RelayMessage::Recv(content) => frames(data, content),
    }
}

/// The frames of a batch are its payload, cut.
fn frames(data: &[u8], content: &Data<'_>) {
    assert!(!content.payload.is_empty() && data.len() <= DATA_MESSAGE, "a payload is bounded");
    assert_eq!(content.header_len() + content.payload.len(), data.len());
    let mut rest = content.payload;
    for frame in content.frames() {
        let (head, behind) = rest.split_at(frame.len());
        assert!(head == frame && !frame.is_empty());
        assert!(
            behind.is_empty() || content.segment.is_some_and(|segment| usize::from(segment) == frame.len())
        );
        rest = behind;
    }
    assert!(rest.is_empty(), "the frames of a batch leave something out");
}
