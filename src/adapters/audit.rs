//! What operators did on the page, one JSON object a line, for this host's root
//! only. Appended and synced before the deed: nothing is done that is not written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A full file is kept as `audit.1.jsonl`, in place of the one before it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The end of the file that is read for the page.
const TAIL_BYTES_MAX: u64 = 32 * 1024;

/// The list in a directory that this process holds.
#[derive(Debug, Clone)]
pub struct FileAudit {
    directory: PathBuf,
}

impl FileAudit {
    /// The list in `directory`, which is there.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Adds a line, which holds no line break; resolves when it is on disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn add(&self, line: String) -> io::Result<()> {
        let directory = self.directory.clone();
        blocking(move || add(&directory, &line)).await
    }

    /// The last lines, the newest first, at most `count`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn last(&self, count: usize) -> io::Result<Vec<String>> {
        let directory = self.directory.clone();
        blocking(move || last(&directory, count)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(io::Error::other("the task ended early")))
}

fn file(directory: &Path) -> PathBuf {
    directory.join("audit.jsonl")
}

fn add(directory: &Path, line: &str) -> io::Result<()> {
    let path = file(directory);
    if fs::metadata(&path).is_ok_and(|found| found.len() >= FILE_BYTES_MAX) {
        fs::rename(&path, directory.join("audit.1.jsonl"))?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // In one write, so that two at once do not mix.
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

fn last(directory: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = match File::open(file(directory)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first may be the end of one.
    let whole = text.lines().skip(usize::from(from > 0));
    let mut lines: Vec<String> = whole.map(str::to_owned).collect();
    lines.reverse();
    lines.truncate(count);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_come_first_and_a_full_file_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let audit = FileAudit::new(directory.path());
        assert_eq!(audit.last(3).await.unwrap(), [""; 0]);
        for number in 0..4 {
            audit.add(number.to_string()).await.unwrap();
        }
        assert_eq!(audit.last(3).await.unwrap(), ["3", "2", "1"]);
        audit.add("x".repeat(FILE_BYTES_MAX as usize)).await.unwrap();
        audit.add("after".to_owned()).await.unwrap();
        assert_eq!(audit.last(3).await.unwrap(), ["after"]);
        assert!(directory.path().join("audit.1.jsonl").exists());
    }
}
