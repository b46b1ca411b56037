//! The engine's inbox and the posts of its further threads: who fills one wakes its reader only where it was empty.

#[rustfmt::skip]
#[path = "../../../daemon/src/engine/inbox.rs"]
#[expect(dead_code, reason = "the models use a part of what the daemon uses")]
#[expect(unreachable_pub, reason = "what the daemon shows to others is private here")]
mod inbox;

#[rustfmt::skip]
#[path = "../../../daemon/src/engine/post.rs"]
#[expect(dead_code, reason = "the models use a part of what the daemon uses")]
mod post;

/// What they are built from, under loom.
mod sync {
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) use crate::signal::Signal;
}

use bytes::BytesMut;
use inbox::{Datagrams, Frames, Inbox};
use loom::thread;
use mesh_node::Path;
use mesh_wire::NodeId;
use post::{Mail, Post};
use std::sync::Arc;

use crate::{WakeUp, check};

/// What the daemon asks of the engine; the inbox knows one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// End.
    Stop,
}

/// Two threads bring frames and a third one a command, while the engine takes less than all at a time: it gets all of
/// it, each once and in the order of each thread, and never waits while something is there.
pub fn nothing_waits_unseen(wake_up: WakeUp) {
    check(move || {
        let inbox = Arc::new(Inbox::new().expect("a model has no limits"));
        inbox.signal().set(wake_up);
        let one = bring(&inbox, vec![1, 2]);
        let two = bring(&inbox, vec![11]);
        let command = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.command(Command::Stop))
        };
        let mut marks = Vec::new();
        let (mut commands, mut waits) = (0, false);
        while marks.len() < 3 || commands == 0 {
            inbox.signal().wait();
            inbox.clear();
            let mail = inbox.take(1);
            marks.extend(mail.frames.iter().map(|frames| frames.payload[0]));
            commands += mail.commands.len();
            waits |= mail.quic_has_room;
        }
        for thread in [one, two, command] {
            thread.join().expect("a thread that brings something does not panic");
        }
        assert_eq!((commands, waits), (1, false));
        let of_one: Vec<u8> = marks.iter().copied().filter(|mark| *mark < 10).collect();
        assert_eq!((of_one, marks.len()), (vec![1, 2], 3), "frames are lost, repeated or in another order");
        assert_eq!(inbox.dropped(), 0);
    });
}

/// The first thread and another worker bring something to a worker, which waits in between: it gets all of it, each once
/// and in the order of each thread.
pub fn no_mail_waits_unseen(wake_up: WakeUp) {
    check(move || {
        let post = Arc::new(Post::new().expect("a model has no limits"));
        post.signal().set(wake_up);
        let bring = |marks: Vec<u64>| {
            let post = Arc::clone(&post);
            thread::spawn(move || marks.into_iter().for_each(|mark| post.put(Mail::Mark(mark))))
        };
        let other = {
            let post = Arc::clone(&post);
            let path = Path::Relay(NodeId([1; 32]));
            thread::spawn(move || post.put(Mail::Frame(path, vec![1])))
        };
        let first = bring(vec![1, 2]);
        let (mut marks, mut frames) = (Vec::new(), 0);
        while marks.len() < 2 || frames == 0 {
            post.signal().wait();
            for mail in post.take() {
                match mail {
                    Mail::Mark(mark) => marks.push(mark),
                    Mail::Frame(..) => frames += 1,
                    Mail::News(_) | Mail::Stop => {}
                }
            }
        }
        for thread in [first, other] {
            thread.join().expect("a thread that brings something does not panic");
        }
        assert_eq!((marks, frames, post.dropped()), (vec![1, 2], 1, 0));
    });
}

/// Two threads bring more than there is room for: what waits never exceeds the limit, and what is dropped is counted.
pub fn room_is_bounded() {
    check(|| {
        let inbox = Arc::new(Inbox::new().expect("a model has no limits"));
        let fill = |mark| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || (0..2).for_each(|_| inbox.frames(frames(mark, MOST / 2 - 200))))
        };
        let threads = [fill(1), fill(2)];
        let early = inbox.take(usize::MAX).frames;
        for thread in threads {
            thread.join().expect("a thread that brings something does not panic");
        }
        let late = inbox.take(usize::MAX).frames;
        assert!(early.len() <= 2 && late.len() <= 2, "more waits than there is room for");
        let dropped = usize::try_from(inbox.dropped()).expect("four at most");
        assert_eq!(early.len() + late.len() + dropped, 4, "something vanished uncounted");
    });
}

/// The QUIC endpoint brings more than there is room for, and waits to be told of room while the engine takes what is
/// there: it is told, and all arrives.
pub fn quic_is_told_of_room() {
    check(|| {
        let inbox = Arc::new(Inbox::new().expect("a model has no limits"));
        let room = Arc::new(loom::sync::Notify::new());
        let endpoint = {
            let (inbox, room) = (Arc::clone(&inbox), Arc::clone(&room));
            thread::spawn(move || {
                for mark in [1, 2] {
                    while !inbox.quic(datagrams(mark)) {
                        room.wait();
                    }
                }
            })
        };
        let mut marks = Vec::new();
        while marks.len() < 2 {
            inbox.signal().wait();
            inbox.clear();
            let mail = inbox.take(usize::MAX);
            marks.extend(mail.quic.iter().map(|datagrams| datagrams.payload[0]));
            if mail.quic_has_room {
                room.notify();
            }
        }
        endpoint.join().expect("the endpoint does not panic");
        assert_eq!(marks, [1, 2]);
    });
}

fn datagrams(mark: u8) -> Datagrams {
    let mut payload = BytesMut::zeroed(MOST_QUIC / 2 + 1);
    payload[0] = mark;
    Datagrams { to: NodeId([mark; 32]), payload, segment: None }
}

fn bring(inbox: &Arc<Inbox>, marks: Vec<u8>) -> thread::JoinHandle<()> {
    let inbox = Arc::clone(inbox);
    thread::spawn(move || marks.into_iter().for_each(|mark| inbox.frames(frames(mark, 1))))
}

fn frames(mark: u8, length: usize) -> Frames {
    let mut payload = BytesMut::zeroed(length);
    payload[0] = mark;
    Frames { from: NodeId([mark; 32]), payload, segment: None, marked: false }
}

/// As much as the inbox holds.
const MOST: usize = 2 * 1024 * 1024;
/// As many bytes of QUIC datagrams as the inbox holds.
const MOST_QUIC: usize = 512 * 1024;
