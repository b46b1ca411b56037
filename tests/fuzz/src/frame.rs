//! Sealed frames, what stands inside them, and opening them.

use std::cell::RefCell;

use mesh_session::Session;
use mesh_wire::control::{Control, EnrolAnswer, RekeyAnswer, RekeyOffer};
use mesh_wire::frame::{FrameHeader, HEADER, OVERHEAD, PAYLOAD_OFFSET, PayloadKind};

use crate::input::{Input, assert_cuts_fail, edited};
use crate::world::sessions;

/// Reads the bytes as a frame and as each message that a frame carries; then edits a genuine frame by them.
pub fn frame(data: &[u8]) {
    header(data);
    control(data);
    opening(data);
}

fn header(data: &[u8]) {
    let Ok(header) = FrameHeader::parse(data) else { return };
    assert!(data.len() >= OVERHEAD, "a frame has a header and a tag");
    assert_eq!(header.encode(), data[..HEADER], "a header has one encoding");
    assert_cuts_fail("frame", &data[..OVERHEAD], |cut| FrameHeader::parse(cut).is_ok());
    if let Ok(kind) = PayloadKind::from_byte(data[HEADER]) {
        assert_eq!(kind.to_byte(), data[HEADER]);
    }
}

fn control(data: &[u8]) {
    if let Ok(message) = Control::parse(data) {
        assert_eq!(message.encode(), data, "a control message has one encoding");
        assert_cuts_fail("control message", data, |cut| Control::parse(cut).is_ok());
    }
    if let Ok(answer) = EnrolAnswer::parse(data) {
        assert_eq!(*answer.encode(), data, "an enrolment answer has one encoding");
    }
    if let Ok(offer) = RekeyOffer::parse(data) {
        assert_eq!(offer.encode(), data, "an offer has one encoding");
    }
    if let Ok(answer) = RekeyAnswer::parse(data) {
        assert_eq!(answer.encode(), data, "an answer has one encoding");
    }
}

/// Whatever is done to a frame, the receiver gives out what was sealed, once, or nothing.
fn opening(data: &[u8]) {
    thread_local! {
        static SESSIONS: RefCell<(Session, Session)> = RefCell::new(sessions());
    }
    SESSIONS.with_borrow_mut(|(sender, receiver)| {
        let mut input = Input::new(data);
        let lane = u16::from(input.u8() % 4);
        let kind = *input.pick(&[
            PayloadKind::Ip,
            PayloadKind::Ethernet,
            PayloadKind::Control,
            PayloadKind::IpContinued,
        ]);
        let payload = input.bytes(usize::from(data.first().copied().unwrap_or(0)));
        let mut seal = || {
            let mut frame = vec![0; Session::frame_len(payload.len())];
            frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
            sender.seal(lane, kind, &mut frame).expect("the lane was granted and the key is fresh");
            frame
        };
        let (genuine, other) = (seal(), seal());
        let mut changed = edited(&genuine, &other, &mut input);
        let sent = changed.clone();
        let delivered = receiver.open(&mut changed).is_ok_and(|opened| {
            assert!(sent == genuine || sent == other, "a frame that nobody sealed is opened");
            assert!(opened.kind == kind && opened.payload == payload, "another payload than the sealed one");
            true
        });
        assert_eq!(delivered, sent == genuine || sent == other, "a genuine frame is refused");
        assert!(receiver.open(&mut sent.clone()).is_err(), "a frame is opened twice");
        let opens = receiver.open(&mut genuine.clone()).is_ok();
        assert_eq!(opens, !(delivered && sent == genuine), "a forgery changed the session");
        // Nothing stays behind that a later input could be: the fuzzer sees what is compared, and learns from it.
        let _ = receiver.open(&mut other.clone());
        assert!(receiver.open(&mut data.to_vec()).is_err(), "bytes from nowhere are opened");
    });
}
