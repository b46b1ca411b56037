//! The same nodes, whose paths agents of ICE find. In the laboratory a search has to end well at once; here a thousand
//! of them show that it does, however long the ways are, whoever begins, and whatever was before.

use mesh_ice::{Output, SansIo, Setting};
use mesh_node::{ChangeReason, Finding};
use mesh_wire::control::{Candidate, IceOffer};

use super::paths::{APART, LONGEST_WAY};
use super::*;

const SEEDS: u64 = 200;
/// Whoever knows nothing of the other's agent waits half a second for it; two ways over the relay and what the node has
/// to do first have to fit.
const RELAY_WAY: u64 = 150;
/// Milliseconds from the start of a node until it knows its addresses.
const LEARNT: u64 = 1000;
/// An agent has three seconds of a search, and needs a fraction of them.
const MET: Duration = Duration::from_millis(2000 + LEARNT);

impl Simulation {
    fn agent(&mut self, at: usize) -> Finder<NodeId> {
        let mut dice = Dice(self.dice.roll());
        let random = Box::new(move |bytes: &mut [u8]| bytes.fill_with(|| dice.roll().to_le_bytes()[0]));
        // Its addresses are found out meanwhile.
        self.learn_at[at] = Some(self.now + Duration::from_millis(self.dice.below(LEARNT)));
        Finder::new(&SansIo, random, Arc::new(|| {}))
    }

    fn learn_addresses(&mut self) {
        for at in 0..2 {
            if self.learn_at[at].is_some_and(|due| due <= self.now) {
                self.learn_at[at] = None;
                let agent = self.agents.as_mut().map(|agents| &mut agents[at]).unwrap();
                agent.set_bases(vec![paths::place(at, 0), paths::place(at, 2)]);
                self.tell_addresses(at);
            }
        }
    }

    pub(super) fn ask_agent(
        &mut self,
        at: usize,
        peer: NodeId,
        offer: Option<IceOffer>,
        remotes: Vec<Candidate>,
    ) {
        let setting = Setting { controlling: CAST.identities[at].node_id() > peer, remotes };
        let Some(agents) = &mut self.agents else { return };
        match offer {
            Some(offer) => agents[at].handle_offer(self.now, peer, &offer, &setting),
            None => agents[at].search(self.now, peer, &setting),
        }
        self.agent_says(at);
    }

    pub(super) fn agent_timeout(&mut self, at: usize) {
        let Some(agents) = &mut self.agents else { return };
        if agents[at].poll_timeout().is_some_and(|due| due <= self.now) {
            agents[at].handle_timeout(self.now);
            self.agent_says(at);
        }
    }

    /// Takes what is STUN.
    pub(super) fn is_for_agent(&mut self, at: usize, path: Path, datagram: &[u8]) -> bool {
        let (Some(agents), Path::Udp(from)) = (&mut self.agents, path) else { return false };
        if datagram.get(4..8) != Some(&STUN[..]) {
            return false;
        }
        agents[at].handle_datagram(self.now, from, datagram);
        self.agent_says(at);
        true
    }

    fn agent_says(&mut self, at: usize) {
        while let Some(output) = self.agents.as_mut().and_then(|agents| agents[at].poll_output()) {
            let (peer, finding) = match output {
                Output::Transmit(transmit) => {
                    self.cast(at, transmit.to, &transmit.payload, false);
                    continue;
                }
                Output::Say(peer, offer) => (peer, Finding::Offer(offer)),
                Output::Nominated(peer, address) => (peer, Finding::Nominated(address)),
                Output::Failed(peer) => (peer, Finding::Failed),
            };
            self.with(at, |node, now, tx| node.handle_finding(now, peer, finding, tx));
        }
    }

    /// The program is started anew: it forgets everything, and may say goodbye before.
    fn starts_anew(&mut self, at: usize, goodbye: bool) {
        if goodbye {
            self.with(at, |node, _, tx| node.close(tx));
        }
        self.nodes[at] = self.node(at);
        self.nodes[at].node.find_by_ice();
        self.quic[at] = Ends::default();
        self.met.retain(|(who, _)| *who != at);
        let agent = self.agent(at);
        self.agents.as_mut().unwrap()[at] = agent;
    }

    /// One or both send until the paths of both are direct.
    fn meets(&mut self, senders: [bool; 2]) {
        let end = self.now + MET;
        while !self.all_direct() {
            let seed = self.seed;
            let views = || (self.view(0, 1), self.view(1, 0));
            assert!(self.now < end, "seed {seed}: not met in {MET:?}: {:#?}", views());
            self.learn_addresses();
            for from in (0..2).filter(|from| senders[*from]) {
                self.send(from, 1 - from);
            }
            self.pass(APART / 2);
        }
        for (at, of) in [(0, 1), (1, 0)] {
            let view = self.view(at, of).unwrap();
            let seed = self.seed;
            // Handshakes go over the path that was, and show it where it still leads to the peer.
            let shown = view.last_change.is_some_and(|change| change.reason == ChangeReason::Handshake);
            let agreed =
                view.remotes.iter().any(|remote| remote.ice && view.path == Path::Udp(remote.address));
            assert!(agreed || shown, "seed {seed}: {view:#?}");
            let others = view.remotes.iter().filter(|remote| !remote.ice && remote.sent > 0).count();
            assert_eq!(others, 0, "seed {seed}: challenges went to what no agent named: {view:#?}");
        }
    }

    fn meetings(&mut self) {
        let mut anew = None;
        for _ in 0..4 {
            // Who was started anew speaks: the other one need not have heard the goodbye, which may be lost.
            let some = [[true, true], [true, false], [false, true]][self.dice.pick(3)];
            self.meets([0, 1].map(|at| some[at] || anew == Some(at)));
            let pause = self.dice.below(12_000);
            let talks = self.dice.percent(50);
            let end = self.now + Duration::from_millis(pause);
            while self.now < end {
                if talks {
                    self.send(0, 1);
                    self.send(1, 0);
                }
                self.pass(APART);
            }
            let (at, goodbye) = (self.dice.pick(2), self.dice.percent(70));
            self.starts_anew(at, goodbye);
            anew = Some(at);
        }
    }
}

const STUN: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

fn simulation(seed: u64) -> Simulation {
    let mut simulation = Simulation::with_air(seed, Some(Air::new()));
    simulation.weather = Weather { delay_ms: 1 + simulation.dice.below(RELAY_WAY), ..Weather::default() };
    simulation.nodes.truncate(2);
    simulation.quic.truncate(2);
    for network in 0..paths::NETWORKS {
        let (delay_ms, loss) = (1 + simulation.dice.below(LONGEST_WAY), simulation.dice.below(5));
        let quality = &mut simulation.air().networks[network];
        (quality.delay_ms, quality.loss) = (delay_ms, loss);
    }
    let agents = (0..2).map(|at| simulation.agent(at)).collect();
    simulation.agents = Some(agents);
    for node in &mut simulation.nodes {
        node.node.find_by_ice();
    }
    simulation
}

#[test]
fn agents_find_the_path_in_one_search() {
    each_seed(SEEDS, |seed| simulation(seed).meetings());
}
