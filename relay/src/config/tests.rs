use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("relay.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_an_open_relay() {
    let config = parse("").unwrap();
    assert_eq!(config.listen, ["[::]:8443".parse().unwrap()]);
    assert!(config.serves(&NetId([1; 32])));
}

#[test]
fn the_shipped_example_is_the_default() {
    let text = include_str!("../../../packaging/meshrelay.toml");
    let example = Config::parse(text, Path::new("meshrelay.toml")).unwrap();
    let example = format!("{:?}", Config { access: None, ..example });
    assert_eq!(example, format!("{:?}", Config::default()));
    // What is commented out has to be right as well.
    let uncommented: String = text
        .lines()
        .filter(|line| !line.starts_with("access"))
        .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let full = Config::parse(&uncommented, Path::new("meshrelay.toml")).unwrap();
    assert_eq!(full.networks.map(|networks| networks.len()), Some(1));
}

#[test]
fn listed_networks_only_are_served() {
    let id = NetId([7; 32]);
    let config = parse(&format!("networks = [\"{id}\"]")).unwrap();
    assert!(config.serves(&id));
    assert!(!config.serves(&NetId([8; 32])));
}

#[test]
fn the_udp_port_follows_listen_unless_told() {
    assert_eq!(parse("").unwrap().udp_listen, UdpListen::AsListen);
    assert_eq!(parse("udp_listen = \"\"").unwrap().udp_listen, UdpListen::Off);
    let at = parse("udp_listen = \"192.0.2.1:5\"").unwrap().udp_listen;
    assert_eq!(at, UdpListen::At("192.0.2.1:5".parse().unwrap()));
}

#[test]
fn mistakes_name_file_line_and_key() {
    for (text, wanted) in [
        ("log = \"info\"\nlisten_on = 3\n", "relay.toml:2: unknown field `listen_on`"),
        ("\n[limits]\nclients = \"many\"\n", "relay.toml:3: clients: invalid type"),
        ("listen = [\"nowhere\"]", "relay.toml:1: listen: invalid socket address"),
        ("metrics_listen = \"9464\"", "relay.toml:1: metrics_listen: expected an address with a port"),
        ("udp_listen = \"8443\"", "relay.toml:1: udp_listen: expected an address with a port"),
        ("networks = [\"abc\"]", "relay.toml:1: networks: expected a network id of 52 characters"),
        ("listen = [", "relay.toml:1: "),
        ("access = \"closed\"", "relay.toml:1: access: unknown variant `closed`"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn contradictions_say_what_to_do() {
    for (text, key) in [
        ("listen = []", "listen"),
        ("certificate = \"/a.pem\"", "certificate, key"),
        ("metrics_listen = \"0.0.0.0:9464\"", "metrics_listen"),
        ("access = \"listed\"", "networks"),
        ("access = \"open\"\nnetworks = []", "access, networks"),
        ("[limits]\nclients = 0", "limits"),
        ("[limits]\nrestart_min_ms = 9999", "limits"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("relay.toml: {key}:")), "{error}");
    }
    assert!(parse("metrics_listen = \"0.0.0.0:9464\"\nmetrics_public = true").is_ok());
    assert_eq!(parse("metrics_listen = \"\"").unwrap().metrics_listen, None);
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/relay.toml")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nonexistent/relay.toml ("), "{error}");
}
