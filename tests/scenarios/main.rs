//! Tests across the crates.

#[cfg(test)]
mod enrol;
#[cfg(test)]
mod layering;
#[cfg(test)]
mod malicious_relay;
#[cfg(test)]
mod simulation;
