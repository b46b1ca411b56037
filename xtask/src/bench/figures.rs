//! Values by name, their medians, and the machine that they belong to.

use std::fs;

use serde_json::{Value, json};

/// All values measured, in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    plain: Vec<f64>,
    tunnel: Vec<f64>,
}

impl Figures {
    /// Adds one value of each side, where there is one.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, plain: Option<f64>, tunnel: Option<f64>) {
        let index = self.0.iter().position(|figure| figure.name == name).unwrap_or_else(|| {
            self.0.push(Figure { name: name.into(), unit, plain: Vec::new(), tunnel: Vec::new() });
            self.0.len() - 1
        });
        self.0[index].plain.extend(plain);
        self.0[index].tunnel.extend(tunnel);
    }

    /// A table with a head.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let head = ["what", "unit", "plain link", "tunnel over relay", "ratio"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for figure in &self.0 {
            let (plain, tunnel) = (median(&figure.plain), median(&figure.tunnel));
            let ratio = figure.ratio().map_or_else(String::new, |ratio| format!("{ratio:.3}"));
            rows.push(vec![figure.name.clone(), figure.unit.into(), shown(plain), shown(tunnel), ratio]);
        }
        rows
    }

    /// The same for programs, with every single value.
    pub(crate) fn document(&self) -> Value {
        let side = |values: &[f64]| {
            if values.is_empty() {
                Value::Null
            } else {
                json!({ "median": median(values), "values": values })
            }
        };
        let figures = self.0.iter().map(|figure| {
            json!({
                "name": figure.name,
                "unit": figure.unit,
                "plain": side(&figure.plain),
                "tunnel": side(&figure.tunnel),
                "ratio": figure.ratio(),
            })
        });
        figures.collect()
    }
}

impl Figure {
    /// Tunnel by plain link.
    fn ratio(&self) -> Option<f64> {
        let plain = median(&self.plain).filter(|value| *value > 0.0)?;
        Some(median(&self.tunnel)? / plain)
    }
}

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

fn shown(value: Option<f64>) -> String {
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
