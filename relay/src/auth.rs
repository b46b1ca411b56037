//! Whether a client is who it says, and may speak for the network it names. Pure: the time is an argument.

use mesh_identity::{
    HeadCache, Label, MembershipProof, ProofError, PublicIdentity, Signature, UnixSeconds, sha512,
};
use mesh_wire::NodeId;
use mesh_wire::relay::{ClientAuth, ErrorCode, Role, ServerHello, auth_input};

use crate::config::Config;
use crate::hub::Party;

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This relay serves other networks only.
    NotServed,
    /// The keys are not those of the network's root.
    NotRoot,
    /// The proof of membership does not hold.
    NotAdmitted(ProofError),
    /// The signature does not verify.
    BadSignature,
    /// Keys, proof or signature are malformed.
    Malformed,
    /// The node whose door this is does not take this client.
    Unwelcome,
}

/// What a signature has to be for.
pub(crate) struct Challenge<'a> {
    pub(crate) hello: &'a ServerHello,
    pub(crate) exporter: &'a [u8; 32],
    /// Whose door this is; none of a relay. A signature for one never holds at the other.
    pub(crate) host: Option<NodeId>,
}

impl Challenge<'_> {
    fn verify(
        &self,
        auth: &ClientAuth<'_>,
        keys: &PublicIdentity,
        signature: &Signature,
    ) -> Result<(), Refused> {
        let input = auth_input(self.hello, self.exporter, auth.role, auth.net, &sha512(&[auth.admission]));
        let (label, hash) = match self.host {
            None => (Label::RelayAuth, sha512(&[&input])),
            Some(host) => (Label::DoorAuth, sha512(&[&input, &host.0])),
        };
        keys.verify(label, &hash, signature).map_err(|_| Refused::BadSignature)
    }
}

/// Checks CLIENT_AUTH against the challenge of this connection.
pub(crate) fn check(
    auth: &ClientAuth<'_>,
    challenge: &Challenge<'_>,
    config: &Config,
    heads: &HeadCache,
    now: UnixSeconds,
) -> Result<Party, Refused> {
    if !config.serves(&auth.net) {
        return Err(Refused::NotServed);
    }
    let keys = PublicIdentity::parse(auth.keys).map_err(|_| Refused::Malformed)?;
    let signature = Signature::parse(auth.signature).map_err(|_| Refused::Malformed)?;
    if auth.role == Role::Root && keys.net_id() != auth.net {
        return Err(Refused::NotRoot);
    }
    challenge.verify(auth, &keys, &signature)?;
    match auth.role {
        Role::Root => Ok((auth.net, auth.net.as_party())),
        Role::Guest => Ok((auth.net, keys.node_id())),
        Role::Member => {
            let proof = MembershipProof::parse(auth.admission).map_err(|_| Refused::Malformed)?;
            let node = keys.node_id();
            proof.verify(&node, auth.net, now, heads).map_err(Refused::NotAdmitted)?;
            Ok((auth.net, node))
        }
    }
}

impl Refused {
    /// Returns the code and text that the client is told.
    pub(crate) fn answer(self) -> (ErrorCode, String) {
        let (code, text) = match self {
            Self::NotServed => (ErrorCode::NetworkNotServed, "this relay does not serve this network"),
            Self::NotRoot => (ErrorCode::NotAdmitted, "the keys are not those of the network's root"),
            Self::NotAdmitted(error) => return (ErrorCode::NotAdmitted, error.to_string()),
            Self::BadSignature => (ErrorCode::BadSignature, "the signature does not verify"),
            Self::Unwelcome => (ErrorCode::NotAdmitted, "this node takes no connection of this client"),
            Self::Malformed => (ErrorCode::BadMessage, "keys, proof or signature are malformed"),
        };
        (code, text.to_owned())
    }
}
