//! Tickets and addresses of relays, as people paste them.

use data_encoding::BASE64URL_NOPAD;
use mesh_identity::{Ticket, UnixSeconds, sha512};
use mesh_wire::limits::RELAY_URL;
use mesh_wire::ticket::{CHECKSUM, MAX_LEN, PREFIX, TicketBody};
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};

use crate::world::UNIX;

/// Reads the bytes as the body of a ticket, as its text, and as an address.
pub fn ticket(data: &[u8]) {
    body(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    whole(text);
    address(text);
    ids(text);
}

fn body(data: &[u8]) {
    let body = TicketBody::parse(data);
    if let Ok(body) = &body {
        assert_eq!(*body.encode(), data, "a ticket has one encoding");
        assert!(data.len() + CHECKSUM <= MAX_LEN, "a ticket is bounded");
    }
    // With the checksum that the fuzzer cannot guess.
    let sum = sha512(&[b"mesh/1 ticket", data]);
    let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[data, &sum[..CHECKSUM]].concat()));
    let parsed = Ticket::parse(&text);
    assert_eq!(parsed.is_ok(), body.is_ok(), "the text says something else than the bytes");
    if let Ok(parsed) = parsed {
        assert_eq!(*parsed.to_text(), text, "a ticket has one text");
        assert!(!format!("{parsed:?}").contains(&text), "a ticket prints its secret");
        assert_eq!(parsed.check_expiry(UnixSeconds(UNIX)).is_ok(), parsed.expires().0 > UNIX);
    }
}

/// A ticket that parses is the one that its text says, white space aside.
fn whole(text: &str) {
    if let Ok(ticket) = Ticket::parse(text) {
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        assert_eq!(*ticket.to_text(), compact);
        assert!(Ticket::parse(&compact[..compact.len() - 1]).is_err(), "a cut ticket is read");
    }
}

fn address(text: &str) {
    if let Ok(url) = RelayUrl::from_authority(text) {
        assert_eq!(url.authority(), text, "an address has one form in messages");
        assert!(text.len() <= RELAY_URL);
    }
    if let Ok(url) = text.parse::<RelayUrl>() {
        assert_eq!(url.to_string().parse::<RelayUrl>(), Ok(url.clone()), "an address is read back");
        assert_eq!(RelayUrl::from_authority(&url.authority()), Ok(url.clone()));
        assert_eq!(RelayUrl::new(url.host(), url.port()), Ok(url.clone()));
        assert!(url.port() != 0 && url.to_string().len() <= RELAY_URL);
    }
    if let Ok((url, pin)) = RelayUrl::parse_with_pin(text) {
        assert_eq!(pin.is_some(), text.contains('#'));
        let shown = pin.map_or_else(|| url.to_string(), |pin| url.with_pin(&pin));
        assert_eq!(RelayUrl::parse_with_pin(&shown), Ok((url, pin)));
    }
}

fn ids(text: &str) {
    if let Ok(id) = text.parse::<NodeId>() {
        assert!(id.to_string().eq_ignore_ascii_case(text), "an id has one text");
        assert_eq!(text.parse::<NetId>().map(|net| net.0), Ok(id.0));
        assert_eq!(text.parse::<Pin>().map(|pin| pin.0), Ok(id.0));
    }
}
