//! STUN requests and answers.

use mesh_wire::stun::{ANSWER, BindingRequest, BindingSuccess, HEADER, MESSAGE, is_stun};

/// Reads the bytes as a request and as an answer.
pub fn stun(data: &[u8]) {
    if let Ok(request) = BindingRequest::parse(data) {
        whole(data);
        let shortest = request.encode();
        assert!(shortest.len() <= data.len(), "a request without attributes is the shortest");
        assert_eq!(BindingRequest::parse(&shortest), Ok(request));
    }
    if let Ok(answer) = BindingSuccess::parse(data) {
        whole(data);
        let shortest = answer.encode();
        assert!(shortest.len() <= ANSWER, "an answer is bounded");
        let back = BindingSuccess::parse(&shortest);
        let mapped = back.map(|back| (back.transaction, back.fingerprint, back.mapped.ip().to_canonical()));
        assert_eq!(mapped, Ok((answer.transaction, answer.fingerprint, answer.mapped.ip().to_canonical())));
        assert!(BindingRequest::parse(data).is_err(), "a message is request and answer");
    }
}

/// What parses as STUN is told from other datagrams by its first bytes, and is whole.
fn whole(data: &[u8]) {
    assert!(is_stun(data) && (HEADER..=MESSAGE).contains(&data.len()));
    for cut in 0..data.len() {
        let cut = &data[..cut];
        assert!(BindingRequest::parse(cut).is_err() && BindingSuccess::parse(cut).is_err());
    }
}
