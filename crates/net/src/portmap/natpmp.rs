//! Messages of NAT-PMP (RFC 6886), as bytes.

use std::net::Ipv4Addr;

use super::Transport;

/// Asks for the external address and the epoch (section 3.2).
pub(super) const EXTERNAL_REQUEST: [u8; 2] = [VERSION, EXTERNAL];

/// A request to make, to renew or, with a lifetime and an external port of 0, to delete the mapping of a port
/// (sections 3.3 and 3.4). The lifetime is in seconds.
pub(super) fn map_request(
    transport: Transport,
    internal_port: u16,
    external_port: u16,
    lifetime: u32,
) -> [u8; 12] {
    let ([i0, i1], [x0, x1]) = (internal_port.to_be_bytes(), external_port.to_be_bytes());
    let [l0, l1, l2, l3] = lifetime.to_be_bytes();
    [VERSION, opcode(transport), 0, 0, i0, i1, x0, x1, l0, l1, l2, l3]
}

/// A message of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// The external address, asked for or announced (section 3.2.1).
    External { epoch: u32, address: Ipv4Addr },
    /// A mapping was made; deleted, if the lifetime is 0.
    Mapped { epoch: u32, transport: Transport, internal_port: u16, external_port: u16, lifetime: u32 },
    /// The external address is not told.
    ExternalRefused { result: u16 },
    /// No mapping was made. Which port was asked for is told only by some gateways.
    MapRefused { transport: Transport, result: u16 },
    /// The gateway does not know the version of the request: so it answers PCP (RFC 6887, appendix A).
    OtherVersion,
}

/// Reads a gateway's message; `None` for anything else.
pub(super) fn parse(bytes: &[u8]) -> Option<Response> {
    let (head, body) = bytes.split_first_chunk::<8>()?;
    let [VERSION, opcode, r0, r1, epoch @ ..] = *head else { return None };
    let epoch = u32::from_be_bytes(epoch);
    let result = u16::from_be_bytes([r0, r1]);
    if opcode & RESPONSE == 0 {
        return None;
    }
    if result == UNSUPPORTED_VERSION {
        return Some(Response::OtherVersion);
    }
    if opcode == RESPONSE | EXTERNAL {
        if result != 0 {
            return Some(Response::ExternalRefused { result });
        }
        let address = Ipv4Addr::from(*body.first_chunk::<4>()?);
        return Some(Response::External { epoch, address });
    }
    let transport = [Transport::Udp, Transport::Tcp]
        .into_iter()
        .find(|known| opcode == RESPONSE | self::opcode(*known))?;
    if result != 0 {
        return Some(Response::MapRefused { transport, result });
    }
    let [i0, i1, x0, x1, lifetime @ ..] = *body.first_chunk::<8>()?;
    Some(Response::Mapped {
        epoch,
        transport,
        internal_port: u16::from_be_bytes([i0, i1]),
        external_port: u16::from_be_bytes([x0, x1]),
        lifetime: u32::from_be_bytes(lifetime),
    })
}

/// The opcode of requests for a mapping (section 3.3).
const fn opcode(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

/// The first byte of every message.
pub(super) const VERSION: u8 = 0;
const RESPONSE: u8 = 0x80;
const EXTERNAL: u8 = 0;
const UNSUPPORTED_VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_bytes() {
        assert_eq!(EXTERNAL_REQUEST, [0, 0]);
        for (transport, opcode) in [(Transport::Udp, 1), (Transport::Tcp, 2)] {
            let bytes = [0, opcode, 0, 0, 0x11, 0x94, 0x11, 0x95, 0, 0, 0x1c, 0x20];
            assert_eq!(map_request(transport, 4500, 4501, 7200), bytes);
        }
    }

    #[test]
    fn responses_are_read() {
        let external = [0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 0, 7];
        assert_eq!(parse(&external), Some(Response::External { epoch: 9, address: [11, 0, 0, 7].into() }));
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0x11, 0x94, 0x20, 0, 0, 0, 0x0e, 0x10];
        let expected = |transport| Response::Mapped {
            epoch: 9,
            transport,
            internal_port: 4500,
            external_port: 8192,
            lifetime: 3600,
        };
        assert_eq!(parse(&mapped), Some(expected(Transport::Udp)));
        let mut tcp = mapped;
        tcp[1] = 130;
        assert_eq!(parse(&tcp), Some(expected(Transport::Tcp)));
        assert_eq!(parse(&[0, 128, 0, 3, 0, 0, 0, 9]), Some(Response::ExternalRefused { result: 3 }));
        assert_eq!(
            parse(&[0, 129, 0, 2, 0, 0, 0, 9]),
            Some(Response::MapRefused { transport: Transport::Udp, result: 2 })
        );
        assert_eq!(parse(&[0, 129, 0, 1, 0, 0, 0, 9]), Some(Response::OtherVersion));
    }

    #[test]
    fn cut_and_foreign_messages_are_refused() {
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0x11, 0x94, 0x20, 0, 0, 0, 0x0e, 0x10];
        for len in 0..mapped.len() {
            assert_eq!(parse(&mapped[..len]), None, "{len}");
        }
        for (at, value) in [(0, 2), (1, 1), (1, 131)] {
            let mut bytes = mapped;
            bytes[at] = value;
            assert_eq!(parse(&bytes), None, "{at} {value}");
        }
    }
}
