//! What a datagram meets before an agent does.
//!
//! A request passes if its user name and MESSAGE-INTEGRITY are those of this agent, and its address is known or one of
//! the few new ones that an agent may learn: a recorded request can be repeated from any address, and must not make a
//! list grow. An answer passes once, from the address that the request went to (RFC 8445, section 7.2.5.2.1).

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use mesh_wire::control::IceCredentials;
use mesh_wire::stun::{Check, CheckClass, HEADER, TransactionId};

/// What was sent, and what was refused, over all agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IceCounts {
    /// Checks and answers that were sent.
    pub sent: u64,
    /// Checks and answers that an agent took.
    pub taken: u64,
    /// Pairs that an agent nominated.
    pub nominated: u64,
    /// STUN that no agent of ICE says.
    pub malformed: u64,
    /// Requests for an agent that is not there, or not any more.
    pub strangers: u64,
    /// Requests and answers whose MESSAGE-INTEGRITY is not of the peer.
    pub unauthenticated: u64,
    /// Answers to no request, to one that was answered, or from another address.
    pub unasked: u64,
    /// Requests from more addresses than an agent learns, or answers that saw it at more.
    pub crowded: u64,
    /// Offers of a peer that begins anew faster than is of use.
    pub hasty: u64,
    /// Searches beyond those that may go on at a time.
    pub agents_full: u64,
}

/// Why a datagram does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Stranger,
    Unauthenticated,
    Unasked,
    Crowded,
}

/// Guards one agent.
#[derive(Debug)]
pub struct Gate {
    local: IceCredentials,
    remote: Option<IceCredentials>,
    /// Requests that may be answered, the oldest first.
    asked: VecDeque<(TransactionId, SocketAddr)>,
    /// Where the peer said it is.
    named: BTreeSet<SocketAddr>,
    /// Where else it was seen.
    seen: BTreeSet<SocketAddr>,
    /// Where the peer saw this node.
    mapped: BTreeSet<SocketAddr>,
}

impl Gate {
    pub(crate) fn new(local: IceCredentials) -> Self {
        Self {
            local,
            remote: None,
            asked: VecDeque::new(),
            named: BTreeSet::new(),
            seen: BTreeSet::new(),
            mapped: BTreeSet::new(),
        }
    }

    pub(crate) fn local(&self) -> &IceCredentials {
        &self.local
    }

    pub(crate) fn remote(&self) -> Option<&IceCredentials> {
        self.remote.as_ref()
    }

    pub(crate) fn set_remote(&mut self, remote: IceCredentials) {
        self.remote = Some(remote);
    }

    /// The peer names an address; false where it named more than are tried.
    pub(crate) fn name(&mut self, address: SocketAddr) -> bool {
        self.named.contains(&address) || (self.named.len() < NAMED && self.named.insert(address))
    }

    /// The agent sends something.
    pub(crate) fn sends(&mut self, to: SocketAddr, datagram: &[u8]) {
        let transaction = datagram.get(8..HEADER).and_then(|id| id.try_into().ok());
        if let (Some(transaction), Some([0, 1])) = (transaction, datagram.get(..2)) {
            if self.asked.len() == ASKED {
                self.asked.pop_front();
            }
            self.asked.push_back((transaction, to));
        }
    }

    /// Tells whether the agent waits for this answer.
    pub(crate) fn awaits(&self, transaction: TransactionId) -> bool {
        self.asked.iter().any(|(asked, _)| *asked == transaction)
    }

    pub(crate) fn admit(&mut self, from: SocketAddr, check: &Check<'_>) -> Result<(), Refusal> {
        let CheckClass::Request { receiver, sender } = check.class else { return self.answer(from, check) };
        let remote = self.remote.as_ref();
        if receiver != self.local.fragment || remote.is_none_or(|remote| remote.fragment != sender) {
            return Err(Refusal::Stranger);
        }
        if !is_signed(check, &self.local.password) {
            return Err(Refusal::Unauthenticated);
        }
        if !self.named.contains(&from) && !learn(&mut self.seen, from) {
            return Err(Refusal::Crowded);
        }
        Ok(())
    }

    fn answer(&mut self, from: SocketAddr, check: &Check<'_>) -> Result<(), Refusal> {
        let asked = self.asked.iter().position(|asked| *asked == (check.transaction, from));
        let (Some(at), Some(remote)) = (asked, &self.remote) else { return Err(Refusal::Unasked) };
        if !is_signed(check, &remote.password) {
            return Err(Refusal::Unauthenticated);
        }
        self.asked.remove(at);
        match check.class {
            CheckClass::Success(mapped) if !learn(&mut self.mapped, mapped) => Err(Refusal::Crowded),
            CheckClass::Request { .. } | CheckClass::Success(_) | CheckClass::Failure => Ok(()),
        }
    }
}

/// Tells whether the MESSAGE-INTEGRITY was made with this password.
fn is_signed(check: &Check<'_>, password: &str) -> bool {
    let (start, rest) = check.signed();
    verify_slices_are_equal(&sha1_hmac(password.as_bytes(), &[&start, rest]), check.integrity).is_ok()
}

/// HMAC-SHA-1, as STUN demands (RFC 8489, section 14.5). Its passwords live for seconds.
pub(crate) fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let mut context = hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().try_into().expect("SHA-1 has 20 bytes")
}

fn learn(known: &mut BTreeSet<SocketAddr>, address: SocketAddr) -> bool {
    known.contains(&address) || (known.len() < LEARNT && known.insert(address))
}

/// Addresses of a message, and as many that were found near by.
const NAMED: usize = crate::REMOTES - LEARNT;
/// Addresses that an agent may learn from checks: a NAT makes one for each of our sockets, two in a row no more.
const LEARNT: usize = 6;
/// Requests that may be answered: all pairs, twice, and some repetitions.
const ASKED: usize = 64;

#[cfg(test)]
mod tests {
    use mesh_wire::control::IceOffer;
    use zeroize::Zeroizing;

    use super::*;

    /// RFC 5769, section 2.1.
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
    const SAMPLE: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    fn credentials(fragment: &str, password: &str) -> IceCredentials {
        IceCredentials { fragment: fragment.into(), password: Zeroizing::new(password.into()) }
    }

    fn gate(password: &str) -> Gate {
        let mut gate = Gate::new(credentials("evtj", password));
        gate.set_remote(credentials("h6vY", "another password that matters not"));
        gate
    }

    fn from(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    #[test]
    fn request_of_the_rfc_passes_under_its_password_alone() {
        let check = Check::parse(SAMPLE).unwrap();
        assert_eq!(gate(PASSWORD).admit(from(1), &check), Ok(()));
        assert_eq!(gate("VOkJxbRl1RmTxUk/WvJxBT").admit(from(1), &check), Err(Refusal::Unauthenticated));
        let mut other = Gate::new(credentials("evtj", PASSWORD));
        assert_eq!(other.admit(from(1), &check), Err(Refusal::Stranger), "no peer is known");
        other.set_remote(credentials("h6vX", PASSWORD));
        assert_eq!(other.admit(from(1), &check), Err(Refusal::Stranger));
    }

    #[test]
    fn recorded_request_from_many_addresses_makes_no_list_grow() {
        let check = Check::parse(SAMPLE).unwrap();
        let mut gate = gate(PASSWORD);
        assert!(gate.name(from(60_000)));
        let passed = (1..1000).filter(|number| gate.admit(from(*number), &check).is_ok()).count();
        assert_eq!((passed, gate.seen.len()), (LEARNT, LEARNT));
        assert_eq!(gate.admit(from(999), &check), Err(Refusal::Crowded));
        assert_eq!(gate.admit(from(60_000), &check), Ok(()), "a named address has its place");
        let named = (1..1000).filter(|number| gate.name(from(*number))).count();
        assert_eq!(named + 1, NAMED);
    }

    #[test]
    fn answer_passes_once_and_from_where_the_request_went() {
        // RFC 5769, section 2.2: an answer to the request above under the same password.
        let answer = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
            \x80\x22\x00\x0btest vector\x20\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
            \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
            \x80\x28\x00\x04\xc0\x7d\x4c\x96";
        let check = Check::parse(answer).unwrap();
        assert_eq!(check.class, CheckClass::Success("192.0.2.1:32853".parse().unwrap()));
        let mut gate = Gate::new(credentials("evtj", "a password that matters not"));
        gate.set_remote(credentials("h6vY", PASSWORD));
        assert_eq!(gate.admit(from(1), &check), Err(Refusal::Unasked));
        gate.sends(from(1), SAMPLE);
        assert!(gate.awaits(check.transaction));
        assert_eq!(gate.admit(from(2), &check), Err(Refusal::Unasked), "from another address");
        assert_eq!(gate.admit(from(1), &check), Ok(()));
        assert_eq!(gate.admit(from(1), &check), Err(Refusal::Unasked), "a second time");
        gate.sends(from(1), SAMPLE);
        gate.set_remote(credentials("h6vY", "wrong wrong wrong wrong"));
        assert_eq!(gate.admit(from(1), &check), Err(Refusal::Unauthenticated));
        for number in 0..1000 {
            gate.sends(from(number), SAMPLE);
        }
        assert_eq!(gate.asked.len(), ASKED);
    }

    #[test]
    fn offer_does_not_print_its_password() {
        let offer = IceOffer { credentials: credentials("abcd", PASSWORD), answers: None };
        assert!(!format!("{offer:?} {:?}", gate(PASSWORD)).contains(PASSWORD));
    }
}
