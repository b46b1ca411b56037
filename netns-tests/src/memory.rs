//! The memory of a running program, searched for strings.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::process::Process;

/// Strings to search for, each under the number of what it belongs to.
#[derive(Default)]
pub struct Needles {
    by_head: HashMap<[u8; HEAD], Vec<(usize, Vec<u8>)>>,
    /// By the first two bytes, whether any string begins so.
    filter: Vec<bool>,
    longest: usize,
}

/// A place where a string was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What it belongs to.
    pub label: usize,
    /// Where it begins.
    pub address: u64,
    /// The mapping around it, as `/proc` names it.
    pub mapping: String,
}

/// What a search saw.
#[derive(Debug, Default)]
pub struct Search {
    /// Every place.
    pub hits: Vec<Hit>,
    /// Bytes that were searched.
    pub bytes: u64,
}

impl Needles {
    /// Adds a string of at least eight bytes; one of equal bytes only is left out, as memory is full of such.
    ///
    /// # Panics
    /// It is shorter.
    pub fn add(&mut self, label: usize, needle: &[u8]) {
        let head = *needle.first_chunk().expect("a string to search for is not that short");
        if needle.iter().all(|byte| *byte == needle[0]) {
            return;
        }
        self.filter.resize(1 << 16, false);
        self.filter[pair(needle[0], needle[1])] = true;
        self.longest = self.longest.max(needle.len());
        self.by_head.entry(head).or_default().push((label, needle.to_vec()));
    }

    /// Searches everything that a program can read of itself, while it stands still.
    ///
    /// # Errors
    /// Its memory cannot be read.
    pub fn search(&self, process: &Process) -> Result<Search> {
        process.signal(Signal::SIGSTOP)?;
        let found = self.search_standing(process.pid());
        process.signal(Signal::SIGCONT)?;
        found
    }

    fn search_standing(&self, pid: u32) -> Result<Search> {
        let memory = File::open(format!("/proc/{pid}/mem")).context("cannot open the memory")?;
        let mut search = Search::default();
        for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            let Some((start, end)) = readable(line) else { continue };
            let mut chunk = vec![0; CHUNK];
            let mut at = start;
            while at < end {
                let length = usize::try_from(end - at)?.min(CHUNK);
                // Pages of the kernel cannot be read in this way; they hold no keys.
                let Ok(length) = memory.read_at(&mut chunk[..length], at) else { break };
                if length == 0 {
                    break;
                }
                self.search_chunk(&chunk[..length], |label, offset| {
                    let address = at + u64::try_from(offset).expect("chunks are small");
                    search.hits.push(Hit { label, address, mapping: line.to_owned() });
                });
                search.bytes += u64::try_from(length)?;
                if length < CHUNK {
                    at += u64::try_from(length)?;
                } else {
                    // What begins at the end of a chunk is in the next one whole.
                    at += u64::try_from(CHUNK - self.longest.min(CHUNK / 2) + 1)?;
                }
            }
        }
        // An overlap is searched twice.
        search.hits.sort_by_key(|hit| (hit.label, hit.address));
        search.hits.dedup();
        anyhow::ensure!(search.bytes > 1 << 20, "only {} bytes could be read", search.bytes);
        Ok(search)
    }

    fn search_chunk(&self, chunk: &[u8], mut found: impl FnMut(usize, usize)) {
        if self.filter.is_empty() {
            return;
        }
        for (offset, head) in chunk.windows(HEAD).enumerate() {
            if !self.filter[pair(head[0], head[1])] {
                continue;
            }
            let head: &[u8; HEAD] = head.try_into().expect("windows have this length");
            for (label, needle) in self.by_head.get(head).into_iter().flatten() {
                if chunk[offset..].starts_with(needle) {
                    found(*label, offset);
                }
            }
        }
    }
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needles").field("heads", &self.by_head.len()).finish_non_exhaustive()
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(u16::from_le_bytes([first, second]))
}

/// The range of a line of `/proc/PID/maps`, unless it cannot be read or belongs to the kernel.
fn readable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (rights.starts_with('r') && !line.contains("[v")).then_some(range)
}

/// Bytes by which a string is looked up.
const HEAD: usize = 8;
const CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_at_any_offset_and_only_whole() {
        let mut needles = Needles::default();
        needles.add(3, b"0123456789");
        needles.add(4, b"01234567zz");
        needles.add(5, &[0; 16]);
        let mut hits = Vec::new();
        needles.search_chunk(b"0000123456789..01234567zz..0123456789", |label, at| hits.push((label, at)));
        assert_eq!(hits, [(3, 3), (4, 15), (3, 27)]);
    }

    #[test]
    fn readable_mappings_are_told_apart() {
        assert_eq!(readable("1000-3000 rw-p 00000000 00:00 0 [heap]"), Some((0x1000, 0x3000)));
        assert_eq!(readable("1000-3000 ---p 00000000 00:00 0"), None);
        assert_eq!(readable("1000-3000 r--p 00000000 00:00 0 [vvar]"), None);
    }
}
