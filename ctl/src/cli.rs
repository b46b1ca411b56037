//! What may be typed.

mod values;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::Ipv4Net;
use mesh_control::{DEFAULT_SOCKET, PingRequest, SOCKET_ENV};

use values::{duration, seconds};

/// Controls the ShadowMesh daemon: join a network, look at it, reach the others.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, max_term_width = 100, subcommand_required = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The socket of the daemon.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", env = SOCKET_ENV, default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Print JSON, whose shape is stable; errors too, on stderr.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a network, join one, or come up again.
    ///
    /// Without --new and without a ticket the node comes up in the network it belongs to. Waits until a sealed packet
    /// went to another member and back, and shows what it waits for. Running it again is harmless.
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Take the node down: no interface, no connection. It stays a member.
    #[command(after_help = "Examples:\n  meshctl down\n  meshctl down && meshctl up")]
    Down,
    /// Show this node, its relay and its peers.
    ///
    /// Exits with 4 when the node is in no network or down, and with 8 while it does not reach its relay.
    #[command(after_help = "Examples:\n  meshctl status\n  meshctl status --json | jq -r .relay.state")]
    Status,
    /// List the other members, or show one of them.
    #[command(
        after_help = "Examples:\n  meshctl peers\n  meshctl peers pi\n  meshctl peers --json | jq -r '.peers[].name'"
    )]
    Peers(PeersArgs),
    /// Ask a peer for a sign of life through the sealed session.
    ///
    /// Exits with 7 when no reply came at all, with 6 when there is no such peer and with 1 when the path of --via does
    /// not exist; with --until-direct with 8 when replies came and the last one was not direct.
    #[command(
        after_help = "Examples:\n  meshctl ping pi\n  meshctl ping -c 1 --timeout 2 100.64.1.2\n  meshctl ping -c 0 -i 0.2 pi\n  meshctl ping --until-direct -c 20 -i 0.5 pi\n  meshctl ping --via direct --size 1400 pi"
    )]
    Ping(PingArgs),
    /// Tell why frames to a peer take the path they take, and what to do for a direct one.
    ///
    /// Exits with 0 when the path is direct, with 8 when it is not, and with 6 when there is no such peer.
    #[command(after_help = "Examples:\n  meshctl why pi\n  meshctl why pi --json | jq -r .reason")]
    Why(WhyArgs),
    /// Look at the network around this node, and forecast with whom direct paths will come about.
    ///
    /// The daemon asks the relay's STUN service and the router, from new sockets where its own are bound, within about
    /// ten seconds; it works while the node is down, too. Exits with 8 when the relay is not reached over TCP.
    #[command(
        after_help = "Examples:\n  meshctl netcheck\n  meshctl netcheck --json | jq -r '.families[].filtering'"
    )]
    Netcheck,
    /// Make a ticket that lets another node join, and print it as one line.
    ///
    /// Only the coordinator can. Whoever holds the ticket can use it, so hand it over as you would a password.
    #[command(after_help = INVITE_EXAMPLES)]
    Invite(InviteArgs),
    /// List the relays of the network, or change which ones it announces.
    #[command(subcommand_required = true, after_help = RELAY_EXAMPLES)]
    Relay {
        /// What to do.
        #[command(subcommand)]
        verb: RelayVerb,
    },
    /// Show who this node is.
    #[command(after_help = "Examples:\n  meshctl id\n  meshctl id --json | jq -r .node_id")]
    Id,
    /// Show the versions of meshctl and meshd.
    #[command(after_help = "Examples:\n  meshctl version\n  meshctl version --json")]
    Version,
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  meshctl completions bash > /etc/bash_completion.d/meshctl")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    #[command(after_help = "Examples:\n  meshctl man /usr/local/share/man/man1")]
    Man {
        /// The directory, which must exist.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Create a network with this name; this node may admit others.
    #[arg(long, value_name = "NETWORK", requires = "relay", conflicts_with = "ticket_file")]
    pub(crate) new: Option<String>,
    /// The relay of the new network; it prints this address when it starts.
    #[arg(long, value_name = "wss://HOST[:PORT]#PIN", requires = "new")]
    pub(crate) relay: Option<String>,
    /// Where the IPv4 addresses of the new network come from.
    #[arg(long, value_name = "CIDR", requires = "new")]
    pub(crate) ipv4_pool: Option<Ipv4Net>,
    /// Join with the ticket in this file, or on standard input with "-".
    ///
    /// The environment variable SHADOWMESH_TICKET may hold the ticket itself. There is no option that takes it,
    /// because every user of the machine can read the arguments of a program.
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// The name of this node; the ticket's or the host name otherwise.
    #[arg(long, value_name = "NODE")]
    pub(crate) name: Option<String>,
    /// How long to wait until data passes.
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Do not wait until data passes.
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Show everything about this peer.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// The peer by name, node id or overlay address.
    #[arg(value_name = "NAME")]
    pub(crate) peer: String,
    /// How many to send; 0 goes on until interrupted.
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    pub(crate) count: u32,
    /// The time between two.
    #[arg(short, long, value_name = "SECS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// How long to wait for each reply, 60 at most.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Stop at the first reply over a direct path.
    #[arg(long)]
    pub(crate) until_direct: bool,
    /// The path that they take, whatever path is in use; an error where it does not exist.
    #[arg(long, value_name = "PATH", value_enum)]
    pub(crate) via: Option<Via>,
    /// Bytes of each sealed message, both ways: 28 to 9000.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(sizes()))]
    pub(crate) size: Option<u16>,
}

/// A path to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// The relay.
    Relay,
    /// UDP without the relay.
    Direct,
}

/// What the daemon sends.
fn sizes() -> std::ops::RangeInclusive<i64> {
    i64::from(PingRequest::MIN_SIZE)..=i64::from(PingRequest::MAX_SIZE)
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The peer by name, node id or overlay address.
    #[arg(value_name = "NAME")]
    pub(crate) peer: String,
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The name that the invited node gets; its own choice otherwise.
    #[arg(long, value_name = "NODE")]
    pub(crate) name: Option<String>,
    /// A group that the invited node is put in; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// How many nodes the ticket admits.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) uses: NonZeroU32,
    /// How long the ticket is good for: 90s, 30m, 1h, 7d, or several of them.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RelayVerb {
    /// Show the relays that this node knows: state, round trip, which one is home and which one is kept warm.
    ///
    /// While the node is down, only what the network announces.
    #[command(
        after_help = "Examples:\n  meshctl relay list\n  meshctl relay list --json | jq -r '.relays[].url'"
    )]
    List,
    /// Have the network announce one relay more; every member learns it with the next roster.
    ///
    /// Only the coordinator can. The relay is asked first whether it takes the network, unless it is down.
    #[command(after_help = "Examples:\n  meshctl relay add wss://relay2.example#PIN")]
    Add {
        /// The relay's address with its key, as it prints them when it starts.
        #[arg(value_name = "wss://HOST[:PORT]#PIN")]
        relay: String,
    },
    /// Have the network announce one relay less; members leave it when they learn that.
    ///
    /// Only the coordinator can, and not for the last relay.
    #[command(after_help = "Examples:\n  meshctl relay remove wss://relay2.example")]
    Remove {
        /// The relay's address; its key may follow.
        #[arg(value_name = "wss://HOST[:PORT]")]
        relay: String,
    },
}

/// Under this heading every verb lists what all verbs take.
const GLOBAL: &str = "Global options";

const UP_EXAMPLES: &str = "\
Examples:
  meshctl up --new home --relay wss://relay.example#PIN   create a network
  meshctl up --ticket-file -                              join: paste the ticket
  ssh laptop meshctl invite | meshctl up --ticket-file -  join: fetch the ticket
  meshctl up                                              come up again

Exits with 7 when data does not pass in time and with 8 when every other member
is offline; meshd goes on trying in both cases.";

const INVITE_EXAMPLES: &str = "\
Examples:
  meshctl invite
  meshctl invite --name pi --group servers --ttl 15m
  meshctl invite --uses 20 --ttl 7d > ticket";

const RELAY_EXAMPLES: &str = "\
Examples:
  meshctl relay list
  meshctl relay add wss://relay2.example#PIN
  meshctl relay remove wss://relay2.example";

const EXIT_CODES: &str = "\
Exit codes:
  0  done                       5  not permitted
  1  failed                     6  unknown peer
  2  wrong usage or config      7  timeout
  3  daemon unreachable         8  works, but degraded
  4  not in a network, or down";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        for verb in Cli::command().get_subcommands() {
            let text = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(text.contains("Examples:\n  ") && text.contains("meshctl "), "{}", verb.get_name());
        }
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused() {
        for line in [
            "up --new home",
            "up --relay wss://r#P",
            "up --ipv4-pool 10.0.0.0/8",
            "up --new home --relay wss://r#P --ticket-file -",
            "up --no-wait --timeout 3",
            "up --timeout -1",
            "up --ipv4-pool 10.0.0.0/33 --new home --relay wss://r#P",
            "up mesh1ticket",
            "invite --uses 0",
            "invite --ttl 0s",
            "invite --ttl 1",
            "ping",
            "ping pi --via moon",
            "ping pi --size 27",
            "ping pi --size 9001",
            "ping pi --size 99999",
            "why",
            "why pi nas",
        ] {
            let words = ["meshctl"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
