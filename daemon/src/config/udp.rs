//! Addresses of the configuration: where this node listens, and where its peers do.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_wire::roster::Name;
use serde::Deserialize;

/// What `udp_listen` holds: at most one address per family.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<SocketAddr>")]
pub(super) struct Listen(pub(super) Vec<SocketAddr>);

impl TryFrom<Vec<SocketAddr>> for Listen {
    type Error = String;

    fn try_from(addresses: Vec<SocketAddr>) -> Result<Self, String> {
        for (at, address) in addresses.iter().enumerate() {
            if address.ip().is_multicast() || address.ip().to_canonical() != address.ip() {
                return Err(format!("udp_listen: {address} is no address of an interface"));
            }
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            if addresses.iter().take(at).any(|earlier| earlier.is_ipv4() == address.is_ipv4()) {
                return Err(format!("udp_listen: {address} is a second {family} address; one is the most"));
            }
        }
        Ok(Self(addresses))
    }
}

/// What `[endpoints]` holds: the addresses of each peer by its name.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, Addresses>")]
pub(super) struct Endpoints(pub(super) BTreeMap<String, Vec<SocketAddr>>);

impl TryFrom<BTreeMap<String, Addresses>> for Endpoints {
    type Error = String;

    fn try_from(peers: BTreeMap<String, Addresses>) -> Result<Self, String> {
        if peers.len() > MAX_PEERS {
            return Err(format!("endpoints: {} names; {MAX_PEERS} are the most", peers.len()));
        }
        for name in peers.keys() {
            name.parse::<Name>().map_err(|error| format!("endpoints.{name}: {error}"))?;
        }
        Ok(Self(peers.into_iter().map(|(name, addresses)| (name, addresses.0)).collect()))
    }
}

/// The addresses of one peer.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<SocketAddr>")]
struct Addresses(Vec<SocketAddr>);

impl TryFrom<Vec<SocketAddr>> for Addresses {
    type Error = String;

    fn try_from(mut addresses: Vec<SocketAddr>) -> Result<Self, String> {
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            return Err(format!("{} addresses; a peer has 1 to {MAX_ADDRESSES}", addresses.len()));
        }
        for address in &mut addresses {
            address.set_ip(address.ip().to_canonical());
            let ip = address.ip();
            let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
            if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast {
                return Err(format!("{address} is no address that one peer can have"));
            }
        }
        Ok(Self(addresses))
    }
}

/// More would be a list kept by hand that somebody should have generated, and time spent on dialling.
const MAX_ADDRESSES: usize = 8;

/// A list kept by hand does not get longer.
const MAX_PEERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags};

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags { config: Some(path), ..Flags::default() };
        Config::load(&flags).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn direct_paths_are_looked_for_unless_forbidden() {
        let config = load("").unwrap();
        assert!(config.direct && config.udp_listen.is_none() && config.endpoints.is_empty());
        assert!(!load("direct = false").unwrap().direct);
        assert!(config.birthday && !load("birthday = false").unwrap().birthday);
        assert!(config.mdns && !load("mdns = false").unwrap().mdns);
        assert_eq!(load("udp_listen = []").unwrap().udp_listen, Some(Vec::new()));
        assert!(config.hold_until_mixed);
        assert!(!load("hold_until_mixed = false").unwrap().hold_until_mixed);
    }

    #[test]
    fn addresses_are_taken_as_written() {
        let config = load(
            "udp_listen = [\n  \"0.0.0.0:4747\",\n  \"[::]:4747\",\n]\n\n[endpoints]\npi = [\"192.0.2.1:4747\", \"[2001:db8::1]:4747\"]\nlaptop-2 = [\"[::ffff:192.0.2.2]:1\"]\n",
        )
        .unwrap();
        assert_eq!(
            config.udp_listen.unwrap(),
            ["0.0.0.0:4747".parse().unwrap(), "[::]:4747".parse().unwrap()]
        );
        assert_eq!(
            config.endpoints["pi"],
            ["192.0.2.1:4747".parse().unwrap(), "[2001:db8::1]:4747".parse().unwrap()]
        );
        assert_eq!(config.endpoints["laptop-2"], ["192.0.2.2:1".parse().unwrap()]);
        assert_eq!(config.endpoints.len(), 2);
    }

    #[test]
    fn wrong_addresses_name_file_line_and_key() {
        let nine = ["\"192.0.2.1:1\""; 9].join(", ");
        for (text, line, parts) in [
            (
                "mtu = 1400\nudp_listen = [\"0.0.0.0:1\", \"127.0.0.1:2\"]",
                2,
                &["udp_listen", "second IPv4"][..],
            ),
            ("udp_listen = [\"[::]:1\", \"[::1]:1\"]", 1, &["udp_listen", "second IPv6"]),
            ("udp_listen = [\"[::ffff:127.0.0.1]:1\"]", 1, &["udp_listen", "no address"]),
            ("udp_listen = [\"239.0.0.1:1\"]", 1, &["udp_listen", "no address"]),
            ("udp_listen = [\"localhost:4747\"]", 1, &[": udp_listen: ", "socket address"]),
            ("udp_listen = [\n  \"0.0.0.0\",\n]", 2, &[": udp_listen: ", "socket address"]),
            ("udp_listen = \"0.0.0.0:1\"", 1, &["udp_listen", "sequence"]),
            ("hold_until_mixed = \"no\"", 1, &["hold_until_mixed", "boolean"]),
            ("[endpoints]\npi = [\"pi.example:1\"]", 2, &[": pi: ", "socket address"]),
            ("[endpoints]\nok = [\"192.0.2.1:1\"]\npi = [\"192.0.2.1:0\"]", 3, &["pi", "192.0.2.1:0"]),
            ("[endpoints]\npi = [\"0.0.0.0:1\"]", 2, &["pi", "0.0.0.0:1"]),
            ("[endpoints]\npi = [\"255.255.255.255:1\"]", 2, &["pi", "255.255.255.255:1"]),
            ("[endpoints]\npi = [\"[ff02::1]:1\"]", 2, &["pi", "[ff02::1]:1"]),
            ("[endpoints]\npi = []", 2, &[": pi: 0 addresses"]),
            (&format!("[endpoints]\npi = [{nine}]"), 2, &["pi", "9 addresses"]),
            ("[endpoints]\npi = [\"192.0.2.1:1\"]\npi = [\"192.0.2.1:1\"]", 3, &["pi", "duplicate"]),
            (
                "mtu = 1400\n[endpoints]\n\"Two Words\" = [\"192.0.2.1:1\"]",
                2,
                &["endpoints.Two Words", "lower-case"],
            ),
            ("[udp]\nlisten = []", 1, &["udp", "unknown"]),
        ] {
            let message = load(text).expect_err(text);
            assert!(message.contains(&format!("meshd.toml, line {line}: ")), "{message}");
            assert!(parts.iter().all(|part| message.contains(part)), "{message} lacks one of {parts:?}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn number_of_peers_is_bounded() {
        let table = |count: usize| {
            (0..count).fold("[endpoints]\n".to_owned(), |text, number| {
                text + &format!("n{number} = [\"192.0.2.1:4747\"]\n")
            })
        };
        assert_eq!(load(&table(1024)).unwrap().endpoints.len(), 1024);
        assert!(load(&table(1025)).unwrap_err().contains("1025 names"));
    }
}
