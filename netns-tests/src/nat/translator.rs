//! A network address translator of any kind (RFC 4787), packet by packet; no clock, socket or chance of its own.
//!
//! In: an IPv4 packet that comes from the inside, or one for the external address. Out: the same packet, translated, or
//! why it goes nowhere. A mapping lives from the last packet that left through it; what comes in prolongs nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::packet::{Flow, Packet, Protocol, Side};

/// How a router translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// What shares a mapping.
    pub mapping: Dependence,
    /// Whose packets come in through a mapping.
    pub filtering: Dependence,
    /// Which port a new mapping gets.
    pub ports: Ports,
    /// Whether packets from the inside to a mapped address come back in, from the sender's mapped address.
    pub hairpin: bool,
    /// How long a mapping and a permission outlive the last packet that left through them; TCP has [`TCP_LIFETIME`].
    pub lifetime: Duration,
}

/// What a mapping or a filter looks at in the far end (RFC 4787, sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// Nothing: one mapping for all, everybody comes in.
    Endpoint,
    /// The address.
    Address,
    /// The address and the port.
    AddressAndPort,
}

impl Dependence {
    fn scope(self, far: SocketAddrV4) -> Scope {
        match self {
            Self::Endpoint => (None, None),
            Self::Address => (Some(*far.ip()), None),
            Self::AddressAndPort => (Some(*far.ip()), Some(far.port())),
        }
    }
}

/// Which port a new mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// That of the inside, or the next free one.
    Preserved,
    /// Any free one.
    Random,
    /// The one after that of the last mapping.
    Sequential,
}

/// Why a packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is no IPv4 packet, or too short.
    Malformed,
    /// It is a part of a packet.
    Fragment,
    /// It is neither TCP nor UDP nor an ICMP echo or error.
    Protocol,
    /// It belongs neither to the inside nor to the external address.
    Foreign,
    /// It came in for a port without a mapping.
    Unmapped,
    /// It came in through a mapping from somebody who may not.
    Filtered,
    /// It went from the inside to a mapped address, and the router does not do that.
    Hairpin,
    /// Every port is taken.
    NoPort,
}

/// The mappings of one router.
#[derive(Debug)]
pub(super) struct Translator {
    inside: [u8; 3],
    external: Ipv4Addr,
    translation: Translation,
    mappings: HashMap<Key, Mapping>,
    ports: HashMap<(Protocol, u16), Key>,
    last_port: u16,
    seed: u64,
}

/// What a dependence looks at in the far end.
type Scope = (Option<Ipv4Addr>, Option<u16>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    protocol: Protocol,
    inside: SocketAddrV4,
    scope: Scope,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    used: Instant,
    /// Who may come in, and when a packet last went there.
    permitted: BTreeMap<Scope, Instant>,
}

impl Translator {
    /// `inside` is what all addresses of the inside begin with. The seed decides about random ports and where
    /// sequential ones begin.
    pub(super) fn new(inside: [u8; 3], external: Ipv4Addr, translation: Translation, seed: u64) -> Self {
        let mut translator = Self {
            inside,
            external,
            translation,
            mappings: HashMap::new(),
            ports: HashMap::new(),
            last_port: 0,
            seed,
        };
        translator.last_port = translator.random_port();
        translator
    }

    /// Forgets every mapping, as a router does that is switched off and on.
    pub(super) fn forget(&mut self) {
        self.mappings.clear();
        self.ports.clear();
        self.last_port = self.random_port();
    }

    /// Tells whether datagrams from this address would come in through any mapping.
    pub(super) fn lets_in(&self, far: Ipv4Addr, now: Instant) -> bool {
        let lifetime = self.translation.lifetime;
        let live = |at: Instant| now.duration_since(at) < lifetime;
        self.mappings.iter().any(|(key, mapping)| {
            key.protocol == Protocol::Udp
                && live(mapping.used)
                && mapping.permitted.iter().any(|((ip, _), at)| ip.is_none_or(|ip| ip == far) && live(*at))
        })
    }

    /// Translates a packet in place.
    ///
    /// # Errors
    /// The packet goes nowhere.
    pub(super) fn translate(&mut self, bytes: &mut [u8], now: Instant) -> Result<(), Refusal> {
        let mut packet = Packet::new(bytes)?;
        let (from, to) = (packet.address(Side::Source), packet.address(Side::Destination));
        let leaves = from.octets().starts_with(&self.inside);
        if leaves && packet.quoted().is_some() {
            self.error_out(&mut packet, now)?;
        } else if leaves {
            if to == self.external && !self.translation.hairpin {
                return Err(Refusal::Hairpin);
            }
            self.outbound(&mut packet, now)?;
            if to == self.external {
                self.inbound(&mut packet, now)?;
            }
        } else if to != self.external {
            return Err(Refusal::Foreign);
        } else if packet.quoted().is_some() {
            self.error_in(&mut packet, now)?;
        } else {
            self.inbound(&mut packet, now)?;
        }
        packet.raise_ttl();
        Ok(())
    }

    fn outbound(&mut self, packet: &mut Packet<'_>, now: Instant) -> Result<(), Refusal> {
        let flow = packet.flow(Side::Source)?;
        let key = self.key(flow);
        self.expire(key, now);
        if !self.mappings.contains_key(&key) {
            let port = self.free_port(flow, now)?;
            self.ports.insert((flow.protocol, port), key);
            self.mappings.insert(key, Mapping { port, used: now, permitted: BTreeMap::new() });
        }
        let mapping = self.mappings.get_mut(&key).expect("it was there or has been made");
        mapping.used = now;
        mapping.permitted.insert(self.translation.filtering.scope(flow.far), now);
        packet.set(flow.protocol, Side::Source, SocketAddrV4::new(self.external, mapping.port));
        Ok(())
    }

    fn inbound(&mut self, packet: &mut Packet<'_>, now: Instant) -> Result<(), Refusal> {
        let flow = packet.flow(Side::Destination)?;
        let key = self.holder(flow.protocol, flow.near.port(), now)?;
        let lifetime = self.lifetime(flow.protocol);
        let permitted = &self.mappings[&key].permitted;
        let sent = permitted.get(&self.translation.filtering.scope(flow.far)).ok_or(Refusal::Filtered)?;
        if now.duration_since(*sent) >= lifetime {
            return Err(Refusal::Filtered);
        }
        packet.set(flow.protocol, Side::Destination, key.inside);
        Ok(())
    }

    /// Somebody outside complains about a packet that left through a mapping.
    fn error_in(&mut self, packet: &mut Packet<'_>, now: Instant) -> Result<(), Refusal> {
        let mut quoted = packet.quoted().ok_or(Refusal::Protocol)??;
        let flow = quoted.flow(Side::Source)?;
        let key = self.holder(flow.protocol, flow.near.port(), now)?;
        quoted.set(flow.protocol, Side::Source, key.inside);
        packet.set_address(Side::Destination, *key.inside.ip());
        packet.sum_icmp();
        Ok(())
    }

    /// Somebody inside complains about a packet that came in through a mapping.
    fn error_out(&mut self, packet: &mut Packet<'_>, now: Instant) -> Result<(), Refusal> {
        let external = self.external;
        let mut quoted = packet.quoted().ok_or(Refusal::Protocol)??;
        let flow = quoted.flow(Side::Destination)?;
        let key = self.key(flow);
        self.expire(key, now);
        let port = self.mappings.get(&key).ok_or(Refusal::Unmapped)?.port;
        quoted.set(flow.protocol, Side::Destination, SocketAddrV4::new(external, port));
        packet.set_address(Side::Source, external);
        packet.sum_icmp();
        Ok(())
    }

    fn key(&self, flow: Flow) -> Key {
        Key { protocol: flow.protocol, inside: flow.near, scope: self.translation.mapping.scope(flow.far) }
    }

    fn holder(&mut self, protocol: Protocol, port: u16, now: Instant) -> Result<Key, Refusal> {
        let key = *self.ports.get(&(protocol, port)).ok_or(Refusal::Unmapped)?;
        self.expire(key, now);
        self.mappings.contains_key(&key).then_some(key).ok_or(Refusal::Unmapped)
    }

    fn expire(&mut self, key: Key, now: Instant) {
        let lifetime = self.lifetime(key.protocol);
        if let Some(mapping) = self.mappings.get(&key)
            && now.duration_since(mapping.used) >= lifetime
        {
            self.ports.remove(&(key.protocol, mapping.port));
            self.mappings.remove(&key);
        }
    }

    fn lifetime(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Tcp => TCP_LIFETIME,
            Protocol::Udp | Protocol::Echo => self.translation.lifetime,
        }
    }

    fn free_port(&mut self, flow: Flow, now: Instant) -> Result<u16, Refusal> {
        let mut port = match self.translation.ports {
            Ports::Preserved => flow.near.port().max(FIRST_PORT),
            Ports::Random => self.random_port(),
            Ports::Sequential => after(self.last_port),
        };
        for _ in FIRST_PORT..=u16::MAX {
            if self.holder(flow.protocol, port, now).is_err() {
                if self.translation.ports == Ports::Sequential {
                    self.last_port = port;
                }
                return Ok(port);
            }
            port = match self.translation.ports {
                Ports::Preserved | Ports::Sequential => after(port),
                Ports::Random => self.random_port(),
            };
        }
        Err(Refusal::NoPort)
    }

    /// SplitMix64, cut to the ports that a router takes.
    fn random_port(&mut self) -> u16 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let count = u64::from(u16::MAX - FIRST_PORT) + 1;
        FIRST_PORT + u16::try_from(z % count).expect("there are fewer than 65536 ports")
    }
}

/// The next port that a router takes.
const fn after(port: u16) -> u16 {
    if port == u16::MAX { FIRST_PORT } else { port + 1 }
}

/// Longer than any test: what tears connections of the relay is not what the laboratory is about.
pub const TCP_LIFETIME: Duration = Duration::from_secs(7200);

/// Routers leave the well-known ports alone.
const FIRST_PORT: u16 = 1024;

#[cfg(test)]
mod tests;
