//! Prints the processor time of one full handshake, both sides together, in milliseconds: the mean of many.

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]
#![expect(clippy::print_stdout, reason = "the figure is the program's result")]

#[path = "../benches/session/pair.rs"]
mod pair;

use mesh_session::{AeadKind, ProviderKind};
use pair::{handshake, local, network};

const HANDSHAKES: u32 = 1000;

fn main() {
    let (a, b) = (local(ProviderKind::AwsLc, AeadKind::AwsLc), local(ProviderKind::AwsLc, AeadKind::AwsLc));
    let network = network();
    handshake(&a, &b, &network);
    let before = processor_ms();
    for _ in 0..HANDSHAKES {
        handshake(&a, &b, &network);
    }
    println!("{:.3}", (processor_ms() - before) / f64::from(HANDSHAKES));
}

/// User and system time of this process; the kernel counts in hundredths of a second.
fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks * 10.0
}
