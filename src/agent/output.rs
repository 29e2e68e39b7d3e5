//! A task's output on disk: one line of JSON per event, within bounds.
//!
//! Readers learn through a watch channel how far the file is written and never
//! read beyond, so that they see whole lines only.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::watch;

use super::task::TaskId;

/// What one task may write; the rest is read and thrown away.
const TASK_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A line is one event; larger ones are tool results that nobody reads whole.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// How far a task's output is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) truncated: bool,
    pub(super) over: bool,
}

/// Counts the lines and bytes of an output that an earlier process wrote, and
/// cuts off a last line that it did not finish.
pub(super) fn whole_lines(path: &Path) -> io::Result<(u64, u64)> {
    let content = std::fs::read(path)?;
    let lines = content.iter().filter(|byte| **byte == b'\n').count() as u64;
    let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1) as u64;
    if end < content.len() as u64 {
        std::fs::OpenOptions::new().write(true).open(path)?.set_len(end)?;
    }
    Ok((lines, end))
}

/// Returns the file of a task's output.
pub(super) fn path(dir: &Path, id: TaskId) -> PathBuf {
    dir.join(format!("{id}.jsonl"))
}

/// Writes a task's output.
#[derive(Debug)]
pub(super) struct OutputWriter {
    file: BufWriter<File>,
    written: watch::Sender<Written>,
    pending: Written,
}

impl OutputWriter {
    /// Begins an output.
    pub(super) async fn create(path: &Path, written: watch::Sender<Written>) -> io::Result<Self> {
        let file = BufWriter::with_capacity(64 * 1024, File::create(path).await?);
        Ok(Self { file, written, pending: Written::default() })
    }

    /// Adds a line of JSON, without its newline.
    pub(super) async fn write(&mut self, line: &str) -> io::Result<()> {
        if self.pending.truncated {
            return Ok(());
        }
        if self.pending.bytes + line.len() as u64 > TASK_BYTES_MAX {
            self.pending.truncated = true;
            let note = json!({"type": "covibes.truncated", "bytes_max": TASK_BYTES_MAX});
            return self.append(&note.to_string()).await;
        }
        self.append(line).await
    }

    /// Hands what was written to the readers.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        let Written { lines, bytes, truncated, over: _ } = self.pending;
        self.written.send_modify(|written| {
            *written = Written { lines, bytes, truncated, over: written.over };
        });
        Ok(())
    }

    async fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes()).await?;
        self.file.write_all(b"\n").await?;
        self.pending.lines += 1;
        self.pending.bytes += line.len() as u64 + 1;
        Ok(())
    }
}
