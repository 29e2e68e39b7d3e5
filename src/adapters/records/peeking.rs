//! Records for whoever only looks: beside the process that holds the directory, nothing
//! is locked, set aside or changed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{file_name, format};
use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::record::TeamRecord;
use crate::ports::records::Records;

/// The records in a directory as they lie there.
#[derive(Debug)]
pub struct PeekedRecords {
    directory: PathBuf,
}

impl PeekedRecords {
    /// Looks into a directory, which need not be there.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(Code::RecordIo, format!("the records cannot be read: {error}"))
}

fn only_looks() -> Failure {
    Failure::new(Code::InternalBug, "whoever only looks changes no record")
}

#[async_trait]
impl Records for PeekedRecords {
    async fn load(&self, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
        let bytes = match tokio::fs::read(self.directory.join(file_name(team))).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&error)),
        };
        let record = format::read(&bytes, team);
        record.map(Some).map_err(|untrusted| {
            Failure::new(Code::RecordLost, format!("the record of {team}: {untrusted}"))
        })
    }

    async fn save(&self, _: &TeamRecord) -> Result<(), Failure> {
        Err(only_looks())
    }

    async fn remove(&self, _: &TeamId) -> Result<(), Failure> {
        Err(only_looks())
    }

    fn pack(&self, _: &TeamRecord, _: usize) -> Result<String, Failure> {
        Err(only_looks())
    }

    fn unpack(&self, _: &str, _: &TeamId) -> Result<TeamRecord, Failure> {
        Err(only_looks())
    }

    async fn states(&self) -> Result<Vec<TeamState>, Failure> {
        let mut states = Vec::new();
        for team in self.teams().await? {
            states.extend(self.load(&team).await.ok().flatten().map(|record| record.state));
        }
        Ok(states)
    }

    async fn teams(&self) -> Result<Vec<TeamId>, Failure> {
        let mut entries = match tokio::fs::read_dir(&self.directory).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&error)),
        };
        let mut teams = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(|e| unreadable(&e))? {
            let name = entry.file_name();
            let team = name.to_str().and_then(|name| name.strip_suffix(".json"));
            teams.extend(team.and_then(|team| TeamId::parse(team).ok()));
        }
        teams.sort();
        Ok(teams)
    }
}
