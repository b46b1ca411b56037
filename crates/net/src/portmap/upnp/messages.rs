//! Texts of UPnP: SSDP, device descriptions and SOAP.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use hyper::Uri;
use roxmltree::{Document, Node, ParsingOptions};

/// A place on the gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) address: SocketAddr,
    /// Path and query.
    pub(super) path: String,
}

impl Location {
    /// Reads an absolute URL; `None` unless it is HTTP to that very address.
    pub(super) fn absolute(url: &str, gateway: Ipv4Addr) -> Option<Self> {
        let uri: Uri = bounded(url)?.parse().ok()?;
        let host: Ipv4Addr = uri.host()?.parse().ok()?;
        if uri.scheme_str() != Some("http") || host != gateway {
            return None;
        }
        // `Uri` reads over a user's name and over a port that is none.
        let port = match uri.authority()?.as_str().strip_prefix(uri.host()?)? {
            "" => 80,
            rest => rest.strip_prefix(':')?.parse().ok()?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        (port != 0).then_some(Self { address: SocketAddrV4::new(gateway, port).into(), path })
    }

    /// Reads a URL that may be relative to this place; `None` if it leads away from the gateway.
    fn join(&self, url: &str) -> Option<Self> {
        let SocketAddr::V4(own) = self.address else { return None };
        let url = bounded(url)?;
        if url.contains("://") || url.starts_with("//") {
            return Self::absolute(url, *own.ip());
        }
        let path = if url.starts_with('/') {
            url.to_owned()
        } else {
            let folder = self.path.split('?').next()?.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{url}")
        };
        let uri: Uri = path.parse().ok()?;
        Some(Self { address: self.address, path: uri.path_and_query()?.as_str().to_owned() })
    }
}

/// The question for devices of a kind, to the group or to a gateway alone.
pub(super) fn search(to: Ipv4Addr, target: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {to}:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
    )
}

/// Where the description of a gateway device lies, from an answer to [`search`]; `None` for any other device.
pub(super) fn search_answer(bytes: &[u8], gateway: Ipv4Addr) -> Option<Location> {
    let mut lines = std::str::from_utf8(bytes).ok()?.split("\r\n");
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return None;
    }
    let (mut location, mut kind) = (None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("location") {
            location = Some(value.trim());
        } else if name.eq_ignore_ascii_case("st") {
            kind = Some(value.trim());
        }
    }
    if !SEARCH_TARGETS.contains(&kind?) {
        return None;
    }
    Location::absolute(location?, gateway)
}

/// The services of a device description that map ports, the best kind first, each with its place on the gateway.
pub(super) fn services(description: &str, base: &Location) -> Vec<(&'static str, Location)> {
    let Some(document) = parse(description) else { return Vec::new() };
    // Devices of the first UPnP version may name another base, which has to be on the gateway too.
    let named = child_text(document.root_element(), "URLBase").and_then(|url| base.join(url));
    let base = named.as_ref().unwrap_or(base);
    let mut found = Vec::new();
    for node in document.descendants().filter(|node| node.tag_name().name() == "service") {
        let kind = child_text(node, "serviceType");
        let Some(rank) = SERVICES.iter().position(|service| Some(*service) == kind) else { continue };
        if let Some(control) = child_text(node, "controlURL").and_then(|url| base.join(url)) {
            found.push((rank, control));
        }
    }
    found.sort();
    found.into_iter().filter_map(|(rank, control)| Some((*SERVICES.get(rank)?, control))).collect()
}

/// The body of a SOAP call.
pub(super) fn call(service: &str, action: &str, arguments: &[(&str, &str)]) -> String {
    let mut body = format!(
        "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} xmlns:u=\"{service}\">"
    );
    for (name, value) in arguments {
        write!(body, "<{name}>{value}</{name}>").expect("a String takes everything");
    }
    write!(body, "</u:{action}></s:Body></s:Envelope>\r\n").expect("a String takes everything");
    body
}

/// The text of the first element with this name.
pub(super) fn text(answer: &str, name: &str) -> Option<String> {
    let document = parse(answer)?;
    let node = document.descendants().find(|node| node.tag_name().name() == name)?;
    Some(node.text()?.trim().to_owned())
}

fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, allow_dtd: false, ..ParsingOptions::default() };
    Document::parse_with_options(text.trim_matches('\0'), options).ok()
}

fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.children().find(|child| child.tag_name().name() == name)?.text().map(str::trim)
}

/// A URL of sane length without anything but visible ASCII.
fn bounded(url: &str) -> Option<&str> {
    let url = url.trim();
    (!url.is_empty() && url.len() <= MAX_URL && url.bytes().all(|byte| byte.is_ascii_graphic()))
        .then_some(url)
}

/// The kinds of device to ask for; of the second version's devices, some answer only to the first name.
pub(super) const SEARCH_TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];
/// The services that map ports, best first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// Elements, texts and attributes of a document; descriptions of gateways have some hundreds.
const MAX_NODES: u32 = 4096;
const MAX_URL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn base() -> Location {
        Location { address: "192.168.1.1:5000".parse().unwrap(), path: "/igd/root.xml?x=1".to_owned() }
    }

    fn description(url_base: &str, services: &[(&str, &str)]) -> String {
        let services: String = services
            .iter()
            .map(|(kind, url)| {
                format!(
                    "<service><serviceType>urn:schemas-upnp-org:service:{kind}</serviceType>\
                         <controlURL>{url}</controlURL></service>"
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{url_base}<device><deviceList>\
                 <device><serviceList>{services}</serviceList></device></deviceList></device></root>"
        )
    }

    #[test]
    fn answer_of_a_gateway_device_tells_its_place() {
        let answer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: \
                      urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\n\
                      LOCATION: http://192.168.1.1:5000/igd/root.xml?x=1\r\n\r\n";
        assert_eq!(search_answer(answer.as_bytes(), GATEWAY), Some(base()));
        let media = answer.replace("InternetGatewayDevice", "MediaServer");
        assert_eq!(search_answer(media.as_bytes(), GATEWAY), None);
        let notify = answer.replace("HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1");
        assert_eq!(search_answer(notify.as_bytes(), GATEWAY), None);
        assert_eq!(search_answer(b"HTTP/1.1 200 OK\r\nLOCATION\xff", GATEWAY), None);
    }

    #[test]
    fn urls_to_other_places_are_refused() {
        for url in [
            "http://192.168.1.2/x",
            "http://8.8.8.8:5000/x",
            "https://192.168.1.1/x",
            "http://192.168.1.1@8.8.8.8/x",
            "http://user@192.168.1.1/x",
            "http://router.local/x",
            "http://192.168.1.1:0/x",
            "http://192.168.1.1:99999/x",
            "file:///etc/passwd",
            "http://192.168.1.1/\r\nX: y",
            "",
        ] {
            assert_eq!(Location::absolute(url, GATEWAY), None, "{url}");
        }
        for url in ["//8.8.8.8/x", "http://8.8.8.8/x", "a b", &"x".repeat(600)] {
            assert_eq!(base().join(url), None, "{url}");
        }
    }

    #[test]
    fn urls_on_the_gateway_are_joined() {
        let joined = |url| base().join(url).map(|at| (at.address.port(), at.path)).unwrap();
        assert_eq!(joined("/ctl/IPConn"), (5000, "/ctl/IPConn".to_owned()));
        assert_eq!(joined("ctl?a=b"), (5000, "/igd/ctl?a=b".to_owned()));
        assert_eq!(joined("http://192.168.1.1:80/x"), (80, "/x".to_owned()));
    }

    #[test]
    fn services_are_found_the_best_first_and_only_on_the_gateway() {
        let all = [
            ("Layer3Forwarding:1", "/l3"),
            ("WANPPPConnection:1", "/ppp"),
            ("WANIPConnection:1", "/ip1"),
            ("WANIPConnection:2", "http://8.8.8.8/ip2"),
            ("WANIPConnection:2", "ip2"),
        ];
        let found = services(&description("", &all), &base());
        let paths: Vec<&str> = found.iter().map(|(_, at)| at.path.as_str()).collect();
        assert_eq!(paths, ["/igd/ip2", "/ip1", "/ppp"]);
        assert_eq!(found[0].0, "urn:schemas-upnp-org:service:WANIPConnection:2");

        let with_base = description("<URLBase>http://192.168.1.1:49152/</URLBase>", &all[2..3]);
        assert_eq!(services(&with_base, &base())[0].1.address.port(), 49152);
        let away = description("<URLBase>http://8.8.8.8/</URLBase>", &all[2..3]);
        assert_eq!(services(&away, &base())[0].1.address, base().address);
    }

    #[test]
    fn hostile_documents_are_refused() {
        let bomb =
            "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><x><NewExternalIPAddress>&a;</NewExternalIPAddress></x>";
        assert_eq!(text(bomb, "NewExternalIPAddress"), None);
        let deep = "<service>".repeat(60_000 / 9);
        assert_eq!(text(&deep, "service"), None);
        assert!(services(&deep, &base()).is_empty());
        let wide = format!("<x>{}</x>", "<y/>".repeat(5000));
        assert_eq!(text(&wide, "y"), None);
    }

    #[test]
    fn call_has_its_text_and_answers_are_read() {
        let body =
            call(SERVICES[0], "DeletePortMapping", &[("NewRemoteHost", ""), ("NewExternalPort", "4500")]);
        assert!(body.ends_with(
            "<u:DeletePortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:2\">\
             <NewRemoteHost></NewRemoteHost><NewExternalPort>4500</NewExternalPort></u:DeletePortMapping>\
             </s:Body></s:Envelope>\r\n"
        ));
        let fault = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault><detail>\
                     <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode> 718 </errorCode></UPnPError>\
                     </detail></s:Fault></s:Body></s:Envelope>";
        assert_eq!(text(fault, "errorCode").as_deref(), Some("718"));
        assert_eq!(text(fault, "NewExternalIPAddress"), None);
    }
}
