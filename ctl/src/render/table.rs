//! Aligned columns.

use super::Style;

/// Rows under a header. Columns are as wide as their widest cell; where the terminal is too narrow, the columns that
/// matter least are left out, and what still does not fit is cut.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Numbers align to the right.
    pub(super) right: bool,
    /// The order in which columns are left out; the highest first, 0 never.
    pub(super) leave_out: u8,
}

/// Text with its colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    colour: Colour,
}

/// What a state deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Good,
    Pending,
    Bad,
    Faint,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), colour: Colour::Plain }
    }

    pub(super) fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: text.into(), colour }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl Colour {
    /// The text in this colour (ECMA-48 SGR), where colours are wanted.
    pub(super) fn paint(self, text: &str, style: Style) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Pending => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        };
        if style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with one cell per column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines of the table.
    pub(super) fn text(&self, style: Style) -> String {
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(i, column)| self.width(i, *column)).collect();
        let shown = self.shown(&widths, style);
        let header: Vec<Cell> = self.columns.iter().map(|c| Cell::coloured(c.title, Colour::Faint)).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            text.push_str(&self.line(row, &widths, &shown, style));
            text.push('\n');
        }
        text
    }

    fn width(&self, index: usize, column: Column) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(Cell::width);
        cells.chain([column.title.len()]).max().unwrap_or(0)
    }

    /// The indices of the columns that fit.
    fn shown(&self, widths: &[usize], style: Style) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(limit) = style.width else { return shown };
        loop {
            let total = shown.iter().map(|&i| widths[i] + GAP).sum::<usize>().saturating_sub(GAP);
            let least = shown.iter().copied().max_by_key(|&i| self.columns[i].leave_out);
            match least {
                Some(i) if total > limit && self.columns[i].leave_out > 0 => {
                    shown.retain(|&other| other != i)
                }
                Some(_) | None => return shown,
            }
        }
    }

    fn line(&self, row: &[Cell], widths: &[usize], shown: &[usize], style: Style) -> String {
        let mut line = String::new();
        let mut column = 0;
        for (position, &i) in shown.iter().enumerate() {
            let room = style.width.map_or(widths[i], |limit| widths[i].min(limit.saturating_sub(column)));
            let text = cut(&row[i].text, room);
            let padding = " ".repeat(room.saturating_sub(text.chars().count()));
            let painted = row[i].colour.paint(&text, style);
            let last = position + 1 == shown.len();
            match (self.columns[i].right, last) {
                (true, _) => line.push_str(&format!("{padding}{painted}")),
                (false, true) => line.push_str(&painted),
                (false, false) => line.push_str(&format!("{painted}{padding}")),
            }
            if !last {
                line.push_str(&" ".repeat(GAP));
            }
            column += widths[i] + GAP;
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// The text within `room` characters, with a sign where it was cut.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    if room > 0 {
        short.push('…');
    }
    short
}

const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "NAME", right: false, leave_out: 0 },
        Column { title: "RX", right: true, leave_out: 1 },
        Column { title: "SUITE", right: false, leave_out: 2 },
    ];

    fn table() -> Table {
        let mut table = Table::new(&COLUMNS);
        table.row(vec![Cell::coloured("laptop", Colour::Good), Cell::new("1.0 MiB"), Cell::new("ML-KEM")]);
        table.row(vec![Cell::new("pi"), Cell::new("5 B"), Cell::new("")]);
        table
    }

    #[test]
    fn columns_align() {
        let style = Style { colour: false, width: None };
        assert_eq!(
            table().text(style),
            "NAME         RX  SUITE\n\
             laptop  1.0 MiB  ML-KEM\n\
             pi          5 B\n"
        );
    }

    #[test]
    fn narrow_terminal_leaves_columns_out_then_cuts() {
        let narrow = |width| table().text(Style { colour: false, width: Some(width) });
        assert_eq!(narrow(23).lines().next(), Some("NAME         RX  SUITE"));
        assert_eq!(narrow(22).lines().next(), Some("NAME         RX"));
        assert_eq!(narrow(14).lines().next(), Some("NAME"));
        assert_eq!(narrow(4).lines().nth(1), Some("lap…"));
        assert_eq!(narrow(0).lines().nth(1), Some(""));
    }

    #[test]
    fn colour_does_not_disturb_the_columns() {
        let text = table().text(Style { colour: true, width: None });
        assert_eq!(text.lines().nth(1), Some("\x1b[32mlaptop\x1b[0m  1.0 MiB  ML-KEM"));
    }
}
