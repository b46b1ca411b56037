use proptest::prelude::*;

use super::super::tests::{World, claims, finish, member, run, world};
use super::*;

type Part = (FragmentHeader, Vec<u8>);

/// Puts parts together in the given order and returns the message once it is whole.
fn assemble(parts: &[Part]) -> Option<Vec<u8>> {
    let mut assembly = Assembly::new(&parts.first()?.0);
    let mut whole = false;
    for (header, payload) in parts {
        whole = assembly.add(header, payload).unwrap();
    }
    whole.then(|| assembly.into_bytes())
}

fn open_all(network: &Network, datagrams: &[Vec<u8>], responder: NodeId) -> Vec<Part> {
    let open = |datagram: &Vec<u8>| {
        let (header, payload) = network.open_part(datagram, responder).unwrap();
        (header, payload.to_vec())
    };
    datagrams.iter().map(open).collect()
}

#[test]
fn handshake_passes_in_small_datagrams() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let honest = run(&world);
    let mut sent = Vec::new();
    for message in [&honest.hello, &honest.challenge] {
        let datagrams = world.network.split(message, bob, [1; 8]).unwrap();
        assert_eq!(datagrams.len(), 2);
        assert_eq!(assemble(&open_all(&world.network, &datagrams, bob)).as_ref(), Some(message));
        sent.push(datagrams.iter().map(Vec::len).sum::<usize>());
    }
    assert!(sent[1] <= sent[0], "a CHALLENGE does not amplify");

    let (initiator, responder) = (honest.await_established.fragments(), honest.await_response.fragments());
    let datagrams = initiator.split(&honest.response).unwrap();
    assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM));
    let parts: Vec<Part> =
        datagrams.iter().rev().map(|datagram| responder.open_part(datagram).unwrap()).collect();
    assert_eq!(assemble(&parts).as_ref(), Some(&honest.response));
    let all = (1 << datagrams.len()) - 1;
    assert_eq!(initiator.open_ack(&responder.acknowledge(all)), Ok(all));

    let peer = honest.await_response.take(&world.bob, bob, &honest.response).unwrap();
    let last = honest.await_response.proven(peer, &honest.response);
    let (_, _, established) = last.establish(&world.bob, &claims(b"bob")).unwrap();
    let datagrams = responder.split(&established).unwrap();
    let parts: Vec<Part> = datagrams.iter().map(|datagram| initiator.open_part(datagram).unwrap()).collect();
    let message = assemble(&parts).unwrap();
    assert!(honest.await_established.take(&world.alice, &message).is_ok());
    assert_eq!(responder.open_ack(&initiator.acknowledge(5)), Ok(5));
}

#[test]
fn every_changed_byte_of_a_part_is_noticed() {
    let world = world();
    let bob = world.bob.identity.node_id();
    let honest = run(&world);
    let hello = world.network.split(&honest.hello, bob, [1; 8]).unwrap();
    let response = honest.await_established.fragments().split(&honest.response).unwrap();
    let responder = honest.await_response.fragments();
    let ack = responder.acknowledge(3);
    let (part, last) = (&response[0], response.last().unwrap());
    for at in 0..part.len() {
        let mut bad = hello[0].clone();
        bad[at] ^= 1;
        assert!(world.network.open_part(&bad, bob).is_err(), "byte {at} of a HELLO");
        let mut bad = part.clone();
        bad[at] ^= 1;
        assert!(responder.open_part(&bad).is_err(), "byte {at} of a RESPONSE");
    }
    for length in 0..last.len() {
        assert!(responder.open_part(&last[..length]).is_err());
    }
    for at in 0..ack.len() {
        let mut bad = ack.clone();
        bad[at] ^= 1;
        assert!(honest.await_established.fragments().open_ack(&bad).is_err(), "byte {at} of an ACK");
    }
}

#[test]
fn parts_are_taken_only_where_they_belong() {
    let World { alice: _, bob, network } = world();
    let bob = bob.identity.node_id();
    let world = world();
    let honest = run(&world);
    let hello = network.split(&honest.hello, bob, [1; 8]).unwrap();
    assert!(network.open_part(&hello[0], bob).is_ok());
    assert_eq!(network.open_part(&hello[0], NodeId([3; 32])).unwrap_err(), FragmentError::Forged);
    assert_eq!(member(8).open_part(&hello[0], bob).unwrap_err(), FragmentError::Forged);

    let (initiator, responder) = (honest.await_established.fragments(), honest.await_response.fragments());
    let response = initiator.split(&honest.response).unwrap();
    let ack = responder.acknowledge(1);
    assert_eq!(initiator.open_part(&response[0]).unwrap_err(), FragmentError::Foreign, "reflected");
    assert_eq!(responder.open_ack(&ack).unwrap_err(), FragmentError::Foreign, "reflected");
    assert_eq!(responder.open_part(&hello[0]).unwrap_err(), FragmentError::Foreign);
    assert_eq!(responder.open_part(&ack).unwrap_err(), FragmentError::Foreign);
    assert_eq!(initiator.open_ack(&response[0]).unwrap_err(), FragmentError::Foreign);
    assert_eq!(network.open_part(&response[0], bob).unwrap_err(), FragmentError::Foreign);
    assert_eq!(network.open_part(&ack, bob).unwrap_err(), FragmentError::Foreign);
    assert_eq!(network.split(&honest.response, bob, [0; 8]).unwrap_err(), FragmentError::Foreign);
    assert_eq!(initiator.split(&honest.hello).unwrap_err(), FragmentError::Foreign);
    assert_eq!(responder.split(&honest.response).unwrap_err(), FragmentError::Foreign);

    let other = run(&world);
    assert_eq!(
        other.await_response.fragments().open_part(&response[0]).unwrap_err(),
        FragmentError::Foreign,
        "of another handshake"
    );
}

#[test]
fn one_message_is_split_and_gives_the_same_datagrams() {
    let world = world();
    let honest = run(&world);
    let fragments = honest.await_established.fragments();
    let first = fragments.split(&honest.response).unwrap();
    assert_eq!(fragments.split(&honest.response).unwrap(), first);
    let mut other = honest.response.clone();
    other[20] ^= 1;
    assert_eq!(fragments.split(&other).unwrap_err(), FragmentError::Spent);
    finish(&world, honest);
}

#[test]
fn assembly_takes_parts_of_its_own_message_once() {
    let header = |index, count| FragmentHeader {
        kind: MessageKind::Response,
        index,
        count,
        receiver: 1,
        message: [2; 8],
    };
    let mut assembly = Assembly::new(&header(0, 3));
    assert_eq!(assembly.add(&header(2, 3), b"end"), Ok(false));
    assert_eq!(assembly.add(&header(2, 3), b"END"), Ok(false));
    assert_eq!(assembly.bitmap(), 0b100);
    for foreign in [
        header(0, 4),
        header(3, 3),
        FragmentHeader { receiver: 2, ..header(0, 3) },
        FragmentHeader { message: [3; 8], ..header(0, 3) },
        FragmentHeader { kind: MessageKind::Established, ..header(0, 3) },
    ] {
        assert_eq!(assembly.add(&foreign, &[0; PAYLOAD]), Err(FragmentError::Foreign));
    }
    assert_eq!(assembly.add(&header(0, 3), &[0; PAYLOAD + 1]), Err(FragmentError::Foreign));
    assert_eq!(assembly.add(&header(0, 3), &[7; PAYLOAD]), Ok(false));
    assert_eq!(assembly.add(&header(1, 3), &[8; PAYLOAD]), Ok(true));
    let bytes = assembly.into_bytes();
    assert_eq!((bytes.len(), &bytes[2 * PAYLOAD..]), (2 * PAYLOAD + 3, &b"end"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_with_repeats_gives_the_message(
        length in 1..=limits::HANDSHAKE_MESSAGE,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        fill: u8,
    ) {
        let message: Vec<u8> =
            (0..length).map(|at| fill.wrapping_add(u8::try_from(at % 251).unwrap())).collect();
        let parts: Vec<Part> = split(MessageKind::Response, 1, [0; 8], &message)
            .unwrap()
            .map(|(header, payload)| (header, payload.to_vec()))
            .collect();
        let mut sent: Vec<Part> = order.iter().map(|at| parts[at.index(parts.len())].clone()).collect();
        let early = assemble(&sent);
        prop_assert!(early.is_none_or(|early| early == message));
        sent.extend(parts);
        prop_assert_eq!(assemble(&sent), Some(message));
    }
}
