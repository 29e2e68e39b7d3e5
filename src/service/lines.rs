//! Reads lines from programs that may never send a newline.
//!
//! A line longer than the cap is cut, and the rest is counted and thrown away:
//! memory stays bounded whatever a program prints.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// One line without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The bytes that were kept.
    pub bytes: Vec<u8>,
    /// How many bytes were thrown away.
    pub dropped: u64,
}

/// Cuts a stream of bytes into capped lines.
#[derive(Debug)]
pub struct Cutter {
    partial: Line,
    line_bytes_max: usize,
}

impl Cutter {
    /// Cuts into lines of at most `line_bytes_max` bytes.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { partial: Line { bytes: Vec::new(), dropped: 0 }, line_bytes_max }
    }

    /// Takes bytes up to the first newline; tells how many, and the line if it is whole.
    pub fn push(&mut self, chunk: &[u8]) -> (usize, Option<Line>) {
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let body = &chunk[..end.unwrap_or(chunk.len())];
        let kept = body.len().min(self.line_bytes_max - self.partial.bytes.len());
        self.partial.bytes.extend_from_slice(&body[..kept]);
        self.partial.dropped += (body.len() - kept) as u64;
        match end {
            Some(end) => (end + 1, Some(self.take())),
            None => (chunk.len(), None),
        }
    }

    /// Returns a last line that has no newline.
    pub fn finish(&mut self) -> Option<Line> {
        let last = self.take();
        (!last.bytes.is_empty()).then_some(last)
    }

    fn take(&mut self) -> Line {
        std::mem::replace(&mut self.partial, Line { bytes: Vec::new(), dropped: 0 })
    }
}

/// A reader that knows whether it holds bytes already.
pub trait Buffered {
    /// Tells whether nothing is held.
    fn is_drained(&self) -> bool;
}

impl<R: tokio::io::AsyncRead> Buffered for tokio::io::BufReader<R> {
    fn is_drained(&self) -> bool {
        self.buffer().is_empty()
    }
}

/// Reads capped lines.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    cutter: Cutter,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads `reader` in lines of at most `line_bytes_max` bytes.
    pub fn new(reader: R, line_bytes_max: usize) -> Self {
        Self { reader, cutter: Cutter::new(line_bytes_max) }
    }

    /// Tells whether the next line must be waited for.
    pub fn is_drained(&self) -> bool
    where
        R: Buffered,
    {
        self.reader.is_drained()
    }

    /// Returns the next line, the last one with or without a newline, or nothing at the end.
    ///
    /// # Cancellation
    /// Safe: what was read so far stays in the reader.
    pub async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(self.cutter.finish());
            }
            let (used, line) = self.cutter.push(chunk);
            self.reader.consume(used);
            if line.is_some() {
                return Ok(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(input: &str, expected: &[(&str, u64)]) {
        let mut lines = Lines::new(input.as_bytes(), 5);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push((String::from_utf8(line.bytes).unwrap(), line.dropped));
        }
        let expected: Vec<_> = expected.iter().map(|(text, n)| ((*text).to_owned(), *n)).collect();
        assert_eq!(seen, expected, "{input:?}");
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_counted() {
        check("", &[]).await;
        check("a\nb", &[("a", 0), ("b", 0)]).await;
        check("\n\nx\n", &[("", 0), ("", 0), ("x", 0)]).await;
        check("1234567\nz\n", &[("12345", 2), ("z", 0)]).await;
    }
}
