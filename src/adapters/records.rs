//! The worker's durable state: one JSON file per team in one directory, held
//! by one process.
//!
//! A save is a new file, synced, renamed over the old one, and the directory
//! synced: after a crash there is the old record or the new one, never a mix.
//! A file that does not read as a whole is set aside, because a record that is
//! half true is worse than none: without one, the team's containers are found
//! by label.

mod directory;
mod format;
mod peeking;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::record::TeamRecord;
use crate::ports::records::Records;

pub use directory::OpenError;
use directory::{Directory, Found};
pub use peeking::PeekedRecords;

/// How long a holder may take to go. A holder that works on is not waited for
/// longer than a person would notice.
const HELD_MAX: Duration = Duration::from_secs(1);

/// How often it is looked.
const HELD_POLL: Duration = Duration::from_millis(20);

/// Records in a directory that this process holds.
#[derive(Debug)]
pub struct FileRecords {
    directory: Arc<Directory>,
    /// Counts saves. A save whose future was dropped goes on in its thread,
    /// and must not overwrite a later one.
    tickets: AtomicU64,
    /// Per team, the ticket of the save that is on disk.
    saved: Mutex<HashMap<TeamId, Arc<Mutex<u64>>>>,
    /// The state that each record has, or will have when its save is done: with
    /// a thousand teams nobody reads all files for a gauge.
    states: Mutex<HashMap<TeamId, TeamState>>,
    /// Whether every file has been read once for it.
    all_read: OnceCell<()>,
}

impl FileRecords {
    /// Makes the directory if it is not there, takes it for this process until
    /// the value is dropped, and removes what an interrupted save left.
    ///
    /// # Errors
    /// Another process holds the directory, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            directory: Arc::new(Directory::open(path)?),
            tickets: AtomicU64::new(0),
            saved: Mutex::default(),
            states: Mutex::default(),
            all_read: OnceCell::new(),
        })
    }

    /// Opens like [`Self::open`], and waits a moment for a holder to go. A worker
    /// that was killed while it started a program may leave the lock with that
    /// program's half-made process for some milliseconds.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_soon(path: &Path) -> Result<Self, OpenError> {
        let deadline = Instant::now() + HELD_MAX;
        loop {
            match Self::open(path) {
                Err(OpenError::Held { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(HELD_POLL).await;
                }
                result => return result,
            }
        }
    }

    /// Where the records are.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn states_by_team(&self) -> MutexGuard<'_, HashMap<TeamId, TeamState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The team's lock: held while its file is read or replaced.
    fn saved(&self, team: &TeamId) -> Arc<Mutex<u64>> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(saved.entry(team.clone()).or_default())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let directory = Arc::clone(&self.directory);
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| work(&directory)))
            .await
            .map_err(|_| Failure::new(Code::InternalBug, "the worker's record task ended early"))?
    }
}

#[async_trait]
impl Records for FileRecords {
    async fn load(&self, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
        let team = team.clone();
        let saved = self.saved(&team);
        self.blocking(move |directory| {
            let _held = saved.lock().unwrap_or_else(PoisonError::into_inner);
            load(directory, &team)
        })
        .await
    }

    async fn save(&self, record: &TeamRecord) -> Result<(), Failure> {
        // Taken before the first await: the order of calls is the order of records.
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let text = format::write(record)?;
        let team = record.team.clone();
        let saved = self.saved(&team);
        self.states_by_team().insert(team.clone(), record.state);
        self.blocking(move |directory| save(directory, &team, &saved, ticket, &text)).await
    }

    async fn remove(&self, team: &TeamId) -> Result<(), Failure> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let team = team.clone();
        let saved = self.saved(&team);
        self.states_by_team().remove(&team);
        self.blocking(move |directory| {
            let mut last = saved.lock().unwrap_or_else(PoisonError::into_inner);
            if *last > ticket {
                return Ok(());
            }
            directory.remove(&file_name(&team)).map_err(|error| {
                tracing::error!(team.id = %team, error = %error, "cannot remove a team's record");
                Failure::new(Code::RecordIo, "the worker cannot remove the team's record")
            })?;
            *last = ticket;
            Ok(())
        })
        .await
    }

    fn pack(&self, record: &TeamRecord, bytes_max: usize) -> Result<String, Failure> {
        let mut record = record.clone();
        loop {
            let text = format::write(&record)?;
            if text.len() <= bytes_max || record.jobs.is_empty() {
                return Ok(text);
            }
            let excess = record.jobs.len().div_ceil(2);
            record.jobs.drain(..excess);
        }
    }

    fn unpack(&self, text: &str, team: &TeamId) -> Result<TeamRecord, Failure> {
        format::read(text.as_bytes(), team).map_err(|untrusted| {
            tracing::error!(team.id = %team, reason = %untrusted, "another host's record cannot be read");
            Failure::new(Code::RecordLost, "the record that came with the team cannot be read")
        })
    }

    async fn states(&self) -> Result<Vec<TeamState>, Failure> {
        let read_all = async || {
            for team in self.teams().await? {
                // One team's bad file is no trouble of the others.
                if let Ok(Some(record)) = self.load(&team).await {
                    self.states_by_team().entry(team).or_insert(record.state);
                }
            }
            Ok::<_, Failure>(())
        };
        self.all_read.get_or_try_init(read_all).await?;
        Ok(self.states_by_team().values().copied().collect())
    }

    async fn teams(&self) -> Result<Vec<TeamId>, Failure> {
        self.blocking(|directory| {
            let names = directory.names().map_err(|error| {
                tracing::error!(error = %error, "cannot list the records");
                Failure::new(Code::RecordIo, "the worker cannot list its records")
            })?;
            let mut teams: Vec<TeamId> = names
                .iter()
                .filter_map(|name| TeamId::parse(name.strip_suffix(".json")?).ok())
                .collect();
            teams.sort();
            Ok(teams)
        })
        .await
    }
}

/// The record of a team as it is on disk, for looking only: nothing is locked, set aside or
/// changed, and one that cannot be trusted is none.
#[must_use]
pub fn peek(directory: &Path, team: &TeamId) -> Option<TeamRecord> {
    read(&std::fs::read(directory.join(file_name(team))).ok()?, team)
}

/// Every record on disk, for looking only; see [`peek`].
#[must_use]
pub fn peek_all(directory: &Path) -> Vec<TeamRecord> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let teams = names.filter_map(|name| TeamId::parse(name.strip_suffix(".json")?).ok());
    teams.filter_map(|team| peek(directory, &team)).collect()
}

/// Reads the text of a team's record; none if it cannot be trusted.
#[must_use]
pub fn read(bytes: &[u8], team: &TeamId) -> Option<TeamRecord> {
    format::read(bytes, team).ok()
}

fn file_name(team: &TeamId) -> String {
    format!("{team}.json")
}

/// Puts the record on disk, unless a later save was there first.
fn save(
    directory: &Directory,
    team: &TeamId,
    saved: &Mutex<u64>,
    ticket: u64,
    text: &str,
) -> Result<(), Failure> {
    let mut last = saved.lock().unwrap_or_else(PoisonError::into_inner);
    if *last > ticket {
        return Ok(());
    }
    directory.replace(&file_name(team), text.as_bytes()).map_err(|error| {
        tracing::error!(team.id = %team, error = %error, "cannot write a team's record");
        Failure::new(Code::RecordIo, "the worker cannot write the team's record")
    })?;
    *last = ticket;
    Ok(())
}

fn load(directory: &Directory, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
    let name = file_name(team);
    let failed = |error: &std::io::Error, doing: &str| {
        tracing::error!(team.id = %team, error = %error, "cannot {doing} a team's record");
        Failure::new(Code::RecordIo, format!("the worker cannot {doing} the team's record"))
    };
    let reason = match directory.read(&name).map_err(|error| failed(&error, "read"))? {
        Found::Nothing => return Ok(None),
        Found::Bytes(bytes) => match format::read(&bytes, team) {
            Ok(record) => return Ok(Some(record)),
            Err(untrusted) => untrusted.to_string(),
        },
        Found::Foreign(what) => what.to_owned(),
    };
    let aside = directory.set_aside(&name).map_err(|error| failed(&error, "set aside"))?;
    tracing::error!(
        team.id = %team,
        reason,
        set_aside_as = aside,
        "a team's record cannot be trusted; the team counts as unknown"
    );
    Ok(None)
}

#[cfg(test)]
mod tests;
