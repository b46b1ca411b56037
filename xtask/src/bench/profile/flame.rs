//! Draws stacks as a flame graph (Gregg, 2011): the wider a box, the more samples went through it.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A function in the tree of stacks.
#[derive(Debug, Default)]
pub(super) struct Node {
    samples: u64,
    callees: BTreeMap<String, Node>,
}

impl Node {
    /// Reads what `perf script -F comm,ip,sym` prints: a line with the thread's name, then the innermost function first, then an
    /// empty line.
    pub(super) fn read(text: &str) -> Self {
        let mut root = Self::default();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else { continue };
            let functions: Vec<&str> = lines.map(function).collect();
            root.add(std::iter::once(thread.trim()).chain(functions.into_iter().rev()));
        }
        root
    }

    fn add<'text>(&mut self, path: impl Iterator<Item = &'text str>) {
        self.samples += 1;
        let mut node = self;
        for name in path {
            node = node.callees.entry(name.to_owned()).or_default();
            node.samples += 1;
        }
    }

    /// The picture, as wide as a page; boxes narrower than a hair are left out. Each tells its share in a tool tip.
    pub(super) fn svg(&self) -> String {
        let mut boxes = String::new();
        let depth = self.draw(&mut boxes, self.samples.max(1), 0.0, 0);
        let height = (depth + 1) * ROW;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{boxes}</svg>\n"
        )
    }

    /// Draws the callees below each other and returns how deep they go.
    fn draw(&self, out: &mut String, all: u64, mut left: f64, row: usize) -> usize {
        let mut deepest = row;
        for (name, node) in &self.callees {
            let width = WIDTH * node.samples as f64 / all as f64;
            if width >= 0.3 {
                let share = 100.0 * node.samples as f64 / all as f64;
                let letters = (1..=name.len()).take_while(|letters| *letters as f64 * LETTER < width).count();
                let shown: String = name.chars().take(letters).collect();
                let colour = 20 + name.bytes().fold(0_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 40);
                // Writing to a String does not fail.
                let _ = writeln!(
                    out,
                    "<g><title>{} {share:.2} %</title><rect x=\"{left:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"hsl({colour},80%,65%)\" stroke=\"#fff\" stroke-width=\"0.3\"/><text x=\"{:.1}\" y=\"{}\">{}</text></g>",
                    escaped(name),
                    row * ROW,
                    ROW - 1,
                    left + 2.0,
                    row * ROW + 11,
                    escaped(&shown),
                );
                deepest = deepest.max(node.draw(out, all, left, row + 1));
            }
            left += width;
        }
        deepest
    }
}

/// The name in a line "  address name+offset".
fn function(line: &str) -> &str {
    let name = line.trim().split_once(' ').map_or("[unknown]", |(_, name)| name.trim());
    name.rsplit_once("+0x").map_or(name, |(name, _)| name)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: f64 = 1200.0;
const LETTER: f64 = 6.2;
const ROW: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_added_up_from_the_outermost_function() {
        let text =
            "mesh-engine\n\t ffff inner+0x1\n\t aaaa outer<T>+0x20\n\nmesh-engine\n\t bbbb outer<T>+0x9\n\n";
        let root = Node::read(text);
        assert_eq!(root.samples, 2);
        let outer = &root.callees["mesh-engine"].callees["outer<T>"];
        assert_eq!((outer.samples, outer.callees["inner"].samples), (2, 1));
        let svg = root.svg();
        assert!(svg.contains("outer&lt;T&gt; 100.00 %") && svg.contains("inner 50.00 %"), "{svg}");
    }
}
