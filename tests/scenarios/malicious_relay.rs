//! The relay itself is the attacker: it changes, swaps, repeats, cuts, reorders and misdirects what nodes send each
//! other, and it may know what members know. Nothing is established, nothing leaks, and once the relay does its work
//! the same nodes reach each other.
//!
//! `world.rs` holds the nodes and the carrier, `insider.rs` is a second writing of the handshake in which every field
//! can be wrong, `forgery.rs` is what an insider tries with it.

mod forgery;
mod insider;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_node::DropReason;
use mesh_wire::handshake::{CHALLENGE, ESTABLISHED, HELLO, HELLO_BODY, HELLO_LEN, RESPONSE};

use self::insider::remac;
use self::world::{GOOD, Mail, World, id};

const KINDS: [u8; 4] = [HELLO, CHALLENGE, RESPONSE, ESTABLISHED];
/// Changed messages that one node sees before the right one: below every limit of rate, which would hide the check.
const BATCH: usize = 150;

/// Runs `work` for every number below `count` on all processors.
fn in_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

fn seed(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

/// How long message `stage` is; fixed for the first two, and for the others as long as the proof in them makes it.
fn length_of(stage: usize) -> usize {
    World::new(0).stage(stage).bytes.len()
}

/// Brings changed copies of message `stage` to its receiver, which has to be silent and without a session, and then the
/// message itself, which has to be good still.
fn refuses(world: &mut World, stage: usize, original: &Mail, bad: impl IntoIterator<Item = (String, Mail)>) {
    for (what, mail) in bad {
        world.deliver(&mail);
        assert!(world.wire.is_empty(), "stage {stage}, {what}: answered with {:?}", world.drain()[0].kind());
        world.stands_alone(original.to, &what);
    }
    let limited = world.drops(original.to, DropReason::RateLimited);
    assert_eq!(limited, 0, "stage {stage}: limits of rate hid the checks");
    world.deliver(original);
    world.agree(0, 1, &format!("stage {stage}, after refusals"));
    assert_eq!(world.established(original.to), 1, "stage {stage}: the right message was not taken at once");
}

#[test]
fn every_changed_byte_is_refused_and_the_handshake_goes_on() {
    for (stage, kind) in KINDS.into_iter().enumerate() {
        // mac2 proves an address under load and is not part of the transcript: see the next test.
        let length = if kind == HELLO { HELLO_LEN - 16 } else { length_of(stage) };
        in_parallel(length.div_ceil(BATCH), |batch| {
            let mut world = World::new(seed(batch));
            let original = world.stage(stage);
            assert_eq!(original.kind(), kind);
            let bad: Vec<_> = (batch * BATCH..length.min((batch + 1) * BATCH))
                .map(|at| {
                    let pattern = world.dice.pattern();
                    (format!("byte {at} ^ {pattern:#04x}"), original.with(|bytes| bytes[at] ^= pattern))
                })
                .collect();
            refuses(&mut world, stage, &original, bad);
        });
    }
}

#[test]
fn changed_mac2_changes_nothing_but_what_mac2_is_for() {
    for at in HELLO_LEN - 16..HELLO_LEN {
        let mut world = World::new(seed(at));
        let hello = world.stage(0).with(|bytes| bytes[at] ^= 0x40);
        world.deliver(&hello);
        world.agree(0, 1, "mac2");
        assert_eq!((world.established(0), world.established(1)), (1, 1), "one session only");
    }
}

/// The relay puts the changed message in the place of the right one, which never arrives.
#[test]
fn replaced_message_costs_one_attempt() {
    for stage in 0..KINDS.len() {
        let length = if stage == 0 { HELLO_LEN - 16 } else { length_of(stage) };
        let places: Vec<usize> = (0..64).chain((64..length).step_by(101)).chain([length - 1]).collect();
        in_parallel(places.len(), |number| {
            let (mut world, at) = (World::new(seed(number)), places[number]);
            let original = world.stage(stage);
            let pattern = world.dice.pattern();
            world.deliver(&original.with(|bytes| bytes[at] ^= pattern));
            assert!(world.wire.is_empty(), "stage {stage}, byte {at}: answered");
            world.stands_alone(original.to, "replaced");
            world.agree(0, 1, &format!("stage {stage}, byte {at} replaced"));
        });
    }
}

/// Whoever knows the network secret can make mac1 right again: then the transcript and its signatures have to hold.
#[test]
fn every_changed_byte_of_a_hello_with_a_right_mac_ends_at_the_challenge() {
    // Below what a responder answers for one node at once.
    const FEW: usize = 15;
    in_parallel(HELLO_BODY.div_ceil(FEW), |batch| {
        let mut world = World::new(seed(batch));
        let original = world.stage(0);
        for at in batch * FEW..HELLO_BODY.min((batch + 1) * FEW) {
            let pattern = world.dice.pattern();
            let bad = original.with(|bytes| {
                bytes[at] ^= pattern;
                remac(bytes, id(1));
            });
            world.deliver(&bad);
            for challenge in world.drain() {
                assert_eq!((challenge.kind(), challenge.from, challenge.to), (CHALLENGE, 1, 0));
                world.deliver(&challenge);
                assert!(
                    world.wire.is_empty(),
                    "byte {at}: the initiator said its name to a changed transcript"
                );
            }
        }
        for at in 0..2 {
            world.stands_alone(at, "changed HELLO");
        }
        assert_eq!(world.drops(1, DropReason::RateLimited), 0, "limits of rate hid the checks");
        world.deliver(&original);
        world.recovers(0, 1, "changed HELLO");
    });
}

#[test]
fn cut_and_lengthened_messages_are_refused() {
    for stage in 0..KINDS.len() {
        let length = length_of(stage);
        let tail = length - 64..length;
        let cut: Vec<usize> = (0..64).chain((64..length - 64).step_by(97)).chain(tail).collect();
        in_parallel(cut.len().div_ceil(BATCH) + 1, |batch| {
            let mut world = World::new(seed(batch));
            let original = world.stage(stage);
            let bad: Vec<_> = match cut.chunks(BATCH).nth(batch) {
                Some(lengths) => lengths
                    .iter()
                    .map(|length| {
                        (format!("cut to {length}"), original.with(|bytes| bytes.truncate(*length)))
                    })
                    .collect(),
                None => [1, 2, 15, 16, 17, 100, 1000, 16_384 - length.min(16_000), 16_385, 65_536 - length]
                    .into_iter()
                    .flat_map(|more| {
                        let zeros = original.with(|bytes| bytes.resize(length + more, 0));
                        let twice = original.with(|bytes| {
                            let again: Vec<u8> = bytes.iter().copied().cycle().take(more).collect();
                            bytes.extend(again);
                        });
                        let before = original.with(|bytes| {
                            bytes.splice(1..1, std::iter::repeat_n(0, more));
                        });
                        [zeros, twice, before].map(|mail| (format!("{more} more"), mail))
                    })
                    .collect(),
            };
            refuses(&mut world, stage, &original, bad);
        });
    }
}

/// To the wrong node, back to who sent it, and under another sender's name.
#[test]
fn misdirected_messages_establish_nothing() {
    let ways = |stage: usize| {
        let own = if stage.is_multiple_of(2) { (0, 1) } else { (1, 0) };
        let all = (0..GOOD).flat_map(|from| (0..GOOD).map(move |to| (from, to)));
        all.filter(move |way| *way != own)
    };
    for (stage, (from, to)) in (0..KINDS.len()).flat_map(|stage| ways(stage).map(move |way| (stage, way))) {
        let mut world = World::new(seed(stage));
        let original = world.stage(stage);
        let what = format!("stage {stage} as {from} -> {to}");
        world.deliver(&Mail { from, to, ..original.clone() });
        // A HELLO names no sender: its answer goes to the one that the relay named, who asked for nothing, and can be
        // brought to the one who did ask, whose RESPONSE then does not fit the name.
        for answer in world.drain() {
            assert_eq!((stage, answer.kind(), answer.from), (0, CHALLENGE, 1), "{what}: answered");
            world.deliver(&answer);
            assert!(world.wire.is_empty(), "{what}: a CHALLENGE that nobody waits for was answered");
            world.deliver(&Mail { from: 1, to: 0, ..answer });
            let response = world.only();
            assert_eq!((response.kind(), response.to), (RESPONSE, 1), "{what}");
            world.deliver(&Mail { from, ..response });
            assert!(world.wire.is_empty(), "{what}: a RESPONSE under a wrong name was taken");
        }
        world.stands_alone(0, &what);
        world.stands_alone(2, &what);
        assert_eq!(world.established(1), 0, "{what}: a session was confirmed");
        world.deliver(&original);
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            world.agree(a, b, &what);
        }
    }
}

/// Everything two nodes ever said to each other, from HELLO to data both ways.
fn recorded(world: &mut World) -> Vec<Mail> {
    world.recovers(0, 1, "first run");
    std::mem::take(&mut world.tape)
}

/// Brings a recording in order, to both nodes, under each other's name and back to who sent it.
fn replay(world: &mut World, tape: &[Mail]) {
    for mail in tape {
        for (from, to) in [(mail.from, mail.to), (mail.to, mail.from), (mail.from, mail.from), (2, mail.to)] {
            world.deliver(&Mail { from, to, bytes: mail.bytes.clone() });
        }
    }
}

#[test]
fn replays_find_no_ear_while_a_session_stands() {
    let mut world = World::new(1);
    let tape = recorded(&mut world);
    assert!(tape.len() > 6, "the recording holds a handshake and frames");
    let (session, established) = (world.session(0, 1), world.established(0) + world.established(1));
    let packets = world.received();
    for _ in 0..3 {
        replay(&mut world, &tape);
        world.pass(Duration::from_secs(3));
    }
    assert_eq!(world.received(), packets, "a packet was accepted again");
    assert_eq!((world.session(0, 1), world.session(1, 0)), (session, session), "the session was replaced");
    assert_eq!(world.established(0) + world.established(1), established);
    assert!(world.drops(0, DropReason::Replayed) + world.drops(1, DropReason::Replayed) > 10);
    world.recovers(0, 1, "after replays");
}

#[test]
fn replays_find_no_ear_after_a_restart() {
    for restarted in [&[0][..], &[1], &[0, 1]] {
        let mut world = World::new(seed(restarted.len()));
        let tape = recorded(&mut world);
        for at in restarted {
            world.restart(*at);
        }
        let (packets, before) = (world.received(), [world.established(0), world.established(1)]);
        replay(&mut world, &tape);
        // The answers to the HELLOs are brought, too: nobody waits for them.
        for mail in world.drain() {
            world.deliver(&mail);
        }
        assert_eq!([world.established(0), world.established(1)], before, "{restarted:?}: a session stands");
        assert_eq!(world.received(), packets, "{restarted:?}: a packet was accepted again");
        for at in restarted {
            assert_eq!(world.session(*at, 1 - *at), None, "{restarted:?}: a session came out of a recording");
        }
        world.recovers(0, 1, &format!("{restarted:?} started anew"));
    }
}

/// An old run is brought in the middle of a new one, before each of its messages.
#[test]
fn replays_do_not_mix_with_a_later_handshake() {
    for stage in 0..KINDS.len() {
        let mut world = World::new(seed(stage));
        let tape = recorded(&mut world);
        world.restart(0);
        world.restart(1);
        let (packets, old) = (world.received(), world.established(0));
        let original = world.stage(stage);
        // Only what follows the stage: an old HELLO may take the place of the new one, as any loss would.
        let later: Vec<Mail> = tape.into_iter().filter(|mail| mail.kind() != HELLO).collect();
        replay(&mut world, &later);
        assert!(world.wire.is_empty(), "stage {stage}: an old message was answered");
        assert_eq!(world.received(), packets, "stage {stage}: an old packet was accepted");
        assert_eq!(world.established(0), old, "stage {stage}: an old message was taken");
        world.deliver(&original);
        world.pass(Duration::from_millis(500));
        assert_eq!(world.established(0), old + 1, "stage {stage}: the new run was disturbed");
        world.recovers(0, 1, "old and new");
    }
}

/// Two handshakes at the same time, with each other's messages in the places of their own.
#[test]
fn messages_of_concurrent_handshakes_do_not_fit_each_other() {
    // With two responders, with two initiators, and both ways between the same two.
    for (first, second) in [((0, 1), (0, 2)), ((1, 0), (2, 0)), ((0, 1), (1, 0))] {
        // With a session of the first run at hand nobody would begin a second one the other way.
        let stages = if second == (first.1, first.0) { KINDS.len() - 1 } else { KINDS.len() };
        for stage in 0..stages {
            let mut world = World::new(seed(stage));
            let one = world.stage_between(first.0, first.1, stage);
            let two = world.stage_between(second.0, second.1, stage);
            let what = format!("{first:?} and {second:?}, stage {stage}");
            let before: Vec<usize> = (0..GOOD).map(|at| world.established(at)).collect();
            for (mail, place) in [(&one, &two), (&two, &one)] {
                let index = if stage == 1 { 8..12 } else { 4..8 };
                let number: Vec<u8> = place.bytes[index.clone()].to_vec();
                let moved = Mail { bytes: mail.bytes.clone(), ..*place };
                let renumbered = moved.with(|bytes| bytes[index].copy_from_slice(&number));
                for swapped in [moved, renumbered] {
                    world.deliver(&swapped);
                    for answer in world.drain() {
                        // Both HELLOs may be for the same node: a false name is all that is wrong with them then.
                        assert_eq!((stage, answer.kind()), (0, CHALLENGE), "{what}: answered");
                        world.deliver(&answer);
                        assert!(world.wire.is_empty(), "{what}: went on");
                    }
                }
            }
            let after: Vec<usize> = (0..GOOD).map(|at| world.established(at)).collect();
            assert_eq!(before, after, "{what}: a session stands");
            world.deliver(&one);
            world.deliver(&two);
            world.recovers(first.0, first.1, &what);
            world.recovers(second.0, second.1, &what);
        }
    }
}

/// The relay keeps a message, lets the initiator begin anew, and puts the kept one into the new run.
#[test]
fn kept_messages_do_not_fit_the_next_attempt() {
    for stage in 0..KINDS.len() {
        for into in 0..KINDS.len() {
            let mut world = World::new(seed(stage));
            let kept = world.stage(stage);
            let again = world.pass_in_silence(Duration::from_millis(1100));
            let hello = again.iter().find(|mail| mail.kind() == HELLO).expect("the initiator begins anew");
            world.wire.push_back(hello.clone());
            let current = world.go_on(into);
            let before = (world.established(0), world.session(0, 1));
            world.deliver(&kept);
            let answers = world.drain();
            // An old HELLO is as good as a new one to the responder, and so is a RESPONSE to the last HELLO that it saw;
            // what it answers is nothing to the initiator.
            for answer in answers {
                let late = matches!((stage, into, answer.kind()), (0, _, CHALLENGE) | (2, 0, ESTABLISHED));
                assert!(late, "message {stage} fitted run two at {into}");
                world.deliver(&answer);
                assert!(world.wire.is_empty(), "message {stage} fitted run two at {into}");
            }
            assert_eq!((world.established(0), world.session(0, 1)), before, "{stage} into {into}");
            world.deliver(&current);
            world.recovers(0, 1, &format!("message {stage} of run one in run two at {into}"));
        }
    }
}

/// Every order of the four messages of one recorded run, brought to nodes that are in the middle of another.
#[test]
fn no_order_of_a_recorded_run_establishes() {
    let tape: Vec<Mail> = {
        let mut world = World::new(3);
        recorded(&mut world).into_iter().filter(|mail| KINDS.contains(&mail.kind())).collect()
    };
    assert_eq!(tape.iter().map(Mail::kind).collect::<Vec<_>>(), KINDS, "one run was recorded");
    let orders: Vec<[usize; 4]> = (0..256_usize)
        .map(|code| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6])
        .filter(|order| (0..4).all(|place| order.contains(&place)))
        .collect();
    assert_eq!(orders.len(), 24);
    for (number, order) in orders.iter().enumerate() {
        let mut world = World::new(1000 + seed(number));
        world.send(0, 1);
        world.drain();
        for place in order {
            world.deliver(&tape[*place]);
            for answer in world.drain() {
                assert_eq!(answer.kind(), CHALLENGE, "{order:?}");
                world.deliver(&answer);
                assert!(world.wire.is_empty(), "{order:?}: went on");
            }
        }
        world.stands_alone(0, "order");
        world.stands_alone(1, "order");
        world.recovers(0, 1, &format!("{order:?}"));
    }
}

/// A relay that does anything at all with anything it ever saw, and now and then its work; `SHADOWMESH_SEEDS` of them.
#[test]
fn any_mischief_ends_when_the_relay_does_its_work() {
    const STEPS: usize = 60;
    let seeds = std::env::var("SHADOWMESH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(250);
    let accepted = AtomicUsize::new(0);
    in_parallel(seeds, |number| {
        let mut world = World::new(7_000 + seed(number));
        for _ in 0..STEPS {
            let (from, to) = (world.dice.pick(GOOD), world.dice.pick(GOOD));
            match world.dice.pick(10) {
                0 if from != to => drop(world.send(from, to)),
                0 => world.restart(from),
                1 => drop(world.pass_in_silence(Duration::from_millis(700))),
                2 => drop(world.drain()),
                3..=5 => {
                    if let Some(mail) = world.wire.pop_front() {
                        world.deliver(&mail);
                    }
                }
                _ => mischief(&mut world),
            }
        }
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            world.recovers(a, b, &format!("seed {number}"));
        }
        accepted.fetch_add(world.received(), Ordering::Relaxed);
    });
    assert!(accepted.into_inner() >= seeds * 6);
}

/// Brings something that was sent at some time, changed or not, to somebody under some name.
fn mischief(world: &mut World) {
    if world.tape.is_empty() {
        return;
    }
    let at = world.dice.pick(world.tape.len());
    let mut mail = world.tape[at].clone();
    (mail.from, mail.to) = match world.dice.pick(3) {
        0 => (mail.from, mail.to),
        1 => (mail.to, mail.from),
        _ => (world.dice.pick(GOOD), world.dice.pick(GOOD)),
    };
    match world.dice.pick(5) {
        0 => {
            let (place, pattern) = (world.dice.pick(mail.bytes.len()), world.dice.pattern());
            mail.bytes[place] ^= pattern;
        }
        1 => mail.bytes.truncate(world.dice.pick(mail.bytes.len())),
        2 => {
            let other = world.tape[world.dice.pick(world.tape.len())].bytes.clone();
            let place = world.dice.pick(mail.bytes.len().min(other.len()));
            mail.bytes.truncate(place);
            mail.bytes.extend(&other[place..]);
        }
        _ => {}
    }
    world.deliver(&mail);
}
