//! The one table that a run prints.

use std::time::Duration;

use crate::checker::Verdict;

/// What a row found.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) fault: String,
    /// `fake`, or `real` where containers really start.
    pub(crate) docker: &'static str,
    /// How often the fault was there.
    pub(crate) faults: usize,
    pub(crate) verdict: Verdict,
    /// From the end of a fault to the next job's end.
    pub(crate) recovery: Vec<Duration>,
    /// What else was measured.
    pub(crate) note: String,
    /// What the row holds that the checker does not know, where it is broken.
    pub(crate) broken: Vec<String>,
}

impl Row {
    pub(crate) fn holds(&self) -> bool {
        self.verdict.faults().is_empty() && self.broken.is_empty()
    }
}

/// A percentile of durations in milliseconds.
pub(crate) fn millis(durations: &[Duration], percent: usize) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).map_or("-".to_owned(), |found| found.as_millis().to_string())
}

/// The table as Markdown.
pub(crate) fn text(rows: &[Row]) -> String {
    String::from(
        "| fault | Docker | faults | attempted | acknowledged | lost | duplicated | inversions \
         | leftovers | sequence | recovery p50 / max (ms) | result | measured |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    ) + &lines(rows)
}

/// The rows without their head.
pub(crate) fn lines(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let v = &row.verdict;
        let recovery = match row.recovery.len() {
            0 => "-".to_owned(),
            _ => format!("{} / {}", millis(&row.recovery, 50), millis(&row.recovery, 100)),
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {recovery} | {} | {} |\n",
            row.fault,
            row.docker,
            row.faults,
            v.attempted,
            v.acknowledged,
            v.lost.len(),
            v.duplicated.len(),
            v.inversions.len(),
            v.leftovers.len() + row.broken.len(),
            v.sequence.len(),
            if row.holds() { "holds" } else { "FAILS" },
            row.note,
        ));
    }
    text
}

/// What is wrong, in words.
pub(crate) fn complaints(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| !row.holds()) {
        let all = row.verdict.faults().into_iter().chain(&row.broken);
        let all: Vec<_> = all.collect();
        text.push_str(&format!("{} ({}), {} in all:\n", row.fault, row.docker, all.len()));
        for fault in all.iter().take(12) {
            text.push_str(&format!("  - {fault}\n"));
        }
    }
    text
}
