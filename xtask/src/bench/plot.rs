//! A picture of the figures: a panel for each that compares, a bar for everything that was measured.

use std::fmt::{Display, Write as _};

/// A name, its unit, and a label with a value for each bar.
pub(crate) type Panel = (String, &'static str, Vec<(&'static str, f64)>);

/// Draws the panels below each other under a title; every panel has its own scale, which begins at zero.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let bars: usize = panels.iter().map(|(_, _, bars)| bars.len()).sum();
    let height = TOP + bars * LINE + panels.len() * (LINE + GAP);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    line(&mut text, 12, 22, "", title);
    let mut y = TOP;
    for (name, unit, bars) in panels {
        y += LINE;
        line(&mut text, 12, y - 6, " font-weight=\"bold\"", &format!("{name}, {unit}"));
        let largest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (label, value) in bars {
            y += LINE;
            line(&mut text, LEFT - 8, y - 6, " text-anchor=\"end\"", label);
            let width = value.max(0.0) / largest * BAR;
            let (top, thick) = (y - LINE + 2, LINE - 4);
            let _ = writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{thick}\" fill=\"#47a\"/>"
            );
            line(&mut text, format!("{:.1}", LABEL + width), y - 6, "", &super::figures::shown(Some(*value)));
        }
        y += GAP;
    }
    text + "</svg>\n"
}

fn line(svg: &mut String, x: impl Display, y: usize, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\"{style}>{text}</text>");
}

const WIDTH: usize = 760;
const LEFT: usize = 150;
/// Where the number beside an empty bar begins.
const LABEL: f64 = 156.0;
const BAR: f64 = 520.0;
const TOP: usize = 36;
const LINE: usize = 20;
const GAP: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_text_is_escaped() {
        let panel = ("a < b".to_owned(), "Mbit/s", vec![("x & y", 200.0), ("half", 100.0), ("none", 0.0)]);
        let text = svg("title", &[panel]);
        for wanted in ["a &lt; b, Mbit/s", "x &amp; y", "width=\"520.0\"", "width=\"260.0\"", "width=\"0.0\""]
        {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
    }
}
