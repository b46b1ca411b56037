//! Writes the seeds of every target to `fuzz/corpus/TARGET/seed-N`, where files of that name are replaced.
//!
//! They are the same each time, but for signatures, which ML-DSA makes anew.

use std::path::Path;
use std::{fs, io};

use mesh_fuzz_targets::{TARGETS, seeds};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, _) in TARGETS {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)?;
        for (number, seed) in seeds::of(target).iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
