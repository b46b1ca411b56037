//! Nodes with several threads, whose steps come in any order.

use mesh_packet::Offload;
use proptest::prelude::*;

use super::*;
use crate::lanes::{Item, Told};
use crate::node::Slot;
use crate::window::WINDOW;

/// The first node has as many threads, the second one fewer.
const THREADS: [u16; 2] = [3, 2];

/// Two nodes that know each other's addresses, with their workers.
struct Crews {
    world: World,
    ids: [NodeId; 2],
    workers: BTreeMap<(NodeId, u16), Further>,
    /// What workers passed on and the first thread has not taken.
    home: BTreeMap<NodeId, VecDeque<(u16, ToNode)>>,
    /// How many packets of each flow were sent, by their sender and the number of the flow.
    sent: BTreeMap<(NodeId, u8), u8>,
    /// What was delivered, in its order: the receiver, the flow and the number.
    delivered: Vec<(NodeId, u8, u8)>,
}

struct Further {
    worker: Worker,
    post: VecDeque<Mail>,
    device: VecDeque<Vec<u8>>,
}

enum Mail {
    News(News),
    Frame(Path, Vec<u8>),
    Mark(u64),
}

impl Crews {
    fn new(mixes: bool) -> Self {
        let world = World::made(2, Link::Ip, |world| {
            // A relay beside it would be another way, and no order holds between two.
            (world.udp, world.relay, world.mixes) = (true, false, mixes);
            world.threads = world.ids.iter().copied().zip(THREADS).collect();
            world.timings = Timings {
                rekey: Duration::from_secs(7),
                reject: Duration::from_secs(30),
                handshake: Duration::from_secs(40),
                frames: 1 << 59,
            };
        });
        let ids = [world.ids[0], world.ids[1]];
        let mut workers = BTreeMap::new();
        for (id, threads) in ids.into_iter().zip(THREADS) {
            for thread in 1..threads {
                let worker = Worker::new(1420, world.nodes[&id].node.config.numbers.clone());
                let further = Further { worker, post: VecDeque::new(), device: VecDeque::new() };
                workers.insert((id, thread), further);
            }
        }
        let mut crews =
            Self { world, ids, workers, home: BTreeMap::new(), sent: BTreeMap::new(), delivered: Vec::new() };
        crews.settle();
        crews
    }

    /// Puts the next packet of a flow into the queue of the device that its hash gives.
    fn send(&mut self, from: usize, flow: u8) {
        let id = self.ids[from];
        let number = self.sent.entry((id, flow)).or_default();
        let mut payload = [0; 30];
        (payload[8], payload[9]) = (flow, *number);
        *number += 1;
        let packet = ipv4(self.world.address(id), self.world.address(self.ids[1 - from]), &payload);
        let thread = u16::from(flow) % THREADS[from];
        match self.workers.get_mut(&(id, thread)) {
            Some(further) => further.device.push_back(packet),
            None => self.world.with(id, |node, now, tx| node.handle_packet(now, &packet, tx)),
        }
        self.settle();
    }

    /// Lets a worker do one thing of a kind; false when there is nothing of that kind, or it holds it.
    fn work(&mut self, id: NodeId, thread: u16, kind: u8) -> bool {
        let now = self.world.now();
        let Some(further) = self.workers.get_mut(&(id, thread)) else { return false };
        let mut tx = TxQueue::new();
        let lane = self.world.lanes.entry((id, thread)).or_default();
        match kind % 4 {
            0 => match further.post.pop_front() {
                Some(Mail::News(news)) => further.worker.handle_news(news),
                Some(Mail::Frame(path, mut frame)) => {
                    let delivery = further.worker.handle_frame(path, &mut frame, true);
                    self.delivered.extend(delivery.map(|delivery| read(id, delivery)));
                }
                Some(Mail::Mark(mark)) => further.worker.handle_mark(mark),
                None => return false,
            },
            1 if !further.worker.holds_frames() => {
                let Some((path, mut frame)) = lane.pop_front() else { return false };
                let delivery = further.worker.handle_frame(path, &mut frame, false);
                self.delivered.extend(delivery.map(|delivery| read(id, delivery)));
            }
            2 if !further.worker.holds_packets() => {
                let Some(packet) = further.device.pop_front() else { return false };
                further.worker.handle_offloaded(&packet, &Offload::NONE, &mut tx);
            }
            3 => further.worker.report(now.instant),
            _ => return false,
        }
        let mut strays = Vec::new();
        while let Some(out) = further.worker.poll_out() {
            let strayed = matches!(out, ToNode::Frame { thread, .. } if thread > 0);
            if let (true, ToNode::Frame { thread, path, frame }) = (strayed, &out) {
                strays.push((*thread, *path, frame.clone()));
            } else {
                self.home.entry(id).or_default().push_back((thread, out));
            }
        }
        for (thread, path, frame) in strays {
            let further = self.workers.get_mut(&(id, thread)).unwrap();
            further.post.push_back(Mail::Frame(path, frame));
        }
        self.world.carry(id, tx);
        self.settle();
        kind % 4 != 3
    }

    /// Lets the first thread of a node take one thing that a worker passed on; false where there is none.
    fn take_home(&mut self, id: NodeId) -> bool {
        let Some((thread, passed)) = self.home.get_mut(&id).and_then(VecDeque::pop_front) else {
            return false;
        };
        let mut mark = None;
        let delivered = &mut self.delivered;
        self.world.with(id, |node, now, tx| match passed {
            ToNode::Packet { packet, offload } => node.handle_passed(now, thread, (&packet, &offload), tx),
            ToNode::Frame { path, mut frame, .. } => {
                let delivery = node.handle_frame(now, path, &mut frame, tx);
                delivered.extend(delivery.map(|delivery| read(id, delivery)));
            }
            ToNode::Control { number, path, message } => {
                node.handle_passed_control(now, (number, path), &message, tx);
            }
            ToNode::Want(number) => node.handle_want(thread, number),
            ToNode::Report(report) => node.handle_report(now, *report, tx),
            ToNode::Mark(number) | ToNode::Window(number) => mark = Some(number),
        });
        self.settle();
        if let Some(mark) = mark {
            self.workers.get_mut(&(id, thread)).unwrap().post.push_back(Mail::Mark(mark));
        }
        true
    }

    /// Hands the workers what the nodes have for them, and notes what was delivered.
    fn settle(&mut self) {
        let now = self.world.now();
        for id in self.ids {
            let node = &mut self.world.nodes.get_mut(&id).unwrap().node;
            node.share_out(now);
            for ((_, thread), further) in self.workers.range_mut((id, 0)..=(id, u16::MAX)) {
                further.post.extend(std::iter::from_fn(|| node.poll_news(*thread)).map(Mail::News));
            }
            while let Some(Stray { thread, path, frame }) = node.poll_stray() {
                let further = self.workers.get_mut(&(id, thread)).unwrap();
                further.post.push_back(Mail::Frame(path, frame));
            }
            for packet in self.world.got(id) {
                self.delivered.push((id, packet[28], packet[29]));
            }
        }
    }

    /// Does everything that is left to do.
    fn finish(&mut self) {
        let mut works = true;
        while works {
            works = false;
            for (id, thread) in self.workers.keys().copied().collect::<Vec<_>>() {
                for kind in 0..4 {
                    works |= self.work(id, thread, kind);
                }
            }
            for id in self.ids {
                works |= self.take_home(id);
            }
        }
    }

    /// Every packet arrived once, each flow in its order.
    fn check(&self) {
        for ((from, flow), sent) in &self.sent {
            let to = self.ids[usize::from(*from == self.ids[0])];
            let of_flow = self.delivered.iter().filter(|(at, of, _)| (*at, of) == (to, flow));
            let numbers: Vec<u8> = of_flow.map(|(_, _, number)| *number).collect();
            let drops = self.ids.map(|id| self.world.snapshot(id).drops);
            assert_eq!(numbers, (0..*sent).collect::<Vec<u8>>(), "flow {flow} of {from}; {drops:?}");
        }
    }

    /// Frames that workers sealed themselves show as counters of their lanes.
    fn worker_packets(&self, id: NodeId) -> u64 {
        self.world.snapshot(id).peers[0].tx.0
    }
}

fn read(id: NodeId, delivery: Delivery<'_>) -> (NodeId, u8, u8) {
    let Delivery::Packet(packet) = delivery else { panic!("whole packets were sent") };
    (id, packet[28], packet[29])
}

#[test]
fn worker_sends_and_receives_by_itself_once_a_session_stands() {
    let mut crews = Crews::new(true);
    let [a, _] = crews.ids;
    crews.send(0, 1);
    crews.finish();
    crews.check();
    for number in 0..50_u8 {
        crews.send(usize::from(number % 2), 1);
        // Neither first thread does anything.
        for id in crews.ids {
            for kind in [0, 2, 1] {
                while crews.work(id, 1, kind) {}
            }
        }
        for id in crews.ids {
            while crews.work(id, 1, 1) {}
        }
        assert!(crews.home.values().all(|home| home.iter().all(|(_, out)| matches!(out, ToNode::Report(_)))));
    }
    crews.check();
    assert_eq!(crews.worker_packets(a), 1, "the node has not heard of the others yet");
    crews.world.now += Duration::from_secs(1);
    crews.finish();
    assert_eq!(crews.worker_packets(a), 26);
}

#[test]
fn session_that_ends_is_withdrawn_and_its_number_unknown() {
    let mut crews = Crews::new(false);
    let [a, b] = crews.ids;
    for flow in 0..6 {
        crews.send(0, flow);
    }
    crews.finish();
    crews.send(0, 1);
    while crews.work(a, 1, 2) {}
    let frame = crews.world.lanes[&(b, 1)].front().cloned().unwrap();
    crews.world.with(b, |node, _, tx| node.close(tx));
    crews.finish();
    crews.world.now += Duration::from_secs(1);
    crews.finish();
    let before = crews.world.drops(b, DropReason::UnknownSession);
    crews.world.lanes.entry((b, 1)).or_default().push_back(frame);
    crews.finish();
    let worker = &crews.workers[&(b, 1)].worker;
    assert!(format!("{worker:?}").contains("sessions: []"), "{worker:?}");
    crews.world.now += Duration::from_secs(1);
    crews.finish();
    assert_eq!(crews.world.drops(b, DropReason::UnknownSession), before + 1);
}

#[test]
fn frame_that_comes_to_the_wrong_thread_is_passed_to_its_owner() {
    let mut crews = Crews::new(false);
    let [a, b] = crews.ids;
    crews.send(1, 1);
    crews.send(0, 1);
    crews.finish();
    crews.send(1, 1);
    while crews.work(b, 1, 2) {}
    // The second thread of the first node gets what is of its first one's lane.
    let frame = crews.world.lanes.get_mut(&(a, 1)).and_then(VecDeque::pop_front).unwrap();
    crews.world.lanes.entry((a, 2)).or_default().push_back(frame.clone());
    crews.finish();
    crews.check();
    // And so does the first.
    crews.send(1, 1);
    while crews.work(b, 1, 2) {}
    let (path, mut frame) = crews.world.lanes.get_mut(&(a, 1)).and_then(VecDeque::pop_front).unwrap();
    crews.world.with(a, |node, now, tx| assert!(node.handle_frame(now, path, &mut frame, tx).is_none()));
    crews.settle();
    crews.finish();
    crews.check();
}

#[test]
fn worker_knows_for_whom_the_relay_carries() {
    let mut world = World::made(3, Link::Ip, |world| {
        world.threads.insert(world.ids[0], 2);
    });
    let [a, b, c] = [0, 1, 2].map(|at| world.ids[at]);
    let mut worker = Worker::new(1420, world.nodes[&a].node.config.numbers.clone());
    let tell = |world: &mut World, worker: &mut Worker| {
        let now = world.now();
        let node = &mut world.nodes.get_mut(&a).unwrap().node;
        node.share_out(now);
        std::iter::from_fn(|| node.poll_news(1)).for_each(|news| worker.handle_news(news));
    };
    let [to_b, to_c] = [b, c].map(|to| world.packet(a, to, 7));
    tell(&mut world, &mut worker);
    assert!(!worker.goes_by_relay(&to_b), "its handshake is to begin");
    world.send(a, b, 1);
    assert_eq!(world.got(b).len(), 1);
    tell(&mut world, &mut worker);
    assert!(worker.goes_by_relay(&to_b) && !worker.goes_by_relay(&to_c));
    world.with(a, |node, _, tx| node.close(tx));
    tell(&mut world, &mut worker);
    assert!(!worker.goes_by_relay(&to_b), "the session has ended");
}

#[test]
fn full_relay_holds_what_it_carries_and_nothing_else() {
    let ids = [NodeId([1; 32]), NodeId([2; 32])];
    let addresses = [1, 2].map(|last| Ipv4Addr::new(100, 64, 0, last));
    let mut routes = Routes::default();
    for (at, address) in addresses.into_iter().enumerate() {
        routes.insert(address.into(), 32, Slot(at));
    }
    let mut worker = Worker::new(1420, Numbers::default());
    worker.handle_news(News(Item::Routes(Arc::new(routes), ids.into())));
    let told = Told { by_relay: true, ..Told::default() };
    worker.handle_news(News(Item::Way { peer: ids[0], told }));
    let mut tx = TxQueue::new();
    let packets = addresses.map(|to| ipv4(Ipv4Addr::LOCALHOST, to, &[0; 1380]));
    // Passes packets on until a mark follows, and returns that with whether it waits for the relay.
    let mut fill = |worker: &mut Worker, packet: &[u8]| {
        for _ in 0..=WINDOW / packet.len() {
            worker.handle_offloaded(packet, &Offload::NONE, &mut tx);
        }
        let marks = std::iter::from_fn(|| worker.poll_out()).filter_map(|out| match out {
            ToNode::Window(mark) => Some((mark, true)),
            ToNode::Mark(mark) => Some((mark, false)),
            ToNode::Packet { .. }
            | ToNode::Frame { .. }
            | ToNode::Control { .. }
            | ToNode::Want(_)
            | ToNode::Report(_) => None,
        });
        marks.collect::<Vec<_>>()
    };
    let [window] = fill(&mut worker, &packets[0])[..] else { panic!("one mark") };
    assert!(window.1 && worker.holds_for_relay() && !worker.holds_packets());
    assert!(worker.goes_by_relay(&packets[0]) && !worker.goes_by_relay(&packets[1]));
    // What the node sends another way is bounded by itself.
    let [mark] = fill(&mut worker, &packets[1])[..] else { panic!("one mark") };
    assert!(!mark.1 && worker.holds_packets());
    worker.handle_mark(mark.0);
    assert!(!worker.holds_packets() && worker.holds_for_relay(), "the relay has no room yet");
    worker.handle_mark(window.0);
    assert!(!worker.holds_for_relay());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever the order of the threads' steps, through handshakes, mixes and rekeys: every packet arrives once and each
    /// flow keeps its order.
    #[test]
    fn flows_keep_their_order_whatever_the_order_of_steps(
        mixes: bool,
        steps in proptest::collection::vec((0u8..10, 0u8..6, 0usize..2), 50..400),
    ) {
        let mut crews = Crews::new(mixes);
        for (kind, number, at) in steps {
            let id = crews.ids[at];
            match kind {
                0..=2 => {
                    if crews.sent.get(&(id, number)).is_none_or(|sent| *sent < 200) {
                        crews.send(at, number);
                    }
                }
                3..=6 => {
                    crews.work(id, 1 + u16::from(number) % 2, kind - 3);
                }
                7 | 8 => {
                    crews.take_home(id);
                }
                _ => {
                    // What waits longer than keys live is lost rightly.
                    crews.finish();
                    crews.world.pass(Duration::from_millis(700));
                    crews.settle();
                }
            }
        }
        crews.finish();
        crews.check();
    }
}
