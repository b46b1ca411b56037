//! Tests across the crates.

mod layering;
