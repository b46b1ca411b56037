//! Two nodes and their handshake, for measurements.

use std::sync::Arc;

use mesh_identity::Identity;
use mesh_session::handshake::{AwaitChallenge, AwaitResponse, Local, LocalClaims, Network, Purpose};
use mesh_session::{AeadKind, ProviderKind, Session};
use mesh_wire::NetId;
use mesh_wire::handshake::Params;
use zeroize::Zeroizing;

pub(crate) fn local(provider: ProviderKind, aead: AeadKind) -> Local {
    let identity = Identity::generate().unwrap().with_signer(provider.provider().signer());
    Local { identity: Arc::new(identity), provider: provider.provider(), aead: aead.provider() }
}

pub(crate) fn network() -> Network {
    Network::new(NetId([1; 32]), Zeroizing::new([2; 32]), Purpose::Member)
}

pub(crate) fn handshake(a: &Local, b: &Local, network: &Network) -> (Session, Session) {
    let params = Params {
        capabilities: 0,
        lanes: 4,
        mtu: 1420,
        roster_version: 1,
        tls_pin: [0; 32],
        mixed_index: 3,
        connection: [0; 8],
    };
    let claims = LocalClaims { proof: vec![0; 500], params };
    let id = b.identity.node_id();
    let (waiting, hello) = AwaitChallenge::start(a, network, id, 1, [3; 32]).unwrap();
    let (state, challenge) = AwaitResponse::start(b, network, id, &hello, 2, [4; 32]).unwrap();
    let (waiting, response) = waiting.take(a, network, &challenge, &claims).unwrap();
    let peer = state.take(b, id, &response).unwrap();
    let (_, theirs, established) = state.proven(peer, &response).establish(b, &claims).unwrap();
    (waiting.take(a, &established).unwrap().session, theirs)
}
