//! Messages of the Port Control Protocol (RFC 6887), as bytes: MAP for UDP or TCP, and ANNOUNCE.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Transport;

/// Ties a mapping to the client that asked for it (section 11.1).
pub(super) type Nonce = [u8; 12];

/// A request to make, to renew or, with a lifetime of 0, to delete the mapping of a port (section 11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapRequest {
    /// The own address; the server compares it with the source of the datagram.
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) nonce: Nonce,
    pub(super) internal_port: u16,
    /// Wanted external port, 0 for any.
    pub(super) external_port: u16,
    /// Seconds.
    pub(super) lifetime: u32,
}

impl MapRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = header(MAP, self.lifetime, self.client);
        bytes.extend(self.nonce);
        bytes.extend([self.transport.number(), 0, 0, 0]);
        bytes.extend(self.internal_port.to_be_bytes());
        bytes.extend(self.external_port.to_be_bytes());
        // No external address is preferred: all zeros of the family that is wanted (section 11.1).
        let any = if self.client.is_ipv4() { [0; 4].into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        bytes.extend(wide(any));
        bytes
    }
}

/// An ANNOUNCE request, which only asks for the server's epoch (section 14.1).
pub(super) fn announce(client: IpAddr) -> Vec<u8> {
    header(ANNOUNCE, 0, client)
}

/// A message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Response {
    Map(MapResponse),
    /// The answer to [`announce`], or an unsolicited one.
    Announce {
        /// Seconds since the server lost its state.
        epoch: u32,
    },
}

/// The fate of a [`MapRequest`] (section 11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapResponse {
    /// 0 for success (section 7.4).
    pub(super) result: u8,
    /// Seconds.
    pub(super) lifetime: u32,
    /// Seconds since the server lost its state.
    pub(super) epoch: u32,
    pub(super) nonce: Nonce,
    pub(super) transport: Transport,
    pub(super) internal_port: u16,
    pub(super) external: SocketAddr,
}

/// Reads a server's message; `None` for anything that is not one for UDP or TCP, in version 2 and of a permitted length.
pub(super) fn parse(bytes: &[u8]) -> Option<Response> {
    if bytes.len() > MAX_LEN || !bytes.len().is_multiple_of(4) {
        return None;
    }
    let (head, body) = bytes.split_first_chunk::<24>()?;
    let [VERSION, opcode, _, result, l0, l1, l2, l3, e0, e1, e2, e3, ..] = *head else { return None };
    let epoch = u32::from_be_bytes([e0, e1, e2, e3]);
    if opcode == RESPONSE | ANNOUNCE {
        return (result == 0).then_some(Response::Announce { epoch });
    }
    if opcode != RESPONSE | MAP {
        return None;
    }
    let (body, _options) = body.split_first_chunk::<36>()?;
    let (nonce, rest) = body.split_first_chunk::<12>()?;
    let [protocol, _, _, _, i0, i1, x0, x1, address @ ..] = rest else { return None };
    let transport = [Transport::Udp, Transport::Tcp].into_iter().find(|known| known.number() == *protocol)?;
    let address: [u8; 16] = address.try_into().ok()?;
    let external = SocketAddr::new(Ipv6Addr::from(address).to_canonical(), u16::from_be_bytes([*x0, *x1]));
    Some(Response::Map(MapResponse {
        result,
        lifetime: u32::from_be_bytes([l0, l1, l2, l3]),
        epoch,
        nonce: *nonce,
        transport,
        internal_port: u16::from_be_bytes([*i0, *i1]),
        external,
    }))
}

fn header(opcode: u8, lifetime: u32, client: IpAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, opcode, 0, 0];
    bytes.extend(lifetime.to_be_bytes());
    bytes.extend(wide(client));
    bytes
}

/// IPv4 addresses stand in their IPv4-mapped form (section 5).
const fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Where servers listen, for NAT-PMP too (section 19.4).
pub(super) const PORT: u16 = 5351;
/// The first byte of every message.
pub(super) const VERSION: u8 = 2;
/// Longest message (section 7).
pub(super) const MAX_LEN: usize = 1100;
const RESPONSE: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn request(client: &str) -> MapRequest {
        let client = client.parse().unwrap();
        let transport = Transport::Udp;
        MapRequest {
            client,
            transport,
            nonce: NONCE,
            internal_port: 4500,
            external_port: 4501,
            lifetime: 7200,
        }
    }

    /// What a server says to `request("192.168.1.2")`.
    fn granted() -> Vec<u8> {
        [
            &[2, 0x81, 0, 0, 0, 0, 0x0e, 0x10, 0, 0, 1, 0][..],
            &[0; 12],
            &NONCE,
            &[17, 0, 0, 0, 0x11, 0x94, 0x20, 0x00],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 11, 0, 0, 7],
        ]
        .concat()
    }

    #[test]
    fn map_request_for_ipv4_has_its_bytes() {
        let expected = [
            &[2, 1, 0, 0, 0, 0, 0x1c, 0x20][..],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 2],
            &NONCE,
            &[17, 0, 0, 0, 0x11, 0x94, 0x11, 0x95],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(request("192.168.1.2").encode(), expected);
    }

    #[test]
    fn map_request_for_tcp_names_it() {
        let udp = request("192.168.1.2").encode();
        let mut tcp = MapRequest { transport: Transport::Tcp, ..request("192.168.1.2") }.encode();
        assert_eq!(std::mem::replace(&mut tcp[36], 17), 6);
        assert_eq!(tcp, udp);
    }

    #[test]
    fn map_request_for_ipv6_has_its_bytes() {
        let bytes = request("2001:db8::5").encode();
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[8..24], "2001:db8::5".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(bytes[44..], [0; 16]);
    }

    #[test]
    fn announce_request_has_its_bytes() {
        let expected = [&[2, 0, 0, 0, 0, 0, 0, 0][..], &[0; 10], &[0xff, 0xff, 10, 0, 0, 9]].concat();
        assert_eq!(announce("10.0.0.9".parse().unwrap()), expected);
    }

    #[test]
    fn map_response_is_read() {
        let expected = MapResponse {
            result: 0,
            lifetime: 3600,
            epoch: 256,
            nonce: NONCE,
            transport: Transport::Udp,
            internal_port: 4500,
            external: "11.0.0.7:8192".parse().unwrap(),
        };
        assert_eq!(parse(&granted()), Some(Response::Map(expected)));
        let mut tcp = granted();
        tcp[36] = 6;
        let of_tcp = parse(&tcp);
        assert!(matches!(of_tcp, Some(Response::Map(map)) if map.transport == Transport::Tcp));
        let with_option = [granted(), vec![1, 0, 0, 0]].concat();
        assert_eq!(parse(&with_option), parse(&granted()));
    }

    #[test]
    fn announce_response_is_read() {
        let bytes = [&[2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 12]].concat();
        assert_eq!(parse(&bytes), Some(Response::Announce { epoch: 9 }));
    }

    #[test]
    fn every_cut_and_every_foreign_message_is_refused() {
        let whole = granted();
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), None, "{len}");
        }
        for (at, value) in [(0, 1), (0, 3), (1, 1), (1, 0x82), (36, 1)] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(parse(&bytes), None, "{at} {value}");
        }
        let mut long = whole;
        long.resize(MAX_LEN + 4, 0);
        assert_eq!(parse(&long), None);
    }
}
