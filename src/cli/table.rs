//! Text for terminals: aligned tables, colours only where a person looks on.

use std::io::IsTerminal;

/// What a piece of text says of the world; colour follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// Of less importance.
    Soft,
    /// A heading, a name to find.
    Strong,
    /// As it should be.
    Good,
    /// Worth a look.
    Watch,
    /// Not as it should be.
    Bad,
    /// As an operator wants it.
    Aside,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    /// Colours where the output is a terminal and `NO_COLOR` (no-color.org) is not set.
    pub(super) fn for_stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
    }

    /// `text` in its colour.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Soft => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Watch => "33",
            Tone::Bad => "1;31",
            Tone::Aside => "34",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// A cell in a tone.
pub(super) fn cell(tone: Tone, text: impl AsRef<str>) -> Cell {
    Cell { text: clean(text.as_ref()), tone }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        cell(Tone::Plain, text)
    }
}

/// A table: titles and rows.
#[derive(Clone, Debug)]
pub(super) struct Table {
    titles: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these titles.
    pub(super) fn new(titles: &[&str]) -> Self {
        Self::headed(titles)
    }

    /// The same, from titles that are made on the way.
    pub(super) fn headed(titles: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self { titles: titles.into_iter().map(|t| cell(Tone::Soft, t)).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, line by line.
    pub(super) fn lines(&self, paint: Paint) -> Vec<String> {
        let titled = (!self.titles.is_empty()).then_some(&self.titles);
        let all = || titled.into_iter().chain(&self.rows);
        let columns = all().map(Vec::len).max().unwrap_or(0);
        // Nothing follows the last cell of a row, so it widens no column.
        let padded = |i: usize| all().filter(move |row| i + 1 < row.len()).filter_map(move |row| row.get(i));
        let widths: Vec<usize> =
            (0..columns).map(|i| padded(i).map(|cell| width(&cell.text)).max().unwrap_or(0)).collect();
        let line = |row: &Vec<Cell>| {
            let padding = |cell: &Cell, wide: usize| " ".repeat(wide.saturating_sub(width(&cell.text)) + 2);
            let cells =
                row.iter().zip(&widths).map(|(cell, wide)| paint.paint(cell.tone, &cell.text) + &padding(cell, *wide));
            cells.collect::<String>().trim_end().to_owned()
        };
        all().map(line).collect()
    }
}

/// Without control characters: what a server says must not steer a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{b7}' } else { c }).collect()
}

/// Columns that `text` takes; wide characters (Unicode Annex 11, the blocks of CJK and emoji) take two.
pub(super) fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

/// A share in per cent; a decimal where it is small.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 9.95 { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_in_any_script_and_nothing_trails() {
        let mut table = Table::new(&["NAME", "STATE", "WHY"]);
        table.row(["深圳".into(), cell(Tone::Good, "serving"), "".into()]);
        table.row(["shanghai".into(), "failed".into(), "a\x1b[2Jb".into()]);
        let lines = table.lines(Paint(false));
        assert_eq!(lines, ["NAME      STATE    WHY", "深圳      serving", "shanghai  failed   a·[2Jb"]);
        assert_eq!(table.lines(Paint(true))[1], "深圳      \x1b[32mserving\x1b[0m");
        assert!(Table::new(&[]).lines(Paint(false)).is_empty());
    }
}
