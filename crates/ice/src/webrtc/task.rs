//! The task that holds one agent of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_wire::control::{Candidate, CandidateKind, IceCredentials};
use tokio::sync::mpsc;
use webrtc_ice::agent::Agent;
use webrtc_ice::agent::agent_config::AgentConfig;
use webrtc_ice::candidate::candidate_base::CandidateBaseConfig;
use webrtc_ice::candidate::candidate_host::CandidateHostConfig;
use webrtc_ice::candidate::candidate_server_reflexive::CandidateServerReflexiveConfig;
use webrtc_ice::candidate::{Candidate as Named, CandidatePairState, CandidateType};
use webrtc_ice::mdns::MulticastDnsMode;
use webrtc_ice::network_type::NetworkType;
use webrtc_ice::state::ConnectionState;
use webrtc_ice::udp_network::UDPNetwork;

use super::Shared;
use super::mux::Mux;
use crate::{Event, Pair, PairState, REMOTES, Setup};

/// What the agent is told.
#[derive(Debug)]
pub(super) enum Command {
    Base(SocketAddr),
    Remote(Candidate),
    Credentials(IceCredentials),
}

/// Runs until the other end of `commands` is dropped.
pub(super) async fn run(
    setup: Setup,
    shared: Arc<Shared>,
    mux: Arc<Mux>,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut early = Vec::new();
    let base = loop {
        match commands.recv().await {
            Some(Command::Base(base)) => break base,
            Some(command) => early.push(command),
            None => return,
        }
    };
    mux.bind(base);
    let agent = match Agent::new(config(&setup, base.ip(), mux)).await {
        Ok(agent) => Arc::new(agent),
        Err(error) => {
            tracing::debug!(%error, "no agent of webrtc-ice");
            shared.event(Event::Failed);
            return;
        }
    };
    listen(&agent, &shared);
    if let Err(error) = agent.gather_candidates() {
        tracing::debug!(%error, "webrtc-ice gathers nothing");
    }
    // Dropped at the end, which ends the checks.
    let (_cancel, cancelled) = mpsc::channel(1);
    let mut cancelled = Some(cancelled);
    let mut looks = tokio::time::interval(LOOK);
    let mut succeeded = BTreeSet::new();
    for command in early {
        obey(&agent, setup.controlling, command, &mut cancelled);
    }
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => obey(&agent, setup.controlling, command, &mut cancelled),
                None => break,
            },
            _ = looks.tick() => look(&agent, &shared, &mut succeeded).await,
        }
    }
    if tokio::time::timeout(CLOSE, agent.close()).await.is_err() {
        tracing::debug!("an agent of webrtc-ice does not close");
    }
}

fn config(setup: &Setup, base: IpAddr, mux: Arc<Mux>) -> AgentConfig {
    AgentConfig {
        udp_network: UDPNetwork::Muxed(mux),
        local_ufrag: setup.credentials.fragment.clone(),
        local_pwd: setup.credentials.password.to_string(),
        multicast_dns_mode: MulticastDnsMode::Disabled,
        disconnected_timeout: Some(Duration::from_secs(1)),
        failed_timeout: Some(Duration::from_secs(2)),
        keepalive_interval: Some(Duration::from_secs(1)),
        network_types: vec![if base.is_ipv4() { NetworkType::Udp4 } else { NetworkType::Udp6 }],
        candidate_types: vec![CandidateType::Host],
        check_interval: CHECK,
        max_binding_requests: Some(CHECKS),
        is_controlling: setup.controlling,
        srflx_acceptance_min_wait: Some(CHECK),
        prflx_acceptance_min_wait: Some(CHECK),
        ip_filter: Arc::new(Some(Box::new(move |ip| ip == base))),
        include_loopback: base.is_loopback(),
        ..AgentConfig::default()
    }
}

/// Takes what the library calls back with.
fn listen(agent: &Agent, shared: &Arc<Shared>) {
    // Own candidates are gathered and told elsewhere.
    agent.on_candidate(Box::new(|_| Box::pin(async {})));
    let nominated = Arc::clone(shared);
    agent.on_selected_candidate_pair_change(Box::new(move |_, remote| {
        nominated.event(Event::Nominated(remote.addr()));
        Box::pin(async {})
    }));
    let failed = Arc::clone(shared);
    agent.on_connection_state_change(Box::new(move |state| {
        if state == ConnectionState::Failed {
            failed.event(Event::Failed);
        }
        Box::pin(async {})
    }));
}

fn obey(agent: &Arc<Agent>, controlling: bool, command: Command, cancelled: &mut Option<mpsc::Receiver<()>>) {
    match command {
        // The first one is in the configuration; see the module's head.
        Command::Base(_) => {}
        Command::Remote(candidate) => {
            let added = named(candidate).and_then(|named| agent.add_remote_candidate(&named));
            if let Err(error) = added {
                tracing::debug!(%error, "webrtc-ice takes no candidate");
            }
        }
        Command::Credentials(theirs) => {
            let Some(cancelled) = cancelled.take() else { return };
            let (agent, fragment, password) =
                (Arc::clone(agent), theirs.fragment, theirs.password.to_string());
            tokio::spawn(async move {
                let error = if controlling {
                    agent.dial(cancelled, fragment, password).await.map(drop)
                } else {
                    agent.accept(cancelled, fragment, password).await.map(drop)
                };
                if let Err(error) = error {
                    tracing::debug!(%error, "webrtc-ice did not connect");
                }
            });
        }
    }
}

fn named(candidate: Candidate) -> Result<Arc<dyn Named + Send + Sync>, webrtc_ice::Error> {
    let base_config = CandidateBaseConfig {
        network: "udp".to_owned(),
        address: candidate.address.ip().to_string(),
        port: candidate.address.port(),
        component: 1,
        ..CandidateBaseConfig::default()
    };
    Ok(match candidate.kind {
        CandidateKind::Host | CandidateKind::Configured => Arc::new(
            CandidateHostConfig { base_config, ..CandidateHostConfig::default() }.new_candidate_host()?,
        ),
        CandidateKind::Mapped | CandidateKind::Reflexive => {
            let config = CandidateServerReflexiveConfig { base_config, ..Default::default() };
            Arc::new(config.new_candidate_server_reflexive()?)
        }
    })
}

/// Brings the table up to date.
async fn look(agent: &Agent, shared: &Shared, succeeded: &mut BTreeSet<SocketAddr>) {
    let remotes = agent.get_remote_candidates_stats().await;
    let address = |ip: &str, port| Some(SocketAddr::new(ip.parse().ok()?, port));
    let addresses: BTreeMap<_, _> =
        remotes.iter().filter_map(|remote| Some((&remote.id, address(&remote.ip, remote.port)?))).collect();
    let mut pairs = Vec::new();
    for pair in agent.get_candidate_pairs_stats().await.iter().take(REMOTES) {
        let Some(remote) = addresses.get(&pair.remote_candidate_id).copied() else { continue };
        let state = match pair.state {
            CandidatePairState::Succeeded if pair.nominated => PairState::Nominated,
            CandidatePairState::Succeeded => PairState::Succeeded,
            CandidatePairState::Failed => PairState::Failed,
            CandidatePairState::Waiting
            | CandidatePairState::InProgress
            | CandidatePairState::Unspecified => PairState::Checking,
        };
        if matches!(state, PairState::Succeeded | PairState::Nominated) && succeeded.insert(remote) {
            shared.event(Event::Checked(remote));
        }
        pairs.push(Pair { remote, state });
    }
    shared.lock().pairs = pairs;
}

/// Between two rounds of checks of all pairs, and how many of them: three seconds, as the other agent takes.
const CHECK: Duration = Duration::from_millis(100);
const CHECKS: u16 = 30;
/// How old the table of pairs may be.
const LOOK: Duration = Duration::from_millis(200);
/// The library closes within this or is left to itself.
const CLOSE: Duration = Duration::from_secs(1);
