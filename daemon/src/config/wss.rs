//! Direct WSS: where members whose UDP is blocked may connect to this node.

use std::net::SocketAddr;

use mesh_wire::RelayUrl;
use mesh_wire::control::DOOR_ADDRESSES;
use serde::Deserialize;

/// What `[wss]` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub struct Wss {
    /// The TCP address to listen on.
    pub listen: SocketAddr,
    /// Names or addresses with ports at which the port can be reached from outside: 4 at most.
    pub public: Vec<(String, u16)>,
    /// Whether gateways are asked to keep the port open (PCP, NAT-PMP, UPnP).
    pub map: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    listen: SocketAddr,
    #[serde(default)]
    public: Vec<String>,
    map: Option<bool>,
}

impl TryFrom<Table> for Wss {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let listen = table.listen;
        if listen.port() == 0 {
            return Err(format!("wss.listen: {listen} has no port; write for example \"[::]:8443\""));
        }
        if listen.ip().is_multicast() || listen.ip().to_canonical() != listen.ip() {
            return Err(format!("wss.listen: {listen} is no address of an interface"));
        }
        if table.public.len() > DOOR_ADDRESSES {
            return Err(format!(
                "wss.public: {} addresses; {DOOR_ADDRESSES} are the most",
                table.public.len()
            ));
        }
        if listen.ip().is_loopback() && table.map == Some(true) {
            return Err(format!(
                "wss.map: a gateway cannot lead to {listen}, which only this machine reaches; write map = false, or another wss.listen"
            ));
        }
        let mut public = Vec::new();
        for text in table.public {
            public.push(place(&text).ok_or_else(|| {
                format!("wss.public: \"{text}\" is no place; write a name or address with a port, as \"home.example:8443\"")
            })?);
        }
        Ok(Self { listen, public, map: table.map.unwrap_or(!listen.ip().is_loopback()) })
    }
}

/// Reads `host:port`; the port has to stand there.
fn place(text: &str) -> Option<(String, u16)> {
    let (_, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let url: RelayUrl = format!("wss://{text}").parse().ok()?;
    (url.port() == port).then(|| (url.host().to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags};
    use super::*;

    fn load(text: &str) -> Result<Option<Wss>, String> {
        let loaded = Config::parse(&Flags::default(), text, std::path::Path::new("a.toml"));
        loaded.map(|config| config.wss).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn members_cannot_connect_unless_told_where() {
        assert_eq!(load("").unwrap(), None);
        let wss = load("[wss]\nlisten = \"[::]:8443\"").unwrap().unwrap();
        assert_eq!((wss.listen, wss.public, wss.map), ("[::]:8443".parse().unwrap(), Vec::new(), true));
        let text = "[wss]\nlisten = \"192.0.2.1:443\"\npublic = [\"Home.example:8443\", \"198.51.100.7:443\", \"[2001:db8::1]:9\"]\nmap = false";
        let wss = load(text).unwrap().unwrap();
        let place = |host: &str, port| (host.to_owned(), port);
        let places = [place("home.example", 8443), place("198.51.100.7", 443), place("2001:db8::1", 9)];
        assert_eq!((wss.public.as_slice(), wss.map), (&places[..], false));
    }

    #[test]
    fn port_of_the_machine_itself_is_not_mapped() {
        assert!(!load("[wss]\nlisten = \"127.0.0.1:8443\"").unwrap().unwrap().map);
    }

    #[test]
    fn wrong_places_are_named() {
        for (text, part) in [
            ("[wss]\n", "listen"),
            ("[wss]\nlisten = \"0.0.0.0\"", "socket address"),
            ("[wss]\nlisten = \"0.0.0.0:0\"", "no port"),
            ("[wss]\nlisten = \"239.0.0.1:1\"", "no address of an interface"),
            ("[wss]\nlisten = \"[::]:1\"\npublic = [\"home.example\"]", "with a port"),
            ("[wss]\nlisten = \"[::]:1\"\npublic = [\"home.example:0\"]", "with a port"),
            ("[wss]\nlisten = \"[::]:1\"\npublic = [\"a b:1\"]", "no place"),
            (
                "[wss]\nlisten = \"[::]:1\"\npublic = [\"a:1\", \"b:1\", \"c:1\", \"d:1\", \"e:1\"]",
                "the most",
            ),
            ("[wss]\nlisten = \"127.0.0.1:1\"\nmap = true", "map = false"),
            ("[wss]\nlisten = \"[::]:1\"\nopen = true", "open"),
        ] {
            let message = load(text).expect_err(text);
            assert!(
                message.contains(part) && message.contains("a.toml") && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
