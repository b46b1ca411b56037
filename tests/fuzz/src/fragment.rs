//! Cookies, and handshake messages in parts, as they come over UDP.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mesh_session::handshake::{Assembly, CookieJar, Fragments, with_cookie};
use mesh_wire::cookie::{COOKIE_LEN, Cookie, Source};
use mesh_wire::fragment::{ACK_LEN, COUNT, DATAGRAM, Fragment, FragmentHeader, HEADER, PAYLOAD, TAG};
use mesh_wire::handshake::HELLO_LEN;

use crate::input::{Input, assert_cuts_fail, edited};
use crate::world::{handshakes, world};

/// Reads the bytes as a cookie and as a part; then gives edited genuine ones to those who check them, and parts in any
/// order to who puts them together.
pub fn fragment(data: &[u8]) {
    cookie(data);
    part(data);
    raw(data);
    let mut input = Input::new(data);
    match input.u8() % 8 {
        0 => sealed_cookie(&mut input),
        1 => second_mac(&mut input),
        2 => clear_part(&mut input),
        3 => sealed_part(&mut input),
        4 => acknowledgement(&mut input),
        5 => unchecked(&mut input),
        _ => reassembly(&mut input),
    }
}

fn cookie(data: &[u8]) {
    let Ok(cookie) = Cookie::parse(data) else { return };
    assert_eq!(cookie.encode(), data, "a COOKIE has one encoding");
    assert_eq!(data.len(), COOKIE_LEN);
    assert_cuts_fail("COOKIE", data, |cut| Cookie::parse(cut).is_ok());
}

fn part(data: &[u8]) {
    match Fragment::parse(data) {
        Ok(Fragment::Part(header, payload, tag)) => {
            assert_eq!([&header.encode()[..], payload, tag].concat(), data, "a part has one encoding");
            assert!(data.len() <= DATAGRAM && usize::from(header.count) <= COUNT);
            assert!(header.index < header.count && !payload.is_empty());
            assert!(header.offset() + payload.len() <= COUNT * PAYLOAD);
            let longest = (HEADER + TAG).min(data.len());
            assert_cuts_fail("part", &data[..longest], |cut| Fragment::parse(cut).is_ok());
        }
        Ok(Fragment::Ack(ack, tag)) => {
            assert_eq!([&ack.encode_body()[..], tag].concat(), data, "an acknowledgement has one encoding");
            assert_eq!(data.len(), ACK_LEN);
            assert_cuts_fail("acknowledgement", data, |cut| Fragment::parse(cut).is_ok());
        }
        Err(_) => {}
    }
}

/// What authenticates was sent by somebody who has the keys. The fuzzer may have seen it: it learns from comparisons.
fn raw(data: &[u8]) {
    let (world, kept) = (world(), kept());
    let network = world.network();
    let is_in = |datagrams: &[Vec<u8>]| datagrams.iter().any(|datagram| datagram == data);
    let opened = network.open_part(data, world.id(1)).is_ok();
    assert_eq!(opened, is_in(&kept.hello) || is_in(&kept.challenge));
    assert_eq!(kept.responder.open_part(data).is_ok(), is_in(&kept.response));
    assert!(kept.initiator.open_part(data).is_err(), "a part that nobody sent");
    let cookie = network.open_cookie(data, &handshakes().hello, world.id(1));
    assert_eq!(cookie.is_ok(), data == kept.cookies[0]);
    if let Ok(bitmap) = kept.initiator.open_ack(data) {
        assert_eq!(kept.responder.acknowledge(bitmap), data, "an acknowledgement that nobody sent");
    }
    assert!(kept.responder.open_ack(data).is_err(), "an acknowledgement that nobody sent");
}

fn sealed_cookie(input: &mut Input<'_>) {
    let (world, kept, hello) = (world(), kept(), &handshakes().hello);
    let message = edited(&kept.cookies[0], &kept.cookies[1], input);
    let opened = world.network().open_cookie(&message, hello, world.id(1));
    assert_eq!(opened.is_ok(), message == kept.cookies[0], "a COOKIE is judged wrongly");
    if let Ok(cookie) = opened {
        let shown = with_cookie(hello, &cookie).expect("the HELLO is genuine");
        assert!(kept.jar.checks(&shown, &SOURCE) && !kept.jar.checks(&shown, &ELSEWHERE));
    }
}

/// A HELLO shows a cookie if no byte of it was changed since.
fn second_mac(input: &mut Input<'_>) {
    let kept = kept();
    let message = edited(&kept.shown, &handshakes().others[0], input);
    assert_eq!(kept.jar.checks(&message, &SOURCE), message == kept.shown, "mac2 is judged wrongly");
    assert!(!kept.jar.checks(&message, &ELSEWHERE), "a cookie counts for another source");
}

fn clear_part(input: &mut Input<'_>) {
    let (world, kept) = (world(), kept());
    let datagrams = if input.flag() { &kept.hello } else { &kept.challenge };
    let genuine = input.pick(datagrams.as_slice());
    let message = edited(genuine, &datagrams[0], input);
    let opened = world.network().open_part(&message, world.id(1));
    assert_eq!(opened.is_ok(), datagrams.contains(&message), "a part in clear is judged wrongly");
    if let Ok((header, payload)) = opened {
        assert_eq!(
            (payload, header.encode().as_slice()),
            (&message[HEADER..message.len() - TAG], &message[..HEADER])
        );
        assert!(world.network().open_part(&message, world.id(0)).is_err(), "a part for another responder");
    }
}

fn sealed_part(input: &mut Input<'_>) {
    let kept = kept();
    let genuine = input.pick(&kept.response);
    let message = edited(genuine, &kept.response[0], input);
    let opened = kept.responder.open_part(&message);
    assert_eq!(opened.is_ok(), kept.response.contains(&message), "a sealed part is judged wrongly");
    assert!(kept.initiator.open_part(&message).is_err(), "a part goes back to its sender");
}

fn acknowledgement(input: &mut Input<'_>) {
    let kept = kept();
    let bitmap = input.u64();
    let (genuine, other) = (kept.responder.acknowledge(bitmap), kept.responder.acknowledge(!bitmap));
    let message = edited(&genuine, &other, input);
    let opened = kept.initiator.open_ack(&message).ok();
    let said = [(&genuine, bitmap), (&other, !bitmap)].into_iter().find(|(said, _)| **said == message);
    assert_eq!(opened, said.map(|(_, bitmap)| bitmap), "an acknowledgement is judged wrongly");
    assert!(kept.responder.open_ack(&message).is_err(), "an acknowledgement goes back to its sender");
}

/// Even parts that nobody checked take no more room than a message.
fn unchecked(input: &mut Input<'_>) {
    let mut assembly: Option<Assembly> = None;
    for _ in 0..STEPS {
        let length = usize::from(input.u16() % 1300);
        let bytes = input.bytes(length);
        let Ok(Fragment::Part(header, payload, _)) = Fragment::parse(bytes) else { break };
        let _ = assembly.get_or_insert_with(|| Assembly::new(&header)).add(&header, payload);
    }
    if let Some(assembly) = assembly {
        assert!(assembly.into_bytes().len() <= COUNT * PAYLOAD, "more room than a message takes");
    }
}

/// Parts in any order, repeated and edited: when all are there, they are the message.
fn reassembly(input: &mut Input<'_>) {
    let kept = kept();
    let mut assembly: Option<Assembly> = None;
    for _ in 0..STEPS {
        if input.is_empty() {
            return;
        }
        let choice = input.u8();
        let genuine = &kept.response[usize::from(choice % 64) % kept.response.len()];
        let datagram = if choice < 128 { genuine.clone() } else { edited(genuine, &kept.response[1], input) };
        let Ok((header, payload)) = kept.responder.open_part(&datagram) else { continue };
        if add(&mut assembly, &header, &payload) {
            break;
        }
    }
    if let Some(assembly) = assembly.filter(Assembly::is_whole) {
        assert!(assembly.into_bytes() == handshakes().response, "the parts make another message");
    }
}

fn add(assembly: &mut Option<Assembly>, header: &FragmentHeader, payload: &[u8]) -> bool {
    let assembly = assembly.get_or_insert_with(|| Assembly::new(header));
    let before = assembly.bitmap();
    let whole = assembly.add(header, payload).expect("a part that was checked is of this message");
    assert_eq!(assembly.bitmap(), before | 1 << header.index, "a part is noted as another one");
    assert_eq!(whole, assembly.bitmap().count_ones() == u32::from(header.count));
    whole
}

/// What the two sides of a halted handshake send over UDP.
struct Kept {
    jar: CookieJar,
    /// Two answers to the HELLO; the second one is for another HELLO.
    cookies: [Vec<u8>; 2],
    /// The HELLO with the cookie for [`SOURCE`].
    shown: Vec<u8>,
    hello: Vec<Vec<u8>>,
    challenge: Vec<Vec<u8>>,
    response: Vec<Vec<u8>>,
    initiator: Arc<Fragments>,
    responder: Arc<Fragments>,
}

fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let (world, halted) = (world(), handshakes());
        let (network, id) = (world.network(), world.id(1));
        let jar = CookieJar::new(&network, id, Instant::now(), &[8; 32]);
        let reply = |hello| jar.make_reply(hello, &SOURCE, &[9; 24]).expect("the HELLO is genuine");
        let cookies = [reply(&halted.hello), reply(&halted.others[0])];
        let cookie = network.open_cookie(&cookies[0], &halted.hello, id).expect("the COOKIE is genuine");
        let shown = with_cookie(&halted.hello, &cookie).expect("the HELLO is genuine");
        assert_eq!(shown.len(), HELLO_LEN);
        let split = |message| network.split(message, id, [4; 8]).expect("the message is genuine");
        let (hello, challenge) = (split(&halted.hello), split(&halted.challenge));
        let (initiator, responder) = (halted.answered.fragments(), halted.responder.fragments());
        let response = initiator.split(&halted.response).expect("the message is genuine");
        Kept { jar, cookies, shown, hello, challenge, response, initiator, responder }
    })
}

const SOURCE: Source = Source::Relay(mesh_wire::NodeId([3; 32]));
const ELSEWHERE: Source = Source::Relay(mesh_wire::NodeId([4; 32]));
/// Parts of one script.
const STEPS: usize = 100;
