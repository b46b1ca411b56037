//! A conversation with a gateway over PCP and NAT-PMP: what is asked, and which answers count. Without a socket.
//!
//! Invariant: an answer counts only for a request of this conversation, once, and only if it carries that request's
//! nonce (PCP) or internal port (NAT-PMP).

use std::net::{IpAddr, Ipv4Addr};

use super::pcp::MapRequest;
use super::{Transport, natpmp, pcp};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    PcpMap(MapRequest),
    PcpAnnounce(IpAddr),
    PmpExternal,
    PmpMap {
        transport: Transport,
        internal_port: u16,
        /// Wanted external port, 0 for any.
        external_port: u16,
        /// Seconds.
        lifetime: u32,
    },
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A mapping of `internal_port`. NAT-PMP tells the address apart from the port.
    Granted { internal_port: u16, address: Option<IpAddr>, external_port: u16, lifetime: u32 },
    /// The external IPv4 address.
    External(Ipv4Addr),
    /// The server is there and told its epoch.
    Alive,
    /// It was understood and refused, with this result code.
    Refused(u16),
    /// The gateway does not speak this version.
    OtherVersion,
}

/// Requests and their answers.
#[derive(Debug)]
pub(super) struct Talk {
    asks: Vec<(Ask, Option<Answer>)>,
    epoch: Option<u32>,
}

impl Talk {
    pub(super) fn new(asks: impl IntoIterator<Item = Ask>) -> Self {
        Self { asks: asks.into_iter().map(|ask| (ask, None)).collect(), epoch: None }
    }

    /// The datagrams to send, or to send again.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = Vec<u8>> {
        self.asks.iter().filter(|(_, answer)| answer.is_none()).map(|(ask, _)| match ask {
            Ask::PcpMap(request) => request.encode(),
            Ask::PcpAnnounce(client) => pcp::announce(*client),
            Ask::PmpExternal => natpmp::EXTERNAL_REQUEST.to_vec(),
            Ask::PmpMap { transport, internal_port, external_port, lifetime } => {
                natpmp::map_request(*transport, *internal_port, *external_port, *lifetime).to_vec()
            }
        })
    }

    /// Takes a datagram from the gateway; one that answers nothing is ignored.
    pub(super) fn handle(&mut self, bytes: &[u8]) {
        match bytes.first() {
            Some(&pcp::VERSION) => self.handle_pcp(bytes),
            Some(&natpmp::VERSION) => self.handle_natpmp(bytes),
            Some(_) | None => {}
        }
    }

    /// Whether nothing more is to be learned: all is answered, or PCP, which is preferred, did all that was asked of it.
    pub(super) fn done(&self) -> bool {
        let mut pcp = self.asks.iter().filter(|(ask, _)| matches!(ask, Ask::PcpMap(_))).peekable();
        let by_pcp = pcp.peek().is_some() && pcp.all(|(_, a)| matches!(a, Some(Answer::Granted { .. })));
        by_pcp || self.asks.iter().all(|(_, answer)| answer.is_some())
    }

    /// What was asked, with the answers so far.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&Ask, Answer)> {
        self.asks.iter().filter_map(|(ask, answer)| Some((ask, (*answer)?)))
    }

    /// The latest epoch that an answer told, in seconds.
    pub(super) const fn epoch(&self) -> Option<u32> {
        self.epoch
    }

    fn handle_pcp(&mut self, bytes: &[u8]) {
        match pcp::parse(bytes) {
            Some(pcp::Response::Map(map)) => {
                let ours = |ask: &Ask| {
                    matches!(ask, Ask::PcpMap(request)
                        if request.nonce == map.nonce
                            && request.transport == map.transport
                            && request.internal_port == map.internal_port)
                };
                let answer = if map.result == 0 {
                    Answer::Granted {
                        internal_port: map.internal_port,
                        address: Some(map.external.ip()),
                        external_port: map.external.port(),
                        lifetime: map.lifetime,
                    }
                } else {
                    Answer::Refused(map.result.into())
                };
                self.answer(ours, answer, map.epoch);
            }
            Some(pcp::Response::Announce { epoch }) => {
                self.answer(|ask| matches!(ask, Ask::PcpAnnounce(_)), Answer::Alive, epoch);
            }
            None => {}
        }
    }

    fn handle_natpmp(&mut self, bytes: &[u8]) {
        match natpmp::parse(bytes) {
            Some(natpmp::Response::External { epoch, address }) => {
                self.answer(|ask| *ask == Ask::PmpExternal, Answer::External(address), epoch);
            }
            Some(natpmp::Response::Mapped {
                epoch,
                transport: of,
                internal_port: port,
                external_port,
                lifetime,
            }) => {
                let ours = |ask: &Ask| {
                    matches!(ask, Ask::PmpMap { transport, internal_port, .. }
                        if *transport == of && *internal_port == port)
                };
                let answer = Answer::Granted { internal_port: port, address: None, external_port, lifetime };
                self.answer(ours, answer, epoch);
            }
            Some(natpmp::Response::ExternalRefused { result }) => {
                self.refuse(|ask| *ask == Ask::PmpExternal, Answer::Refused(result));
            }
            Some(natpmp::Response::MapRefused { transport: of, result }) => {
                let ours = |ask: &Ask| matches!(ask, Ask::PmpMap { transport, .. } if *transport == of);
                self.refuse(ours, Answer::Refused(result));
            }
            Some(natpmp::Response::OtherVersion) => {
                let pcp = |ask: &Ask| matches!(ask, Ask::PcpMap(_) | Ask::PcpAnnounce(_));
                self.refuse(pcp, Answer::OtherVersion);
            }
            None => {}
        }
    }

    fn answer(&mut self, ours: impl Fn(&Ask) -> bool, answer: Answer, epoch: u32) {
        if let Some((_, slot)) = self.asks.iter_mut().find(|(ask, slot)| slot.is_none() && ours(ask)) {
            *slot = Some(answer);
            self.epoch = Some(epoch);
        }
    }

    fn refuse(&mut self, ours: impl Fn(&Ask) -> bool, answer: Answer) {
        for (_, slot) in self.asks.iter_mut().filter(|(ask, slot)| slot.is_none() && ours(ask)) {
            *slot = Some(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(nonce: u8, internal_port: u16) -> MapRequest {
        let client = "192.168.1.2".parse().unwrap();
        MapRequest {
            client,
            transport: Transport::Udp,
            nonce: [nonce; 12],
            internal_port,
            external_port: internal_port,
            lifetime: 60,
        }
    }

    /// A server's answer to the request, which it has to grant.
    fn grant(request: &MapRequest, result: u8) -> Vec<u8> {
        let mut bytes = request.encode();
        bytes[1] |= 0x80;
        bytes[3] = result;
        bytes[8..12].copy_from_slice(&[0, 0, 0, 5]);
        bytes[12..24].fill(0);
        bytes[56..60].copy_from_slice(&[11, 0, 0, 7]);
        bytes
    }

    fn probe() -> Talk {
        Talk::new([Ask::PcpMap(map(1, 4500)), Ask::PcpMap(map(2, 4501)), Ask::PmpExternal])
    }

    #[test]
    fn pcp_alone_is_enough() {
        let mut talk = probe();
        assert_eq!(talk.unanswered().count(), 3);
        talk.handle(&grant(&map(1, 4500), 0));
        assert!(!talk.done());
        talk.handle(&grant(&map(2, 4501), 0));
        assert!(talk.done());
        assert_eq!((talk.answers().count(), talk.epoch()), (2, Some(5)));
    }

    #[test]
    fn foreign_nonce_foreign_port_and_second_answer_do_not_count() {
        let mut talk = probe();
        talk.handle(&grant(&map(9, 4500), 0));
        talk.handle(&grant(&map(1, 4501), 0));
        talk.handle(&[0, 129, 0, 0, 0, 0, 0, 9, 0x11, 0x94, 0x20, 0, 0, 0, 0x0e, 0x10]);
        talk.handle(&[]);
        assert_eq!((talk.answers().count(), talk.epoch()), (0, None));
        talk.handle(&grant(&map(1, 4500), 8));
        talk.handle(&grant(&map(1, 4500), 0));
        assert_eq!(talk.answers().map(|(_, answer)| answer).collect::<Vec<_>>(), [Answer::Refused(8)]);
    }

    #[test]
    fn answer_for_the_other_transport_does_not_count() {
        let tcp = MapRequest { transport: Transport::Tcp, ..map(1, 4500) };
        let pmp =
            Ask::PmpMap { transport: Transport::Tcp, internal_port: 4500, external_port: 0, lifetime: 9 };
        let mut talk = Talk::new([Ask::PcpMap(tcp.clone()), pmp]);
        talk.handle(&grant(&map(1, 4500), 0));
        talk.handle(&[0, 129, 0, 0, 0, 0, 0, 9, 0x11, 0x94, 0x20, 0, 0, 0, 0x0e, 0x10]);
        talk.handle(&[0, 129, 0, 2, 0, 0, 0, 9]);
        assert_eq!(talk.answers().count(), 0);
        talk.handle(&grant(&tcp, 0));
        talk.handle(&[0, 130, 0, 0, 0, 0, 0, 9, 0x11, 0x94, 0x20, 0, 0, 0, 0x0e, 0x10]);
        assert_eq!(talk.answers().count(), 2);
    }

    #[test]
    fn gateway_of_the_older_protocol_ends_the_wait_for_the_newer() {
        let mut talk = probe();
        talk.handle(&[0, 128, 0, 1, 0, 0, 0, 9]);
        assert!(!talk.done());
        talk.handle(&[0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 0, 7]);
        assert!(talk.done());
        let (ask, answer) = talk.answers().last().unwrap();
        assert_eq!((ask, answer), (&Ask::PmpExternal, Answer::External([11, 0, 0, 7].into())));
    }
}
