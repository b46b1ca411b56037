//! Lets two nodes meet from behind every pair of kinds of NAT, and prints how it went as a table.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use lab::{Contact, Lab, NatKind, Pair, Underlay, median};

#[derive(Debug, Parser)]
struct Arguments {
    /// How often each pair meets.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds until a pair without a direct path is left on the relay.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only kinds whose name contains this, on either side; may be given several times.
    #[arg(long)]
    kind: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.seconds);
    let wanted = |kind: &NatKind| {
        arguments.kind.is_empty() || arguments.kind.iter().any(|part| kind.name().contains(part))
    };
    println!("| one side | other side | direct | first answer | until direct | datagrams |");
    println!("|---|---|---|---|---|---|");
    let kinds: Vec<NatKind> = NatKind::ALL.into_iter().filter(wanted).collect();
    for (at, one) in kinds.iter().enumerate() {
        for other in &kinds[at..] {
            let what = format!("| {} | {} |", one.name(), other.name());
            match meet(*one, *other, arguments.runs, limit) {
                Ok(contacts) => println!("{what} {} |", cells(&contacts)),
                Err(error) => println!("{what} failed: {error:#} | | | |"),
            }
        }
    }
    Ok(())
}

/// The second daemon starts anew before each run; its socket then has another port, and so other mappings.
fn meet(one: NatKind, other: NatKind, runs: usize, limit: Duration) -> Result<Vec<Contact>> {
    let lab = Lab::new("nat-matrix")?;
    let public = lab.public(Underlay::Both)?;
    let sites = [public.site("one", one)?, public.site("two", other)?];
    let hosts = [sites[0].host("laptop")?, sites[1].host("pi")?];
    let mut pair = Pair::new(&lab, &public, [&hosts[0], &hosts[1]])?;
    (0..runs)
        .map(|run| {
            pair.forget()?;
            pair.contact(limit).with_context(|| format!("run {}", run + 1))
        })
        .collect()
}

/// Medians of the runs.
fn cells(contacts: &[Contact]) -> String {
    let answered = median(contacts.iter().map(|contact| contact.answered.as_secs_f64()).collect());
    let datagrams = median(contacts.iter().map(|contact| contact.datagrams as f64).collect());
    let direct: Vec<f64> =
        contacts.iter().filter_map(|contact| contact.direct).map(|after| after.as_secs_f64()).collect();
    let count = format!("{} of {}", direct.len(), contacts.len());
    let until = if direct.is_empty() { "relay".into() } else { format!("{:.2} s", median(direct)) };
    format!("{count} | {answered:.2} s | {until} | {datagrams:.0}")
}
