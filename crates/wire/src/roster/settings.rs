//! What holds for the whole network.

use crate::codec::{Put, Reader};
use crate::limits::{NAME, RELAY_URL, RELAYS};
use crate::roster::{Ipv4Pool, Name};
use crate::{Pin, RelayUrl, WireError};

/// Least MTU of the inner network: that of IPv6 (RFC 8200, section 5).
pub const MTU_MIN: u16 = 1280;
/// Greatest MTU of the inner network: what fits one relay payload with its headers.
pub const MTU_MAX: u16 = 65_000;
/// Most bytes of encoded settings.
pub const SETTINGS_MAX: usize = 1 + NAME + 4 + 1 + 1 + 2 + 1 + RELAYS * (1 + RELAY_URL + 32);

/// The settings that the root signs for all nodes:
/// `name | pool 4 | pool length u8 | link u8 | mtu u16 | count u8 | relays`, each relay as `host[:port] | pin 32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterSettings {
    /// Name of the network.
    pub name: Name,
    /// IPv4 addresses for nodes.
    pub ipv4_pool: Ipv4Pool,
    /// What the network carries.
    pub link: Link,
    /// Greatest inner packet in bytes, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: u16,
    /// Relays in order of preference, each once, with the pins of their certificates.
    pub relays: Vec<(RelayUrl, Pin)>,
}

/// What a network carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Link {
    /// IP packets.
    #[default]
    Tun,
    /// Ethernet frames.
    Tap,
}

impl RosterSettings {
    /// Writes the settings.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes8(self.name.as_str().as_bytes());
        out.put(&self.ipv4_pool.network().octets());
        out.put_u8(self.ipv4_pool.prefix_len());
        out.put_u8(match self.link {
            Link::Tun => 0,
            Link::Tap => 1,
        });
        out.put_u16(self.mtu);
        out.put_u8(u8::try_from(self.relays.len()).expect("callers bound the relays to 16"));
        for (url, pin) in &self.relays {
            out.put_bytes8(url.authority().as_bytes());
            out.put(&pin.0);
        }
        out
    }

    /// Reads settings.
    ///
    /// # Errors
    /// [`WireError`] names the field that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let name = Name::read(&mut reader, "network name")?;
        let network = reader.array::<4>()?;
        let ipv4_pool =
            Ipv4Pool::new(network.into(), reader.u8()?).map_err(|_| WireError::Invalid("address pool"))?;
        let link = match reader.u8()? {
            0 => Link::Tun,
            1 => Link::Tap,
            _ => return Err(WireError::Invalid("link type")),
        };
        let mtu = reader.u16()?;
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            return Err(WireError::Invalid("MTU"));
        }
        let count = usize::from(reader.u8()?);
        if count > RELAYS {
            return Err(WireError::TooLong("list of relays"));
        }
        let mut relays: Vec<(RelayUrl, Pin)> = Vec::with_capacity(count);
        for _ in 0..count {
            let url = RelayUrl::from_authority(reader.text8(RELAY_URL, "relay address")?)
                .map_err(|_| WireError::Invalid("relay address"))?;
            if relays.iter().any(|(other, _)| *other == url) {
                return Err(WireError::Invalid("list of relays"));
            }
            relays.push((url, Pin(reader.array()?)));
        }
        reader.finish()?;
        Ok(Self { name, ipv4_pool, link, mtu, relays })
    }
}
