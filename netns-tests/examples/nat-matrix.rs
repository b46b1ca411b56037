//! Lets two nodes meet from behind every pair of kinds of NAT, and prints how it went as a table.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use lab::{Contact, Host, Lab, NatKind, Pair, Switch, Translation, Underlay, median};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Arguments {
    /// How often each pair meets.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds until a pair without a direct path is left on the relay, unless both ends stop looking before.
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// Only pairs with a kind whose name contains this; given twice, only pairs of the two.
    #[arg(long)]
    kind: Vec<String>,
    /// With the kinds that the kernel's own translation makes.
    #[arg(long)]
    linux: bool,
    /// Write every run to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Two places that meet.
#[derive(Debug, Clone, Copy)]
enum Places {
    Two(NatKind, NatKind),
    /// One router for both.
    One {
        hairpin: bool,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.seconds);
    let mut figures = Vec::new();
    line("| one side | other side | path | first ping | until direct | packets |");
    line("|---|---|---|---|---|---|");
    for places in places(&arguments) {
        let [one, other] = places.names();
        match meet(places, arguments.runs, limit) {
            Ok(contacts) => {
                line(&format!("| {one} | {other} | {} |", cells(&contacts)));
                let runs: Vec<Value> = contacts.iter().map(figure).collect();
                figures.push(json!({"one": one, "other": other, "runs": runs}));
            }
            Err(error) => {
                line(&format!("| {one} | {other} | failed: {error:#} | | | |"));
                figures.push(json!({"one": one, "other": other, "failed": format!("{error:#}")}));
            }
        }
    }
    if let Some(path) = arguments.json {
        let document = json!({"schema": "shadowmesh.nat-matrix/1", "pairs": figures});
        fs::write(&path, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn line(text: &str) {
    println!("{text}");
}

fn places(arguments: &Arguments) -> Vec<Places> {
    let kinds = if arguments.linux { &NatKind::ALL[..] } else { &NatKind::DISTINCT[..] };
    let mut places = Vec::new();
    for (at, one) in kinds.iter().enumerate() {
        places.extend(kinds[at..].iter().map(|other| Places::Two(*one, *other)));
    }
    places.extend([false, true].map(|hairpin| Places::One { hairpin }));
    places.retain(|places| places.fits(&arguments.kind));
    places
}

impl Places {
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Two(one, other) => [one.name(), other.name()],
            Self::One { hairpin: false } => ["one router", "the same, no hairpin"],
            Self::One { hairpin: true } => ["one router", "the same, hairpin"],
        }
    }

    fn fits(self, words: &[String]) -> bool {
        let names = self.names();
        let has = |name: &str, word: &String| name.contains(word.as_str());
        match words {
            [] => true,
            [word] => names.iter().any(|name| has(name, word)),
            [one, other, ..] => {
                let [first, second] = names;
                (has(first, one) && has(second, other)) || (has(first, other) && has(second, one))
            }
        }
    }
}

fn meet(places: Places, runs: usize, limit: Duration) -> Result<Vec<Contact>> {
    let lab = Lab::new("nat-matrix")?;
    let public = lab.public(Underlay::Both)?;
    match places {
        Places::Two(one, other) => {
            let sites = [public.site("one", one)?, public.site("two", other)?];
            contacts(&lab, &public, [&sites[0].host("laptop")?, &sites[1].host("pi")?], (runs, limit))
        }
        Places::One { hairpin } => {
            let kind = NatKind::PortRestricted;
            let translation = kind.translation().context("a translation makes it")?;
            let site = public.site_with("home", kind, Translation { hairpin, ..translation })?;
            contacts(&lab, &public, [&site.host("laptop")?, &site.host("pi")?], (runs, limit))
        }
    }
}

/// The second daemon starts anew before each run; its socket then has another port, and so other mappings. A path that
/// is said to be direct has to carry pings while the relay's process is held.
fn contacts(
    lab: &Lab,
    public: &Switch<'_>,
    hosts: [&Host; 2],
    (runs, limit): (usize, Duration),
) -> Result<Vec<Contact>> {
    let mut pair = Pair::new(lab, public, hosts)?;
    (0..runs)
        .map(|run| {
            pair.forget()?;
            let contact = pair.contact(limit).with_context(|| format!("run {}", run + 1))?;
            if contact.direct.is_some() {
                pair.prove_direct().with_context(|| format!("run {} was not direct", run + 1))?;
            }
            Ok(contact)
        })
        .collect()
}

fn figure(contact: &Contact) -> Value {
    json!({
        "first_ping_s": contact.answered.as_secs_f64(),
        "direct_s": contact.direct.map(|after| after.as_secs_f64()),
        "left_at_relay_s": contact.left.map(|after| after.as_secs_f64()),
        "packets": contact.datagrams,
    })
}

/// Medians of the runs; of the time until the path was direct, those in which it became so, with the longest.
fn cells(contacts: &[Contact]) -> String {
    let answered = median(contacts.iter().map(|contact| contact.answered.as_secs_f64()).collect());
    let datagrams = median(contacts.iter().map(|contact| contact.datagrams as f64).collect());
    let direct: Vec<f64> =
        contacts.iter().filter_map(|contact| contact.direct).map(|after| after.as_secs_f64()).collect();
    let path = match direct.len() {
        0 => "relay".to_owned(),
        all if all == contacts.len() => "direct".to_owned(),
        some => format!("direct in {some} of {}", contacts.len()),
    };
    let longest = direct.iter().copied().fold(0.0, f64::max);
    let until =
        if direct.is_empty() { String::new() } else { format!("{:.2} s ({longest:.2} s)", median(direct)) };
    format!("{path} | {answered:.2} s | {until} | {datagrams:.0}")
}
