//! Tests across the crates; see scenarios/.
