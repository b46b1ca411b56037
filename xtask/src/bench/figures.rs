//! Values by name, their medians and ratios, and the machine that they belong to.

use std::fs;

use serde_json::{Value, json};

use super::plot::{Bar, Panel};
use super::subject::Kind;

/// All values measured, in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    /// Of everything that was measured, in the order in which it was; none for what stands alone.
    values: Vec<(Option<Kind>, Vec<f64>)>,
}

impl Figures {
    /// Adds one value.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, of: Option<Kind>, value: f64) {
        let index = self.0.iter().position(|figure| figure.name == name).unwrap_or_else(|| {
            self.0.push(Figure { name: name.into(), unit, values: Vec::new() });
            self.0.len() - 1
        });
        let values = &mut self.0[index].values;
        match values.iter_mut().find(|(kind, _)| *kind == of) {
            Some((_, values)) => values.push(value),
            None => values.push((of, vec![value])),
        }
    }

    /// A table with a head: a column for everything that was measured, and one for each of [`COMPARISONS`].
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let kinds = self.kinds();
        let mut head = vec!["what".to_owned(), "unit".to_owned()];
        head.extend(kinds.iter().map(|kind| kind.map_or("", Kind::name).to_owned()));
        let compared: Vec<_> = COMPARISONS.iter().filter(|of| kinds.contains(&Some(of.ours))).collect();
        head.extend(compared.iter().map(|comparison| comparison.name.to_owned()));
        let mut rows = vec![head];
        for figure in &self.0 {
            let mut row = vec![figure.name.clone(), figure.unit.to_owned()];
            row.extend(kinds.iter().map(|kind| shown(figure.median(*kind))));
            let ratios = compared.iter().map(|comparison| figure.ratio(comparison));
            row.extend(ratios.map(|ratio| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))));
            rows.push(row);
        }
        rows
    }

    /// The same for programs, with every single value.
    pub(crate) fn document(&self) -> Value {
        let figures = self.0.iter().map(|figure| {
            let values = figure.values.iter().map(|(kind, values)| {
                json!({ "of": kind.map(Kind::name), "median": median(values), "values": values })
            });
            let mut document =
                json!({ "name": figure.name, "unit": figure.unit, "values": values.collect::<Value>() });
            for comparison in &COMPARISONS {
                document[comparison.key] = json!(figure.ratio(comparison));
            }
            document
        });
        figures.collect()
    }

    /// A line for each comparison that has a bar and was measured: what was reached in the transfers over TCP.
    pub(crate) fn verdicts(&self) -> Vec<String> {
        let lines = COMPARISONS.iter().filter_map(|comparison| {
            let least = comparison.least?;
            let transfers = self.0.iter().filter(|figure| figure.unit == TCP_RATE);
            let ratios: Vec<f64> = transfers.filter_map(|figure| figure.ratio(comparison)).collect();
            let lowest = ratios.iter().copied().min_by(f64::total_cmp)?;
            let highest = ratios.iter().copied().max_by(f64::total_cmp)?;
            let verdict = if lowest >= least { "reached" } else { "MISSED" };
            Some(format!(
                "{}, TCP: {lowest:.2} to {highest:.2}, at least {least:.1} wanted: {verdict}",
                comparison.name
            ))
        });
        lines.collect()
    }

    /// The medians of [`DRAWN`], as far as they were measured on more than one subject.
    pub(crate) fn panels(&self) -> Vec<Panel> {
        let drawn = DRAWN.iter().filter_map(|name| self.0.iter().find(|figure| figure.name == *name));
        let panels = drawn.map(|figure| {
            let (unit, scale) = if figure.unit == TCP_RATE { ("Gbit/s", 1e-3) } else { (figure.unit, 1.0) };
            let bars = figure.values.iter().filter_map(|(kind, values)| {
                let (kind, value) = ((*kind)?, median(values)? * scale);
                Some(Bar { label: kind.name(), value, kind: kind.bar() })
            });
            Panel {
                name: format!("{}, {unit}", figure.name),
                more_is_better: figure.unit.ends_with("/s"),
                bars: bars.collect(),
            }
        });
        panels.filter(|panel| panel.bars.len() > 1).collect()
    }

    /// [`DRAWN`] as a table in Markdown, a line for everything that was measured, and below it the ratios of the transfers.
    pub(crate) fn markdown(&self) -> String {
        let panels = self.panels();
        let head: Vec<&str> = panels.iter().map(|panel| panel.name.as_str()).collect();
        let mut text = format!("| | {} |\n|---|{}\n", head.join(" | "), "---|".repeat(head.len()));
        for kind in self.kinds().into_iter().flatten() {
            let values = panels.iter().map(|panel| {
                let bar = panel.bars.iter().find(|bar| bar.label == kind.name());
                shown(bar.map(|bar| bar.value))
            });
            let values: Vec<String> = values.collect();
            text += &format!("| {} | {} |\n", kind.name(), values.join(" | "));
        }
        for comparison in &COMPARISONS {
            let rates = self.0.iter().filter(|figure| figure.unit == TCP_RATE);
            let ratios: Vec<f64> = rates.filter_map(|figure| figure.ratio(comparison)).collect();
            let (low, high) = (
                ratios.iter().copied().min_by(f64::total_cmp),
                ratios.iter().copied().max_by(f64::total_cmp),
            );
            if let (Some(low), Some(high)) = (low, high) {
                text += &format!("\n{}, TCP: {low:.2} to {high:.2}.", comparison.name);
            }
        }
        text + "\n"
    }

    fn kinds(&self) -> Vec<Option<Kind>> {
        let mut kinds = Vec::new();
        for (kind, _) in self.0.iter().flat_map(|figure| &figure.values) {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        kinds
    }
}

impl Figure {
    fn median(&self, kind: Option<Kind>) -> Option<f64> {
        self.values.iter().find(|(of, _)| *of == kind).and_then(|(_, values)| median(values))
    }

    /// One of ours by the best program that it is compared with: the highest rate, or the lowest of what should be low.
    /// None for losses: what is often zero divides nothing.
    fn ratio(&self, comparison: &Comparison) -> Option<f64> {
        if self.unit == LOSS {
            return None;
        }
        let ours = self.median(Some(comparison.ours))?;
        let rivals = self.values.iter().filter(|(of, _)| of.is_some_and(|of| comparison.takes(of)));
        let rivals = rivals.filter_map(|(_, values)| median(values));
        let best = if self.unit.ends_with("/s") {
            rivals.max_by(f64::total_cmp)
        } else {
            rivals.min_by(f64::total_cmp)
        };
        best.filter(|best| *best > 0.0).map(|best| ours / best)
    }
}

/// One of ours beside the other programs that do the same.
#[derive(Debug)]
struct Comparison {
    /// The head of its column.
    name: &'static str,
    /// The same for programs.
    key: &'static str,
    ours: Kind,
    /// The least ratio of rates that is good enough, where that is fixed.
    least: Option<f64>,
}

impl Comparison {
    /// Whether it is compared with this one: relayed with relayed, direct with direct.
    const fn takes(&self, kind: Kind) -> bool {
        kind.is_rival() && kind.is_relayed() == self.ours.is_relayed()
    }
}

const COMPARISONS: [Comparison; 3] = [
    Comparison { name: "direct : best other", key: "direct_to_best_other", ours: Kind::Direct, least: None },
    Comparison {
        name: "relay, UDP : best other relayed",
        key: "relay_udp_to_best_other_relayed",
        ours: Kind::RelayUdp,
        least: Some(1.5),
    },
    Comparison {
        name: "relay, WebSocket : best other relayed",
        key: "relay_websocket_to_best_other_relayed",
        ours: Kind::Relay,
        least: Some(1.0),
    },
];

/// What the picture shows, in its order.
const DRAWN: [&str; 6] = [
    "TCP, 1 stream",
    "TCP, 4 streams",
    "UDP 1372 B received",
    "CPU per GB of TCP, both ends",
    "RTT idle, median",
    "RTT under TCP load, median",
];

/// The unit of transfers over TCP.
pub(crate) const TCP_RATE: &str = "Mbit/s";

/// The unit of what was lost.
pub(crate) const LOSS: &str = "%";

/// The middle value; the mean of both when there are two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 0.5)
}

/// The value that a share of all values does not exceed, interpolated.
pub(crate) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let mut below = 0;
    while below < last && (below + 1) as f64 <= share * last as f64 {
        below += 1;
    }
    let rest = share * last as f64 - below as f64;
    let above = sorted[(below + 1).min(last)];
    Some(sorted[below] + (above - sorted[below]) * rest)
}

/// A value with as many digits as say something.
pub(crate) fn shown(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// What the figures were measured on.
#[derive(Debug)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
}

/// Reads what `/proc` tells about this machine.
pub(crate) fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let kib: f64 = memory.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
    Machine {
        processor: after(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gib: kib / 1024.0 / 1024.0,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

impl Machine {
    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let Self { processor, cores, memory_gib, kernel } = self;
        format!("{processor}, {cores} cores, {memory_gib:.0} GiB, Linux {kernel}")
    }

    /// The same for programs.
    pub(crate) fn document(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "memory_gib": self.memory_gib,
            "kernel": self.kernel,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures with one value of each kind, under three units.
    fn figures(of: &[(Kind, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (kind, value) in of.iter().copied() {
            figures.add("rate", TCP_RATE, Some(kind), value);
            figures.add("time", "ms", Some(kind), value);
            figures.add("lost", LOSS, Some(kind), value);
        }
        figures
    }

    #[test]
    fn rates_have_a_ratio_and_losses_have_none() {
        let figures = figures(&[(Kind::Direct, 6.0), (Kind::Nebula, 2.0), (Kind::Tinc, 3.0)]);
        let ratios: Vec<_> = figures.0.iter().map(|figure| figure.ratio(&COMPARISONS[0])).collect();
        assert_eq!(ratios, [Some(2.0), Some(3.0), None]);
    }

    #[test]
    fn relayed_is_compared_with_relayed() {
        let measured = [
            (Kind::Direct, 8.0),
            (Kind::RelayUdp, 6.0),
            (Kind::Relay, 3.0),
            (Kind::Nebula, 4.0),
            (Kind::NebulaRelay, 2.0),
        ];
        let figures = figures(&measured);
        let ratios: Vec<_> = COMPARISONS.iter().map(|of| figures.0[0].ratio(of)).collect();
        assert_eq!(ratios, [Some(2.0), Some(3.0), Some(1.5)]);
        let rows = figures.rows();
        assert_eq!(rows[1][rows[1].len() - 3..], ["2.00", "3.00", "1.50"]);
        assert_eq!(figures.document()[0]["relay_udp_to_best_other_relayed"], 3.0);
    }

    #[test]
    fn markdown_has_a_line_for_each_and_the_ratios() {
        let mut figures = Figures::default();
        for (kind, value) in [(Kind::Plain, 30_000.0), (Kind::Direct, 6000.0), (Kind::Nebula, 2000.0)] {
            figures.add(DRAWN[0], TCP_RATE, Some(kind), value);
        }
        figures.add("RTT idle, median", "ms", Some(Kind::Direct), 0.2);
        figures.add("RTT idle, median", "ms", Some(Kind::Plain), 0.02);
        let wanted = "\
| | TCP, 1 stream, Gbit/s | RTT idle, median, ms |
|---|---|---|
| plain link | 30.00 | 0.020 |
| direct | 6.00 | 0.200 |
| nebula | 2.00 |  |

direct : best other, TCP: 3.00 to 3.00.
";
        assert_eq!(figures.markdown(), wanted);
    }

    #[test]
    fn a_bar_that_is_missed_is_said_so() {
        let figures = figures(&[(Kind::RelayUdp, 5.0), (Kind::Relay, 5.0), (Kind::NebulaRelay, 4.0)]);
        let [udp, websocket] = &figures.verdicts()[..] else { panic!("not two lines") };
        assert!(udp.ends_with("MISSED"), "{udp}");
        assert!(websocket.ends_with("reached"), "{websocket}");
    }

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn percentile_reaches_the_ends() {
        let values = [1.0, 2.0, 3.0];
        assert_eq!(percentile(&values, 0.0), Some(1.0));
        assert_eq!(percentile(&values, 1.0), Some(3.0));
    }
}
