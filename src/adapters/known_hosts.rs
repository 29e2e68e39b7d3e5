//! The hosts that this worker has heard of, in one small file, one name a line.
//!
//! Replaced as a whole and synced, so that a crash leaves the old list or the
//! new one. A line that is no host id is left out: the list only makes the
//! dispatcher wait for somebody, and a torn name would be waited for in vain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::domain::failure::{Code, Failure};
use crate::domain::ids::HostId;
use crate::ports::ctl::KnownHosts;

const FILE_NAME: &str = "hosts";

/// A thousand hosts of the longest names, and room for what else may be in it.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The list in a directory that this process holds.
#[derive(Debug)]
pub struct FileKnownHosts {
    directory: PathBuf,
}

impl FileKnownHosts {
    /// The list in `directory`, which is there.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let directory = self.directory.clone();
        let done = tokio::task::spawn_blocking(move || work(&directory)).await;
        let done = done.unwrap_or_else(|_| Err(io::Error::other("the task ended early")));
        done.map_err(|error| {
            tracing::error!(%error, "cannot {doing} the list of known hosts");
            Failure::new(Code::RecordIo, format!("the worker cannot {doing} its list of hosts"))
        })
    }
}

#[async_trait]
impl KnownHosts for FileKnownHosts {
    async fn load(&self) -> Result<Vec<HostId>, Failure> {
        self.blocking("read", read).await
    }

    async fn save(&self, hosts: &[HostId]) -> Result<(), Failure> {
        let text: String = hosts.iter().map(|host| format!("{host}\n")).collect();
        self.blocking("write", move |directory| write(directory, &text)).await
    }
}

fn read(directory: &Path) -> io::Result<Vec<HostId>> {
    let file = match File::open(directory.join(FILE_NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| HostId::parse(line).ok()).collect())
}

fn write(directory: &Path, text: &str) -> io::Result<()> {
    let unfinished = directory.join(".new-hosts");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    // Before the rename: else the new name may hold an empty file after a power cut.
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<HostId> {
        names.iter().map(|name| HostId::parse(name).unwrap()).collect()
    }

    #[tokio::test]
    async fn the_list_outlives_the_process_and_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let known = FileKnownHosts::new(folder.path());
        assert_eq!(known.load().await.unwrap(), []);
        known.save(&hosts(&["a", "b-1"])).await.unwrap();
        known.save(&hosts(&["b-1"])).await.unwrap();
        let known = FileKnownHosts::new(folder.path());
        assert_eq!(known.load().await.unwrap(), hosts(&["b-1"]));
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [FILE_NAME]);
    }

    #[tokio::test]
    async fn what_is_no_host_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), b"a\n../x\n\xff\n\nb").unwrap();
        let known = FileKnownHosts::new(folder.path());
        assert_eq!(known.load().await.unwrap(), hosts(&["a", "b"]));
        fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
        fs::create_dir(folder.path().join(FILE_NAME)).unwrap();
        assert!(known.load().await.is_err());
    }
}
