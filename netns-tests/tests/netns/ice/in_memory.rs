//! The two libraries of ICE with each other in this process: a network in memory, whose order of arrival a test
//! decides. Time passes as it does, since one of the libraries has a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_ice::{Finder, Library, Output, SansIo, Setting, Webrtc};
use mesh_wire::control::{Candidate, CandidateKind, IceOffer};
use tokio::sync::Notify;

/// Where one end is, IPv4 first.
type Sockets = [SocketAddr; 2];

struct End {
    finder: Finder<u8>,
    controlling: bool,
    outside: Sockets,
    nominated: BTreeSet<SocketAddr>,
}

enum Travels {
    Datagram(SocketAddr, Vec<u8>),
    Offer(IceOffer),
}

struct World {
    ends: [End; 2],
    wires: BTreeMap<(Instant, u64), (usize, Travels)>,
    sent: u64,
    woken: Arc<Notify>,
    /// How long a datagram takes, IPv4 first.
    ways: [Duration; 2],
}

impl End {
    fn new(number: u8, library: &'static dyn Library, controlling: bool, woken: &Arc<Notify>) -> Self {
        let woken = Arc::clone(woken);
        let random =
            Box::new(|bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).expect("the system has randomness"));
        let mut finder = Finder::new(library, random, Arc::new(move || woken.notify_one()));
        let port = 1000 + u16::from(number);
        // One of the libraries wants an address that this machine has.
        finder.set_bases(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
        let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
        let outside = [(Ipv4Addr::new(192, 0, 2, number), port).into(), (far, port).into()];
        Self { finder, controlling, outside, nominated: BTreeSet::new() }
    }

    fn named(&self) -> Vec<Candidate> {
        self.outside.map(|address| Candidate { kind: CandidateKind::Host, address }).to_vec()
    }
}

impl World {
    fn new(libraries: [&'static dyn Library; 2], controlling: usize, ways: [Duration; 2]) -> Self {
        let woken = Arc::new(Notify::new());
        let [first, second] = libraries;
        let ends =
            [End::new(1, first, controlling == 0, &woken), End::new(2, second, controlling == 1, &woken)];
        Self { ends, wires: BTreeMap::new(), sent: 0, woken, ways }
    }

    fn setting(&self, of: usize) -> Setting {
        Setting { controlling: self.ends[of].controlling, remotes: self.ends[1 - of].named() }
    }

    /// Searches until both ends agree on an address, or it is over.
    async fn meet(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        for at in 0..2 {
            let setting = self.setting(at);
            self.ends[at].finder.search(Instant::now(), 0, &setting);
        }
        loop {
            self.collect(Instant::now());
            if self.agree() {
                return true;
            }
            let wire = self.wires.keys().next().map(|(at, _)| *at);
            let timers = self.ends.iter_mut().filter_map(|end| end.finder.poll_timeout());
            let next = timers.chain(wire).min().unwrap_or(end).min(end);
            // The end of this wait is one of two things that are looked at.
            let _ = tokio::time::timeout_at(next.into(), self.woken.notified()).await;
            let now = Instant::now();
            if now >= end {
                return false;
            }
            for end in &mut self.ends {
                end.finder.handle_timeout(now);
            }
            while let Some(first) = self.wires.first_entry().filter(|first| first.key().0 <= now) {
                let (to, travels) = first.remove();
                self.arrive(now, to, travels);
            }
        }
    }

    fn collect(&mut self, now: Instant) {
        for at in 0..2 {
            while let Some(output) = self.ends[at].finder.poll_output() {
                let (family, travels) = match output {
                    Output::Transmit(transmit) => {
                        let family = usize::from(transmit.to.is_ipv6());
                        if transmit.to != self.ends[1 - at].outside[family] {
                            continue;
                        }
                        (family, Travels::Datagram(self.ends[at].outside[family], transmit.payload))
                    }
                    Output::Say(_, offer) => (0, Travels::Offer(offer)),
                    Output::Nominated(_, address) => {
                        self.ends[at].nominated.insert(address);
                        continue;
                    }
                    Output::Failed(_) => continue,
                };
                self.sent += 1;
                self.wires.insert((now + self.ways[family], self.sent), (1 - at, travels));
            }
        }
    }

    fn arrive(&mut self, now: Instant, to: usize, travels: Travels) {
        match travels {
            Travels::Datagram(from, payload) => self.ends[to].finder.handle_datagram(now, from, &payload),
            Travels::Offer(offer) => {
                let setting = self.setting(to);
                self.ends[to].finder.handle_offer(now, 0, &offer, &setting);
            }
        }
    }

    /// Both ends would use the same family.
    fn agree(&self) -> bool {
        let [one, two] = &self.ends;
        (0..2).any(|family| {
            one.nominated.contains(&two.outside[family]) && two.nominated.contains(&one.outside[family])
        })
    }
}

/// Whichever of two ways is the shorter one, and whoever decides.
#[test]
fn two_libraries_agree_on_one_of_two_ways() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let [near, far] = [Duration::from_millis(1), Duration::from_millis(30)];
    for controlling in 0..2 {
        for ways in [[near, far], [far, near], [near, near]] {
            let mut world = World::new([&SansIo, &Webrtc], controlling, ways);
            let met = runtime.block_on(world.meet(Duration::from_secs(3)));
            let [ours, theirs] = world.ends.each_ref().map(|end| (end.finder.pairs(0), &end.nominated));
            ensure!(met, "{controlling} decides, ways {ways:?}: {ours:?}, {theirs:?}");
        }
    }
    Ok(())
}
