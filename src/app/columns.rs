//! Aligned columns on a terminal, plain ones off it.
//!
//! Colour says a state again that its word says already, and is left out off a
//! terminal and under `NO_COLOR`.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::adapters::system::SystemClock;
use crate::app::page::format::{level, text};
use crate::app::stdout::{self, outln};
use crate::ports::clock::Clock as _;

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// On the left.
    Text(String),
    /// On the right.
    Number(String),
    /// In the colour of what it means.
    State(String),
    /// In the background.
    Quiet(String),
}

impl Cell {
    /// A text.
    #[must_use]
    pub fn text(words: &str) -> Self {
        Self::Text(text(words))
    }

    /// A number, or a dash for what is not known.
    #[must_use]
    pub fn number(amount: Option<impl ToString>) -> Self {
        Self::Number(amount.map_or("-".to_owned(), |amount| amount.to_string()))
    }

    fn words(&self) -> &str {
        match self {
            Self::Text(words) | Self::Number(words) | Self::State(words) | Self::Quiet(words) => {
                words
            }
        }
    }

    fn colour(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) | Self::Number(_) => None,
            Self::Quiet(_) => Some("2"),
            Self::State(word) => match level(word) {
                "ok" => Some("32"),
                "busy" => Some("36"),
                "warn" => Some("33"),
                "bad" => Some("31"),
                _ => Some("2"),
            },
        }
    }
}

/// Rows below a head.
#[derive(Debug, Clone)]
pub struct Columns {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    colour: bool,
}

impl Columns {
    /// No rows yet.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { head: head.to_vec(), rows: Vec::new(), colour }
    }

    /// Adds a row, a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes them to stdout.
    pub fn print(&self) {
        for line in self.lines() {
            outln!("{line}");
        }
    }

    fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.words().chars().count()).max().unwrap_or(0);
            widest.max(self.head[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let right = |column: usize| {
            self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))))
        };
        let fill = |column: usize, words: &str, shown: &str| {
            let gap = " ".repeat(widths[column].saturating_sub(words.chars().count()));
            if right(column) { format!("{gap}{shown}") } else { format!("{shown}{gap}") }
        };
        let paint = |code: Option<&str>, words: &str| match code.filter(|_| self.colour) {
            Some(code) => format!("\u{1b}[{code}m{words}\u{1b}[0m"),
            None => words.to_owned(),
        };
        let head = self.head.iter().enumerate();
        let head: Vec<String> =
            head.map(|(column, word)| fill(column, word, &paint(Some("2"), word))).collect();
        let mut lines = vec![head.join("  ").trim_end().to_owned()];
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                fill(column, cell.words(), &paint(cell.colour(), cell.words()))
            });
            lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
        }
        lines
    }
}

/// Shows something once, or again and again until interrupted.
///
/// # Errors
/// What it cannot show.
pub async fn watch(
    again: bool,
    mut show: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if !again {
        return show().await;
    }
    let clears = std::io::stdout().is_terminal();
    loop {
        if clears {
            // From the top, and what is left of the last look goes.
            stdout::write(format_args!("\u{1b}[H\u{1b}[J"));
        }
        show().await?;
        if stdout::is_gone() {
            return Ok(());
        }
        tokio::select! {
            () = SystemClock.sleep(WATCH_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(colour: bool) -> Columns {
        let mut columns = Columns::new(&["TEAM", "STATE", "PARTS"]);
        columns.colour = colour;
        columns.row(vec![
            Cell::text("blue"),
            Cell::State("running".to_owned()),
            Cell::Number("4/4".to_owned()),
        ]);
        columns.row(vec![
            Cell::text("ünï\u{1b}[31mcode"),
            Cell::State("failed".to_owned()),
            Cell::number(None::<u8>),
        ]);
        columns
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_on_the_right() {
        let expected =
            ["TEAM     STATE    PARTS", "blue     running    4/4", "ünïcode  failed       -"];
        assert_eq!(columns(false).lines(), expected);
    }

    #[test]
    fn colour_changes_no_width() {
        let lines = columns(true).lines();
        assert!(lines[1].contains("\u{1b}[32mrunning\u{1b}[0m    4/4"), "{lines:?}");
        assert!(lines[2].contains("\u{1b}[31mfailed\u{1b}[0m "), "{lines:?}");
    }
}
