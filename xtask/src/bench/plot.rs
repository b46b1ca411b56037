//! A picture of the figures: a panel for each that compares, a bar for everything that was measured.

use std::fmt::{Display, Write as _};

/// What compares, as one group of bars.
#[derive(Debug)]
pub(crate) struct Panel {
    /// What was measured, and in which unit.
    pub(crate) name: String,
    /// Whether long bars are good ones.
    pub(crate) more_is_better: bool,
    pub(crate) bars: Vec<Bar>,
}

/// One value.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: &'static str,
    pub(crate) value: f64,
    pub(crate) kind: BarKind,
}

/// Whose value it is, and thereby its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarKind {
    Ours,
    Other,
    /// No tunnel at all. It does not set the scale: a bar that is too long for it is broken.
    Plain,
}

/// Draws the panels in two columns under a title; every panel has its own scale, which begins at zero.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let heights = panels.chunks(COLUMNS).map(|row| row.iter().map(height).max().unwrap_or(0));
    let total = TOP + heights.clone().sum::<usize>();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} {total}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    words(&mut text, 16, 24, " font-size=\"14\"", title);
    let mut top = TOP;
    for (row, height) in panels.chunks(COLUMNS).zip(heights) {
        for (column, panel) in row.iter().enumerate() {
            draw(&mut text, panel, column * WIDTH / COLUMNS, top);
        }
        top += height;
    }
    text + "</svg>\n"
}

fn height(panel: &Panel) -> usize {
    (panel.bars.len() + 1) * LINE + GAP
}

fn draw(svg: &mut String, panel: &Panel, left: usize, top: usize) {
    let hint = if panel.more_is_better { "more is better" } else { "less is better" };
    let mut y = top + LINE;
    words(svg, left + 16, y - 6, " font-size=\"13\" font-weight=\"bold\"", &panel.name);
    let end = left + WIDTH / COLUMNS - 16;
    words(svg, end, y - 6, " fill=\"#777\" text-anchor=\"end\"", hint);
    let tunnels = panel.bars.iter().filter(|bar| bar.kind != BarKind::Plain).map(|bar| bar.value);
    let largest = tunnels.fold(f64::MIN_POSITIVE, f64::max);
    for Bar { label, value, kind } in &panel.bars {
        y += LINE;
        words(svg, left + LABELS - 8, y - 4, " text-anchor=\"end\"", label);
        let share = value.max(0.0) / largest;
        let (x, width) = (left + LABELS, share.min(1.0) * BAR);
        let (bar_top, thick) = (y - LINE + 3, LINE - 4);
        let fill = match kind {
            BarKind::Ours => "#1f6fb4",
            BarKind::Other => "#9aa5b1",
            BarKind::Plain => "#d9dee3",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{bar_top}\" width=\"{width:.1}\" height=\"{thick}\" fill=\"{fill}\"/>"
        );
        if share > 1.0 {
            let (from, to) = (x + BREAK, x + BREAK + 8);
            let (low, high) = (bar_top + thick, bar_top);
            let _ =
                writeln!(svg, "<path d=\"M{from} {low}L{to} {high}h6L{} {low}z\" fill=\"#fff\"/>", from + 6);
        }
        words(svg, format!("{:.1}", x as f64 + width + 5.0), y - 4, "", &super::figures::shown(Some(*value)));
    }
}

fn words(svg: &mut String, x: impl Display, y: usize, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\"{style}>{text}</text>");
}

const COLUMNS: usize = 2;
const WIDTH: usize = 920;
/// Of a panel, for what stands in front of its bars.
const LABELS: usize = 130;
/// The longest bar; a number has room behind it.
const BAR: f64 = 270.0;
/// Where a bar that is too long is broken.
const BREAK: usize = 240;
const TOP: usize = 36;
const LINE: usize = 18;
const GAP: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[(&'static str, f64, BarKind)]) -> Panel {
        let bars = values.iter().map(|(label, value, kind)| Bar { label, value: *value, kind: *kind });
        Panel { name: "a < b, Mbit/s".to_owned(), more_is_better: true, bars: bars.collect() }
    }

    #[test]
    fn bars_are_in_proportion_and_text_is_escaped() {
        let bars =
            [("x & y", 200.0, BarKind::Ours), ("half", 100.0, BarKind::Other), ("none", 0.0, BarKind::Other)];
        let text = svg("title", &[panel(&bars)]);
        for wanted in ["a &lt; b, Mbit/s", "x &amp; y", "width=\"270.0\"", "width=\"135.0\"", "width=\"0.0\""]
        {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
        assert!(!text.contains("<path"), "nothing is too long");
    }

    #[test]
    fn plain_link_does_not_set_the_scale() {
        let text = svg("", &[panel(&[("link", 3000.0, BarKind::Plain), ("ours", 200.0, BarKind::Ours)])]);
        assert_eq!(text.matches("width=\"270.0\"").count(), 2);
        assert_eq!(text.matches("<path").count(), 1);
        assert!(text.contains(">3000</text>"), "{text}");
    }

    #[test]
    fn panels_share_rows_and_the_picture_holds_all_of_them() {
        let short = || panel(&[("ours", 1.0, BarKind::Ours)]);
        let long = panel(&[("ours", 1.0, BarKind::Ours); 10]);
        let text = svg("", &[short(), long, short()]);
        let wanted = TOP + (11 * LINE + GAP) + (2 * LINE + GAP);
        assert!(text.contains(&format!("height=\"{wanted}\"")), "{text}");
    }
}
