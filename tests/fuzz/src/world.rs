//! Keys, rosters and half-done handshakes for the targets.
//!
//! Keys and rosters are the same in every process, so what one process signed is genuine in all. Handshakes are not,
//! because the libraries choose their ephemeral keys: targets never depend on their bytes.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use mesh_identity::{Identity, NewMember, Roster, RosterDraft, UnixSeconds, default_pool};
use mesh_session::handshake::{
    AwaitChallenge, AwaitEstablished, AwaitResponse, Local, LocalClaims, Network, Purpose,
};
use mesh_session::{AeadKind, ProviderKind, Session};
use mesh_wire::handshake::Params;
use mesh_wire::roster::{Link, RosterSettings};
use mesh_wire::{NodeId, Pin};
use meshd::state::Membership;
use zeroize::Zeroizing;

/// The present of all targets, in seconds since 1970.
pub(crate) const UNIX: u64 = 1_800_000_000;
/// The secret of the network.
pub(crate) const SECRET: [u8; 32] = [7; 32];
const YEAR: u64 = 365 * 86_400;

/// A network of three nodes.
pub(crate) struct World {
    pub(crate) root: Identity,
    pub(crate) members: Vec<Arc<Identity>>,
    /// The first edition, with two of the members.
    pub(crate) older: Arc<Roster>,
    /// The second edition, with all of them.
    pub(crate) roster: Arc<Roster>,
}

impl World {
    /// Returns the id of a member.
    pub(crate) fn id(&self, member: usize) -> NodeId {
        self.members[member].node_id()
    }

    /// Returns the keys of a member with the libraries in use.
    pub(crate) fn local(&self, member: usize) -> Local {
        Local {
            identity: Arc::clone(&self.members[member]),
            provider: ProviderKind::AwsLc.provider(),
            aead: AeadKind::AwsLc.provider(),
        }
    }

    /// Returns the network as handshakes between members see it.
    pub(crate) fn network(&self) -> Network {
        Network::new(self.root.net_id(), Zeroizing::new(SECRET), Purpose::Member)
    }

    /// Returns what a node of the network stores.
    pub(crate) fn membership(&self) -> Membership {
        Membership {
            net: self.root.net_id(),
            network_secret: Zeroizing::new(SECRET),
            secret_epoch: 1,
            relay: "wss://relay.example:8443".parse().expect("this is the address of a relay"),
            pin: Pin([5; 32]),
            up: true,
            roster: Arc::clone(&self.roster),
        }
    }
}

/// Returns the network.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| make_world().expect("fixed keys make a valid network"))
}

fn make_world() -> Result<World, Box<dyn std::error::Error>> {
    let identity = |seed: u8| Identity::from_seeds(&[seed; 32], &[seed ^ 0xff; 32]);
    let root = identity(1)?;
    let members = (2..5).map(|seed| identity(seed).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let settings = RosterSettings {
        name: "home".parse()?,
        ipv4_pool: default_pool(root.net_id(), 0),
        link: Link::Tun,
        mtu: 1420,
        relays: vec![("wss://relay.example:8443".parse()?, Pin([5; 32]))],
    };
    let mut draft = RosterDraft::new(root.public(), settings, members[0].node_id(), member("ada")?)?;
    draft.admit(members[1].node_id(), member("bob")?)?;
    let older = draft.sign(&root, UnixSeconds(UNIX - 1000), YEAR)?;
    let mut draft = RosterDraft::from_roster(&older);
    draft.admit(members[2].node_id(), member("eve")?)?;
    let roster = draft.sign(&root, UnixSeconds(UNIX), YEAR)?;
    Ok(World { root, members, older: Arc::new(older), roster: Arc::new(roster) })
}

fn member(name: &str) -> Result<NewMember, Box<dyn std::error::Error>> {
    Ok(NewMember {
        name: name.parse()?,
        groups: BTreeSet::from(["servers".parse()?]),
        prefixes: BTreeSet::from([
            format!("10.{}.0.0/16", name.len() + usize::from(name.as_bytes()[0])).parse()?
        ]),
        not_before: UnixSeconds(UNIX - 2000),
        not_after: UnixSeconds(UNIX + YEAR),
    })
}

/// Handshakes of the first member with the second, halted at every message.
pub(crate) struct Handshakes {
    /// Waits for `challenge`.
    pub(crate) initiator: AwaitChallenge,
    /// Waits for `response`.
    pub(crate) responder: AwaitResponse,
    pub(crate) hello: Vec<u8>,
    pub(crate) challenge: Vec<u8>,
    pub(crate) response: Vec<u8>,
    /// The initiator behind `response`.
    pub(crate) answered: AwaitEstablished,
    /// Waits for `established`, in another handshake than the states above.
    pub(crate) last: AwaitEstablished,
    pub(crate) established: Vec<u8>,
    /// The other handshake's messages, none of which fits the states above.
    pub(crate) others: [Vec<u8>; 3],
    pub(crate) claims: LocalClaims,
}

/// Returns the halted handshakes.
pub(crate) fn handshakes() -> &'static Handshakes {
    static HANDSHAKES: OnceLock<Handshakes> = OnceLock::new();
    HANDSHAKES.get_or_init(|| {
        let claims = claims(b"proof".to_vec());
        let (one, two) = (Halted::new(&claims), Halted::new(&claims));
        let others = [two.hello.clone(), two.challenge.clone(), two.response.clone()];
        let (last, _, established) = two.finish(&claims);
        let Halted { initiator, responder, last: answered, hello, challenge, response } = one;
        Handshakes {
            initiator,
            responder,
            hello,
            challenge,
            response,
            answered,
            last,
            established,
            others,
            claims,
        }
    })
}

/// Makes a session between the first two members: its two ends.
pub(crate) fn sessions() -> (Session, Session) {
    let claims = claims(Vec::new());
    let (last, responder, established) = Halted::new(&claims).finish(&claims);
    let initiator = last.take(&world().local(0), &established).expect("the handshake is genuine");
    (initiator.session, responder)
}

/// Returns what a member says of itself.
pub(crate) fn claims(proof: Vec<u8>) -> LocalClaims {
    let params = Params {
        capabilities: 0,
        lanes: 4,
        mtu: 1420,
        roster_version: 2,
        tls_pin: [6; 32],
        mixed_index: 77,
        connection: [0; 8],
    };
    LocalClaims { proof, params }
}

/// A handshake of which three messages were sent, with all states that it went through.
struct Halted {
    initiator: AwaitChallenge,
    responder: AwaitResponse,
    last: AwaitEstablished,
    hello: Vec<u8>,
    challenge: Vec<u8>,
    response: Vec<u8>,
}

impl Halted {
    fn new(claims: &LocalClaims) -> Self {
        let (world, network) = (world(), world().network());
        let (local, remote, id) = (world.local(0), world.local(1), world.id(1));
        let (initiator, hello) =
            AwaitChallenge::start(&local, &network, id, 1, [1; 32]).expect("keys can be made");
        let (responder, challenge) =
            AwaitResponse::start(&remote, &network, id, &hello, 2, [2; 32]).expect("the HELLO is genuine");
        let (last, response) =
            initiator.take(&local, &network, &challenge, claims).expect("the CHALLENGE is genuine");
        Self { initiator, responder, last, hello, challenge, response }
    }

    /// Lets the responder admit the initiator: its session, and the message that the initiator waits for.
    fn finish(self, claims: &LocalClaims) -> (AwaitEstablished, Session, Vec<u8>) {
        let (local, id) = (world().local(1), world().id(1));
        let peer = self.responder.take(&local, id, &self.response).expect("the RESPONSE is genuine");
        let initiator = self.responder.proven(peer, &self.response);
        let (_, session, established) = initiator.establish(&local, claims).expect("signing works");
        (self.last, session, established)
    }
}
